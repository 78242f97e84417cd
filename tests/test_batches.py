"""Batches of subjects: who is in which, how many there are, and what makes a subject's results stale."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from boldly import batches
from boldly.config import BatchOptions

SUBJECTS = [f"{number:04d}" for number in range(300)]


def test_each_subject_is_in_one_batch_and_a_new_one_moves_no_other() -> None:
    names = batches.names(SUBJECTS, 12)
    groups = [batches.members(name, SUBJECTS) for name in names]
    assert sorted(subject for group in groups for subject in group) == SUBJECTS
    assert [batches.of_subject(group[0], 12) for group in groups] == names
    more = [*SUBJECTS, "new"]
    changed = [name for name, group in zip(names, groups, strict=True) if batches.members(name, more) != group]
    assert changed == [batches.of_subject("new", 12)]


def test_batches_without_subjects_are_not_named() -> None:
    assert len(batches.names(["01"], 8)) == 1


def test_jobs_last_as_long_as_they_should(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    options = BatchOptions(minutes=20)
    # 4 s for each run where nothing was measured: 300 runs a job.
    assert batches.count("x", 300, 3000, options) == 10
    assert batches.count("x", 2, 3000, options) == 2
    assert batches.count("x", 300, 10, options) == 1
    assert batches.count("x", 300, 3000, BatchOptions(subjects=7)) == 43
    stamp = {stage: {"seconds": 20.0, "runs": 3} for stage in batches.STAGES}
    folder = tmp_path / "results/prepare/measured"
    folder.mkdir(parents=True)
    (folder / "sub-01.json").write_text(json.dumps(stamp))
    # 20 s for each run.
    assert batches.count("x", 300, 3000, options) == 50


def test_batches_stay_what_they_are_until_there_are_twice_as_many_subjects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    batches.keep_count("x", "3of5", 100)
    assert batches.count("x", 200, 9000, BatchOptions(minutes=1)) == 5
    assert batches.count("x", 201, 9000, BatchOptions(subjects=1)) == 201


def test_the_same_number_of_batches_is_kept_for_more_subjects_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    batches.keep_count("x", "1of1", 5)
    # More than twice as many: it is decided anew, once.
    assert batches.count("x", 12, 24, BatchOptions(minutes=20)) == 1
    batches.keep_count("x", "1of1", 12)
    # Jobs that run later measure other seconds, and have to name the same batches.
    assert batches.count("x", 12, 24, BatchOptions(minutes=0.1)) == 1
    assert batches.count("x", 25, 24, BatchOptions(subjects=1)) == 25
    # A few more do not raise the number from which it is decided anew.
    batches.keep_count("x", "1of1", 20)
    assert batches.count("x", 25, 24, BatchOptions(subjects=1)) == 25


def test_what_changes_a_stage_makes_those_behind_it_stale() -> None:
    inputs = dict.fromkeys(batches.STAGES, "same")
    options: dict[str, list[object]] = {stage: [1, "{}"] for stage in batches.STAGES}
    before = batches.keys(inputs, options)
    after = batches.keys({**inputs, "parcellate": "other"}, options)
    assert [stage for stage in batches.STAGES if before[stage] != after[stage]] == ["parcellate", "shard"]
    after = batches.keys(inputs, {**options, "shard": [2, "{}"]})
    assert [stage for stage in batches.STAGES if before[stage] != after[stage]] == ["shard"]


def test_memory_of_jobs_is_read_from_what_snakemake_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert batches.memory_of_jobs("prepare") == []
    folder = tmp_path / "results/usage/prepare"
    folder.mkdir(parents=True)
    (folder / "a.tsv").write_text("s\th:m:s\tmax_rss\n3.01\t0:00:03\t181.77\n")
    # A job that was too short, and one that was killed while it wrote.
    (folder / "b.tsv").write_text("s\th:m:s\tmax_rss\n0.3\t0:00:00\tNA\n")
    (folder / "c.tsv").write_text("")
    assert batches.memory_of_jobs("prepare") == [181.77]


def test_exports_of_people_who_were_left_out_are_removed_and_those_of_others_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path("results/export/toy")
    for person in ("01", "011"):
        for dataset in ("toy", "toy2"):
            name = f"sub-{person}/ses-a/func/{dataset}.tsv"
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()
            for kind in ("bids", "lfb"):
                content = {"layout": kind, "folder": str(folder), "sha256": {name: ""}}
                Path(f"results/export/{dataset}_sub-{person}_{kind}.json").write_text(json.dumps(content))
    before = sorted(path for path in Path("results").rglob("*") if path.is_file())
    assert batches.withdraw_exports("toy", "bids", ["01", "011"]) == []
    assert batches.withdraw_exports("toy", "bids", ["011"]) == ["sub-01"]
    gone = {Path("results/export/toy_sub-01_bids.json"), folder / "sub-01/ses-a/func/toy.tsv"}
    assert [path for path in before if path not in gone] == [path for path in before if path.exists()]
    (folder / "sub-01/ses-a/func/toy2.tsv").unlink()
    assert batches.withdraw_exports("toy", "lfb", ["011"]) == ["sub-01"]
    # Empty folders would look like those of people without a run.
    assert not (folder / "sub-01").exists()
    assert (folder / "sub-011/ses-a/func").is_dir()


def test_a_link_to_nothing_is_no_sign_that_other_files_are_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    stamps = {}
    for stage in batches.STAGES:
        files = {str(path): {"bytes": 3} for path in batches.outputs(stage, "toy", "upstream", "01")}
        for name in files:
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).write_text("abc")
        stamps[stage] = {"files": files}
    marker = batches.Marker("toy", "upstream", "shard", "1of1")
    marker.write({"01": stamps})
    # As a file of another process that took its name between two looks.
    (tmp_path / "data/upstream/.node-1-a.ds-toy_sub-02.tar").symlink_to("nowhere")
    assert batches.forget_lost({"toy": "upstream"}) == []
    assert marker.path.exists()
    Path("data/upstream/ds-toy_sub-01.tar").unlink()
    assert batches.forget_lost({"toy": "upstream"}) == ["data/upstream/ds-toy_sub-01.tar"]
    assert not marker.path.exists()
