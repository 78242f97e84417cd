"""adapt: decoders of mental states from few labelled subjects.

Input: upstream models (not for all baselines), shards and split of a downstream dataset
Output: results/models/downstream/{dataset}/{experiment}/: adapt.json, one folder per size, draw and seed, and the
frozen networks of probes in encoders/

All probes of a dataset are one job, every other experiment is one of its own; a killed job goes on with the fits that
are missing.
"""


rule adapt:
    input:
        [adapted(dataset) for dataset in DOWNSTREAM],


# One process for all that need only seconds: to start one takes as long.
if PROBES:

    rule adapt_probes:
        """Fit the probes of a dataset: classifiers on what frozen networks, components or signals say of trials."""
        input:
            models=probe_files,
            split=layout.SPLIT,
            shards=dataset_shards,
        output:
            [f"{layout.DOWNSTREAM_MODELS}/{name}/{layout.ADAPTED}" for name in PROBES],
        log:
            "results/logs/adapt/{dataset}_probes.log",
        benchmark:
            "results/usage/adapt/{dataset}_probes.tsv"
        priority: 1  # it takes longest
        conda:
            "../../envs/gpu.yaml"
        threads: 1
        resources:
            mem_mb=growing(8000, measured="adapt"),
            runtime=1440,
            gpu=0,
        params:
            experiments=probe_experiments,
            shards=dataset_shard_folder,
            folder=layout.DOWNSTREAM_MODELS,
            revision=adapt_revision(PROBES),
        shell:
            "boldly adapt"
            " --dataset {wildcards.dataset:q}"
            " --experiments {params.experiments:q}"
            " --split {input.split:q}"
            " --shards {params.shards:q}"
            " --output {params.folder:q}"
            " 2> {log:q}"


rule adapt_experiment:
    """Train a downstream experiment by gradient steps, or combine others."""
    input:
        models=upstream_files,
        members=member_manifests,
        split=layout.SPLIT,
        shards=dataset_shards,
    output:
        f"{layout.DOWNSTREAM_MODEL}/{layout.ADAPTED}",
    log:
        "results/logs/adapt/{dataset}_{experiment}.log",
    benchmark:
        "results/usage/adapt/{dataset}_{experiment}.tsv"
    wildcard_constraints:
        experiment=OTHER_EXPERIMENTS,
    conda:
        "../../envs/gpu.yaml"
    threads: 1
    resources:
        mem_mb=growing(8000, measured="adapt"),
        runtime=1440,
        gpu=0,
    params:
        options=experiment_options("adapt"),
        models=upstream_arguments,
        members=member_arguments,
        shards=dataset_shard_folder,
        folder=subpath(output[0], parent=True),
        revision=lambda wildcards: adapt_revision([wildcards.experiment]),
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
