"""Choices by validation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax

from boldly.config import ClassifierName
from boldly.decoders.classifiers import fit_classifier, log_loss
from boldly.decoders.selection import HeldOut, choose, folds, mixture, mixture_weights

LOGISTIC: list[tuple[ClassifierName, float]] = [("logistic", 1.0)]


def trials(n_units: int = 6, per_unit: int = 12, width: int = 10, signal: float = 1.0, n_labels: int = 3):
    """Return features of unit total variance, labels, and the unit of each trial."""
    rng = np.random.default_rng(0)
    labels = np.tile(np.arange(per_unit) % n_labels, n_units)
    means = np.random.default_rng(1).standard_normal((n_labels, width))
    features = signal * means[labels] + rng.standard_normal((len(labels), width))
    features -= features.mean(axis=0)
    features /= np.sqrt((features**2).sum(axis=1).mean())
    return features, labels, [f"{unit:02d}" for unit in np.repeat(np.arange(n_units), per_unit)]


def is_partition(parts: list[np.ndarray]) -> bool:
    return bool((np.sum(parts, axis=0) == 1).all() and all(part.any() for part in parts))


@pytest.mark.parametrize(("n_units", "n_folds"), [(2, 2), (3, 3), (5, 5), (6, 5), (11, 5)])
def test_folds_keep_units_together(n_units: int, n_folds: int) -> None:
    _, labels, units = trials(n_units)
    parts = folds([units, ["run"] * len(units)], labels)
    assert len(parts) == n_folds
    assert is_partition(parts)
    for part in parts:
        assert not set(np.array(units)[part]) & set(np.array(units)[~part])


def test_runs_are_left_out_of_a_single_unit() -> None:
    _, labels, _ = trials(4)
    runs = [f"run-{number}" for number in np.repeat(np.arange(4), 12)]
    parts = folds([["01"] * 48, runs], labels)
    assert len(parts) == 4
    for part in parts:
        assert len(set(np.array(runs)[part])) == 1


def test_a_run_with_a_state_of_its_own_is_not_left_out() -> None:
    """As in HCP, where each run is of one task: trials are parted in the order of time."""
    labels = np.repeat([0, 1, 2], 10)
    runs = [f"run-{label}" for label in labels]
    parts = folds([["01"] * 30, runs], labels)
    assert len(parts) == 5
    assert is_partition(parts)
    for part in parts:
        assert set(labels[~part]) == {0, 1, 2}
        # Neighbours stay together: two trials of each state, side by side.
        for label in range(3):
            assert np.diff(np.flatnonzero(part & (labels == label))).tolist() == [1]


def test_units_that_alone_have_a_state_are_not_left_out_either() -> None:
    units = ["01"] * 6 + ["02"] * 6
    labels = np.array([0, 1] * 3 + [1, 2] * 3)
    runs = [f"{unit}_{number % 2}" for number, unit in enumerate(np.repeat(range(4), 3))]
    for part in folds([units, runs], labels):
        assert set(labels[~part]) == {0, 1, 2}


@pytest.mark.parametrize("seed", range(20))
def test_no_fold_leaves_a_state_without_training_trials(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 40))
    labels = rng.integers(0, rng.integers(1, 6), n)
    units = [str(unit) for unit in rng.integers(0, 4, n)]
    runs = [f"{unit}{run}" for unit, run in zip(units, rng.integers(0, 2, n), strict=True)]
    parts = folds([units, runs], labels)
    if not parts:
        assert np.bincount(labels)[np.unique(labels)].min() == 1
        return
    assert is_partition(parts)
    for part in parts:
        assert set(labels[~part]) == set(labels)


def test_nothing_is_left_out_where_a_state_has_one_trial() -> None:
    assert folds([["01"] * 5, ["run"] * 5], np.array([0, 0, 1, 1, 2])) == []


def test_where_nothing_is_left_out_the_first_candidate_is_taken() -> None:
    features, labels, _ = trials()
    fitted = choose(features, labels, 3, [], [("logistic", 3.0), ("logistic", 0.1)])
    assert (fitted.name, fitted.penalty, fitted.temperature) == ("logistic", 3.0, 1)
    assert np.isnan([fitted.loss, fitted.accuracy]).all()
    expected = fit_classifier("logistic", 3.0, features, labels, 3).logits(features)
    np.testing.assert_allclose(fitted.classifier.logits(features), expected, atol=1e-4)


@pytest.mark.parametrize("name", ["logistic", "ridge", "lda"])
@pytest.mark.parametrize("penalty", [0.3, 3.0])
def test_more_features_than_trials_change_nothing_but_the_time(name: ClassifierName, penalty: float) -> None:
    features, labels, units = trials(4, 9, width=90)
    fitted = choose(features, labels, 3, folds([units], labels), [(name, penalty)])
    expected = fit_classifier(name, penalty, features, labels, 3, fitted.temperature)
    new = np.random.default_rng(3).standard_normal((50, 90)) / 10
    for some in (features, new):
        found = softmax(fitted.classifier.logits(some), axis=1)
        np.testing.assert_allclose(found, softmax(expected.logits(some), axis=1), atol=3e-3)


def test_features_without_any_variance_give_each_state_its_share() -> None:
    labels = np.array([0, 0, 1, 0, 0, 1])
    for width in (3, 30):
        fitted = choose(np.zeros((6, width), np.float32), labels, 2, [], LOGISTIC)
        said = softmax(fitted.classifier.logits(np.ones((1, width))), axis=1)
        np.testing.assert_allclose(said[0], [2 / 3, 1 / 3], atol=0.01)


def test_losses_are_those_of_the_trials_left_out() -> None:
    features, labels, units = trials()
    left_out = folds([units], labels)
    fitted = choose(features, labels, 3, left_out, LOGISTIC)
    said = np.zeros((len(labels), 3))
    for part in left_out:
        said[part] = fit_classifier("logistic", 1.0, features[~part], labels[~part], 3).logits(features[part])
    assert fitted.loss == pytest.approx(log_loss(said / fitted.temperature, labels), rel=1e-3)
    assert fitted.accuracy == np.mean(said.argmax(axis=1) == labels)


@pytest.mark.parametrize(("signal", "stronger"), [(0.15, True), (2.0, False)])
def test_the_candidate_that_errs_less_on_what_is_left_out_wins(signal: float, stronger: bool) -> None:
    features, labels, units = trials(signal=signal, width=40)
    left_out = folds([units], labels)
    both: list[tuple[ClassifierName, float]] = [("logistic", 100.0), ("logistic", 1e-3)]
    losses = [choose(features, labels, 3, left_out, [one]).loss for one in both]
    assert (losses[0] < losses[1]) == stronger
    for order in (both, both[::-1]):
        fitted = choose(features, labels, 3, left_out, order)
        assert fitted.penalty == both[int(np.argmin(losses))][1]
        assert fitted.loss == min(losses)


def test_kinds_of_classifiers_compete() -> None:
    features, labels, units = trials()
    left_out = folds([units], labels)
    candidates: list[tuple[ClassifierName, float]] = [
        ("logistic", 1.0),
        ("lda", 1.0),
        ("ridge", 1.0),
        ("mlp", 1.0),
    ]
    losses = [choose(features, labels, 3, left_out, [one]).loss for one in candidates]
    assert choose(features, labels, 3, left_out, candidates).name == candidates[int(np.argmin(losses))][0]


@pytest.mark.parametrize("name", ["logistic", "lda", "ridge"])
@pytest.mark.parametrize("penalty", [1e-3, 10.0])
def test_temperature_calibrates(name: ClassifierName, penalty: float) -> None:
    """How sure it is of what was left out is how often it is right, whatever the penalty."""
    features, labels, units = trials(n_units=30, width=40, signal=0.3)
    fitted = choose(features, labels, 3, folds([units], labels), [(name, penalty)])
    # Trials of the same states that nobody has seen.
    rng = np.random.default_rng(5)
    true = np.arange(600) % 3
    means = np.stack([features[labels == label].mean(axis=0) for label in range(3)])
    spread = (features - means[labels]).std()
    new = means[true] + spread * rng.standard_normal((600, 40))
    said = softmax(fitted.classifier.logits(new), axis=1)
    confidence = said.max(axis=1).mean()
    accuracy = np.mean(said.argmax(axis=1) == true)
    assert 0.4 < accuracy < 0.999
    # Three standard errors of 600 trials, and what the folds do not know.
    assert abs(confidence - accuracy) < 0.08
    # Neither limit of the temperature was met.
    assert -6.9 < np.log(fitted.temperature) < 6.9


def test_penalties_are_compared_by_what_they_know_not_by_how_loud_they_are() -> None:
    """Strong penalties leave logits near zero; the temperature makes up for it."""
    features, labels, units = trials(10, 40, width=200, signal=0.3, n_labels=20)
    left_out = folds([units], labels)
    weak, strong = (choose(features, labels, 20, left_out, [("logistic", p)]) for p in (1.0, 10.0))
    assert strong.accuracy == pytest.approx(weak.accuracy, abs=0.02)
    assert strong.loss == pytest.approx(weak.loss, rel=0.1)


@pytest.mark.parametrize("n_units", [2, 20])
def test_a_few_trials_that_are_told_apart_do_not_make_the_next_one_certain(n_units: int) -> None:
    features, labels, units = trials(n_units, 6, signal=6.0)
    fitted = choose(features, labels, 3, folds([units], labels), LOGISTIC)
    assert fitted.accuracy == 1
    said = softmax(fitted.classifier.logits(features), axis=1).max(axis=1)
    # One in 6 n + 2 is the doubt; the whole classifier has seen a little more than those of the folds.
    assert 0.2 < np.mean(1 - said) * (6 * n_units + 2) < 2


def test_states_that_nothing_trains_on_stay_unlikely_however_hot_it_is() -> None:
    """Features without signal ask for a high temperature; that must not make absent states likely."""
    features, labels, units = trials(signal=0.0, width=60)
    fitted = choose(features, 2 * labels, 6, folds([units], labels), [("logistic", 1e-6)])
    assert fitted.temperature > 5
    probabilities = softmax(fitted.classifier.logits(features), axis=1)
    assert probabilities[:, [1, 3, 5]].max() < 1e-3


def test_validation_trials_may_have_states_that_training_has_not() -> None:
    features, labels, _ = trials()
    validation = labels == 2
    validation[::5] = True
    fitted = choose(features, labels, 3, [validation], LOGISTIC)
    assert np.isfinite(fitted.loss)
    # Fitted to all trials in the end, it knows all states.
    assert np.mean(fitted.classifier.logits(features).argmax(axis=1) == labels) > 0.8


def held_out(true: np.ndarray, sure: np.ndarray) -> HeldOut:
    """Predictions of three states that give the true one the probability `sure`."""
    probabilities = np.tile((1 - sure)[:, None] / 2, 3)
    probabilities[np.arange(len(true)), true] = sure
    return HeldOut(probabilities, true)


def test_a_mixture_leans_on_the_classifier_that_predicts_left_out_trials() -> None:
    rng = np.random.default_rng(0)
    true = rng.integers(0, 3, 200)
    good, poor = held_out(true, rng.uniform(0.5, 0.9, 200)), held_out(true, np.full(200, 1 / 3))
    weights = mixture_weights([poor, good])
    assert weights.sum() == pytest.approx(1)
    assert weights[1] > 0.9
    # Two that are right about different trials: neither is left out, and together they are better than each.
    half = np.arange(200) < 100
    one, other = held_out(true, np.where(half, 0.9, 0.2)), held_out(true, np.where(half, 0.2, 0.9))
    both = mixture_weights([one, other])
    np.testing.assert_allclose(both, 0.5, atol=0.05)
    assert mixture([one, other], both).loss < min(one.loss, other.loss)


def test_few_left_out_trials_leave_weights_near_equal() -> None:
    true = np.array([0, 1])
    weights = mixture_weights([held_out(true, np.array([0.9, 0.9])), held_out(true, np.array([0.4, 0.4]))])
    assert 0.5 < weights[0] < 0.8


def test_a_classifier_that_was_certain_of_another_state_has_a_finite_loss() -> None:
    true = np.array([0, 1])
    certain = HeldOut(np.array([[0.0, 1.0], [0.0, 1.0]]), true)
    assert np.isfinite(certain.loss)
    assert np.isfinite(mixture_weights([certain, certain])).all()
