"""The events of all runs of a dataset, placed once: the trials, the labels, and what is wrong with the events."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence

import pandas as pd
from tqdm import tqdm

from boldly.config import TaskOptions
from boldly.records import Event, InputError, Problem
from boldly.signals import resampling
from boldly.signals.events import events_of_run
from boldly.signals.trials import RunEvents, place, problems_of
from boldly.stages.index.checks import Checked


def place_events(
    dataset: str, checked: Sequence[Checked], task: TaskOptions, t_r_s: float | None
) -> tuple[list[Checked], list[Event], list[str]]:
    """Make the trials of all runs.

    Parameters
    ----------
    dataset : str
        Name of the dataset.
    checked : sequence of Checked
        The runs.
    task : TaskOptions
        How events become trials.
    t_r_s : float, optional
        Repetition time that stage shard brings all runs to, s; default: each run's own.

    Returns
    -------
    runs : list of Checked
        With what is wrong with their events; those without a trial are excluded.
    events : list of Event
        All events of all runs whose events can be read, trials or not.
    labels : list of str
        Names of the states in label order: those of the task, or those of the usable runs' trials, by alphabet.
    """
    runs, events = [], []
    for item in tqdm(checked, desc=f"{dataset}: events", unit="run", disable=None):
        run, found = _of_run(item, task, t_r_s)
        runs.append(run)
        events += found
    labels = task.labels if task.labels is not None else sorted({e.label for e in events if e.status == "ok"})
    return runs, events, list(labels)


def _of_run(item: Checked, task: TaskOptions, t_r_s: float | None) -> tuple[Checked, list[Event]]:
    bids_task = item.files.found.get("task", "")
    if item.files.events is None and not task.is_rest(bids_task):
        return item, []
    try:
        run = _run_events(item, task, bids_task, t_r_s)
    except InputError as error:
        return _with(item, error.problems), []
    try:
        events = place(run, task)
    except InputError as error:
        item = _with(item, error.problems)
        return item, _unplaced(run, item, task)
    item = _with(item, problems_of(run, events, task))
    if not item.excluded and not item.problems and all(event.trial is None for event in events):
        item = dataclasses.replace(item, excluded=f"no trial ({_left_out(events)})")
    return item, [_of_unused_run(event, item) for event in events]


def _run_events(item: Checked, task: TaskOptions, bids_task: str, t_r_s: float | None) -> RunEvents:
    # Without a plausible t_r the states can still be checked.
    t_r = 1.0 if math.isnan(item.t_r) else item.t_r
    n_volumes = item.header.n_volumes if item.header is not None else 0
    key = item.files.key
    table = events_of_run(item.files.events, task, run_key=key, bids_task=bids_task, t_r=t_r, n_volumes=n_volumes)
    if t_r_s is not None and n_volumes:
        n_volumes, t_r = len(resampling.positions(n_volumes, t_r, t_r_s)), t_r_s
    return RunEvents(table, key, bids_task, t_r, n_volumes, item.start_time)


def _with(item: Checked, problems: Sequence[Problem]) -> Checked:
    """Return a run with more problems; an excluded one is not checked further."""
    if item.excluded:
        return item
    named = tuple(dataclasses.replace(problem, entity=item.files.key) for problem in problems)
    return dataclasses.replace(item, problems=(*item.problems, *named))


def _of_unused_run(event: Event, item: Checked) -> Event:
    """Say of the trials of a run that is not used that it is so, and of all its states if nothing placed them."""
    is_unplaced = item.header is None and event.label != ""
    if not (item.excluded or item.problems) or not (event.trial is not None or is_unplaced):
        return event
    return dataclasses.replace(event, trial=None, status="excluded", reason=_not_used(item))


def _not_used(item: Checked) -> str:
    return f"run is not used: {' '.join((item.excluded or item.problems[0].message).split())}"


def _unplaced(run: RunEvents, item: Checked, task: TaskOptions) -> list[Event]:
    """Return the events of a run that cannot be placed, each with the reason."""
    names = run.events.get(task.column, pd.Series("", run.events.index)).fillna("")
    rows = zip(names, run.events["onset"], run.events["duration"], strict=True)
    return [
        Event(
            key=run.run_key,
            subject=item.files.found.get("sub", ""),
            event=str(name),
            label="",
            onset=onset,
            duration=duration,
            trial=None,
            first=None,
            stop=None,
            n_frames=0,
            t_r=run.t_r,
            status="excluded",
            reason=_not_used(item),
        )
        for name, onset, duration in rows
    ]


def _left_out(events: Sequence[Event]) -> str:
    kinds = Counter(event.reason.partition(":")[0] for event in events)
    return ", ".join(f"{number} x {kind}" for kind, number in kinds.most_common()) or "no event"
