"""Values of parcels as images: each voxel gets what its parcels have, by labels or by maps of weights."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from boldly.files import atomic_path
from boldly.signals.atlas import Atlas

Array = NDArray[np.float64]


def volumes(atlas: Atlas, values: Array) -> NDArray[np.float32]:
    """Return images of values of parcels.

    A voxel of a label atlas has the value of its parcel, and zero outside of all. Maps are scaled to a peak of
    one. A voxel then has the sum of the values, weighted by the maps; where weights sum to more than one, their
    mean.

    Parameters
    ----------
    atlas : Atlas
        P parcels.
    values : ndarray, shape (P, M)
        M values of each parcel; nan counts as zero.

    Returns
    -------
    ndarray of float32, shape (X, Y, Z, M)
    """
    values = np.nan_to_num(values)
    if atlas.kind == "labels":
        labels = atlas.labels()
        table = np.concatenate([np.zeros((1, values.shape[1])), values]).astype(np.float32)
        place = np.searchsorted(atlas.values, labels)
        there = np.isin(labels, atlas.values)
        return table[np.where(there, place + 1, 0)]
    size = int(np.prod(atlas.grid.shape))
    total, weight = np.zeros((size, values.shape[1]), np.float32), np.zeros(size, np.float32)
    for parcel, found in enumerate(atlas.maps()):
        flat = np.asarray(found, np.float32).ravel()
        peak = float(np.abs(flat).max())
        if not peak:
            continue
        # Maps are small parts of the brain: a pass over all voxels for each would take minutes.
        (inside,) = np.nonzero(flat)
        own = flat[inside] / peak
        total[inside] += own[:, None] * values[parcel].astype(np.float32)
        weight[inside] += np.abs(own)
    mixed: NDArray[np.float32] = (total / np.maximum(weight, 1)[:, None]).astype(np.float32)
    return mixed.reshape(*atlas.grid.shape, -1)


def image_of(atlas: Atlas, volume: NDArray[np.float32], about: str) -> nib.Nifti1Image:
    """Return a volume as an image on the grid of the atlas; `about` (79 characters) stands in its header."""
    image = nib.Nifti1Image(volume, atlas.grid.affine)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = about.encode("ascii", "replace")[:79]
    return image


def write_image(path: Path, image: nib.Nifti1Image) -> None:
    """Write an image, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        nib.save(image, temporary)


def file_names(states: Sequence[str]) -> dict[str, str]:
    """Return a name for the files of each state: letters, numbers and hyphens; a number where two become alike."""
    names: dict[str, str] = {}
    for state in states:
        name = re.sub(r"[^A-Za-z0-9]+", "-", state).strip("-") or "state"
        taken, own = set(names.values()), name
        number = 2
        while own.lower() in {other.lower() for other in taken}:
            own, number = f"{name}-{number}", number + 1
        names[state] = own
    return names
