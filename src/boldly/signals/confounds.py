"""Nuisance regressors of a run from its fMRIPrep confounds table, and the file that holds them for a subject."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from boldly import bids, hcp
from boldly.config import PreprocessOptions
from boldly.files import write_tsv
from boldly.records import InputError, Problem, read_table

# nilearn's public `load_confounds` starts from an image and searches for the table beside it by its own reading of
# names (one spelling of run numbers, and every "tsv" in the path is taken for a suffix). The index has found the
# table already, so the per-component functions that it is made of are called on the table directly. nilearn is
# pinned to a minor release, and a test compares the result with `load_confounds`. It is imported where it is used,
# since that takes longer than indexing 500 runs.

_BASES = {
    "motion": ["trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z"],
    "wm_csf": ["csf", "white_matter"],
    "global_signal": ["global_signal"],
}
_SUFFIXES = {
    "basic": [""],
    "derivatives": ["", "_derivative1"],
    "power2": ["", "_power2"],
    "full": ["", "_derivative1", "_power2", "_derivative1_power2"],
}
# Prefixes of component columns; where a tuple stands, one of them is enough (fMRIPrep 1.4 spells all "a").
_COMPCOR_PREFIXES: dict[str, list[tuple[str, ...]]] = {
    "anat_combined": [("a",)],
    "anat_separated": [("a", "w"), ("a", "c")],
    "temporal": [("t",)],
    "temporal_anat_combined": [("t",), ("a",)],
}
# Cut-off of fMRIPrep's cosines. A run of two such periods has at least one of them.
_COSINE_PERIOD_S = 128.0
# Full scrubbing (Power et al., 2014): kept segments have at least this many frames. nilearn's default.
_SHORTEST_SEGMENT = 5
_MOVEMENT = "framewise_displacement"
_KEYS = ("key", "frame", "kept", _MOVEMENT)


@dataclass(frozen=True)
class Nuisance:
    """What is regressed out of a run and which frames count.

    Attributes
    ----------
    kept : ndarray of bool, shape (T,)
        False for scrubbed frames and those before the steady state.
    regressors : ndarray of float64, shape (T, R)
        Of zero mean over the kept frames.
    names : tuple of str, length R
        Columns of the confounds table, sorted.
    displacement_mm : ndarray of float64, shape (T,), optional
        Framewise displacement, for looking at; never regressed out.
    """

    kept: np.ndarray
    regressors: np.ndarray
    names: tuple[str, ...]
    displacement_mm: np.ndarray | None = None

    @property
    def degrees_of_freedom(self) -> int:
        """Kept frames less the rank of the regressors and a constant (filters are not counted); 0 at least."""
        design = np.column_stack([np.ones(len(self.kept)), self.regressors])[self.kept]
        scale = np.linalg.norm(design, axis=0)
        rank = np.linalg.matrix_rank(design / np.where(scale > 0, scale, 1)) if len(design) else 0
        return int(max(self.kept.sum() - rank, 0))


def parts(options: PreprocessOptions) -> list[str]:
    """Return the parts of the regression in order; CompCor brings the cosines that fMRIPrep computed it with."""
    chosen: list[str] = list(dict.fromkeys(options.strategy))
    if "compcor" in chosen and "high_pass" not in chosen:
        chosen.append("high_pass")
    return chosen


def needs_table(options: PreprocessOptions) -> bool:
    """Tell whether anything in the options comes from the confounds table."""
    return bool(options.strategy) or bool(_quality_columns(options))


def missing_columns(
    available: Collection[str],
    options: PreprocessOptions,
    *,
    meta: Mapping[str, Any] | None = None,
    duration_s: float = 0.0,
) -> dict[str, list[str]]:
    """Return the columns that the options need and a confounds table does not have.

    Parameters
    ----------
    available : collection of str
        Columns of the table.
    options : PreprocessOptions
        Strategy and thresholds.
    meta : dict, optional
        Content of the JSON file beside the table, which says what each CompCor component is; not looked at for
        other strategies, and taken for empty without.
    duration_s : float, default=0.0
        Length of the run, s. Short runs have no cosines, so these are missed only beyond 256 s.

    Returns
    -------
    dict of str to list of str
        From the option to the missing columns (``a_comp_cor_*`` for a family of columns); empty if all are there.
    """
    needed: dict[str, list[str]] = {}
    for part in parts(options):
        if part in _BASES:
            needed[f"strategy {part}"] = sorted(
                f"{name}{suffix}" for name in _BASES[part] for suffix in _SUFFIXES[getattr(options, part)]
            )
    for option, column in _quality_columns(options).items():
        needed[option] = [column]
    missing = {option: [name for name in names if name not in available] for option, names in needed.items()}
    if "compcor" in options.strategy:
        missing["strategy compcor"] = _missing_components(available, options, meta or {})
    regresses_aroma = "ica_aroma" in options.strategy and not options.takes_aroma_images
    if regresses_aroma and not any("aroma" in name for name in available):
        missing["strategy ica_aroma"] = ["aroma_motion_*"]
    if (
        "high_pass" in parts(options)
        and duration_s >= 2 * _COSINE_PERIOD_S
        and not any("cosine" in name for name in available)
    ):
        missing["strategy high_pass"] = ["cosine*"]
    return {option: names for option, names in missing.items() if names}


def missing_problem(
    missing: Mapping[str, list[str]], available: Collection[str], where: str, entity: str
) -> Problem:
    """Put missing columns into words: what is missing, what was found, and the way out."""
    names = ", ".join(f"'{name}'" for columns in missing.values() for name in columns)
    if any(name in available for name in ("FramewiseDisplacement", "WhiteMatter", "RotX")):
        remedy = "the table is from fMRIPrep 1.1 or older: run fMRIPrep 1.2 or newer"
    else:
        ways = [
            f"drop {option.removeprefix('strategy ')} from preprocess.strategy"
            if option.startswith("strategy ")
            else f"set preprocess.{option} to null"
            for option in missing
        ]
        if "strategy compcor" in missing:
            ways.append("put the confounds table's JSON file beside it (it says what each component is)")
        if "strategy ica_aroma" in missing:
            ways.append("run fMRIPrep 20.2 to 23.0 with --use-aroma (23.1 and newer no longer run it)")
        remedy = f"{', '.join(ways)}, or exclude the run"
        if hcp.is_movement(Path(where)):
            remedy = f"HCP comes with movement alone: {', '.join(ways)}"
    plural = "s" if sum(map(len, missing.values())) > 1 else ""
    message = f"confounds table has no column{plural} {names} (found: {_shortened(available)})"
    return Problem(where, entity, message, remedy)


def read_confounds(path: Path | str) -> pd.DataFrame:
    """Read a confounds table, one row per frame; what is no finite number becomes nan.

    Movement parameters of the Human Connectome Project come in the same terms (`boldly.hcp.read_movement`).

    Raises
    ------
    InputError
        For a file that is missing, empty or not a table.
    """
    if hcp.is_movement(Path(path)):
        return hcp.read_movement(Path(path))
    try:
        table = pd.read_csv(path, sep="\t")
    except (OSError, pd.errors.EmptyDataError, pd.errors.ParserError, UnicodeDecodeError) as error:
        message = f"not a readable confounds table: {error}"
        raise InputError(Problem(str(path), "", message, "run fMRIPrep again, or exclude the run")) from None
    return table.apply(pd.to_numeric, errors="coerce").replace([np.inf, -np.inf], np.nan)


def nuisance(table: pd.DataFrame, meta: Mapping[str, Any], options: PreprocessOptions) -> Nuisance:
    """Select the regressors of a run as `nilearn.interfaces.fmriprep.load_confounds` does, with its functions.

    The first value of derivatives, which is undefined, is taken from the second frame; regressors get zero mean
    over the kept frames. Frames marked as before the steady state are never kept; with a threshold, neither are
    frames over it, nor segments of fewer than 5 frames between them. ICA-AROMA is its noise components as
    regressors ("basic"), or nothing more where the images are AROMA's ("full").

    Parameters
    ----------
    table : DataFrame
        The confounds table, one row per frame.
    meta : dict
        Content of the JSON file beside it (needed for CompCor).
    options : PreprocessOptions
        Strategy and thresholds.

    Returns
    -------
    Nuisance
        With zeros in place of regressors where not a single frame is kept.
    """
    from nilearn.interfaces.fmriprep import load_confounds_components as components
    from nilearn.interfaces.fmriprep.load_confounds_utils import prepare_output

    selected = [components._load_non_steady_state(table)]
    if options.fd_threshold_mm is not None or options.std_dvars_threshold is not None:
        quality = table.reindex(columns=["framewise_displacement", "std_dvars"])
        thresholds = [
            np.inf if threshold is None else threshold
            for threshold in (options.fd_threshold_mm, options.std_dvars_threshold)
        ]
        selected.append(components._load_scrub(quality, _SHORTEST_SEGMENT, *thresholds))
    selected += [_component(table, part, meta, options) for part in parts(options)]
    frame = pd.concat([pd.DataFrame(index=table.index), *(part for part in selected if part.size)], axis=1)
    flags = [name for name in frame if name.startswith(("motion_outlier", "non_steady_state"))]
    kept = ~frame[flags].any(axis=1).to_numpy()
    if not kept.any():
        names = tuple(sorted(set(frame) - set(flags)))
        return Nuisance(kept, np.zeros((len(table), len(names))), names)
    _, regressors = prepare_output(frame.astype(np.float64), demean=True)
    names = tuple(str(name) for name in regressors.columns)
    values = regressors.to_numpy(np.float64) if names else np.zeros((len(table), 0))
    return Nuisance(kept, values, names)


def read_meta(confounds: Path | str) -> dict[str, Any]:
    """Read the JSON file beside a confounds table; empty where there is none.

    Raises
    ------
    InputError
        For a file that is not a JSON object.
    """
    path = bids.sidecar(Path(confounds))
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise InputError(Problem(str(path), "", f"not readable JSON: {error}", "correct the file")) from None
    return content if isinstance(content, dict) else {}


def write_nuisance(path: Path | str, runs: Mapping[str, Nuisance]) -> None:
    """Write the nuisance table of a subject: key, frame, kept (0 or 1), framewise_displacement (mm), regressors.

    What a run lacks is n/a. Numbers are written so that they read back exactly. Regressors are sorted by name.
    """
    tables = []
    for key, run in runs.items():
        table = pd.DataFrame({"key": key, "frame": np.arange(len(run.kept)), "kept": run.kept.astype(int)})
        table[_MOVEMENT] = np.nan if run.displacement_mm is None else run.displacement_mm
        tables.append(table.join(pd.DataFrame(run.regressors, columns=list(run.names))))
    table = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=list(_KEYS))
    write_tsv(path, table[[*_KEYS, *sorted(set(table.columns) - set(_KEYS))]])


def read_nuisance(path: Path | str) -> dict[str, tuple[np.ndarray, np.ndarray, tuple[str, ...]]]:
    """Read what `write_nuisance` wrote.

    Returns
    -------
    dict
        From run key to kept frames (T,) bool, regressors (T, R) float64, and their names.
    """
    # As text first: which parser of numbers is exact depends on the version of pandas, Python's always is.
    table = read_table(path, _KEYS, "all", stage="preprocess")
    runs = {}
    for key, rows in table.groupby("key", sort=False):
        regressors = rows.drop(columns=list(_KEYS)).dropna(axis=1, how="all")
        names = tuple(str(name) for name in regressors.columns)
        runs[str(key)] = (rows["kept"].to_numpy() == "1", regressors.astype(np.float64).to_numpy(), names)
    return runs


def read_movement(path: Path | str, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Read the kept frames (T,) bool and the framewise displacement (T,) in mm, nan where unknown, of a run.

    Both are empty where `write_nuisance` wrote no such run.
    """
    table = read_table(path, _KEYS, "all", stage="preprocess")
    rows = table[table["key"] == key]
    return rows["kept"].to_numpy() == "1", rows[_MOVEMENT].astype(np.float64).to_numpy()


