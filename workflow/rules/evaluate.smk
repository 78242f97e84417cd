"""evaluate: scores of all decoders of a dataset, from one pass over its fixed test trials.

Input: adapted models, shards and split
Output: results/evaluate/{dataset}_scores.tsv (tidy rows with intervals), {dataset}_comparisons.tsv (paired
differences between decoders), {dataset}_choices.tsv (what validation chose for each fit),
{dataset}_predictions.tsv.gz (probability of each state for each trial and fit)

A killed job goes on with the experiments that it has not predicted yet.
"""


rule evaluate:
    input:
        expand(layout.SCORES, dataset=LAYOUT.scored),


rule evaluate_dataset:
    """Score the decoders of a dataset."""
    input:
        models=dataset_models,
        split=layout.SPLIT,
        shards=dataset_shards,
        ceilings=dataset_ceilings,
    output:
        scores=layout.SCORES,
        comparisons=layout.COMPARISONS,
        choices=layout.CHOICES,
        predictions=layout.PREDICTIONS,
    log:
        "results/logs/evaluate/{dataset}.log",
    benchmark:
        "results/usage/evaluate/{dataset}.tsv"
    conda:
        "../../envs/gpu.yaml"
    threads: 1
    resources:
        mem_mb=growing(8000, measured="evaluate"),
        runtime=growing(240),
    params:
        options=options("evaluate"),
        models=dataset_model_folders,
        shards=dataset_shard_folder,
        ceilings=ceilings_argument,
        revision=REVISIONS["evaluate"],
    shell:
        "boldly evaluate"
        " --dataset {wildcards.dataset:q}"
        " --split {input.split:q}"
        " --shards {params.shards:q}"
        " --models {params.models:q}"
        " {params.ceilings:q}"
        " --options {params.options:q}"
        " --scores {output.scores:q}"
        " --comparisons {output.comparisons:q}"
        " --choices {output.choices:q}"
        " --predictions {output.predictions:q}"
        " 2> {log:q}"
