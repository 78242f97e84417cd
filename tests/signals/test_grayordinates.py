"""CIFTI: the mean of each label, whatever grayordinates file and parcellation have, and what is no such file."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.cifti2 import BrainModelAxis, LabelAxis, SeriesAxis

from boldly.config import AtlasOptions
from boldly.records import InputError
from boldly.signals.atlas import load_parcellation
from boldly.signals.grayordinates import open_series
from boldly.signals.headers import HeaderError
from tests.cifti import AFFINE, FRAMES, T_R, VOLUME, labelled, models, save_labels, save_series, signals


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A run without the medial wall, and a parcellation with it."""
    run = save_series(tmp_path / "x_bold.dtseries.nii", models())
    return run, save_labels(tmp_path / "x.dlabel.nii", models(wall=True))


def parcellation(path: Path, **options: object):
    return load_parcellation(AtlasOptions.model_validate({"path": str(path), **options}))


def test_each_parcel_is_the_mean_of_its_label(files):
    series, parcels = open_series(files[0]), parcellation(files[1])
    found = parcels.on(series.axis).extract(series)
    data, labels = signals(models()), labelled(models())
    expected = np.stack([data[:, labels == value].mean(axis=1) for value in parcels.values], axis=1)
    np.testing.assert_allclose(found.signals, expected, rtol=1e-6)
    assert (found.nonfinite, found.empty.any()) == (0, False)
    assert (series.n_volumes, series.t_r) == (FRAMES, T_R)


def test_parcels_have_their_labels_names(files):
    assert parcellation(files[1]).names == ("left front", "left back", "right front", "right back", "below")
    assert parcellation(files[1]).values == (1, 2, 3, 4, 7)


def test_a_table_can_name_the_parcels(files, tmp_path):
    rows = "".join(f"{value}\tp{value}\n" for value in (1, 2, 3, 4, 7))
    (tmp_path / "names.tsv").write_text("index\tname\n" + rows)
    assert parcellation(files[1], labels=str(tmp_path / "names.tsv")).names[-1] == "p7"


def test_coverage_is_the_share_of_a_parcel_that_the_run_has(files, tmp_path):
    left = models()[models().name == "CIFTI_STRUCTURE_CORTEX_LEFT"]
    run = open_series(save_series(tmp_path / "left_bold.dtseries.nii", left))
    placed = parcellation(files[1]).on(run.axis)
    # The parcellation has labels on the medial wall of the left hemisphere too, at 4 of the 16 front vertices.
    np.testing.assert_allclose(placed.coverage, [12 / 16, 1, 0, 0, 0])
    assert (placed.extract(run).signals[:, 2:] == 0).all()


def test_a_parcellation_of_the_cortex_alone_leaves_voxels_out(files, tmp_path):
    cortex = models()[models().surface_mask]
    found = parcellation(save_labels(tmp_path / "cortex.dlabel.nii", cortex)).on(open_series(files[0]).axis)
    assert found.weights.shape == (4, len(models()))
    np.testing.assert_allclose(found.coverage, 1)


def test_numbers_that_are_not_finite_count_as_zero(tmp_path, files):
    data = signals(models())
    data[3, 0] = np.nan
    series = open_series(save_series(tmp_path / "y_bold.dtseries.nii", models(), data))
    found = parcellation(files[1]).on(series.axis).extract(series)
    labels = labelled(models()) == 1
    assert found.nonfinite == 1
    assert found.signals[3, 0] == pytest.approx(np.nansum(data[3, labels]) / labels.sum())


def test_frames_without_any_signal_are_told(tmp_path, files):
    data = signals(models())
    data[5] = 0
    series = open_series(save_series(tmp_path / "y_bold.dtseries.nii", models(), data))
    assert np.flatnonzero(parcellation(files[1]).on(series.axis).extract(series).empty).tolist() == [5]


def test_frames_without_any_signal_are_told_where_integers_have_no_zero(tmp_path, files):
    data = signals(models())
    data[5], data[7, 3] = 0, -37.3
    frames = SeriesAxis(0, T_R, len(data), unit="SECOND")
    image = nib.Cifti2Image(data, (frames, models()))
    image.nifti_header.set_data_dtype(np.int16)
    nib.save(image, tmp_path / "y_bold.dtseries.nii")
    series = open_series(tmp_path / "y_bold.dtseries.nii")
    assert (series.inter / series.slope) % 1 != 0
    assert np.flatnonzero(parcellation(files[1]).on(series.axis).extract(series).empty).tolist() == [5]


def test_surfaces_of_another_density_are_refused(files, tmp_path):
    other = open_series(save_series(tmp_path / "y_bold.dtseries.nii", models(vertices=60)))
    with pytest.raises(InputError, match="a hemisphere has 32 vertices, in the run 60"):
        parcellation(files[1]).on(other.axis)


def test_voxels_of_another_grid_are_refused(files):
    elsewhere = AFFINE + np.eye(4, k=3)
    moved = BrainModelAxis.from_mask(np.ones(VOLUME), affine=elsewhere, name="ThalamusLeft")
    with pytest.raises(InputError, match="another grid"):
        parcellation(files[1]).on(moved)


@pytest.mark.parametrize("content", [b"", b"text" * 200])
def test_what_is_no_cifti_file_is_refused(tmp_path, content):
    path = tmp_path / "x_bold.dtseries.nii"
    path.write_bytes(content)
    with pytest.raises(HeaderError, match="not a readable CIFTI file"):
        open_series(path)


def test_a_cut_file_is_refused(files):
    files[0].write_bytes(files[0].read_bytes()[:-100])
    with pytest.raises(HeaderError, match="it is cut or damaged"):
        open_series(files[0])


def test_a_parcellation_is_no_series_and_a_series_no_parcellation(files):
    with pytest.raises(HeaderError, match=r"not a CIFTI time series of grayordinates \(Label by BrainModel\)"):
        open_series(files[1])
    with pytest.raises(InputError, match="not a parcellation"):
        parcellation(files[0].rename(files[0].with_name("x_bold.dlabel.nii")))


def test_several_parcellations_in_one_file_are_refused_by_name(tmp_path):
    table = {0: ("none", (0, 0, 0, 0)), 1: ("a", (1, 0, 0, 1))}
    axis = models()
    image = nib.Cifti2Image(np.ones((2, len(axis))), (LabelAxis(["seven", "seventeen"], table), axis))
    nib.save(image, tmp_path / "two.dlabel.nii")
    with pytest.raises(InputError, match="2 parcellations in one file: seven, seventeen"):
        parcellation(tmp_path / "two.dlabel.nii")


def test_a_series_that_is_not_of_time_has_no_repetition_time(tmp_path):
    axis = SeriesAxis(0, 0.1, FRAMES, unit="HERTZ")
    nib.save(nib.Cifti2Image(signals(models()), (axis, models())), tmp_path / "x_bold.dtseries.nii")
    assert open_series(tmp_path / "x_bold.dtseries.nii").t_r == 0
