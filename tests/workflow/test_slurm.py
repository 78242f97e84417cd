"""The reduced demo on a real Slurm with emulated nodes: `make test-cluster`."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.workflow.conftest import CHECKOUT, Snakemake

KIT = Path(os.environ.get("SLURM_KIT", CHECKOUT.parent / "shared/slurm"))

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Start a throw-away Slurm whose account is the one that the profile names; stop it afterwards."""
    if not (KIT / "start-local-slurm.sh").exists():
        pytest.skip("no folder that starts a local Slurm: set SLURM_KIT")
    if os.geteuid() != 0:
        pytest.skip("starting a local Slurm needs root")
    state = tmp_path_factory.mktemp("slurm")
    environment = {**os.environ, "LOCAL_SLURM_ACCOUNT": "default"}
    subprocess.run([KIT / "start-local-slurm.sh", state], env=environment, check=True)
    # The plugin adds 10 s to its polling interval each time nothing has finished: too slow for jobs of seconds.
    yield {"PYTHONPATH": str(KIT / "fastpoll"), "SNAKEMAKE_SLURM_POLL_SECONDS": "1"}
    subprocess.run([KIT / "stop-local-slurm.sh", "--purge", state], check=True)


def test_the_chain_runs_as_slurm_jobs(study: Path, snakemake: Snakemake, cluster: dict[str, str]) -> None:
    run = snakemake(
        study,
        "--profile",
        "slurm",
        "--jobs",
        "8",
        "--latency-wait",
        "15",
        "--slurm-init-seconds-before-status-checks",
        "2",
        "--slurm-status-command",
        "squeue",
        **cluster,
    )
    assert run.returncode == 0, run.stderr[-4000:]
    assert (study / "results/figures/downstream_accuracy.png").exists()

    jobs = accounting()
    print("\n".join("  ".join(job) for job in jobs))
    assert all(state == "COMPLETED" for _, _, state, _, _ in jobs)
    comments = [comment for comment, *_ in jobs]
    for rule in (
        "index_dataset preprocess_subject parcellate_subject shard_subject split_dataset pretrain_experiment "
        "adapt_experiment evaluate_dataset figure_upstream_losses figure_downstream"
    ).split():
        assert any(rule in comment for comment in comments), f"{rule} did not run as a Slurm job"
    trained = [(partition, tres) for comment, partition, _, tres, _ in jobs if "pretrain_experiment" in comment]
    assert all(partition == "gpu" and "gres/gpu=1" in tres for partition, tres in trained)


def accounting() -> list[tuple[str, ...]]:
    """Return comment (rule and wildcards), partition, state, resources and seconds of each job."""
    columns = "Comment%60,Partition,State,AllocTRES%60,ElapsedRaw"
    table = subprocess.run(
        ["sacct", "-X", "-n", "-P", "-o", columns], capture_output=True, text=True, check=True
    ).stdout
    return [tuple(line.split("|")) for line in table.splitlines()]
