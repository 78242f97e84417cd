"""The labelled trials that a fit was trained with, and whether a config makes the same ones of the events."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from boldly import layout
from boldly.bids import entities
from boldly.config import Config, TaskOptions
from boldly.decoding.folder import Training
from boldly.decoding.picking import Picked
from boldly.decoding.preparation import events_of, frames_of
from boldly.provenance import file_sha256
from boldly.records import Event, InputError, Problem, Run, Trial, read_runs, read_trials
from boldly.samples.sample import run_fingerprint
from boldly.samples.shards import read_shard, subject_shards
from boldly.signals.trials import RunEvents, place, trials_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Labelled:
    """What the shards say of the runs that trained or validated a fit.

    Attributes
    ----------
    units : frozenset of str
        Labels of its people, or keys of its runs.
    fingerprints : frozenset of str
        Of the runs (`boldly.samples.sample.run_fingerprint`).
    trials : mapping of str to list
        What stands in the JSON of each trial, by run (`boldly.samples.sample.Sample`); empty without shards.
    """

    units: frozenset[str]
    fingerprints: frozenset[str]
    trials: Mapping[str, list[dict[str, Any]]]


def read_labelled(picked: Picked, shards: Path, training: Training) -> Labelled:
    """Read the shards of the runs that trained or validated a fit.

    Parameters
    ----------
    picked : Picked
        The fit.
    shards : Path
        Folder of the shards of its dataset; one that is not there is a warning.
    training : Training
        Its units.

    Raises
    ------
    InputError
        With every shard that is no longer the one that the fit was trained with.
    """
    units = frozenset([*training.train, *training.validation])
    subjects = {entities(unit)["sub"] for unit in units} if training.by == "run" else units
    # Manifests of earlier versions may lack the checksums.
    known = picked.manifest.get("trials", {})
    fingerprints: set[str] = set()
    trials: dict[str, list[dict[str, Any]]] = defaultdict(list)
    problems = []
    for path in (path for name in sorted(subjects) for path in subject_shards(shards, picked.dataset, name)):
        if not path.exists():
            logger.warning("%s is not there: that its runs are decoded again will not be noticed", path)
            continue
        if known.get(path.name, sha256 := file_sha256(path)) != sha256:
            message = "these are not the trials that the decoder was trained with: they were written anew since"
            remedy = "rerun adapt for this experiment (snakemake does so), or give the shards of that time"
            problems.append(Problem(str(path), picked.dataset, message, remedy))
            continue
        for sample in read_shard(path):
            if {sample.meta["subject"], sample.meta["run_key"]} & units:
                trials[sample.meta["run_key"]].append(sample.meta)
                fingerprints |= {found} if (found := run_fingerprint(sample)) else set()
    if problems:
        raise InputError(problems)
    return Labelled(units, frozenset(fingerprints), dict(trials))


def check_task(picked: Picked, study: Config, labelled: Labelled) -> None:
    """Refuse a config whose task makes other trials of the events than those that a fit was trained with.

    No result says with which options trials were cut, but they hold what came of them: the events are placed once
    more with the options of the config, and the trials compared. An option that changes no trial of the training
    is not noticed, nor one that only makes rarer what scrubbing took.

    Parameters
    ----------
    picked : Picked
        The fit.
    study : Config
        The config; its dataset is made from images.
    labelled : Labelled
        The trials of the training. Without shards the table of index tells them.

    Raises
    ------
    InputError
        With the first run that differs, and the number of those that do.
    """
    task, t_r_s = study.datasets[picked.dataset].task, study.shard.t_r_s
    if not isinstance(task, TaskOptions):
        message = "has no task for this dataset, which the decoder was trained to decode"
        raise InputError(
            Problem("the config", picked.dataset, message, "give the config of that time with --config")
        )
    events: dict[str, list[Event]] = defaultdict(list)
    for event in read_trials(picked.result(layout.TRIALS)):
        if {event.subject, event.key} & labelled.units:
            events[event.key].append(event)
    records = {record.key: record for record in read_runs(picked.result(layout.RUNS), usable=True)}
    trained = labelled.trials or {key: _from_table(rows) for key, rows in events.items()}
    trained = {key: trials for key, trials in trained.items() if key in records and trials}
    differences = {}
    for key, trials in trained.items():
        try:
            run = _events(records[key], picked.root, task, t_r_s, events[key])
            difference = _difference(trials, _trials(place(run, task)), task)
        except InputError as error:
            difference = error.problems[0].message
        if difference:
            differences[key] = difference
    if not trained:
        logger.warning("no trial of the training is left: that the config has its task is not known")
    if differences:
        key, first = next(iter(differences.items()))
        message = (
            f"its task makes other trials than those that the decoder was trained with, in {len(differences)} of "
            f"{len(trained)} runs, the first: {key}, {first}"
        )
        remedy = "give the config of that time with --config; if the events were corrected since, rerun the study"
        raise InputError(Problem("the config", picked.dataset, message, remedy))


def _events(record: Run, root: Path, task: TaskOptions, t_r_s: float | None, known: Iterable[Event]) -> RunEvents:
    """Return the events of a run: those of its file, or where that is out of reach those that index read."""
    path = root / record.events
    if task.is_rest(record.task) or (record.events and path.exists()):
        return events_of(replace(record, events=str(path)), task, t_r_s)
    rows = [(event.event or None, event.onset, event.duration) for event in known]
    n_volumes, t_r = frames_of(record, t_r_s)
    table = pd.DataFrame(rows, columns=[task.column, "onset", "duration"])
    return RunEvents(table, record.key, record.task, t_r, n_volumes, record.start_time)


def _trials(events: Iterable[Event]) -> list[Trial]:
    rows = list(events)
    return trials_of(rows, sorted({event.label for event in rows}))


def _from_table(events: Iterable[Event]) -> list[dict[str, Any]]:
    """Return the trials of a run from the table of index, as far as a shard would tell them."""
    trials = _trials(events)
    return [
        {
            "number": trial.number,
            "count": len(trials),
            "first": trial.first,
            "stop": trial.stop,
            "label_name": trial.label_name,
        }
        for trial in trials
    ]


def _difference(trained: Iterable[Mapping[str, Any]], trials: list[Trial], task: TaskOptions) -> str:
    """Say in what trials of the training differ from those that the task makes of their run; empty: in nothing."""
    now = {trial.number: trial for trial in trials}
    for one in trained:
        if (count := one.get("count", len(trials))) != len(trials):
            return f"{len(trials)} trials where training had {count}"
        trial = now.get(one["number"])
        if trial is None:
            return f"no trial {one['number']}, which training had"
        then = replace(
            trial,
            first=one.get("first", trial.first),
            stop=one.get("stop", trial.stop),
            label_name=one.get("label_name", trial.label_name),
        )
        if trial != then:
            return f"trial {trial.number}: {_in_words(trial)}, in training {_in_words(then)}"
        # Only a shard tells what became of the frames.
        n_frames = one.get("averaged", one.get("n_volumes"))
        if n_frames is None:
            continue
        if ("averaged" in one) != task.average:
            now_and_then = (task.average, "averaged" in one)
            return "average: {}, in training {}".format(*(str(value).lower() for value in now_and_then))
        if n_frames < task.fewest_frames:
            return f"trial {trial.number}: {n_frames} frames, fewer than the {task.fewest_frames} of the task"
    return ""


def _in_words(trial: Trial) -> str:
    return f"'{trial.label_name}' of frames {trial.first} to {trial.stop - 1}"
