"""Projection from voxels to parcels: equal to nilearn's maskers, kept on disk, and its coverage."""

from __future__ import annotations

import logging
import mmap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from nilearn.maskers import NiftiLabelsMasker, NiftiMapsMasker

from boldly.config import AtlasOptions
from boldly.records import InputError
from boldly.signals import projection as module
from boldly.signals.atlas import Atlas, load_atlas
from boldly.signals.images import Grid, open_volumes
from boldly.signals.projection import Projection, build_projection, load_projection, projection_key

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::RuntimeWarning")

SHAPE = (11, 13, 9)
T = 70  # more than two blocks
_ANGLE = 0.2
_TURN = np.array([[np.cos(_ANGLE), -np.sin(_ANGLE), 0], [np.sin(_ANGLE), np.cos(_ANGLE), 0], [0, 0, 1]])
AFFINES = {
    "cubic": np.diag([2.0, 2, 2, 1]),
    "flipped": np.diag([-2.0, 2, 2, 1]),
    "oblong": np.diag([2.0, 3, 4.5, 1]),
}
AFFINES["rotated"] = np.eye(4)
AFFINES["rotated"][:3, :3] = _TURN @ np.diag([2.0, 3, 2.5])
AFFINES["rotated"][:3, 3] = [-9, 4, 2]


def write_maps(path: Path, affine: np.ndarray, n_maps: int = 6, dtype: type = np.float64) -> Atlas:
    """Write overlapping blobs, the first of them in a corner of the image."""
    rng = np.random.default_rng(1)
    axes = np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij")
    maps: np.ndarray = np.zeros((*SHAPE, n_maps), dtype)
    for number in range(n_maps):
        centre = np.zeros(3) if number == 0 else rng.uniform(0, SHAPE)
        distance = sum((axis - middle) ** 2 for axis, middle in zip(axes, centre, strict=True))
        maps[..., number] = np.maximum(np.exp(-distance / 12) - 0.1, 0)
    nib.save(nib.Nifti1Image(maps, affine), path)
    return load_atlas(AtlasOptions(path=str(path)))


def write_labels(path: Path, affine: np.ndarray) -> Atlas:
    """Write slabs of labels 3, 4, 9, one of them at the border of the image."""
    image = np.zeros(SHAPE, np.int16)
    image[0:2], image[4:6, 2:9], image[7:9, 5:8, 3:6] = 4, 9, 3
    nib.save(nib.Nifti1Image(image, affine), path)
    return load_atlas(AtlasOptions(path=str(path)))


def write_run(
    path: Path, affine: np.ndarray, shape: tuple[int, ...] = SHAPE, dtype: type = np.float64
) -> np.ndarray:
    """Write a run with fluctuations of 1 % around different levels; return its values."""
    rng = np.random.default_rng(2)
    level = rng.uniform(500, 1500, shape)[..., None]
    data: np.ndarray = (level * (1 + 0.01 * rng.normal(size=(*shape, T)))).astype(dtype)
    nib.save(nib.Nifti1Image(data, affine), path)
    return data


def masker(atlas: Atlas, fwhm: float | None, **more: Any) -> NiftiMapsMasker | NiftiLabelsMasker:
    path = str(atlas.volumes.path)
    if atlas.kind == "maps":
        return NiftiMapsMasker(path, smoothing_fwhm=fwhm, standardize=None, reports=False, **more)
    return NiftiLabelsMasker(path, smoothing_fwhm=fwhm, standardize=None, reports=False, **more)


def extract(atlas: Atlas, path: Path, fwhm: float | None = None) -> np.ndarray:
    volumes = open_volumes(path)
    return build_projection(atlas, volumes.grid, fwhm).extract(volumes).signals


def assert_same(found: np.ndarray, expected: np.ndarray, tolerance: float = 1e-8) -> None:
    """Compare signals in units of their standard deviation over time."""
    assert found.shape == expected.shape
    assert np.abs((found - expected) / expected.std(axis=0)).max() < tolerance


