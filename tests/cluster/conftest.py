"""A Slurm of its own for these tests, and Snakemake run on it as a user would."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster.local_slurm import CannotStartError, LocalSlurm
from tests.workflow.conftest import Snakemake, simulated, snakemake, study

__all__ = ["simulated", "snakemake", "study"]

# Of jobs that take seconds; a site keeps the defaults of the plugin.
QUICK = ["--latency-wait", "15", "--slurm-init-seconds-before-status-checks", "2"]
_POLLING = Path(__file__).with_name("quick_polling")

Submit = Callable[..., "object"]


@pytest.fixture(scope="session")
def cluster() -> Iterator[LocalSlurm]:
    """Start a Slurm with the account that the profile names; stop it afterwards, with all its processes."""
    slurm = LocalSlurm()
    # Those who end the tests end the Slurm as well.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        try:
            slurm.start()
        except CannotStartError as error:
            # Not skipped: who asks for these tests wants to know that they did not run.
            pytest.fail(str(error), pytrace=False)
        yield slurm
    finally:
        slurm.stop()
        signal.signal(signal.SIGTERM, before)
    assert not slurm.processes(), "processes of the local Slurm are left"


@pytest.fixture(scope="session")
def quickly() -> dict[str, str]:
    """Return the environment in which the plugin looks each second whether a job has ended."""
    return {"PYTHONPATH": f"{_POLLING}:{os.environ.get('PYTHONPATH', '')}"}


@pytest.fixture(scope="session")
def submit(snakemake: Snakemake, cluster: LocalSlurm, quickly: dict[str, str]) -> Snakemake:
    """Return a function that runs Snakemake with the profile slurm in a directory with a config."""

    def run(directory: Path, *arguments: str, status: str = "sacct", **settings: object):
        command = ["--profile", "slurm", *QUICK, "--slurm-status-command", status, *arguments]
        return snakemake(directory, *command, **quickly, **settings)

    return run
