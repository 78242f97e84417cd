"""evaluate: one pass of every decoder over the fixed test trials, scored with intervals.

Scores are tidy rows. For each experiment and number of training units n there are rows for each fit (draw and seed
given, subject "all"), for each test subject (draw and seed "all") and a summary (all three "all").

Where all draws have the same test units, a score is that of all test trials together, averaged over draws and
seeds. Where they differ (each unit in turn), the predictions of all draws are pooled before scoring, so that every
unit counts once. Intervals resample test units and draws; where there is a single test unit, the trials stand in
for units.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from boldly import bids, metrics
from boldly.config import EvaluateOptions
from boldly.files import read_json, read_tsv, write_tsv
from boldly.records import InputError, Problem, Score, write_scores
from boldly.samples.corpus import Corpus, load_corpus
from boldly.samples.shards import subject_shards
from boldly.samples.splits import DownstreamSplit, Draw, read_split

logger = logging.getLogger(__name__)

_ALL = "all"
_POOLED = "pooled"


@dataclass(frozen=True)
class _Decoder:
    """What the manifest of an experiment says."""

    folder: Path
    name: str
    kind: str
    start: str  # upstream experiment of a network, or which baseline
    fits: list[dict[str, Any]]


@dataclass(frozen=True)
class _Tallied:
    """Predictions of one experiment, counted.

    `tallies` has shape (draws, seeds, units, 3, labels); `clusters` are the names of what is resampled.
    """

    tallies: metrics.Array
    draws: tuple[str, ...]
    clusters: tuple[str, ...]
    by_trial: bool
    n_trials: int

    def replicates(self, options: EvaluateOptions) -> dict[str, metrics.Array]:
        """Bootstrap replicates by metric."""
        n_draws, _, n_clusters = self.tallies.shape[:3]
        chosen = metrics.resample(n_clusters, n_draws, options.resamples, options.seed)
        return metrics.replicates(self.tallies, chosen)

    def interval(self, values: metrics.Array, options: EvaluateOptions) -> tuple[float, float]:
        """Interval of replicates."""
        if len(self.clusters) < 2:
            return float("nan"), float("nan")
        return metrics.interval(values, len(self.clusters), options.confidence)


def run(
    *,
    dataset: str,
    split: Path,
    shards: Path,
    models: list[Path],
    ceilings: Path | None,
    options: EvaluateOptions,
    scores: Path,
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
        Intervals.
    scores, predictions : Path
        The tables to write: one row per `Score`; one row per fit and test trial.

    Raises
    ------
    InputError
        For models that are incomplete or do not belong to the split, and shards that do not hold the test units.
    """
    parts = read_split(split, "downstream")
    decoders = _read_decoders(models, parts, split)
    ceiling_scores = [] if ceilings is None else _read_ceilings(ceilings, dataset)
    corpus = _load_test(parts, dataset, shards)
    table = _predict(decoders, parts, corpus)
    unit = "run" if parts.by == "run" else "subject"
    rows = score(table, decoders, dataset=dataset, unit=unit, n_labels=len(corpus.label_names), options=options)
    _compare_with_ceilings(rows, ceiling_scores, decoders)
    write_tsv(predictions, table)
    write_scores(scores, [*rows, *ceiling_scores])


def _read_decoders(models: list[Path], split: DownstreamSplit, split_path: Path) -> list[_Decoder]:
    decoders, problems = [], []
    planned = {(draw.n, draw.draw) for draw in split.draws}
    for folder in models:
        manifest = folder / "adapt.json"
        try:
            content = read_json(manifest)
            kind = content["kind"]
            decoder = _Decoder(folder, content["experiment"], kind, content["options"][kind], content["fits"])
            fitted = {(fit["n"], fit["draw"]): fit["seed"] for fit in decoder.fits}
            grid = {fit["seed"] for fit in decoder.fits}
        except (OSError, ValueError, KeyError, TypeError) as error:
            message = f"not a manifest of adapted models: {type(error).__name__} {error}"
            problems.append(Problem(str(manifest), "", message, "rerun adapt for this experiment"))
            continue
        decoders.append(decoder)
        if set(fitted) != planned or len(decoder.fits) != len(planned) * len(grid):
            message = (
                f"has {len(decoder.fits)} fits of {len(grid)} seeds for {len(fitted)} draws, but the split "
                f"{split_path} has {len(planned)} draws, {len(planned - set(fitted))} of them without a fit"
            )
            problems.append(Problem(str(manifest), decoder.name, message, "rerun adapt for this experiment"))
    if problems:
        raise InputError(problems)
    return decoders


