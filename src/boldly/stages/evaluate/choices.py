"""What validation chose for each fit, and the decoder that takes the best of all pretrained experiments by it."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np

from boldly.records import Choice
from boldly.stages.evaluate.manifests import Decoder, Fit
from boldly.stages.evaluate.predictions import Experiment, FitPredictions, Trials

logger = logging.getLogger(__name__)

CHOSEN = "chosen"
_Key = tuple[int, str, str]


def choose_decoders(
    decoders: list[Decoder], predicted: list[Experiment]
) -> tuple[list[Experiment], dict[_Key, str]]:
    """Return the experiment "chosen": of the pretrained ones, for each fit the one that validates best.

    Nothing of the test trials is used, so its score is that of a decoder which anyone could have chosen with the
    labelled units alone. At each n, the pretrained experiments take part whose validation loss is known for every
    fit, and the seeds that all of them have.

    Parameters
    ----------
    decoders : list of Decoder
        The experiments.
    predicted : list of Experiment
        Their predictions, in the same order.

    Returns
    -------
    list of Experiment
        "chosen", with predictions as they are. Empty where there is no choice: with less than two experiments that
        have a validation loss, or with an experiment of that name.
    dict of (int, str, str) to str
        Which experiment was taken, by n, draw and seed.
    """
    if any(decoder.name == CHOSEN for decoder in decoders):
        logger.info("an experiment is called %s: the best pretrained decoder is not looked for", CHOSEN)
        return [], {}
    losses = {
        decoder.name: {_key(fit): fit.validation_loss for fit in decoder.fits}
        for decoder in decoders
        if decoder.kind == "pretrained"
    }
    fits = {one.name: {(fit.n, fit.draw, fit.seed): fit for fit in one.fits} for one in predicted}
    taken: dict[_Key, str] = {}
    for n in sorted({key[0] for known in losses.values() for key in known}):
        of_n = {name: {key: loss for key, loss in known.items() if key[0] == n} for name, known in losses.items()}
        of_n = {name: known for name, known in of_n.items() if known and np.isfinite(list(known.values())).all()}
        if len(of_n) < 2:
            continue
        shared = set.intersection(*(set(known) for known in of_n.values()))
        for key in sorted(shared, key=lambda key: (key[0], int(key[1]), int(key[2]))):
            taken[key] = min(of_n, key=lambda name: of_n[name][key])
    if not taken:
        return [], {}
    starts = [
        start for decoder in decoders if decoder.name in set(taken.values()) for start in decoder.start.split("+")
    ]
    chosen: tuple[FitPredictions, ...] = tuple(fits[name][key] for key, name in taken.items())
    return [Experiment(CHOSEN, "pretrained", "+".join(dict.fromkeys(starts)), chosen)], taken


def list_choices(
    decoders: list[Decoder], predicted: list[Experiment], taken: dict[_Key, str], trials: Trials, dataset: str
) -> list[Choice]:
    """Return a row for each fit, in the order of the decoders, then for each fit of "chosen".

    Parameters
    ----------
    decoders : list of Decoder
        The experiments.
    predicted : list of Experiment
        Their predictions, in the same order.
    taken : dict of (int, str, str) to str
        Which experiment "chosen" takes; see `choose_decoders`.
    trials : Trials
        The test trials.
    dataset : str
        Name of the dataset.
    """
    rows: dict[tuple[str, _Key], Choice] = {}
    for decoder, one in zip(decoders, predicted, strict=True):
        for fit, said in zip(decoder.fits, one.fits, strict=True):
            right = trials.labels[said.trials] == said.predicted
            rows[decoder.name, _key(fit)] = Choice(
                dataset=dataset,
                experiment=decoder.name,
                kind=decoder.kind,
                n=said.n,
                draw=said.draw,
                seed=said.seed,
                choice=fit.choice,
                validation_loss=fit.validation_loss,
                validation_accuracy=fit.validation_accuracy,
                test_accuracy=float(right.mean()) if len(right) else float("nan"),
            )
    return [*rows.values(), *(_renamed(rows[name, key]) for key, name in taken.items())]


def _renamed(row: Choice) -> Choice:
    choice = f"{row.experiment}: {row.choice}" if row.choice else row.experiment
    return replace(row, experiment=CHOSEN, choice=choice)


def _key(fit: Fit) -> _Key:
    return fit.draw.n, str(fit.draw.draw), str(fit.seed)
