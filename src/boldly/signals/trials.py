"""Events to trials: rows of an events table become labelled windows of a run."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from boldly.config import TaskOptions
from boldly.records import InputError, Problem, Trial

# Share of a frame by which float rounding of seconds / t_r may miss a whole number.
_ROUNDING = 1e-6
_FEWEST_FRAMES = 2


@dataclass(frozen=True)
class RunEvents:
    """The events of a run and what is needed to place them: its key, BIDS task, t_r (s) and number of frames."""

    events: pd.DataFrame
    run_key: str
    bids_task: str
    t_r: float
    n_volumes: int


@dataclass(frozen=True)
class _Block:
    name: str
    onset: float
    end: float

    @property
    def duration(self) -> float:
        return self.end - self.onset


def read_events(path: Path) -> pd.DataFrame:
    """Read a BIDS events table.

    Parameters
    ----------
    path : Path
        An ``*_events.tsv``.

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
    try:
        events = pd.read_csv(path, sep="\t", dtype="str", na_values=["n/a", ""], keep_default_na=False)
    except FileNotFoundError:
        raise _unreadable(path, "no such file") from None
    except pd.errors.EmptyDataError:
        raise _unreadable(path, "the events table is empty") from None
    except (pd.errors.ParserError, UnicodeDecodeError, OSError) as error:
        raise _unreadable(path, f"not a readable events table: {error}") from None
    missing = [name for name in ("onset", "duration") if name not in events]
    if missing:
        raise _unreadable(path, f"the events table has no column {', '.join(missing)} (found: {_found(events)})")
    for name in ("onset", "duration"):
        numbers = pd.to_numeric(events[name], errors="coerce").astype(np.float64)
        wrong = ~np.isfinite(numbers) & (events[name].notna() | (name == "onset"))
        if name == "duration":
            wrong |= numbers < 0
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            text = events[name].iloc[row]
            raise _unreadable(path, f"row {row + 1}: {name} is {'n/a' if pd.isna(text) else repr(text)}")
        events[name] = numbers
    events = events.sort_values("onset", kind="stable", ignore_index=True)
    events.attrs["path"] = str(path)
    return events


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
    found = {
        block.name
        for run in runs
        for block, _, _ in _placed(run.events, task, run.run_key, run.bids_task, run.t_r, run.n_volumes)
    }
    return sorted(found)


def trials_of_run(
    events: pd.DataFrame,
    task: TaskOptions,
    *,
    run_key: str,
    bids_task: str,
    labels: Sequence[str],
    t_r: float,
    n_volumes: int,
) -> list[Trial]:
    """Turn the events of a run into trials.

    The steps: rows whose state is ``n/a`` or whose original name matches `task.drop` are left out; names change by
    `task.rename` and `task.prefix_task`; with `task.merge_blocks` consecutive rows of one state become one
    trial from the first onset to the last end - a row that was left out between them ends the block, and the last
    block of a run is like any other; trials shorter than `task.minimum_s` are left out (by their duration in the
    table, also where the run ends before them). Frame i, at ``i * t_r``, belongs to a trial where
    ``onset + delay <= i * t_r < end + delay``. Trials with fewer than two frames inside the run are left out.

    Parameters
    ----------
    events : DataFrame
        From `read_events`.
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
    placed = list(_placed(events, task, run_key, bids_task, t_r, n_volumes))
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


def _placed(
    events: pd.DataFrame, task: TaskOptions, run_key: str, bids_task: str, t_r: float, n_volumes: int
) -> Iterator[tuple[_Block, int, int]]:
    for block in _blocks(events, task, run_key, bids_task):
        if block.duration < task.minimum_s - _ROUNDING:
            continue
        first = max(_first_frame(block.onset + task.delay_s, t_r), 0)
        stop = min(_first_frame(block.end + task.delay_s, t_r), n_volumes)
        if stop - first >= _FEWEST_FRAMES:
            yield block, first, stop


def _first_frame(seconds: float, t_r: float) -> int:
    """Return the first frame that is not earlier than `seconds`."""
    return math.ceil(seconds / t_r - _ROUNDING)


def _blocks(events: pd.DataFrame, task: TaskOptions, run_key: str, bids_task: str) -> list[_Block]:
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
        if name is not None and name == previous and task.merge_blocks:
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
    return [None if _is_dropped(name, task) else _renamed(name, task, bids_task) for name in names]


def _is_dropped(name: object, task: TaskOptions) -> bool:
    return not isinstance(name, str) or any(re.search(pattern, name) for pattern in task.drop)


def _renamed(name: str, task: TaskOptions, bids_task: str) -> str:
    for pattern, replacement in task.rename.items():
        name = re.sub(pattern, replacement, name)
    return f"{bids_task} {name}" if task.prefix_task else name


def _found(events: pd.DataFrame) -> str:
    return ", ".join(str(name) for name in events.columns)


def _problem(events: pd.DataFrame, run_key: str, message: str, remedy: str) -> InputError:
    return InputError(Problem(events.attrs.get("path", "events"), run_key, message, remedy))


def _unreadable(path: Path, message: str) -> InputError:
    remedy = "correct the events table (columns onset, duration in seconds, tab-separated), or exclude the run"
    return InputError(Problem(str(path), "", message, remedy))
