"""atlas: a published atlas, fetched once, where there is network.

Output: image, table of parcel names and record (source, citation, licence, checksums) in the folder atlas.cache

The rule runs where Snakemake runs, never as a job on a cluster. Files that were fetched elsewhere and copied into the
folder are taken as they are. An atlas given by its path needs no fetching.
"""


rule atlas:
    input:
        atlas_files(),


if CONFIG.atlas and CONFIG.atlas.fetched:

    rule fetch_atlas:
        """Fetch the atlas that the config names."""
        output:
            CONFIG.atlas.fetched,
        log:
            "results/logs/atlas/fetch.log",
        benchmark:
            "results/usage/atlas/fetch.tsv"
        localrule: True
        conda:
            "../../envs/cpu.yaml"
        params:
            atlas=options("atlas"),
        shell:
            "boldly atlas" " --atlas {params.atlas:q}" " 2> {log:q}"
