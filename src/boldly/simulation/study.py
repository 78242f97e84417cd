"""The plan of the demo study: its datasets, subjects, runs, and what happens in each run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from boldly.simulation import states
from boldly.simulation.artefacts import Scan, draw_scan
from boldly.simulation.networks import draw_background, draw_parcel_noise, draw_subject
from boldly.simulation.states import CUE, Segment, draw_weights, task_response

# events: a study of its own, of brief events.
Size = Literal["demo", "tiny", "events"]

# Durations of trials (s), equally frequent in each run and independent of the state.
TRIAL_DURATIONS_S = (16.0, 18.0, 20.0, 22.0)
_CUE_WEIGHTS = (1.0, 0.0, 0.0)
# The response to the last trial is over this long after its end.
_AFTER_LAST_S = 14.0
_SHORT_RUN_VOLUMES = 8
_HIGH_MOTION_SCALE = 7.0
# A brief event drives the networks for so long, and so much stronger than a state that lasts, that its response
# peaks about as high.
BRIEF_S = 0.5
_BRIEF_GAIN = 10.0


@dataclass(frozen=True)
class Event:
    """A row of an events table: seconds, seconds, and the name of what happens."""

    onset: float
    duration: float
    name: str


@dataclass(frozen=True)
class RunPlan:
    """A run before it is scanned.

    Attributes
    ----------
    session, task, direction, run : str
        BIDS entities as spelled; empty where the run has none.
    n_volumes : int
        Frames.
    segments : tuple of Segment
        What drives the networks.
    events : tuple of Event
        What the events table says; empty where there is none.
    motion_scale : float
        How much the subject moves.
    """

    session: str
    task: str
    direction: str
    run: str
    n_volumes: int
    segments: tuple[Segment, ...]
    events: tuple[Event, ...] = ()
    motion_scale: float = 1.0


@dataclass(frozen=True)
class DatasetPlan:
    """A dataset of the study.

    Attributes
    ----------
    name : str
        Folder and name.
    about : str
        A sentence for its description.
    t_r : float
        Repetition time, s.
    dtype : {"int16", "float32"}
        Numbers in its images.
    subjects : dict of Size to int
        How many.
    runs : callable
        ``runs(rng, shared, size)`` yields the runs of one subject; `shared` is the same for all subjects.
    states : dict of str to str
        The name of each labelled state and its process in `states.library`; empty upstream.
    event_column : str
        Column of the events table that names what happens; empty upstream.
    start_time : float
        Moment of a volume to which all its slices were brought, s after its onset; 0: no slice timing correction.
    family_size : int
        Subjects of a family, who stand one after another; 0: nobody is related.
    """

    name: str
    about: str
    t_r: float
    dtype: Literal["int16", "float32"]
    subjects: dict[Size, int]
    runs: Callable[[np.random.Generator, np.random.Generator, Size], Iterator[RunPlan]]
    states: dict[str, str]
    event_column: str = ""
    start_time: float = 0.0
    family_size: int = 0


# The two states of a task have opposite patterns: the mean of a run, which standardisation takes away, is near
# zero and says nothing about the task.
HCP_TASKS = {
    "MOTOR": {"lh": "p1a", "rh": "p2a"},
    "WM": {"faces": "p1b", "places": "p2b"},
    "LANGUAGE": {"math": "s1", "story": "s2"},
    "EMOTION": {"fear": "s3", "neut": "s4"},
}
# The working-memory task names its trials by load and category; the state is the category's.
_WM_LOADS = ("0bk", "2bk")
MDTB_TASKS = {
    "actionObservation": "p1a",
    "emotionProcess": "s1",
    "mentalRotation": "p2a",
    "motorSequence": "p3a",
    "nBack": "p1b",
    "spatialMap": "p2b",
    "stroop": "s2",
    "theoryOfMind": "s5",
    "verbGeneration": "p3b",
    "visualSearch": "s6",
}
EVENT_STATES = {"animal": "s1", "tool": "s3", "scene": "s6"}
# In the second session these tasks carry a trailing "2", as in MDTB, and are the same.
_MDTB_RENAMED = ("actionObservation", "motorSequence", "spatialMap", "theoryOfMind")
_ALL_STATES = tuple(name for name in states.library() if name != CUE)


def plan_subject(dataset: DatasetPlan, subject: int, size: Size, seed: int) -> list[RunPlan]:
    """Return the runs of a subject.

    One run of `demo01` is too short, and in one of `demo02` the subject moves far too much, both of the third
    subject, so that exclusion by rule has something to exclude.

    Parameters
    ----------
    dataset : DatasetPlan
        The dataset.
    subject : int
        Number of the subject, from 1.
    size : {"demo", "tiny", "events"}
        Size of the study.
    seed : int
        Seed of the study.
    """
    number = _ALL.index(dataset)
    own = np.random.default_rng([seed, number, subject, 0])
    shared = np.random.default_rng([seed, number])
    runs = list(dataset.runs(own, shared, size))
    if subject == 3 and dataset.name == "demo01":
        runs[-1] = replace(runs[-1], n_volumes=_SHORT_RUN_VOLUMES)
    if subject == 3 and dataset.name == "demo02":
        runs[-1] = replace(runs[-1], motion_scale=_HIGH_MOTION_SCALE)
    return runs


def scan_run(dataset: DatasetPlan, subject: int, number: int, run: RunPlan, seed: int) -> Scan:
    """Draw the image of a run.

    Parameters
    ----------
    dataset : DatasetPlan
        The dataset.
    subject, number : int
        Numbers of the subject, from 1, and of its run, from 0.
    run : RunPlan
        One of `plan_subject`.
    seed : int
        Seed of the study.
    """
    who = draw_subject(np.random.default_rng([seed, _ALL.index(dataset), subject, 1]))
    rng = np.random.default_rng([seed, _ALL.index(dataset), subject, 2, number])
    times = dataset.start_time + np.arange(run.n_volumes) * dataset.t_r
    networks = task_response(run.segments, times, who.response_lag_s)
    networks += draw_background(rng, run.n_volumes, dataset.t_r)
    parcels = networks @ who.mixing.T + draw_parcel_noise(rng, run.n_volumes, dataset.t_r)
    return draw_scan(rng, parcels, dataset.t_r, run.motion_scale)


def _rest_runs(rng: np.random.Generator, shared: np.random.Generator, size: Size) -> Iterator[RunPlan]:
    """Plan rest: states come and go unasked, with long breaks in which there is only the background."""
    n_volumes = 200 if size == "demo" else 70
    for run in ("1", "2"):
        segments = _draw_segments(rng, n_volumes * 2.0, (4.0, 8.0, 12.0, 16.0))
        yield RunPlan("", "rest", "", run, n_volumes, segments)


def _puzzle_runs(rng: np.random.Generator, shared: np.random.Generator, size: Size) -> Iterator[RunPlan]:
    """Plan a task: subjects pass through the states in an order of their own, with breaks."""
    n_volumes = 220 if size == "demo" else 80
    for session in ("1", "2"):
        segments = _draw_segments(rng, n_volumes * 1.5, (4.0, 6.0, 8.0))
        yield RunPlan(session, "puzzle", "", "", n_volumes, segments)


def _movie_runs(rng: np.random.Generator, shared: np.random.Generator, size: Size) -> Iterator[RunPlan]:
    """Plan a movie: all subjects pass through the same states at the same times, without breaks."""
    n_volumes = 300 if size == "demo" else 100
    for run in ("01", "02"):
        scenes = _draw_segments(shared, n_volumes * 0.8, (0.0,))
        segments = tuple(replace(scene, weights=draw_weights(rng)) for scene in scenes)
        yield RunPlan("", "movie", "", run, n_volumes, segments)


def _hcp_runs(rng: np.random.Generator, shared: np.random.Generator, size: Size) -> Iterator[RunPlan]:
    """Plan four tasks of two states, a run each: a cue, a trial, a break, and again."""
    repeats = 4 if size == "demo" else 1
    for task, processes in HCP_TASKS.items():
        order = rng.permutation(np.repeat(list(processes), repeats))
        durations = rng.permutation(np.resize(TRIAL_DURATIONS_S, len(order)))
        breaks = rng.permutation(np.resize([8.0, 10.0], len(order)))
        onset, segments, events = 6.0, list[Segment](), list[Event]()
        loads = dict.fromkeys(processes, 0)
        for state, duration, pause in zip(order, durations, breaks, strict=True):
            segments.append(Segment(onset, 3.0, CUE, _CUE_WEIGHTS))
            events.append(Event(onset, 3.0, "cue"))
            onset += 3.0
            name = f"{_WM_LOADS[loads[state] % 2]}_{state}" if task == "WM" else str(state)
            loads[state] += 1
            segments.append(Segment(onset, float(duration), processes[state], draw_weights(rng)))
            events.append(Event(onset, float(duration), name))
            onset += float(duration + pause)
        n_volumes = int(np.ceil((onset + _AFTER_LAST_S) / 0.72))
        yield RunPlan("", task, "LR", "", n_volumes, tuple(segments), tuple(events))


def _mdtb_runs(rng: np.random.Generator, shared: np.random.Generator, size: Size) -> Iterator[RunPlan]:
    """Plan ten tasks in each run, each once: an instruction and a block of several trials."""
    for session in ("1", "2"):
        for run in ("1", "2") if size == "demo" else ("1",):
            order = rng.permutation(list(MDTB_TASKS))
            durations = rng.permutation(np.resize(TRIAL_DURATIONS_S, len(order)))
            onset, segments, events = 5.0, list[Segment](), list[Event]()
            for task, duration in zip(order, durations, strict=True):
                segments.append(Segment(onset, 5.0, CUE, _CUE_WEIGHTS))
                events.append(Event(onset, 5.0, "instruct"))
                onset += 5.0
                name = f"{task}2" if session == "2" and task in _MDTB_RENAMED else str(task)
                segments.append(Segment(onset, float(duration), MDTB_TASKS[task], draw_weights(rng)))
                n_rows = int(rng.choice([2, 4]))
                part = float(duration) / n_rows
                events += [Event(onset + part * row, part, name) for row in range(n_rows)]
                onset += float(duration)
            n_volumes = int(np.ceil(onset + _AFTER_LAST_S))
            yield RunPlan(session, "battery", "", run, n_volumes, tuple(segments), tuple(events))


def _event_runs(rng: np.random.Generator, shared: np.random.Generator, size: Size) -> Iterator[RunPlan]:
    """Plan brief events of three states at uneven intervals, most of them followed by the press of a button."""
    for run in ("1", "2"):
        order = rng.permutation(np.repeat(list(EVENT_STATES), 8))
        onset, segments, events = 6.0, list[Segment](), list[Event]()
        for state in order:
            strength = float(rng.normal(_BRIEF_GAIN, 0.2 * _BRIEF_GAIN))
            segments.append(Segment(onset, BRIEF_S, EVENT_STATES[state], (strength, 0.0, 0.0)))
            events.append(Event(onset, BRIEF_S, str(state)))
            if rng.random() < 0.8:
                events.append(Event(round(onset + float(rng.uniform(0.4, 1.2)), 3), 0.0, "press"))
            onset += round(float(rng.uniform(7.0, 13.0)), 3)
        n_volumes = int(np.ceil((onset + _AFTER_LAST_S) / 1.5))
        yield RunPlan("", "brief", "", run, n_volumes, tuple(segments), tuple(events))


def _draw_segments(rng: np.random.Generator, length_s: float, breaks_s: tuple[float, ...]) -> tuple[Segment, ...]:
    """Draw states one after another, with breaks before each, until the run is over."""
    segments: list[Segment] = []
    onset = float(rng.choice(breaks_s))
    while onset < length_s:
        duration = float(rng.choice(TRIAL_DURATIONS_S))
        segments.append(Segment(onset, duration, str(rng.choice(_ALL_STATES)), draw_weights(rng)))
        onset += duration + float(rng.choice(breaks_s))
    return tuple(segments)


def _labelled(tasks: dict[str, dict[str, str]]) -> dict[str, str]:
    return {f"{task} {state}": process for task, named in tasks.items() for state, process in named.items()}


DATASETS: Sequence[DatasetPlan] = (
    DatasetPlan(
        "demo01",
        "rest; states come and go unasked, no events",
        2.0,
        "float32",
        {"demo": 24, "tiny": 4},
        _rest_runs,
        {},
    ),
    DatasetPlan(
        "demo02",
        "a task in two sessions; states in an order of the subject's own, no events",
        1.5,
        "int16",
        {"demo": 20, "tiny": 4},
        _puzzle_runs,
        {},
    ),
    DatasetPlan(
        "demo03",
        "a movie; the same states at the same times in all subjects, no events",
        0.8,
        "int16",
        {"demo": 16, "tiny": 4},
        _movie_runs,
        {},
    ),
    DatasetPlan(
        "demohcp",
        "four tasks of two states; events as in the Human Connectome Project",
        0.72,
        "int16",
        {"demo": 16, "tiny": 6},
        _hcp_runs,
        _labelled(HCP_TASKS),
        "trial_type",
    ),
    DatasetPlan(
        "demomdtb",
        "ten tasks in every run; events as in the multi-domain task battery",
        1.0,
        "int16",
        {"demo": 16, "tiny": 6},
        _mdtb_runs,
        MDTB_TASKS,
        "taskName",
    ),
)

EVENT_RELATED = DatasetPlan(
    "demoevents",
    "brief events at uneven intervals; slice timing corrected; families of two",
    1.5,
    "int16",
    {"events": 12},
    _event_runs,
    EVENT_STATES,
    "trial_type",
    start_time=0.75,
    family_size=2,
)
_ALL = (*DATASETS, EVENT_RELATED)


def datasets(size: Size) -> Sequence[DatasetPlan]:
    """Return the datasets of a study."""
    return (EVENT_RELATED,) if size == "events" else DATASETS
