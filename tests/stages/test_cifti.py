"""Runs on surfaces, from the tree of fMRIPrep or HCP to cleaned signals of a parcellation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from boldly.config import Config, IndexOptions, TaskOptions
from boldly.provenance import Contract
from boldly.records import InputError, Run, read_runs
from boldly.samples.timeseries import RunSeries, read_timeseries
from boldly.signals.cleaning import clean
from boldly.stages import index, parcellate, preprocess
from tests import hcp_tree
from tests.cifti import FRAMES, T_R, labelled, models, save_labels, save_series, signals
from tests.conftest import Study


@pytest.fixture
def surfaces(write_study: Any) -> Study:
    """A study with CIFTI files beside the volumes, as ``fmriprep --cifti-output 91k`` writes them."""
    study: Study = write_study(n_volumes=FRAMES, t_r=T_R)
    for files in study.files.values():
        stem = files.bold.name.split("_space-")[0] + "_space-fsLR_den-91k_bold"
        save_series(files.bold.with_name(f"{stem}.dtseries.nii"), models())
        files.bold.with_name(f"{stem}.json").write_text(json.dumps({"RepetitionTime": T_R, "StartTime": 0.7}))
    save_labels(study.bids.parent / "atlas-halves.dlabel.nii", models(wall=True))
    return study


def config(atlas: Path, dataset: dict[str, Any], smoothing_mm: float | None = None) -> Config:
    """Return a config of one dataset on surfaces."""
    content = {
        "atlas": {"path": str(atlas)},
        "datasets": {"x": {"role": "upstream", "space": "fsLR", **dataset}},
        "parcellate": {"smoothing_fwhm_mm": smoothing_mm},
        "preprocess": {"strategy": ["motion"]},
    }
    return Config.model_validate(content)


def rows_of(made: Config, folder: Path) -> list[Run]:
    index.run(
        dataset="x",
        dataset_options=made.datasets["x"],
        options=IndexOptions(),
        preprocess=made.preprocess_of("x"),
        window_frames=10,
        atlas=made.atlas,
        runs=folder / "x_runs.tsv",
        labels=folder / "x_labels.json",
    )
    return read_runs(folder / "x_runs.tsv")


def parcellated(made: Config, folder: Path, subject: str) -> tuple[list[RunSeries], Contract]:
    paths: dict[str, Any] = {"nuisance": folder / "nuisance.tsv", "qc": folder / "qc.tsv"}
    options = made.preprocess_of("x")
    preprocess.run(runs=folder / "x_runs.tsv", subject=subject, options=options, **paths)
    assert made.atlas is not None
    parcellate.run(
        runs=folder / "x_runs.tsv",
        subject=subject,
        atlas=made.atlas,
        options=made.parcellate_of("x"),
        preprocess=options,
        cache=folder / "cache",
        output=folder / "x.safetensors",
        quality=folder / "quality.tsv",
        **paths,
    )
    return read_timeseries(folder / "x.safetensors")


def test_runs_on_surfaces_are_found_with_their_confounds_and_need_no_mask(surfaces, tmp_path):
    atlas = surfaces.bids.parent / "atlas-halves.dlabel.nii"
    rows = rows_of(config(atlas, {"derivatives": str(surfaces.derivatives)}), tmp_path)
    assert len(rows) == 4
    for row, files in zip(rows, surfaces.files.values(), strict=True):
        assert row.bold.endswith("_space-fsLR_den-91k_bold.dtseries.nii")
        assert (row.mask, row.confounds, row.space) == ("", str(files.confounds), "fsLR")
        assert (row.t_r, row.start_time, row.n_volumes, row.status) == (T_R, 0.7, FRAMES, "ok")


def test_signals_are_the_cleaned_means_of_the_labels(surfaces, tmp_path):
    atlas = surfaces.bids.parent / "atlas-halves.dlabel.nii"
    made = config(atlas, {"derivatives": str(surfaces.derivatives), "preprocess": {"strategy": []}})
    rows_of(made, tmp_path)
    (run, _), contract = parcellated(made, tmp_path, "01")
    labels = labelled(models())
    means = np.stack([signals(models())[:, labels == value].mean(axis=1) for value in (1, 2, 3, 4, 7)], axis=1)
    kept, none = np.ones(FRAMES, bool), np.empty((FRAMES, 0))
    expected = clean(means, kept=kept, regressors=none, t_r=T_R, options=made.parcellate_of("x")).data
    np.testing.assert_allclose(run.data, expected, atol=1e-5)
    assert (contract.space, contract.atlas, contract.n_parcels) == ("fsLR", "atlas-halves", 5)
    assert not contract.mask


def test_hcp_as_it_is_distributed(tmp_path):
    tree = hcp_tree.write_tree(tmp_path / "hcp", subjects=("100307",), tasks=("MOTOR",))
    folder = next(tree.rglob("tfMRI_MOTOR_LR"))
    data = signals(models(), hcp_tree.FRAMES)
    save_series(folder / "tfMRI_MOTOR_LR_Atlas_MSMAll.dtseries.nii", models(), data, hcp_tree.T_R)
    atlas = save_labels(tmp_path / "halves.dlabel.nii", models(wall=True))
    dataset = {"derivatives": str(tree), "layout": "hcp", "image_suffix": "_Atlas_MSMAll", "role": "downstream"}
    made = config(atlas, {**dataset, "task": TaskOptions(drop=["cue"], prefix_task=True)})
    (row,) = rows_of(made, tmp_path)
    assert row.bold.endswith("_Atlas_MSMAll.dtseries.nii")
    assert (row.status, row.t_r, row.space, row.mask) == ("ok", hcp_tree.T_R, "fsLR", "")
    (run,), contract = parcellated(made, tmp_path, "100307")
    assert (run.data.shape, contract.images) == ((hcp_tree.FRAMES, 5), "Atlas_MSMAll")


def test_a_wrong_suffix_lists_the_files_that_are_there(tmp_path):
    tree = hcp_tree.write_tree(tmp_path / "hcp", subjects=("100307",), tasks=("MOTOR",))
    folder = next(tree.rglob("tfMRI_MOTOR_LR"))
    save_series(folder / "tfMRI_MOTOR_LR_Atlas.dtseries.nii", models())
    atlas = save_labels(tmp_path / "halves.dlabel.nii", models())
    with pytest.raises(InputError, match=r"found: tfMRI_MOTOR_LR_Atlas\.dtseries\.nii"):
        rows_of(config(atlas, {"derivatives": str(tree), "layout": "hcp"}), tmp_path)


def test_a_cut_image_and_a_parcellation_of_another_density_are_problems_of_the_run(surfaces, tmp_path):
    image = next(surfaces.derivatives.rglob("sub-01*run-1*.dtseries.nii"))
    image.write_bytes(image.read_bytes()[:-50])
    atlas = save_labels(tmp_path / "other.dlabel.nii", models(vertices=60))
    with pytest.raises(InputError) as caught:
        rows_of(config(atlas, {"derivatives": str(surfaces.derivatives)}), tmp_path)
    messages = [problem.message for problem in caught.value.problems]
    assert "cut or damaged" in messages[0]
    assert sum("a hemisphere has 60 vertices" in message for message in messages) == 3


def test_without_cifti_files_the_way_out_is_told(study, tmp_path):
    atlas = save_labels(tmp_path / "halves.dlabel.nii", models())
    with pytest.raises(InputError, match=r"\*_bold\.dtseries\.nii") as caught:
        rows_of(config(atlas, {"derivatives": str(study.derivatives)}), tmp_path)
    assert "--cifti-output" in caught.value.problems[0].remedy


@pytest.mark.parametrize(
    ("atlas", "space", "smoothing_mm", "message"),
    [
        ("a_dseg.nii.gz", "fsLR", None, "its images are on surfaces .* give a parcellation of surfaces"),
        ("a.dlabel.nii", "MNI152NLin6Asym", None, "is a parcellation of surfaces, the images are volumes"),
        ("a.dlabel.nii", "fsLR", 3.0, "images on surfaces .* are not smoothed here; set it to null"),
    ],
)
def test_surfaces_and_volumes_do_not_mix(atlas, space, smoothing_mm, message):
    with pytest.raises(ValueError, match=message):
        config(Path(atlas), {"derivatives": "a", "space": space}, smoothing_mm)
