"""Stage shard: samples for training, one per run (upstream) or one per trial (downstream)."""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from boldly import bids
from boldly.config import ShardOptions, TaskOptions
from boldly.files import read_json
from boldly.provenance import Contract
from boldly.records import Event, InputError, Problem, Run, Trial, read_runs, read_trials, write_problems
from boldly.samples.sample import spans_of
from boldly.samples.shards import Sample, write_shard
from boldly.samples.timeseries import RunSeries, read_timeseries
from boldly.signals import resampling
from boldly.signals.confounds import read_displacement
from boldly.signals.trials import trials_of

logger = logging.getLogger(__name__)

_DECIMALS = 6


def run(
    *,
    timeseries: Path,
    runs: Path,
    subject: str,
    role: Literal["upstream", "downstream"],
    task: TaskOptions | None,
    labels: Path,
    options: ShardOptions,
    window_frames: int,
    output: Path,
    trials: Path | None = None,
    nuisance: Path | None = None,
    on_error: Literal["stop", "exclude"] = "stop",
    problems_table: Path | None = None,
) -> int:
    """Write the shard of a subject.

    Parameters
    ----------
    timeseries : Path
        The subject's parcel time series.
    runs : Path
        Run table of the dataset.
    subject : str
        Subject label.
    role : {"upstream", "downstream"}
        One sample per run, or one per trial.
    task : TaskOptions or None
        How events become trials (downstream).
    labels : Path
        ``{"labels": [...]}``, the states in label order (downstream).
    options : ShardOptions
        How samples are stored.
    window_frames : int
        Runs without that many frames in a row are left out (upstream).
    output : Path
        The tar. It is written without samples when the subject has none.
    trials : Path, optional
        Table of trials of the dataset, from index (downstream).
    nuisance : Path, optional
        Nuisance table of the subject, from preprocess, whose framewise displacement stands in trials; default: it
        is not known.
    on_error : {"stop", "exclude"}
        What a run does that cannot be turned into samples: stop the stage, or be left out.
    problems_table : Path, optional
        Output: the reasons of the runs that are left out (`boldly.records.write_problems`); without any the file
        of an earlier attempt is removed.

    Returns
    -------
    int
        Number of trials that are left out, since scrubbing left too few frames of them.

    Raises
    ------
    InputError
        With every run that cannot be turned into samples, unless `on_error` is "exclude".
    """
    series, contract = read_timeseries(timeseries)
    table = {item.key: item for item in read_runs(runs, subject=subject)}
    placed = _placed(trials, labels, task, subject) if role == "downstream" else None
    movement = read_displacement(nuisance) if nuisance is not None else {}
    samples: list[Sample] = []
    problems: list[Problem] = []
    lost = 0
    for item in sorted(series, key=lambda item: item.key):
        try:
            recorded = _record(item, table, timeseries, runs)
            _check_range(item, options, timeseries)
            item, record = _at_t_r(item, recorded, contract, options.t_r_s)
            if placed is not None:
                found = list(
                    _trial_samples(item, record, recorded, contract, placed, options, movement.get(item.key))
                )
                lost += len(placed.of(record)) - len(found)
                samples += found
            else:
                samples += _run_samples(item, record, contract, window_frames, options)
        except InputError as error:
            problems += [replace(problem, entity=problem.entity or item.key) for problem in error.problems]
    if problems_table is not None:
        write_problems(problems_table, problems)
    if problems and on_error == "stop":
        raise InputError(problems)
    for problem in problems:
        logger.warning("excluded: %s", problem)
    if options.t_r_s is not None:
        contract = replace(contract, t_r_s=options.t_r_s)
        samples = [replace(sample, contract=contract) for sample in samples]
    write_shard(output, samples)
    logger.info("sub-%s: %d samples of %d runs", subject, len(samples), len(series))
    return lost


