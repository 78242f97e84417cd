"""Reading images in blocks: every stored type, both file kinds, and damaged files."""

from __future__ import annotations

import gzip
import threading
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from boldly.records import InputError
from boldly.signals.images import Grid, Volumes, open_volumes, read_mask

SHAPE = (5, 4, 3)
AFFINE = np.array([[-2.0, 0, 0, 4], [0, 2, 0, -3], [0, 0, 3, -5], [0, 0, 0, 1]])
GRID = Grid(SHAPE, AFFINE)


def write(
    path: Path, n_volumes: int | None = 7, dtype: str = "<i2", slope: float = 1, inter: float = 0
) -> np.ndarray:
    """Write an image of random stored numbers; return them."""
    kind = np.dtype(dtype)
    shape = SHAPE if n_volumes is None else (*SHAPE, n_volumes)
    stored = np.random.default_rng(3).uniform(0, 100, shape).astype(kind)
    header = nib.Nifti1Header(endianness=">" if kind.byteorder == ">" else "<")
    header.set_data_dtype(kind)
    header.set_data_shape(shape)
    header.set_sform(AFFINE, 1)
    header["scl_slope"], header["scl_inter"], header["vox_offset"], header["magic"] = slope, inter, 352, b"n+1"
    content = header.binaryblock + bytes(4) + stored.tobytes(order="F")
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return stored


def read(volumes: Volumes, size: int) -> np.ndarray:
    """Return all stored numbers, shape (X, Y, Z, T)."""
    blocks = [(first, block.copy()) for first, block in volumes.blocks(size)]
    assert [first for first, _ in blocks] == list(range(0, volumes.n_volumes, size))
    flat = np.concatenate([block for _, block in blocks])
    return flat.T.reshape((*volumes.grid.shape, volumes.n_volumes), order="F")


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("dtype", ["u1", "i1", "<i2", ">i2", "<u2", "<i4", "<u4", "<f4", ">f4", "<f8", "<i8"])
def test_blocks_hold_the_stored_numbers_exactly(tmp_path: Path, suffix: str, dtype: str) -> None:
    path = tmp_path / f"bold{suffix}"
    stored = write(path, dtype=dtype)
    volumes = open_volumes(path)
    assert volumes.dtype == np.dtype(dtype)
    assert (volumes.n_volumes, volumes.is_4d) == (7, True)
    assert volumes.grid.matches(GRID)
    for size in (1, 3, 7, 50):
        np.testing.assert_array_equal(read(volumes, size), stored)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_values_are_those_of_nibabel_bit_for_bit(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"bold{suffix}"
    write(path, dtype="<i2", slope=0.37, inter=-12.5)
    ours = open_volumes(path).values().T.reshape((*SHAPE, 7), order="F")
    np.testing.assert_array_equal(ours, np.asarray(nib.nifti1.load(path).dataobj))


def test_a_slope_of_zero_means_no_scaling(tmp_path: Path) -> None:
    stored = write(tmp_path / "bold.nii", slope=0, inter=5)
    np.testing.assert_array_equal(open_volumes(tmp_path / "bold.nii").values()[0], stored[..., 0].ravel(order="F"))


def test_a_3d_image_is_one_volume_without_time(tmp_path: Path) -> None:
    write(tmp_path / "mask.nii.gz", n_volumes=None)
    volumes = open_volumes(tmp_path / "mask.nii.gz")
    assert (volumes.n_volumes, volumes.is_4d) == (1, False)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("share", [0.1, 0.6, 0.999])
def test_a_cut_file_is_named(tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"bold{suffix}"
    write(path, n_volumes=60, dtype="<f4")
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError) as caught:
        read(open_volumes(path, "run-1"), 16)
    assert caught.value.problems[0].where == str(path)
    assert caught.value.problems[0].entity == "run-1"


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("extra", [-1, 1])
def test_a_header_that_promises_other_volumes_is_refused(tmp_path: Path, suffix: str, extra: int) -> None:
    path = tmp_path / f"bold{suffix}"
    write(path, n_volumes=6)
    content = bytearray(gzip.decompress(path.read_bytes()) if suffix == ".nii.gz" else path.read_bytes())
    content[48:50] = np.array(6 + extra, "<i2").tobytes()  # dim[4], the number of volumes
    path.write_bytes(gzip.compress(bytes(content)) if suffix == ".nii.gz" else bytes(content))
    with pytest.raises(
        InputError, match=r"data end in volume 6 of 7|more data than the 5 volumes|header promises"
    ):
        read(open_volumes(path), 4)


def test_a_wrong_checksum_at_the_end_is_found(tmp_path: Path) -> None:
    path = tmp_path / "bold.nii.gz"
    write(path)
    content = bytearray(path.read_bytes())
    content[-8] ^= 1  # the first byte of the CRC-32
    path.write_bytes(bytes(content))
    with pytest.raises(InputError, match=r"damaged (at or )?after .*volume.*CRC"):
        read(open_volumes(path), 4)


def test_a_flipped_byte_in_the_middle_is_found(tmp_path: Path) -> None:
    path = tmp_path / "bold.nii.gz"
    write(path, n_volumes=200, dtype="<f4")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(bytes(content))
    with pytest.raises(InputError, match=r"damaged|cut"):
        read(open_volumes(path), 32)


def test_garbage_after_the_stream_is_found(tmp_path: Path) -> None:
    path = tmp_path / "bold.nii.gz"
    write(path, n_volumes=60)
    path.write_bytes(path.read_bytes() + b"garbage")
    with pytest.raises(InputError, match="cut, or no longer compressed"):
        read(open_volumes(path), 4)


@pytest.mark.parametrize("content", [b"", b"not an image", gzip.compress(b"not an image", mtime=0)])
def test_what_is_no_image_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / ("bold.nii.gz" if content[:2] == b"\x1f\x8b" else "bold.nii")
    path.write_bytes(content)
    with pytest.raises(InputError, match="not a readable NIfTI image"):
        open_volumes(path)


def test_a_missing_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        open_volumes(tmp_path / "bold.nii.gz")


def test_an_image_that_does_not_say_where_its_voxels_are_is_refused(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.ones(SHAPE, np.int16), np.eye(4))
    image.set_sform(None, 0)
    image.set_qform(None, 0)
    nib.save(image, tmp_path / "atlas_dseg.nii.gz")
    with pytest.raises(InputError, match="does not say where the voxels are") as caught:
        open_volumes(tmp_path / "atlas_dseg.nii.gz", "atlas")
    assert "set_sform" in caught.value.problems[0].remedy
    image.set_qform(np.eye(4), 1)
    nib.save(image, tmp_path / "atlas_dseg.nii.gz")
    assert open_volumes(tmp_path / "atlas_dseg.nii.gz").grid.shape == SHAPE[:3]


def test_complex_numbers_are_refused(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.zeros((*SHAPE, 2), np.complex64), AFFINE), tmp_path / "bold.nii")
    with pytest.raises(InputError, match="complex64"):
        open_volumes(tmp_path / "bold.nii")


