"""figures: the pictures of the report, each drawn from tables alone.

Input: tables of the stages before
Output: results/figures/{figure}.png, .pdf and the drawn table .tsv
"""


rule figures:
    input:
        figure_files(),


rule figure_upstream_data:
    """Subjects and runs of the upstream datasets (figure 2 of the preprint)."""
    input:
        qc=upstream_quality_tables,
        runs=expand(layout.RUNS, dataset=UPSTREAM),
    output:
        png=report(
            "results/figures/upstream_data.png",
            caption="../report/upstream_data.rst",
            category="Data",
        ),
        others=multiext("results/figures/upstream_data", ".pdf", ".tsv"),
    log:
        "results/logs/figures/upstream_data.log",
    benchmark:
        "results/usage/figures/upstream_data.tsv"
    conda:
        "../../envs/cpu.yaml"
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        options=options("figures"),
        folders=quality_folders(UPSTREAM),
        revision=REVISIONS["figures"],
    shell:
        "boldly figures"
        " --figure upstream_data"
        " --tables {input.runs:q} {params.folders:q}"
        " --options {params.options:q}"
        " --output {output.png:q}"
        " 2> {log:q}"


rule figure_quality:
    """Motion quality of all runs, and the runs that are excluded."""
    input:
        qc=quality_tables,
        runs=expand(layout.RUNS, dataset=PREPARED),
    output:
        png=report(
            "results/figures/quality.png",
            caption="../report/quality.rst",
            category="Data",
        ),
        others=multiext("results/figures/quality", ".pdf", ".tsv"),
    log:
        "results/logs/figures/quality.log",
    benchmark:
        "results/usage/figures/quality.tsv"
    conda:
        "../../envs/cpu.yaml"
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        options=options("figures"),
        folders=quality_folders(PREPARED),
        figure=subpath(output.png, basename=True, strip_suffix=".png"),
        revision=REVISIONS["figures"],
    shell:
        "boldly figures"
        " --figure {params.figure}"
        " --tables {input.runs:q} {params.folders:q}"
        " --options {params.options:q}"
        " --output {output.png:q}"
        " 2> {log:q}"


use rule figure_quality as figure_excluded with:
    output:
        png=report(
            "results/figures/excluded.png",
            caption="../report/excluded.rst",
            category="Data",
        ),
        others=multiext("results/figures/excluded", ".pdf", ".tsv"),
    log:
        "results/logs/figures/excluded.log",
    benchmark:
        "results/usage/figures/excluded.tsv"


use rule figure_quality as figure_carpet with:
    output:
        png=report(
            "results/figures/carpet.png",
            caption="../report/carpet.rst",
            category="Data",
        ),
        others=multiext("results/figures/carpet", ".pdf", ".tsv"),
    log:
        "results/logs/figures/carpet.log",
    benchmark:
        "results/usage/figures/carpet.tsv"


rule figure_carpet_of_run:
    """Signals and motion of one run: snakemake results/figures/carpet/<dataset>/<run key>.png."""
    input:
        runs=layout.RUNS,
        nuisance=lambda wildcards: layout.NUISANCE.format(dataset=wildcards.dataset, subject=subject_of(wildcards)),
        series=lambda wildcards: layout.TIMESERIES.format(dataset=wildcards.dataset, subject=subject_of(wildcards)),
    output:
        png=layout.CARPET,
        others=multiext("results/figures/carpet/{dataset}/{key}", ".pdf", ".tsv"),
    log:
        "results/logs/figures/carpet_{dataset}_{key}.log",
    benchmark:
        "results/usage/figures/carpet_{dataset}_{key}.tsv"
    wildcard_constraints:
        key="ds-[^/]+",
    conda:
        "../../envs/cpu.yaml"
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        options=options("figures"),
        folders=lambda wildcards: quality_folders([wildcards.dataset]),
        revision=REVISIONS["figures"],
    shell:
        "boldly figures"
        " --figure carpet"
        " --key {wildcards.key:q}"
        " --tables {input.runs:q} {params.folders:q}"
        " --options {params.options:q}"
        " --output {output.png:q}"
        " 2> {log:q}"


rule figure_upstream_losses:
    """Training and validation loss of each framework (figure 4)."""
    input:
        expand(
            layout.UPSTREAM_MODEL + "/{kind}_history.csv",
            experiment=PRETRAIN,
            kind=["train", "eval"],
        ),
    output:
        png=report(
            "results/figures/upstream_losses.png",
            caption="../report/upstream_losses.rst",
            category="Models",
        ),
        others=multiext("results/figures/upstream_losses", ".pdf", ".tsv"),
    log:
        "results/logs/figures/upstream_losses.log",
    benchmark:
        "results/usage/figures/upstream_losses.tsv"
    conda:
        "../../envs/cpu.yaml"
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        options=options("figures"),
        revision=REVISIONS["figures"],
    shell:
        "boldly figures"
        " --figure upstream_losses"
        " --tables {input:q}"
        " --options {params.options:q}"
        " --output {output.png:q}"
        " 2> {log:q}"


