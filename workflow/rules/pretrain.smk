"""pretrain: models that learn the dynamics of brain activity from unlabelled runs.

Input: shards and splits of the upstream datasets
Output: results/corpus/{corpus}/: the runs in one file, which all processes of all experiments map, and linear fits;
results/models/upstream/{experiment}/: model.safetensors, config.json, contract.json, histories

A killed job resumes from its last checkpoint (results/models/upstream/{experiment}/checkpoints).
"""


rule pretrain:
    input:
        expand(
            f"{layout.UPSTREAM_MODEL}/model.safetensors",
            experiment=PRETRAIN,
        ),


rule pretrain_corpus:
    """Pack the runs of some datasets, once for all experiments, and fit linear forecasts to them."""
    input:
        splits=corpus_splits,
        shards=corpus_shards,
    output:
        frames=f"{layout.CORPUS}/frames.npy",
        samples=f"{layout.CORPUS}/samples.json",
        linear=f"{layout.CORPUS}/linear_1.0.safetensors",
    log:
        "results/logs/corpus/{corpus}.log",
    benchmark:
        "results/usage/corpus/{corpus}.tsv"
    conda:
        "../../envs/cpu.yaml"
    threads: corpus_threads
    resources:
        mem_mb=corpus_memory,
        runtime=growing(240),
    params:
        data=corpus_data,
        folder=subpath(output.frames, parent=True),
        revision=REVISIONS["pretrain"],
    shell:
        "boldly corpus" " {params.data:q}" " --threads {threads:q}" " --output {params.folder:q}" " 2> {log:q}"


rule pretrain_share:
    """Fit linear forecasts to a share of the training subjects (subjects_fraction)."""
    input:
        splits=corpus_splits,
        frames=f"{layout.CORPUS}/frames.npy",
        samples=f"{layout.CORPUS}/samples.json",
    output:
        f"{layout.CORPUS}/linear_{{share}}.safetensors",
    log:
        "results/logs/corpus/{corpus}_{share}.log",
    benchmark:
        "results/usage/corpus/{corpus}_{share}.tsv"
    wildcard_constraints:
        share=r"0\.[0-9]+|[0-9.]+e-[0-9]+",
    conda:
        "../../envs/cpu.yaml"
    threads: 4
    resources:
        mem_mb=corpus_memory,
        runtime=growing(240),
    params:
        data=corpus_data,
        folder=subpath(output[0], parent=True),
        revision=REVISIONS["pretrain"],
    shell:
        "boldly corpus"
        " {params.data:q}"
        " --share {wildcards.share:q}"
        " --output {params.folder:q}"
        " 2> {log:q}"


rule pretrain_experiment:
    """Train an upstream experiment."""
    input:
        splits=pretrain_splits,
        corpus=pretrain_corpus,
        shards=pretrain_shards,
        initial=initial_model,
        deepspeed=deepspeed_settings,
    output:
        model=f"{layout.UPSTREAM_MODEL}/model.safetensors",
        config=f"{layout.UPSTREAM_MODEL}/config.json",
        contract=f"{layout.UPSTREAM_MODEL}/contract.json",
        train=f"{layout.UPSTREAM_MODEL}/train_history.csv",
        evaluation=f"{layout.UPSTREAM_MODEL}/eval_history.csv",
        parcels=f"{layout.UPSTREAM_MODEL}/parcel_errors.tsv",
    log:
        "results/logs/pretrain/{experiment}.log",
    benchmark:
        "results/usage/pretrain/{experiment}.tsv"
    wildcard_constraints:
        experiment=UPSTREAM_EXPERIMENTS,
    conda:
        "../../envs/gpu.yaml"
    threads: training_cpus
    resources:
        nodes=lambda wildcards: devices(wildcards).nodes,
        gpu=lambda wildcards: devices(wildcards).nodes * devices(wildcards).gpus,
        mem_mb=training_memory,
        runtime=1440,  # a training that needs longer saves and is queued again by itself
        # Several nodes: the job itself starts a task on each, with the GPUs of that node.
        mpi=on_nodes(lambda devices: "srun"),
        tasks=on_nodes(lambda devices: devices.nodes),
        tasks_per_gpu=on_nodes(lambda devices: 0),
        slurm_extra=training_extra,
    params:
        options=experiment_options("pretrain"),
        data=pretrain_data,
        corpus=corpus_argument,
        processes=lambda wildcards, resources: resources.gpu // resources.nodes,
        initial=initial_argument,
        folder=lambda wildcards: LAYOUT.model_folder(wildcards.experiment),
        revision=pretrain_revision,
    shell:
        # exec: signals reach the training, not a shell that would die of them and leave it to be killed.
        "exec boldly launch"
        " --nodes {resources.nodes:q}"
        " --processes {params.processes:q}"
        " pretrain"
        " --name {wildcards.experiment:q}"
        " --options {params.options:q}"
        " {params.data:q}"
        " {params.corpus:q}"
        " {params.initial:q}"
        " --output {params.folder:q}"
        " 2>> {log:q}"
