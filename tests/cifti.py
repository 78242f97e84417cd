"""Small CIFTI files: two hemispheres of 32 vertices and a few voxels below, five parcels."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.cifti2 import BrainModelAxis, LabelAxis, SeriesAxis
from numpy.typing import NDArray

T_R, FRAMES = 1.5, 40
VERTICES, VOLUME = 32, (4, 4, 4)
AFFINE = np.diag([2.0, 2, 2, 1])
NAMES = {1: "left front", 2: "left back", 3: "right front", 4: "right back", 7: "below"}
# Vertices of the medial wall of each hemisphere, which fMRIPrep's files do not have.
_WALL = range(4)


def models(*, wall: bool = False, vertices: int = VERTICES) -> BrainModelAxis:
    """Return the grayordinates of a run; with `wall` those of a file that has the medial wall."""
    mask = np.ones(vertices, bool)
    mask[list(_WALL)] = wall
    hemispheres = [BrainModelAxis.from_mask(mask, name=f"Cortex{side}") for side in ("Left", "Right")]
    below = np.zeros(VOLUME)
    below[1:3, 1:3, 1:3] = 1
    thalamus = BrainModelAxis.from_mask(below, affine=AFFINE, name="ThalamusLeft")
    return hemispheres[0] + hemispheres[1] + thalamus


def labelled(axis: BrainModelAxis) -> NDArray[np.int64]:
    """Return the label of each grayordinate: halves of the hemispheres, and the voxels."""
    labels = np.full(len(axis), 7)
    for name, part, model in axis.iter_structures():
        if name in axis.nvertices:
            first = 1 if name.endswith("LEFT") else 3
            labels[part] = first + (model.vertex >= axis.nvertices[name] / 2)
    return labels


def signals(axis: BrainModelAxis, n_frames: int = FRAMES) -> NDArray[np.float64]:
    """Return frames of signals, shape (T, G), single precision."""
    rng = np.random.default_rng(len(axis))
    common = rng.normal(size=(n_frames, 8))[:, labelled(axis)]
    return (1000 + 20 * common + 5 * rng.normal(size=common.shape)).astype(np.float32).astype(np.float64)


def save_series(
    path: Path, axis: BrainModelAxis, data: NDArray[np.float64] | None = None, t_r: float = T_R
) -> Path:
    """Write a time series."""
    values = signals(axis) if data is None else data
    frames = SeriesAxis(0, t_r, len(values), unit="SECOND")
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Cifti2Image(values.astype(np.float32), (frames, axis))
    image.update_headers()
    nib.save(image, path)
    return path


def save_labels(path: Path, axis: BrainModelAxis) -> Path:
    """Write a parcellation."""
    table = {key: (name, (1.0, 0.0, 0.0, 1.0)) for key, name in {0: "???", **NAMES}.items()}
    image = nib.Cifti2Image(labelled(axis)[None].astype(np.float32), (LabelAxis(["halves"], [table]), axis))
    image.update_headers()
    nib.save(image, path)
    return path
