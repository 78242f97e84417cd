"""Classifiers on fixed features, fitted in closed form or by convex optimisation; scikit-learn does the fitting.

What is kept of a classifier are arrays: layers of weights and biases, the last of which give one logit per state.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge

from boldly.config import ClassifierName

Floats = NDArray[np.float32]
Matrix = NDArray[np.float64]
Labels = NDArray[np.int64]

# How far the logit of a state that no training trial has lies below the smallest of the others.
UNSEEN = 10.0
# Features have a total variance of one per block. The optimiser works better on larger numbers.
_UNIT = 10.0
_MOST_ITERATIONS = 500
_HIDDEN = 128


@dataclass(frozen=True)
class Classifier:
    """Layers of weights and biases, with a rectifier between them.

    Attributes
    ----------
    weights : tuple of ndarray of float32, shapes (D, H), ..., (H, labels)
        Weights; a linear classifier has one layer.
    biases : tuple of ndarray of float32, shapes (H,), ..., (labels,)
        Biases.
    """

    weights: tuple[Floats, ...]
    biases: tuple[Floats, ...]

    def logits(self, features: NDArray[np.floating]) -> Matrix:
        """Return logits (R, labels) of features (R, D)."""
        hidden: Matrix = features.astype(np.float64)
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            hidden = (np.maximum(hidden, 0) if layer else hidden) @ weight.astype(np.float64) + bias
        return hidden


def fit_classifier(
    name: ClassifierName,
    penalty: float,
    features: Matrix,
    labels: Labels,
    n_labels: int,
    temperature: float = 1.0,
) -> Classifier:
    """Fit a classifier.

    Parameters
    ----------
    name : {"logistic", "lda", "ridge", "mlp"}
        Kind.
    penalty : float
        Strength of the penalty on squared weights, against the summed loss of the trials (logistic, ridge) or the
        mean (mlp). `lda` finds its shrinkage by itself (Ledoit & Wolf 2004).
    features : ndarray of float64, shape (R, D)
        Features of the training trials.
    labels : ndarray of int64, shape (R,)
        Their states.
    n_labels : int
        Number of states L; those that no trial has get next to no probability.
    temperature : float, default=1
        Logits of the others are divided by it.
    """
    found, places = np.unique(labels, return_inverse=True)
    if len(found) == 1:
        width = features.shape[1]
        return _with_unseen((np.zeros((width, 1)),), (np.zeros(1),), found, n_labels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        # LDA pools the covariances of the states: one of them may have a single trial.
        warnings.filterwarnings("ignore", "Only one sample available")
        weights, biases = _FITS[name](features, places, penalty)
    weights = (*weights[:-1], weights[-1] / temperature)
    biases = (*biases[:-1], biases[-1] / temperature)
    return _with_unseen(weights, biases, found, n_labels)


Layers = tuple[tuple[Matrix, ...], tuple[Matrix, ...]]


def _logistic(features: Matrix, labels: Labels, penalty: float) -> Layers:
    model = LogisticRegression(C=1 / (penalty * _UNIT**2), max_iter=_MOST_ITERATIONS)
    model.fit(features * _UNIT, labels)
    return _linear(model.coef_ * _UNIT, model.intercept_)


def _lda(features: Matrix, labels: Labels, penalty: float) -> Layers:
    if len(labels) <= labels.max() + 1:
        # One trial of each state: nothing tells the covariance, and what is left of LDA is the nearest mean.
        means = np.stack([features[labels == label].mean(axis=0) for label in range(labels.max() + 1)])
        return (means.T,), (-(means**2).sum(axis=1) / 2,)
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(features, labels)
    return _linear(model.coef_, model.intercept_)


def _ridge(features: Matrix, labels: Labels, penalty: float) -> Layers:
    model = Ridge(alpha=penalty).fit(features, np.eye(labels.max() + 1)[labels])
    return (model.coef_.T,), (model.intercept_,)


def _mlp(features: Matrix, labels: Labels, penalty: float) -> Layers:
    from sklearn.neural_network import MLPClassifier

    model = MLPClassifier(
        (_HIDDEN,), alpha=penalty, max_iter=_MOST_ITERATIONS // 2, learning_rate_init=1e-2, random_state=0
    )
    model.fit(features * _UNIT, labels)
    first, second = model.coefs_
    if second.shape[1] == 1:
        # Two states: one logit, of the second.
        return _pair((first * _UNIT, second), tuple(model.intercepts_))
    return (first * _UNIT, second), tuple(model.intercepts_)


_FITS = {"logistic": _logistic, "lda": _lda, "ridge": _ridge, "mlp": _mlp}


def _linear(coefficients: Matrix, intercepts: Matrix) -> Layers:
    layers: Layers = ((coefficients.T,), (intercepts,))
    return _pair(*layers) if len(intercepts) == 1 else layers


def _pair(weights: tuple[Matrix, ...], biases: tuple[Matrix, ...]) -> Layers:
    """Turn the one logit of two states into two."""
    last = np.concatenate([np.zeros_like(weights[-1]), weights[-1]], axis=1)
    return (*weights[:-1], last), (*biases[:-1], np.concatenate([[0.0], biases[-1]]))


def _with_unseen(
    weights: tuple[Matrix, ...], biases: tuple[Matrix, ...], found: Labels, n_labels: int
) -> Classifier:
    """Give the states that no trial has logits below those of the others."""
    last, bias = weights[-1], biases[-1]
    whole = np.repeat(last.mean(axis=1, keepdims=True), n_labels, axis=1)
    whole_bias = np.full(n_labels, bias.min() - UNSEEN)
    whole[:, found], whole_bias[found] = last, bias
    return Classifier(
        tuple(weight.astype(np.float32) for weight in (*weights[:-1], whole)),
        tuple(part.astype(np.float32) for part in (*biases[:-1], whole_bias)),
    )


def log_loss(logits: Matrix, labels: Labels) -> float:
    """Return the mean negative logarithm of the probability that the true states were given."""
    return float(-log_softmax(logits, axis=1)[np.arange(len(labels)), labels].mean())
