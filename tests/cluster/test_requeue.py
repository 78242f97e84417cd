"""A training of the workflow whose Slurm job is ended again and again: Snakemake submits it a single time."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest

from tests.cluster.local_slurm import LocalSlurm
from tests.cluster.test_faults import running
from tests.cluster.test_training import restarts, state, wait
from tests.workflow.conftest import Snakemake

pytestmark = pytest.mark.cluster

MODEL = Path("results/models/upstream/csm")
# With 0.2 s for each step: a minute, longer than a job of a minute may last before it saves.
STEPS = 300
TRAINING = f"pretrain={{experiments: {{csm: {{steps: {STEPS}, checkpoint_every: 20, evaluate_every: 100}}}}}}"


def training_job(cluster: LocalSlurm, after: int) -> str | None:
    """Return the number of a running training that was submitted after a job."""
    found = (job for comment, job in running(cluster).items() if comment.startswith("rule_pretrain_experiment"))
    return next((job for job in found if int(job) > after), None)


def test_a_training_is_submitted_once_through_limit_preemption_and_a_lost_node(
    study: Path, submit: Snakemake, snakemake: Snakemake, cluster: LocalSlurm
) -> None:
    # What stands before the training is done first, if the test of the chain has not done it.
    assert submit(study, "split", "shard", "--jobs", "8").returncode == 0
    before = max(map(int, cluster.accounting()))
    # Of a minute; a resource on the command line replaces all those of the profile.
    asked = [f"pretrain_experiment:{name}" for name in ("runtime=1", "slurm_partition=gpu", "gpu=1")]
    log = study / "results/logs/pretrain/csm.log"
    log.unlink(missing_ok=True)
    with ThreadPoolExecutor(1) as pool:
        settings = ("--set-resources", *asked, "--config", TRAINING)
        head = pool.submit(submit, study, str(MODEL / "model.safetensors"), *settings, BOLDLY_SLOW_TRAINING="1")
        wait(lambda: head.done() or training_job(cluster, before) is not None, "the training starts")
        job = training_job(cluster, before) or ""
        assert job, head.result().stderr[-4000:]

        def trains_again() -> bool:
            # Snakemake begins a log anew at each start.
            said = log.read_text() if log.exists() else ""
            return "goes on from step" in said and "saved at step" not in said

        def ended_and_running_again(count: int, how: Callable[[], None]) -> None:
            wait(lambda: count == 1 or trains_again(), "it trains")
            how()
            wait(lambda: state(cluster, job) != "" and restarts(cluster, job) >= count, f"it ends time {count}")
            wait(lambda: state(cluster, job) in ("RUNNING", "COMPLETED"), "it goes on")

        ended_and_running_again(1, lambda: None)
        urgent = ["--partition", "urgent", "--account", "default", "--nodes", "2", "--exclusive", "--time", "5"]
        ended_and_running_again(
            2, lambda: print(cluster.ask("sbatch", *urgent, "--output", "/dev/null", "--wrap", "sleep 5"))
        )
        node = cluster.ask("squeue", "-h", "-j", job, "-o", "%N").strip()
        try:
            ended_and_running_again(3, lambda: cluster.lose_node(node))
        finally:
            cluster.start_node(node)
            cluster.ask("scontrol", "update", f"NodeName={node}", "State=RESUME")
        wait(lambda: head.done() or state(cluster, job) == "COMPLETED", "the training ends", 400)
        done = head.result()
    assert done.returncode == 0, done.stderr[-4000:]
    trained = [number for number, (partition, *_) in cluster.accounting().items() if partition == "gpu"]
    assert [number for number in trained if int(number) > before] == [job], "a second job was submitted"
    history = pd.read_csv(study / MODEL / "train_history.csv")
    assert history["step"].is_monotonic_increasing
    assert history["step"].is_unique
    assert history["step"].iloc[-1] == STEPS
    # Nothing of it shows in what was trained.
    weights = (study / MODEL / "model.safetensors").read_bytes()
    again = snakemake(study, "--cores", "1", "--force", str(MODEL / "model.safetensors"), "--config", TRAINING)
    assert again.returncode == 0, again.stderr[-4000:]
    assert (study / MODEL / "model.safetensors").read_bytes() == weights
