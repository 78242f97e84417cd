"""How good predictions are: counts of what was predicted, and metrics that are functions of the counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Integers = NDArray[np.int64]

# Equally wide bins of the largest probability, for the expected calibration error.
BINS = 15
# The resolution of the table of predictions: smaller probabilities count as this in the log loss.
SMALLEST_PROBABILITY = 1e-6


@dataclass(frozen=True)
class Counts:
    """What all metrics are made of. Counts of units add up.

    Attributes
    ----------
    labels : ndarray of float64, shape (..., 3, L)
        For each label the trials named correctly, the trials that have it, and the trials that were given it.
    surprise : ndarray of float64, shape (...)
        Sum of -log(probability of the true label); nan where there are no probabilities.
    bins : ndarray of float64, shape (..., 3, B)
        For each bin of the largest probability the trials in it, those of them that were named correctly, and the
        sum of their largest probabilities.
    """

    labels: Array
    surprise: Array
    bins: Array

    def reshape(self, *shape: int) -> Counts:
        """Return counts of cells (N,) as an array of another shape."""
        return Counts(
            self.labels.reshape(*shape, *self.labels.shape[-2:]),
            self.surprise.reshape(shape),
            self.bins.reshape(*shape, *self.bins.shape[-2:]),
        )

    def total(self) -> Counts:
        """Return the sum over the last axis, that of units."""
        return Counts(self.labels.sum(axis=-3), self.surprise.sum(axis=-1), self.bins.sum(axis=-3))

    def without_each(self) -> Counts:
        """Return the sum of all units but one, for each of them; shape as before."""
        total = self.total()
        return Counts(
            total.labels[..., None, :, :] - self.labels,
            total.surprise[..., None] - self.surprise,
            total.bins[..., None, :, :] - self.bins,
        )


def count(
    truth: Integers,
    predicted: Integers,
    cells: Integers,
    n_cells: int,
    n_labels: int,
    probabilities: NDArray[np.floating] | None = None,
) -> Counts:
    """Count predictions by cell (a unit of one draw and seed).

    Parameters
    ----------
    truth, predicted : ndarray of int, shape (N,)
        Labels of N predictions.
    cells : ndarray of int, shape (N,)
        Number of the cell of each.
    n_cells, n_labels : int
        Number of cells C and of labels L.
    probabilities : ndarray, shape (N, L), optional
        Of each label; without them, log loss and calibration error are nan.

    Returns
    -------
    Counts
        Of shape (C,).
    """
    hit = truth == predicted
    labels = [
        np.bincount(cell * n_labels + label, minlength=n_cells * n_labels).reshape(n_cells, n_labels)
        for cell, label in ((cells[hit], truth[hit]), (cells, truth), (cells, predicted))
    ]
    stacked = np.stack(labels, axis=1).astype(np.float64)
    if probabilities is None:
        return Counts(stacked, np.full(n_cells, np.nan), np.full((n_cells, 3, BINS), np.nan))
    rows = np.arange(len(truth))
    of_truth = np.clip(probabilities[rows, truth].astype(np.float64), SMALLEST_PROBABILITY, None)
    surprise = np.bincount(cells, -np.log(of_truth), minlength=n_cells)
    sure = probabilities[rows, predicted].astype(np.float64)
    # Bin b holds b / BINS < probability <= (b + 1) / BINS.
    place = cells * BINS + np.clip(np.ceil(sure * BINS).astype(np.int64) - 1, 0, BINS - 1)
    bins = [
        np.bincount(place, weight, minlength=n_cells * BINS).reshape(n_cells, BINS) for weight in (None, hit, sure)
    ]
    return Counts(stacked, surprise.astype(np.float64), np.stack(bins, axis=1).astype(np.float64))


def accuracy(counts: Counts) -> Array:
    """Return the share of trials named correctly, shape (...)."""
    correct, present, _ = np.moveaxis(counts.labels, -2, 0)
    return correct.sum(-1) / present.sum(-1)


def balanced_accuracy(counts: Counts) -> Array:
    """Return the mean over labels that have trials of the share named correctly, shape (...)."""
    correct, present, _ = np.moveaxis(counts.labels, -2, 0)
    return _mean_over_present(correct / np.maximum(present, 1), present)


def macro_f1(counts: Counts) -> Array:
    """Return the mean over labels that have trials of F1, shape (...)."""
    correct, present, given = np.moveaxis(counts.labels, -2, 0)
    return _mean_over_present(2 * correct / np.maximum(present + given, 1), present)


def log_loss(counts: Counts) -> Array:
    """Return the mean of -log(probability of the true label), in nats, shape (...)."""
    return counts.surprise / counts.labels[..., 1, :].sum(-1)


def calibration_error(counts: Counts) -> Array:
    """Return the expected calibration error, shape (...).

    Predictions are put into `BINS` equally wide bins by their largest probability. The error is the mean over
    predictions of the distance between the accuracy of their bin and its mean largest probability (Guo et al.
    2017, arXiv:1706.04599).
    """
    _, correct, sure = np.moveaxis(counts.bins, -2, 0)
    return np.abs(correct - sure).sum(-1) / counts.labels[..., 1, :].sum(-1)


def recall(counts: Counts, label: int) -> Array:
    """Return the share of the trials of a label that are named so, shape (...); nan where it has none."""
    correct, present = counts.labels[..., 0, label], counts.labels[..., 1, label]
    return np.where(present > 0, correct / np.maximum(present, 1), np.nan)


def _mean_over_present(values: Array, present: Array) -> Array:
    there = present > 0
    return (values * there).sum(-1) / there.sum(-1)


Metric = Callable[[Counts], Array]

METRICS: dict[str, Metric] = {
    "accuracy": accuracy,
    "balanced_accuracy": balanced_accuracy,
    "macro_f1": macro_f1,
    "log_loss": log_loss,
    "calibration_error": calibration_error,
}


def estimate(metric: Metric, counts: Counts) -> float:
    """Return a metric of all units together, averaged over draws and seeds; counts of shape (D, S, U)."""
    return float(metric(counts.total()).mean())


def pseudo_values(metric: Metric, counts: Counts) -> Array:
    """Return the contribution of each unit to a metric: the jackknife's pseudo-values.

    With U units, that of a unit is U times the metric of all minus (U - 1) times the metric of the others (Tukey
    1958). For accuracies of units with equally many trials these are the accuracies themselves; in general their
    mean squares are those of a metric that is no mean over units, as macro-F1.

    Parameters
    ----------
    metric : callable
        One of `METRICS`.
    counts : Counts
        Of shape (..., U), U at least 2.

    Returns
    -------
    ndarray of float64, shape (..., U)
    """
    n_units = counts.surprise.shape[-1]
    whole = metric(counts.total())[..., None]
    return n_units * whole - (n_units - 1) * metric(counts.without_each())


def most_frequent(truth: Integers) -> int:
    """Return the most frequent label, the smallest of several."""
    return int(np.bincount(truth).argmax())


def confusion(truth: Integers, predicted: Integers, n_labels: int) -> Integers:
    """Return the number of trials of each label (rows) that were given each label (columns), shape (L, L)."""
    return np.bincount(truth * n_labels + predicted, minlength=n_labels**2).reshape(n_labels, n_labels)


def permuted_within(groups: Integers, labels: Integers, permutations: int, seed: int) -> NDArray[np.int32]:
    """Return labels in random order within each group, shape (permutations, R).

    Parameters
    ----------
    groups, labels : ndarray of int, shape (R,)
        Group (a run) and label of each trial.
    permutations : int
        How many.
    seed : int
        Seed.
    """
    rng = np.random.default_rng(seed)
    places = np.argsort(groups, kind="stable")
    permuted = np.empty((permutations, len(labels)), np.int32)
    # A row at a time: random keys of all permutations would take more memory than their result.
    for row in permuted:
        row[places] = labels[np.lexsort((rng.random(len(labels)), groups))]
    return permuted


def permutation_p(
    truth: Integers, permuted: NDArray[np.int32], trials: Integers, predicted: Integers, n_labels: int
) -> float:
    """Return the share of permutations in which predictions are right at least as often as they are.

    The true order counts as one of the permutations, so the smallest value is 1 / (1 + permutations) (Phipson &
    Smyth 2010, doi:10.2202/1544-6115.1585).

    Parameters
    ----------
    truth : ndarray of int, shape (R,)
        Labels of R trials.
    permuted : ndarray of int, shape (P, R)
        The same in random orders.
    trials, predicted : ndarray of int, shape (N,)
        Number of the trial, and the label given, of each prediction; a trial may be predicted many times.
    n_labels : int
        Number of labels.
    """
    n_trials = len(truth)
    given = np.bincount(trials * n_labels + predicted, minlength=n_trials * n_labels)
    first = np.arange(n_trials) * n_labels
    right = given[first + truth].sum()
    by_chance = np.array([given[first + row].sum() for row in permuted])
    return float((1 + (by_chance >= right).sum()) / (1 + len(permuted)))
