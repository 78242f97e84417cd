"""-R <stage>: stages are targets without work of their own; what is repeated are the rules that write their files."""

from boldly.config import STAGES


def work_of(stage):
    """What -R is to be given for a stage: the rules <stage>_..., or the figures that the config has data for.

    A rule of a figure has no wildcards. Snakemake runs such rules when they are named, whether or not there is data.
    """
    if stage == "figures":
        return set(figure_files())
    return {rule.name for rule in workflow.rules if rule.name.startswith(f"{stage}_")}


def with_rules_of_stages(prepare):
    """Snakemake's preparation of the jobs, after stages that are to be repeated have become their rules and files."""

    def prepared(*arguments, **settings):
        forced = set(workflow.dag_settings.forcerun or ())
        stages = {stage for stage in forced.intersection(STAGES) if work_of(stage)}
        workflow.dag_settings.forcerun = forced.union(*map(work_of, stages)) - stages
        return prepare(*arguments, **settings)

    return prepared


# What is to be repeated is known after the rules have been read, and before the jobs are made.
workflow._prepare_dag = with_rules_of_stages(workflow._prepare_dag)
