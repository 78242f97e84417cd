"""pretrain: models that learn the dynamics of brain activity from unlabelled runs.

Input: shards and splits of the upstream datasets
Output: results/models/upstream/{experiment}/: model.safetensors, config.json, contract.json, histories

A killed job resumes from its last checkpoint (results/models/upstream/{experiment}/checkpoints).
"""


rule pretrain:
    input:
        expand(
            "results/models/upstream/{experiment}/model.safetensors",
            experiment=PRETRAIN,
        ),


rule pretrain_experiment:
    """Train an upstream experiment."""
    input:
        splits=pretrain_splits,
        shards=pretrain_shards,
        initial=initial_model,
    output:
        model="results/models/upstream/{experiment}/model.safetensors",
        config="results/models/upstream/{experiment}/config.json",
        contract="results/models/upstream/{experiment}/contract.json",
        train="results/models/upstream/{experiment}/train_history.csv",
        evaluation="results/models/upstream/{experiment}/eval_history.csv",
    log:
        "results/logs/pretrain/{experiment}.log",
    benchmark:
        "results/usage/pretrain/{experiment}.tsv"
    conda:
        "../../envs/gpu.yaml"
    threads: training_cpus
    resources:
        nodes=lambda wildcards: devices(wildcards).nodes,
        gpu=lambda wildcards: devices(wildcards).nodes * devices(wildcards).gpus,
        mem_mb=training_memory,
        runtime=2880,
        # Several nodes: the job itself starts a task on each, with the GPUs of that node.
        mpi=on_nodes(lambda devices: "srun"),
        tasks=on_nodes(lambda devices: devices.nodes),
        tasks_per_gpu=on_nodes(lambda devices: 0),
        slurm_extra=on_nodes(lambda devices: f"--ntasks-per-node=1 --gpus-per-node={devices.gpus}"),
    params:
        options=experiment_options("pretrain"),
        data=pretrain_data,
        processes=lambda wildcards, resources: resources.gpu // resources.nodes,
        initial=initial_argument,
        folder=lambda wildcards: f"results/models/upstream/{wildcards.experiment}",
        revision=REVISIONS["pretrain"],
    shell:
        "boldly launch"
        " --nodes {resources.nodes:q}"
        " --processes {params.processes:q}"
        " pretrain"
        " --name {wildcards.experiment:q}"
        " --options {params.options:q}"
        " {params.data:q}"
        " {params.initial:q}"
        " --output {params.folder:q}"
        " 2> {log:q}"
