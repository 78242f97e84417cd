"""What the header of a functional image tells, and whether its data are all there, without reading them."""

from __future__ import annotations

import functools
import logging
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import nibabel as nib
import numpy as np
from isal import igzip, isal_zlib
from isal.igzip_lib import IsalError
from numpy.typing import NDArray

from boldly.signals.images import NOWHERE, PLACE_IT, Grid, is_placed

_NIFTI1_BYTES = 348
_NIFTI2_BYTES = 540
# Its stub calls IsalError an instance.
_DAMAGED: tuple[type[Exception], ...] = (OSError, IsalError)  # type: ignore[assignment]
_GZIP_MAGIC = b"\x1f\x8b"
_START_BYTES = 1 << 14
_CHUNK_BYTES = 1 << 22
_SECONDS_PER_UNIT = {0: 1.0, 8: 1.0, 16: 1e-3, 24: 1e-6}
_TIME_BITS = 0b111000
# Zoom of the time axis and its unit in a header whose writer did not know the repetition time.
_UNTOLD = (1.0, 0)
# nibabel logs what it mends in a header.
_SILENT = logging.getLogger(f"{__name__}.silent")
_SILENT.addHandler(logging.NullHandler())
_SILENT.propagate = False


class HeaderError(ValueError):
    """A file that is no complete 4-D NIfTI image; the message says why, `remedy` the way out."""

    def __init__(self, message: str, remedy: str = "copy or compute the file again, or exclude the run") -> None:
        self.remedy = remedy
        super().__init__(message)


@dataclass(frozen=True)
class Header:
    """The header of a 4-D image.

    Attributes
    ----------
    grid : Grid or None
        Voxels and affine; None for images on surfaces.
    n_volumes : int
        Number of volumes.
    t_r : float
        Repetition time, s, from the fifth zoom and its unit (no unit: seconds); 0.0 where the header has none. A
        zoom of 1 without a unit is none: nibabel and others write it where nobody told them.
    axis : BrainModelAxis, optional
        The surfaces and voxels of a CIFTI file.
    """

    grid: Grid | None
    n_volumes: int
    t_r: float
    axis: Any = None


def read_header(path: Path) -> Header:
    """Read the header of a run's image and check that the file holds as many bytes as it promises.

    The size of a ``.nii.gz`` is taken from the last four bytes of the gzip stream (size modulo 2**32), which a cut
    file does not have; only where they disagree with the header is the file read through, since a file of several
    gzip members is sound and disagrees too.

    Parameters
    ----------
    path : Path
        ``.nii`` or ``.nii.gz``.

    Raises
    ------
    HeaderError
        For a dangling link, an unreadable, empty or cut file, no NIfTI image, an image that is not 4-D, or one
        that does not say where its voxels are.
    """
    try:
        with path.open("rb") as stream:
            file_bytes = os.fstat(stream.fileno()).st_size
            if file_bytes == 0:
                raise HeaderError("the image is empty (0 bytes)")
            start = _first_bytes(path, stream)
            image_bytes = file_bytes if path.suffix != ".gz" else _gzip_size(stream)
    except FileNotFoundError:
        raise absent(path) from None
    except OSError as error:
        raise HeaderError(f"the image cannot be read: {error.strerror or error}") from None
    described, promised = _describe(start)
    _check_size(path, image_bytes, promised)
    return _checked(start, described)


def check_source(path: Path) -> None:
    """Refuse a raw image with a sheared affine, which fMRIPrep 20.2.0 resamples wrongly.

    Whatever else is wrong with it does not matter: the preprocessed image is what is used.

    Raises
    ------
    HeaderError
        If its affine is sheared.
    """
    try:
        with path.open("rb") as stream:
            header = _parse(_first_bytes(path, stream))
        affine = np.asarray(header.get_best_affine(), np.float64)
    except (OSError, HeaderError, ValueError):
        return
    _check_shear(affine, np.asarray(header.get_zooms()[:3], np.float64))


def is_sound_on(path: Path, grid: Grid) -> bool:
    """Tell whether a file begins as a sound 3-D NIfTI image on a grid (its data are not looked at).

    Quicker than `boldly.signals.images.open_volumes`, which says what is wrong with those that are not.
    """
    try:
        with path.open("rb") as stream:
            found = _sound_grid(_first_bytes(path, stream))
    except (OSError, HeaderError):
        return False
    return found is not None and found.is_near(grid)


# The runs of a dataset mostly share a few headers: what they say is worked out once.
@functools.lru_cache
def _sound_grid(start: bytes) -> Grid | None:
    try:
        header = _parse(start)
        header.check_fix(logger=_SILENT)
        affine = np.asarray(header.get_best_affine(), np.float64)
        dtype, shape = header.get_data_dtype(), tuple(int(n) for n in header.get_data_shape())
    except (HeaderError, ValueError, nib.spatialimages.HeaderDataError):
        return None
    is_number = dtype.kind in "iuf" and dtype.itemsize <= 8
    is_affine = np.isfinite(affine).all() and np.linalg.det(affine[:3, :3]) != 0
    sound = is_number and is_affine and len(shape) == 3 and min(shape) >= 1
    return Grid((shape[0], shape[1], shape[2]), affine) if sound else None


@functools.lru_cache
def _describe(start: bytes) -> tuple[tuple[int, ...], int]:
    """Return the shape of an image, and the bytes that its header promises."""
    header = _parse(start)
    shape = tuple(int(n) for n in header["dim"][1 : header["dim"][0] + 1])
    while len(shape) > 4 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 4 or min(shape) < 1:
        raise HeaderError(f"the image is not 4-D, its shape is {'x'.join(map(str, shape))}")
    bytes_per_value = int(header["bitpix"]) // 8
    return shape, _data_offset(header) + int(np.prod(shape, dtype=np.int64)) * bytes_per_value


