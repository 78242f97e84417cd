"""Processes that take turns."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from boldly import locks
from boldly.locks import one_at_a_time

TURN = """
import sys, time
from pathlib import Path
from boldly.locks import one_at_a_time
folder = Path(sys.argv[1])
with one_at_a_time(folder / "lock"):
    for word in ("in", "out"):
        with (folder / "said").open("a") as said:
            said.write(word + " ")
        time.sleep(0.2)
"""


def test_processes_take_turns(tmp_path: Path) -> None:
    started = [subprocess.Popen([sys.executable, "-c", TURN, str(tmp_path)]) for _ in range(4)]
    assert [process.wait(60) for process in started] == [0, 0, 0, 0]
    assert (tmp_path / "said").read_text().split() == ["in", "out"] * 4


def test_the_turn_of_a_killed_process_is_over(tmp_path: Path) -> None:
    held = TURN.replace("time.sleep(0.2)", "print(word, flush=True); time.sleep(60)")
    process = subprocess.Popen([sys.executable, "-c", held, str(tmp_path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"in\n"
    process.kill()
    process.communicate()
    with one_at_a_time(tmp_path / "lock"):
        assert (tmp_path / "lock").exists()


def test_who_waits_long_is_told_what_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(locks, "_TELL_AFTER_S", 0.1)
    held = TURN.replace("time.sleep(0.2)", "print(word, flush=True); time.sleep(0.5)")
    other = subprocess.Popen([sys.executable, "-c", held, str(tmp_path)], stdout=subprocess.PIPE)
    assert other.stdout is not None
    assert other.stdout.readline() == b"in\n"
    with one_at_a_time(tmp_path / "lock"):
        assert f"holds {tmp_path / 'lock'}; if none is running any more, delete this file" in caplog.text
    assert other.communicate()[0] == b"out\n"
