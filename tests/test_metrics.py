from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, f1_score, log_loss, recall_score

from boldly import intervals, metrics


def counted(
    truth: np.ndarray,
    predicted: np.ndarray,
    units: np.ndarray,
    n_labels: int,
    probabilities: np.ndarray | None = None,
) -> metrics.Counts:
    """Counts of one fit, shape (1, 1, U)."""
    n_units = int(units.max()) + 1
    return metrics.count(truth, predicted, units, n_units, n_labels, probabilities).reshape(1, 1, n_units)


def estimates(counts: metrics.Counts) -> dict[str, float]:
    return {name: metrics.estimate(metric, counts) for name, metric in metrics.METRICS.items()}


def study(n: int = 80) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth, predictions and probabilities of unequally frequent labels, so that the metrics differ."""
    rng = np.random.default_rng(0)
    truth = np.repeat(np.arange(4), (n // 2, n // 4, n // 8, n // 8))
    logits = rng.normal(size=(n, 4)) + 1.5 * np.eye(4)[truth]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return truth, probabilities.argmax(axis=1), probabilities


def test_metrics_are_those_of_scikit_learn():
    truth, predicted, probabilities = study()
    counts = counted(truth, predicted, np.arange(80) % 5, 4, probabilities)
    estimate = estimates(counts)
    assert estimate["accuracy"] == pytest.approx((truth == predicted).mean())
    assert estimate["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(truth, predicted))
    assert estimate["macro_f1"] == pytest.approx(f1_score(truth, predicted, average="macro"))
    assert estimate["log_loss"] == pytest.approx(log_loss(truth, probabilities))
    recalls = [metrics.recall(counts.total(), label).item() for label in range(4)]
    assert recalls == pytest.approx(recall_score(truth, predicted, average=None))
    np.testing.assert_array_equal(metrics.confusion(truth, predicted, 4), confusion_matrix(truth, predicted))


def test_calibration_error_is_that_of_its_definition():
    truth, predicted, probabilities = study(400)
    sure, right = probabilities.max(axis=1), truth == predicted
    edges = np.linspace(0, 1, metrics.BINS + 1)
    expected = 0.0
    for low, high in pairwise(edges):
        inside = (sure > low) & (sure <= high)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - sure[inside].mean())
    counts = counted(truth, predicted, np.arange(400) % 3, 4, probabilities)
    assert estimates(counts)["calibration_error"] == pytest.approx(expected)


def test_a_certain_and_wrong_prediction_has_a_finite_log_loss():
    counts = counted(np.array([0]), np.array([1]), np.array([0]), 2, np.array([[0.0, 1.0]], np.float32))
    assert estimates(counts)["log_loss"] == pytest.approx(-np.log(1e-6))  # the resolution of the predictions
    assert estimates(counts)["calibration_error"] == 1


def test_without_probabilities_there_is_neither_log_loss_nor_calibration():
    estimate = estimates(counted(np.array([0, 1]), np.array([0, 0]), np.array([0, 1]), 2))
    assert np.isnan([estimate["log_loss"], estimate["calibration_error"]]).all()
    assert estimate["accuracy"] == 0.5


def test_labels_without_a_trial_do_not_count():
    truth, predicted = np.array([0, 0, 1, 1]), np.array([0, 0, 1, 1])
    counts = counted(truth, predicted, np.zeros(4, int), 5)
    estimate = estimates(counts)
    assert [estimate[name] for name in ("accuracy", "balanced_accuracy", "macro_f1")] == [1, 1, 1]
    assert np.isnan(metrics.recall(counts.total(), 4)).all()


def test_naming_the_most_frequent_label():
    truth = np.array([2, 2, 2, 0, 1])
    constant = np.full(5, metrics.most_frequent(truth))
    estimate = estimates(counted(truth, constant, np.zeros(5, int), 3))
    assert estimate["accuracy"] == pytest.approx(3 / 5)
    assert estimate["balanced_accuracy"] == pytest.approx(1 / 3)


def test_a_score_averages_draws_and_seeds():
    truth, units = np.array([0, 1, 0, 1] * 2), np.array([0, 0, 1, 1, 2, 2, 3, 3])
    predicted = np.array([0, 1, 0, 1, 0, 0, 0, 0])  # the first fit is right, the second half right
    counts = metrics.count(truth, predicted, units, 4, 2).reshape(2, 1, 2)
    assert metrics.estimate(metrics.accuracy, counts) == pytest.approx(0.75)


def test_pseudo_values_of_accuracy_are_the_accuracies_of_units():
    rng = np.random.default_rng(1)
    truth, units = rng.integers(3, size=60), np.repeat(np.arange(6), 10)
    predicted = np.where(rng.random(60) < 0.5, truth, rng.integers(3, size=60))
    values = metrics.pseudo_values(metrics.accuracy, counted(truth, predicted, units, 3))
    np.testing.assert_allclose(values[0, 0], (truth == predicted).reshape(6, 10).mean(axis=1))


def test_pseudo_values_equal_a_jackknife_written_as_a_loop():
    rng = np.random.default_rng(1)
    truth, units = rng.integers(3, size=60), np.repeat(np.arange(6), (4, 6, 10, 10, 15, 15))
    predicted = np.where(rng.random(60) < 0.5, truth, rng.integers(3, size=60))
    values = metrics.pseudo_values(metrics.macro_f1, counted(truth, predicted, units, 3))[0, 0]
    whole = f1_score(truth, predicted, average="macro")
    for unit in range(6):
        rest = f1_score(truth[units != unit], predicted[units != unit], average="macro")
        assert values[unit] == pytest.approx(6 * whole - 5 * rest)


def test_a_paired_difference_is_surer_than_either_score():
    rng = np.random.default_rng(2)
    units, truth = np.repeat(np.arange(10), 20), np.zeros(200, int)
    easy = rng.random(10)[units]  # subjects differ much, the decoders little
    one, two = (
        metrics.pseudo_values(
            metrics.accuracy, counted(truth, (rng.random(200) > easy * share).astype(int), units, 2)
        )
        for share in (1.0, 0.8)
    )
    half = intervals.spread(one).half_width(0.95)
    assert intervals.spread(one - two).half_width(0.95) < 0.7 * half


@pytest.mark.parametrize(("metric", "truth_value"), [("accuracy", 0.6), ("balanced_accuracy", 0.6)])
def test_the_interval_of_a_study_covers_as_often_as_it_says(metric, truth_value):
    # Subjects with their own accuracy around 0.6: an interval that took trials for independent, or few subjects
    # for many, would cover far less than 0.95. 400 repetitions have a standard error of 0.011.
    rng = np.random.default_rng(3)
    n_units, n_trials, covered = 9, 40, 0
    units = np.repeat(np.arange(n_units), n_trials)
    truth = np.arange(len(units)) % 2
    for _ in range(400):
        chance = np.clip(rng.normal(truth_value, 0.12, n_units), 0, 1)[units]
        predicted = np.where(rng.random(len(units)) < chance, truth, 1 - truth)
        counts = counted(truth, predicted, units, 2)
        half = intervals.spread(metrics.pseudo_values(metrics.METRICS[metric], counts)).half_width(0.95)
        covered += abs(metrics.estimate(metrics.METRICS[metric], counts) - truth_value) <= half
    assert 0.92 <= covered / 400 <= 0.98


def test_permutations_stay_within_groups_and_are_seeded():
    groups, labels = np.array([1, 0, 1, 0, 1, 0]), np.array([5, 0, 6, 1, 7, 2])
    permuted = metrics.permuted_within(groups, labels, 50, seed=1)
    assert {tuple(sorted(row[groups == 0])) for row in permuted} == {(0, 1, 2)}
    assert {tuple(sorted(row[groups == 1])) for row in permuted} == {(5, 6, 7)}
    assert len({tuple(row) for row in permuted}) > 20  # of 36 orders
    np.testing.assert_array_equal(permuted, metrics.permuted_within(groups, labels, 50, seed=1))


def test_the_permutation_p_value_is_that_of_its_definition():
    rng = np.random.default_rng(4)
    truth, groups = rng.integers(3, size=30), np.repeat(np.arange(3), 10)
    permuted = metrics.permuted_within(groups, truth, 200, seed=2)
    trials = np.tile(np.arange(30), 2)  # two fits
    predicted = np.where(rng.random(60) < 0.2, truth[trials], rng.integers(3, size=60))
    right = (truth[trials] == predicted).sum()
    as_often = sum((row[trials] == predicted).sum() >= right for row in permuted)
    p = metrics.permutation_p(truth, permuted, trials, predicted, 3)
    assert p == pytest.approx((1 + as_often) / 201)
    assert metrics.permutation_p(truth, permuted, trials, truth[trials], 3) == pytest.approx(1 / 201)


def test_permutation_p_values_are_uniform_without_signal():
    rng = np.random.default_rng(5)
    p_values = []
    for seed in range(300):
        truth, groups = rng.integers(3, size=60), np.repeat(np.arange(6), 10)
        permuted = metrics.permuted_within(groups, truth, 99, seed)
        p_values.append(metrics.permutation_p(truth, permuted, np.arange(60), rng.integers(3, size=60), 3))
    # 5 % of 300 have a standard error of 1.3 %; ties make it smaller, never larger.
    assert 0.01 <= np.mean(np.array(p_values) <= 0.05) <= 0.09