@pytest.fixture(params=["maps", "labels"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def write_atlas(kind: str, folder: Path, affine: np.ndarray) -> Atlas:
    write = write_maps if kind == "maps" else write_labels
    return write(folder / "atlas.nii.gz", affine)


@pytest.mark.parametrize("fwhm", [None, 3.0, 7.5])
@pytest.mark.parametrize("name", list(AFFINES))
def test_equals_nilearn(tmp_path: Path, kind: str, name: str, fwhm: float | None) -> None:
    atlas = write_atlas(kind, tmp_path, AFFINES[name])
    write_run(tmp_path / "bold.nii.gz", AFFINES[name])
    expected = masker(atlas, fwhm).fit_transform(str(tmp_path / "bold.nii.gz"))
    assert_same(extract(atlas, tmp_path / "bold.nii.gz", fwhm), expected)


@pytest.mark.parametrize("fwhm", [None, 7.5])
@pytest.mark.parametrize("name", list(AFFINES))
def test_inside_a_mask_it_equals_nilearn_with_mask_img(
    tmp_path: Path, kind: str, name: str, fwhm: float | None
) -> None:
    atlas = write_atlas(kind, tmp_path, AFFINES[name])
    write_run(tmp_path / "bold.nii.gz", AFFINES[name])
    inside = np.ones(SHAPE, np.uint8)
    inside[:5], inside[:, :3] = 0, 0  # all of one label, half of another, nothing of the third
    mask = nib.Nifti1Image(inside, AFFINES[name])
    volumes = open_volumes(tmp_path / "bold.nii.gz")
    whole = build_projection(atlas, volumes.grid, fwhm)
    flat = inside.ravel(order="F").astype(bool)
    found = whole.within(flat, fwhm).extract(volumes).signals
    there = whole.coverage(flat) > 0
    # nilearn leaves parcels outside the mask out; here they are zeros.
    assert 0 < there.sum() < atlas.n_parcels
    assert not found[:, ~there].any()
    expected = masker(atlas, fwhm, mask_img=mask).fit_transform(str(tmp_path / "bold.nii.gz"))
    # Weights of maps are kept in single precision; levels are 1,000 times the fluctuations.
    assert_same(found[:, there], expected, 5e-5 if kind == "maps" else 1e-8)


def test_a_mask_that_cuts_no_parcel_changes_nothing(tmp_path: Path, kind: str) -> None:
    atlas = write_atlas(kind, tmp_path, AFFINES["cubic"])
    write_run(tmp_path / "bold.nii.gz", AFFINES["cubic"])
    volumes = open_volumes(tmp_path / "bold.nii.gz")
    whole = build_projection(atlas, volumes.grid, 5.0)
    inside = np.ones(volumes.grid.n_voxels, bool)
    assert_same(whole.within(inside, 5.0).extract(volumes).signals, whole.extract(volumes).signals, 5e-5)


@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.uint8, np.int32, np.float32, np.float64])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_every_stored_type_is_exact(tmp_path: Path, kind: str, dtype: type, suffix: str) -> None:
    # Against double precision sums over the same stored values.
    atlas = write_atlas(kind, tmp_path, AFFINES["cubic"])
    run = tmp_path / f"bold{suffix}"
    data = write_run(run, AFFINES["cubic"], dtype=dtype)
    if kind == "maps":
        maps = np.stack(list(atlas.maps()), axis=-1).reshape(-1, atlas.n_parcels)
        expected = np.linalg.lstsq(maps, data.reshape(-1, T).astype(np.float64))[0].T
    else:
        expected = np.stack([data[atlas.labels() == value].mean(axis=0, dtype=float) for value in atlas.values], 1)
    assert_same(extract(atlas, run), expected)


