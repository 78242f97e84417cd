"""Events to trials: what becomes of each row of an events table, and which frames it gets."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import count, groupby

import pandas as pd

from boldly import bids
from boldly.config import TaskOptions
from boldly.records import Event, InputError, Problem, Status, Trial

# Share of a frame by which float rounding of seconds / t_r may miss a whole number.
_ROUNDING = 1e-6
_DECIMALS = 6


@dataclass(frozen=True)
class RunEvents:
    """The events of a run and what places them.

    Attributes
    ----------
    events : DataFrame
        From `boldly.signals.events.events_of_run`.
    run_key, bids_task : str
        Key and BIDS task of the run.
    t_r : float
        Repetition time, s.
    n_volumes : int
        Frames of the run.
    start_time : float, default=0
        Time of frame 0, s.
    """

    events: pd.DataFrame
    run_key: str
    bids_task: str
    t_r: float
    n_volumes: int
    start_time: float = 0.0


@dataclass
class _Block:
    """Rows that make one trial, the frames that lie in it, inside the run or not, and what becomes of it."""

    name: str
    onset: float
    end: float
    rows: list[int]
    first: int = 0
    stop: int = 0
    number: int | None = None
    status: Status = "ok"
    reason: str = ""

    @property
    def duration(self) -> float:
        return self.end - self.onset

    def inside(self, n_volumes: int) -> range:
        return range(max(self.first, 0), min(self.stop, n_volumes))


def place(run: RunEvents, task: TaskOptions) -> list[Event]:
    """Tell for each row of the events of a run which trial it becomes, with which frames, or why it becomes none.

    The steps: rows whose state is ``n/a`` or whose original name matches `task.drop` are left out; names change by
    `task.rename` and `task.prefix_task`, and take the upper and lower case of `task.labels`; with
    `task.merge_blocks` consecutive rows of one state become one trial from the first onset to the last end - a row
    that was left out between them ends the block, and the last block of a run is like any other; trials shorter
    than `task.minimum_s` are left out (by their duration in the table, also where the run ends before them).
    Blocks of rest (`task.rest`) are neither renamed nor merged. Frame i, at t = ``start_time + i * t_r``, belongs
    to a trial where ``onset + delay <= t < end + delay``, or with `task.window_s` where
    ``onset + begin <= t < onset + end``. Trials with fewer than `task.fewest_frames` frames inside the run are
    left out. What happens to trials of different states that share frames is said by `task.overlaps`.

    Parameters
    ----------
    run : RunEvents
        The events.
    task : TaskOptions
        How events become trials.

    Returns
    -------
    list of Event
        One for each row, in order of onset; the trials are numbered from 0. Rows of status "error" need a decision
        (`problems_of`).

    Raises
    ------
    InputError
        For a missing column, and for a state without a duration where the duration decides.
    """
    names = _names(run, task)
    blocks = _blocks(run, task, [name for name, _ in names])
    for block in blocks:
        _place(block, run, task)
    _mark_overlaps([block for block in blocks if block.status == "ok"], run.n_volumes, task)
    numbers = count()
    for block in blocks:
        block.number = next(numbers) if block.status == "ok" else None
    of_row = {row: block for block in blocks for row in block.rows}
    columns = (run.events[name].tolist() for name in (task.column, "onset", "duration"))
    subject = bids.entities(run.run_key).get("sub", "")
    return [
        _event(run, subject, row, of_row.get(number), names[number][1])
        for number, row in enumerate(zip(*columns, strict=True))
    ]


def problems_of(run: RunEvents, events: Sequence[Event], task: TaskOptions) -> list[Problem]:
    """Return what has to be decided about the events of a run: states outside the labels, trials that overlap."""
    problems = []
    unknown = sorted({event.label for event in events if event.reason.startswith("unknown")})
    if unknown:
        hints = [
            f"'{name}' resembles '{near}'" for name in unknown for near in resembling(name, task.labels or [])
        ]
        message = f"states outside the labels: {', '.join(unknown)} (labels: {', '.join(task.labels or [])})"
        remedy = "add them to the task's labels, or leave them out with drop, or map them with rename"
        problems.append(_problem(run, message, f"{remedy} ({'; '.join(hints)})" if hints else remedy))
    shared = [event for event in events if event.status == "error" and event.reason.startswith("overlap")]
    if shared:
        first = shared[0]
        message = (
            f"{len(shared)} events share frames with events of another state, the first: '{first.label}' at "
            f"{first.onset:g} s {first.reason.partition(': ')[2]}"
        )
        remedy = "leave one of the states out with the task's drop, or set the task's overlaps to drop or allow"
        problems.append(_problem(run, message, remedy))
    return problems


def resembling(name: str, others: Iterable[str]) -> list[str]:
    """Return the one of other names that a name may be a misspelling of; an empty list where there is none."""
    plain = {_plain(other): other for other in others if other != name}
    return [plain[near] for near in difflib.get_close_matches(_plain(name), plain, n=1, cutoff=0.75)]


def spelled_alike(name: str, others: Iterable[str]) -> list[str]:
    """Return the other names that differ from a name by case, blanks, hyphens or underscores alone."""
    return [other for other in others if other != name and _plain(other) == _plain(name)]


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]", "", name).casefold()


def trials_of(events: Iterable[Event], labels: Sequence[str]) -> list[Trial]:
    """Return the trials of a run from its events (`place`), with numbers for the states.

    Parameters
    ----------
    events : iterable of Event
        Events of one run, in order of onset.
    labels : sequence of str
        Names of the states in label order; all states of the trials are among them.

    Returns
    -------
    list of Trial
        In order of onset, numbered from 0.
    """
    numbers = {name: number for number, name in enumerate(labels)}
    kept = sorted((event for event in events if event.trial is not None), key=lambda event: event.trial or 0)
    return [_trial(list(rows), numbers) for _, rows in groupby(kept, key=lambda event: event.trial)]


def _trial(rows: Sequence[Event], numbers: dict[str, int]) -> Trial:
    first = rows[0]
    # The end of a block is that of its last row, unless an earlier one lasts longer.
    duration = max(row.onset + row.duration for row in rows) - first.onset if len(rows) > 1 else first.duration
    return Trial(
        run_key=first.key,
        number=first.trial or 0,
        onset=first.onset,
        duration=round(duration, _DECIMALS),
        label=numbers[first.label],
        label_name=first.label,
        first=first.first or 0,
        stop=first.stop or 0,
    )


def _place(block: _Block, run: RunEvents, task: TaskOptions) -> None:
    """Find the frames of a block, and why it is left out or cut."""
    begin, end = task.span_s(block.onset, block.duration)
    block.first = _first_frame(begin - run.start_time, run.t_r)
    block.stop = _first_frame(end - run.start_time, run.t_r)
    whole, inside, fewest = block.stop - block.first, len(block.inside(run.n_volumes)), task.fewest_frames
    block.status = "excluded"
    if block.duration == 0 and task.window_s is None:
        block.reason = "no duration: 0 s, so no frame; give window_s for brief events"
    elif block.duration < task.minimum_s - _ROUNDING:
        block.reason = f"too short: {block.duration:g} s, minimum_s is {task.minimum_s:g} s"
    elif whole < fewest:
        block.reason = f"too few frames: {whole} of at least {fewest}"
    elif not inside:
        end_s = run.start_time + run.n_volumes * run.t_r
        block.reason = f"outside the run: frames from {begin:g} to {end:g} s, the run lasts until {end_s:g} s"
    elif inside < fewest:
        block.reason = f"cut by the end of the run: {inside} of {whole} frames, at least {fewest} needed"
    elif task.labels is not None and block.name not in task.labels:
        block.status, block.reason = "error", "unknown: not among the labels"
    else:
        block.status = "ok"
        block.reason = f"cut by the end of the run: {inside} of {whole} frames" if inside < whole else ""


def _first_frame(seconds: float, t_r: float) -> int:
    """Return the first frame that is not earlier than `seconds`."""
    return math.ceil(seconds / t_r - _ROUNDING)


def _mark_overlaps(blocks: Sequence[_Block], n_volumes: int, task: TaskOptions) -> None:
    if task.overlaps == "allow":
        return
    found: dict[int, _Block] = {}
    current: list[_Block] = []
    for block in sorted(blocks, key=lambda block: block.first):
        inside = block.inside(n_volumes)
        current = [other for other in current if other.inside(n_volumes).stop > inside.start]
        for other in current:
            if other.name != block.name:
                found.setdefault(id(block), other)
                found.setdefault(id(other), block)
        current.append(block)
    for block in blocks:
        if partner := found.get(id(block)):
            block.status = "error" if task.overlaps == "error" else "excluded"
            block.reason = f"overlap: shares frames with '{partner.name}' at {partner.onset:g} s"


def _blocks(run: RunEvents, task: TaskOptions, names: Sequence[str | None]) -> list[_Block]:
    merge = task.merge_blocks and not task.is_rest(run.bids_task)
    blocks: list[_Block] = []
    previous: str | None = None
    rows = zip(names, run.events["onset"].tolist(), run.events["duration"].tolist(), strict=True)
    for row, (name, onset, duration) in enumerate(rows):
        if name is not None and math.isnan(duration) and (task.window_s is None or merge):
            raise InputError(
                _problem(
                    run,
                    f"the row of '{name}' at {onset:g} s has no duration",
                    "give it one in the events table, leave the state out with the task's drop, or take a window "
                    "after the onset with window_s",
                )
            )
        if name is not None and name == previous and merge:
            last = blocks[-1]
            last.end = max(last.end, onset + duration)
            last.rows.append(row)
        elif name is not None:
            blocks.append(_Block(name, onset, onset + duration, [row]))
        previous = name
    return blocks


def _names(run: RunEvents, task: TaskOptions) -> list[tuple[str | None, str]]:
    """Return the final name of the state of each row, or None and why the row is left out."""
    if task.column not in run.events:
        found = ", ".join(str(name) for name in run.events.columns)
        message = f"the events table has no column '{task.column}' (found: {found})"
        raise InputError(_problem(run, message, "name the column of the states in the task's column"))
    names = run.events[task.column].astype("object")
    if task.is_rest(run.bids_task):
        return [(str(name), "") for name in names]
    # A state stands in many rows.
    known = {name: _name(name, task, run.bids_task) for name in set(names[names.notna()])}
    return [known.get(name, (None, "no state: n/a")) for name in names]


def _name(name: object, task: TaskOptions, bids_task: str) -> tuple[str | None, str]:
    if not isinstance(name, str):
        return None, "no state: not text"
    name = name.strip()
    if name in ("", "n/a"):
        return None, "no state: n/a"
    if pattern := next((pattern for pattern in task.drop if re.search(pattern, name)), None):
        return None, f"dropped: matches '{pattern}'"
    return _renamed(name, task, bids_task), ""


def _renamed(name: str, task: TaskOptions, bids_task: str) -> str:
    for pattern, replacement in task.rename.items():
        name = re.sub(pattern, replacement, name)
    name = f"{bids_task} {name}" if task.prefix_task else name
    labels = task.labels or []
    return name if name in labels else next((label for label in labels if label.lower() == name.lower()), name)


def _event(
    run: RunEvents, subject: str, row: tuple[object, float, float], block: _Block | None, reason: str
) -> Event:
    original, onset, duration = row
    inside = block.inside(run.n_volumes) if block is not None else range(0)
    return Event(
        key=run.run_key,
        subject=subject,
        event=original if isinstance(original, str) else "",
        label=block.name if block is not None else "",
        onset=round(onset, _DECIMALS),
        duration=round(duration, _DECIMALS),
        trial=block.number if block is not None else None,
        first=inside.start if len(inside) else None,
        stop=inside.stop if len(inside) else None,
        n_frames=len(inside),
        t_r=run.t_r,
        status=block.status if block is not None else "excluded",
        reason=block.reason if block is not None else reason,
    )


def _problem(run: RunEvents, message: str, remedy: str) -> Problem:
    return Problem(run.events.attrs.get("path", "events"), run.run_key, message, remedy)
