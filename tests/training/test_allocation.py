"""What a training knows of its Slurm job, without a Slurm; tests/cluster has a real one."""

from __future__ import annotations

import math
import time

import pytest

from boldly.training import allocation


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1-02:03:04", 93_784),
        ("2:00:00", 7200),
        ("03:04", 184),
        ("0:09", 9),
        ("UNLIMITED", math.inf),
        ("INVALID", math.inf),
        ("", math.inf),
    ],
)
def test_times_as_slurm_writes_them(text: str, expected: float) -> None:
    assert allocation.seconds(text) == expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [("1:00:00|2:00:00", 3300), ("1:00|1:00", 48), ("UNLIMITED|UNLIMITED", math.inf), ("", math.inf)],
    ids=["five minutes before", "a fifth of a short limit", "no limit", "no answer"],
)
def test_a_training_saves_before_its_job_is_ended(
    monkeypatch: pytest.MonkeyPatch, answer: str, expected: float
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert allocation.deadline(lambda *command: answer) - time.monotonic() == pytest.approx(expected, abs=1)


def test_outside_of_slurm_there_is_no_deadline_and_nothing_to_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert allocation.deadline() == math.inf
    assert not allocation.queue_again()


@pytest.mark.parametrize(("state", "again"), [("RUNNING", True), ("COMPLETING", False), ("CANCELLED", False)])
def test_a_job_that_was_cancelled_is_not_queued_again(
    monkeypatch: pytest.MonkeyPatch, state: str, again: bool
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    asked = []

    def ask(*command: str) -> str:
        asked.append(command)
        return state

    assert allocation.queue_again(ask) == again
    assert (("scontrol", "requeue", "7") in asked) == again
