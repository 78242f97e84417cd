"""A made-up brain on the grid of MNI152NLin2009cAsym: mask, tissues, image contrast, soft parcels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from boldly.simulation.networks import MODEL_SEED, N_NETWORKS, N_PARCELS, NETWORK_NAMES, Array

Mask = NDArray[np.bool_]

VOXEL_MM = 10.0
# Extent of the template: 193 x 229 x 193 voxels of 1 mm whose first one is centred on this point (mm, RAS).
_TEMPLATE_ORIGIN_MM = np.array([-96.0, -132.0, -78.0])
_TEMPLATE_SHAPE_MM = np.array([193, 229, 193])

_BRAIN_CENTRE_MM = np.array([0.0, -18.0, 10.0])
_BRAIN_RADII_MM = np.array([70.0, 87.0, 64.0])
_PARCEL_FWHM_MM = 26.0
_PARCEL_CUTOFF = 0.02
INTENSITY = 10000.0


@dataclass(frozen=True)
class Anatomy:
    """The brain of all subjects.

    Attributes
    ----------
    affine : array, shape (4, 4)
        Voxel to millimetres.
    brain : array of bool, shape (X, Y, Z)
        The mask. The V voxels inside it, in C order, are the voxels of everything below.
    grey, white, csf : array of bool, shape (V,)
        Tissues.
    positions_mm : array, shape (V, 3)
        Centres of the voxels.
    baseline : array, shape (V,)
        Intensity of the image without any signal.
    gradient : array, shape (V, 3)
        Change of the baseline per millimetre along x, y, z, the space outside the brain counted as dark.
    maps : array, shape (V, N_PARCELS)
        Soft parcels, largest value 1.
    """

    affine: Array
    brain: Mask
    grey: Mask
    white: Mask
    csf: Mask
    positions_mm: Array
    baseline: Array
    gradient: Array
    maps: Array


@cache
def anatomy() -> Anatomy:
    """Return the brain of the study: an ellipsoid with a flat base, white matter and ventricles inside."""
    shape = tuple(int(n) for n in np.ceil(_TEMPLATE_SHAPE_MM / VOXEL_MM))
    affine = np.diag([VOXEL_MM, VOXEL_MM, VOXEL_MM, 1.0])
    # Centred in the template's box, so that left and right mirror each other.
    affine[:3, 3] = _TEMPLATE_ORIGIN_MM + (_TEMPLATE_SHAPE_MM - 1 - (np.array(shape) - 1) * VOXEL_MM) / 2
    indices = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), axis=-1)
    everywhere = indices * VOXEL_MM + affine[:3, 3]
    depth = _depth(everywhere)
    brain = depth > 0
    positions, inside = everywhere[brain], depth[brain]
    csf = _ellipsoids(positions, [(-13, -14, 18), (13, -14, 18)], (10, 27, 13))
    csf |= _ellipsoids(positions, [(0, -20, 2)], (6, 14, 10))
    white = (inside > 0.38) & ~csf
    contrast = np.where(csf, 1.25, np.where(white, 0.9, 1.05)) * INTENSITY
    # The outermost voxels are only partly brain.
    contrast *= np.clip(0.45 + inside / 0.25, 0.45, 1.0)
    image = np.zeros(shape)
    image[brain] = contrast
    gradient = np.stack([np.gradient(image, VOXEL_MM, axis=axis)[brain] for axis in range(3)], axis=-1)
    grey = ~csf & ~white
    maps = _soft_parcels(positions, grey)
    return Anatomy(affine, brain, grey, white, csf, positions, contrast, gradient, maps)


def parcel_names() -> list[tuple[str, str]]:
    """Return name and network of each parcel, in order."""
    names = []
    for parcel in range(N_PARCELS):
        network, place = divmod(parcel, N_PARCELS // N_NETWORKS)
        side = ("left", "right")[place % 2]
        names.append((f"{NETWORK_NAMES[network]}-{side}-{place // 2 + 1}", NETWORK_NAMES[network]))
    return names


def _depth(positions: Array) -> Array:
    """Return 0 on the brain's surface and 1 in its middle, negative outside."""
    relative = (positions - _BRAIN_CENTRE_MM) / _BRAIN_RADII_MM
    depth: Array = 1 - np.sqrt((relative**2).sum(axis=-1))
    # The front part of the base is cut off: no brain where the face is.
    base = (positions[..., 2] + 48 - 0.35 * np.clip(positions[..., 1] + 10, 0, None)) / 64
    return np.minimum(depth, base)


def _ellipsoids(positions: Array, centres: list[tuple[int, int, int]], radii: tuple[int, int, int]) -> Mask:
    inside = np.zeros(positions.shape[:-1], dtype=bool)
    for centre in centres:
        inside |= (((positions - np.array(centre)) / np.array(radii)) ** 2).sum(axis=-1) <= 1
    return inside


def _soft_parcels(positions: Array, grey: Mask) -> Array:
    """Place the parcels: mirrored pairs of centres, far from each other, and a Gaussian around each.

    A network has three pairs at random places, so that networks are spread over the brain as real ones are.
    """
    left = positions[grey & (positions[:, 0] < -VOXEL_MM)]
    chosen = [int(left[:, 1].argmax())]
    while len(chosen) < N_PARCELS // 2:
        distance = np.linalg.norm(left[:, None] - left[chosen], axis=-1).min(axis=1)
        chosen.append(int(distance.argmax()))
    order = np.random.default_rng([MODEL_SEED, 4]).permutation(N_PARCELS // 2)
    centres = np.repeat(left[chosen][order], 2, axis=0)
    centres[1::2, 0] *= -1
    squared = ((positions[:, None] - centres) ** 2).sum(axis=-1)
    maps = np.exp(-4 * np.log(2) * squared / _PARCEL_FWHM_MM**2)
    maps[maps < _PARCEL_CUTOFF] = 0.0
    trimmed: Array = maps / maps.max(axis=0)
    return trimmed
