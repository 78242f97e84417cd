"""Stage index: which runs a dataset has, what they are, and everything that is wrong with them."""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from boldly import bids
from boldly.config import AtlasOptions, DatasetOptions, IndexOptions, PreprocessOptions, TaskOptions
from boldly.files import atomic_path, write_json, write_tsv
from boldly.records import InputError, Problem, Run, write_runs
from boldly.signals import trials
from boldly.stages.index.checks import Checked, check_atlas, check_run
from boldly.stages.index.choice import choose
from boldly.stages.index.ready import survey_remote, survey_shards
from boldly.stages.index.survey import RunFiles, survey
from boldly.stages.index.survey_hcp import survey_hcp
from boldly.stages.index.times import RepetitionTimes

_LOG = logging.getLogger(__name__)
# For checks of a slow file system; they are used when the first checks last so many times their processor time.
_THREADS = 8
_WAITING = 3
_FIRST = 32


def run(
    *,
    dataset: str,
    dataset_options: DatasetOptions,
    options: IndexOptions,
    preprocess: PreprocessOptions,
    window_frames: int,
    atlas: AtlasOptions | None,
    runs: Path,
    labels: Path,
) -> None:
    """Write the run table of a dataset and the names of its states.

    Parameters
    ----------
    dataset : str
        Name of the dataset.
    dataset_options : DatasetOptions
        Where it is and what is used of it.
    options : IndexOptions
        What happens to defective runs.
    preprocess : PreprocessOptions
        The columns that confounds tables must have.
    window_frames : int
        Shortest window that an experiment uses, frames; shorter runs are excluded.
    atlas : AtlasOptions, optional
        The parcels, which must overlap with the images; None for ready-made shards.
    runs : Path
        Output, a run table (`boldly.records.read_runs`). ``<dataset>_problems.tsv`` beside it holds what is wrong.
    labels : Path
        Output, ``{"labels": [names in label order]}``; an empty list for upstream.

    Raises
    ------
    InputError
        With every problem of the dataset: of the dataset as a whole in any case, of single runs unless
        `options.on_error` is "exclude"; and when not one run is usable.
    """
    fewest = max(window_frames, options.minimum_volumes)
    problems_path = runs.with_name(f"{dataset}_problems.tsv")
    try:
        if dataset_options.shards is not None:
            ready = survey_remote if dataset_options.is_remote else survey_shards
            rows, names, problems = ready(dataset, dataset_options, fewest)
            own: list[Problem] = []
        elif atlas is None:
            message, remedy = "its signals are read from images, and there is no atlas", "give atlas in the config"
            raise InputError(Problem(str(dataset_options.derivatives), dataset, message, remedy))
        else:
            rows, names, problems, own = _index_images(dataset, dataset_options, preprocess, atlas, fewest)
    except InputError as error:
        _write_problems(problems_path, error.problems)
        raise
    _write_problems(problems_path, [*problems, *own])
    stopping = problems if options.on_error == "exclude" else [*problems, *own]
    if not stopping and not any(row.status == "ok" for row in rows):
        stopping = [_nothing_left(dataset, rows, runs), *own]
        _write_problems(problems_path, stopping)
    if stopping:
        raise InputError(stopping)
    _summarize(dataset, rows)
    # Both or none: half a result would look like a whole one.
    with atomic_path(runs) as first, atomic_path(labels) as second:
        write_runs(first, rows)
        write_json(second, {"labels": names})


def _index_images(
    dataset: str, options: DatasetOptions, preprocess: PreprocessOptions, atlas: AtlasOptions, fewest: int
) -> tuple[list[Run], list[str], list[Problem], list[Problem]]:
    """Return rows, label names, problems of the dataset and problems of its runs."""
    if options.layout == "hcp":
        files, problems = survey_hcp(dataset, options)
    else:
        files, problems = survey(dataset, options, aroma=preprocess.takes_aroma_images)
    files, excluded, wrong = choose(dataset, options, files)
    problems += wrong
    roots = [Path(root) for root in (options.derivatives, options.bids) if root is not None]
    check = partial(
        check_run,
        times=RepetitionTimes(roots),
        preprocess=preprocess,
        fewest_volumes=fewest,
        needs_mask=options.without_mask == "error",
        excluded=excluded,
    )
    found = tqdm(_check_all(check, files), desc=f"{dataset}: runs", total=len(files), unit="run", disable=None)
    checked = list(found)
    try:
        outside = check_atlas(atlas, [item for item in checked if not item.excluded])
    except InputError as error:
        problems, outside = problems + error.problems, {}
    checked = [_with(item, outside.get(item.files.key)) for item in checked]
    names: list[str] = []
    if options.role == "downstream" and isinstance(options.task, TaskOptions):
        checked, names = _check_events(dataset, checked, options.task)
    rows = [_row(dataset, options, item) for item in checked]
    return rows, names, problems, [problem for item in checked for problem in item.problems]


