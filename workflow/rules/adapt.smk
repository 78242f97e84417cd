"""adapt: decoders of mental states from few labelled subjects.

Input: upstream models (not for all baselines), shards and split of a downstream dataset
Output: results/models/downstream/{dataset}/{experiment}/: adapt.json, one folder per size, draw and seed, and the
frozen networks of probes in encoders/

One job trains all of them; a killed job goes on with those that are missing.
"""


rule adapt:
    input:
        [adapted(dataset) for dataset in DOWNSTREAM],


rule adapt_experiment:
    """Train a downstream experiment."""
    input:
        models=upstream_files,
        members=member_manifests,
        split="results/split/{dataset}.json",
        shards=dataset_shards,
    output:
        "results/models/downstream/{dataset}/{experiment}/adapt.json",
    log:
        "results/logs/adapt/{dataset}_{experiment}.log",
    benchmark:
        "results/usage/adapt/{dataset}_{experiment}.tsv"
    conda:
        "../../envs/gpu.yaml"
    threads: 1
    resources:
        mem_mb=8000,
        runtime=1440,
        gpu=0,
    params:
        options=experiment_options("adapt"),
        models=upstream_arguments,
        members=member_arguments,
        shards=dataset_shard_folder,
        folder=subpath(output[0], parent=True),
        revision=REVISIONS["adapt"],
    shell:
        "boldly adapt"
        " --name {wildcards.experiment:q}"
        " --dataset {wildcards.dataset:q}"
        " --options {params.options:q}"
        " --split {input.split:q}"
        " --shards {params.shards:q}"
        " {params.models:q}"
        " {params.members:q}"
        " --output {params.folder:q}"
        " 2> {log:q}"
