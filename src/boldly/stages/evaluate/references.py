"""What decoders are measured against without being decoders: chance, and the best accuracies possible."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np

from boldly import metrics
from boldly.files import read_tsv
from boldly.records import InputError, Problem, Score
from boldly.samples.splits import DownstreamSplit
from boldly.stages.evaluate.controls import TrainingTrials
from boldly.stages.evaluate.predictions import Experiment, FitPredictions, Trials
from boldly.stages.evaluate.scores import ALL, is_summary, summary_line

logger = logging.getLogger(__name__)

# Baselines that see nothing but the mean signal of a trial.
_OF_MEAN_SIGNAL = ("mean_mlp", "mean_logistic", "mean_lda")


def uniform_guessing(trials: Trials, dataset: str) -> list[Score]:
    """Return what guessing reaches that takes each of L states equally often: 1 / L, and a log loss of log L."""
    n_labels = len(trials.label_names)
    values = {"accuracy": 1 / n_labels, "balanced_accuracy": 1 / n_labels, "log_loss": float(np.log(n_labels))}
    return [
        Score(
            dataset=dataset,
            experiment="chance_uniform",
            n=0,
            draw=ALL,
            seed=ALL,
            subject=ALL,
            metric=name,
            value=value,
            ci_low=float("nan"),
            ci_high=float("nan"),
            n_trials=len(trials.keys),
            kind="chance",
        )
        for name, value in values.items()
    ]


def majority(split: DownstreamSplit, trials: Trials, training: TrainingTrials) -> Experiment:
    """Return predictions that always name the most frequent state of the training trials.

    Of each draw of the largest n, its own; where no training trial is known, the most frequent state of the test
    trials.

    Parameters
    ----------
    split : DownstreamSplit
        The draws.
    trials : Trials
        The test trials.
    training : TrainingTrials
        States of the training trials.
    """
    largest = max(draw.n for draw in split.draws)
    fits = []
    for draw in (draw for draw in split.draws if draw.n == largest):
        numbers = trials.of(draw.test)
        labels = training.labels[training.of(draw.train)]
        label = metrics.most_frequent(labels if len(labels) else trials.labels)
        fits.append(FitPredictions(0, str(draw.draw), "0", numbers, np.full(len(numbers), label), None))
    return Experiment("chance_majority", "chance", "", tuple(fits))


def read_ceilings(path: Path, dataset: str) -> list[Score]:
    """Read the best accuracies possible for a simulated dataset.

    Parameters
    ----------
    path : Path
        Table with the columns dataset, decoder, accuracy, ci_low, ci_high, n_trials.
    dataset : str
        Name of the dataset.

    Raises
    ------
    InputError
        For a table without these columns, or without the dataset.
    """
    table = read_tsv(path, ("dataset", "decoder"))
    missing = {"dataset", "decoder", "accuracy", "ci_low", "ci_high", "n_trials"} - set(table.columns)
    if missing:
        message = f"has no column {', '.join(sorted(missing))} (found: {', '.join(table.columns)})"
        raise InputError(Problem(str(path), dataset, message, "correct datasets.<name>.ceilings"))
    rows = table[table["dataset"] == dataset]
    if rows.empty:
        message = f"has no row for the dataset (has: {', '.join(sorted(set(table['dataset'])))})"
        raise InputError(Problem(str(path), dataset, message, "correct or remove datasets.<name>.ceilings"))
    return [
        Score(
            dataset=dataset,
            experiment=f"ceiling_{row['decoder']}",
            n=0,
            draw=ALL,
            seed=ALL,
            subject=ALL,
            metric="accuracy",
            value=float(row["accuracy"]),
            ci_low=float(row["ci_low"]),
            ci_high=float(row["ci_high"]),
            n_trials=int(row["n_trials"]),
            kind="ceiling",
        )
        for row in rows.to_dict("records")
    ]


def flag_above_ceilings(scores: list[Score], ceilings: list[Score], experiments: list[Experiment]) -> list[Score]:
    """Return scores in which a decoder that is better than any can be is flagged, and warn of it.

    Test trials must have leaked into its training, unless it is above by chance.
    """
    means = {one.name for one in experiments if one.kind == "baseline" and one.start in _OF_MEAN_SIGNAL}
    names = {one.name for one in experiments}
    flagged = []
    for row in scores:
        beaten = [
            ceiling
            for ceiling in ceilings
            if is_summary(row) and row.experiment in names and row.value > ceiling.ci_high
            if ceiling.experiment == "ceiling_any" or row.experiment in means
        ]
        for ceiling in beaten:
            logger.warning(
                "%s beats %s, the best accuracy that is possible%s: look for test trials in its training",
                summary_line(row),
                f"{ceiling.experiment} {ceiling.value:.3f}",
                "" if row.ci_low > ceiling.ci_high else " (perhaps by chance)",
            )
        flags = [row.flag, *(f"above {ceiling.experiment}" for ceiling in beaten)]
        flagged.append(replace(row, flag="; ".join(filter(None, flags))) if beaten else row)
    return flagged
