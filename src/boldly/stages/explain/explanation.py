"""The maps of an experiment: what its decoders say of trials, pooled over fits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from boldly.config import ExplainOptions
from boldly.decoders.differentiable import DifferentiableDecoder, TrialBatch, load_differentiable
from boldly.samples.corpus import Corpus
from boldly.stages.explain import faithfulness
from boldly.stages.explain.agreement import reliability
from boldly.stages.explain.attributions import Contributions, integrated_gradients, occlusion, said, weights
from boldly.stages.explain.decoders import Experiment, choose_trials, owners_of
from boldly.stages.explain.patterns import activation_patterns, mean_differences

Array = NDArray[np.float64]
Bools = NDArray[np.bool_]

MEAN_DIFFERENCE = "mean_difference"
# Methods that tell for each trial what each parcel contributed; the others give one value for each state.
OF_TRIALS = ("integrated_gradients", "occlusion")


@dataclass
class Explained:
    """What is known of one decoder on its R trials.

    Attributes
    ----------
    decoder, batch : DifferentiableDecoder, TrialBatch
        The decoder and the trials.
    labels, units : ndarray, shape (R,)
        States, and units of the split.
    signals : ndarray, shape (R, P)
        Mean over time of each trial.
    evidence : ndarray, shape (R, L)
        What the decoder says.
    of_trials : dict of str to Contributions
        Of each method of `OF_TRIALS` that was asked for.
    weights : ndarray, shape (P, L), or None
        Of a linear decoder, if asked for.
    """

    decoder: DifferentiableDecoder
    batch: TrialBatch
    labels: NDArray[np.int64]
    units: NDArray[np.str_]
    signals: Array
    evidence: Array
    of_trials: dict[str, Contributions] = field(default_factory=dict)
    weights: Array | None = None

    def values(self, method: str, chosen: Bools) -> Array:
        """Return the map of each state from some of the trials, (P, L); nan for states without one."""
        n_labels = self.evidence.shape[1]
        match method:
            case "patterns":
                return activation_patterns(self.signals[chosen], self.evidence[chosen])
            case "weights":
                assert self.weights is not None
                return self.weights
            case "mean_difference":
                return mean_differences(self.signals[chosen], self.labels[chosen], n_labels)
            case _:
                return _means(self.of_trials[method].values[chosen], self.labels[chosen], n_labels)

    def directions(self, method: str) -> Array:
        """Return in which direction parcels speak for each state, (P, L): positive for high signals.

        Of contributions it is that of trials with a high mean signal in the parcel less that of trials with a low
        one. The other methods have a direction by themselves.
        """
        every = np.ones(len(self.labels), bool)
        if method not in OF_TRIALS:
            return self.values(method, every)
        signed = self.of_trials[method].values * np.sign(self.signals)
        return _means(signed, self.labels, self.evidence.shape[1])


@dataclass(frozen=True)
class Map:
    """The map of a method, each of shape (P, L).

    Attributes
    ----------
    value, sd : ndarray
        Mean over fits, and standard deviation (nan for a single fit).
    direction : ndarray
        See `Explained.directions`.
    reliability : ndarray, shape (L,)
        Mean correlation between the maps of two fits.
    gap : float
        Of integrated gradients how far sums are off what they should be (`Contributions.gap`); nan for others.
    """

    value: Array
    sd: Array
    direction: Array
    reliability: Array
    gap: float


def explain_fits(
    experiment: Experiment,
    corpus: Corpus,
    options: ExplainOptions,
    progress: str,
    allow_mismatch: Sequence[str] = (),
) -> tuple[list[Explained], str]:
    """Ask all decoders of an experiment.

    Returns
    -------
    list of Explained
        One for each fit.
    str
        Where the paths of integrated gradients start: "zero" or "trials".
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parts = []
    for fit in experiment.fits:
        chosen = corpus.select(choose_trials(corpus, fit.units, options.trials_per_state, options.seed))
        decoder = load_differentiable(experiment.folder, fit.name, chosen, allow_mismatch=allow_mismatch)
        parts.append((fit, chosen, decoder.to(device)))
    is_scale_free = any(decoder.is_scale_free for *_, decoder in parts)
    chosen_start: Literal["zero", "trials"] = "trials" if is_scale_free else "zero"
    start = chosen_start if options.reference == "auto" else options.reference
    explained = []
    for fit, chosen, decoder in tqdm(parts, desc=progress, unit="decoder", disable=None):
        batch = TrialBatch.cut(chosen, decoder.longest, device)
        units = owners_of(chosen, fit.units)
        frames = batch.timing.frames[:, None]
        signals = (batch.inputs.double().sum(dim=1) / frames).cpu().numpy()
        evidence = said(decoder, batch, batch.inputs).cpu().numpy()
        one = Explained(decoder, batch, batch.labels.cpu().numpy(), units, signals, evidence)
        if "integrated_gradients" in options.methods:
            one.of_trials["integrated_gradients"] = integrated_gradients(
                decoder,
                batch,
                steps=options.steps,
                reference=start,
                references=options.references,
                seed=options.seed,
            )
        if "occlusion" in options.methods:
            one.of_trials["occlusion"] = occlusion(decoder, batch, options.occlusions)
        if "weights" in options.methods and decoder.is_linear:
            one.weights = weights(decoder, batch)
        explained.append(one)
    return explained, start


