"""explain: which parcels made decoders say so, per state, and how far such maps can be trusted.

Input: adapted models, shards, atlas, time series and trials of a downstream dataset
Output: results/explain/{dataset}/{experiment}/: maps.tsv, curves.tsv, summary.tsv, about.json, and folders of NIfTI
images, pictures and interactive pages

All experiments of a dataset are one job: to start one takes as long as to explain a decoder.
"""


rule explain:
    input:
        explained(),


# Where nothing is explained there is no output that could name a dataset.
if EXPLAINED:

    rule explain_dataset:
        """Explain decoders of a dataset."""
        input:
            models=explained_models,
            shards=dataset_shards,
            atlas=explain_atlas,
            truth=dataset_truth,
            trials=ancient(explain_trials),
        output:
            expand(
                layout.EXPLANATION_TABLE,
                allow_missing=True,
                experiment=EXPLAINED,
                table=layout.EXPLANATION_TABLES,
            ),
            [directory(folder) for folder in explained_folders_to_write()],
        log:
            "results/logs/explain/{dataset}.log",
        benchmark:
            "results/usage/explain/{dataset}.tsv"
        conda:
            "../../envs/gpu.yaml"
        threads: 1
        resources:
            mem_mb=growing(8000, measured="explain"),
            runtime=growing(240),
            gpu=0,
        params:
            options=options("explain"),
            models=explained_folders,
            shards=dataset_shard_folder,
            known=explain_arguments,
            events=explain_events,
            folder="results/explain/{dataset}",
            revision=REVISIONS["explain"],
        shell:
            "boldly explain"
            " --dataset {wildcards.dataset:q}"
            " --models {params.models:q}"
            " --shards {params.shards:q}"
            " {params.known:q}"
            " --options {params.options:q}"
            " --output {params.folder:q}"
            " 2> {log:q}"
