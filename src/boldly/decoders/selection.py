"""Which read-out, layers, classifier and penalty: chosen on validation units, or inside the training units.

Nothing here ever sees a test unit. Predictions for trials that were left out also tell how sure of itself a
classifier may be: its logits are divided by the temperature at which they are least wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from boldly.config import ClassifierName
from boldly.decoders.classifiers import UNSEEN, Classifier, Labels, Matrix, fit_classifier, log_loss

Bools = NDArray[np.bool_]

_MOST_FOLDS = 5
_MOST_LDA_FEATURES = 1024
# Range of the temperature, as powers of e.
_COOLEST, _HOTTEST = -2.0, 3.0


@dataclass(frozen=True)
class Fitted:
    """The outcome of a choice among classifiers.

    Attributes
    ----------
    classifier : Classifier
        Fitted to all trials, cooled.
    name, penalty : str, float
        What was chosen.
    temperature : float
        What its logits were divided by.
    loss, accuracy : float
        Log loss and accuracy on the trials left out; nan where there was nothing to leave out.
    """

    classifier: Classifier
    name: ClassifierName
    penalty: float
    temperature: float
    loss: float
    accuracy: float


def folds(groups: Sequence[Sequence[str]], labels: Labels) -> list[Bools]:
    """Part training trials for cross-validation.

    Trials of a group stay together. Groups are units, or what comes next in `groups` (runs), where leaving one
    group out would leave no trial of some state; where that holds for all, trials of each state are parted in the
    order of time, so that neighbours mostly stay together.

    Parameters
    ----------
    groups : sequence of sequence of str, each of length R
        Names of each trial's groups, the coarsest first.
    labels : ndarray of int64, shape (R,)
        States.

    Returns
    -------
    list of ndarray of bool, shape (R,)
        Trials that are left out together; five folds at most. Empty where some state has one trial only.
    """
    for names in groups:
        _, group = np.unique(np.asarray(names), return_inverse=True)
        if group.max() == 0:
            continue
        fold = group % min(_MOST_FOLDS, int(group.max()) + 1)
        parts = [fold == number for number in range(int(fold.max()) + 1)]
        if all(set(labels[~part]) == set(labels) for part in parts):
            return parts
    counts = np.bincount(labels)
    number = min(_MOST_FOLDS, int(counts[counts > 0].min()))
    if number < 2:
        return []
    place = np.zeros(len(labels), np.int64)
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        place[own] = np.arange(len(own)) * number // len(own)
    return [place == fold for fold in range(number)]


def left_out_logits(
    features: NDArray[np.floating],
    labels: Labels,
    n_labels: int,
    left_out: Sequence[Bools],
    name: ClassifierName,
    penalty: float,
    temperature: float,
) -> Matrix:
    """Return what a classifier says of trials when it is fitted to the others.

    Parameters
    ----------
    features, labels, n_labels, left_out
        As those of `choose`.
    name, penalty, temperature : str, float, float
        What was chosen.

    Returns
    -------
    ndarray of float64, shape (R, n_labels)
        Logits; nan for trials that are never left out. States that no trial has lie far below the others.
    """
    is_wide = name == "lda" and features.shape[1] <= _MOST_LDA_FEATURES
    own = features.astype(np.float64) if is_wide else _rotated(features)[0]
    known, states = np.unique(labels, return_inverse=True)
    logits = np.full((len(labels), n_labels), np.nan)
    for out in left_out:
        model = fit_classifier(name, penalty, own[~out], states[~out], len(known))
        said = model.logits(own[out]) / temperature
        block = np.repeat(said.min(axis=1, keepdims=True) - UNSEEN, n_labels, axis=1)
        block[:, known] = said
        logits[out] = block
    return logits


def choose(
    features: NDArray[np.floating],
    labels: Labels,
    n_labels: int,
    left_out: Sequence[Bools],
    candidates: Sequence[tuple[ClassifierName, float]],
) -> Fitted:
    """Choose a classifier and its penalty, and fit it to all trials.

    Parameters
    ----------
    features : ndarray, shape (R, D)
        Scaled features of the training trials and, where there are any, the validation trials.
    labels : ndarray of int64, shape (R,)
        Their states.
    n_labels : int
        Number of states.
    left_out : sequence of ndarray of bool, shape (R,)
        Trials to leave out together, fitting to all others: folds, or the validation trials. Empty: the first
        candidate is taken.
    candidates : sequence of (str, float)
        Classifiers and penalties, in the order of preference where they are equally good.
    """
    small, project = _rotated(features)
    wide = features.astype(np.float64)

    def space(name: ClassifierName) -> Matrix:
        # The shrinkage of LDA treats features one by one: it is no matter of rotation, but too slow for many.
        return wide if name == "lda" and wide.shape[1] <= _MOST_LDA_FEATURES else small

    best = Fitted(Classifier((), ()), *candidates[0], 1.0, float("nan"), float("nan"))
    for name, penalty in candidates if left_out else ():
        logits, truth = [], []
        for out in left_out:
            own = space(name)
            model = fit_classifier(name, penalty, own[~out], labels[~out], n_labels)
            logits.append(model.logits(own[out]))
            truth.append(labels[out])
        said, true = np.concatenate(logits), np.concatenate(truth)
        temperature = _temperature(said, true)
        loss = log_loss(said / temperature, true)
        if not loss >= best.loss:
            accuracy = float((said.argmax(axis=1) == true).mean())
            best = Fitted(best.classifier, name, penalty, temperature, loss, accuracy)
    model = fit_classifier(best.name, best.penalty, space(best.name), labels, n_labels)
    if space(best.name) is small:
        first = (project @ model.weights[0]).astype(np.float32)
        model = Classifier((first, *model.weights[1:]), model.biases)
    whole = model.cooled(best.temperature)
    return Fitted(whole, best.name, best.penalty, best.temperature, best.loss, best.accuracy)


def _rotated(features: NDArray[np.floating]) -> tuple[Matrix, Matrix]:
    """Return features in the space that the trials span, (R, rank), and the map to it, (D, rank).

    Penalties on squared weights do not care for rotations, and weights outside of that space stay zero: with fewer
    trials than features the outcome is the same in a fraction of the time.
    """
    n_trials, n_features = features.shape
    if n_features <= n_trials:
        return features.astype(np.float64), np.eye(n_features)
    wide = features.astype(np.float64)
    values, vectors = np.linalg.eigh(wide @ wide.T)
    keep = values > 1e-10 * values[-1]
    project = wide.T @ (vectors[:, keep] / np.sqrt(values[keep]))
    return wide @ project, project


def _temperature(logits: Matrix, labels: Labels) -> float:
    found = minimize_scalar(
        lambda power: log_loss(logits / np.exp(power), labels), bounds=(_COOLEST, _HOTTEST), method="bounded"
    )
    return float(np.exp(found.x))
