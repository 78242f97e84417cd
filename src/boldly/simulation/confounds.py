"""The confounds table that fMRIPrep would write about an image of the study."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from boldly.simulation.anatomy import anatomy
from boldly.simulation.artefacts import framewise_displacement
from boldly.simulation.networks import Array

MOTION = ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z")
TISSUES = ("csf", "white_matter", "global_signal")
COSINE_CUTOFF_S = 128.0
_N_COMPONENTS = {"combined": ("a", 6), "CSF": ("c", 3), "WM": ("w", 3)}
# fMRIPrep's defaults for a frame to be called a motion outlier.
_OUTLIER_FD_MM = 0.5
_OUTLIER_STD_DVARS = 1.5


def confounds_table(
    bold: NDArray[Any], motion: Array, t_r: float
) -> tuple[dict[str, Array], dict[str, dict[str, Any]]]:
    """Compute the confounds of a run from its image.

    Parameters
    ----------
    bold : array, shape (T, V)
        The image as it is written, voxels of `anatomy.anatomy`.
    motion : array, shape (T, 6)
        Translations (mm) and rotations (rad).
    t_r : float
        Repetition time, s.

    Returns
    -------
    columns : dict of str to array, shape (T,)
        By the names of fMRIPrep; nan where a value does not exist (derivatives of the first frame).
    metadata : dict of str to dict
        What the table's sidecar says: how tissue signals and CompCor components came about.
    """
    brain = anatomy()
    bold = np.asarray(bold, dtype=np.float64)
    masks = {"csf": brain.csf, "white_matter": brain.white, "global_signal": np.ones_like(brain.csf)}
    columns: dict[str, Array] = {}
    for name in TISSUES:
        columns |= _expansion(name, bold[:, masks[name]].mean(axis=1))
    columns |= dvars(bold)
    columns["framewise_displacement"] = framewise_displacement(motion)
    metadata: dict[str, dict[str, Any]] = {name: {"Method": "Mean"} for name in TISSUES}
    cosines = cosine_drifts(len(bold), t_r)
    tissues = {"combined": brain.csf | brain.white, "CSF": brain.csf, "WM": brain.white}
    for mask, voxels in tissues.items():
        components, about = _compcor(bold[:, voxels], cosines, mask)
        columns |= components
        metadata |= about
    columns |= {f"cosine{k:02d}": cosines[:, k] for k in range(cosines.shape[1])}
    for name, course in zip(MOTION, motion.T, strict=True):
        columns |= _expansion(name, course)
    return columns | _outliers(columns), metadata


def cosine_drifts(n_volumes: int, t_r: float) -> Array:
    """Return the cosines slower than 128 s, without the constant, shape (T, n); n may be 0 in a short run.

    Source: the discrete cosine basis of SPM, as nipype has it.
    """
    order = max(int(np.floor(2 * n_volumes * t_r / COSINE_CUTOFF_S)), 1)
    frames = np.arange(n_volumes)[:, None] + 0.5
    basis: Array = np.sqrt(2 / n_volumes) * np.cos(np.pi / n_volumes * frames * np.arange(1, order))
    return basis


def dvars(bold: Array) -> dict[str, Array]:
    """Return the root mean square of frame-to-frame changes over voxels, raw and standardised; first frame nan.

    Source: Power et al. 2012; the standardisation by robust standard deviation and lag-1 autocorrelation is
    that of Nichols 2017.
    """
    changes = np.sqrt((np.diff(bold, axis=0) ** 2).mean(axis=1))
    quartiles = [len(bold) // 4, 3 * len(bold) // 4]
    quarter, three = np.partition(np.ascontiguousarray(bold.T), quartiles)[:, quartiles].T
    centred = bold - bold.mean(axis=0)
    lag_one = (centred[1:] * centred[:-1]).sum(axis=0) / (centred**2).sum(axis=0)
    expected = np.sqrt(2 * (1 - lag_one)) * (three - quarter) / 1.349
    raw = np.concatenate([[np.nan], changes])
    return {"std_dvars": raw / expected.mean(), "dvars": raw}


def _expansion(name: str, course: Array) -> dict[str, Array]:
    """Return a regressor with its derivative and the squares of both, as fMRIPrep orders them."""
    derivative = np.concatenate([[np.nan], np.diff(course)])
    return {
        name: course,
        f"{name}_derivative1": derivative,
        f"{name}_derivative1_power2": derivative**2,
        f"{name}_power2": course**2,
    }


def _compcor(voxels: Array, cosines: Array, mask: str) -> tuple[dict[str, Array], dict[str, dict[str, Any]]]:
    """Return principal components of a tissue, filtered and standardised (aCompCor; Behzadi et al. 2007)."""
    prefix, wanted = _N_COMPONENTS[mask]
    centred = voxels - voxels.mean(axis=0)
    centred -= cosines @ (cosines.T @ centred)
    centred /= centred.std(axis=0)
    power, courses = np.linalg.eigh(centred @ centred.T)
    share = np.maximum(power[::-1], 0.0) / power.sum()
    # At most as many as the frames leave degrees of freedom for.
    n_components = min(wanted, len(voxels) - cosines.shape[1] - 1)
    columns, metadata = {}, {}
    for k in range(n_components):
        course = courses[:, -1 - k]
        name = f"{prefix}_comp_cor_{k:02d}"
        # An eigenvector's sign is arbitrary.
        columns[name] = course * np.sign(course[np.abs(course).argmax()])
        metadata[name] = {
            "CumulativeVarianceExplained": float(share[: k + 1].sum()),
            "Mask": mask,
            "Method": "aCompCor",
            "Retained": True,
            "SingularValue": float(np.sqrt(power[-1 - k])),
            "VarianceExplained": float(share[k]),
        }
    return columns, metadata


def _outliers(columns: dict[str, Array]) -> dict[str, Array]:
    """One column for each frame of large movement or change, 1 there and 0 elsewhere."""
    moved = np.nan_to_num(columns["framewise_displacement"]) > _OUTLIER_FD_MM
    changed = np.nan_to_num(columns["std_dvars"]) > _OUTLIER_STD_DVARS
    frames = np.flatnonzero(moved | changed)
    one_hot = np.eye(len(moved))
    return {f"motion_outlier{k:02d}": one_hot[frame] for k, frame in enumerate(frames)}
