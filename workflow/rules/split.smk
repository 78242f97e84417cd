"""split: who trains, validates and tests.

Input: run tables and their quality, shards (is anything left of a subject?); participants.tsv for groups and strata
Output: results/split/{dataset}.json, subjects of each part and draw

Subjects never stand on two sides; a dataset of one subject may be split by run (split.by). Families stay together
(split.group). An upstream dataset is split after the downstream datasets of the same people, whom it must not hold.
"""


rule split:
    input:
        expand(layout.SPLIT, dataset=CONFIG.datasets),


rule split_dataset:
    """Draw the subjects of a dataset."""
    input:
        runs=layout.RUNS,
        subjects=dataset_batches,
        participants=split_participants,
        same_people=splits_of_same_people,
    output:
        layout.SPLIT,
    log:
        "results/logs/split/{dataset}.log",
    benchmark:
        "results/usage/split/{dataset}.tsv"
    conda:
        "../../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        role=dataset_role,
        options=split_arguments,
        seed=CONFIG.split.seed,
        qc=lambda wildcards: str(Path(layout.QC).parent).format(dataset=wildcards.dataset),
        signals=lambda wildcards: str(Path(layout.QUALITY).parent).format(dataset=wildcards.dataset),
        revision=split_revision,
    shell:
        "boldly split"
        " --dataset {wildcards.dataset:q}"
        " --runs {input.runs:q}"
        " --qc {params.qc:q}"
        " --signals {params.signals:q}"
        " --role {params.role:q}"
        " {params.options:q}"
        " --seed {params.seed:q}"
        " --output {output:q}"
        " 2> {log:q}"
