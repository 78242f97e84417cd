"""boldly: from fMRIPrep derivatives to trained decoders of mental states.

index -> preprocess -> parcellate -> shard -> split -> pretrain -> adapt -> evaluate -> explain -> figures

    snakemake --cores 2              everything, on this machine
    snakemake --cores 2 parcellate   everything up to one stage
    snakemake --profile slurm        everything, on a cluster
    snakemake --report report.html   the report
"""

from snakemake.utils import min_version

min_version("9.0")

# A config named on the command line replaces the default one: merging two would mix their datasets.
if not workflow.overwrite_configfiles:

    configfile: Path(workflow.current_basedir.get_path_or_uri(secret_free=True)) / "config" / "config.yaml"


report: "workflow/report/workflow.rst"


include: "workflow/rules/scheduler.smk"
include: "workflow/rules/slurm.smk"
include: "workflow/rules/messages.smk"
include: "workflow/rules/common.smk"


rule all:
    default_target: True
    input:
        figure_files(),
        explained(),
        layout.REPORT,
        export_files,


include: "workflow/rules/atlas.smk"
include: "workflow/rules/fetch.smk"
include: "workflow/rules/index.smk"
include: "workflow/rules/prepare.smk"
include: "workflow/rules/preprocess.smk"
include: "workflow/rules/parcellate.smk"
include: "workflow/rules/shard.smk"
include: "workflow/rules/export.smk"
include: "workflow/rules/split.smk"
include: "workflow/rules/pretrain.smk"
include: "workflow/rules/adapt.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/explain.smk"
include: "workflow/rules/decode.smk"
include: "workflow/rules/figures.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/repeat.smk"
