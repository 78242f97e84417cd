"""decode: finished decoders, applied to new people.

Input: folders of decoders (`boldly package`), fMRIPrep derivatives, BIDS folders with events
Output: results/decode/{cohort}/, a BIDS derivative: probabilities of the states per trial or sliding window and a
picture per run, scores where there are events, problems.tsv where runs are defective

One job for each person; a last one scores all of them. `boldly decode` repeats nothing that is done and unchanged.
"""


rule decode:
    input:
        expand("results/decode/{cohort}/dataset_description.json", cohort=CONFIG.decode),


rule decode_subject:
    """Decode the runs of a person."""
    input:
        decoder_config,
    output:
        touch("results/decode/parts/{cohort}/sub-{subject}.done"),
    log:
        "results/logs/decode/{cohort}/sub-{subject}.log",
    benchmark:
        "results/usage/decode/{cohort}_sub-{subject}.tsv"
    conda:
        "../../envs/gpu.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        options=decode_options,
        files=decode_files,
        revisions=DECODE_REVISIONS,
        cache="results/decode/cache",
        folder="results/decode/{cohort}",
    shell:
        "boldly decode"
        " --options {params.options:q}"
        " --participant {wildcards.subject:q}"
        " --cache {params.cache:q}"
        " --workers {threads}"
        " --no-summary"
        " --output {params.folder:q}"
        " 2> {log:q}"


rule decode_cohort:
    """Score all people together, and list the runs that are defective."""
    input:
        decode_parts,
    output:
        "results/decode/{cohort}/dataset_description.json",
    log:
        "results/logs/decode/{cohort}.log",
    benchmark:
        "results/usage/decode/{cohort}.tsv"
    conda:
        "../../envs/gpu.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(120),
    params:
        options=decode_options,
        revisions=DECODE_REVISIONS,
        cache="results/decode/cache",
        folder="results/decode/{cohort}",
    shell:
        "boldly decode"
        " --options {params.options:q}"
        " --cache {params.cache:q}"
        " --workers {threads}"
        " --output {params.folder:q}"
        " 2> {log:q}"
