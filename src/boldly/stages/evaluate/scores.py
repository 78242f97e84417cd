"""Tidy scores of experiments: predictions counted by draw, seed and unit, metrics of the counts, and intervals."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boldly import intervals, metrics
from boldly.config import EvaluateOptions
from boldly.records import Score
from boldly.stages.evaluate.predictions import Experiment, FitPredictions, Trials

logger = logging.getLogger(__name__)

ALL = "all"
_POOLED = "pooled"
# All metrics but the log loss lie between 0 and 1.
_HIGHEST = {"log_loss": np.inf}


@dataclass(frozen=True)
class Tallied:
    """Predictions of one experiment at one n, counted.

    Attributes
    ----------
    counts : Counts
        Of shape (draws, seeds, clusters).
    draws, seeds : tuple of str
        Their names; one draw, "pooled", where draws have different test trials.
    clusters : ndarray of int64
        Numbers of the test units; of the trials where there is one test unit.
    by_trial : bool
        Whether the clusters are trials.
    n_trials : int
        Number of test trials.
    """

    counts: metrics.Counts
    draws: tuple[str, ...]
    seeds: tuple[str, ...]
    clusters: metrics.Integers
    by_trial: bool
    n_trials: int


def score(
    experiments: list[Experiment], trials: Trials, *, dataset: str, options: EvaluateOptions
) -> tuple[list[Score], dict[tuple[str, int], Tallied]]:
    """Score experiments, each n by itself: over everything, by state, by fit and by test subject.

    Parameters
    ----------
    experiments : list of Experiment
        What is scored, in the order of the rows.
    trials : Trials
        The test trials.
    dataset : str
        Name of the dataset.
    options : EvaluateOptions
        Intervals and permutations.

    Returns
    -------
    list of Score
        The rows.
    dict of (str, int) to Tallied
        Counts by experiment and n.
    """
    permuted = metrics.permuted_within(trials.run_numbers, trials.labels, options.permutations, options.seed)
    scores: list[Score] = []
    tallies: dict[tuple[str, int], Tallied] = {}
    for experiment in experiments:
        for n in experiment.sizes:
            head = {"dataset": dataset, "experiment": experiment.name, "n": n, "kind": experiment.kind}
            head |= {"start": experiment.start, "draw": ALL, "seed": ALL, "subject": ALL}
            fits = experiment.at(n)
            tallied = tallies[experiment.name, n] = tally(fits, trials)
            rows = _rows(head, tallied, options)
            logger.info("%s", summary_line(rows[0]))
            if experiment.kind != "chance":
                rows += _recalls(head, tallied, trials, options)
                rows += _permutation(head, fits, tallied, trials, permuted)
                for places, chosen in _views(fits, trials):
                    rows += _rows({**head, **places}, tally(chosen, trials), options)
            scores += rows
    return scores, tallies


def _views(fits: list[FitPredictions], trials: Trials) -> Iterator[tuple[dict[str, str], list[FitPredictions]]]:
    """Yield each fit, then all fits for the trials of each test subject."""
    for fit in (fit for fit in fits if len(fit.trials)):
        yield {"draw": fit.draw, "seed": fit.seed}, [fit]
    subjects = np.array(trials.subjects)
    there = np.unique(np.concatenate([fit.trials for fit in fits]))
    for subject in np.unique(subjects[there]):
        chosen = [_select(fit, subjects[fit.trials] == subject) for fit in fits]
        yield {"subject": str(subject)}, [fit for fit in chosen if len(fit.trials)]


def _select(fit: FitPredictions, chosen: NDArray[np.bool_]) -> FitPredictions:
    probabilities = None if fit.probabilities is None else fit.probabilities[chosen]
    return replace(fit, trials=fit.trials[chosen], predicted=fit.predicted[chosen], probabilities=probabilities)


def tally(fits: list[FitPredictions], trials: Trials) -> Tallied:
    """Count the predictions of fits by draw, seed and unit.

    Where draws have different test trials (each unit in turn), those of all draws are pooled, so that every unit
    counts once: unit and draw cannot be told apart there.

    Parameters
    ----------
    fits : list of FitPredictions
        Of one n: each seed of each draw.
    trials : Trials
        The test trials.
    """
    same = len({fit.trials.tobytes() for fit in fits}) == 1
    draws = sorted({fit.draw for fit in fits}, key=_number) if same else [_POOLED]
    seeds = sorted({fit.seed for fit in fits}, key=_number)
    numbers = np.concatenate([fit.trials for fit in fits])
    used = np.unique(numbers)
    by_trial = len(np.unique(trials.unit_numbers[used])) < 2
    clusters, cluster = np.unique(numbers if by_trial else trials.unit_numbers[numbers], return_inverse=True)
    shape = (len(draws), len(seeds), len(clusters))
    sizes = [len(fit.trials) for fit in fits]
    draw = np.repeat([draws.index(fit.draw) if same else 0 for fit in fits], sizes)
    seed = np.repeat([seeds.index(fit.seed) for fit in fits], sizes)
    probabilities = [fit.probabilities for fit in fits if fit.probabilities is not None]
    counts = metrics.count(
        trials.labels[numbers],
        np.concatenate([fit.predicted for fit in fits]),
        np.ravel_multi_index((draw, seed, cluster), shape),
        int(np.prod(shape)),
        len(trials.label_names),
        np.concatenate(probabilities) if probabilities else None,
    )
    return Tallied(counts.reshape(*shape), tuple(draws), tuple(seeds), clusters, by_trial, len(used))


def _number(name: str) -> tuple[int, str]:
    return (int(name), name) if name.isdigit() else (0, name)


def _rows(head: dict[str, Any], tallied: Tallied, options: EvaluateOptions) -> list[Score]:
    """One score for each metric that there is."""
    scores = []
    for name, metric in metrics.METRICS.items():
        value = metrics.estimate(metric, tallied.counts)
        if np.isnan(value):
            continue  # no probabilities
        low, high, is_sure = _interval(metric, tallied, options)
        # All right or all wrong is no certainty. What chance says is the same everywhere by its nature.
        if name == "accuracy" and head["kind"] != "chance" and (tallied.by_trial or is_sure):
            low, high = _widened(value, low, high, tallied.n_trials, options)
        high = min(high, _HIGHEST.get(name, 1.0))
        scores.append(
            Score(**head, metric=name, value=value, ci_low=max(low, 0.0), ci_high=high, n_trials=tallied.n_trials)
        )
    return scores


def _recalls(head: dict[str, Any], tallied: Tallied, trials: Trials, options: EvaluateOptions) -> Iterator[Score]:
    """One score for each state that has trials: the share of them that is named correctly."""
    present = tallied.counts.labels[..., 1, :].sum(axis=-2).mean(axis=(0, 1))
    # Pooled draws hold each trial once; others hold all trials each.
    for label, name in enumerate(trials.label_names):
        if not present[label]:
            continue

        def metric(counts: metrics.Counts, label: int = label) -> metrics.Array:
            return metrics.recall(counts, label)

        value, n_trials = metrics.estimate(metric, tallied.counts), round(float(present[label]))
        low, high, is_sure = _interval(metric, tallied, options)
        if tallied.by_trial or is_sure:
            low, high = _widened(value, low, high, n_trials, options)
        low, high = max(low, 0.0), min(high, 1.0)
        yield Score(**head, metric="recall", value=value, ci_low=low, ci_high=high, n_trials=n_trials, label=name)


def _interval(metric: metrics.Metric, tallied: Tallied, options: EvaluateOptions) -> tuple[float, float, bool]:
    """Return an interval, and whether its variance is zero; nan without two units (or trials)."""
    if len(tallied.clusters) < 2:
        return float("nan"), float("nan"), False
    spread = intervals.spread(metrics.pseudo_values(metric, tallied.counts))
    value, half = metrics.estimate(metric, tallied.counts), float(spread.half_width(options.confidence))
    return value - half, value + half, half == 0


def _widened(
    value: float, low: float, high: float, n_trials: int, options: EvaluateOptions
) -> tuple[float, float]:
    """Return an interval that is nowhere narrower than Wilson's of as many independent trials."""
    lowest, highest = intervals.wilson(value, n_trials, options.confidence)
    return float(np.fmin(low, lowest)), float(np.fmax(high, highest))


def _permutation(
    head: dict[str, Any],
    fits: list[FitPredictions],
    tallied: Tallied,
    trials: Trials,
    permuted: NDArray[np.int32],
) -> Iterator[Score]:
    """Give the p-value of an accuracy against labels in random order within runs."""
    if not len(permuted):
        return
    numbers = np.concatenate([fit.trials for fit in fits])
    predicted = np.concatenate([fit.predicted for fit in fits])
    p = metrics.permutation_p(trials.labels, permuted, numbers, predicted, len(trials.label_names))
    nan = float("nan")
    yield Score(**head, metric="permutation_p", value=p, ci_low=nan, ci_high=nan, n_trials=tallied.n_trials)


def is_summary(row: Score) -> bool:
    """Whether a row is the accuracy over all draws, seeds and test subjects."""
    return row.metric == "accuracy" and row.draw == row.seed == row.subject == ALL


def summary_line(row: Score) -> str:
    """Return a score in words, for logs."""
    return f"{row.experiment} n={row.n}: {row.metric} {row.value:.3f} [{row.ci_low:.3f}, {row.ci_high:.3f}]"
