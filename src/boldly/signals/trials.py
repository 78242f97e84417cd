"""Events to trials: rows of an events table become labelled windows of a run."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from boldly import hcp
from boldly.config import RestOptions, TaskOptions
from boldly.records import InputError, Problem, Trial

# Share of a frame by which float rounding of seconds / t_r may miss a whole number.
_ROUNDING = 1e-6
_FEWEST_FRAMES = 2


@dataclass(frozen=True)
class RunEvents:
    """The events of a run and what places them: its key, BIDS task, t_r (s), frames, time of frame 0 (s)."""

    events: pd.DataFrame
    run_key: str
    bids_task: str
    t_r: float
    n_volumes: int
    start_time: float = 0.0


@dataclass(frozen=True)
class _Block:
    name: str
    onset: float
    end: float

    @property
    def duration(self) -> float:
        return self.end - self.onset


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
        duration_s = n_volumes * t_r - task.delay_s
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
        events = pd.read_csv(path, sep=separator, dtype="str", na_values=["n/a", ""], keep_default_na=False)
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


def label_names(runs: Iterable[RunEvents], task: TaskOptions) -> list[str]:
    """Return the names of the states in label order.

    Parameters
    ----------
    runs : iterable of RunEvents
        All runs of the dataset.
    task : TaskOptions
        With `labels`, these are returned; otherwise the states with at least one trial, in alphabetical order.

    Raises
    ------
    InputError
        As `trials_of_run`.
    """
    if task.labels is not None:
        return list(task.labels)
    return sorted(states(runs, task))


def states(runs: Iterable[RunEvents], task: TaskOptions) -> set[str]:
    """Return the names of the states that have at least one trial."""
    return {block.name for run in runs for block, _, _ in _placed(run, task)}


def trials_of_run(
    events: pd.DataFrame,
    task: TaskOptions,
    *,
    run_key: str,
    bids_task: str,
    labels: Sequence[str],
    t_r: float,
    n_volumes: int,
    start_time: float = 0.0,
) -> list[Trial]:
    """Turn the events of a run into trials.

    The steps: rows whose state is ``n/a`` or whose original name matches `task.drop` are left out; names change by
    `task.rename` and `task.prefix_task`, and take the upper and lower case of `task.labels`; with
    `task.merge_blocks` consecutive rows of one state become one trial from the first onset to the last end - a row
    that was left out between them ends the block, and the last block of a run is like any other; trials shorter
    than `task.minimum_s` are left out (by their duration in the table, also where the run ends before them).
    Blocks of rest (`task.rest`) are neither renamed nor merged. Frame i, at t = ``start_time + i * t_r``, belongs
    to a trial where ``onset + delay <= t < end + delay``. Trials with fewer than two frames inside the run are left
    out.

    Parameters
    ----------
    events : DataFrame
        From `events_of_run`.
    task : TaskOptions
        How events become trials.
    run_key, bids_task : str
        Key and BIDS task of the run.
    labels : sequence of str
        Names of the states in label order.
    t_r : float
        Repetition time, s.
    n_volumes : int
        Frames of the run.
    start_time : float, default=0
        Time of frame 0, s.

    Returns
    -------
    list of Trial
        In order of onset, numbered from 0.

    Raises
    ------
    InputError
        For a missing column, a state outside `labels`, a state without a duration.
    """
    numbers = {name: number for number, name in enumerate(labels)}
    run = RunEvents(events, run_key, bids_task, t_r, n_volumes, start_time)
    placed = list(_placed(run, task))
    unknown = sorted({block.name for block, _, _ in placed} - set(numbers))
    if unknown:
        raise _problem(
            events,
            run_key,
            f"states outside the labels: {', '.join(unknown)} (labels: {', '.join(labels)})",
            "add them to the task's labels, or leave them out with drop, or map them with rename",
        )
    return [
        Trial(
            run_key=run_key,
            number=number,
            onset=block.onset,
            duration=block.duration,
            label=numbers[block.name],
            label_name=block.name,
            first=first,
            stop=stop,
        )
        for number, (block, first, stop) in enumerate(placed)
    ]


def _placed(run: RunEvents, task: TaskOptions) -> Iterator[tuple[_Block, int, int]]:
    shift = task.delay_s - run.start_time
    for block in _blocks(run.events, task, run.run_key, run.bids_task):
        if block.duration < task.minimum_s - _ROUNDING:
            continue
        first = max(_first_frame(block.onset + shift, run.t_r), 0)
        stop = min(_first_frame(block.end + shift, run.t_r), run.n_volumes)
        if stop - first >= _FEWEST_FRAMES:
            yield block, first, stop


def _first_frame(seconds: float, t_r: float) -> int:
    """Return the first frame that is not earlier than `seconds`."""
    return math.ceil(seconds / t_r - _ROUNDING)


def _blocks(events: pd.DataFrame, task: TaskOptions, run_key: str, bids_task: str) -> list[_Block]:
    merge = task.merge_blocks and not task.is_rest(bids_task)
    blocks: list[_Block] = []
    previous: str | None = None
    for name, onset, duration in zip(
        _states(events, task, run_key, bids_task), events["onset"], events["duration"], strict=True
    ):
        if name is not None and math.isnan(duration):
            raise _problem(
                events,
                run_key,
                f"the row of '{name}' at {onset:g} s has no duration",
                "give it one in the events table, or leave the state out with the task's drop",
            )
        if name is not None and name == previous and merge:
            last = blocks[-1]
            blocks[-1] = _Block(name, last.onset, max(last.end, onset + duration))
        elif name is not None:
            blocks.append(_Block(name, float(onset), float(onset + duration)))
        previous = name
    return blocks


def _states(events: pd.DataFrame, task: TaskOptions, run_key: str, bids_task: str) -> list[str | None]:
    """Return the final name of the state of each row; None for rows that are left out."""
    if task.column not in events:
        raise _problem(
            events,
            run_key,
            f"the events table has no column '{task.column}' (found: {_found(events)})",
            "name the column of the states in the task's column",
        )
    names = events[task.column].astype("object")
    if task.is_rest(bids_task):
        return list(names)
    return [None if _is_dropped(name, task) else _renamed(name.strip(), task, bids_task) for name in names]


def _is_dropped(name: object, task: TaskOptions) -> bool:
    return not isinstance(name, str) or any(re.search(pattern, name) for pattern in task.drop)


def _renamed(name: str, task: TaskOptions, bids_task: str) -> str:
    for pattern, replacement in task.rename.items():
        name = re.sub(pattern, replacement, name)
    name = f"{bids_task} {name}" if task.prefix_task else name
    labels = task.labels or []
    return name if name in labels else next((label for label in labels if label.lower() == name.lower()), name)


def _found(events: pd.DataFrame) -> str:
    return ", ".join(str(name) for name in events.columns)


def _problem(events: pd.DataFrame, run_key: str, message: str, remedy: str) -> InputError:
    return InputError(Problem(events.attrs.get("path", "events"), run_key, message, remedy))


def _unreadable(path: Path, message: str) -> InputError:
    remedy = "correct the events table (columns onset, duration in seconds, tab-separated), or exclude the run"
    return InputError(Problem(str(path), "", message, remedy))
