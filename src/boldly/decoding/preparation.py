"""From a run of new people to the samples that a decoder wants to see, with the options of its contract."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from boldly.bids import kind_of_image
from boldly.config import ParcellateOptions, PreprocessOptions, ShardOptions, TaskOptions, with_one_high_pass
from boldly.provenance import Contract
from boldly.records import Event, InputError, Problem, Run, Trial
from boldly.samples.corpus import Collected, Corpus
from boldly.samples.sample import Sample
from boldly.samples.timeseries import RunSeries
from boldly.signals import resampling
from boldly.signals.atlas import Atlas
from boldly.signals.events import events_of_run
from boldly.signals.grayordinates import Parcellation
from boldly.signals.trials import RunEvents, place, problems_of, trials_of
from boldly.stages.parcellate import contract_of, parcellate_run, quality_table
from boldly.stages.preprocess import nuisance_of_run
from boldly.stages.shard import samples_of_trials

# Repetition times may differ from those of the training by this share.
_T_R_TOLERANCE = 0.05


@dataclass(frozen=True)
class Recipe:
    """How a run becomes what a decoder wants to see.

    Attributes
    ----------
    name : str
        Name of the decoder, for errors.
    labels : tuple of str
        Its states.
    contract : Contract
        What its input must be.
    atlas : Atlas or Parcellation
        The parcels.
    preprocess, parcellate, shard : Section
        Options of the stages.
    task : TaskOptions
        How events become trials.
    t_r_s : tuple of float
        Repetition times of the training, s.
    least_covered : float
        Least share of parcels that a run must cover.
    cache : Path
        Folder of projections.
    allow_mismatch : collection of str
        Contract fields in which a run may differ; also "t_r" and "coverage".
    """

    name: str
    labels: tuple[str, ...]
    contract: Contract
    atlas: Atlas | Parcellation
    preprocess: PreprocessOptions
    parcellate: ParcellateOptions
    shard: ShardOptions
    task: TaskOptions
    t_r_s: tuple[float, float]
    least_covered: float
    cache: Path
    allow_mismatch: Collection[str] = field(default=())

    def contract_of(self, space: str, images: str = "") -> Contract:
        """Return the contract of runs in a space; `images` is their kind (`boldly.bids.kind_of_image`)."""
        parcellate = with_one_high_pass(self.parcellate, self.preprocess)
        return contract_of(space, self.atlas, parcellate, self.preprocess, images=images)


def series_of(record: Run, recipe: Recipe) -> RunSeries:
    """Read, parcellate and clean a run.

    Parameters
    ----------
    record : Run
        The run and its files.
    recipe : Recipe
        What is done.

    Raises
    ------
    InputError
        For a run that is defective, excluded by a threshold, or outside of what the decoder was trained on.
    """
    _check_t_r(record, recipe)
    row, nuisance = nuisance_of_run(record, recipe.preprocess)
    if row.status != "ok":
        remedy = "leave the run out, or decide to trust it: package the decoder with other thresholds"
        raise InputError(Problem(record.confounds or record.bold, record.key, row.reason, remedy))
    parcellate = with_one_high_pass(recipe.parcellate, recipe.preprocess)
    series = parcellate_run(record, nuisance.kept, nuisance.regressors, recipe.atlas, parcellate, recipe.cache)
    quality = quality_table([series], recipe.parcellate.exclude).iloc[0]
    if quality["status"] != "ok":
        remedy = "leave the run out, or decide to trust it: package the decoder with other thresholds"
        raise InputError(Problem(record.bold, record.key, quality["reason"], remedy))
    n_parcels = len(recipe.atlas.names)
    share = 1 - len(series.meta["uncovered"]) / n_parcels
    if share < recipe.least_covered and "coverage" not in recipe.allow_mismatch:
        message = (
            f"{share:.0%} of {n_parcels} parcels are covered by the brain mask, the decoder wants "
            f"{recipe.least_covered:.0%}"
        )
        remedy = "check mask and field of view, leave the run out, or accept it with --allow-mismatch coverage"
        raise InputError(Problem(record.mask or record.bold, record.key, message, remedy))
    return series


def _check_t_r(record: Run, recipe: Recipe) -> None:
    """Refuse a repetition time outside of those of the training; resampling brings any to one that is inside."""
    low, high = recipe.t_r_s
    if recipe.shard.t_r_s is not None or "t_r" in recipe.allow_mismatch:
        return
    if not low * (1 - _T_R_TOLERANCE) <= record.t_r <= high * (1 + _T_R_TOLERANCE):
        known = f"{low:g} s" if resampling.is_same(low, high) else f"{low:g} to {high:g} s"
        message = f"t_r: {record.t_r:g} s, the decoder {recipe.name} was trained at {known}"
        remedy = "use a decoder that was trained with shard.t_r_s, or accept it with --allow-mismatch t_r"
        raise InputError(Problem(record.bold, record.key, message, remedy))


def frames_of(record: Run, t_r: float | None) -> tuple[int, float]:
    """Return the number of frames of a run, and their distance in s, in which its trials are placed.

    `t_r` is the repetition time that runs are resampled to (`ShardOptions.t_r_s`), s; None: that of the run.
    """
    if t_r is None:
        return record.n_volumes, record.t_r
    return len(resampling.positions(record.n_volumes, record.t_r, t_r)), t_r


def events_of(record: Run, task: TaskOptions, t_r_s: float | None) -> RunEvents:
    """Read the events of a run, and tell in which frames they are placed (`frames_of`).

    Raises
    ------
    InputError
        For events that cannot be read.
    """
    n_volumes, t_r = frames_of(record, t_r_s)
    events = Path(record.events) if record.events else None
    table = events_of_run(
        events, task, run_key=record.key, bids_task=record.task, t_r=record.t_r, n_volumes=record.n_volumes
    )
    return RunEvents(table, record.key, record.task, t_r, n_volumes, record.start_time)


def trials_of_run(record: Run, recipe: Recipe) -> list[Trial]:
    """Place the events of a run.

    Raises
    ------
    InputError
        For events that cannot be read, states that the decoder does not know, and a run without a trial.
    """
    run = events_of(record, recipe.task, recipe.shard.t_r_s)
    placed: list[Event] = place(run, recipe.task)
    problems = problems_of(run, placed, recipe.task)
    trials = [] if problems else trials_of(placed, recipe.labels)
    if not problems and not trials:
        reasons = sorted({event.reason.partition(":")[0] for event in placed})
        message = f"none of {len(placed)} events is a trial ({', '.join(reasons) or 'no event'})"
        remedy = "correct the events, give other task options (--task), or leave --events out for sliding windows"
        problems = [Problem(record.events or record.bold, record.key, message, remedy)]
    if problems:
        raise InputError(problems)
    return trials


def windows_of_run(record: Run, recipe: Recipe, length_s: float, step_s: float) -> list[Trial]:
    """Place sliding windows over a whole run.

    A window's onset is the time of the state that it stands for: the haemodynamic delay of the decoder's task lies
    between it and the first frame, as between the onset of a trial and its first frame.

    Parameters
    ----------
    record : Run
        The run.
    recipe : Recipe
        Of the decoder.
    length_s, step_s : float
        Length of a window and distance from one to the next, s; rounded to whole frames.

    Returns
    -------
    list of Trial
        Label -1; a run shorter than a window is a single one.
    """
    n_volumes, t_r = frames_of(record, recipe.shard.t_r_s)
    return windows(record.key, n_volumes, t_r, length_s, step_s, _delay_s(recipe.task), record.start_time)


def _delay_s(task: TaskOptions) -> float:
    return task.window_s[0] if task.window_s is not None else task.delay_s or 0.0


def windows(
    key: str, n_volumes: int, t_r: float, length_s: float, step_s: float, delay_s: float = 0.0, start: float = 0.0
) -> list[Trial]:
    """Place sliding windows over frames; see `windows_of_run`."""
    length = min(max(2, round(length_s / t_r)), n_volumes)
    step = max(1, round(step_s / t_r))
    return [
        Trial(
            run_key=key,
            number=number,
            onset=round(start + first * t_r - delay_s, 6),
            duration=round(length * t_r, 6),
            label=-1,
            label_name="",
            first=first,
            stop=first + length,
        )
        for number, first in enumerate(range(0, n_volumes - length + 1, step))
    ]


def samples_of(series: RunSeries, record: Run, trials: Sequence[Trial], recipe: Recipe) -> list[Sample]:
    """Cut trials or windows from a run; those that scrubbing left too few frames of are absent."""
    return samples_of_trials(
        series,
        record,
        list(trials),
        list(recipe.labels),
        contract=recipe.contract_of(record.space, kind_of_image(Path(record.bold))),
        task=recipe.task,
        options=recipe.shard,
    )


def corpus_of(samples: Sequence[Sample], where: str) -> Corpus:
    """Put samples into a corpus; `where` is the file that they come from, for errors."""
    collected = Collected()
    for sample in samples:
        collected.add(sample, where)
    frames = np.ascontiguousarray(np.concatenate([sample.bold for sample in samples]))
    return collected.corpus(frames, [where])


def has_signal(data: np.ndarray) -> np.ndarray:
    """Tell for each parcel of an array (T, P) whether it has a value that is not zero and not nan."""
    there: np.ndarray = (np.isfinite(data) & (data != 0)).any(axis=0)
    return there


def array_samples(
    trials: Sequence[np.ndarray],
    *,
    t_r: float,
    labels: Sequence[str],
    contract: Contract,
    dtype: str,
    average: bool = False,
) -> list[Sample]:
    """Return trials that are given as arrays of cleaned parcel signals as samples.

    Parameters
    ----------
    trials : sequence of ndarray, shape (T, P)
        Signals; parcels that are zero or nan throughout count as not covered.
    t_r : float
        Repetition time, s.
    labels : sequence of str
        States.
    contract : Contract
        How the signals came about.
    dtype : str
        Number type that the decoder's samples were stored with.
    average : bool, default=False
        Whether the decoder takes the mean of a trial's frames, as one frame.
    """
    samples = []
    nothing, one = np.zeros(contract.n_parcels, np.float32), np.ones(contract.n_parcels, np.float32)
    for number, trial in enumerate(trials):
        data = np.array(trial, dtype=np.float32)
        marked = ~has_signal(data)
        data[:, marked] = 0
        if not np.isfinite(data).all():
            message = f"trial {number} has values that are no finite numbers"
            raise InputError(Problem("trials", str(number), message, "fill them, or leave the trial out"))
        if average:
            data = data.mean(axis=0, keepdims=True, dtype=np.float64)
        meta = {
            "dataset": "arrays",
            "subject": "",
            "run_key": "arrays",
            "t_r": t_r,
            "n_volumes": len(data),
            "marked": np.flatnonzero(marked).tolist(),
            "label": -1,
            "label_name": "",
            "labels": list(labels),
        }
        samples.append(Sample(f"trial_{number:06d}", data.astype(dtype), nothing, one, meta, contract))
    return samples


def check_scaling(data: Sequence[np.ndarray], contract: Contract, where: str) -> None:
    """Refuse signals that were obviously not standardised as the contract has it."""
    if contract.standardize != "zscore" or not data:
        return
    values = np.concatenate([np.asarray(part, np.float64).ravel() for part in data])
    values = values[np.isfinite(values) & (values != 0)]
    if not len(values):
        return
    mean, std = float(values.mean()), float(values.std())
    if abs(mean) > 2 or not 0.2 < std < 5 or math.isnan(std):
        message = f"signals of mean {mean:.3g} and standard deviation {std:.3g}: they are not z-scores"
        remedy = (
            "clean the parcel signals of whole runs as contract.json says (z-scores over each run), or accept "
            "them with allow_mismatch=['standardize']"
        )
        raise InputError(Problem(where, "", message, remedy))
