"""What index says to bad input: each problem names file, entity and way out, all of them at once."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from boldly import bids
from boldly.config import AtlasOptions, DatasetOptions, IndexOptions, PreprocessOptions, TaskOptions
from boldly.records import InputError, Problem
from boldly.stages import index
from tests.faults.damage import cut, without_columns
from tests.faults.kinds import RUN_FAULTS

KEY = "ds-x_sub-01_task-blocks_run-1"


def refused(study: Any, tmp_path: Path, **changes: Any) -> list[Problem]:
    """Index a study that must be refused; return the problems."""
    arguments: dict[str, Any] = {
        "dataset_options": study.dataset_options(),
        "options": IndexOptions(),
        "preprocess": PreprocessOptions(),
        "window_frames": 10,
        "atlas": study.atlas_options(),
    }
    runs, labels = tmp_path / "out" / "x_runs.tsv", tmp_path / "out" / "x_labels.json"
    with pytest.raises(InputError) as caught:
        index.run(dataset="x", runs=runs, labels=labels, **(arguments | changes))
    assert not runs.exists()
    assert not labels.exists()
    problems = caught.value.problems
    table = pd.read_csv(tmp_path / "out" / "x_problems.tsv", sep="\t", keep_default_na=False)
    assert list(table["message"]) == [problem.message for problem in problems]
    assert all(problem.where and problem.entity and problem.remedy for problem in problems)
    return problems


@pytest.mark.parametrize("fault", RUN_FAULTS)
def test_a_defective_run_is_refused_with_file_and_way_out(study, tmp_path, fault):
    change, role, message, remedy = RUN_FAULTS[fault]
    change(study.run())
    problems = refused(study, tmp_path)
    assert len(problems) == 1
    problem = problems[0]
    assert problem.entity == KEY
    assert message in problem.message
    assert remedy in problem.remedy
    if role:
        assert problem.where == str(getattr(study.run(), role))


@pytest.mark.parametrize("fault", RUN_FAULTS)
def test_a_defective_run_does_not_keep_the_others_from_being_used(study, tmp_path, fault):
    change, _, message, _ = RUN_FAULTS[fault]
    change(study.run())
    index.run(
        dataset="x",
        dataset_options=study.dataset_options(),
        options=IndexOptions(on_error="exclude"),
        preprocess=PreprocessOptions(),
        window_frames=10,
        atlas=study.atlas_options(),
        runs=tmp_path / "x_runs.tsv",
        labels=tmp_path / "x_labels.json",
    )
    table = pd.read_csv(tmp_path / "x_runs.tsv", sep="\t")
    assert list(table["status"]) == ["error", "ok", "ok", "ok"]
    assert message in table["reason"][0]


def test_a_cut_uncompressed_image_is_refused(write_study, tmp_path):
    study = write_study(extension=".nii")
    cut(study.run().bold, 0.9)
    assert "its header promises 46432" in refused(study, tmp_path)[0].message


def test_all_problems_of_a_dataset_are_reported_at_once(study, tmp_path):
    study.run("01", run="1").bold.write_bytes(b"")
    study.run("01", run="2").confounds.unlink()
    without_columns(study.run("02", run="1").confounds, "white_matter", "csf")
    study.run("02", run="1").events.write_text("onset\tduration\n4\t10\n")
    problems = refused(study, tmp_path, dataset_options=study.dataset_options(subjects=["01", "02", "09"]))
    assert [problem.entity for problem in problems] == [
        "sub-09", KEY, "ds-x_sub-01_task-blocks_run-2",
        "ds-x_sub-02_task-blocks_run-1", "ds-x_sub-02_task-blocks_run-1",
    ]  # fmt: skip


def test_a_missing_folder_is_refused(study, tmp_path):
    options = study.dataset_options(derivatives=str(tmp_path / "nowhere"))
    assert "no such folder" in refused(study, tmp_path, dataset_options=options)[0].message
    options = study.dataset_options(bids=str(tmp_path / "nowhere"))
    assert "there are no events" in refused(study, tmp_path, dataset_options=options)[0].message


def test_a_folder_above_the_derivatives_is_refused_with_a_hint(study, tmp_path):
    options = study.dataset_options(derivatives=str(study.derivatives.parent))
    assert str(study.derivatives) in refused(study, tmp_path, dataset_options=options)[0].message


def test_a_folder_without_preprocessed_images_is_refused(study, tmp_path):
    options = study.dataset_options(derivatives=str(study.bids))
    assert "not a single *_desc-preproc_bold" in refused(study, tmp_path, dataset_options=options)[0].message


def test_a_space_that_no_image_has_is_refused_with_those_found(study, tmp_path):
    options = study.dataset_options(space="MNI152NLin6Asym")
    problems = refused(study, tmp_path, dataset_options=options)
    assert len(problems) == 1
    assert "(found: MNI152NLin2009cAsym)" in problems[0].message


def test_a_run_in_another_space_only_is_refused_with_those_found(study, tmp_path):
    bold = study.run().bold
    bold.rename(bold.with_name(bold.name.replace("MNI152NLin2009cAsym", "T1w")))
    problem = refused(study, tmp_path)[0]
    assert (problem.entity, problem.message) == (KEY, "no image in space MNI152NLin2009cAsym (found: T1w)")


def test_two_resolutions_without_a_choice_are_refused(study, tmp_path):
    bold = study.run().bold
    shutil.copy(bold, bold.with_name(bold.name.replace("_desc", "_res-2_desc")))
    problem = refused(study, tmp_path)[0]
    assert "several resolutions: '' (no res entity), '2'" in problem.message
    assert "datasets.x.resolution" in problem.remedy


def test_an_absent_resolution_is_refused(write_study, tmp_path):
    study = write_study(resolution="2", subjects=("01",), runs=("1",))
    problem = refused(study, tmp_path, dataset_options=study.dataset_options(resolution="1"))[0]
    assert problem.message == "no image of resolution '1' (found: '2')"


def test_a_run_that_is_there_twice_is_refused(study, tmp_path):
    bold = study.run().bold
    twin = bold.with_name(bold.name.replace("run-1", "run-01"))
    shutil.copy(bold, twin)
    problems = refused(study, tmp_path)
    assert [problem.entity for problem in problems] == [KEY]
    assert bold.name in problems[0].message
    assert twin.name in problems[0].message


def test_two_events_tables_of_one_run_are_refused(study, tmp_path):
    events = study.run(run="2").events
    for spelling in ("run-02", "run-002"):
        shutil.copy(events, events.with_name(events.name.replace("run-2", spelling)))
    events.unlink()
    assert "several events tables" in refused(study, tmp_path)[0].message


def test_a_task_that_was_asked_for_and_is_absent_is_refused(study, tmp_path):
    options = study.dataset_options(tasks=["blocks", "rest"])
    problem = refused(study, tmp_path, dataset_options=options)[0]
    assert (problem.entity, problem.message) == ("task-rest", "asked for, but no image has it (found: blocks)")


def test_a_state_outside_the_labels_is_refused_for_each_run(study, tmp_path):
    options = study.dataset_options(task=TaskOptions(labels=["faces", "house"]))
    problems = refused(study, tmp_path, dataset_options=options)
    assert len(problems) == 4
    assert problems[0].message == "states outside the labels: rest (labels: faces, house)"


def test_an_atlas_outside_the_images_is_refused_for_each_run(study, tmp_path):
    affine = np.eye(4)
    affine[:3, 3] = 500
    path = tmp_path / "far_dseg.nii.gz"
    nib.save(nib.Nifti1Image(np.ones((5, 5, 5), np.int16), affine), path)
    problems = refused(study, tmp_path, atlas=AtlasOptions(path=str(path)))
    assert len(problems) == 4
    assert "no overlap with the atlas" in problems[0].message


def test_an_atlas_of_which_nothing_lies_in_the_brain_is_refused(study, tmp_path):
    # On the images' grid, but only in the outermost layer, which the mask leaves out.
    atlas: Any = nib.load(study.atlas)
    shell = np.zeros((8, 9, 8), np.int16)
    shell[0] = 1
    nib.save(nib.Nifti1Image(shell, atlas.affine), tmp_path / "shell_dseg.nii.gz")
    problems = refused(study, tmp_path, atlas=AtlasOptions(path=str(tmp_path / "shell_dseg.nii.gz")))
    assert "no overlap" in problems[0].message


def test_an_atlas_that_cannot_be_read_is_refused_once(study, tmp_path):
    study.run().bold.write_bytes(b"")
    problems = refused(study, tmp_path, atlas=AtlasOptions(path=str(tmp_path / "none.nii.gz")))
    assert [problem.entity for problem in problems] == ["atlas", KEY]


class TestReadyMadeShards:
    def refused(self, folder: Path, tmp_path: Path, **options: Any) -> list[Problem]:
        class NoStudy:
            def dataset_options(self) -> DatasetOptions:
                return DatasetOptions.model_validate({"role": "upstream", "shards": str(folder), **options})

            def atlas_options(self) -> AtlasOptions:
                return AtlasOptions(path="not looked at")

        return refused(NoStudy(), tmp_path)

    def test_no_folder_or_no_tar_of_the_dataset(self, tmp_path):
        assert "no such folder" in self.refused(tmp_path / "none", tmp_path)[0].message
        (tmp_path / "ds-other_sub-01.tar").write_bytes(b"")
        assert "(found datasets: other)" in self.refused(tmp_path, tmp_path)[0].message

    def test_damaged_tars_and_absent_subjects(self, tmp_path):
        path = tmp_path / bids.shard_name("x", "01")
        path.write_bytes(b"not a tar" * 200)
        problems = self.refused(tmp_path, tmp_path, subjects=["01", "02"])
        assert [problem.entity for problem in problems[:2]] == ["sub-02", "sub-01"]
        assert problems[1].where == str(path)
