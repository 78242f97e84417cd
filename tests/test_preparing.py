"""Subjects that are prepared: what is repeated after a job that was killed."""

from __future__ import annotations

from pathlib import Path

import pytest
from filelock import FileLock, Timeout

from boldly import batches, preparing
from boldly.config import AtlasOptions, PrepareOptions
from boldly.records import Run


class Killed(BaseException):
    """Nothing in the program catches it."""


def test_files_of_a_job_that_was_killed_are_not_taken_for_those_of_other_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    head = ("x", "01", "", "rest", "", "", "1", "MNI", "ds-x_sub-01_task-rest_run-1", "", "", "", "")
    tables = batches.Tables({"01": [Run(*head, 2.0, 9, "ok", "")]}, {})
    dataset = preparing.Dataset("x", "upstream", PrepareOptions(atlas=AtlasOptions(path="atlas.nii.gz")))
    killed_in = ""

    def write(stage: str, smoothing: str) -> None:
        # Files of one size, as time series of one run are whatever smoothing they had.
        for path in batches.outputs(stage, "x", "upstream", "01"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(smoothing)
        if stage == killed_in:
            raise Killed

    def prepare(smoothing: str) -> None:
        for stage in batches.STAGES:
            monkeypatch.setitem(preparing._STEPS, stage, lambda *_, stage=stage: write(stage, smoothing))
        keys = batches.keys(
            dict.fromkeys(batches.STAGES, ""), {"preprocess": [], "parcellate": [smoothing], "shard": []}
        )
        preparing._prepare(dataset, "01", batches.STAGES, keys, tables)

    prepare("3 mm")
    killed_in = "parcellate"
    with pytest.raises(Killed):
        prepare("6 mm")
    killed_in = ""
    # Back to the first options, of which the stamp and the size of the files are.
    prepare("3 mm")
    found = {
        path.read_text()
        for stage in ("parcellate", "shard")
        for path in batches.outputs(stage, "x", "upstream", "01")
    }
    assert found == {"3 mm"}


def test_two_jobs_for_the_same_subjects_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    dataset = preparing.Dataset("x", "upstream", PrepareOptions(atlas=AtlasOptions(path="atlas.nii.gz")))
    free = []

    def prepare(_: preparing.Dataset, batch: str, until: str) -> None:
        for other in ("1of2", "2of2"):
            try:
                with FileLock(Path("results/prepare/x", f"{other}.lock"), timeout=0):
                    free.append((batch, until, other))
            except Timeout:
                pass

    monkeypatch.setattr(preparing, "_prepare_batch", prepare)
    preparing.run(dataset, batch="1of2", until="parcellate")
    preparing.run(dataset, batch="2of2", until="shard")
    # Only the other batch may be prepared at the same time.
    assert free == [("1of2", "parcellate", "2of2"), ("2of2", "shard", "1of2")]
