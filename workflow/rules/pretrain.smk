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
    threads: 1
    resources:
        mem_mb=8000,
        runtime=2880,
        gpu=0,
    params:
        options=experiment_options("pretrain"),
        data=pretrain_data,
        initial=initial_argument,
        folder=lambda wildcards: f"results/models/upstream/{wildcards.experiment}",
        revision=REVISIONS["pretrain"],
    shell:
        "boldly launch"
        " --processes {resources.gpu:q}"
        " pretrain"
        " --name {wildcards.experiment:q}"
        " --options {params.options:q}"
        " {params.data:q}"
        " {params.initial:q}"
        " --output {params.folder:q}"
        " 2> {log:q}"
