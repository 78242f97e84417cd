"""preprocess: nuisance regressors and motion quality.

Input: confounds tables of fMRIPrep
Output: results/preprocess/{dataset}/sub-{subject}_nuisance.tsv (regressors per frame), _qc.tsv (one row per run)

Runs over a threshold of preprocess.exclude are excluded; the reason stands in _qc.tsv.
"""


rule preprocess:
    input:
        [
            lambda wildcards, d=dataset: expand(
                "results/preprocess/{dataset}/sub-{subject}_qc.tsv",
                dataset=d,
                subject=subjects(d),
            )
            for dataset in PREPARED
        ],


rule preprocess_subject:
    """Write regressors and quality of a subject's runs."""
    input:
        confounds=run_tables,
        runs=ancient("results/index/{dataset}_runs.tsv"),
    output:
        nuisance="results/preprocess/{dataset}/sub-{subject}_nuisance.tsv",
        qc="results/preprocess/{dataset}/sub-{subject}_qc.tsv",
    log:
        "results/logs/preprocess/{dataset}_sub-{subject}.log",
    benchmark:
        "results/usage/preprocess/{dataset}_sub-{subject}.tsv"
    conda:
        "../../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        options=dataset_section("preprocess"),
        rows=subject_rows("confounds"),
        on_error=CONFIG.index.on_error,
        revision=REVISIONS["preprocess"],
    shell:
        "boldly preprocess"
        " --runs {input.runs:q}"
        " --subject {wildcards.subject:q}"
        " --options {params.options:q}"
        " --on-error {params.on_error:q}"
        " --nuisance {output.nuisance:q}"
        " --qc {output.qc:q}"
        " 2> {log:q}"
