"""index: the runs of a dataset, and everything that is wrong with them.

Input: fMRIPrep derivatives, events (downstream), atlas
Output: results/index/{dataset}_runs.tsv, one row per run with status and reason; {dataset}_trials.tsv, one row per
event with the frames that it gets, or why it gets none; {dataset}_labels.json

A dataset with defective runs stops here, with all problems in one table, before any long job.
"""


rule index:
    input:
        expand(layout.RUNS, dataset=CONFIG.datasets),


checkpoint index_dataset:
    """List the runs of a dataset."""
    input:
        atlas=index_atlas,
        fetched=fetched,
    output:
        runs=layout.RUNS,
        labels=layout.LABELS,
        trials=layout.TRIALS,
    log:
        "results/logs/index/{dataset}.log",
    benchmark:
        "results/usage/index/{dataset}.tsv"
    conda:
        "../../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000, measured="index"),
        runtime=growing(60),
    params:
        dataset=dataset_options,
        atlas=options("atlas"),
        options=options("index"),
        preprocess=dataset_section("preprocess"),
        window=SHORTEST_WINDOW,
        files=dataset_files,
        t_r=shard_t_r,
        revision=index_revision,
    shell:
        "boldly index"
        " --dataset {wildcards.dataset:q}"
        " --dataset-options {params.dataset:q}"
        " --atlas {params.atlas:q}"
        " --options {params.options:q}"
        " --preprocess {params.preprocess:q}"
        " --window-frames {params.window:q}"
        " --runs {output.runs:q}"
        " --labels {output.labels:q}"
        " --trials {output.trials:q}"
        " {params.t_r:q}"
        " 2> {log:q}"