@functools.lru_cache
def _checked(start: bytes, shape: tuple[int, ...]) -> Header:
    header = _parse(start)
    if not is_placed(header):
        raise HeaderError(NOWHERE, f"{PLACE_IT}, or exclude the run")
    try:
        affine = np.asarray(header.get_best_affine(), np.float64)
    except ValueError as error:
        raise HeaderError(f"the affine of the image is none: {error}") from None
    if not np.isfinite(affine).all() or np.linalg.det(affine[:3, :3]) == 0:
        raise HeaderError("the affine of the image cannot be inverted")
    _check_shear(affine, np.asarray(header.get_zooms()[:3], np.float64))
    return Header(Grid((shape[0], shape[1], shape[2]), affine), shape[3], _header_t_r(header))


def _first_bytes(path: Path, stream: IO[bytes]) -> bytes:
    """Return the header of an image, without the data behind it."""
    start = stream.read(_START_BYTES)
    if path.suffix == ".gz":
        if start[:2] != _GZIP_MAGIC:
            raise HeaderError("the image's name ends in .gz, but it is not gzip-compressed")
        # The header is in the first bytes of the deflate stream: no need of a reader that buffers megabytes.
        inflate = isal_zlib.decompressobj(wbits=31)
        try:
            start = inflate.decompress(start, _NIFTI2_BYTES)
        except _DAMAGED as error:
            raise HeaderError(f"the compressed image is damaged: {error}") from None
    is_second = start[:4] in (struct.pack("<i", _NIFTI2_BYTES), struct.pack(">i", _NIFTI2_BYTES))
    return start[: _NIFTI2_BYTES if is_second else _NIFTI1_BYTES]


def _parse(start: bytes) -> nib.Nifti1Header:
    if len(start) < _NIFTI1_BYTES:
        raise HeaderError(f"the image is cut: {len(start)} bytes are no NIfTI header")
    for kind, size in ((nib.Nifti1Header, _NIFTI1_BYTES), (nib.Nifti2Header, _NIFTI2_BYTES)):
        if size in struct.unpack("<i", start[:4]) + struct.unpack(">i", start[:4]) and len(start) >= size:
            header = kind(start[:size], check=False)
            if 1 <= header["dim"][0] <= 7 and header["bitpix"] > 0:
                return header
    raise HeaderError("not a NIfTI image")


def _data_offset(header: nib.Nifti1Header) -> int:
    # In a single file the data begin behind the header and its four extension bytes, also if the field says 0.
    single = header["sizeof_hdr"] + 4
    return max(int(header["vox_offset"]), int(single))


def _header_t_r(header: nib.Nifti1Header) -> float:
    unit = int(header["xyzt_units"]) & _TIME_BITS
    zoom = float(header["pixdim"][4])
    if (zoom, unit) == _UNTOLD:
        return 0.0
    t_r = zoom * _SECONDS_PER_UNIT.get(unit, 0.0)
    return round(t_r, 5) if np.isfinite(t_r) and t_r > 0 else 0.0


def _check_size(path: Path, image_bytes: int, promised: int) -> None:
    if path.suffix != ".gz":
        if image_bytes != promised:
            raise HeaderError(
                f"the image has {image_bytes} bytes, its header promises {promised}: it is cut or damaged"
            )
    elif image_bytes != promised % 2**32:
        _check_inflated_size(path, promised)


def _gzip_size(stream: IO[bytes]) -> int:
    stream.seek(-4, os.SEEK_END)
    return int(struct.unpack("<I", stream.read(4))[0])


def _check_inflated_size(path: Path, promised: int) -> None:
    size = 0
    try:
        with igzip.open(path, "rb") as stream:
            while size <= promised and (chunk := stream.read(_CHUNK_BYTES)):
                size += len(chunk)
    except EOFError:
        message = "the compressed image is cut, or has bytes behind its end that are none of it"
        raise HeaderError(f"{message}; its header promises {promised} bytes") from None
    except _DAMAGED as error:
        raise HeaderError(f"the compressed image is damaged: {error}") from None
    if size != promised:
        found = f"more than {promised}" if size > promised else str(size)
        raise HeaderError(f"the image holds {found} bytes, its header promises {promised}: it is cut or damaged")


def absent(path: Path) -> HeaderError:
    """Say what is wrong with an image that is not there."""
    if path.is_symlink():
        return HeaderError(
            f"the image is a link to a file that is not there ({path.readlink()})",
            f"fetch its content (git-annex: `datalad get {path}`), or exclude the run",
        )
    return HeaderError("no such file")


def _check_shear(affine: NDArray[np.float64], zooms: NDArray[np.float64]) -> None:
    """Refuse an affine with oblique axes or lengths that are not the voxel size, as fMRIPrep 20.2.0 wrote."""
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    axes = affine[:3, :3] / lengths
    if np.allclose(axes.T @ axes, np.eye(3), atol=1e-3) and np.allclose(lengths, zooms, rtol=1e-2):
        return
    by_affine, by_header = (" x ".join(f"{length:.3g}" for length in sizes) for sizes in (lengths, zooms))
    raise HeaderError(
        f"the affine is sheared or disagrees with the voxel size (affine {by_affine} mm, header {by_header} mm), "
        "a known defect of fMRIPrep 20.2.0; prepare the run with a later fMRIPrep"
    )
