"""export: prepared data for other tools, for those layouts that the config names.

Input: shards (lfb), time series and atlas (bids)
Output: data/lfb/{role}/ds-{dataset}_sub-{subject}_*.tar, one tar of pickled arrays per run, for Learning from Brains;
results/export/{dataset}/, a BIDS derivative with a TSV and a JSON file per run; and a list of files per subject
"""


rule export:
    input:
        export_files,


rule export_lfb:
    """Write the samples of a subject for Learning from Brains."""
    input:
        subject_batch(lambda wildcards: wildcards.subject),
    output:
        "results/export/{dataset}_sub-{subject}_lfb.json",
    log:
        "results/logs/export/{dataset}_sub-{subject}_lfb.log",
    benchmark:
        "results/usage/export/{dataset}_sub-{subject}_lfb.tsv"
    conda:
        "../../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(30),
    params:
        shard=lambda wildcards: LAYOUT.shard(wildcards.dataset, wildcards.subject),
        folder=lambda wildcards: f"data/lfb/{dataset_role(wildcards)}",
    shell:
        "boldly export"
        " --layout lfb"
        " --input {params.shard:q}"
        " --folder {params.folder:q}"
        " --output {output:q}"
        " 2> {log:q}"


rule export_bids:
    """Write the time series of a subject as TSV and JSON."""
    input:
        batch=subject_batch(lambda wildcards: wildcards.subject),
        atlas=atlas_files(),
        names=LAYOUT.atlas_names(),
    output:
        "results/export/{dataset}_sub-{subject}_bids.json",
    log:
        "results/logs/export/{dataset}_sub-{subject}_bids.log",
    benchmark:
        "results/usage/export/{dataset}_sub-{subject}_bids.tsv"
    conda:
        "../../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(30),
    params:
        atlas=options("atlas"),
        timeseries=layout.TIMESERIES,
        folder="results/export/{dataset}",
    shell:
        "boldly export"
        " --layout bids"
        " --input {params.timeseries:q}"
        " --atlas {params.atlas:q}"
        " --dataset {wildcards.dataset:q}"
        " --folder {params.folder:q}"
        " --output {output:q}"
        " 2> {log:q}"