def test_scaling_of_the_header_is_exact(tmp_path: Path, kind: str) -> None:
    atlas = write_atlas(kind, tmp_path, AFFINES["cubic"])
    stored = write_run(tmp_path / "plain.nii", AFFINES["cubic"], dtype=np.int16)
    image = nib.Nifti1Image(stored, AFFINES["cubic"])
    image.header.set_slope_inter(0.25, -300.0)
    nib.save(image, tmp_path / "scaled.nii.gz")
    scaled = nib.load(tmp_path / "scaled.nii.gz")
    # nibabel rescales integers when it writes with other factors: take what a reader of the file gets.
    assert open_volumes(tmp_path / "scaled.nii.gz").slope != 1
    assert_same(extract(atlas, tmp_path / "scaled.nii.gz", 4.0), masker(atlas, 4.0).fit_transform(scaled))


def test_a_large_baseline_costs_no_precision(tmp_path: Path, kind: str) -> None:
    # Fluctuations of 1 around 30,000: single precision sums over the values would be off by more than 1e-3 SD.
    atlas = write_atlas(kind, tmp_path, AFFINES["cubic"])
    data = 30_000 + np.rint(np.random.default_rng(5).normal(size=(*SHAPE, T)))
    nib.save(nib.Nifti1Image(data.astype(np.int16), AFFINES["cubic"]), tmp_path / "bold.nii.gz")
    nib.save(nib.Nifti1Image(data, AFFINES["cubic"]), tmp_path / "double.nii.gz")
    expected = masker(atlas, 3.0).fit_transform(str(tmp_path / "double.nii.gz"))
    assert_same(extract(atlas, tmp_path / "bold.nii.gz", 3.0), expected)


@pytest.mark.parametrize("target", ["coarser", "rotated", "shifted", "cut"])
def test_data_on_another_grid_equals_nilearn(tmp_path: Path, kind: str, target: str) -> None:
    atlas = write_atlas(kind, tmp_path, AFFINES["cubic"])
    affine, shape = {
        "coarser": (np.diag([2.6, 2.2, 2.4, 1]), (9, 12, 8)),
        "rotated": (AFFINES["rotated"] + np.outer([7, -4, -2, 0], [0, 0, 0, 1]), (12, 12, 9)),
        "shifted": (AFFINES["cubic"] + np.outer([1, 1, 1, 0], [0, 0, 0, 0.7]), SHAPE),
        "cut": (AFFINES["cubic"], (9, 13, 9)),
    }[target]
    write_run(tmp_path / "bold.nii.gz", affine, shape)
    expected = masker(atlas, 3.0).fit_transform(str(tmp_path / "bold.nii.gz"))
    assert_same(extract(atlas, tmp_path / "bold.nii.gz", 3.0), expected)


def test_a_label_that_vanishes_keeps_its_column(tmp_path: Path) -> None:
    # nilearn drops the column.
    atlas = write_labels(tmp_path / "atlas.nii.gz", AFFINES["cubic"])
    affine = np.diag([2.0, 2, 2, 1])
    write_run(tmp_path / "bold.nii.gz", affine, (6, 13, 9))
    expected = masker(atlas, None).fit_transform(str(tmp_path / "bold.nii.gz"))
    found = extract(atlas, tmp_path / "bold.nii.gz")
    assert (found.shape, expected.shape) == ((T, 3), (T, 2))
    assert not found[:, 0].any()
    assert_same(found[:, 1:], expected)
    grid = open_volumes(tmp_path / "bold.nii.gz").grid
    np.testing.assert_array_equal(build_projection(atlas, grid, None).coverage(None), [0, 1, 1])


def test_maps_that_repeat_each_other_share_the_signal_as_in_nilearn(tmp_path: Path) -> None:
    image = nib.nifti1.load(write_maps(tmp_path / "one.nii", AFFINES["cubic"]).volumes.path)
    maps = np.concatenate([image.get_fdata(), image.get_fdata()[..., :1], np.zeros((*SHAPE, 1))], axis=-1)
    nib.save(nib.Nifti1Image(maps, AFFINES["cubic"]), tmp_path / "atlas.nii")
    atlas = load_atlas(AtlasOptions(path=str(tmp_path / "atlas.nii")))
    write_run(tmp_path / "bold.nii", AFFINES["cubic"])
    expected = masker(atlas, None).fit_transform(str(tmp_path / "bold.nii"))
    found = extract(atlas, tmp_path / "bold.nii")
    assert_same(found[:, :-1], expected[:, :-1])
    assert not found[:, -1].any()


