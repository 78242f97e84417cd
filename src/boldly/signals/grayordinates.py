"""CIFTI files: time series on surfaces and in subcortical voxels, and parcellations of them.

A ``.dtseries.nii`` has a column for each grayordinate (a vertex of the cortical surface of a hemisphere, or a
voxel below it), a ``.dlabel.nii`` a label for each. Both say which grayordinates they have, often not the same
ones: some parcellations have the medial wall, or the cortex alone. Vertices are matched by hemisphere and number,
voxels by their place. The signal of a parcel is the mean of its grayordinates, as in volumes that of its voxels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.cifti2 import BrainModelAxis, LabelAxis, SeriesAxis
from numpy.typing import NDArray
from scipy import sparse

from boldly.records import InputError, Problem
from boldly.signals.headers import HeaderError, absent
from boldly.signals.images import Extracted

SERIES, LABELS = ".dtseries.nii", ".dlabel.nii"
# Columns that are read and summed together.
_BLOCK = 4096
_UNREADABLE = (
    nib.filebasedimages.ImageFileError,
    nib.spatialimages.HeaderDataError,
    OSError,
    EOFError,
    ValueError,
)


@dataclass(frozen=True)
class Series:
    """A CIFTI time series; only its header is read.

    Attributes
    ----------
    path : Path
        The file.
    axis : BrainModelAxis, length G
        Which grayordinates it has.
    n_volumes : int
        Number of frames T.
    t_r : float
        Repetition time, s, 5 decimals; 0.0 where the header has none in seconds.
    dtype : dtype
        Stored number type.
    slope, inter : float
        The values are ``stored * slope + inter``.
    offset : int
        First byte of the data.
    """

    path: Path
    axis: BrainModelAxis
    n_volumes: int
    t_r: float
    dtype: np.dtype[Any]
    slope: float
    inter: float
    offset: int


@dataclass(frozen=True)
class Placed:
    """A parcellation on the grayordinates of a run.

    Attributes
    ----------
    weights : csc_array of float64, shape (P, G)
        A row for each parcel: its grayordinates have equal weights, and the row sums to 1, or to 0 without any.
    coverage : ndarray of float32, shape (P,)
        Share of the grayordinates of each parcel that the run has.
    """

    weights: sparse.csc_array
    coverage: NDArray[np.float32]

    def extract(self, series: Series) -> Extracted:
        """Average the grayordinates of each parcel, in double precision; NaN and infinity count as zero.

        Returns
        -------
        Extracted
            Signals, shape (T, P).
        """
        # In the file all frames of a grayordinate stand together.
        shape = (len(series.axis), series.n_volumes)
        stored = np.memmap(series.path, series.dtype, "r", series.offset, shape)
        signals = np.zeros((self.weights.shape[0], series.n_volumes))
        something, nonfinite = np.zeros(series.n_volumes, bool), 0
        used = np.diff(self.weights.indptr) > 0
        # Integers that are scaled may have no zero, but one that lies nearest to it.
        least = abs(series.slope) / 2 if series.dtype.kind in "iu" else 0.0
        for first in range(0, len(stored), _BLOCK):
            rows = first + np.flatnonzero(used[first : first + _BLOCK])
            values = stored[rows] * np.float64(series.slope) + series.inter
            bad = ~np.isfinite(values)
            nonfinite += int(bad.sum())
            values[bad] = 0
            something |= (np.abs(values) > least).any(axis=0)
            signals += self.weights[:, rows] @ values
        return Extracted(np.ascontiguousarray(signals.T), nonfinite, ~something)


@dataclass(frozen=True)
class Parcellation:
    """Parcels of grayordinates.

    Attributes
    ----------
    name : str
        Name in contracts and figures.
    sha256 : str
        Checksum of the file.
    values : tuple of int
        Label of each parcel, ascending; 0 is none.
    names : tuple of str
        Name of each parcel.
    path : Path
        The file.
    axis : BrainModelAxis, length G
        Which grayordinates it has.
    labels : ndarray of int64, shape (G,)
        The label of each.
    """

    name: str
    sha256: str
    values: tuple[int, ...]
    names: tuple[str, ...]
    path: Path
    axis: BrainModelAxis
    labels: NDArray[np.int64]

    @property
    def n_parcels(self) -> int:
        """Number of parcels P: that of the file, whatever part of it a run has."""
        return len(self.values)

    def on(self, axis: BrainModelAxis, entity: str = "") -> Placed:
        """Find the parcels in the grayordinates of a run.

        Raises
        ------
        InputError
            For surfaces of another number of vertices, voxels of another grid, and where no parcel is found.
        """
        values = np.array(self.values)
        found = self._labels_on(axis, entity)
        parcel = np.searchsorted(values, found)
        inside = np.flatnonzero(found)
        counts = np.bincount(parcel[inside], minlength=len(values))
        whole = np.bincount(np.searchsorted(values, self.labels[self.labels != 0]), minlength=len(values))
        if not len(inside):
            raise self._problem(entity, "no parcel lies in the surfaces and voxels of the run")
        weights = 1 / counts[parcel[inside]]
        shape = (len(values), len(found))
        return Placed(
            sparse.csc_array((weights, (parcel[inside], inside)), shape), (counts / whole).astype(np.float32)
        )

    def _labels_on(self, axis: BrainModelAxis, entity: str) -> NDArray[np.int64]:
        own = {name: (part, model) for name, part, model in self.axis.iter_structures() if name in axis.nvertices}
        volume = self._volume(axis, entity)
        found = np.zeros(len(axis), np.int64)
        for name, part, model in axis.iter_structures():
            if name not in axis.nvertices:
                if volume is not None:
                    found[part] = volume[tuple(model.voxel.T)]
            elif name in own:
                here, labelled = own[name]
                of_vertex = np.zeros(axis.nvertices[name], np.int64)
                if self.axis.nvertices[name] != len(of_vertex):
                    sizes = f"{self.axis.nvertices[name]} vertices, in the run {len(of_vertex)}"
                    raise self._problem(entity, f"a hemisphere has {sizes}")
                of_vertex[labelled.vertex] = self.labels[here]
                found[part] = of_vertex[model.vertex]
        return found

    def _volume(self, axis: BrainModelAxis, entity: str) -> NDArray[np.int64] | None:
        """Return the labels of voxels as an image; None where there are none in one of them."""
        if not (self.axis.volume_mask.any() and axis.volume_mask.any()):
            return None
        same_shape = self.axis.volume_shape == axis.volume_shape
        if not same_shape or not np.allclose(self.axis.affine, axis.affine, atol=1e-3):
            raise self._problem(entity, "its voxels below the cortex lie on another grid than those of the run")
        volume = np.zeros(axis.volume_shape, np.int64)
        inside = self.axis.volume_mask
        volume[tuple(self.axis.voxel[inside].T)] = self.labels[inside]
        return volume

    def _problem(self, entity: str, message: str) -> InputError:
        remedy = "give a parcellation (.dlabel.nii) of the same surfaces: fsLR, of the density of the runs"
        return InputError(Problem(str(self.path), entity, message, remedy))


def is_series(path: Path) -> bool:
    """Tell whether a file is a CIFTI time series, by its name."""
    return path.name.endswith(SERIES)


def open_series(path: Path) -> Series:
    """Read the header of a CIFTI time series and check that the file is as long as it promises.

    Raises
    ------
    HeaderError
        For a dangling link, an unreadable or cut file, or one that is no time series.
    """
    try:
        image: Any = nib.load(path)
    except FileNotFoundError:
        raise absent(path) from None
    except _UNREADABLE as error:
        raise HeaderError(f"not a readable CIFTI file: {error}") from None
    axes = _axes(image)
    if len(axes) != 2 or not isinstance(axes[0], SeriesAxis) or not isinstance(axes[1], BrainModelAxis):
        found = " by ".join(type(axis).__name__.removesuffix("Axis") for axis in axes) or "no CIFTI at all"
        raise HeaderError(f"not a CIFTI time series of grayordinates ({found})")
    frames, axis = axes
    data = image.dataobj
    dtype = np.dtype(data.dtype)
    promised = int(data.offset) + len(frames) * len(axis) * dtype.itemsize
    if path.stat().st_size != promised:
        size = path.stat().st_size
        raise HeaderError(f"the image has {size} bytes, its header promises {promised}: it is cut or damaged")
    t_r = round(float(frames.step), 5) if frames.unit == "SECOND" and frames.step > 0 else 0.0
    return Series(path, axis, len(frames), t_r, dtype, float(data.slope), float(data.inter), int(data.offset))


def read_labels(path: Path) -> tuple[BrainModelAxis, NDArray[np.int64], dict[int, str]]:
    """Read a parcellation.

    Returns
    -------
    axis : BrainModelAxis
        Which grayordinates it has.
    labels : ndarray of int64, shape (G,)
        The label of each.
    names : dict of int to str
        Names of the labels.

    Raises
    ------
    InputError
        For a file that is not there, no parcellation, or several in one.
    """

    def problem(message: str, remedy: str = "give a parcellation of grayordinates (.dlabel.nii)") -> InputError:
        return InputError(Problem(str(path), "atlas", message, remedy))

    if not path.is_file():
        raise problem("no such file", "correct atlas.path, or fetch the file again")
    try:
        image: Any = nib.load(path)
        axes, labels = _axes(image), np.asarray(image.dataobj)
    except _UNREADABLE as error:
        raise problem(f"not a readable CIFTI file: {error}") from None
    if len(axes) != 2 or not isinstance(axes[0], LabelAxis) or not isinstance(axes[1], BrainModelAxis):
        raise problem("not a parcellation: it has no labels for grayordinates")
    maps, axis = axes
    if len(maps) != 1:
        names = ", ".join(map(str, maps.name))
        remedy = "write one of them alone (wb_command -cifti-merge out.dlabel.nii -cifti <file> -column <number>)"
        raise problem(f"{len(maps)} parcellations in one file: {names}", remedy)
    if not np.any(labels):
        raise problem("the file has no label but 0")
    return axis, np.rint(labels[0]).astype(np.int64), {int(key): str(of[0]) for key, of in maps.label[0].items()}


def _axes(image: Any) -> list[Any]:
    if not isinstance(image, nib.Cifti2Image):
        return []
    return [image.header.get_axis(number) for number in range(image.ndim)]
