"""Mends of Snakemake's Slurm plugin 2.8: cancelled jobs, times without an answer, nodes that are broken, GPU models."""

import subprocess
import sys

# Node, partition and state of the last attempt of a job that failed, by Snakemake's number of the job.
FAILED_ON = {}


def ask_slurm(*command):
    """The words that a command of Slurm prints; none if it fails."""
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()


def states_that_are_understood(query):
    """Slurm's answer about jobs: the first word of each state, or that nothing is known as long as there is none.

    sacct says of a cancelled job who cancelled it: "CANCELLED by 1000". The plugin compares whole states, takes this
    one for that of a job that runs, and waits for it for ever. And when Slurm does not answer, because its controller or
    database is started anew, the plugin forgets its jobs, and waits for ever as well.
    """

    async def asked(command, logger):
        states, seconds = await query(command, logger)
        if states is None:
            logger.warning("Slurm does not answer, and is asked again")
        return {job: [*state.split(), ""][0] for job, state in (states or {}).items()}, seconds or 0.0

    return asked


def with_the_node(report):
    """The plugin's report of an error, after the node has been noted."""

    def reported(executor, info, *arguments, **settings):
        format = ("--noheader", "--states=all", "--format=%N %P %T")
        FAILED_ON[info.job.jobid] = ask_slurm("squeue", *format, f"--jobs={info.external_jobid}")
        return report(executor, info, *arguments, **settings)

    return reported


def elsewhere(submit_command):
    """The plugin's command for submitting; the next attempt of a job leaves the node out on which it failed.

    Slurm may know nothing of a broken GPU or a mount that is gone. Where the partition has no other node it stays.
    """

    def command(job, params, settings=None, failed_nodes=None, **more):
        node, partition, state = (*FAILED_ON.get(job.jobid, ()), "", "", "")[:3]
        if state == "FAILED" and "[" not in node and "," not in node:
            usable = ("--noheader", "--Node", "--states=idle,mixed,allocated", "--format=%N")
            if set(ask_slurm("sinfo", *usable, f"--partition={partition}")) - {node, *(failed_nodes or ())}:
                failed_nodes = {node, *(failed_nodes or ())}
        return submit_command(job, params, settings=settings, failed_nodes=failed_nodes, **more)

    return command


def with_one_kind_of_gpu(submit_command):
    """The plugin's command for submitting, in which GPUs of each node are of the model that the job's GPUs are of.

    Slurm refuses a job that names a model once and not the other time.
    """

    def command(job, *arguments, **settings):
        call = submit_command(job, *arguments, **settings)
        model = job.resources.get("gpu_model")
        return call.replace("--gpus-per-node=", f"--gpus-per-node={model}:") if model else call

    return command


# Snakemake imports all executors that are installed before it reads rules; jobs of a cluster read them as well.
if slurm := sys.modules.get("snakemake_executor_plugin_slurm"):
    slurm.query_job_status = states_that_are_understood(slurm.query_job_status)
    slurm.get_submit_command = with_one_kind_of_gpu(elsewhere(slurm.get_submit_command))
    slurm.Executor.report_job_error = with_the_node(slurm.Executor.report_job_error)
