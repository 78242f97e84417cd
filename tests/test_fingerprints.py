"""Fingerprints of datasets: what index reads is noticed when it changes, and nothing else is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from boldly import fingerprints
from boldly.config import DatasetOptions
from tests import hcp_tree
from tests.conftest import SPACE


def test_the_same_files_have_the_same_fingerprint(study):
    options = study.dataset_options()
    assert fingerprints.of_dataset("one", options) == fingerprints.of_dataset("one", options)


@pytest.mark.parametrize("role", ["bold", "mask", "sidecar", "confounds", "confounds_json", "events"])
def test_a_changed_file_is_noticed_also_one_that_got_older(study, role):
    options, path = study.dataset_options(), getattr(study.run("02"), role)
    before = fingerprints.of_dataset("one", options)
    os.utime(path, (1e9, 1e9))
    older = fingerprints.of_dataset("one", options)
    path.write_bytes(path.read_bytes() + b" ")
    os.utime(path, (1e9, 1e9))
    longer = fingerprints.of_dataset("one", options)
    path.unlink()
    assert len({before, older, longer, fingerprints.of_dataset("one", options)}) == 4


@pytest.mark.parametrize(
    "name", ["task-blocks_bold.json", "bold.json", "task-blocks_events.tsv", "sub-01/sub-01_bold.json"]
)
def test_files_that_runs_inherit_are_noticed(study, name):
    options = study.dataset_options()
    before = fingerprints.of_dataset("one", options)
    (study.bids / name).write_text("{}")
    assert fingerprints.of_dataset("one", options) != before


def test_sidecars_of_cifti_in_the_old_spelling_are_noticed_and_fetched(study):
    # fMRIPrep before 21; index reads StartTime and RepetitionTime there.
    options = study.dataset_options()
    path = study.run().bold.with_name("sub-01_task-blocks_run-1_space-fsLR_den-91k_bold.dtseries.json")
    before = fingerprints.of_dataset("one", options)
    path.write_text('{"StartTime": 0.9}')
    first = fingerprints.of_dataset("one", options)
    os.utime(path, (1e9, 1e9))
    assert len({before, first, fingerprints.of_dataset("one", options)}) == 3
    assert fingerprints.is_read(options, "derivatives", str(path.relative_to(study.derivatives)))


def test_what_index_does_not_read_changes_nothing(study):
    options, folder = study.dataset_options(), study.run().bold.parent
    other_space = folder / "sub-01_task-blocks_run-1_space-T1w_desc-preproc_bold.nii.gz"
    other_space.write_text("x")
    before = fingerprints.of_dataset("one", options)
    other_space.write_text("longer")
    (folder / "sub-01_task-blocks_run-1_hemi-L_space-fsaverage_bold.func.gii").write_text("x")
    (study.bids / "sub-01" / "func" / "sub-01_task-blocks_run-1_bold.nii.gz").write_text("x")
    assert fingerprints.of_dataset("one", options) == before


def test_a_link_stands_for_the_file_that_it_names(study, tmp_path):
    options, path = study.dataset_options(), study.run().bold
    kept = path.rename(tmp_path / "kept.nii.gz")
    path.symlink_to(kept)
    before = fingerprints.of_dataset("one", options)
    os.utime(kept, (1e9, 1e9))
    assert fingerprints.of_dataset("one", options) != before
    kept.unlink()
    assert fingerprints.of_dataset("one", options) != before


def test_files_are_known_by_name_size_and_time(tmp_path: Path):
    path = tmp_path / "a.tsv"
    absent = fingerprints.of_files([path])
    path.write_text("1")
    assert absent != fingerprints.of_files([path]) != fingerprints.of_files([path, path])


@pytest.mark.parametrize("name", ["tfMRI_MOTOR_LR.nii.gz", "Movement_Regressors.txt", "EVs/lf.txt"])
def test_files_of_hcp_are_noticed(tmp_path: Path, name: str):
    hcp_tree.write_tree(tmp_path, subjects=["100307"])
    options = DatasetOptions(role="upstream", layout="hcp", derivatives=str(tmp_path))
    before = fingerprints.of_dataset("one", options)
    assert before == fingerprints.of_dataset("one", options)
    os.utime(next(tmp_path.rglob(f"tfMRI_MOTOR_LR/{name}")), (1e9, 1e9))
    assert fingerprints.of_dataset("one", options) != before


@pytest.mark.parametrize("role", ["bold", "mask", "confounds", "events"])
def test_a_changed_file_of_one_subject_is_noticed_for_that_one_alone(study, role):
    folders = {"derivatives": str(study.derivatives), "raw": str(study.bids), "space": SPACE}
    before = {subject: fingerprints.of_subject(subject, **folders) for subject in ("01", "02")}
    os.utime(getattr(study.run("02"), role), (1e9, 1e9))
    assert fingerprints.of_subject("01", **folders) == before["01"]
    assert fingerprints.of_subject("02", **folders) != before["02"]


def test_masks_and_confounds_beside_denoised_images_are_noticed(study, tmp_path):
    folders = {"derivatives": str(tmp_path), "fmriprep": str(study.derivatives), "space": SPACE}
    before = fingerprints.of_subject("02", **folders)
    os.utime(study.run("02").confounds, (1e9, 1e9))
    assert fingerprints.of_subject("02", **folders) != before


def test_a_changed_image_of_one_hcp_subject_is_noticed(tmp_path):
    folders = {"derivatives": str(tmp_path), "space": "MNI152NLin6Asym", "layout": "hcp"}
    run = tmp_path / "HCA01_V1_MR/MNINonLinear/Results/rfMRI_REST1_AP"
    run.mkdir(parents=True)
    image = run / "rfMRI_REST1_AP.nii.gz"
    image.write_text("x")
    before = fingerprints.of_subject("HCA01V1MR", **folders)
    nobody = fingerprints.of_subject("HCA02V1MR", **folders)
    assert before != nobody
    os.utime(image, (1e9, 1e9))
    assert fingerprints.of_subject("HCA01V1MR", **folders) not in (before, nobody)


def test_ready_made_shards_that_come_go_and_change_are_noticed(tmp_path: Path) -> None:
    options = DatasetOptions(role="upstream", shards=str(tmp_path))
    found = [fingerprints.of_dataset("one", options)]
    for name in ("ds-one_sub-01.tar", "ds-one_sub-02.tar", "labels.json"):
        (tmp_path / name).write_text("{}")
        found.append(fingerprints.of_dataset("one", options))
    os.utime(tmp_path / "ds-one_sub-01.tar", (1e9, 1e9))
    found.append(fingerprints.of_dataset("one", options))
    (tmp_path / "ds-one_sub-02.tar").unlink()
    found.append(fingerprints.of_dataset("one", options))
    assert len(set(found)) == len(found)
    # Those of another dataset may be written into the same folder at any time.
    (tmp_path / "ds-one2_sub-01.tar").touch()
    assert fingerprints.of_dataset("one", options) == found[-1]


def test_nothing_is_looked_at_on_the_web() -> None:
    options = DatasetOptions(role="upstream", shards="https://example.org/shards")
    assert fingerprints.of_dataset("one", options) == fingerprints.of_dataset("two", options)
