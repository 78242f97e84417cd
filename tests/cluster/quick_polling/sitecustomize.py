"""For tests: Snakemake's Slurm plugin looks each second whether a job has ended.

It would add 10 s to the time between two looks whenever nothing has ended, too slow for jobs of seconds. Python
imports this module at its start where the folder is in PYTHONPATH.

Trainings take their time (slowly.py) where a test says so with the variable BOLDLY_SLOW_TRAINING.
"""

import os
import sys
from pathlib import Path

if any("snakemake" in word for word in sys.orig_argv):
    from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor

    RemoteExecutor.next_seconds_between_status_checks = property(
        lambda executor: 1.0, lambda executor, value: None
    )

if os.environ.get("BOLDLY_SLOW_TRAINING") and sys.orig_argv[2:4] == ["boldly", "pretrain"]:
    sys.path.append(str(Path(__file__).parents[1]))
    import slowly  # type: ignore[import-not-found]

    slowly.slow_down()