def samples_of_trials(
    item: RunSeries,
    recorded: Run,
    trials: list[Trial],
    names: list[str],
    *,
    contract: Contract,
    task: TaskOptions,
    options: ShardOptions,
) -> list[Sample]:
    """Cut the trials of a run, as `run` does it for a downstream dataset.

    Parameters
    ----------
    item : RunSeries
        Signals of the run.
    recorded : Run
        The run as it was recorded.
    trials : list of Trial
        In frames of `options.t_r_s`, or of the run where that is None.
    names : list of str
        States in label order.
    contract : Contract
        Of the signals.
    task : TaskOptions
        Fewest frames of a trial, and whether they are averaged.
    options : ShardOptions
        Number type and repetition time of the samples.

    Raises
    ------
    InputError
        For signals that are not finite, or not once they are stored.
    """
    _check_range(item, options, Path(recorded.bold))
    item, record = _at_t_r(item, recorded, contract, options.t_r_s)
    placed = _Placed({item.key: trials}, {item.key: record.t_r}, names, task, Path(recorded.events))
    if options.t_r_s is not None:
        contract = replace(contract, t_r_s=options.t_r_s)
    return list(_trial_samples(item, record, recorded, contract, placed, options))


@dataclass(frozen=True)
class _Placed:
    """The trials of a subject by run, the repetition time (s) of each run's frames, and what is done with them."""

    trials: dict[str, list[Trial]]
    t_r: dict[str, float]
    names: list[str]
    task: TaskOptions
    path: Path

    def of(self, record: Run) -> list[Trial]:
        """Return the trials of a run, which must be placed in frames of its repetition time."""
        t_r = self.t_r.get(record.key, record.t_r)
        if not resampling.is_same(t_r, record.t_r):
            message = f"trials in frames of {t_r:g} s, signals in frames of {record.t_r:g} s"
            raise InputError(Problem(str(self.path), record.key, message, "rerun index with the same shard.t_r_s"))
        return self.trials.get(record.key, [])


def _placed(path: Path | None, labels: Path, task: TaskOptions | None, subject: str) -> _Placed:
    if path is None or task is None:
        message = "no table of trials, or no options that turn events into trials"
        remedy = "give --trials and --task on the command line"
        raise InputError(Problem(str(path or labels), f"sub-{subject}", message, remedy))
    names = _label_names(labels)
    events = [event for event in read_trials(path, subject=subject) if event.trial is not None]
    if unknown := sorted({event.label for event in events} - set(names)):
        message = f"states that are not in {labels}: {', '.join(unknown)}"
        raise InputError(Problem(str(path), f"sub-{subject}", message, "delete both and rerun index"))
    by_run: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        by_run[event.key].append(event)
    found = {key: trials_of(rows, names) for key, rows in by_run.items()}
    return _Placed(found, {event.key: event.t_r for event in events}, names, task, path)


def _label_names(path: Path) -> list[str]:
    try:
        names = read_json(path)["labels"]
        if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
            raise ValueError("labels is no list of text")
    except FileNotFoundError:
        raise InputError(Problem(str(path), "", "no such file", "rerun index")) from None
    except (ValueError, KeyError, TypeError) as error:
        message = f"not a list of label names: {error}"
        raise InputError(Problem(str(path), "", message, "delete it and rerun index")) from None
    return names


def _record(item: RunSeries, table: dict[str, Run], timeseries: Path, runs: Path) -> Run:
    if item.key not in table:
        raise InputError(Problem(str(timeseries), item.key, f"is not in the run table {runs}", "rerun parcellate"))
    return table[item.key]


def _check_range(item: RunSeries, options: ShardOptions, timeseries: Path) -> None:
    """Refuse signals that are not finite, or that would not be once stored."""
    if not np.isfinite(item.data).all():
        message = "signals that are not finite numbers"
        raise InputError(Problem(str(timeseries), item.key, message, "exclude the run, or rerun parcellate"))
    largest, limit = float(np.abs(item.data).max(initial=0)), float(np.finfo(options.dtype).max)
    if largest > limit:
        message = f"a signal of {largest:.3g} is beyond the range of {options.dtype} ({limit:.5g})"
        remedy = "set shard.dtype to float32, or parcellate.standardize to zscore"
        raise InputError(Problem(str(timeseries), item.key, message, remedy))


def _at_t_r(item: RunSeries, recorded: Run, contract: Contract, t_r: float | None) -> tuple[RunSeries, Run]:
    """Bring a run to a repetition time (s); scrubbing takes the new frames that lie nearest to scrubbed ones."""
    if t_r is None:
        return item, recorded
    if resampling.is_same(recorded.t_r, t_r):
        return item, replace(recorded, t_r=t_r)
    nearest = _nearest_frames(recorded, t_r)
    record = replace(recorded, t_r=t_r, n_volumes=len(nearest))
    if not len(item.frames):
        return item, record
    frames = np.flatnonzero(np.isin(nearest, item.frames))
    whole = resampling.fill_gaps(item.data, item.frames, recorded.n_volumes)
    data = resampling.resample(whole, recorded.t_r, t_r)[frames]
    mean, std = item.mean, item.std
    if contract.standardize == "zscore" and len(frames) > 1:
        centre, spread = data.mean(axis=0), data.std(axis=0, ddof=1)
        spread[spread < np.finfo(np.float32).eps] = 1
        data = (data - centre) / spread
        # As before, data * std + mean is the cleaned signal.
        mean, std = mean + centre * std, std * spread
    return replace(item, data=data, frames=frames, mean=mean, std=std), record


