"""The events of a run: rows of an events table, or random blocks of rest."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd

from boldly import hcp
from boldly.config import RestOptions, TaskOptions
from boldly.files import read_foreign_table
from boldly.records import InputError, Problem


def events_of_run(
    path: Path | None, task: TaskOptions, *, run_key: str, bids_task: str, t_r: float, n_volumes: int
) -> pd.DataFrame:
    """Return the events of a run: those of its file, or for a rest run random blocks.

    Parameters
    ----------
    path : Path or None
        Where they are (`read_events`); not looked at for rest.
    task : TaskOptions
        How events become trials.
    run_key, bids_task : str
        Key and BIDS task of the run.
    t_r : float
        Repetition time, s.
    n_volumes : int
        Frames of the run.

    Raises
    ------
    InputError
        As `read_events`, and for a task run without a file.
    """
    if task.rest is not None and task.is_rest(bids_task):
        duration_s = n_volumes * t_r - (task.delay_s or 0.0)
        return rest_blocks(task.rest, run_key=run_key, duration_s=duration_s, column=task.column)
    if path is None:
        remedy = "add the events table to the BIDS folder and rerun index, or exclude the run"
        raise InputError(Problem("run table", run_key, "no events table in the run table", remedy))
    return read_events(path, task)


def rest_blocks(rest: RestOptions, *, run_key: str, duration_s: float, column: str) -> pd.DataFrame:
    """Draw blocks of rest, of random length, at random places, without overlap.

    Lengths are uniform; all places that leave room for the other blocks are as likely. Nothing but the arguments
    decides, so that a run has the same blocks whatever other runs there are.

    Parameters
    ----------
    rest : RestOptions
        Number and lengths of blocks, seed, name of the state.
    run_key : str
        Key of the run.
    duration_s : float
        Length of the run less the haemodynamic delay, s.
    column : str
        Name of the column of states.

    Returns
    -------
    DataFrame
        Columns onset, duration (s, whole ms) and `column`, by onset; fewer blocks where they do not all fit.
    """
    digest = hashlib.sha256(f"{rest.seed} {run_key}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:16], "big"))
    lengths_ms = np.round(1000 * rng.uniform(*rest.length_s, rest.blocks))
    lengths_ms = lengths_ms[np.cumsum(lengths_ms) <= 1000 * duration_s]
    room_ms = max(1000 * duration_s - lengths_ms.sum(), 0.0)
    before_ms = np.floor(np.sort(rng.uniform(0, room_ms, len(lengths_ms))))
    onsets_ms = before_ms + np.cumsum(lengths_ms) - lengths_ms
    return pd.DataFrame({"onset": onsets_ms / 1000, "duration": lengths_ms / 1000, column: rest.state})


def read_events(path: Path, task: TaskOptions | None = None) -> pd.DataFrame:
    """Read the events of a run.

    Parameters
    ----------
    path : Path
        A BIDS ``*_events.tsv``, the same with commas (``*_events.csv``), or a folder of EVs as the Human
        Connectome Project has them (`boldly.hcp.read_events`).
    task : TaskOptions, optional
        Names of the columns; default: those of BIDS.

    Returns
    -------
    DataFrame
        Sorted by onset. `onset` and `duration` are float64 (s; a duration of ``n/a`` is nan), all other columns
        text, ``n/a`` missing. ``attrs["path"]`` is the file.

    Raises
    ------
    InputError
        For a file that is missing, empty or not a table, a missing column, an onset that is no number, a
        duration that is negative or no number.
    """
    task = task or TaskOptions()
    events = hcp.read_events(path, task.column) if path.is_dir() else _read_table(path, task)
    events = events.sort_values("onset", kind="stable", ignore_index=True)
    events.attrs["path"] = str(path)
    return events


def _read_table(path: Path, task: TaskOptions) -> pd.DataFrame:
    separator = "," if path.suffix == ".csv" else "\t"
    try:
        events = read_foreign_table(path, separator, dtype="str", na_values=["n/a", ""], keep_default_na=False)
    except FileNotFoundError:
        raise _unreadable(path, "no such file") from None
    except pd.errors.EmptyDataError:
        raise _unreadable(path, "the events table is empty") from None
    except (pd.errors.ParserError, UnicodeDecodeError, OSError) as error:
        raise _unreadable(path, f"not a readable events table: {error}") from None
    last = task.end_column or task.duration_column
    missing = [name for name in (task.onset_column, last) if name not in events]
    if missing:
        raise _unreadable(path, f"the events table has no column {', '.join(missing)} (found: {_found(events)})")
    onset, end = _seconds(events, task.onset_column, path), _seconds(events, last, path)
    if onset.isna().any():
        raise _unreadable(path, f"row {int(onset.isna().argmax()) + 1}: {task.onset_column} is n/a")
    duration = end - onset if task.end_column else end
    if (duration < 0).any():
        row = int((duration < 0).argmax())
        raise _unreadable(path, f"row {row + 1}: {last} is {events[last].iloc[row]!r}")
    return events.assign(onset=onset, duration=duration)


def _seconds(events: pd.DataFrame, name: str, path: Path) -> pd.Series:
    numbers = pd.to_numeric(events[name], errors="coerce").astype(np.float64)
    wrong = ~np.isfinite(numbers) & events[name].notna()
    if wrong.any():
        row = int(wrong.argmax())
        raise _unreadable(path, f"row {row + 1}: {name} is {events[name].iloc[row]!r}")
    return numbers


def _found(events: pd.DataFrame) -> str:
    return ", ".join(str(name) for name in events.columns)


def _unreadable(path: Path, message: str) -> InputError:
    remedy = "correct the events table (columns onset, duration in seconds, tab-separated), or exclude the run"
    return InputError(Problem(str(path), "", message, remedy))