def _load_test(split: DownstreamSplit, dataset: str, shards: Path) -> Corpus:
    """Read the trials of all test units, once."""
    units = sorted({unit for draw in split.draws for unit in draw.test})
    subjects = sorted({bids.entities(unit)["sub"] for unit in units}) if split.by == "run" else units
    paths = [path for subject in subjects for path in subject_shards(shards, dataset, subject)]
    corpus = load_corpus(paths)
    there = set(_units(corpus, split.by))
    for unit in units:
        if unit not in there:
            logger.warning("test %s %s has no trial and does not count", split.by, unit)
    return corpus


def _units(corpus: Corpus, by: str) -> tuple[str, ...]:
    return corpus.runs if by == "run" else corpus.subjects


def _predict(decoders: list[_Decoder], split: DownstreamSplit, corpus: Corpus) -> pd.DataFrame:
    """One row per fit and test trial of its draw."""
    from boldly.training.decoding import predict  # torch: not before the inputs are known to be good

    test_sets: dict[tuple[str, ...], Corpus] = {}
    tables = []
    for decoder in decoders:
        for fit in sorted(decoder.fits, key=lambda fit: (fit["n"], fit["draw"], fit["seed"])):
            test = tuple(sorted(_draw(split, fit).test))
            if test not in test_sets:
                test_sets[test] = corpus.select(np.isin(_units(corpus, split.by), test))
            trials = test_sets[test]
            folder = decoder.folder / fit["folder"]
            tables.append(
                _prediction_rows(decoder.name, fit, trials, _checked(predict(folder, trials), trials, folder))
            )
        logger.info("%s: %d fits predicted", decoder.name, len(decoder.fits))
    return pd.concat(tables, ignore_index=True)


def _draw(split: DownstreamSplit, fit: dict[str, Any]) -> Draw:
    return next(draw for draw in split.draws if (draw.n, draw.draw) == (fit["n"], fit["draw"]))


def _checked(probabilities: np.ndarray, corpus: Corpus, folder: Path) -> np.ndarray:
    expected = (len(corpus), len(corpus.label_names))
    if probabilities.shape != expected or not np.isfinite(probabilities).all():
        message = f"predicts shape {probabilities.shape} (expected {expected}), or numbers that are not finite"
        raise InputError(Problem(str(folder), "", message, "rerun adapt: labels changed or training diverged"))
    return probabilities


def _prediction_rows(name: str, fit: dict[str, Any], corpus: Corpus, probabilities: np.ndarray) -> pd.DataFrame:
    predicted = probabilities.argmax(axis=1)
    return pd.DataFrame(
        {
            "experiment": name,
            "n": fit["n"],
            "draw": str(fit["draw"]),
            "seed": str(fit["seed"]),
            "key": corpus.keys,
            "run": corpus.runs,
            "subject": corpus.subjects,
            "label": corpus.labels,
            "label_name": [corpus.label_names[label] for label in corpus.labels],
            "predicted": predicted,
            "probability": probabilities[np.arange(len(predicted)), predicted].astype(np.float64).round(6),
        }
    )