def _check_all(check: Callable[[RunFiles], Checked], files: Sequence[RunFiles]) -> Iterator[Checked]:
    """Yield the checked runs in order; with threads where the first of them wait for the file system.

    On a quick one threads would only wait for each other.
    """
    wall, busy = time.monotonic(), time.process_time()
    yield from map(check, files[:_FIRST])
    if time.monotonic() - wall < _WAITING * (time.process_time() - busy):
        yield from map(check, files[_FIRST:])
        return
    with ThreadPoolExecutor(_THREADS) as pool:
        yield from pool.map(check, files[_FIRST:])


def _with(item: Checked, problem: Problem | None) -> Checked:
    return item if problem is None else dataclasses.replace(item, problems=(*item.problems, problem))


def _check_events(dataset: str, checked: Sequence[Checked], task: TaskOptions) -> tuple[list[Checked], list[str]]:
    """Make the trials of all runs once, to find the labels and what is wrong with the events."""
    result, names, loaded = [], set(), {}
    for item in tqdm(checked, desc=f"{dataset}: events", unit="run", disable=None):
        key = item.files.key
        bids_task = item.files.found.get("task", "")
        has_events = item.files.events is not None or task.is_rest(bids_task)
        if has_events and item.header is not None and not item.excluded:
            # Without a plausible t_r the states still can be checked.
            t_r = 1.0 if math.isnan(item.t_r) else item.t_r
            known: dict[str, Any] = {"t_r": t_r, "n_volumes": item.header.n_volumes}
            try:
                table = trials.events_of_run(item.files.events, task, run_key=key, bids_task=bids_task, **known)
                loaded[key] = trials.RunEvents(table, key, bids_task, **known)
                found = trials.states([loaded[key]], task)
                names |= set() if item.problems else found
            except InputError as error:
                loaded.pop(key, None)
                wrong = tuple(dataclasses.replace(problem, entity=key) for problem in error.problems)
                item = dataclasses.replace(item, problems=(*item.problems, *wrong))
        result.append(item)
    labels = list(task.labels) if task.labels is not None else sorted(names)
    if absent := [name for name in labels if name not in names]:
        _LOG.warning("%s: no trial of %s", dataset, ", ".join(absent))
    return [_with_trials(item, loaded.get(item.files.key), task, labels) for item in result], labels


def _with_trials(item: Checked, run: trials.RunEvents | None, task: TaskOptions, labels: Sequence[str]) -> Checked:
    if run is None or (item.problems and task.labels is None):
        return item
    try:
        found = trials.trials_of_run(
            run.events,
            task,
            run_key=run.run_key,
            bids_task=run.bids_task,
            labels=labels,
            t_r=run.t_r,
            n_volumes=run.n_volumes,
        )
    except InputError as error:
        return dataclasses.replace(item, problems=(*item.problems, *error.problems))
    if not found and not item.problems:
        return dataclasses.replace(item, excluded="no trial of two frames or more")
    return item


def _row(dataset: str, options: DatasetOptions, item: Checked) -> Run:
    files = item.files
    reason = item.excluded or "; ".join(problem.message for problem in item.problems)
    return Run(
        dataset=dataset,
        **{name: files.found.get(short, "") for name, short in bids.RUN_ENTITIES.items()},
        space=options.space,
        key=files.key,
        **{
            role: "" if path is None else str(path)
            for role, path in (
                ("bold", files.image),
                ("mask", files.mask),
                ("confounds", files.confounds),
                ("events", files.events),
            )
        },
        t_r=item.t_r,
        n_volumes=item.header.n_volumes if item.header else 0,
        status="excluded" if item.excluded else "error" if item.problems else "ok",
        reason=" ".join(reason.split()),
    )


def _nothing_left(dataset: str, rows: Sequence[Run], runs: Path) -> Problem:
    reasons = Counter(row.reason for row in rows).most_common(3)
    words = "; ".join(f"{count} x {reason}" for reason, count in reasons) or "no sample in any shard"
    return Problem(
        str(runs),
        dataset,
        f"not one of {len(rows)} runs is usable: {words}",
        "see the reasons, and correct the config",
    )


def _write_problems(path: Path, problems: Sequence[Problem]) -> None:
    """Write the table of problems; without problems, remove that of an earlier attempt."""
    if not problems:
        path.unlink(missing_ok=True)
        return
    rows = [dataclasses.astuple(problem) for problem in problems]
    write_tsv(path, pd.DataFrame(rows, columns=["file", "entity", "message", "way_out"]))


def _summarize(dataset: str, rows: Sequence[Run]) -> None:
    counts = Counter(row.status for row in rows)
    subjects = len({row.subject for row in rows if row.status == "ok"})
    left_out = "".join(f", {counts[status]} {status}" for status in ("excluded", "error") if counts[status])
    _LOG.info("%s: %d runs of %d subjects%s", dataset, counts["ok"], subjects, left_out)
    bare = [row.key for row in rows if row.status == "ok" and row.bold and not row.mask]
    if bare:
        message = "%s: no brain mask beside the images of %d runs, the first %s: the whole image counts as brain"
        _LOG.warning(message, dataset, len(bare), bare[0])
