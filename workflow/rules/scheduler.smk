"""A mend of Snakemake's scheduler, which would keep a core busy in studies of many jobs."""

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