def score(
    predictions: pd.DataFrame,
    decoders: list[_Decoder],
    *,
    dataset: str,
    unit: str,
    n_labels: int,
    options: EvaluateOptions,
) -> list[Score]:
    """Score predictions: chance, then each experiment by n, then differences between experiments.

    Parameters
    ----------
    predictions : DataFrame
        One row per fit and test trial.
    decoders : list
        The experiments, for their kinds and partners.
    dataset : str
        Name of the dataset.
    unit : {"subject", "run"}
        Column of the units that the split keeps apart.
    n_labels : int
        Number of labels.
    options : EvaluateOptions
        Intervals.
    """
    scores = []
    summaries: dict[tuple[str, int], _Tallied] = {}
    for name, kind, n, rows in _experiments(predictions, decoders):
        head = {"dataset": dataset, "experiment": name, "n": n, "kind": kind}
        for draw, seed, subject, chosen in _views(rows, kind):
            tallied = _tally(chosen, unit, n_labels)
            scores += _rows({**head, "draw": draw, "seed": seed, "subject": subject}, tallied, options)
            if draw == seed == subject == _ALL:
                summaries[name, n] = tallied
                logger.info("%s", _summary_line(scores[-len(metrics.METRICS)]))
    for decoder in decoders:
        for n in sorted(n for name, n in summaries if name == decoder.name):
            for other in _partners(decoder, decoders, n, summaries):
                scores.append(_difference(decoder, other, n, summaries, dataset, options))
    return scores


def _experiments(
    predictions: pd.DataFrame, decoders: list[_Decoder]
) -> Iterator[tuple[str, str, int, pd.DataFrame]]:
    """Yield name, kind, n and predictions of chance and of each experiment at each n."""
    trials = predictions.drop_duplicates("key")
    constant = metrics.most_frequent(trials["label"].to_numpy())
    yield "chance", "chance", 0, trials.assign(predicted=constant, draw="0", seed="0")
    kinds = {decoder.name: decoder.kind for decoder in decoders}
    for name, experiment in predictions.groupby("experiment", sort=False):
        for n in sorted(experiment["n"].unique()):
            yield str(name), kinds[str(name)], int(n), experiment[experiment["n"] == n]


def _views(rows: pd.DataFrame, kind: str) -> Iterator[tuple[str, str, str, pd.DataFrame]]:
    """Yield draw, seed, subject and rows of each score of an experiment."""
    yield _ALL, _ALL, _ALL, rows
    if kind == "chance":
        return
    for (draw, seed), fit in rows.groupby(["draw", "seed"], sort=False):
        yield str(draw), str(seed), _ALL, fit
    for subject, chosen in rows.groupby("subject"):
        yield _ALL, _ALL, str(subject), chosen


def _tally(rows: pd.DataFrame, unit: str, n_labels: int) -> _Tallied:
    """Count predictions by draw, seed and unit."""
    keys = [frozenset(trials) for _, trials in rows.groupby("draw")["key"]]
    if len(set(keys)) > 1:
        rows = rows.assign(draw=_POOLED)
    by_trial = rows[unit].nunique() < 2
    numbers, clusters = pd.factorize(rows["key" if by_trial else unit], sort=True)
    draw, draws = pd.factorize(rows["draw"], sort=True)
    seed, seeds = pd.factorize(rows["seed"], sort=True)
    truth, predicted = rows["label"].to_numpy(), rows["predicted"].to_numpy()
    # One flat count, draws and seeds being units too.
    shape = (len(draws), len(seeds), len(clusters))
    cells = np.ravel_multi_index((draw, seed, numbers), shape)
    tallies = metrics.tally(truth, predicted, cells, int(np.prod(shape)), n_labels)
    return _Tallied(
        tallies.reshape(*shape, 3, n_labels), tuple(draws), tuple(clusters), by_trial, rows["key"].nunique()
    )


