"""Shortcut controls: what a decoder that never sees a signal reaches.

Trials of some states are longer, come earlier in a run or move more. A classifier that sees only that must not
come near a decoder, or the decoder may live on it too.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from boldly.bids import entities
from boldly.metrics import Array, Integers
from boldly.records import Score
from boldly.samples.corpus import COVARIATES, Corpus, load_corpus
from boldly.samples.shards import sample_keys, subject_shards
from boldly.samples.splits import By, DownstreamSplit, Draw
from boldly.stages.evaluate.predictions import Experiment, FitPredictions, Probabilities, Trials
from boldly.stages.evaluate.scores import is_summary, summary_line

logger = logging.getLogger(__name__)

# Name of the control to the covariate that it sees.
CONTROLS = {"control_length": "n_volumes", "control_position": "position", "control_motion": "mean_fd_mm"}


@dataclass(frozen=True)
class TrainingTrials:
    """State and covariates of the T trials of all training units.

    Attributes
    ----------
    units : tuple of str, length T
        Unit of each trial.
    labels : ndarray of int64, shape (T,)
        Their states.
    covariates : dict of str to ndarray of float64, shape (T,)
        By name; nan where unknown.
    """

    units: tuple[str, ...]
    labels: Integers
    covariates: dict[str, Array]

    @cached_property
    def _units(self) -> NDArray[np.str_]:
        return np.array(self.units, str)

    def of(self, units: tuple[str, ...]) -> Integers:
        """Return the numbers of the trials of these units."""
        return np.flatnonzero(np.isin(self._units, units))


def read_training(split: DownstreamSplit, dataset: str, shards: Path, corpus: Corpus) -> TrainingTrials:
    """Read states and covariates of the training trials, one subject at a time; signals are not kept.

    Parameters
    ----------
    split : DownstreamSplit
        The draws.
    dataset : str
        Name of the dataset.
    shards : Path
        Folder of its tars; a subject whose tars are not there, or hold no trial, is left out, with a warning.
    corpus : Corpus
        All trials of the subjects that are tested in some draw; these are not read again.
    """
    units = {unit for draw in split.draws for unit in draw.train}
    subjects = {_subject(unit, split.by) for unit in units}
    known = [corpus]
    for subject in sorted(subjects - set(corpus.subjects)):
        paths = [path for path in subject_shards(shards, dataset, subject) if path.exists()]
        if not any(map(sample_keys, paths)):
            logger.warning("no trial of training subject %s: controls and chance do without it", subject)
            continue
        known.append(_without_signals(load_corpus(paths)))
    owners = [unit for part in known for unit in _owners(part, split.by)]
    chosen = np.flatnonzero(np.isin(owners, list(units)))
    return TrainingTrials(
        tuple(owners[number] for number in chosen),
        np.concatenate([part.labels for part in known])[chosen],
        {name: np.concatenate([part.covariates[name] for part in known])[chosen] for name in COVARIATES},
    )


def _subject(unit: str, by: By) -> str:
    return entities(unit)["sub"] if by == "run" else unit


def _owners(corpus: Corpus, by: By) -> tuple[str, ...]:
    return corpus.runs if by == "run" else corpus.subjects


def _without_signals(corpus: Corpus) -> Corpus:
    return replace(corpus, frames=corpus.frames[:0].copy())


def fit_controls(
    split: DownstreamSplit, corpus: Corpus, trials: Trials, training: TrainingTrials
) -> list[Experiment]:
    """Fit each control on the training trials of each draw and let it predict the draw's test trials.

    A control is a logistic regression on one number and its square, both standardised; what is unknown counts as
    the mean of the training trials. A control whose number is unknown in all training or all test trials, or the
    same in all training trials, is left out.

    Parameters
    ----------
    split : DownstreamSplit
        The draws.
    corpus : Corpus
        The test trials with their covariates.
    trials : Trials
        The same without their signals.
    training : TrainingTrials
        What controls are fitted on.
    """
    experiments = []
    for name, covariate in CONTROLS.items():
        train, test = training.covariates[covariate], corpus.covariates[covariate]
        if np.isnan(test).all() or len(np.unique(train[~np.isnan(train)])) < 2:
            logger.info("%s: %s is not known of these trials, or the same in all", name, covariate)
            continue
        fits = [_fit(draw, train, test, trials, training) for draw in split.draws]
        experiments.append(Experiment(name, "control", "", tuple(fit for fit in fits if fit is not None)))
    return [experiment for experiment in experiments if len(experiment.fits) == len(split.draws)]


def _fit(draw: Draw, train: Array, test: Array, trials: Trials, training: TrainingTrials) -> FitPredictions | None:
    numbers, chosen = trials.of(draw.test), training.of(draw.train)
    if not len(chosen):
        return None
    probabilities = classify(train[chosen], training.labels[chosen], test[numbers], len(trials.label_names))
    return FitPredictions(draw.n, str(draw.draw), "0", numbers, probabilities.argmax(axis=1), probabilities)


def classify(train: Array, labels: Integers, test: Array, n_labels: int) -> Probabilities:
    """Return the probability of each label by logistic regression on one number and its square.

    Parameters
    ----------
    train, test : ndarray of float64, shapes (T,) and (R,)
        The number of each training and test trial; nan where unknown.
    labels : ndarray of int64, shape (T,)
        Labels of the training trials.
    n_labels : int
        Number of labels L.

    Returns
    -------
    ndarray of float32, shape (R, L)
        Labels without a training trial have probability 0.
    """
    probabilities = np.zeros((len(test), n_labels), np.float32)
    there = np.unique(labels)
    if len(there) == 1 or not len(test):
        probabilities[:, there[0]] = 1
        return probabilities
    known = train[~np.isnan(train)]
    centre, width = (known.mean(), known.std() or 1.0) if len(known) else (0.0, 1.0)

    def features(numbers: Array) -> Array:
        scaled = np.where(np.isnan(numbers), 0.0, (numbers - centre) / width)
        # Far outside of what was trained on, a square says more than is known.
        scaled = scaled.clip(-4, 4)
        return np.stack([scaled, scaled**2], axis=1)

    inputs = features(train)
    mean, deviation = inputs.mean(axis=0), inputs.std(axis=0)
    deviation[deviation == 0] = 1
    model = LogisticRegression(max_iter=1000).fit((inputs - mean) / deviation, labels)
    probabilities[:, model.classes_] = model.predict_proba((features(test) - mean) / deviation)
    return probabilities


def flag_controls(scores: list[Score]) -> list[Score]:
    """Return scores in which controls that come near a decoder are flagged, and warn of them.

    A control is flagged that is above chance by its interval, and one whose interval overlaps that of the best
    decoder at the same n.
    """
    summaries = [row for row in scores if is_summary(row)]
    chance = max((row.value for row in summaries if row.kind == "chance"), default=0.0)
    best: dict[int, Score] = {}
    for row in summaries:
        is_decoder = row.kind not in ("chance", "control", "ceiling")
        if is_decoder and (row.n not in best or row.value > best[row.n].value):
            best[row.n] = row
    flagged = []
    for row in scores:
        flags = []
        if row.kind == "control" and is_summary(row):
            if row.ci_low > chance:
                flags.append("above chance")
            if row.n in best and row.ci_high >= best[row.n].ci_low:
                flags.append(f"near {best[row.n].experiment}")
        if flags:
            seen = CONTROLS[row.experiment]
            values = {"above": chance, "near": best[row.n].value if row.n in best else chance}
            words = " and ".join(f"{flag} ({values[flag.partition(' ')[0]]:.3f})" for flag in flags)
            logger.warning("%s, seeing %s alone: %s", summary_line(row), seen, words)
        flagged.append(replace(row, flag="; ".join(flags)) if flags else row)
    return flagged
