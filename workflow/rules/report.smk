"""report: one page about the study, from its tables, manifests and figures.

Input: run tables, scores, figures
Output: results/report.html, which needs no other file; results/report.bib, its references; results/report_methods.md,
its methods; results/study.json, the config and what the datasets say of themselves, for `boldly report` by hand
"""


rule report:
    """Write the page about the study."""
    input:
        tables=report_tables(),
        figures=figure_files(),
    output:
        page=layout.REPORT,
        references=layout.REPORT.replace(".html", ".bib"),
        methods=layout.REPORT.replace(".html", "_methods.md"),
        study="results/study.json",
    log:
        "results/logs/report.log",
    benchmark:
        "results/usage/report/report.tsv"
    conda:
        "../../envs/cpu.yaml"
    resources:
        mem_mb=growing(2000),
        runtime=growing(10),
    params:
        # On standard input: the config of many experiments is longer than an argument may be. What jobs run on
        # changes no page: a study that moves to a cluster keeps its report.
        config=CONFIG.model_dump_json(exclude={"devices", "batches"}),
    shell:
        "boldly report" " --config -" " --output {output.page:q}" " <<< {params.config:q}" " > {log:q} 2>&1"
