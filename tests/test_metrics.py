from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, f1_score

from boldly import metrics


def tallied(truth: np.ndarray, predicted: np.ndarray, units: np.ndarray, n_labels: int) -> np.ndarray:
    """Tallies of one fit, shape (1, 1, G, 3, L)."""
    return metrics.tally(truth, predicted, units, int(units.max()) + 1, n_labels)[None, None]


def test_metrics_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    truth = np.repeat(np.arange(4), (40, 25, 10, 5))  # unequal, so that the metrics differ
    predicted = np.where(rng.random(80) < 0.6, truth, rng.integers(4, size=80))
    estimate = metrics.estimate(tallied(truth, predicted, rng.integers(5, size=80), 4))
    assert estimate["accuracy"] == pytest.approx((truth == predicted).mean())
    assert estimate["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(truth, predicted))
    assert estimate["macro_f1"] == pytest.approx(f1_score(truth, predicted, average="macro"))
    np.testing.assert_array_equal(metrics.confusion(truth, predicted, 4), confusion_matrix(truth, predicted))


def test_labels_without_a_trial_do_not_count():
    truth, predicted = np.array([0, 0, 1, 1]), np.array([0, 0, 1, 1])
    estimate = metrics.estimate(tallied(truth, predicted, np.zeros(4, int), 5))
    assert estimate == {"accuracy": 1.0, "balanced_accuracy": 1.0, "macro_f1": 1.0}


def test_chance_is_naming_the_most_frequent_label():
    truth = np.array([2, 2, 2, 0, 1])
    constant = np.full(5, metrics.most_frequent(truth))
    estimate = metrics.estimate(tallied(truth, constant, np.zeros(5, int), 3))
    assert estimate["accuracy"] == pytest.approx(3 / 5)
    assert estimate["balanced_accuracy"] == pytest.approx(1 / 3)


def test_a_score_averages_draws_and_seeds():
    truth, units = np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1])
    right, half = truth, np.zeros(4, int)
    tallies = np.stack([tallied(truth, p, units, 2)[0, 0] for p in (right, half)])[:, None]
    assert metrics.estimate(tallies)["accuracy"] == pytest.approx(0.75)


def test_replicates_equal_a_bootstrap_written_as_a_loop():
    rng = np.random.default_rng(1)
    truth, units = rng.integers(3, size=60), np.repeat(np.arange(6), 10)
    predictions = [np.where(rng.random(60) < 0.5, truth, rng.integers(3, size=60)) for _ in range(2)]
    tallies = np.stack([tallied(truth, p, units, 3)[0, 0] for p in predictions])[:, None]
    resamples = metrics.resample(6, 2, 5, 3)
    replicates = metrics.replicates(tallies, resamples)
    for b in range(5):
        trials = np.concatenate(
            [np.flatnonzero(units == g).repeat(int(w)) for g, w in enumerate(resamples.units[b])]
        )
        scores = [f1_score(truth[trials], p[trials], average="macro") for p in predictions]
        assert replicates["macro_f1"][b] == pytest.approx(np.average(scores, weights=resamples.draws[b]))


def test_resamples_are_paired_by_their_seed():
    one, two = metrics.resample(9, 5, 100, 7), metrics.resample(9, 3, 100, 7)
    np.testing.assert_array_equal(one.units, two.units)
    assert not np.array_equal(one.units, metrics.resample(9, 5, 100, 8).units)
    assert (one.units.sum(axis=1) == 9).all()
    assert (one.draws.sum(axis=1) == 5).all()


def test_a_paired_difference_is_surer_than_either_score():
    rng = np.random.default_rng(2)
    units = np.repeat(np.arange(10), 20)
    truth = np.zeros(200, int)
    easy = rng.random(10)[units]  # subjects differ much, the decoders little
    worse, better = ((rng.random(200) > easy * share).astype(int) for share in (0.8, 1.0))
    resamples = metrics.resample(10, 1, 2000, 0)
    one, two = (metrics.replicates(tallied(truth, p, units, 2), resamples)["accuracy"] for p in (better, worse))
    low, high = metrics.interval(one, 10, 0.95)
    difference_low, difference_high = metrics.interval(one - two, 10, 0.95)
    assert difference_high - difference_low < 0.7 * (high - low)


def test_the_interval_covers_as_often_as_it_says():
    # Subjects with their own accuracy around 0.6: an interval that took trials for independent, or few subjects
    # for many, would cover far less than 0.95. 400 repetitions have a standard error of 0.011.
    rng = np.random.default_rng(3)
    n_units, n_trials, covered = 9, 40, 0
    units = np.repeat(np.arange(n_units), n_trials)
    for _ in range(400):
        accuracy = np.clip(rng.normal(0.6, 0.12, n_units), 0, 1)[units]
        predicted = (rng.random(len(units)) > accuracy).astype(int)
        tallies = tallied(np.zeros(len(units), int), predicted, units, 2)
        low, high = metrics.interval(
            metrics.replicates(tallies, metrics.resample(n_units, 1, 500, 5))["accuracy"], n_units, 0.95
        )
        covered += low <= 0.6 <= high
    assert 0.92 <= covered / 400 <= 0.98


def test_draws_widen_the_interval():
    units, truth = np.repeat(np.arange(8), 10), np.zeros(80, int)
    rng = np.random.default_rng(4)
    draws = [
        tallied(truth, (rng.random(80) > share).astype(int), units, 2)[0, 0] for share in (0.3, 0.5, 0.7, 0.9)
    ]
    tallies = np.stack(draws)[:, None]
    both = metrics.interval(metrics.replicates(tallies, metrics.resample(8, 4, 1000, 0))["accuracy"], 8, 0.95)
    fixed = metrics.Resamples(metrics.resample(8, 4, 1000, 0).units, np.ones((1000, 4)))
    units_only = metrics.interval(metrics.replicates(tallies, fixed)["accuracy"], 8, 0.95)
    assert both[1] - both[0] > 2 * (units_only[1] - units_only[0])


def test_wilson_interval():
    # Newcombe 1998 (doi:10.1002/(SICI)1097-0258(19980430)17:8<857), table I: 81 of 263, 0 of 20, 29 of 29.
    assert metrics.wilson(81 / 263, 263, 0.95) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert metrics.wilson(0.0, 20, 0.95) == pytest.approx((0.0, 0.1611), abs=1e-4)
    assert metrics.wilson(1.0, 29, 0.95) == pytest.approx((0.8830, 1.0), abs=1e-4)
