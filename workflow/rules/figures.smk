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
        mem_mb=growing(2000),
        runtime=growing(10),
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
        mem_mb=growing(2000),
        runtime=growing(10),
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
    params:
        options=options("figures"),
        folders=quality_folders(PREPARED) + LAYOUT.networks_table(),
        figure=subpath(output.png, basename=True, strip_suffix=".png"),
        revision=REVISIONS["figures"],


rule figure_carpet_of_run:
    """Signals and motion of one run: snakemake results/figures/carpet/<dataset>/<run key>.png."""
    input:
        runs=layout.RUNS,
        batch=subject_batch(subject_of),
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
        mem_mb=growing(2000),
        runtime=growing(10),
    params:
        options=options("figures"),
        folders=lambda wildcards: quality_folders([wildcards.dataset]) + LAYOUT.networks_table(),
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
        LAYOUT.figure_tables("upstream_losses"),
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
        mem_mb=growing(2000),
        runtime=growing(10),
    params:
        options=options("figures"),
        figure=subpath(output.png, basename=True, strip_suffix=".png"),
        revision=REVISIONS["figures"],
    shell:
        "boldly figures"
        " --figure {params.figure}"
        " --tables {input:q}"
        " --options {params.options:q}"
        " --output {output.png:q}"
        " 2> {log:q}"


use rule figure_upstream_losses as figure_upstream_frameworks with:
    input:
        LAYOUT.figure_tables("upstream_frameworks"),
    output:
        png=report(
            "results/figures/upstream_frameworks.png",
            caption="../report/upstream_frameworks.rst",
            category="Models",
        ),
        others=multiext("results/figures/upstream_frameworks", ".pdf", ".tsv"),
    log:
        "results/logs/figures/upstream_frameworks.log",
    benchmark:
        "results/usage/figures/upstream_frameworks.tsv"


use rule figure_upstream_losses as figure_upstream_sizes with:
    input:
        LAYOUT.figure_tables("upstream_sizes"),
    output:
        png=report(
            "results/figures/upstream_sizes.png",
            caption="../report/upstream_sizes.rst",
            category="Models",
        ),
        others=multiext("results/figures/upstream_sizes", ".pdf", ".tsv"),
    log:
        "results/logs/figures/upstream_sizes.log",
    benchmark:
        "results/usage/figures/upstream_sizes.tsv"


use rule figure_upstream_losses as figure_upstream_skill with:
    input:
        LAYOUT.figure_tables("upstream_skill"),
    output:
        png=report(
            "results/figures/upstream_skill.png",
            caption="../report/upstream_skill.rst",
            category="Models",
        ),
        others=multiext("results/figures/upstream_skill", ".pdf", ".tsv"),
    log:
        "results/logs/figures/upstream_skill.log",
    benchmark:
        "results/usage/figures/upstream_skill.tsv"


use rule figure_upstream_losses as figure_upstream_errors with:
    input:
        LAYOUT.figure_tables("upstream_errors"),
    output:
        png=report(
            "results/figures/upstream_errors.png",
            caption="../report/upstream_errors.rst",
            category="Models",
        ),
        others=multiext("results/figures/upstream_errors", ".pdf", ".tsv"),
    log:
        "results/logs/figures/upstream_errors.log",
    benchmark:
        "results/usage/figures/upstream_errors.tsv"


use rule figure_upstream_losses as figure_upstream_scaling with:
    input:
        LAYOUT.figure_tables("upstream_scaling"),
    output:
        png=report(
            "results/figures/upstream_scaling.png",
            caption="../report/upstream_scaling.rst",
            category="Models",
        ),
        others=multiext("results/figures/upstream_scaling", ".pdf", ".tsv"),
    log:
        "results/logs/figures/upstream_scaling.log",
    benchmark:
        "results/usage/figures/upstream_scaling.tsv"


use rule figure_upstream_losses as figure_upstream_largest with:
    input:
        LAYOUT.figure_tables("upstream_largest"),
    output:
        png=report(
            "results/figures/upstream_largest.png",
            caption="../report/upstream_largest.rst",
            category="Models",
        ),
        others=multiext("results/figures/upstream_largest", ".pdf", ".tsv"),
    log:
        "results/logs/figures/upstream_largest.log",
    benchmark:
        "results/usage/figures/upstream_largest.tsv"


