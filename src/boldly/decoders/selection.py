"""Which read-out, layers, classifier and penalty: chosen on validation units, or inside the training units.

Nothing here ever sees a test unit. Predictions for trials that were left out also tell how sure of itself a
classifier may be: its logits are divided by the temperature at which they are least wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from boldly.config import ClassifierName
from boldly.decoders.classifiers import UNSEEN, Classifier, Labels, Matrix, fit_classifier, log_loss
from boldly.files import atomic_path
from boldly.records import InputError, Problem

Bools = NDArray[np.bool_]

# Predictions for trials that were left out, beside a decoder.
LEFT_OUT = "left_out.safetensors"
_MOST_FOLDS = 5
_MOST_LDA_FEATURES = 1024
_MOST_ITERATIONS = 200
# Columns that are summed over at a time.
_COLUMNS = 16384
# Range of the temperature, as powers of e. Strong penalties leave logits that are all but equal.
_COOLEST, _HOTTEST = -7.0, 7.0


@dataclass(frozen=True)
class HeldOut:
    """Predictions for trials that were left out of the fit.

    Attributes
    ----------
    probabilities : ndarray, shape (R, states)
        Probability of each state that the training trials have.
    states : ndarray of int64, shape (R,)
        The true ones, as numbers of columns.
    """

    probabilities: Matrix
    states: Labels

    def save(self, folder: Path) -> None:
        """Write the arrays beside a decoder, atomically: ensembles weigh their members by them."""
        arrays = {"probabilities": np.ascontiguousarray(self.probabilities), "states": self.states}
        with atomic_path(folder / LEFT_OUT) as temporary:
            save_file(arrays, temporary)

    @classmethod
    def load(cls, folder: Path) -> HeldOut | None:
        """Read what `save` wrote; None where no trial could be left out of the fit.

        Raises
        ------
        InputError
            For a damaged file.
        """
        path = folder / LEFT_OUT
        if not path.exists():
            return None
        try:
            arrays = load_file(path)
            return cls(arrays["probabilities"], arrays["states"])
        except (OSError, KeyError, SafetensorError) as error:
            message = f"not readable: {type(error).__name__} {error}"
            raise InputError(Problem(str(path), "", message, "rerun adapt for this experiment")) from None

    @property
    def loss(self) -> float:
        """Log loss."""
        return float(-np.log(self.of_truth).mean())

    @property
    def of_truth(self) -> Matrix:
        """Probability of each trial's true state, (R,), above zero even where a classifier ruled it out."""
        true = self.probabilities[np.arange(len(self.states)), self.states]
        return np.maximum(true, np.finfo(np.float64).tiny)

    @property
    def accuracy(self) -> float:
        """Share of trials whose likeliest state is the true one."""
        return float((self.probabilities.argmax(axis=1) == self.states).mean())


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
    held_out : HeldOut or None
        Predictions for the trials left out.
    """

    classifier: Classifier
    name: ClassifierName
    penalty: float
    temperature: float
    loss: float
    accuracy: float
    held_out: HeldOut | None = None


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
    few = len(features) if name != "lda" else max(len(features), _MOST_LDA_FEATURES)
    own = features.astype(np.float64) if features.shape[1] <= few else _rotated(features)[0]
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
    few = features.shape[1] <= len(features)
    small, combine = (features.astype(np.float64), None) if few else _rotated(features)

    def space(name: ClassifierName) -> Matrix:
        # The shrinkage of LDA treats features one by one: it is no matter of rotation, but too slow for many.
        separate = name == "lda" and features.shape[1] <= _MOST_LDA_FEATURES
        return features.astype(np.float64) if separate else small

    # States that no trial has would have a say in the temperature.
    known, states = np.unique(labels, return_inverse=True)
    best = Fitted(Classifier((), ()), *candidates[0], 1.0, float("nan"), float("nan"))
    for name, penalty in candidates if left_out else ():
        logits, truth = [], []
        own = space(name)
        for out in left_out:
            model = fit_classifier(name, penalty, own[~out], states[~out], len(known))
            logits.append(model.logits(own[out]))
            truth.append(states[out])
        said, true = np.concatenate(logits), np.concatenate(truth)
        temperature = _temperature(said, true)
        loss = log_loss(said / temperature, true)
        if not loss >= best.loss:
            held_out = HeldOut(softmax(said / temperature, axis=1), true)
            best = Fitted(best.classifier, name, penalty, temperature, loss, held_out.accuracy, held_out)
    own = space(best.name)
    model = fit_classifier(best.name, best.penalty, own, labels, n_labels, best.temperature)
    if combine is not None and own is small:
        first = _products(features, combine @ model.weights[0]).astype(np.float32)
        model = Classifier((first, *model.weights[1:]), model.biases)
    return replace(best, classifier=model)


def mixture_weights(members: Sequence[HeldOut]) -> Matrix:
    """Return the weights with which a mixture of classifiers predicts the trials left out best.

    Found by expectation maximisation, with one trial's worth of belief that each member is as good as the others
    (the mode under a Dirichlet distribution): with few trials weights stay near equal.

    Parameters
    ----------
    members : sequence of HeldOut
        Predictions for the same trials in the same order.

    Returns
    -------
    ndarray, shape (members,)
        Positive, their sum is 1.
    """
    true = np.stack([member.of_truth for member in members], axis=1)
    weights = np.full(len(members), 1 / len(members))
    for _ in range(_MOST_ITERATIONS):
        shares = weights * true
        counts = (shares / shares.sum(axis=1, keepdims=True)).sum(axis=0) + 1
        weights = counts / counts.sum()
    return weights


def mixture(members: Sequence[HeldOut], weights: Matrix) -> HeldOut:
    """Return the predictions of a mixture for the trials left out."""
    said = np.tensordot(weights, np.stack([member.probabilities for member in members]), axes=1)
    return HeldOut(said, members[0].states)


def _rotated(features: NDArray[np.floating]) -> tuple[Matrix, Matrix]:
    """Return features in the space that the trials span, (R, rank), and its axes as sums of trials, (R, rank).

    Penalties on squared weights do not care for rotations, and weights outside of that space stay zero: with fewer
    trials than features the outcome is the same in a fraction of the time.
    """
    values, vectors = np.linalg.eigh(sum(part @ part.T for part in _parts(features)))
    keep = values > 1e-10 * values[-1]
    if not keep.any():
        # All trials are alike.
        return np.zeros((len(features), 1)), np.zeros((len(features), 1))
    values, vectors = values[keep], vectors[:, keep]
    return vectors * np.sqrt(values), vectors / np.sqrt(values)


def _products(features: NDArray[np.floating], weights: Matrix) -> Matrix:
    """Return sums of trials, (D, n), given their weights, (R, n)."""
    return np.concatenate([part.T @ weights for part in _parts(features)])


def _parts(features: NDArray[np.floating]) -> Iterator[Matrix]:
    """Yield some columns at a time in double precision: all of connectivity's would fill the memory."""
    for first in range(0, features.shape[1], _COLUMNS):
        yield features[:, first : first + _COLUMNS].astype(np.float64)


def _temperature(logits: Matrix, labels: Labels) -> float:
    """Return what logits (R, labels) have to be divided by.

    Each of R trials is held to have its state with probability (R + 1) / (R + 2), as in Platt (1999): a few trials
    that are all told apart do not make the next one certain.
    """
    n_trials, n_labels = logits.shape
    if n_labels == 1:
        return 1.0
    doubt = 1 / (n_trials + 2)

    def loss(power: float) -> float:
        said = log_softmax(logits / np.exp(power), axis=1)
        true = said[np.arange(n_trials), labels].sum()
        return float(-(1 - doubt) * true - doubt * (said.sum() - true) / (n_labels - 1))

    return float(np.exp(minimize_scalar(loss, bounds=(_COOLEST, _HOTTEST), method="bounded").x))
