"""Nuisance regressors of a run from its fMRIPrep confounds table, and the file that holds them for a subject."""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from boldly import bids, hcp
from boldly.config import PreprocessOptions
from boldly.files import read_foreign_table, write_tsv
from boldly.records import InputError, Problem, read_table
from boldly.words import listed

# nilearn's public `load_confounds` starts from an image and searches for the table beside it by its own reading of
# names (one spelling of run numbers, and every "tsv" in the path is taken for a suffix). The index has found the
# table already, and knows before any image is read which columns the options need. So the columns stand here, once
# for checking and selecting; the tests compare regressors and kept frames with those of `load_confounds`.

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
# Component columns of each kind: the letter they start with and, where the JSON file beside the table tells them
# apart, the masks they come from. fMRIPrep 1.4 spells all anatomical ones "a", later versions "a", "w" and "c".
_COMPCOR: dict[str, list[tuple[str, tuple[str, ...]]]] = {
    "anat_combined": [("a", ("combined",))],
    "anat_separated": [("a", ("WM", "CSF")), ("w", ()), ("c", ())],
    "temporal": [("t", ())],
    "temporal_anat_combined": [("t", ()), ("a", ("combined",))],
}
# Of each group one letter has to be there.
_COMPCOR_GROUPS: dict[str, list[tuple[str, ...]]] = {
    "anat_combined": [("a",)],
    "anat_separated": [("a", "w"), ("a", "c")],
    "temporal": [("t",)],
    "temporal_anat_combined": [("t",), ("a",)],
}
# Cut-off of fMRIPrep's cosines. A run of two such periods has at least one of them.
_COSINE_PERIOD_S = 128.0
# Full scrubbing (Power et al., 2014): kept segments have at least this many frames. nilearn's default.
_SHORTEST_SEGMENT = 5
# Not the name that fMRIPrep gives it: a regressor may have that.
_MOVEMENT = "fd_mm"
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
    if options.takes_cosines and "high_pass" not in chosen:
        chosen.append("high_pass")
    return chosen


def needs_table(options: PreprocessOptions) -> bool:
    """Tell whether anything in the options comes from the confounds table."""
    return bool(options.strategy) or bool(options.columns) or bool(quality_columns(options))


def quality_columns(options: PreprocessOptions) -> dict[str, str]:
    """Return the columns that the thresholds in use need, by option (``exclude.mean_fd_mm``)."""
    thresholds = {
        "fd_threshold_mm": (options.fd_threshold_mm, "framewise_displacement"),
        "std_dvars_threshold": (options.std_dvars_threshold, "std_dvars"),
        "exclude.mean_fd_mm": (options.exclude.mean_fd_mm, "framewise_displacement"),
        "exclude.maximum_fd_mm": (options.exclude.maximum_fd_mm, "framewise_displacement"),
    }
    return {option: column for option, (value, column) in thresholds.items() if value is not None}


def regressor_columns(
    available: Collection[str], options: PreprocessOptions, meta: Mapping[str, Any]
) -> dict[str, list[str]]:
    """Return the columns of the confounds table that each part of the regression takes.

    Parameters
    ----------
    available : collection of str
        Columns of the table: all that are cosines, or noise components of ICA-AROMA, are taken.
    options : PreprocessOptions
        Strategy.
    meta : dict
        Content of the JSON file beside the table, which says what each CompCor component is.

    Returns
    -------
    dict of str to list of str
        From the part ("columns" for those that the options name) to names; those that fMRIPrep always spells
        alike are named also where the table lacks them.
    """
    columns: dict[str, list[str]] = {}
    for part in parts(options):
        match part:
            case "high_pass":
                columns[part] = [name for name in available if "cosine" in name]
            case "ica_aroma":
                takes_none = options.takes_aroma_images
                columns[part] = [] if takes_none else [name for name in available if "aroma" in name]
            case "compcor":
                columns[part] = _components(meta, options)
            case _:
                suffixes = _SUFFIXES[getattr(options, part)]
                columns[part] = [f"{name}{suffix}" for name in _BASES[part] for suffix in suffixes]
    for pattern in options.columns:
        # A pattern that nothing fits is named as what is missing.
        found = [name for name in available if fnmatch.fnmatchcase(str(name), pattern)]
        columns.setdefault("columns", []).extend(found or [pattern])
    return columns


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
    columns = regressor_columns(available, options, meta or {})
    needed = {part if part == "columns" else f"strategy {part}": names for part, names in columns.items()}
    needed |= {option: [column] for option, column in quality_columns(options).items()}
    missing = {option: sorted(name for name in names if name not in available) for option, names in needed.items()}
    if "compcor" in options.strategy:
        missing["strategy compcor"] = _missing_families(columns["compcor"], options) + missing["strategy compcor"]
    if "ica_aroma" in options.strategy and not options.takes_aroma_images and not columns["ica_aroma"]:
        missing["strategy ica_aroma"] = ["aroma_motion_*"]
    if "high_pass" in columns and duration_s >= 2 * _COSINE_PERIOD_S and not columns["high_pass"]:
        missing["strategy high_pass"] = ["cosine*"]
    return {option: names for option, names in missing.items() if names}