def _rows(head: dict[str, Any], tallied: _Tallied, options: EvaluateOptions) -> list[Score]:
    """One score for each metric."""
    estimates, replicates = metrics.estimate(tallied.tallies), tallied.replicates(options)
    scores = []
    for name, value in estimates.items():
        low, high = tallied.interval(replicates[name], options)
        if name == "accuracy" and tallied.by_trial:
            # A bootstrap of few trials, all right or all wrong, would claim certainty.
            lowest, highest = metrics.wilson(value, tallied.n_trials, options.confidence)
            low, high = float(np.fmin(low, lowest)), float(np.fmax(high, highest))
        scores.append(Score(**head, metric=name, value=value, ci_low=low, ci_high=high, n_trials=tallied.n_trials))
    return scores


def _partners(
    decoder: _Decoder, decoders: list[_Decoder], n: int, summaries: dict[tuple[str, int], _Tallied]
) -> list[_Decoder]:
    """Return what a network is compared with at n: itself from scratch, and the best baseline."""
    if decoder.kind == "baseline":
        return []
    there = [other for other in decoders if (other.name, n) in summaries]
    scratch = [other for other in there if decoder.kind == "pretrained" and _is_scratch_of(other, decoder)]
    baselines = [other for other in there if other.kind == "baseline"]
    best = sorted(baselines, key=lambda other: -metrics.estimate(summaries[other.name, n].tallies)["accuracy"])
    return scratch[:1] + best[:1]


def _is_scratch_of(other: _Decoder, decoder: _Decoder) -> bool:
    return other.kind == "scratch" and other.start == decoder.start


def _difference(
    decoder: _Decoder,
    other: _Decoder,
    n: int,
    summaries: dict[tuple[str, int], _Tallied],
    dataset: str,
    options: EvaluateOptions,
) -> Score:
    """Paired difference of accuracies: both resampled with the same units and draws."""
    one, two = summaries[decoder.name, n], summaries[other.name, n]
    assert (one.draws, one.clusters) == (two.draws, two.clusters), (
        "experiments of one split have the same test trials"
    )
    value = metrics.estimate(one.tallies)["accuracy"] - metrics.estimate(two.tallies)["accuracy"]
    low, high = one.interval(one.replicates(options)["accuracy"] - two.replicates(options)["accuracy"], options)
    return Score(
        dataset=dataset,
        experiment=decoder.name,
        n=n,
        draw=_ALL,
        seed=_ALL,
        subject=_ALL,
        metric=f"accuracy_minus_{other.name}",
        value=value,
        ci_low=low,
        ci_high=high,
        n_trials=one.n_trials,
        kind=decoder.kind,
    )


def _summary_line(row: Score) -> str:
    return f"{row.experiment} n={row.n}: {row.metric} {row.value:.3f} [{row.ci_low:.3f}, {row.ci_high:.3f}]"


def _read_ceilings(path: Path, dataset: str) -> list[Score]:
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
            draw=_ALL,
            seed=_ALL,
            subject=_ALL,
            metric="accuracy",
            value=float(row["accuracy"]),
            ci_low=float(row["ci_low"]),
            ci_high=float(row["ci_high"]),
            n_trials=int(row["n_trials"]),
            kind="ceiling",
        )
        for row in rows.to_dict("records")
    ]


def _compare_with_ceilings(scores: list[Score], ceilings: list[Score], decoders: list[_Decoder]) -> None:
    """Warn of a decoder that is better than any can be: test trials must have leaked into its training."""
    means = {decoder.name for decoder in decoders if decoder.start == "mean_mlp"}
    summaries = [row for row in scores if row.metric == "accuracy" and row.draw == row.seed == row.subject == _ALL]
    for ceiling in ceilings:
        for row in summaries:
            bounded = ceiling.experiment == "ceiling_any" or row.experiment in means
            if bounded and row.value > ceiling.ci_high:
                logger.warning(
                    "%s beats %s, the best accuracy that is possible%s: look for test trials in its training",
                    _summary_line(row),
                    f"{ceiling.experiment} {ceiling.value:.3f}",
                    "" if row.ci_low > ceiling.ci_high else " (perhaps by chance)",
                )
