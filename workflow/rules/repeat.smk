"""-R <stage>: stages are targets without work of their own; what is repeated are the rules that write their files."""

from boldly.config import STAGES


def rules_of(stage):
    """The rules that write what a stage writes: <stage>_..., of figures figure_..."""
    prefix = "figure_" if stage == "figures" else f"{stage}_"
    return {rule.name for rule in workflow.rules if rule.name.startswith(prefix)}


def with_rules_of_stages(prepare):
    """Snakemake's preparation of the jobs, after stages that are to be repeated have become their rules."""

    def prepared(*arguments, **settings):
        forced = set(workflow.dag_settings.forcerun or ())
        stages = {stage for stage in forced.intersection(STAGES) if rules_of(stage)}
        workflow.dag_settings.forcerun = forced.union(*map(rules_of, stages)) - stages
        return prepare(*arguments, **settings)

    return prepared


# What is to be repeated is known after the rules have been read, and before the jobs are made.
workflow._prepare_dag = with_rules_of_stages(workflow._prepare_dag)