def missing_problem(
    missing: Mapping[str, list[str]],
    available: Collection[str],
    where: str,
    entity: str,
    strategy: Collection[str] = (),
) -> Problem:
    """Put missing columns into words: what is missing, what was found, and the way out.

    Parameters
    ----------
    missing : mapping of str to list of str
        From `missing_columns`.
    available : collection of str
        Columns of the table.
    where, entity : str
        The table and its run.
    strategy : collection of str, optional
        What is asked for, perhaps by default: the way out then is a line for the config.
    """
    names = ", ".join(f"'{name}'" for columns in missing.values() for name in columns)
    if any(name in available for name in ("FramewiseDisplacement", "WhiteMatter", "RotX")):
        remedy = "the table is from fMRIPrep 1.1 or older: run fMRIPrep 1.2 or newer"
    else:
        ways = [
            "correct preprocess.columns"
            if option == "columns"
            else f"drop {option.removeprefix('strategy ')} from preprocess.strategy"
            if option.startswith("strategy ")
            else f"set preprocess.{option} to null"
            for option in missing
        ]
        left = [part for part in strategy if f"strategy {part}" not in missing]
        if len(left) < len(strategy):
            ways[-1] += f" (write `preprocess: {{strategy: [{', '.join(left)}]}}`)"
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
        table = read_foreign_table(path)
    except (OSError, pd.errors.EmptyDataError, pd.errors.ParserError, UnicodeDecodeError) as error:
        message = f"not a readable confounds table: {error}"
        raise InputError(Problem(str(path), "", message, "run fMRIPrep again, or exclude the run")) from None
    return table.apply(pd.to_numeric, errors="coerce").replace([np.inf, -np.inf], np.nan)


def nuisance(table: pd.DataFrame, meta: Mapping[str, Any], options: PreprocessOptions) -> Nuisance:
    """Select the regressors of a run as `nilearn.interfaces.fmriprep.load_confounds` does.

    The first value of derivatives, which is undefined, is taken from the second frame; regressors get zero mean
    over the kept frames. Frames marked as before the steady state, and the first `dummy_volumes`, are never kept;
    with a threshold, neither are frames over it, nor segments of fewer than 5 frames between them. ICA-AROMA is
    its noise components as regressors ("basic"), or nothing more where the images are AROMA's ("full").

    Parameters
    ----------
    table : DataFrame
        The confounds table, one row per frame, with all columns that are needed (see `missing_columns`).
    meta : dict
        Content of the JSON file beside it (needed for CompCor).
    options : PreprocessOptions
        Strategy and thresholds.

    Returns
    -------
    Nuisance
        With zeros in place of regressors where not a single frame is kept.
    """
    columns = regressor_columns(table.columns, options, meta)
    names = tuple(sorted({str(name) for chosen in columns.values() for name in chosen}))
    kept = ~(_before_steady_state(table) | _scrubbed(table, options))
    kept[: options.dummy_volumes] = False
    values = table[list(names)].astype(np.float64)
    if not kept.any():
        return Nuisance(kept, np.zeros(values.shape), names)
    values.iloc[:1] = values.iloc[:2].bfill().iloc[:1]
    return Nuisance(kept, (values - values[kept].mean()).to_numpy(), names)


def _before_steady_state(table: pd.DataFrame) -> np.ndarray:
    """Tell which frames fMRIPrep marked as before the steady state, shape (T,)."""
    flags = [name for name in table if "non_steady_state" in str(name)]
    return (table[flags].fillna(0) != 0).any(axis=1).to_numpy(bool)


def _scrubbed(table: pd.DataFrame, options: PreprocessOptions) -> np.ndarray:
    """Tell which frames are over a threshold, or in a segment between such that is too short, shape (T,)."""
    over = np.zeros(len(table), bool)
    limits = {"framewise_displacement": options.fd_threshold_mm, "std_dvars": options.std_dvars_threshold}
    for column, limit in limits.items():
        if limit is not None:
            over |= table[column].to_numpy() > limit
    if not over.any():
        return over
    # First frames of segments whose frames are all over or all not.
    first = np.flatnonzero(np.diff(over, prepend=not over[0]))
    lengths = np.diff(first, append=len(over))
    return over | np.repeat(lengths < _SHORTEST_SEGMENT, lengths)


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
    """Write the nuisance table of a subject: key, frame, kept (0 or 1), movement (fd_mm), regressors.

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


def read_displacement(path: Path | str) -> dict[str, np.ndarray]:
    """Read the framewise displacement (T,) in mm, nan where unknown, of all runs that `write_nuisance` wrote."""
    table = read_table(path, _KEYS, "all", stage="preprocess")
    return {str(key): rows.astype(np.float64).to_numpy() for key, rows in table.groupby("key")[_MOVEMENT]}


def _components(meta: Mapping[str, Any], options: PreprocessOptions) -> list[str]:
    """Return the first CompCor components of each mask, as many as wanted, by their number."""
    wanted = None if options.n_compcor == "all" else options.n_compcor
    chosen = []
    for letter, masks in _COMPCOR[options.compcor]:
        named = [name for name in meta if re.fullmatch(rf"{letter}_comp_cor_\d+", name)]
        named.sort(key=lambda name: int(name.rsplit("_", 1)[1]))
        for mask in masks or (None,):
            chosen += [name for name in named if mask is None or _mask_of(meta[name]) == mask][:wanted]
    return chosen


def _mask_of(about: Any) -> str | None:
    return about.get("Mask") if isinstance(about, dict) else None


def _missing_families(chosen: list[str], options: PreprocessOptions) -> list[str]:
    """Return the families of CompCor columns that the JSON file names no component of."""
    return [
        f"{'|'.join(either)}_comp_cor_*"
        for either in _COMPCOR_GROUPS[options.compcor]
        if not any(name.startswith(tuple(f"{letter}_comp_cor_" for letter in either)) for name in chosen)
    ]


def _shortened(names: Collection[str], longest: int = 12) -> str:
    """List names for a message: the plain ones (no derivatives, components or cosines) first, few in number."""
    plain = sorted(
        names, key=lambda name: ("_derivative" in name or "_power" in name or "_comp_cor" in name, name)
    )
    return listed(plain, longest)
