"""Images that XCP-D or tedana denoised: found by the end of their names, with fMRIPrep's masks and confounds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import pandas as pd
import pytest

from boldly.config import Config, IndexOptions, advise
from boldly.records import InputError, Run, read_runs
from boldly.samples.timeseries import read_timeseries
from boldly.stages import index, parcellate, preprocess
from tests.conftest import Study


def apart(study: Study, suffix: str) -> Path:
    """Write a folder with denoised images alone, half as bright as those of fMRIPrep."""
    root = study.bids / "derivatives" / "denoised"
    for files in study.files.values():
        image: Any = nib.load(files.bold)
        made = root / files.bold.relative_to(study.derivatives).with_name(
            files.bold.name.replace("_desc-preproc_bold", suffix)
        )
        made.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(image.get_fdata() / 2, image.affine, image.header), made)
    return root


def config(study: Study, **changes: object) -> Config:
    """Return a config of the study's denoised images."""
    dataset = {"role": "upstream", "derivatives": str(study.bids / "derivatives" / "denoised"), **changes}
    return Config.model_validate({"atlas": {"path": str(study.atlas)}, "datasets": {"x": dataset}})


def rows_of(study: Study, config: Config, folder: Path) -> list[Run]:
    """Run the stage."""
    index.run(
        dataset="x",
        dataset_options=config.datasets["x"],
        options=IndexOptions(),
        preprocess=config.preprocess_of("x"),
        window_frames=10,
        atlas=study.atlas_options(),
        runs=folder / "x_runs.tsv",
        labels=folder / "x_labels.json",
    )
    return read_runs(folder / "x_runs.tsv")


@pytest.mark.parametrize("suffix", ["_desc-denoised_bold", "_desc-optcomDenoised_bold.nii.gz"])
def test_images_are_those_denoised_masks_and_confounds_those_of_fmriprep(study, tmp_path, suffix):
    apart(study, suffix.removesuffix(".nii.gz"))
    rows = rows_of(study, config(study, image_suffix=suffix, fmriprep=str(study.derivatives)), tmp_path)
    assert len(rows) == 4
    for row, files in zip(rows, study.files.values(), strict=True):
        assert "/denoised/" in row.bold
        assert suffix.removesuffix(".nii.gz") in row.bold
        assert (row.mask, row.confounds) == (str(files.mask), str(files.confounds))
        assert (row.status, row.t_r) == ("ok", 2.0)


def test_confounds_are_not_regressed_out_again_unless_the_dataset_asks():
    def strategy(**own):
        content = {"role": "upstream", "derivatives": "a", "image_suffix": "_desc-denoised_bold", **own}
        datasets = {"x": content, "plain": {"role": "upstream", "derivatives": "b"}}
        made = Config.model_validate(
            {"atlas": {"name": "difumo"}, "datasets": datasets, "preprocess": {"columns": ["rmsd"]}}
        )
        assert made.preprocess_of("plain").columns == ["rmsd"]
        return made.preprocess_of("x").strategy, made.preprocess_of("x").columns

    assert strategy() == ([], [])
    assert strategy(preprocess={"fd_threshold_mm": 0.5}) == ([], [])
    assert strategy(preprocess={"strategy": ["motion"]}) == (["motion"], [])


def test_the_contract_says_which_images(study, tmp_path):
    apart(study, "_desc-denoised_bold")
    made = config(study, image_suffix="_desc-denoised_bold", fmriprep=str(study.derivatives))
    rows_of(study, made, tmp_path)
    options = made.preprocess_of("x")
    paths = {"nuisance": tmp_path / "nuisance.tsv", "qc": tmp_path / "qc.tsv"}
    preprocess.run(runs=tmp_path / "x_runs.tsv", subject="01", options=options, **paths)
    parcellate.run(
        runs=tmp_path / "x_runs.tsv",
        subject="01",
        atlas=study.atlas_options(),
        options=made.parcellate_of("x"),
        preprocess=options,
        cache=tmp_path / "cache",
        output=tmp_path / "x.safetensors",
        quality=tmp_path / "quality.tsv",
        **paths,
    )
    series, contract = read_timeseries(tmp_path / "x.safetensors")
    assert (contract.images, contract.confounds["strategy"]) == ("desc-denoised", [])
    # Half as bright as fMRIPrep's images, which are about 1000.
    assert series[0].mean.mean() == pytest.approx(500, rel=0.05)


def test_without_the_folder_of_fmriprep_masks_are_missed_by_name(study, tmp_path):
    apart(study, "_desc-denoised_bold")
    with pytest.raises(InputError, match="no brain mask") as caught:
        rows_of(study, config(study, image_suffix="_desc-denoised_bold"), tmp_path)
    assert "datasets.<name>.fmriprep" in caught.value.problems[0].remedy


@pytest.mark.parametrize("has_confounds", [True, False])
def test_an_image_that_xcp_d_left_frames_out_of_is_refused(study, tmp_path, has_confounds):
    root = apart(study, "_desc-denoised_bold")
    image = next(root.rglob("sub-01*run-1*_bold.nii.gz"))
    whole: Any = nib.load(image)
    nib.save(whole.slicer[..., :30], image)
    outliers = pd.DataFrame({"framewise_displacement": [1] * 10 + [0] * 30})
    outliers.to_csv(image.with_name("sub-01_task-blocks_run-1_outliers.tsv"), sep="\t", index=False)
    if not has_confounds:
        study.run("01", run="1").confounds.unlink()
    made = config(study, image_suffix="_desc-denoised_bold", fmriprep=str(study.derivatives))
    with pytest.raises(InputError) as caught:
        rows_of(study, made, tmp_path)
    (problem,) = caught.value.problems
    assert "interpolates frames" in problem.remedy
    assert all(number in problem.message for number in ("30", "40"))


def test_another_smoothing_of_smoothed_images_is_warned_of():
    content = {"role": "upstream", "derivatives": "a", "image_suffix": "_desc-denoisedSmoothed_bold"}
    made = Config.model_validate({"atlas": {"name": "difumo"}, "datasets": {"x": content}})
    assert any("smoothed already" in line for line in advise(made))
