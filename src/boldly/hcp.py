"""The only place that spells names of the Human Connectome Project as distributed, and reads its text files.

Its tree is ``<subject>/MNINonLinear/Results/<run>/``, a ``<run>`` being ``tfMRI_MOTOR_LR`` or ``rfMRI_REST1_LR``;
the names of files are those of the S1200 release (Reference Manual, Appendix III).
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import pandas as pd

from boldly.records import InputError, Problem

MOVEMENT = "Movement_Regressors.txt"
_MASKS = "brainmask_fs.[0-9]*.nii.gz"
_RUN = re.compile(r"[rt]fMRI_(?P<task>[A-Za-z]+)(?P<run>\d*)_((?P<acq>7T)_)?(?P<dir>LR|RL|AP|PA)")
# Files among the EVs that hold no events: the time of the scanner's trigger, and accuracies in words.
_NO_EVENTS = {"Sync", "Stats"}
_MOVEMENT_COLUMNS = 12
_AXES = ["trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z"]
# Power et al. (2012): rotations as the way of a point on a sphere of this radius.
_HEAD_RADIUS_MM = 50.0


def subject_folders(root: Path) -> list[Path]:
    """Return the folders of subjects with functional runs, sorted."""
    return sorted(path.parents[1] for path in root.glob("*/MNINonLinear/Results"))


def subject_label(name: str) -> str:
    """Return the label of a subject: the name of its folder, letters and digits alone (``HCA1_V1`` is HCA1V1)."""
    return re.sub(r"[^A-Za-z0-9]", "", name.removeprefix("sub-"))


def run_folders(subject: Path) -> list[Path]:
    """Return the folders of a subject's runs, sorted; that of several runs together (``tfMRI_MOTOR``) is none."""
    return sorted(path for path in (subject / "MNINonLinear" / "Results").iterdir() if is_run(path.name))


def is_run(name: str) -> bool:
    """Tell whether a name is that of a run's folder."""
    return _RUN.fullmatch(name) is not None


def entities(run: Path) -> dict[str, str]:
    """Return the BIDS entities of a run's folder.

    Examples
    --------
    >>> entities(Path("100307/MNINonLinear/Results/rfMRI_REST1_LR"))
    {'sub': '100307', 'task': 'REST', 'dir': 'LR', 'run': '1'}
    """
    found = _RUN.fullmatch(run.name)
    if found is None:
        raise ValueError(f"{run.name} is not the folder of a run")
    named = {key: found[key] for key in ("task", "acq", "dir", "run") if found[key]}
    return {"sub": subject_label(run.parents[2].name), **named}


def image(run: Path, suffix: str = "", *, cifti: bool = False) -> Path:
    """Return the image of a run; with `suffix` a variant of it (``_hp2000_clean``; CIFTI: ``_Atlas_MSMAll``)."""
    return run / f"{run.name}{suffix}{'.dtseries.nii' if cifti else '.nii.gz'}"


def brain_mask(run: Path) -> Path | None:
    """Return the mask on the grid of a run's image: in its folder, else in MNINonLinear; None without."""
    places = (run, run.parents[1])
    return next((mask for place in places for mask in sorted(place.glob(_MASKS))), None)


def is_brain_mask(name: str) -> bool:
    """Tell whether a name is that of a brain mask."""
    return fnmatchcase(name, _MASKS)


def movement(run: Path) -> Path:
    """Return the table of movement parameters of a run."""
    return run / MOVEMENT


def events_folder(run: Path) -> Path:
    """Return the folder with one file of events for each state of a task run."""
    return run / "EVs"


def is_movement(path: Path) -> bool:
    """Tell whether a file is a table of movement parameters."""
    return path.name == MOVEMENT


def read_movement(path: Path) -> pd.DataFrame:
    """Read movement parameters in the terms of a confounds table.

    Parameters
    ----------
    path : Path
        A ``Movement_Regressors.txt``: per frame three translations (mm), three rotations (degrees), and six
        derivatives, which are not used.

    Returns
    -------
    DataFrame
        ``trans_*`` (mm), ``rot_*`` (radians), their ``_derivative1`` (backward differences, the first nan, as
        fMRIPrep has them), ``_power2`` and ``_derivative1_power2``; `framewise_displacement` (mm) after Power et
        al. (2012), the first nan.

    Raises
    ------
    InputError
        For a file that is missing, or no table of 12 numbers per row.
    """
    remedy = "download the file again, or exclude the run"
    try:
        values = pd.read_csv(path, sep=r"\s+", header=None, dtype=np.float64).to_numpy()
    except (OSError, ValueError, pd.errors.ParserError) as error:
        raise InputError(Problem(str(path), "", f"not a readable table of movement: {error}", remedy)) from None
    if values.shape[1] != _MOVEMENT_COLUMNS or not np.isfinite(values).all():
        message = f"not a table of {_MOVEMENT_COLUMNS} numbers per row ({values.shape[1]} columns)"
        raise InputError(Problem(str(path), "", message, remedy))
    base = pd.DataFrame(np.hstack([values[:, :3], np.deg2rad(values[:, 3:6])]), columns=_AXES)
    change = base.diff()
    ways = change.abs() * ([1.0] * 3 + [_HEAD_RADIUS_MM] * 3)
    parts = [
        base,
        change.add_suffix("_derivative1"),
        (base**2).add_suffix("_power2"),
        (change**2).add_suffix("_derivative1_power2"),
        ways.sum(axis=1, skipna=False).rename("framewise_displacement"),
    ]
    return pd.concat(parts, axis=1)


def read_events(folder: Path, column: str) -> pd.DataFrame:
    """Read the events of a task run.

    Parameters
    ----------
    folder : Path
        ``EVs``: a file ``<state>.txt`` for each state, with onset (s), duration (s) and amplitude per row. Empty
        files, and rows of amplitude zero, are states without events.
    column : str
        Name of the column of states.

    Returns
    -------
    DataFrame
        Columns onset, duration (float64) and `column`, by name of the file.

    Raises
    ------
    InputError
        With every file that is no such table, and for a folder without files of events.
    """
    paths = [path for path in sorted(folder.glob("*.txt")) if path.stem not in _NO_EVENTS]
    remedy = "download the EVs again, or exclude the run"
    if not paths:
        raise InputError(Problem(str(folder), "", "not a single file of events", remedy))
    rows: list[tuple[float, float, str]] = []
    problems: list[Problem] = []
    for path in paths:
        try:
            rows += [(onset, duration, path.stem) for onset, duration, weight in _triples(path) if weight != 0]
        except (OSError, ValueError) as error:
            problems.append(Problem(str(path), "", f"not a readable file of events: {error}", remedy))
    if problems:
        raise InputError(problems)
    return pd.DataFrame(rows, columns=["onset", "duration", column])


def _triples(path: Path) -> list[tuple[float, float, float]]:
    triples = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        values = [float(word) for word in line.split()]
        if not values:
            continue
        if len(values) != 3 or not np.isfinite(values).all() or values[1] < 0:
            raise ValueError(f"row {number} is not onset, duration and amplitude: {line.strip()!r}")
        triples.append((values[0], values[1], values[2]))
    return triples
