"""Indexing shards that stay at a web address: the run table is read, the tars are not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from boldly.config import AtlasOptions, DatasetOptions, IndexOptions, PreprocessOptions
from boldly.records import InputError, Run, read_runs, write_runs
from boldly.samples.shards import write_shard
from boldly.stages import index
from tests.samples.examples import run_sample
from tests.web import Server, serving


def record(subject: str, n_volumes: int = 40, dataset: str = "toy") -> Run:
    key = f"ds-{dataset}_sub-{subject}_task-rest_run-1"
    return Run(
        dataset=dataset,
        subject=subject,
        session="",
        task="rest",
        acquisition="",
        direction="",
        run="01",
        space="T1w",
        key=key,
        bold=f"elsewhere/sub-{subject}_bold.nii.gz",
        mask="",
        confounds="",
        events="",
        t_r=2.0,
        n_volumes=n_volumes,
    )


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    folder = tmp_path / "shards"
    folder.mkdir()
    write_runs(folder / "toy_runs.tsv", [record("01"), record("02"), record("03", n_volumes=12)])
    for subject in ("01", "02"):
        write_shard(folder / f"ds-toy_sub-{subject}.tar", [run_sample(subject)])
    with serving(folder) as server:
        yield server


def run_index(server: Server, tmp_path: Path, window_frames: int = 20, **changes: Any) -> list[Run]:
    options = DatasetOptions.model_validate({"role": "upstream", "shards": server.url, **changes})
    index.run(
        dataset="toy",
        dataset_options=options,
        options=IndexOptions(),
        preprocess=PreprocessOptions(),
        window_frames=window_frames,
        atlas=AtlasOptions(path="none.nii.gz"),
        runs=tmp_path / "runs.tsv",
        labels=tmp_path / "labels.json",
    )
    return read_runs(tmp_path / "runs.tsv")


def test_the_run_table_is_that_at_the_address_and_no_tar_is_read(server: Server, tmp_path: Path) -> None:
    runs = run_index(server, tmp_path)
    assert [(run.subject, run.status) for run in runs] == [("01", "ok"), ("02", "ok"), ("03", "excluded")]
    assert {run.bold for run in runs} == {""}
    assert server.requests == ["/toy_runs.tsv"]


def test_subjects_and_tasks_can_be_chosen(server: Server, tmp_path: Path) -> None:
    assert [run.subject for run in run_index(server, tmp_path, subjects=["sub-02"], tasks=["rest"])] == ["02"]


def test_everything_that_is_not_there_is_named_at_once(server: Server, tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        # Subject 03 is long enough for windows of 10 frames, but has no tar.
        run_index(server, tmp_path, 10, subjects=["03", "04"])
    assert [(p.where, p.entity) for p in error.value.problems] == [
        (f"{server.url}/toy_runs.tsv", "sub-04"),
        (f"{server.url}/ds-toy_sub-03.tar", ""),
    ]


def test_an_address_without_run_table_is_named(server: Server, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"(?s)answers 404.*{server.url}/none/toy_runs.tsv"):
        run_index(server, tmp_path, shards=f"{server.url}/none")


@pytest.mark.parametrize("content", ["subject\n01\n", "<html></html>", "subject"])
def test_a_file_that_is_no_run_table_is_named(server: Server, tmp_path: Path, content: str) -> None:
    (tmp_path / "shards/toy_runs.tsv").write_text(content)
    with pytest.raises(InputError, match=rf"(?s){server.url}/toy_runs.tsv.*copy the table of results/index"):
        run_index(server, tmp_path)


def test_the_table_of_another_dataset_is_refused(server: Server, tmp_path: Path) -> None:
    write_runs(tmp_path / "shards/toy_runs.tsv", [record("01", dataset="other")])
    with pytest.raises(InputError, match="runs of dataset other"):
        run_index(server, tmp_path)


def test_downstream_shards_are_not_taken_from_an_address() -> None:
    with pytest.raises(ValueError, match="for pretraining"):
        DatasetOptions.model_validate({"role": "downstream", "shards": "https://example.org/shards"})
