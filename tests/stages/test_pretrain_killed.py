"""Real processes, really killed: each start costs ten seconds, hence slow."""

import os
import random
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
from safetensors.torch import load_file

from boldly.config import PretrainOptions
from tests.training import launcher, synthetic

pytestmark = pytest.mark.slow

STEPS = 200


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return synthetic.upstream_study(tmp_path_factory.mktemp("upstream"), n_subjects=4)


def start(data, output, processes):
    options = PretrainOptions.model_validate(
        {"framework": "csm", "layers": 1, "width": 16, "heads": 2, "steps": STEPS, "batch_size": 8}
        | {"learning_rate": 1e-3, "evaluate_every": 20, "validation_windows": 16, "window_frames": (6, 12)}
        | {"checkpoint_every": 10}
    )
    command = [sys.executable, "-m", "boldly", "launch", "--processes", str(processes)]
    command += launcher.pretrain(data, output, options)
    return subprocess.Popen(command, start_new_session=True)


def steps_done(output):
    found = [int(path.parent.name.split("-")[1]) for path in output.glob("checkpoints/checkpoint-*/progress.json")]
    return max(found, default=0)


def kill_at(process, output, step, number):
    """Send the signal to the whole job a moment after a checkpoint."""
    while steps_done(output) < step and process.poll() is None:
        time.sleep(0.02)
    assert process.poll() is None, "the training ended before it could be killed"
    time.sleep(random.Random(step).uniform(0, 0.3))
    os.killpg(process.pid, number)
    process.wait()
    while_dying = time.monotonic() + 30
    while _alive(process.pid) and time.monotonic() < while_dying:
        time.sleep(0.1)


def _alive(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize(("processes", "tolerance"), [(1, 0.0), (2, 1e-6)])
@pytest.mark.parametrize(
    "number", [signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1], ids=["kill", "term", "warning"]
)
def test_a_training_killed_twice_ends_as_one_that_was_not(data, tmp_path, processes, tolerance, number):
    assert start(data, tmp_path / "whole", processes).wait() == 0
    for step in random.Random(processes).sample(range(20, STEPS - 60, 10), 2):
        process = start(data, tmp_path / "killed", processes)
        kill_at(process, tmp_path / "killed", max(step, steps_done(tmp_path / "killed") + 10), number)
        assert process.returncode != 0
    assert start(data, tmp_path / "killed", processes).wait() == 0
    whole, killed = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "killed"))
    assert max(float((whole[name] - killed[name]).abs().max()) for name in whole) <= tolerance
    for history in ("train_history.csv", "eval_history.csv"):
        one, other = (pd.read_csv(tmp_path / name / history) for name in ("whole", "killed"))
        pd.testing.assert_frame_equal(one, other, rtol=1e-6, atol=1e-6)
