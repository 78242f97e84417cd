"""Paired differences of accuracy between experiments, with p-values corrected for their number."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from boldly import intervals, metrics
from boldly.config import EvaluateOptions
from boldly.records import Comparison
from boldly.stages.evaluate.predictions import Experiment
from boldly.stages.evaluate.scores import Tallied

_NETWORKS = ("pretrained", "scratch", "untrained")


def compare(
    experiments: list[Experiment],
    tallies: dict[tuple[str, int], Tallied],
    *,
    dataset: str,
    options: EvaluateOptions,
) -> list[Comparison]:
    """Compare each network with each baseline, and each pretrained one with the same network without pretraining.

    Ensembles of baselines are compared with the other baselines.

    Differences are paired: of the same test units, draws and seeds. An experiment with one seed is compared with
    all seeds of the other; of several seeds each, those that both have count, and where there are none, the means
    over seeds. Networks are the same that have the same `start`. Of networks without pretraining that say the same
    of all trials (those of the two BERT frameworks are one) the first is compared with baselines.

    Parameters
    ----------
    experiments : list of Experiment
        All that are scored; controls and chance are left out.
    tallies : dict of (str, int) to Tallied
        Their counts by name and n.
    dataset : str
        Name of the dataset.
    options : EvaluateOptions
        Level of the intervals.

    Returns
    -------
    list of Comparison
        By n, then in the order of experiments. P-values of one n are corrected together (Holm).
    """
    comparisons: list[Comparison] = []
    twins = _twins(experiments, tallies)
    for n in sorted({n for _, n in tallies}):
        family = [
            _difference(one, other, n, tallies, dataset, options)
            for one in experiments
            for other in experiments
            if _are_compared(one, other)
            and one.name not in twins
            and (one.name, n) in tallies
            and (other.name, n) in tallies
        ]
        corrected = intervals.holm(np.array([row.p for row in family]))
        comparisons += [replace(row, p_holm=float(p)) for row, p in zip(family, corrected, strict=True)]
    return comparisons


def _twins(experiments: list[Experiment], tallies: dict[tuple[str, int], Tallied]) -> set[str]:
    """Return the networks without pretraining that are an earlier one once more."""
    seen: set[tuple[str, tuple[tuple[int, bytes, bytes], ...]]] = set()
    twins = set()
    for one in experiments:
        if one.kind in ("scratch", "untrained"):
            own = {n: tallied.counts for (name, n), tallied in tallies.items() if name == one.name}
            said = [(n, own[n].labels.tobytes(), own[n].surprise.tobytes()) for n in sorted(own)]
            key = one.kind, tuple(said)
            if key in seen:
                twins.add(one.name)
            seen.add(key)
    return twins


def _are_compared(one: Experiment, other: Experiment) -> bool:
    if other.kind == "baseline":
        return one.kind in _NETWORKS or (_is_of_several(one) and not _is_of_several(other))
    return one.kind == "pretrained" and other.kind in ("scratch", "untrained") and one.start == other.start


def _is_of_several(experiment: Experiment) -> bool:
    """Whether it is an ensemble, which starts from all of its members."""
    return "+" in experiment.start


def _difference(
    one: Experiment,
    other: Experiment,
    n: int,
    tallies: dict[tuple[str, int], Tallied],
    dataset: str,
    options: EvaluateOptions,
) -> Comparison:
    first, second = tallies[one.name, n], tallies[other.name, n]
    assert first.draws == second.draws, "experiments of one split have the same draws"
    assert np.array_equal(first.clusters, second.clusters), "and the same test trials"
    one_values, other_values = _paired(first, second)
    difference = one_values - other_values
    value, values = float(difference[..., 0].mean()), difference[..., 1:]
    low, high, p = _sureness(value, values, (first, second), options)
    return Comparison(
        dataset=dataset,
        n=n,
        experiment=one.name,
        kind=one.kind,
        baseline=other.name,
        other_kind=other.kind,
        difference=value,
        ci_low=max(low, -1.0),
        ci_high=min(high, 1.0),
        p=p,
        p_holm=p,
        n_units=values.shape[2],
        n_draws=values.shape[0],
        n_seeds=values.shape[1],
    )


def _paired(one: Tallied, other: Tallied) -> tuple[metrics.Array, metrics.Array]:
    """Return accuracies of both with the same seeds, or such that broadcast; see `_accuracies`."""
    first, second = _accuracies(one), _accuracies(other)
    if len(one.seeds) == 1 or len(other.seeds) == 1:
        return first, second
    common = [seed for seed in one.seeds if seed in other.seeds]
    if not common:
        return first.mean(axis=1, keepdims=True), second.mean(axis=1, keepdims=True)
    return (
        first[:, [one.seeds.index(seed) for seed in common]],
        second[:, [other.seeds.index(seed) for seed in common]],
    )


def _accuracies(tallied: Tallied) -> metrics.Array:
    """Return the accuracy of all units, then the pseudo-value of each, shape (D, S, 1 + U)."""
    whole = metrics.accuracy(tallied.counts.total())[..., None]
    if len(tallied.clusters) < 2:
        return np.concatenate([whole, whole], axis=-1)
    return np.concatenate([whole, metrics.pseudo_values(metrics.accuracy, tallied.counts)], axis=-1)


def _sureness(
    value: float, values: metrics.Array, both: tuple[Tallied, Tallied], options: EvaluateOptions
) -> tuple[float, float, float]:
    """Return the interval and the p-value of a difference; nan where there is a single test trial."""
    n_units = values.shape[2]
    if n_units < 2:
        return float("nan"), float("nan"), float("nan")
    spread = intervals.spread(values)
    half = float(spread.half_width(options.confidence))
    if half > 0:
        return value - half, value + half, float(spread.p_value(np.asarray(value)))
    # The same difference in all units is no certainty: the sign test's p-value, and the interval of a difference
    # of two independent shares (Newcombe 1998, doi:10.1002/(SICI)1097-0258(19980430)17:8<873, method 10).
    shares = [metrics.estimate(metrics.accuracy, tallied.counts) for tallied in both]
    (low, high), (other_low, other_high) = (
        intervals.wilson(share, tallied.n_trials, options.confidence)
        for share, tallied in zip(shares, both, strict=True)
    )
    below = np.hypot(shares[0] - low, other_high - shares[1])
    above = np.hypot(high - shares[0], shares[1] - other_low)
    return value - float(below), value + float(above), 0.5 ** (n_units - 1) if value else 1.0