@pytest.mark.parametrize("fwhm", [None, 3.0])
def test_numbers_that_are_not_finite_count_as_zero_as_in_nilearn(
    tmp_path: Path, kind: str, fwhm: float | None
) -> None:
    atlas = write_atlas(kind, tmp_path, AFFINES["cubic"])
    data = write_run(tmp_path / "bold.nii", AFFINES["cubic"], dtype=np.float32)
    data[0, 0, 0], data[5, 5, 5, 3], data[1, 1, 1, 60] = np.nan, np.inf, -np.inf
    nib.save(nib.Nifti1Image(data, AFFINES["cubic"]), tmp_path / "bold.nii")
    nib.save(
        nib.Nifti1Image(np.nan_to_num(data.astype(float), posinf=0, neginf=0), AFFINES["cubic"]),
        tmp_path / "0.nii",
    )
    volumes = open_volumes(tmp_path / "bold.nii")
    extracted = build_projection(atlas, volumes.grid, fwhm).extract(volumes)
    assert_same(extracted.signals, masker(atlas, fwhm).fit_transform(str(tmp_path / "0.nii")))
    assert 70 < extracted.nonfinite <= 72
    assert not extracted.empty.any()


@pytest.mark.parametrize("inter", [0.0, 5.0])
def test_volumes_of_which_nothing_was_recorded_are_told(tmp_path: Path, kind: str, inter: float) -> None:
    atlas = write_atlas(kind, tmp_path, AFFINES["cubic"])
    data = write_run(tmp_path / "bold.nii", AFFINES["cubic"], dtype=np.float32)
    # What the header adds to the stored numbers counts: zero is what a viewer shows as zero.
    data[..., 4], data[..., 7], data[..., 9] = -inter, np.nan, 3
    image = nib.Nifti1Image(data, AFFINES["cubic"])
    image.header.set_slope_inter(1, inter)
    nib.save(image, tmp_path / "bold.nii")
    stored = bytearray((tmp_path / "bold.nii").read_bytes())
    stored[352:] = data.tobytes(order="F")
    (tmp_path / "bold.nii").write_bytes(stored)
    volumes = open_volumes(tmp_path / "bold.nii")
    assert volumes.inter == inter
    extracted = build_projection(atlas, volumes.grid, None).extract(volumes)
    assert np.flatnonzero(extracted.empty).tolist() == [4, 7]


@pytest.mark.parametrize("dtype", [np.int16, np.uint8])
def test_volumes_of_nothing_are_told_where_integers_have_no_zero(tmp_path: Path, kind: str, dtype: type) -> None:
    atlas = write_atlas(kind, tmp_path, AFFINES["cubic"])
    data = write_run(tmp_path / "bold.nii", AFFINES["cubic"])
    # A negative number, as interpolation leaves some: nibabel then stores zero as the integer that lies nearest.
    data[..., 4], data[4, 4, 4, 9] = 0, -37.3
    image = nib.Nifti1Image(data, AFFINES["cubic"])
    image.header.set_data_dtype(dtype)
    nib.save(image, tmp_path / "bold.nii")
    volumes = open_volumes(tmp_path / "bold.nii")
    assert (volumes.inter / volumes.slope) % 1 != 0
    extracted = build_projection(atlas, volumes.grid, None).extract(volumes)
    assert np.flatnonzero(extracted.empty).tolist() == [4]


def test_coverage_is_the_share_of_weight_in_the_mask(tmp_path: Path, kind: str) -> None:
    atlas = write_atlas(kind, tmp_path, AFFINES["cubic"])
    projection = build_projection(atlas, atlas.grid, 6.0)
    mask = np.random.default_rng(0).uniform(size=SHAPE) < 0.4
    parcels = list(atlas.maps()) if kind == "maps" else [atlas.labels() == value for value in atlas.values]
    expected = [parcel[mask].sum() / parcel.sum() for parcel in parcels]
    np.testing.assert_allclose(projection.coverage(mask.ravel(order="F")), expected, rtol=1e-6)
    np.testing.assert_array_equal(projection.coverage(None), 1)
    np.testing.assert_array_equal(projection.coverage(np.zeros(mask.size, bool)), 0)


