"""Images, read as a stream of blocks of volumes: a run is never in memory as a whole.

NIfTI files are decompressed with ISA-L while the block before is worked on. Blocks keep the stored numbers and
their type; what the header says about scaling is applied by the reader's user, after everything that is linear.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import nibabel as nib
import numpy as np
from isal import igzip
from isal.igzip_lib import IsalError
from numpy.typing import NDArray

from boldly.records import InputError, Problem

_UNREADABLE = (
    nib.filebasedimages.ImageFileError,
    nib.spatialimages.HeaderDataError,
    OSError,
    EOFError,
    ValueError,
)
# What is wrong with an image that is not placed (`is_placed`), and the way out.
NOWHERE = "the header does not say where the voxels are: sform_code and qform_code are 0"
PLACE_IT = (
    "compute the image again, or write the affine that it is known to have into it (nibabel: "
    "image.set_sform(affine, code=1))"
)
# Decompressed at a time: the stream copies what it reads, in the processor's cache if it is not more.
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Grid:
    """The voxels of an image and where they are.

    Attributes
    ----------
    shape : tuple of int
        Number of voxels along the three axes.
    affine : ndarray of float64, shape (4, 4)
        Voxel indices to mm.
    """

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]

    @property
    def n_voxels(self) -> int:
        """Number of voxels."""
        return int(np.prod(self.shape))

    @property
    def voxel_mm(self) -> NDArray[np.float64]:
        """Edge lengths of a voxel, mm; right for rotated and sheared axes too."""
        return np.sqrt(np.sum(self.affine[:3, :3] ** 2, axis=0))

    def matches(self, other: Grid) -> bool:
        """Tell whether two grids are the same, up to the rounding of affines (as nilearn decides it)."""
        if self.shape != other.shape:
            return False
        return np.array_equal(self.affine, other.affine) or bool(np.allclose(self.affine, other.affine))

    def is_near(self, other: Grid) -> bool:
        """Tell whether two grids are the same to 0.001 mm, as those of an image and its mask must be.

        Wider than `matches`: an affine that was stored as a quaternion differs from its matrix in the sixth digit,
        and fMRIPrep 20.2.0 wrote masks and images with slightly sheared affines.
        """
        return self.shape == other.shape and bool(np.allclose(self.affine, other.affine, atol=1e-3))

    def __str__(self) -> str:
        size = "x".join(f"{edge:g}" for edge in np.round(self.voxel_mm, 3))
        return f"{'x'.join(map(str, self.shape))} voxels of {size} mm"


@dataclass(frozen=True)
class Volumes:
    """A NIfTI image, opened for reading volume by volume.

    Attributes
    ----------
    path : Path
        The file.
    entity : str
        What it belongs to (a run key), for errors.
    grid : Grid
        Voxels of a volume.
    n_volumes : int
        Number of volumes T; 1 for a 3-D image.
    is_4d : bool
        Whether the image has a time axis.
    dtype : dtype
        Stored number type, byte order included.
    slope, inter : float
        The image's values are ``stored * slope + inter``.
    offset : int
        First byte of the data in the (decompressed) file.
    """

    path: Path
    entity: str
    grid: Grid
    n_volumes: int
    is_4d: bool
    dtype: np.dtype[Any]
    slope: float
    inter: float
    offset: int

    def blocks(self, size: int) -> Iterator[tuple[int, NDArray[Any]]]:
        """Read all volumes, in order.

        Parameters
        ----------
        size : int
            Volumes per block; the last block may have fewer.

        Yields
        ------
        first : int
            Number of the block's first volume.
        block : ndarray, shape (B, X * Y * Z)
            Stored numbers, voxels in the file's order (first axis fastest). The memory of a block is used again
            two blocks later.

        Raises
        ------
        InputError
            For a file that is cut, damaged, or longer than its header says.
        """
        read = self._read_compressed if self.path.suffix == ".gz" else self._read_mapped
        return read(size)

    def values(self) -> NDArray[np.float64]:
        """Read the whole image, scaled, shape (T, X * Y * Z). For small images only: masks and labels."""
        stored = np.concatenate([block.astype(np.float64) for _, block in self.blocks(size=16)])
        return stored * self.slope + self.inter

    def _problem(self, message: str) -> InputError:
        remedy = "fetch or compute the file again, or exclude the run"
        return InputError(Problem(str(self.path), self.entity, message, remedy))

    def _read_mapped(self, size: int) -> Iterator[tuple[int, NDArray[Any]]]:
        expected = self.offset + self.n_volumes * self.grid.n_voxels * self.dtype.itemsize
        found = self.path.stat().st_size
        if found != expected:
            raise self._problem(f"the file has {found} bytes, its header promises {expected}")
        shape = (self.n_volumes, self.grid.n_voxels)
        volumes = np.memmap(self.path, self.dtype, "r", self.offset, shape)
        for first in range(0, self.n_volumes, size):
            yield first, np.asarray(volumes[first : first + size])

    def _read_compressed(self, size: int) -> Iterator[tuple[int, NDArray[Any]]]:
        size = min(size, self.n_volumes)
        # Two buffers: one is filled (decompression releases the interpreter) while the other is in use.
        buffers = [np.empty((size, self.grid.n_voxels), self.dtype) for _ in range(2)]
        firsts = range(0, self.n_volumes, size)
        with ExitStack() as stack:
            stream = stack.enter_context(igzip.open(self.path, "rb"))
            worker = stack.enter_context(ThreadPoolExecutor(1, "decompress"))
            # All of ISA-L runs in the worker, this line and the last included: its code leaves the upper halves of
            # vector registers in use, which makes the next compiled loop of the same thread several times slower.
            worker.submit(self._skip_header, stream).result()
            waiting = worker.submit(self._fill, stream, buffers[0], 0)
            for number, first in enumerate(firsts):
                block = waiting.result()
                following = first + size
                if following < self.n_volumes:
                    waiting = worker.submit(self._fill, stream, buffers[(number + 1) % 2], following)
                yield first, block
            worker.submit(self._check_end, stream).result()

    def _skip_header(self, stream: _Readable) -> None:
        left = self.offset
        while left:
            left -= len(self._guard(stream, bytearray(min(left, _CHUNK_BYTES)), 0))

    def _fill(self, stream: _Readable, buffer: NDArray[Any], first: int) -> NDArray[Any]:
        block = buffer[: self.n_volumes - first]
        self._guard(stream, block.reshape(-1).view(np.uint8).data, first)
        return block

    def _guard(self, stream: _Readable, target: Any, first: int) -> Any:
        """Fill `target` or say where the file ends."""
        view, done = memoryview(target), 0
        per_volume = self.grid.n_voxels * self.dtype.itemsize
        while done < len(view):
            # Decompression runs ahead, so that damage may lie behind.
            volume = first + done // per_volume
            got = self._read(
                stream, view[done : done + _CHUNK_BYTES], f"at or after volume {volume} of {self.n_volumes}"
            )
            if not got:
                raise self._problem(f"the data end in volume {volume} of {self.n_volumes}")
            done += got
        return target

    def _check_end(self, stream: _Readable) -> None:
        # Reading past the last volume also compares the checksum at the end of the gzip stream.
        if self._read(stream, bytearray(1), "after the last volume"):
            raise self._problem(f"the file holds more data than the {self.n_volumes} volumes of its header")

    def _read(self, stream: _Readable, target: Any, where: str) -> int:
        try:
            return stream.readinto(target)
        except EOFError:
            raise self._problem(f"the compressed file is cut, or no longer compressed, {where}") from None
        except (OSError, IsalError) as error:  # type: ignore[misc]
            raise self._problem(f"the compressed file is damaged {where}: {error}") from None


@dataclass(frozen=True)
class Extracted:
    """Signals of the parcels of a run, before any cleaning.

    Attributes
    ----------
    signals : ndarray of float64, shape (T, P)
        In image units.
    nonfinite : int
        Stored numbers that are NaN or infinite, within the parcels; they count as zero (as in nilearn).
    empty : ndarray of bool, shape (T,)
        Volumes that are zero, NaN or infinite in all voxels (or vertices) of the parcels.
    """

    signals: NDArray[np.float64]
    nonfinite: int
    empty: NDArray[np.bool_]


class _Readable(Protocol):
    def readinto(self, buffer: Any, /) -> int: ...


def is_placed(header: nib.Nifti1Header) -> bool:
    """Tell whether a header says where its voxels are; else nibabel guesses, and takes left for right."""
    return int(header["sform_code"]) > 0 or int(header["qform_code"]) > 0


def open_volumes(path: Path | str, entity: str = "") -> Volumes:
    """Open a NIfTI image (``.nii``, ``.nii.gz``); only the header is read.

    Parameters
    ----------
    path : Path or str
        A 3-D or 4-D image of integers or floats.
    entity : str, optional
        What it belongs to, for errors.

    Raises
    ------
    InputError
        When there is no such file, it is no image of that kind, or its header does not say where the voxels are.
    """
    path = Path(path)

    def problem(message: str, remedy: str = "correct the path, or fetch the file again") -> InputError:
        return InputError(Problem(str(path), entity, message, remedy))

    if not path.is_file():
        raise problem("no such file")
    try:
        image = nib.load(path)
    except _UNREADABLE as error:
        raise problem(f"not a readable NIfTI image: {error}") from None
    if not isinstance(image, nib.Nifti1Image):  # Nifti2Image is one, too
        raise problem(f"a {type(image).__name__}, not a NIfTI image")
    if not is_placed(image.header):
        raise problem(NOWHERE, PLACE_IT)
    stored: Any = image.dataobj
    dtype = np.dtype(stored.dtype)
    # Trailing axes of length one carry nothing.
    shape = tuple(int(n) for n in image.shape)
    while len(shape) > 4 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) not in (3, 4) or min(shape) < 1:
        raise problem(f"an image of shape {image.shape}, not 3-D or 4-D")
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise problem(f"numbers of type {dtype}, not integers or floats of up to 64 bit")
    if image.affine is None or not np.isfinite(image.affine).all() or np.linalg.det(image.affine[:3, :3]) == 0:
        raise problem("its affine cannot be inverted")
    grid = Grid((shape[0], shape[1], shape[2]), np.asarray(image.affine, np.float64))
    return Volumes(
        path=path,
        entity=entity,
        grid=grid,
        n_volumes=shape[3] if len(shape) == 4 else 1,
        is_4d=len(shape) == 4,
        dtype=dtype,
        slope=float(stored.slope),
        inter=float(stored.inter),
        offset=int(stored.offset),
    )


def read_mask(path: Path | str, grid: Grid, entity: str = "") -> NDArray[np.bool_]:
    """Read a brain mask.

    Parameters
    ----------
    path : Path or str
        A 3-D image, nonzero inside.
    grid : Grid
        The grid it must have, to 0.001 mm per voxel: that of the run.
    entity : str, optional
        Run key, for errors.

    Returns
    -------
    ndarray of bool, shape (X * Y * Z,)
        Voxels in the file's order.

    Raises
    ------
    InputError
        When it is on another grid or empty.
    """
    volumes = open_volumes(path, entity)
    remedy = "give the run the mask that fMRIPrep wrote beside it"
    if volumes.n_volumes != 1 or not volumes.grid.is_near(grid):
        message = f"the brain mask has {volumes.grid}, the run has {grid}"
        raise InputError(Problem(str(path), entity, message, remedy))
    inside = np.nan_to_num(volumes.values()[0]) != 0
    if not inside.any():
        raise InputError(Problem(str(path), entity, "the brain mask is empty", remedy))
    return inside
