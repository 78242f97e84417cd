"""The Slurm job that a training runs in: when it will be ended, and how it is queued again.

A training that needs longer than its job may last saves its state and has Slurm queue the same job again, until it
is done. No signal is needed for the time limit: Snakemake's own process in the job would die of it.
"""

from __future__ import annotations

import logging
import os
import subprocess
import time
from collections.abc import Callable

logger = logging.getLogger(__name__)

# A training saves that long before its job is ended, s, or a share of the time limit, whichever is shorter.
_MARGIN_S = 300.0
_MARGIN_SHARE = 0.2
_ANSWER_S = 30.0

Ask = Callable[..., str]


def _ask(*command: str) -> str:
    """Return what a command of Slurm prints; nothing if there is none, or it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_ANSWER_S)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def deadline(ask: Ask = _ask) -> float:
    """Return when a training should save and end, on the clock of `time.monotonic`, s.

    Returns
    -------
    float
        Infinity outside of a Slurm job, and for a job without a time limit.
    """
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        return float("inf")
    left, _, limit = ask("squeue", "-h", "-j", job, "-o", "%L|%l").partition("|")
    left_s, limit_s = seconds(left), seconds(limit)
    return time.monotonic() + left_s - min(_MARGIN_S, _MARGIN_SHARE * limit_s)


def queue_again(ask: Ask = _ask) -> bool:
    """Have Slurm queue this job again, which ends it; say whether it will.

    A job that somebody cancelled, or that Slurm is ending already, is left alone.
    """
    job = os.environ.get("SLURM_JOB_ID")
    if job is None or ask("squeue", "-h", "-j", job, "-o", "%T") != "RUNNING":
        return False
    logger.info("Slurm job %s is queued again and goes on from its checkpoint", job)
    ask("scontrol", "requeue", job)
    return True


def seconds(text: str) -> float:
    """Return a time as Slurm writes it (``1-02:03:04``, ``03:04``) in seconds; infinity for anything else."""
    days, _, clock = text.rpartition("-")
    try:
        parts = [int(part) for part in clock.split(":")]
        total = 86_400 * int(days or 0)
    except ValueError:
        return float("inf")
    if len(parts) < 2:
        return float("inf")
    for power, part in enumerate(reversed(parts)):
        total += part * 60**power
    return float(total)
