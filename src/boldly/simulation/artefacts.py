"""What a scanner adds to the signals of the parcels, and the image of a run."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from boldly.simulation.anatomy import INTENSITY, anatomy
from boldly.simulation.networks import Array, draw_decaying

# Image intensity per unit of a parcel's signal: a parcel's standard deviation of 3 is 0.6 percent of the image.
SIGNAL_SCALE = 20.0
VOXEL_NOISE = 0.005 * INTENSITY

# Head motion, x y z: slow wandering (mm, rad), frame-to-frame jitter, rate and size of sudden movements.
_WANDER = np.array([0.18, 0.24, 0.37, 0.006, 0.003, 0.003])
_WANDER_SCALE_S = 500.0
_JITTER = np.array([0.006, 0.012, 0.010, 0.00015, 0.00010, 0.00010])
_JERK = np.array([0.15, 0.15, 0.3, 0.004, 0.002, 0.002])
_JERKS_PER_S = 1 / 90
# Share of the movement that realignment leaves in the image, and loss of signal per mm of sudden movement.
_RESIDUAL = 0.4
_DROPOUT_PER_MM = 0.015

_GLOBAL = 0.006 * INTENSITY
_CSF = 0.015 * INTENSITY
_WHITE = 0.005 * INTENSITY
_DRIFT = 0.006 * INTENSITY
# fMRIPrep's cosines and a high-pass of 0.008 Hz take away what is slower than this.
_SLOWEST_KEPT_S = 130.0
HEAD_RADIUS_MM = 50.0


@dataclass(frozen=True)
class Scan:
    """A run before it is written.

    Attributes
    ----------
    bold : array, shape (T, V), float32
        Intensity of the voxels inside the brain.
    motion : array, shape (T, 6)
        Translation along x, y, z (mm) and rotation around them (rad).
    """

    bold: NDArray[np.float32]
    motion: Array


def draw_scan(rng: np.random.Generator, parcels: Array, t_r: float, motion_scale: float = 1.0) -> Scan:
    """Draw the image of a run.

    Added to the signals are: head motion (image contrast moved along its gradient, and a loss of signal where
    the head jerks), a respiratory signal in the whole brain, signals of the ventricles and of white matter that
    leak into their surroundings, drifts slower than 130 s, and white noise in each voxel. All but the last are
    explained by columns of the confounds table.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    parcels : array, shape (T, N_PARCELS)
        Signals of the parcels.
    t_r : float
        Repetition time, s.
    motion_scale : float, default=1.0
        How much the subject moves; 1 is a mean framewise displacement of about 0.1 mm.

    Returns
    -------
    Scan
    """
    brain = anatomy()
    n_volumes = len(parcels)
    motion = draw_motion(rng, n_volumes, t_r, motion_scale)
    bold = (SIGNAL_SCALE * parcels) @ brain.maps.T
    bold += brain.baseline
    bold += _motion_artefact(motion)
    bold += _physiology(rng, n_volumes, t_r)
    bold += _drift(rng, n_volumes, t_r)
    noise = rng.standard_normal(bold.shape, dtype=np.float32)
    return Scan(bold.astype(np.float32) + np.float32(VOXEL_NOISE) * noise, motion)


def draw_motion(rng: np.random.Generator, n_volumes: int, t_r: float, scale: float) -> Array:
    """Draw head motion, shape (T, 6) in mm and rad: wandering, jitter, and jerks of which half remains."""
    motion = _WANDER * draw_decaying(rng, n_volumes, 6, t_r, _WANDER_SCALE_S)
    motion += _JITTER * rng.standard_normal((n_volumes, 6))
    jerking = rng.random(n_volumes) < min(1.0, _JERKS_PER_S * t_r * scale)
    jerks = _JERK * rng.standard_normal((n_volumes, 6)) * jerking[:, None]
    since = np.exp(-np.arange(n_volumes) * t_r / 3.0)
    for axis in range(6):
        motion[:, axis] += np.convolve(jerks[:, axis], 0.5 + 0.5 * since)[:n_volumes]
    return scale * (motion - motion[0])


def framewise_displacement(motion: Array) -> Array:
    """Return the sum of absolute frame-to-frame movements in mm, rotations on a sphere of 50 mm; first frame nan.

    Source: Power et al. 2012.
    """
    steps = np.abs(np.diff(motion, axis=0))
    steps[:, 3:] *= HEAD_RADIUS_MM
    return np.concatenate([[np.nan], steps.sum(axis=1)])


def _motion_artefact(motion: Array) -> Array:
    """Contrast moved by what realignment left, and the loss of signal at jerks, shape (T, V)."""
    brain = anatomy()
    moved = [brain.gradient[:, axis] for axis in range(3)]
    for axis in np.eye(3):
        moved.append((brain.gradient * np.cross(axis, brain.positions_mm)).sum(axis=1))
    artefact: Array = (-_RESIDUAL * motion) @ np.stack(moved)
    jerk = np.clip(np.nan_to_num(framewise_displacement(motion)) - 0.3, 0.0, 2.0)
    return artefact - _DROPOUT_PER_MM * jerk[:, None] * brain.baseline


def _physiology(rng: np.random.Generator, n_volumes: int, t_r: float) -> Array:
    """Respiration everywhere, ventricles and white matter around them, shape (T, V)."""
    scales_s = (6.0, 2.0, 8.0)
    courses = [draw_decaying(rng, n_volumes, 1, t_r, scale) for scale in scales_s]
    return np.hstack(courses) @ _physiological_weights()


@cache
def _physiological_weights() -> Array:
    """Amplitude of respiration, ventricles and white matter in each voxel, shape (3, V)."""
    brain = anatomy()
    # Veins are denser at the back: respiration is not the same everywhere.
    everywhere = 1 - 0.2 * brain.positions_mm[:, 1] / 87.0
    in_csf = np.exp(-_distance_to(brain.csf) / 10.0)
    in_white = np.exp(-_distance_to(brain.white | brain.csf) / 15.0)
    return np.stack([_GLOBAL * everywhere, _CSF * in_csf, _WHITE * in_white])


def _distance_to(tissue: NDArray[np.bool_]) -> Array:
    """Distance in mm of each voxel to the nearest voxel of a tissue."""
    positions = anatomy().positions_mm
    return np.linalg.norm(positions[:, None] - positions[tissue], axis=-1).min(axis=1)


def _drift(rng: np.random.Generator, n_volumes: int, t_r: float) -> Array:
    """Return a line and slow cosines, each with a weight that varies smoothly over the brain, shape (T, V)."""
    brain = anatomy()
    frames = np.arange(n_volumes)
    n_cosines = int(2 * n_volumes * t_r / _SLOWEST_KEPT_S)
    courses = [np.linspace(-1.0, 1.0, n_volumes)]
    courses += [np.cos(np.pi * k * (frames + 0.5) / n_volumes) for k in range(1, n_cosines + 1)]
    places = np.column_stack([np.ones(len(brain.positions_mm)), brain.positions_mm / 80.0])
    weights = rng.standard_normal((len(courses), 4)) * [1.0, 0.5, 0.5, 0.5]
    drift: Array = _DRIFT / np.sqrt(len(courses)) * np.stack(courses, axis=1) @ weights @ places.T
    return drift