def methods_of(explained: Sequence[Explained], options: ExplainOptions) -> list[str]:
    """Return the methods that these decoders have, in the order of the options, and the rival."""
    is_linear = all(one.weights is not None for one in explained)
    return [*(name for name in options.methods if name != "weights" or is_linear), MEAN_DIFFERENCE]


def map_of(explained: Sequence[Explained], method: str) -> Map:
    """Average the maps of the fits."""
    maps = np.stack([one.values(method, np.ones(len(one.labels), bool)) for one in explained])
    directions = np.stack([one.directions(method) for one in explained])
    several = len(explained) > 1
    # Fits that are tested on the same trials have the same differences, which says nothing.
    alike = method != MEAN_DIFFERENCE
    gaps = [one.of_trials[method].gap for one in explained] if method == "integrated_gradients" else []
    return Map(
        value=_nanmean(maps),
        sd=np.sqrt(_nanmean((maps - _nanmean(maps)) ** 2) * len(maps) / (len(maps) - 1))
        if several
        else np.full(maps.shape[1:], np.nan),
        direction=_nanmean(directions),
        reliability=np.array([reliability(maps[:, :, k]) if alike else np.nan for k in range(maps.shape[2])]),
        gap=float(np.mean(gaps)) if gaps else float("nan"),
    )


def measure_faithfulness(
    explained: Sequence[Explained], methods: Sequence[str], options: ExplainOptions
) -> pd.DataFrame:
    """Remove parcels in the order of each method and at random; rows as those of `faithfulness.hits`."""
    units = np.concatenate([one.units for one in explained])
    labels = np.concatenate([one.labels for one in explained])
    ends = np.cumsum([0, *(len(one.labels) for one in explained)])
    n_parcels = explained[0].signals.shape[1]
    orders = {
        method: faithfulness.rank(
            faithfulness.without_own_unit(units, _of_others(explained, method, labels, ends))
        )
        for method in methods
    }
    random = faithfulness.random_orders(options.random_orders, n_parcels, options.seed)
    counts = faithfulness.counts_of(options.removed, n_parcels)
    tables = []
    for number, one in enumerate(tqdm(explained, desc="faithfulness", unit="decoder", disable=None)):
        own = {method: order[ends[number] : ends[number + 1]] for method, order in orders.items()}
        table = faithfulness.hits(one.decoder, one.batch, faithfulness.Orders(own, random), counts)
        tables.append(table.assign(fit=number, label=one.labels[table["trial"]]))
    return pd.concat(tables, ignore_index=True)


def _of_others(
    explained: Sequence[Explained], method: str, labels: NDArray[np.int64], ends: NDArray[np.int64]
) -> Callable[[Bools], Array]:
    """Return what turns a mask of the pooled trials into values that order the parcels of each trial, (R, P)."""

    def values(chosen: Bools) -> Array:
        maps = [
            one.values(method, chosen[ends[number] : ends[number + 1]])
            for number, one in enumerate(explained)
            if chosen[ends[number] : ends[number + 1]].any()
        ]
        found = np.nan_to_num(_nanmean(np.stack(maps)))
        # Contributions are large where a parcel speaks for the state, the others where it matters either way.
        return (found if method in OF_TRIALS else np.abs(found)).T[labels]

    return values


def _means(values: Array, labels: NDArray[np.int64], n_labels: int) -> Array:
    """Return the mean over the trials of each state that are not nan, (P, L); nan for states without one."""
    means = np.full((values.shape[1], n_labels), np.nan)
    for label in np.unique(labels):
        means[:, label] = _nanmean(values[labels == label])
    return means


def _nanmean(parts: Array) -> Array:
    """Average over the first axis; nan where all are, without numpy's warning."""
    there = ~np.isnan(parts)
    total, counts = np.where(there, parts, 0).sum(axis=0), there.sum(axis=0)
    return np.where(counts > 0, total / np.maximum(counts, 1), np.nan)
