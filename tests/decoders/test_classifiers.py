"""Classifiers on fixed features."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, Ridge

from boldly.config import ClassifierName
from boldly.decoders.classifiers import Classifier, fit_classifier, log_loss

NAMES: tuple[ClassifierName, ...] = get_args(ClassifierName)


def data(n_labels: int, n_trials: int = 120, width: int = 6, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return features of unit total variance, some of it between states."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n_trials) % n_labels
    features = 1.5 * rng.standard_normal((n_labels, width))[labels] + rng.standard_normal((n_trials, width))
    features -= features.mean(axis=0)
    return features / np.sqrt((features**2).sum(axis=1).mean()), labels


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("n_labels", [2, 4])
def test_states_that_differ_are_told_apart(name: ClassifierName, n_labels: int) -> None:
    features, labels = data(n_labels)
    model = fit_classifier(name, 0.1, features, labels, n_labels)
    logits = model.logits(features)
    assert logits.shape == (120, n_labels)
    # Means lie 1.5 times the noise apart in each of six directions.
    assert np.mean(logits.argmax(axis=1) == labels) > 0.85


@pytest.mark.parametrize("name", NAMES)
def test_the_same_data_give_the_same_weights(name: ClassifierName) -> None:
    one, other = (fit_classifier(name, 0.1, *data(3), 3) for _ in range(2))
    for first, second in zip((*one.weights, *one.biases), (*other.weights, *other.biases), strict=True):
        np.testing.assert_array_equal(first, second)
        assert first.dtype == np.float32


@pytest.mark.parametrize("penalty", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("n_labels", [2, 4])
def test_logistic_is_that_of_scikit_learn(penalty: float, n_labels: int) -> None:
    features, labels = data(n_labels)
    model = LogisticRegression(C=1 / penalty, tol=1e-8, max_iter=2000).fit(features, labels)
    found = softmax(fit_classifier("logistic", penalty, features, labels, n_labels).logits(features), axis=1)
    # The optimiser of each stops short of the optimum.
    np.testing.assert_allclose(found, model.predict_proba(features), atol=2e-3)


@pytest.mark.parametrize("n_labels", [2, 4])
def test_lda_and_ridge_are_those_of_scikit_learn(n_labels: int) -> None:
    features, labels = data(n_labels)
    lda = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(features, labels)
    found = fit_classifier("lda", 1.0, features, labels, n_labels).logits(features)
    np.testing.assert_allclose(softmax(found, axis=1), lda.predict_proba(features), atol=1e-5)
    ridge = Ridge(alpha=2.0).fit(features, np.eye(n_labels)[labels])
    found = fit_classifier("ridge", 2.0, features, labels, n_labels).logits(features)
    np.testing.assert_allclose(found, ridge.predict(features), atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("temperature", [1.0, 15.0])
def test_states_without_trials_get_next_to_no_probability(name: ClassifierName, temperature: float) -> None:
    features, labels = data(3)
    names = np.array([1, 4, 5])
    model = fit_classifier(name, 1.0, features, names[labels], 7, temperature)
    logits = model.logits(features)
    probabilities = softmax(logits, axis=1)
    assert logits.shape == (120, 7)
    assert probabilities[:, [0, 2, 3, 6]].max() < 1e-4
    alone = softmax(fit_classifier(name, 1.0, features, labels, 3).logits(features) / temperature, axis=1)
    np.testing.assert_allclose(probabilities[:, names], alone, atol=1e-3)
    # And a trial of such a state costs much, not everything.
    assert 8 < log_loss(logits, np.full(120, 3)) < 60


@pytest.mark.parametrize("name", NAMES)
def test_a_single_state_is_what_every_trial_has(name: ClassifierName) -> None:
    features, labels = data(1)
    probabilities = softmax(fit_classifier(name, 1.0, features, labels + 2, 4).logits(features), axis=1)
    assert (probabilities[:, 2] > 0.999).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("counts", [(1, 1, 1), (1, 3, 9)])
def test_states_of_one_trial_are_enough(name: ClassifierName, counts: tuple[int, ...]) -> None:
    features, _ = data(3, n_trials=sum(counts))
    labels = np.repeat(np.arange(3), counts)
    logits = fit_classifier(name, 1.0, features, labels, 3).logits(features)
    assert np.isfinite(logits).all()
    if counts == (1, 1, 1):
        assert (logits.argmax(axis=1) == labels).all()


def test_layers_have_a_rectifier_between_them() -> None:
    weights = (np.array([[1.0, -1.0]], np.float32), np.array([[1.0, 0.0], [0.0, 1.0]], np.float32))
    model = Classifier(weights, (np.zeros(2, np.float32), np.array([0.0, 0.5], np.float32)))
    np.testing.assert_allclose(model.logits(np.array([[3.0], [-2.0]])), [[3, 0.5], [0, 2.5]])


def test_log_loss_is_that_of_the_probabilities() -> None:
    logits = np.array([[0.0, np.log(3)], [1000.0, -1000.0]])
    assert log_loss(logits, np.array([1, 0])) == pytest.approx(-np.log(0.75) / 2)
    assert log_loss(logits, np.array([1, 1])) == pytest.approx((-np.log(0.75) + 2000) / 2)
