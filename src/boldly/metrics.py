"""How good predictions are, and how sure that is: metrics, and intervals over units and draws."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Integers = NDArray[np.int64]


def tally(truth: Integers, predicted: Integers, units: Integers, n_units: int, n_labels: int) -> Array:
    """Count what all metrics are made of, for each unit.

    Parameters
    ----------
    truth, predicted : ndarray of int, shape (N,)
        Labels of N trials.
    units : ndarray of int, shape (N,)
        Number of the unit (test subject, run or trial) of each trial.
    n_units, n_labels : int
        Number of units G and of labels L.

    Returns
    -------
    ndarray of float64, shape (G, 3, L)
        For each label the trials named correctly, the trials that have it, and the trials that were given it.
        Tallies of units add up.
    """
    hit = truth == predicted
    counts = [
        np.bincount(unit * n_labels + label, minlength=n_units * n_labels).reshape(n_units, n_labels)
        for unit, label in ((units[hit], truth[hit]), (units, truth), (units, predicted))
    ]
    return np.stack(counts, axis=1).astype(np.float64)


def accuracy(tallies: Array) -> Array:
    """Return the share of trials named correctly, shape (...), of tallies (..., 3, L)."""
    correct, present, _ = np.moveaxis(tallies, -2, 0)
    return correct.sum(-1) / present.sum(-1)


def balanced_accuracy(tallies: Array) -> Array:
    """Return the mean over labels that have trials of the share named correctly, shape (...)."""
    correct, present, _ = np.moveaxis(tallies, -2, 0)
    return _mean_over_present(correct / np.maximum(present, 1), present)


def macro_f1(tallies: Array) -> Array:
    """Return the mean over labels that have trials of F1, shape (...)."""
    correct, present, given = np.moveaxis(tallies, -2, 0)
    return _mean_over_present(2 * correct / np.maximum(present + given, 1), present)


def _mean_over_present(values: Array, present: Array) -> Array:
    there = present > 0
    return (values * there).sum(-1) / there.sum(-1)


METRICS: dict[str, Callable[[Array], Array]] = {
    "accuracy": accuracy,
    "balanced_accuracy": balanced_accuracy,
    "macro_f1": macro_f1,
}


def most_frequent(truth: Integers) -> int:
    """Return the most frequent label, the smallest of several.

    Naming it always is what "chance" means here: the best that can be done without data. Its accuracy is never
    below 1 / (number of labels), and the same for labels that are equally frequent.
    """
    return int(np.bincount(truth).argmax())


def confusion(truth: Integers, predicted: Integers, n_labels: int) -> Integers:
    """Return the number of trials of each label (rows) that were given each label (columns), shape (L, L)."""
    return np.bincount(truth * n_labels + predicted, minlength=n_labels**2).reshape(n_labels, n_labels)


@dataclass(frozen=True)
class Resamples:
    """How often each unit and each draw stands in each bootstrap resample.

    Attributes
    ----------
    units : ndarray of float64, shape (B, G)
        Units, drawn with replacement.
    draws : ndarray of float64, shape (B, D)
        Draws, drawn with replacement, independently of the units.
    """

    units: Array
    draws: Array


@lru_cache(maxsize=16)
def resample(n_units: int, n_draws: int, resamples: int, seed: int) -> Resamples:
    """Draw units and draws with replacement.

    The same arguments give the same resamples, so replicates of two experiments on the same units are paired.

    Parameters
    ----------
    n_units, n_draws : int
        Number of units G and of draws D.
    resamples : int
        Number of resamples B.
    seed : int
        Seed of both.
    """
    chosen = []
    for stream, size in enumerate((n_units, n_draws)):
        rng = np.random.default_rng([seed, stream])
        chosen.append(rng.multinomial(size, np.full(size, 1 / size), size=resamples).astype(np.float64))
    return Resamples(*chosen)


def estimate(tallies: Array) -> dict[str, float]:
    """Return each metric: of all units together, averaged over draws and seeds.

    Parameters
    ----------
    tallies : ndarray, shape (D, S, G, 3, L)
        Tallies of D draws, S seeds and G units.
    """
    return {name: float(metric(tallies.sum(axis=2)).mean()) for name, metric in METRICS.items()}


def replicates(tallies: Array, resamples: Resamples) -> dict[str, Array]:
    """Return the metrics of each bootstrap resample of units and draws.

    Units and draws are crossed (each draw is tested on the same units) and resampled independently, which is
    slightly conservative (the pigeonhole bootstrap; Owen 2007, doi:10.1214/07-AOAS122). Seeds are averaged within
    a draw.

    Parameters
    ----------
    tallies : ndarray, shape (D, S, G, 3, L)
        Tallies of D draws, S seeds and G units.
    resamples : Resamples
        Of G units and D draws.

    Returns
    -------
    dict of str to ndarray of float64, shape (B,)
        By metric.
    """
    n_draws, n_seeds, n_units, _, n_labels = tallies.shape
    totals = {name: np.zeros(len(resamples.units)) for name in METRICS}
    for draw in range(n_draws):
        weight = resamples.draws[:, draw] / (n_draws * n_seeds)
        for seed in range(n_seeds):
            # (B, G) x (G, 3L): the tallies of every resample at once.
            counts = resamples.units @ tallies[draw, seed].reshape(n_units, -1)
            for name, metric in METRICS.items():
                totals[name] += weight * metric(counts.reshape(-1, 3, n_labels))
    return totals


def interval(values: Array, n_units: int, confidence: float) -> tuple[float, float]:
    """Return the expanded percentile interval of bootstrap replicates.

    Plain percentiles are too narrow for few units: they miss the factor n / (n - 1) of the variance and the
    quantile of Student's t. The expanded interval takes the percentiles at which a normal distribution would have
    both (Hesterberg 2015, doi:10.1080/00031305.2015.1089789).

    Parameters
    ----------
    values : ndarray, shape (B,)
        Replicates.
    n_units : int
        Number of units that were resampled, at least 2.
    confidence : float
        Level, as 0.95.
    """
    from scipy import stats  # takes longer than most figures, which never get here

    tail = (1 - confidence) / 2
    quantile = np.sqrt(n_units / (n_units - 1)) * stats.t.ppf(tail, n_units - 1)
    level = float(stats.norm.cdf(quantile))
    low, high = np.quantile(values, [level, 1 - level])
    return float(low), float(high)


def wilson(share: float, total: int, confidence: float) -> tuple[float, float]:
    """Return Wilson's interval of a share of independent trials (Wilson 1927, doi:10.1080/01621459.1927.10502953).

    Parameters
    ----------
    share : float
        Share of successes, 0 to 1.
    total : int
        Number of trials.
    confidence : float
        Level, as 0.95.
    """
    from scipy import stats

    z = float(stats.norm.ppf((1 + confidence) / 2))
    centre = (share + z**2 / (2 * total)) / (1 + z**2 / total)
    half = z / (1 + z**2 / total) * float(np.sqrt(share * (1 - share) / total + z**2 / (4 * total**2)))
    return max(0.0, centre - half), min(1.0, centre + half)