def open_files() -> set[Path]:
    """Return the files that this process has open."""
    return {descriptor.resolve() for descriptor in Path("/proc/self/fd").iterdir()}


def test_leaving_early_closes_the_stream(tmp_path: Path) -> None:
    path = tmp_path / "bold.nii.gz"
    write(path, n_volumes=50)
    threads = set(threading.enumerate())
    blocks = open_volumes(path).blocks(4)
    next(blocks)
    assert path in open_files()
    blocks.close()  # type: ignore[attr-defined]
    assert path not in open_files()
    assert not [thread for thread in set(threading.enumerate()) - threads if thread.is_alive()]


def test_voxel_edges_of_a_rotated_grid() -> None:
    angle = 0.3
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([2.0, 3.0, 4.0])
    np.testing.assert_allclose(Grid(SHAPE, affine).voxel_mm, [2, 3, 4])


def test_a_mask_is_what_is_not_zero(tmp_path: Path) -> None:
    mask = np.zeros(SHAPE, np.uint8)
    mask[1, 2, 1] = 1
    nib.save(nib.Nifti1Image(mask, AFFINE), tmp_path / "mask.nii.gz")
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.nii.gz", GRID), mask.ravel(order="F") == 1)


def test_a_mask_may_be_sheared_by_rounding(tmp_path: Path) -> None:
    affine = AFFINE.copy()
    affine[0, 1] = 2e-4
    nib.save(nib.Nifti1Image(np.ones(SHAPE, np.uint8), affine), tmp_path / "mask.nii.gz")
    assert read_mask(tmp_path / "mask.nii.gz", GRID).all()


@pytest.mark.parametrize("wrong", ["shape", "affine", "empty"])
def test_a_mask_that_does_not_fit_is_refused(tmp_path: Path, wrong: str) -> None:
    mask = np.full((4, 4, 3) if wrong == "shape" else SHAPE, 0 if wrong == "empty" else 1, np.uint8)
    nib.save(nib.Nifti1Image(mask, AFFINE + 0.5 * (wrong == "affine")), tmp_path / "mask.nii.gz")
    with pytest.raises(InputError, match="the brain mask"):
        read_mask(tmp_path / "mask.nii.gz", GRID)
