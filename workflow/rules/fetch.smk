"""fetch: files of datasets that are elsewhere, brought here once, where there is network.

Output: the files, below the folders that the dataset names; results/fetch/{dataset}.json, how many there are

The rule runs where Snakemake runs, never as a job on a cluster. It is there for datasets with the option fetch alone.
"""


rule fetch:
    input:
        expand(layout.FETCHED, dataset=FETCHED),


checkpoint fetch_dataset:
    """Bring the files of a dataset here that boldly reads, with DataLad or from an S3 bucket."""
    output:
        layout.FETCHED,
    log:
        "results/logs/fetch/{dataset}.log",
    benchmark:
        "results/usage/fetch/{dataset}.tsv"
    localrule: True
    conda:
        "../../envs/cpu.yaml"
    params:
        dataset=fetch_options,
    shell:
        "boldly fetch" " --dataset-options {params.dataset:q}" " --output {output:q}" " 2> {log:q}"
