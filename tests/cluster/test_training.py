"""Trainings whose Slurm jobs are cancelled, or run on a node that is drained; test_requeue.py has the others."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from boldly.config import PretrainOptions
from tests.cluster.local_slurm import LocalSlurm
from tests.training import launcher, synthetic

pytestmark = pytest.mark.cluster

SLOWLY = Path(__file__).with_name("slowly.py")
# Half a minute: a job of it is cancelled, or its node drained, before it is done.
STEPS, STEP_S = 300, 0.1
OPTIONS = {
    "framework": "csm",
    "layers": 1,
    "width": 16,
    "heads": 2,
    "steps": STEPS,
    "batch_size": 8,
    "dropout": 0.0,
}
OPTIONS |= {"learning_rate": 1e-3, "evaluate_every": 50, "validation_windows": 16, "window_frames": (6, 12)}
OPTIONS |= {"checkpoint_every": 20}

Train = Callable[..., str]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> list:
    return synthetic.upstream_study(tmp_path_factory.mktemp("upstream"), n_subjects=4)


@pytest.fixture(scope="module")
def weights(data: list, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return the weights of a training that nothing disturbed."""
    output = tmp_path_factory.mktemp("whole")
    arguments = launcher.pretrain(data, output, PretrainOptions.model_validate(OPTIONS))
    subprocess.run([sys.executable, "-m", "boldly", *arguments], check=True)
    return (output / "model.safetensors").read_bytes()


@pytest.fixture
def train(data: list, cluster: LocalSlurm, tmp_path: Path) -> Train:
    """Return a function that submits the training, slowed down, and returns the number of the job."""

    def submit() -> str:
        arguments = launcher.pretrain(data, tmp_path / "model", PretrainOptions.model_validate(OPTIONS))
        script = tmp_path / "job.sh"
        script.write_text(f"#!/bin/sh\nexec srun {shlex.join([sys.executable, str(SLOWLY), *arguments])}\n")
        asked = ["--partition", "gpu", "--account", "default", "--mem", "3000", "--gpus-per-node", "1"]
        asked += ["--requeue", "--open-mode=append", "--output", str(tmp_path / "log"), "--time", "30"]
        asked += ["--export", f"ALL,STEP_S={STEP_S}"]
        return cluster.ask("sbatch", "--parsable", *asked, str(script)).strip()

    return submit


def wait(is_so: Callable[[], bool], what: str, seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.3)


def state(cluster: LocalSlurm, job: str) -> str:
    # Slurm waits two minutes before it starts a job again; a test does not.
    if cluster.ask("squeue", "-h", "-j", job, "-o", "%r").strip() == "BeginTime":
        cluster.ask("scontrol", "update", f"JobId={job}", "StartTime=now")
    return cluster.ask("squeue", "-h", "--states", "all", "-j", job, "-o", "%T").strip()


def restarts(cluster: LocalSlurm, job: str) -> int:
    found = re.search(r"Restarts=(\d+)", cluster.ask("scontrol", "show", "job", job))
    return int(found[1]) if found else 0


def has_checkpoint(folder: Path) -> bool:
    return bool(list(folder.glob("model/checkpoints/checkpoint-*/progress.json")))


def test_a_training_that_is_cancelled_saves_and_stays_cancelled(
    train: Train, cluster: LocalSlurm, tmp_path: Path, weights: bytes
) -> None:
    job = train()
    wait(lambda: has_checkpoint(tmp_path), "a checkpoint")
    cluster.ask("scancel", job)
    wait(lambda: state(cluster, job) == "CANCELLED", "the job is cancelled")
    assert restarts(cluster, job) == 0
    # Submitted once more it goes on.
    job = train()
    wait(lambda: state(cluster, job) in ("COMPLETED", "FAILED"), "the training ends", 400)
    log = (tmp_path / "log").read_text()
    assert re.search(r"goes on from step \d+", log), log[-3000:]
    assert (tmp_path / "model/model.safetensors").read_bytes() == weights


def test_a_node_that_is_drained_ends_its_training_and_takes_no_other(
    train: Train, cluster: LocalSlurm, tmp_path: Path, weights: bytes
) -> None:
    first = train()
    wait(lambda: has_checkpoint(tmp_path), "a checkpoint")
    node = cluster.ask("squeue", "-h", "-j", first, "-o", "%N").strip()
    cluster.ask("scontrol", "update", f"NodeName={node}", "State=DRAIN", "Reason=service")
    try:
        asked = ["--partition", "gpu", "--account", "default", "--output", "/dev/null", "--wait"]
        cluster.ask("sbatch", *asked, "--wrap", "true")
        wait(lambda: state(cluster, first) in ("COMPLETED", "FAILED"), "the training ends", 400)
        # What runs on the node runs to its end, what comes goes elsewhere.
        assert cluster.accounting()[first][-1] == node
        assert cluster.accounting()[str(int(first) + 1)][-1] != node
        assert (tmp_path / "model/model.safetensors").read_bytes() == weights
    finally:
        cluster.ask("scontrol", "update", f"NodeName={node}", "State=RESUME")