rule figure_downstream_trials:
    """Trials of each state and person, and what was left out."""
    input:
        expand(layout.TRIALS, dataset=DOWNSTREAM),
    output:
        png=report(
            "results/figures/downstream_trials.png",
            caption="../report/downstream_trials.rst",
            category="Data",
        ),
        others=multiext("results/figures/downstream_trials", ".pdf", ".tsv"),
    log:
        "results/logs/figures/downstream_trials.log",
    benchmark:
        "results/usage/figures/downstream_trials.tsv"
    conda:
        "../../envs/cpu.yaml"
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        options=options("figures"),
        revision=REVISIONS["figures"],
    shell:
        "boldly figures"
        " --figure downstream_trials"
        " --tables {input:q}"
        " --options {params.options:q}"
        " --output {output.png:q}"
        " 2> {log:q}"


rule figure_downstream:
    """Decoding accuracy by number of training subjects: heat map (figure 5) or curves."""
    input:
        scores=expand(layout.SCORES, dataset=DOWNSTREAM),
        comparisons=expand(layout.COMPARISONS, dataset=DOWNSTREAM),
    output:
        png=report(
            "results/figures/downstream_{view}.png",
            caption="../report/downstream.rst",
            category="Decoding",
        ),
        others=multiext("results/figures/downstream_{view}", ".pdf", ".tsv"),
    log:
        "results/logs/figures/downstream_{view}.log",
    benchmark:
        "results/usage/figures/downstream_{view}.tsv"
    wildcard_constraints:
        view="accuracy|curves",
    conda:
        "../../envs/cpu.yaml"
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        options=options("figures"),
        revision=REVISIONS["figures"],
    shell:
        "boldly figures"
        " --figure downstream_{wildcards.view:q}"
        " --tables {input.scores:q} {input.comparisons:q}"
        " --options {params.options:q}"
        " --output {output.png:q}"
        " 2> {log:q}"


rule figure_downstream_comparisons:
    """How much more accurate pretrained decoders are than baselines and controls."""
    input:
        expand(layout.COMPARISONS, dataset=DOWNSTREAM),
    output:
        png=report(
            "results/figures/downstream_comparisons.png",
            caption="../report/downstream_comparisons.rst",
            category="Decoding",
        ),
        others=multiext("results/figures/downstream_comparisons", ".pdf", ".tsv"),
    log:
        "results/logs/figures/downstream_comparisons.log",
    benchmark:
        "results/usage/figures/downstream_comparisons.tsv"
    conda:
        "../../envs/cpu.yaml"
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        options=options("figures"),
        revision=REVISIONS["figures"],
    shell:
        "boldly figures"
        " --figure downstream_comparisons"
        " --tables {input:q}"
        " --options {params.options:q}"
        " --output {output.png:q}"
        " 2> {log:q}"


rule figure_downstream_confusion:
    """Which states are taken for which."""
    input:
        expand(layout.PREDICTIONS, dataset=DOWNSTREAM),
    output:
        png=report(
            "results/figures/downstream_confusion.png",
            caption="../report/downstream_confusion.rst",
            category="Decoding",
        ),
        others=multiext("results/figures/downstream_confusion", ".pdf", ".tsv"),
    log:
        "results/logs/figures/downstream_confusion.log",
    benchmark:
        "results/usage/figures/downstream_confusion.tsv"
    conda:
        "../../envs/cpu.yaml"
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        options=options("figures"),
        revision=REVISIONS["figures"],
    shell:
        "boldly figures"
        " --figure downstream_confusion"
        " --tables {input:q}"
        " --options {params.options:q}"
        " --output {output.png:q}"
        " 2> {log:q}"


rule figure_explain:
    """What maps of decoders show (maps), how faithful they are (curves) and what they agree with (agreement)."""
    input:
        tables=lambda wildcards: [f"{folder}/{EXPLAIN_TABLES[wildcards.view]}.tsv" for folder in LAYOUT.explanations],
    output:
        png=report(
            "results/figures/explain_{view}.png",
            caption="../report/explain.rst",
            category="Explanation",
        ),
        others=multiext("results/figures/explain_{view}", ".pdf", ".tsv"),
    log:
        "results/logs/figures/explain_{view}.log",
    benchmark:
        "results/usage/figures/explain_{view}.tsv"
    wildcard_constraints:
        view="|".join(EXPLAIN_TABLES),
    conda:
        "../../envs/cpu.yaml"
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        options=options("figures"),
        revision=REVISIONS["figures"],
    shell:
        "boldly figures"
        " --figure explain_{wildcards.view:q}"
        " --tables {input.tables:q}"
        " --options {params.options:q}"
        " --output {output.png:q}"
        " 2> {log:q}"