use rule figure_upstream_losses as figure_upstream_warm_start with:
    input:
        LAYOUT.figure_tables("upstream_warm_start"),
    output:
        png=report(
            "results/figures/upstream_warm_start.png",
            caption="../report/upstream_warm_start.rst",
            category="Models",
        ),
        others=multiext("results/figures/upstream_warm_start", ".pdf", ".tsv"),
    log:
        "results/logs/figures/upstream_warm_start.log",
    benchmark:
        "results/usage/figures/upstream_warm_start.tsv"


rule figure_downstream_trials:
    """Trials of each state and person, and what was left out."""
    input:
        LAYOUT.figure_tables("downstream_trials"),
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
        mem_mb=growing(2000),
        runtime=growing(10),
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
        LAYOUT.figure_tables("downstream_accuracy"),
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
        mem_mb=growing(2000),
        runtime=growing(10),
    params:
        options=options("figures"),
        revision=REVISIONS["figures"],
    shell:
        "boldly figures"
        " --figure downstream_{wildcards.view:q}"
        " --tables {input:q}"
        " --options {params.options:q}"
        " --output {output.png:q}"
        " 2> {log:q}"


rule figure_downstream_comparisons:
    """How much more accurate pretrained decoders are than baselines and controls."""
    input:
        LAYOUT.figure_tables("downstream_comparisons"),
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
        mem_mb=growing(2000),
        runtime=growing(10),
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
        LAYOUT.figure_tables("downstream_confusion"),
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
        mem_mb=growing(2000),
        runtime=growing(10),
    params:
        options=options("figures"),
        figure=subpath(output.png, basename=True, strip_suffix=".png"),
        revision=REVISIONS["figures"],
    shell:
        "boldly figures"
        " --figure {params.figure}"
        " --tables {input:q}"
        " --options {params.options:q}"
        " --output {output.png:q}"
        " 2> {log:q}"


use rule figure_downstream_confusion as figure_downstream_reliability with:
    input:
        LAYOUT.figure_tables("downstream_reliability"),
    output:
        png=report(
            "results/figures/downstream_reliability.png",
            caption="../report/downstream_reliability.rst",
            category="Decoding",
        ),
        others=multiext("results/figures/downstream_reliability", ".pdf", ".tsv"),
    log:
        "results/logs/figures/downstream_reliability.log",
    benchmark:
        "results/usage/figures/downstream_reliability.tsv"


use rule figure_downstream_confusion as figure_downstream_embedding with:
    input:
        LAYOUT.figure_tables("downstream_embedding"),
    output:
        png=report(
            "results/figures/downstream_embedding.png",
            caption="../report/downstream_embedding.rst",
            category="Decoding",
        ),
        others=multiext("results/figures/downstream_embedding", ".pdf", ".tsv"),
    log:
        "results/logs/figures/downstream_embedding.log",
    benchmark:
        "results/usage/figures/downstream_embedding.tsv"


use rule figure_downstream_confusion as figure_downstream_training with:
    input:
        LAYOUT.figure_tables("downstream_training"),
    output:
        png=report(
            "results/figures/downstream_training.png",
            caption="../report/downstream_training.rst",
            category="Decoding",
        ),
        others=multiext("results/figures/downstream_training", ".pdf", ".tsv"),
    log:
        "results/logs/figures/downstream_training.log",
    benchmark:
        "results/usage/figures/downstream_training.tsv"


use rule figure_downstream_confusion as figure_downstream_replication with:
    input:
        LAYOUT.figure_tables("downstream_replication"),
    output:
        png=report(
            "results/figures/downstream_replication.png",
            caption="../report/downstream_replication.rst",
            category="Decoding",
        ),
        others=multiext("results/figures/downstream_replication", ".pdf", ".tsv"),
    log:
        "results/logs/figures/downstream_replication.log",
    benchmark:
        "results/usage/figures/downstream_replication.tsv"


rule figure_explain:
    """What maps of decoders show (maps), how faithful they are (curves) and what they agree with (agreement)."""
    input:
        tables=lambda wildcards: LAYOUT.figure_tables(f"explain_{wildcards.view}"),
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
        view="maps|curves|agreement",
    conda:
        "../../envs/cpu.yaml"
    resources:
        mem_mb=growing(2000),
        runtime=growing(10),
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
