"""Stage index: which runs a dataset has, what they are, and everything that is wrong with them."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from tqdm import tqdm

from boldly import bids
from boldly.config import AtlasOptions, DatasetOptions, IndexOptions, PreprocessOptions, TaskOptions
from boldly.files import atomic_path, write_json
from boldly.records import Event, InputError, Problem, Run, write_problems, write_runs, write_trials
from boldly.signals.states import summary
from boldly.stages.index.checks import Checked, check_atlas, check_run
from boldly.stages.index.choice import choose, too_few_units
from boldly.stages.index.events import place_events
from boldly.stages.index.ready import survey_remote, survey_shards
from boldly.stages.index.survey import RunFiles, check_variants, survey
from boldly.stages.index.survey_hcp import survey_hcp
from boldly.stages.index.times import Times
from boldly.words import noun

_LOG = logging.getLogger(__name__)
# For checks of a slow file system; they are used when the first checks last so many times their processor time.
_THREADS = 8
_WAITING = 3
_FIRST = 32
_MOST_REASONS = 3


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
    trials: Path | None = None,
    t_r_s: float | None = None,
) -> str:
    """Write the run table of a dataset, the table of its trials and the names of its states.

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
    trials : Path, optional
        Output, what became of each event (`boldly.records.read_trials`); without rows for upstream. Default:
        ``<dataset>_trials.tsv`` beside the run table.
    t_r_s : float, optional
        Repetition time that stage shard brings all runs to, s, in whose frames trials are placed.

    Returns
    -------
    str
        What the trials are, in lines for the terminal; empty without events.

    Raises
    ------
    InputError
        With every problem of the dataset: of the dataset as a whole in any case, of single runs unless
        `options.on_error` is "exclude"; and when not one run is usable.
    """
    trials = trials or runs.with_name(bids.trials_name(dataset))
    fewest = max(window_frames, options.minimum_volumes)
    problems_path = runs.with_name(f"{dataset}_problems.tsv")
    try:
        if dataset_options.shards is not None:
            ready = survey_remote if dataset_options.is_remote else survey_shards
            rows, events, names, problems = ready(dataset, dataset_options, fewest)
            own: list[Problem] = []
        elif atlas is None:
            message, remedy = "its signals are read from images, and there is no atlas", "give atlas in the config"
            raise InputError(Problem(str(dataset_options.derivatives), dataset, message, remedy))
        else:
            found = _index_images(dataset, dataset_options, preprocess, atlas, fewest, t_r_s)
            rows, events, names, problems, own = found
    except InputError as error:
        write_problems(problems_path, error.problems)
        raise InputError(error.problems, problems_path) from None
    left = [row for row in rows if row.status == "ok" or (row.status == "error" and options.on_error == "stop")]
    problems += too_few_units(dataset, dataset_options, left, runs)
    write_problems(problems_path, [*problems, *own])
    stopping = problems if options.on_error == "exclude" else [*problems, *own]
    if not stopping and not any(row.status == "ok" for row in rows):
        stopping = [_nothing_left(dataset, rows, runs), *own]
        write_problems(problems_path, stopping)
    if stopping:
        raise InputError(stopping, problems_path)
    _summarize(dataset, rows)
    # All or none: half a result would look like a whole one.
    with atomic_path(runs) as first, atomic_path(labels) as second, atomic_path(trials) as third:
        write_runs(first, rows)
        write_json(second, {"labels": names})
        write_trials(third, events)
    task = dataset_options.task if isinstance(dataset_options.task, TaskOptions) else None
    return "\n".join(summary(dataset, events, task, window_frames)) if events else ""


def _index_images(
    dataset: str,
    options: DatasetOptions,
    preprocess: PreprocessOptions,
    atlas: AtlasOptions,
    fewest: int,
    t_r_s: float | None,
) -> tuple[list[Run], list[Event], list[str], list[Problem], list[Problem]]:
    """Return rows, events, label names, problems of the dataset and problems of its runs."""
    if options.layout == "hcp":
        files, problems = survey_hcp(dataset, options)
    else:
        files, problems = survey(dataset, options, aroma=preprocess.takes_aroma_images)
    files, excluded, wrong = choose(dataset, options, files)
    problems += wrong
    check_variants(dataset, files)
    made = [Path(root) for root in (options.derivatives, options.fmriprep) if root is not None]
    times = Times(made, [Path(options.bids)] if options.bids is not None else [])
    check = partial(
        check_run,
        times=times,
        preprocess=preprocess,
        fewest_volumes=fewest,
        needs_mask=options.without_mask == "error" and not options.is_cifti,
        excluded=excluded,
    )
    found = tqdm(_check_all(check, files), desc=f"{dataset}: runs", total=len(files), unit="run", disable=None)
    checked = list(found)
    if times.assumed:
        _LOG.warning(
            "%s%s: slice timing was corrected, and no StartTime says to which moment: taken as the middle of the "
            "slice times, as fMRIPrep before 21 does it; write StartTime into the sidecars if it was not",
            *(min(times.assumed), f" and {more} more" if (more := len(times.assumed) - 1) else ""),
        )
    try:
        outside = check_atlas(atlas, [item for item in checked if not item.excluded])
    except InputError as error:
        problems, outside = problems + error.problems, {}
    checked = [_with(item, outside.get(item.files.key)) for item in checked]
    events: list[Event] = []
    names: list[str] = []
    if options.role == "downstream" and isinstance(options.task, TaskOptions):
        checked, events, names = place_events(dataset, checked, options.task, t_r_s)
    rows = [_row(dataset, options, item) for item in checked]
    return rows, events, names, problems, [problem for item in checked for problem in item.problems]


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


def _row(dataset: str, options: DatasetOptions, item: Checked) -> Run:
    files = item.files
    reason = item.excluded or "; ".join(problem.message for problem in item.problems)
    return Run(
        dataset=dataset,
        **bids.run_fields(files.found),
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
        start_time=item.start_time,
        status="excluded" if item.excluded else "error" if item.problems else "ok",
        reason=" ".join(reason.split()),
    )


def _nothing_left(dataset: str, rows: Sequence[Run], runs: Path) -> Problem:
    words = _reasons(rows) or "no sample in any shard"
    return Problem(
        str(runs),
        dataset,
        f"not one of {len(rows)} runs is usable: {words}",
        "see the reasons, and correct the config",
    )


def _reasons(rows: Sequence[Run]) -> str:
    """Return the most frequent reasons of runs that are not used."""
    reasons = Counter(row.reason for row in rows)
    more = f"; {len(reasons) - _MOST_REASONS} other reasons" if len(reasons) > _MOST_REASONS else ""
    return "; ".join(f"{count} x {reason}" for reason, count in reasons.most_common(_MOST_REASONS)) + more


def _summarize(dataset: str, rows: Sequence[Run]) -> None:
    counts = Counter(row.status for row in rows)
    subjects = len({row.subject for row in rows if row.status == "ok"})
    left_out = [row for row in rows if row.status != "ok"]
    words = f"; {len(left_out)} not: {_reasons(left_out)}" if left_out else ""
    people = f"{subjects} {noun(subjects, 'person', 'people')}"
    used = "1 run is used" if counts["ok"] == 1 else f"{counts['ok']} runs of {people} are used"
    _LOG.info("%s: %s%s", dataset, used, words)
    masked = [row for row in rows if row.status == "ok" and row.bold and not bids.is_cifti(row.bold)]
    bare = [row.key for row in masked if not row.mask]
    if bare:
        message = "%s: no brain mask beside the images of %d runs, the first %s: the whole image counts as brain"
        _LOG.warning(message, dataset, len(bare), bare[0])
