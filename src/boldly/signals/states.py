"""The trials of a dataset in a few lines: how many of each state, what looks wrong, what was left out."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import median

from boldly.config import FEW_UNITS, TaskOptions
from boldly.records import Event
from boldly.signals.trials import resembling, spelled_alike
from boldly.words import listed, noun

# A state with no more than this share of what the others have (trials or people) is rare.
_RARE = 0.25
_MOST_NAMED = 5


@dataclass(frozen=True)
class State:
    """How often a state occurs.

    Attributes
    ----------
    name : str
        The state.
    n_trials, n_people : int
        Its trials, and people who have some.
    per_run, per_person, frames : tuple of int
        Fewest and most trials in a run and of a person, over all of the dataset; shortest and longest trial.
    is_rare : bool
        There is much less of it than of the other states.
    resembles : str
        Another state that it may be a misspelling of: of a rare one any that is near, of others one that differs
        in case, blanks, hyphens or underscores alone. Empty without one.
    """

    name: str
    n_trials: int
    n_people: int
    per_run: tuple[int, int]
    per_person: tuple[int, int]
    frames: tuple[int, int]
    is_rare: bool = False
    resembles: str = ""


def count_states(events: Iterable[Event]) -> list[State]:
    """Count the trials of each state, by name; runs and people without any trial do not count as such."""
    kept = [event for event in events if event.trial is not None]
    # Rows that were merged are one trial.
    trials = {(event.key, event.trial): event for event in kept}.values()
    runs, people = {trial.key for trial in trials}, {trial.subject for trial in trials}
    by_name: dict[str, list[Event]] = defaultdict(list)
    for trial in trials:
        by_name[trial.label].append(trial)
    states = [
        State(
            name=name,
            n_trials=len(found),
            n_people=len({trial.subject for trial in found}),
            per_run=_range(Counter(trial.key for trial in found), len(runs)),
            per_person=_range(Counter(trial.subject for trial in found), len(people)),
            frames=(min(trial.n_frames for trial in found), max(trial.n_frames for trial in found)),
        )
        for name, found in sorted(by_name.items())
    ]
    return _flagged(states)


def _range(counts: Counter[str], n_all: int) -> tuple[int, int]:
    return (min(counts.values()) if len(counts) == n_all else 0), max(counts.values())


def _flagged(states: Sequence[State]) -> list[State]:
    """Mark the states of which there is much less than of the others, and names that nearly are others."""
    rare = set()
    for state in states:
        others = [other for other in states if other is not state]
        if others and (
            state.n_trials <= _RARE * median(other.n_trials for other in others)
            or state.n_people <= _RARE * median(other.n_people for other in others)
        ):
            rare.add(state.name)
    common = [state.name for state in states if state.name not in rare]
    found = []
    for state in states:
        more = [other.name for other in states if other.n_trials > state.n_trials]
        near = resembling(state.name, common) if state.name in rare else spelled_alike(state.name, more)
        found.append(replace(state, is_rare=state.name in rare, resembles="".join(near[:1])))
    return found


def summary(
    dataset: str, events: Sequence[Event], task: TaskOptions | None, shortest_window: int = 2
) -> list[str]:
    """Return lines that tell what the trials of a dataset are.

    Parameters
    ----------
    dataset : str
        Name of the dataset.
    events : sequence of Event
        All its events.
    task : TaskOptions or None
        How they became trials; None for ready-made shards.
    shortest_window : int, default=2
        Shortest window of any pretraining, frames.

    Returns
    -------
    list of str
        A table of the states, then what was left out, what looks wrong, and what to do about it.
    """
    states = count_states(events)
    kept = {(event.key, event.trial): event for event in events if event.trial is not None}
    n_runs, n_people = len({key for key, _ in kept}), len({event.subject for event in kept.values()})
    people = f"{n_people} {noun(n_people, 'person', 'people')}"
    runs = f"{n_runs} {noun(n_runs, 'run')}"
    lines = [f"{dataset}: {len(kept)} trials of {len(states)} states, in {runs} of {people}"]
    lines += _table(states)
    lines += _left_out(events)
    if cut := [event for event in kept.values() if event.reason.startswith("cut")]:
        are, more = ("trials are", " and so on") if len(cut) > 1 else ("trial is", "")
        lines.append(f"  {len(cut)} {are} cut by the end of the run: {cut[0].key} at {cut[0].onset:g} s{more}")
    lines += _limits(list(kept.values()), n_people, task, shortest_window)
    if task is not None:
        lines += _advice(states, events, task)
    return lines


def _limits(trials: Sequence[Event], n_people: int, task: TaskOptions | None, shortest_window: int) -> list[str]:
    """Say what the trials are too short, and the people too few, for."""
    lines = []
    short = [trial for trial in trials if trial.n_frames < shortest_window]
    if short and not (task is not None and task.average):
        frames = sorted(trial.n_frames for trial in short)
        lines.append(
            f"  {len(short)} of {len(trials)} trials have {_span((frames[0], frames[-1]))} frames, fewer than the "
            f"shortest window that networks are pretrained on ({shortest_window}): they never saw so short a "
            f"piece; set pretrain.experiments.<name>.window_frames to [{max(frames[0], 2)}, ...]"
        )
    if n_people in FEW_UNITS:
        lines.append(
            f"  {n_people} people have trials: a 0.95 interval over {n_people} test people reaches "
            f"{FEW_UNITS[n_people]} standard errors to each side, so that it says next to nothing about others"
        )
    return lines


def _table(states: Sequence[State]) -> list[str]:
    width = max((len(state.name) for state in states), default=0)
    head = f"  {'state':<{width}}  trials  per run  per person  people  frames"
    rows = [
        f"  {state.name:<{width}}  {state.n_trials:>6}  {_span(state.per_run):>7}  {_span(state.per_person):>10}  "
        f"{state.n_people:>6}  {_span(state.frames):>6}{'  rare' if state.is_rare else ''}"
        for state in states
    ]
    return [head, *rows] if rows else []


def _span(values: tuple[int, int]) -> str:
    return str(values[0]) if values[0] == values[1] else f"{values[0]}-{values[1]}"


def _left_out(events: Sequence[Event]) -> list[str]:
    by_kind: dict[str, Counter[str]] = defaultdict(Counter)
    for event in events:
        if event.trial is None:
            by_kind[event.reason.partition(":")[0]][event.event or "n/a"] += 1
    lines = []
    for kind, names in sorted(by_kind.items(), key=lambda item: -item[1].total()):
        named = [f"{name} ({number})" for name, number in names.most_common()]
        are = "events are no trials" if names.total() > 1 else "event is no trial"
        lines.append(f"  {names.total()} {are}, {kind}: {listed(named, _MOST_NAMED)}")
    return lines


def _advice(states: Sequence[State], events: Sequence[Event], task: TaskOptions) -> list[str]:
    lines = []
    kinds = {event.reason.partition(":")[0] for event in events if event.trial is None}
    if kinds & {"no duration", "too few frames"} and task.window_s is None:
        lines.append("  brief events become trials with the task's window_s: [4, 10], or with average: true")
    for state in states:
        if state.is_rare or state.resembles:
            like = (
                f"; misspelt for '{state.resembles}'? Then map it with the task's rename"
                if state.resembles
                else ""
            )
            kind = "rare" if state.is_rare else "alike"
            trials = f"{state.n_trials} {noun(state.n_trials, 'trial')}"
            people = f"{state.n_people} {noun(state.n_people, 'person', 'people')}"
            lines.append(f"  {kind}: '{state.name}', {trials} of {people}{like}")
    if absent := sorted(set(task.labels or ()) - {state.name for state in states}):
        lines.append(f"  no trial of {', '.join(absent)}, which the task's labels name")
    if task.labels is None and states:
        common = json.dumps([state.name for state in states if not state.is_rare], ensure_ascii=False)
        lines.append(
            f"  the task has no labels, so each name is a state; to have others refused: labels: {common}"
        )
    if task.delay_s is None and task.window_s is None:
        lines.append(
            "  the task has no delay_s: frames are taken from the onset on, before the response has begun; 4 to "
            "6 s are usual, and delay_s: 0 says that none is meant"
        )
    return lines
