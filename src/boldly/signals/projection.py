"""From voxels to parcels in one linear step that holds smoothing and extraction, computed once and cached on disk.

nilearn's maskers smooth each volume with a Gaussian S and then average the voxels of each label, or fit the maps M
by least squares: ``signals = pinv(M) S volume``. Both are linear and S is symmetric (a normalised symmetric kernel
with half-sample reflection at the edges of the image), so

    signals = inverse(M'M) (S M)' volume

The maps are smoothed here, once per atlas, grid and kernel, instead of every volume of every run. Maps are mostly
zero and so is ``S M``: it is kept sparse, restricted to the voxels where a parcel has weight. The small matrix
``inverse(M'M)`` acts on parcels. Label means are the same without it, with ``M`` divided by the parcels' sizes.

A brain mask D makes this ``inverse(M'DM) (S D M)' volume``, as in nilearn's maskers with `mask_img`: images are
smoothed as they are, then only voxels inside the mask count. Masks differ from run to run, and so do the matrices.
They are made of the cached one for a run at a time (`Projection.within`): parcels that the mask does not cut stay.
A run's mask also says how much of each parcel is covered (`Projection.coverage`).
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import linalg, ndimage, sparse
from tqdm import tqdm

from boldly.files import atomic_path, read_json, write_json
from boldly.locks import one_at_a_time
from boldly.records import InputError, Problem
from boldly.signals.atlas import Atlas
from boldly.signals.images import Extracted, Grid, Volumes

logger = logging.getLogger(__name__)

# Part of the cache's key: raised when matrices of the same input change.
_FORMAT = 3
# Kernels end here, standard deviations; scipy's default, which nilearn uses.
_TRUNCATE = 4.0
# Volumes that are projected together: enough to use each weight often, few enough to start computing early.
_BLOCK = 16
# Every so many voxels one is enough to tell a volume with signals.
_SAMPLED = 101


@dataclass(frozen=True)
class Projection:
    """The linear map from the voxels of a grid to parcels.

    Attributes
    ----------
    grid : Grid
        Voxels of the images that it takes.
    voxels : ndarray of int64, shape (V,)
        The voxels that count, as positions in a volume with the first axis fastest.
    smoothed : csc_array of float64, shape (P, V)
        Smoothed maps. By columns: a product then reads the voxels once, in order, and only its result, which is
        small, again and again.
    unmix : ndarray of float64, shape (P, P), or None
        Inverse of the maps' Gram matrix; None for labels.
    weights : csr_array of float32, shape (P, V)
        Maps before smoothing.
    on_grid : ndarray of float64, shape (P,)
        Share of each parcel's weight in the atlas that lies within the grid.
    """

    grid: Grid
    voxels: NDArray[np.int64]
    smoothed: sparse.csc_array
    unmix: NDArray[np.float64] | None
    weights: sparse.csr_array
    on_grid: NDArray[np.float64]

    def extract(self, volumes: Volumes) -> Extracted:
        """Extract the parcels' signals from a run, in double precision.

        Parameters
        ----------
        volumes : Volumes
            A run on the grid of the projection.

        Returns
        -------
        Extracted
            Signals, shape (T, P).
        """
        signals = np.empty((volumes.n_volumes, self.smoothed.shape[0]))
        empty = np.zeros(volumes.n_volumes, bool)
        nonfinite = 0
        nothing = -volumes.inter / volumes.slope
        if volumes.dtype.kind in "iu":
            # Integers may have no zero, but one that lies nearest to it.
            nothing = round(nothing)
        for first, block in volumes.blocks(_BLOCK):
            taken = block.take(self.voxels, axis=1)
            if taken.dtype.kind == "f":
                bad = ~np.isfinite(taken)
                nonfinite += int(bad.sum())
                taken[bad] = nothing
            something = (taken[:, ::_SAMPLED] != nothing).any(axis=1)
            if not something.all():
                something = (taken != nothing).any(axis=1)
            empty[first : first + len(block)] = ~something
            # Voxels first, so that a weight meets the numbers of a whole block side by side.
            values = np.empty(taken.shape[::-1])
            values[...] = taken.T
            signals[first : first + len(block)] = (self.smoothed @ values).T
        # The header's scaling is linear, too.
        signals *= volumes.slope
        if volumes.inter:
            signals += volumes.inter * (self.smoothed @ np.ones(len(self.voxels)))
        return Extracted(signals if self.unmix is None else signals @ self.unmix, nonfinite, empty)

    def coverage(self, inside: NDArray[np.bool_] | None) -> NDArray[np.float32]:
        """Return the share of each parcel's weight that lies in the grid and in a brain mask.

        Weights are those before smoothing; negative ones count as none.

        Parameters
        ----------
        inside : ndarray of bool, shape (X * Y * Z,), or None
            The brain mask; None: everything in the grid counts.

        Returns
        -------
        ndarray of float32, shape (P,)
            From 0 to 1; 0 for a parcel without any weight.
        """
        weights = self.weights
        if (weights.data < 0).any():
            weights = weights.maximum(0)
        total = weights @ np.ones(len(self.voxels))
        within = np.ones(len(self.voxels)) if inside is None else inside[self.voxels].astype(np.float64)
        share = np.divide(weights @ within, total, out=np.zeros_like(total), where=total > 0)
        return np.clip(share * self.on_grid, 0, 1).astype(np.float32)

    def within(self, inside: NDArray[np.bool_], fwhm_mm: float | None) -> Projection:
        """Return the projection of the parts of the parcels that lie in a brain mask; for extraction alone.

        Parameters
        ----------
        inside : ndarray of bool, shape (X * Y * Z,)
            The brain mask.
        fwhm_mm : float or None
            The kernel that the projection was made with.

        Returns
        -------
        Projection
            Signals of parcels outside the mask are zero.
        """
        sigma = _sigma(fwhm_mm, self.grid)
        before, inside_used = self.smoothed.tocsr(), inside[self.voxels]
        plain: list[_Column] = []
        smooth: list[_Column] = []
        for parcel in range(self.weights.shape[0]):
            column, kept = _row(self.weights, parcel, self.voxels), inside_used[_row_places(self.weights, parcel)]
            if kept.all():
                plain.append(column)
                smooth.append(_row(before, parcel, self.voxels))
                continue
            column = _Column(column.voxels[kept], column.weights[kept])
            if self.unmix is None and kept.any():
                # The mean of a label's voxels: they have equal weights.
                column = _Column(column.voxels, np.full(len(column.voxels), 1 / len(column.voxels)))
            plain.append(column)
            smooth.append(_smooth(column, self.grid.shape, sigma))
        maps = _stack(plain, self.voxels)
        unmix = None if self.unmix is None else _inverse_gram(maps)
        return replace(
            self, smoothed=_stack(smooth, self.voxels).tocsc(), unmix=unmix, weights=maps.astype(np.float32)
        )


def load_projection(atlas: Atlas, grid: Grid, fwhm_mm: float | None, cache: Path) -> Projection:
    """Return the projection of an atlas on a grid, from the cache; built and stored there when it is missing.

    Many jobs may ask at the same time: one builds, the others wait and read. All of a node share the memory, since
    the arrays are mapped from their files.

    Parameters
    ----------
    atlas : Atlas
        The parcels. On another grid they are resampled to this one, as nilearn does with
        ``resampling_target="data"``: labels by nearest neighbour, maps linearly.
    grid : Grid
        Voxels of the images. Affines that differ by less than 1e-5 share a projection.
    fwhm_mm : float or None
        Full width of the Gaussian kernel at half maximum, mm; None: no smoothing.
    cache : Path
        Folder of all projections.

    Raises
    ------
    InputError
        When the atlas has no voxel in the grid.
    """
    folder = cache / projection_key(atlas, grid, fwhm_mm)
    projection = _read(folder, grid)
    if projection is None:
        cache.mkdir(parents=True, exist_ok=True)
        with one_at_a_time(cache / f"{folder.name}.lock"):
            projection = _read(folder, grid)
            if projection is None:
                logger.info("projection of %s (%d parcels) on %s: building", atlas.name, atlas.n_parcels, grid)
                _write(folder, build_projection(atlas, grid, fwhm_mm), atlas, fwhm_mm)
                projection = _read(folder, grid)
    if projection is None:
        message = "the projection that was just written cannot be read"
        raise InputError(Problem(str(folder), atlas.name, message, "check the disk, delete the folder and rerun"))
    return projection


def projection_key(atlas: Atlas, grid: Grid, fwhm_mm: float | None) -> str:
    """Return the name of a projection in the cache: a checksum of everything that it depends on."""
    content = {
        "format": _FORMAT,
        "atlas": atlas.sha256,
        "kind": atlas.kind,
        "shape": grid.shape,
        # Adding zero turns -0.0 into 0.0.
        "affine": (np.round(grid.affine, 5) + 0.0).tolist(),
        "smoothing_fwhm_mm": fwhm_mm,
        "truncate": _TRUNCATE,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:24]


def build_projection(atlas: Atlas, grid: Grid, fwhm_mm: float | None) -> Projection:
    """Compute the projection of an atlas on a grid. See `load_projection`."""
    sigma = _sigma(fwhm_mm, grid)
    plain: list[_Column] = []
    smooth: list[_Column] = []
    on_grid = np.zeros(atlas.n_parcels)
    columns = tqdm(_columns(atlas, grid), "projection", atlas.n_parcels, unit="parcel", leave=False, disable=None)
    for number, (column, share) in enumerate(columns):
        if atlas.kind == "labels" and len(column.voxels):
            column = _Column(column.voxels, column.weights / len(column.voxels))
        plain.append(column)
        smooth.append(_smooth(column, grid.shape, sigma))
        on_grid[number] = share
    if not any(len(column.voxels) for column in plain):
        message = f"the atlas has no voxel within {grid} of the run"
        remedy = "give an atlas in the space of the images, or images in the space of the atlas"
        raise InputError(Problem(str(atlas.volumes.path), atlas.name, message, remedy))
    used = np.zeros(np.prod(grid.shape), dtype=bool)
    for column in (*smooth, *plain):
        used[column.voxels] = True
    voxels = np.flatnonzero(used)
    maps = _stack(plain, voxels)
    return Projection(
        grid=grid,
        voxels=voxels,
        smoothed=_stack(smooth, voxels).tocsc(),
        unmix=None if atlas.kind == "labels" else _inverse_gram(maps),
        weights=maps.astype(np.float32),
        on_grid=on_grid,
    )


@dataclass(frozen=True)
class _Column:
    """One parcel on a grid: where its weight is not zero (first axis fastest, ascending), and the weight there."""

    voxels: NDArray[np.int32]
    weights: NDArray[np.float64]


def _sigma(fwhm_mm: float | None, grid: Grid) -> NDArray[np.float64]:
    """Return the standard deviations of a kernel in voxels, from its full width at half maximum in mm."""
    return (fwhm_mm or 0.0) / (np.sqrt(8 * np.log(2)) * grid.voxel_mm)


def _row_places(matrix: sparse.csr_array, parcel: int) -> NDArray[Any]:
    """Return the columns in which a row has numbers."""
    return matrix.indices[matrix.indptr[parcel] : matrix.indptr[parcel + 1]]


def _row(matrix: sparse.csr_array, parcel: int, voxels: NDArray[np.int64]) -> _Column:
    """Return a row of a matrix of parcels whose columns are `voxels`."""
    weights = matrix.data[matrix.indptr[parcel] : matrix.indptr[parcel + 1]]
    return _Column(voxels[_row_places(matrix, parcel)].astype(np.int32), weights.astype(np.float64))


def _columns(atlas: Atlas, grid: Grid) -> Iterator[tuple[_Column, float]]:
    """Yield each parcel on the grid and the share of its weight that lies within."""
    same = atlas.grid.matches(grid)
    inside = np.ones(atlas.grid.shape, dtype=bool) if same else _within(atlas.grid, grid)
    if not inside.any():
        return
    if atlas.kind == "labels":
        labels = atlas.labels()
        before = np.searchsorted(atlas.values, labels[labels != 0])
        counts = np.bincount(before, minlength=atlas.n_parcels)
        counts_inside = np.bincount(before, inside[labels != 0], minlength=atlas.n_parcels)
        placed = labels if same else _resample(labels, atlas.grid, grid, "nearest")
        flat = placed.ravel(order="F")
        for value, count, count_inside in zip(atlas.values, counts, counts_inside, strict=True):
            voxels = np.flatnonzero(flat == value).astype(np.int32)
            yield _Column(voxels, np.ones(len(voxels))), float(count_inside / count)
        return
    for image in atlas.maps():
        weight = np.maximum(image, 0, dtype=np.float64)
        total = float(weight.sum())
        share = 0.0 if total == 0 else 1.0 if same else float(weight[inside].sum()) / total
        flat = (image if same else _resample(image, atlas.grid, grid, "linear")).ravel(order="F")
        voxels = np.flatnonzero(flat).astype(np.int32)
        yield _Column(voxels, flat[voxels].astype(np.float64)), share


def _within(atlas: Grid, grid: Grid) -> NDArray[np.bool_]:
    """Tell which voxels of the atlas have their centre within the outer faces of a grid."""
    to_grid = np.linalg.inv(grid.affine) @ atlas.affine
    inside = np.ones(atlas.shape, dtype=bool)
    axes = np.meshgrid(*(np.arange(n) for n in atlas.shape), indexing="ij", sparse=True)
    for row, length in zip(to_grid[:3], grid.shape, strict=True):
        position = row[0] * axes[0] + row[1] * axes[1] + row[2] * axes[2] + row[3]
        inside &= (position >= -0.5) & (position <= length - 0.5)
    return inside


def _resample(image: NDArray[Any], source: Grid, target: Grid, interpolation: str) -> NDArray[Any]:
    """Resample a volume with nilearn, the way its maskers resample an atlas to the data."""
    # Its import takes seconds, and matrices are mostly there already.
    from nilearn.image import resample_img

    resampled = resample_img(
        nib.Nifti1Image(image, source.affine),
        target_affine=target.affine,
        target_shape=target.shape,
        interpolation=interpolation,
        copy=False,
    )
    return np.asarray(resampled.dataobj)


def _smooth(column: _Column, shape: tuple[int, int, int], sigma: NDArray[np.float64]) -> _Column:
    """Smooth one parcel. Only a box around it is filtered, wide enough that its borders do not matter."""
    if not len(column.voxels) or not sigma.any():
        return column
    position = np.array(np.unravel_index(column.voxels, shape, order="F"))
    radius = (_TRUNCATE * sigma + 0.5).astype(int)
    low = np.maximum(position.min(axis=1) - radius, 0)
    high = np.minimum(position.max(axis=1) + radius + 1, shape)
    box = np.zeros(high - low)
    box[tuple(position - low[:, None])] = column.weights
    for axis, width in enumerate(sigma):
        ndimage.gaussian_filter1d(box, width, axis=axis, output=box, mode="reflect", truncate=_TRUNCATE)
    found = np.nonzero(box)
    voxels = np.ravel_multi_index(tuple(np.array(found) + low[:, None]), shape, order="F")
    order = np.argsort(voxels)
    return _Column(voxels[order].astype(np.int32), box[found][order])


def _stack(columns: list[_Column], voxels: NDArray[np.int64]) -> sparse.csr_array:
    """Stack parcels as the rows of a sparse matrix whose columns are `voxels`."""
    starts = np.concatenate([[0], np.cumsum([len(column.voxels) for column in columns])])
    # Half the memory to read in each product, if it is enough.
    index = np.int32 if max(starts[-1], len(voxels)) <= np.iinfo(np.int32).max else np.int64
    positions = np.empty(starts[-1], index)
    for column, start, end in zip(columns, starts, starts[1:], strict=False):
        positions[start:end] = np.searchsorted(voxels, column.voxels)
    weights = np.concatenate([column.weights for column in columns])
    return sparse.csr_array((weights, positions, starts.astype(index)), (len(columns), len(voxels)))


def _inverse_gram(maps: sparse.csr_array) -> NDArray[np.float64]:
    """Return the (pseudo)inverse of the maps' Gram matrix.

    Directions in which the maps are linearly dependent are left out: least squares then has the solution of
    smallest norm, as LAPACK's has. A map without weight in the grid gets zeros.
    """
    gram = (maps @ maps.T).toarray()
    values, vectors = linalg.eigh(gram)
    # The smallest singular value of M that single precision tells from zero, squared.
    keep = values > values[-1] * len(values) * np.finfo(np.float64).eps
    scaled = vectors[:, keep] / values[keep]
    return np.ascontiguousarray(scaled @ vectors[:, keep].T)


def _write(folder: Path, projection: Projection, atlas: Atlas, fwhm_mm: float | None) -> None:
    arrays: dict[str, NDArray[Any]] = {"voxels": projection.voxels, "on_grid": projection.on_grid}
    for name, matrix in (("smoothed", projection.smoothed), ("weights", projection.weights)):
        arrays |= {f"{name}_data": matrix.data, f"{name}_indices": matrix.indices, f"{name}_indptr": matrix.indptr}
    if projection.unmix is not None:
        arrays["unmix"] = projection.unmix
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        for name, array in arrays.items():
            np.save(temporary / f"{name}.npy", array, allow_pickle=False)
        about = {
            "atlas": atlas.name,
            "atlas_sha256": atlas.sha256,
            "kind": atlas.kind,
            "n_parcels": atlas.n_parcels,
            "shape": list(projection.grid.shape),
            "affine": projection.grid.affine.tolist(),
            "smoothing_fwhm_mm": fwhm_mm,
            "arrays": {name: list(array.shape) for name, array in arrays.items()},
        }
        write_json(temporary / "projection.json", about)


def _read(folder: Path, grid: Grid) -> Projection | None:
    """Map a stored projection; None when it is missing or damaged (then it is built again)."""
    try:
        about = read_json(folder / "projection.json")
        arrays = {
            name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in about["arrays"]
        }
        if any(list(arrays[name].shape) != shape for name, shape in about["arrays"].items()):
            raise ValueError("an array has another shape than recorded")
        shape = (about["n_parcels"], len(arrays["voxels"]))
        parts = ("data", "indices", "indptr")
        smoothed = sparse.csc_array(tuple(arrays[f"smoothed_{part}"] for part in parts), shape)
        weights = sparse.csr_array(tuple(arrays[f"weights_{part}"] for part in parts), shape)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, OSError, EOFError) as error:
        logger.warning("%s: damaged (%s), it is built again", folder, error)
        return None
    return Projection(grid, arrays["voxels"], smoothed, arrays.get("unmix"), weights, arrays["on_grid"])
