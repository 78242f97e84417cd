"""shard: samples for training, as WebDataset tars.

Input: time series, trials and framewise displacement (downstream)
Output: data/{role}/ds-{dataset}_sub-{subject}.tar, one sample per run (upstream) or per trial (downstream)
"""


rule shard:
    input:
        [lambda wildcards, d=dataset: shards(d) for dataset in PREPARED],


rule shard_subject:
    """Write the samples of a subject."""
    input:
        confounds=run_files("confounds"),
        runs=ancient("results/index/{dataset}_runs.tsv"),
        labels=ancient("results/index/{dataset}_labels.json"),
        trials=ancient("results/index/{dataset}_trials.tsv"),
        timeseries="results/parcellate/{dataset}/sub-{subject}_timeseries.safetensors",
    output:
        "data/{role}/ds-{dataset}_sub-{subject}.tar",
    log:
        "results/logs/shard/{role}_{dataset}_sub-{subject}.log",
    benchmark:
        "results/usage/shard/{role}_{dataset}_sub-{subject}.tsv"
    wildcard_constraints:
        role="upstream|downstream",
    conda:
        "../../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        options=options("shard"),
        task=trial_options,
        window=SHORTEST_WINDOW,
        rows=subject_rows("confounds"),
        trials=subject_trials,
        labels=dataset_labels,
        on_error=CONFIG.index.on_error,
        problems="results/shard/{dataset}/sub-{subject}_problems.tsv",
        revision=REVISIONS["shard"],
    shell:
        "boldly shard"
        " --timeseries {input.timeseries:q}"
        " --runs {input.runs:q}"
        " --subject {wildcards.subject:q}"
        " --role {wildcards.role:q}"
        " --labels {input.labels:q}"
        " --trials {input.trials:q}"
        " {params.task:q}"
        " --window-frames {params.window:q}"
        " --options {params.options:q}"
        " --on-error {params.on_error:q}"
        " --problems {params.problems:q}"
        " --output {output:q}"
        " 2> {log:q}"
