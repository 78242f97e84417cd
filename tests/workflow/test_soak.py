"""Processes of the workflow that are killed at random, again and again: the same command brings the same bytes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.workflow.conftest import CHECKOUT, TINY, command

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("BOLDLY_KILLS", "50"))
# Of the time between the start of Snakemake and a kill. It is ready after a few seconds; no job takes longer.
LONGEST_S = 25.0
COMMAND = ["--cores", "2", "--rerun-incomplete", "--quiet", "rules"]
# Whatever tells when something was done, how long it took, or how often it was begun. Nothing else may differ.
DIFFERENT = {
    "results/logs": "what programs said, with times",
    "results/usage": "seconds and memory of each job",
    "results/prepare/*/sub-*.json": "seconds of each stage, times of files",
    "results/models/upstream/*/tensorboard/*": "named after the time of the start",
    "results/report.html": "when it was written, seconds of trainings",
    ".snakemake_timestamp": "Snakemake's mark in folders; none where a job outlived the shell that started it",
}
# The same for fields of JSON files.
DIFFERENT_FIELDS = {
    "seconds": "what something took",
    "mtime_ns": "when a shard was written",
    "members": "checksums of files that have seconds in them",
}


def call(folder: Path, *arguments: str) -> list[str]:
    words = [command("snakemake"), "--directory", str(folder), "--configfile", str(TINY)]
    return [*words, *(arguments or COMMAND)]


def start(folder: Path) -> subprocess.Popen[bytes]:
    """Start the workflow with all its jobs in a session of its own."""
    log = (folder / "log").open("ab")
    path = f"{Path(command('boldly')).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path}
    return subprocess.Popen(
        call(folder), cwd=CHECKOUT, env=environment, stdout=log, stderr=log, start_new_session=True
    )


def processes_of(session: int) -> list[int]:
    """Return the processes of a session, in the order in which they were started."""
    found = []
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError, IndexError):
            # Behind the name of the program, which may hold anything: state, parent, group, session.
            if int((folder / "stat").read_text().rpartition(")")[2].split()[3]) == session:
                found.append(int(folder.name))
    return sorted(found)


def kill(victims: list[int]) -> None:
    for process in victims:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def new_folder(tmp_path: Path, study: Path, name: str) -> Path:
    folder = tmp_path / name
    folder.mkdir()
    (folder / "study").symlink_to(study / "study")
    return folder


def digests(folder: Path) -> dict[str, str]:
    """Return a checksum of each result, but of those that have to differ."""
    return {str(path.relative_to(folder)): digest(path) for path in results(folder)}


def results(folder: Path) -> Iterator[Path]:
    for path in sorted((*folder.glob("data/**/*"), *folder.glob("results/**/*"))):
        name = path.relative_to(folder)
        is_different = any(name.match(pattern) or name.is_relative_to(pattern) for pattern in DIFFERENT)
        if path.is_file() and not is_different:
            yield path


def digest(path: Path) -> str:
    content = path.read_bytes()
    if path.suffix == ".json":
        content = json.dumps(json.loads(content, object_hook=without_different_fields)).encode()
    return hashlib.sha256(content).hexdigest()


def without_different_fields(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in DIFFERENT_FIELDS}


def test_after_random_kills_the_same_command_brings_the_same_bytes(study: Path, tmp_path: Path) -> None:
    """The head, a job or all of them at once; when a folder is done before the kills are, the next one begins."""
    whole = new_folder(tmp_path, study, "whole")
    assert start(whole).wait(900) == 0, (whole / "log").read_text()[-4000:]
    expected = digests(whole)
    assert len(expected) > 50
    chance = random.Random(1)
    killed = folders = 0
    while killed < KILLS:
        folders += 1
        folder = new_folder(tmp_path, study, f"killed-{folders}")
        while True:
            head = start(folder)
            is_killed = killed < KILLS and still_runs(head, chance.uniform(1, LONGEST_S))
            if is_killed:
                killed += 1
                run = processes_of(head.pid)
                how = chance.choice(["head", "job", "all"])
                kill({"head": [head.pid], "job": [chance.choice(run[1:] or run)], "all": run}[how])
                print(f"kill {killed} in {folder.name}: {how}", flush=True)
            if head.wait(900) == 0:
                break
            assert is_killed, (folder / "log").read_text()[-4000:]
            # Jobs of a head that was killed go on by themselves: the next one starts beside them.
            unlocked = subprocess.run(call(folder, "--unlock"), cwd=CHECKOUT, capture_output=True, text=True)
            assert unlocked.returncode == 0, unlocked.stderr
        differing = {name for name, found in digests(folder).items() if expected.get(name) != found}
        assert not differing, differing
        assert digests(folder).keys() == expected.keys()
        shutil.rmtree(folder)


def still_runs(head: subprocess.Popen[bytes], seconds: float) -> bool:
    try:
        head.wait(seconds)
    except subprocess.TimeoutExpired:
        return True
    return False