def _nearest_frames(recorded: Run, t_r: float) -> NDArray[np.int64]:
    """Return for each frame at a repetition time the recorded one that lies nearest."""
    return np.rint(resampling.positions(recorded.n_volumes, recorded.t_r, t_r)).astype(np.int64)


def _run_samples(
    item: RunSeries, record: Run, contract: Contract, window_frames: int, options: ShardOptions
) -> Iterator[Sample]:
    longest = max((stop - first for first, stop in spans_of(item.frames)), default=0)
    if longest < window_frames:
        reason = "%s: left out, %d frames without a gap where windows need %d"
        logger.info(reason, item.key, longest, window_frames)
        return
    meta = {**_run_meta(item, record), **_span_meta(item, slice(None), record.n_volumes)}
    yield Sample(item.key, item.data.astype(options.dtype), item.mean, item.std, meta, contract)


def _trial_samples(
    item: RunSeries,
    record: Run,
    recorded: Run,
    contract: Contract,
    placed: _Placed,
    options: ShardOptions,
    displacement_mm: NDArray[np.float64] | None = None,
) -> Iterator[Sample]:
    """Yield the trials of a run, cut from the frames that scrubbing left."""
    trials, fewest = placed.of(record), placed.task.fewest_frames
    unknown = np.full(recorded.n_volumes, np.nan)
    movement = (unknown if displacement_mm is None else displacement_mm)[_nearest_frames(recorded, record.t_r)]
    dropped = []
    for trial in trials:
        rows = slice(*np.searchsorted(item.frames, [trial.first, trial.stop]).tolist())
        if rows.stop - rows.start < fewest:
            dropped.append(trial.number)
            continue
        frames = item.data[rows]
        meta = {
            **_run_meta(item, record),
            **_span_meta(item, rows, trial.stop - trial.first),
            "number": trial.number,
            "count": len(trials),
            "first": trial.first,
            "stop": trial.stop,
            "label": trial.label,
            "label_name": trial.label_name,
            "labels": placed.names,
            "onset": trial.onset,
            "duration": None if math.isnan(trial.duration) else trial.duration,
            "position": round(trial.first / record.n_volumes, _DECIMALS),
            "mean_fd_mm": _mean(movement[item.frames[rows]]),
        }
        if placed.task.average:
            middle = int(item.frames[rows][len(frames) // 2])
            meta |= {"n_volumes": 1, "averaged": len(frames), "frames": [[middle, middle + 1]]}
            frames = frames.mean(axis=0, keepdims=True, dtype=np.float64)
        key = bids.sample_key(item.key, trial.number)
        yield Sample(key, frames.astype(options.dtype), item.mean, item.std, meta, contract)
    if dropped:
        reason = f"scrubbing left fewer than {fewest} frames of them: numbers {', '.join(map(str, dropped))}"
        logger.info("%s: %d of %d trials left out, %s", item.key, len(dropped), len(trials), reason)


def _mean(values: NDArray[np.float64]) -> float | None:
    """Return the mean of the numbers that are there, for JSON."""
    there = values[np.isfinite(values)]
    return round(float(there.mean()), _DECIMALS) if len(there) else None


def _run_meta(item: RunSeries, record: Run) -> dict[str, Any]:
    entities = bids.run_entities(record)
    return {
        "dataset": record.dataset,
        "subject": record.subject,
        "run_key": item.key,
        "entities": entities,
        "t_r": record.t_r,
        "marked": item.meta.get("marked", []),
        "marked_names": item.meta.get("marked_names", []),
    }


def _span_meta(item: RunSeries, rows: slice, recorded: int) -> dict[str, Any]:
    """Return which frames a sample has, and how many scrubbing took out of its span."""
    kept = item.frames[rows]
    return {"n_volumes": len(kept), "missing": recorded - len(kept), "frames": spans_of(kept)}
