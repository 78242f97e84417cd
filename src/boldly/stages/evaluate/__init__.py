"""evaluate: one pass of every decoder over the fixed test trials, scored with intervals.

Scores are tidy rows. For each experiment and number of labelled units n there are rows for each fit (draw and seed
given, subject "all"), for each test subject (draw and seed "all") and a summary (all three "all"), with the recall
of each state and the p-value of a permutation test. Experiments are the decoders, chance, and controls that see no
signals. Paired differences between decoders stand in a table of their own, and so does what validation chose for
each fit. Of several pretrained experiments, "chosen" is for each fit the one with the best validation.

Networks that were pretrained on runs whose trials are tested are refused; where that is accepted by name, their
scores are flagged.

Where all draws have the same test units, a score is that of all test trials together, averaged over draws and
seeds. Where they differ (each unit in turn), the predictions of all draws are pooled before scoring, so that every
unit counts once. `boldly.intervals` says what intervals cover; where there is a single test unit, its trials stand
in for units.

A job that was killed goes on: predictions of an experiment are kept beside the tables (``<dataset>_parts``) until
all tables are written.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import numpy as np

from boldly import bids
from boldly.config import EvaluateOptions
from boldly.records import InputError, Problem, write_choices, write_comparisons, write_scores
from boldly.samples.corpus import Corpus, load_corpus
from boldly.samples.shards import subject_shards
from boldly.samples.splits import DownstreamSplit, read_split
from boldly.stages.evaluate.choices import CHOSEN, choose_decoders, list_choices
from boldly.stages.evaluate.comparisons import compare
from boldly.stages.evaluate.controls import fit_controls, flag_controls, read_training
from boldly.stages.evaluate.manifests import read_decoders
from boldly.stages.evaluate.predictions import Parts, predict, trials_of, write_predictions
from boldly.stages.evaluate.pretraining import check_pretraining, flag_seen
from boldly.stages.evaluate.references import flag_above_ceilings, majority, read_ceilings, uniform_guessing
from boldly.stages.evaluate.scores import score

logger = logging.getLogger(__name__)


def run(
    *,
    dataset: str,
    split: Path,
    shards: Path,
    models: list[Path],
    ceilings: Path | None,
    options: EvaluateOptions,
    scores: Path,
    comparisons: Path,
    choices: Path,
    predictions: Path,
) -> None:
    """Predict the test trials of a dataset with every adapted model and score the predictions.

    Parameters
    ----------
    dataset : str
        Name of the dataset.
    split : Path
        Its split.
    shards : Path
        Folder of its tars.
    models : list of Path
        Folders that adapt wrote, one per experiment.
    ceilings : Path or None
        Table of the best accuracies possible (columns dataset, decoder, accuracy, ci_low, ci_high, n_trials),
        known for simulated data only.
    options : EvaluateOptions
        Intervals and permutations, and whether networks may have seen the test runs.
    scores, comparisons, choices, predictions : Path
        The tables to write: one row per `Score`; one per `Comparison`; one per `Choice`, that is per fit; one per
        fit and test trial (.tsv.gz).

    Raises
    ------
    InputError
        For models that are incomplete, were adapted on another split or pretrained on test runs, and shards that
        lack the test units.
    """
    parts = read_split(split, "downstream")
    decoders = read_decoders(models, dataset, parts, split)
    ceiling_scores = [] if ceilings is None else read_ceilings(ceilings, dataset)
    paths = _test_shards(parts, dataset, shards)
    loaded = load_corpus(paths)
    corpus = _test_trials(loaded, parts, shards)
    trials = trials_of(corpus, parts.by)
    seen = check_pretraining(decoders, corpus, allow=options.allow_pretrained_test_runs)
    kept = Parts(predictions.with_name(f"{dataset}_parts"), paths, trials)
    predicted = [predict(decoder, corpus, trials, kept) for decoder in decoders]
    chosen, taken = choose_decoders(decoders, predicted)
    write_choices(choices, list_choices(decoders, predicted, taken, trials, dataset))
    if of_chosen := set().union(*(seen.get(name, set()) for name in taken.values())):
        seen[CHOSEN] = of_chosen
    predicted += chosen
    training = read_training(parts, dataset, shards, loaded)
    controls = fit_controls(parts, corpus, trials, training)
    experiments = [majority(parts, trials, training), *predicted, *controls]
    rows, tallies = score(experiments, trials, dataset=dataset, options=options)
    rows = flag_controls([*uniform_guessing(trials, dataset), *rows])
    rows = flag_seen(flag_above_ceilings(rows, ceiling_scores, predicted), seen)
    write_comparisons(comparisons, compare(predicted, tallies, dataset=dataset, options=options))
    write_predictions(predictions, predicted, trials)
    write_scores(scores, [*rows, *ceiling_scores])
    shutil.rmtree(kept.folder)


def _test_shards(split: DownstreamSplit, dataset: str, shards: Path) -> list[Path]:
    """Return the shards of all test units."""
    units = {unit for draw in split.draws for unit in draw.test}
    subjects = {bids.entities(unit)["sub"] for unit in units} if split.by == "run" else units
    return [path for subject in sorted(subjects) for path in subject_shards(shards, dataset, subject)]


def _test_trials(corpus: Corpus, split: DownstreamSplit, shards: Path) -> Corpus:
    """Return the trials of all test units; a subject may have training runs beside its test runs."""
    owners = corpus.runs if split.by == "run" else corpus.subjects
    units = {unit for draw in split.draws for unit in draw.test}
    for unit in sorted(units - set(owners)):
        logger.warning("test %s %s has no trial and does not count", split.by, unit)
    if units.isdisjoint(owners):
        message = f"none of the {len(units)} test {split.by}s has a trial"
        raise InputError(Problem(str(shards), split.dataset, message, "see the run tables in results/index"))
    chosen = np.isin(owners, list(units))
    return corpus if chosen.all() else corpus.select(chosen)
