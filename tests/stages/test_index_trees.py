"""Stage index on trees as they are found: mixed spaces, other products beside, files that are not there."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from boldly.config import AtlasOptions, DatasetOptions, IndexOptions, PreprocessOptions, load_config
from boldly.records import Run, read_runs
from boldly.simulation import corpus
from boldly.simulation.corpus import CorpusDataset
from boldly.simulation.tree import Tree
from boldly.stages import index, simulate

REASONS = {
    "empty image": "the image is empty (0 bytes)",
    "cut image": "the compressed image is cut",
    "dangling image": "the image is a link to a file that is not there",
    "dangling confounds": "the confounds table is a link to a file that is not there",
    "other space": "no image in space",
}


def index_tree(folder: Path, dataset: CorpusDataset) -> list[Run]:
    """Index a dataset of a tree as its config says, defective runs left out."""
    derivatives = folder / dataset.name / "derivatives" / "fmriprep"
    resolution = {"resolution": dataset.resolution} if dataset.resolution else {}
    options = DatasetOptions(role="upstream", derivatives=str(derivatives), space=dataset.space, **resolution)
    runs = folder / "x_runs.tsv"
    index.run(
        dataset="x",
        dataset_options=options,
        options=IndexOptions(on_error="exclude"),
        preprocess=PreprocessOptions(),
        window_frames=10,
        atlas=AtlasOptions(path=str(folder / simulate.ATLAS)),
        runs=runs,
        labels=folder / "x_labels.json",
    )
    return read_runs(runs)


# Sessions or none; run-1, run-01 or no run; res-2, acq, dir; T1w, AROMA, surfaces or CIFTI beside; no sidecars.
@pytest.mark.parametrize("number", [1, 3, 5, 7, 9, 10])
def test_every_run_of_a_real_looking_tree_is_used_or_has_its_reason(tmp_path, monkeypatch, number):
    monkeypatch.setattr(corpus, "_DEFECT_EVERY", 7)
    dataset = CorpusDataset("made", "upstream", number, {"001": 13, "002": 13, "003": 13}, 1.94)
    tree = Tree(tmp_path)
    tree.write_dataset(dataset)
    simulate._write_atlas(tmp_path)
    rows = {
        (row.subject, row.session, row.task, row.direction, row.run): row for row in index_tree(tmp_path, dataset)
    }
    planned = [run for subject in dataset.runs for run in dataset.runs_of(subject)]
    assert len(rows) == len(planned) == 39
    if number % 2:
        assert sum(bool(run.defect) for run in planned) >= 4
    for run in planned:
        subject, session, task, direction, number_of_run = (
            run.entities[key] for key in ("sub", "ses", "task", "dir", "run")
        )
        row = rows[subject, session, task, direction, number_of_run]
        if run.defect:
            assert row.status == "error"
            assert row.reason.startswith(REASONS[run.defect])
            continue
        assert (row.status, row.reason) == ("ok", "")
        assert (row.t_r, row.n_volumes) == (1.94, run.n_volumes)
        in_space = f"_space-{dataset.space}" + (f"_res-{dataset.resolution}" if dataset.resolution else "")
        assert row.bold.endswith(f"{corpus.prefix(run)}{in_space}_desc-preproc_bold.nii.gz")
        assert row.mask.endswith(f"{corpus.prefix(run)}{in_space}_desc-brain_mask.nii.gz")


def test_the_table_of_problems_names_each_defective_file(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus, "_DEFECT_EVERY", 7)
    dataset = CorpusDataset("made", "upstream", 1, {"001": 13, "002": 13, "003": 13}, 2.0)
    Tree(tmp_path).write_dataset(dataset)
    simulate._write_atlas(tmp_path)
    rows = index_tree(tmp_path, dataset)
    problems = pd.read_csv(tmp_path / "x_problems.tsv", sep="\t")
    assert set(problems["entity"]) == {row.key for row in rows if row.status == "error"}
    assert problems["file"].str.contains("sub-").all()


def test_slow_and_quick_file_systems_give_the_same_table(tmp_path, monkeypatch):
    dataset = CorpusDataset("made", "upstream", 3, {"001": 40, "002": 40}, 2.0)
    Tree(tmp_path).write_dataset(dataset)
    simulate._write_atlas(tmp_path)
    tables = []
    for waiting in (0, float("inf")):
        monkeypatch.setattr(index, "_WAITING", waiting)
        tables.append(index_tree(tmp_path, dataset))
    assert tables[0] == tables[1]
    assert len(tables[0]) == 80


def test_a_tree_without_data_comes_with_a_config_of_the_whole_workflow(tmp_path):
    simulate.run_headers(tmp_path / "tree", subjects=34)
    config = load_config(tmp_path / "tree" / "config.yaml", tmp_path)
    assert len(config.datasets) == 34
    assert sum(options.role == "downstream" for options in config.datasets.values()) == 2
    assert config.index.on_error == "exclude"
