"""Mends of Snakemake's scheduler, which would keep a core busy in studies of many jobs, and of its Slurm plugin."""

import sys
import threading

from snakemake.scheduling.job_scheduler import JobScheduler


def look_again(scheduler, delay):
    """Have the scheduler look for free slots once more after a delay (s), one such look at a time.

    Up to Snakemake 9.27 each look asks for the next one, and each job that ends starts another chain of looks that
    goes on to the end: after 1,000 jobs the scheduler looks through all ready jobs and their inputs 1,000 times a second.
    """
    if getattr(scheduler, "will_look_again", False):
        return

    def look():
        scheduler.will_look_again = False
        scheduler._open_jobs.release()

    scheduler.will_look_again = True
    threading.Timer(delay, look).start()


# The spelling is Snakemake's. A version without this method needs no mending.
if hasattr(JobScheduler, "_schedule_reevalutation"):
    JobScheduler._schedule_reevalutation = look_again


def states_in_one_word(query):
    """Slurm's answer about jobs, with the first word of each state alone.

    sacct says of a cancelled job who cancelled it: "CANCELLED by 1000". The plugin (2.8) compares whole states, takes
    this one for that of a job that runs, and waits for it for ever.
    """

    async def asked(command, logger):
        states, seconds = await query(command, logger)
        if states is not None:
            states = {job: state.split()[0] if state.split() else state for job, state in states.items()}
        return states, seconds

    return asked


# Snakemake imports all executors that are installed before it reads rules; jobs of a cluster read them as well.
if slurm := sys.modules.get("snakemake_executor_plugin_slurm"):
    slurm.query_job_status = states_in_one_word(slurm.query_job_status)
