"""The check that no network was pretrained on a run whose trials are tested.

Where that is accepted by name, the scores are flagged.
"""

from __future__ import annotations

from dataclasses import replace

from boldly.decoders.encoders import ENCODERS
from boldly.records import InputError, Problem, Score
from boldly.samples.corpus import Corpus
from boldly.samples.seen import MANIFEST, check_unseen
from boldly.stages.evaluate.manifests import Decoder
from boldly.stages.evaluate.scores import is_summary

# Baselines may look at components of the upstream runs; other networks start from random weights.
_PRETRAINED = ("pretrained", "baseline")


def check_pretraining(decoders: list[Decoder], corpus: Corpus, *, allow: bool) -> dict[str, set[str]]:
    """Refuse test trials of runs that an upstream model of some decoder was pretrained on.

    Parameters
    ----------
    decoders : list of Decoder
        The experiments; their upstream models stand in ``encoders/`` of their folders.
    corpus : Corpus
        The test trials alone.
    allow : bool
        Option `evaluate.allow_pretrained_test_runs`: warn instead.

    Returns
    -------
    dict of str to set of str
        Experiment to the keys of the runs that its models were pretrained on; experiments without such are left
        out.

    Raises
    ------
    InputError
        With the problems of all models.
    """
    known: dict[str, tuple[str, ...]] = {}
    seen: dict[str, set[str]] = {}
    problems: list[Problem] = []
    for decoder in decoders:
        folders = sorted((decoder.folder / ENCODERS).glob("*/")) if decoder.kind in _PRETRAINED else []
        for folder in folders:
            # Several experiments start from the same model, and each of them keeps a copy.
            path = folder / MANIFEST
            model = path.read_text(encoding="utf-8") if path.exists() else f"unknown, {folder.name}"
            if model not in known:
                known[model] = ()
                try:
                    known[model] = check_unseen(folder, corpus, allow)
                except InputError as error:
                    problems += error.problems
            if known[model]:
                seen.setdefault(decoder.name, set()).update(known[model])
    if problems:
        raise InputError(problems)
    return seen


def flag_seen(scores: list[Score], seen: dict[str, set[str]]) -> list[Score]:
    """Return scores in which the accuracies of decoders are flagged that know test runs from pretraining."""
    return [
        replace(row, flag="; ".join(filter(None, [row.flag, _flag(seen[row.experiment])])))
        if is_summary(row) and row.experiment in seen
        else row
        for row in scores
    ]


def _flag(runs: set[str]) -> str:
    return f"pretrained on {len(runs)} test run{'s' if len(runs) != 1 else ''}"