def test_coverage_counts_what_lies_outside_the_grid(tmp_path: Path) -> None:
    # Label 4 has planes 0 and 1 along x; the grid starts at plane 1.
    atlas = write_labels(tmp_path / "atlas.nii.gz", AFFINES["cubic"])
    affine = AFFINES["cubic"].copy()
    affine[0, 3] = 2
    projection = build_projection(atlas, Grid((10, 13, 9), affine), None)
    np.testing.assert_allclose(projection.coverage(None), [1, 0.5, 1])


def test_an_atlas_elsewhere_is_refused(tmp_path: Path, kind: str) -> None:
    atlas = write_atlas(kind, tmp_path, AFFINES["cubic"])
    affine = AFFINES["cubic"].copy()
    affine[:3, 3] = 500
    with pytest.raises(InputError, match="the atlas has no voxel within"):
        load_projection(atlas, Grid(SHAPE, affine), None, tmp_path / "cache")
    affine[:3, 3] = -500
    with pytest.raises(InputError, match="the atlas has no voxel within"):
        load_projection(atlas, Grid(SHAPE, affine), None, tmp_path / "cache")


def assert_equal(one: Projection, other: Projection) -> None:
    for name in ("voxels", "unmix", "on_grid"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    for name in ("smoothed", "weights"):
        assert (getattr(one, name) != getattr(other, name)).nnz == 0


def test_the_cache_gives_back_what_was_built_and_builds_once(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    atlas = write_atlas(kind, tmp_path, AFFINES["cubic"])
    built = build_projection(atlas, atlas.grid, 3.0)
    calls = []

    def build(*args: Any) -> Projection:
        calls.append(args)
        return build_projection(*args)

    monkeypatch.setattr(module, "build_projection", build)
    with ThreadPoolExecutor(4) as pool:
        loaded = list(pool.map(lambda _: load_projection(atlas, atlas.grid, 3.0, tmp_path / "cache"), range(4)))
    assert len(calls) == 1
    for projection in loaded:
        assert_equal(projection, built)
    memory = loaded[0].smoothed.data
    while isinstance(memory.base, np.ndarray):
        memory = memory.base
    assert isinstance(memory.base, mmap.mmap)


@pytest.mark.parametrize("damage", ["cut", "empty", "missing", "json"])
def test_a_damaged_cache_is_built_again(
    tmp_path: Path, kind: str, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    atlas = write_atlas(kind, tmp_path, AFFINES["cubic"])
    built = load_projection(atlas, atlas.grid, 3.0, tmp_path / "cache")
    folder = tmp_path / "cache" / projection_key(atlas, atlas.grid, 3.0)
    part = folder / ("projection.json" if damage == "json" else "smoothed_data.npy")
    content = part.read_bytes()
    part.unlink()
    if damage != "missing":
        part.write_bytes(content[: {"cut": len(content) // 2, "empty": 0, "json": 20}[damage]])
    with caplog.at_level(logging.WARNING):
        again = load_projection(atlas, atlas.grid, 3.0, tmp_path / "cache")
    assert_equal(again, built)
    assert part.read_bytes() == content


def test_the_key_holds_everything_that_matters(tmp_path: Path) -> None:
    affine = AFFINES["cubic"]
    maps = write_maps(tmp_path / "maps.nii", affine)
    labels = write_labels(tmp_path / "labels.nii", affine)
    grid = Grid(SHAPE, affine)
    keys = {
        projection_key(maps, grid, None),
        projection_key(labels, grid, None),
        projection_key(maps, grid, 3.0),
        projection_key(maps, Grid((11, 13, 8), affine), None),
        projection_key(maps, Grid(SHAPE, affine * 1.001), None),
    }
    assert len(keys) == 5
    assert projection_key(maps, Grid(SHAPE, affine + 1e-9), None) == projection_key(maps, grid, None)