def _component(
    table: pd.DataFrame, part: str, meta: Mapping[str, Any], options: PreprocessOptions
) -> pd.DataFrame:
    from nilearn.interfaces.fmriprep import load_confounds_components as components
    from nilearn.interfaces.fmriprep.load_confounds_compcor import find_compcor

    match part:
        case "motion":
            return components._load_motion(table, options.motion)
        case "wm_csf":
            return components._load_wm_csf(table, options.wm_csf)
        case "global_signal":
            return components._load_global_signal(table, options.global_signal)
        case "high_pass":
            return components._load_high_pass(table)
        case "ica_aroma":
            return components._load_ica_aroma(table, options.ica_aroma)
        case "compcor":
            return table[find_compcor(meta, options.compcor, options.n_compcor)]
    raise ValueError(f"unknown part of the strategy: {part}")


def _missing_components(
    available: Collection[str], options: PreprocessOptions, meta: Mapping[str, Any]
) -> list[str]:
    """Return the CompCor columns that are named in the JSON but not there, or the families that nobody names."""
    from nilearn.interfaces.fmriprep.load_confounds_compcor import find_compcor

    try:
        chosen = find_compcor(meta, options.compcor, options.n_compcor)
    except KeyError as error:
        return [str(error.args[0])]
    families = [
        f"{'|'.join(either)}_comp_cor_*"
        for either in _COMPCOR_PREFIXES[options.compcor]
        if not any(name.startswith(tuple(f"{prefix}_comp_cor_" for prefix in either)) for name in chosen)
    ]
    return families + [name for name in chosen if name not in available]


def _quality_columns(options: PreprocessOptions) -> dict[str, str]:
    """Return the columns that thresholds need, by option."""
    thresholds = {
        "fd_threshold_mm": (options.fd_threshold_mm, "framewise_displacement"),
        "std_dvars_threshold": (options.std_dvars_threshold, "std_dvars"),
        "exclude.mean_fd_mm": (options.exclude.mean_fd_mm, "framewise_displacement"),
        "exclude.maximum_fd_mm": (options.exclude.maximum_fd_mm, "framewise_displacement"),
    }
    return {option: column for option, (value, column) in thresholds.items() if value is not None}


def _shortened(names: Collection[str], longest: int = 12) -> str:
    """List names for a message: the plain ones (no derivatives, components or cosines) first, few in number."""
    plain = sorted(
        names, key=lambda name: ("_derivative" in name or "_power" in name or "_comp_cor" in name, name)
    )
    more = f" and {len(plain) - longest} more" if len(plain) > longest else ""
    return ", ".join(plain[:longest]) + more if plain else "none"
