"""prepare: preprocess, parcellate and shard, for many subjects in one job.

Input: the tables of index, and the images and confounds tables that they name; atlas
Output: results/prepare/{dataset}/{stage}_{batch}.json, which stands for what the stages up to this one wrote of the
batch's subjects, with checksums; sub-{subject}.json, what was done with what, and how long it took

The files of the three stages are those of each subject. Only what is stale is made again: a subject whose rows, files or
options changed, that is new, that failed, or of which a file is gone or cut; -R parcellate repeats a stage for all. Each
subject has a log, results/logs/prepare/{dataset}/sub-{subject}.log.
"""


rule prepare_batch:
    """Bring the subjects of a batch up to date."""
    input:
        runs=ancient(layout.RUNS),
        labels=ancient(layout.LABELS),
        trials=ancient(layout.TRIALS),
        atlas=atlas_files(),
    output:
        layout.BATCH,
    log:
        "results/logs/prepare/{dataset}/{stage}_{batch}.log",
    benchmark:
        "results/usage/prepare/{dataset}_{stage}_{batch}.tsv"
    conda:
        "../../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000, measured="prepare"),
        runtime=batch_minutes,
    params:
        role=dataset_role,
        options=prepare_options,
        subjects=batch_inputs,
        labels=dataset_labels,
        revisions=[REVISIONS[stage] for stage in batches.STAGES],
    shell:
        "boldly prepare"
        " --dataset {wildcards.dataset:q}"
        " --role {params.role:q}"
        " --batch {wildcards.batch:q}"
        " --until {wildcards.stage:q}"
        " --options {params.options:q}"
        " 2> {log:q}"
