"""parcellate: cleaned time series of each parcel.

Input: preprocessed BOLD images and brain masks, nuisance regressors, atlas
Output: results/parcellate/{dataset}/sub-{subject}_timeseries.safetensors, one (T, P) array per run; _quality.tsv

Smoothing and extraction are one matrix product; the matrix is built once per atlas, grid and kernel and kept in
results/parcellate/cache, where all jobs find it.
"""


rule parcellate:
    input:
        [
            lambda wildcards, d=dataset: expand(
                "results/parcellate/{dataset}/sub-{subject}_timeseries.safetensors",
                dataset=d,
                subject=subjects(d),
            )
            for dataset in PREPARED
        ],


rule parcellate_subject:
    """Write the time series of a subject's runs."""
    input:
        bold=run_files("bold"),
        mask=run_files("mask"),
        runs=ancient("results/index/{dataset}_runs.tsv"),
        nuisance="results/preprocess/{dataset}/sub-{subject}_nuisance.tsv",
        qc="results/preprocess/{dataset}/sub-{subject}_qc.tsv",
        atlas=atlas_files(),
    output:
        timeseries="results/parcellate/{dataset}/sub-{subject}_timeseries.safetensors",
        quality="results/parcellate/{dataset}/sub-{subject}_quality.tsv",
    log:
        "results/logs/parcellate/{dataset}_sub-{subject}.log",
    benchmark:
        "results/usage/parcellate/{dataset}_sub-{subject}.tsv"
    conda:
        "../../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        atlas=options("atlas"),
        options=dataset_section("parcellate"),
        preprocess=dataset_section("preprocess"),
        cache="results/parcellate/cache",
        rows=subject_rows("bold", "mask"),
        on_error=CONFIG.index.on_error,
        revision=REVISIONS["parcellate"],
    shell:
        "boldly parcellate"
        " --runs {input.runs:q}"
        " --subject {wildcards.subject:q}"
        " --nuisance {input.nuisance:q}"
        " --qc {input.qc:q}"
        " --atlas {params.atlas:q}"
        " --options {params.options:q}"
        " --on-error {params.on_error:q}"
        " --preprocess {params.preprocess:q}"
        " --cache {params.cache:q}"
        " --output {output.timeseries:q}"
        " --quality {output.quality:q}"
        " 2> {log:q}"
