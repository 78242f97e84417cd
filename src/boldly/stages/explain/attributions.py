"""What each parcel contributed to what a decoder says of a trial: integrated gradients, occlusion, weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from captum.attr import FeatureAblation, IntegratedGradients
from numpy.typing import NDArray
from torch import Tensor

from boldly.decoders.differentiable import DifferentiableDecoder, TrialBatch

Array = NDArray[np.float64]
Reference = Literal["zero", "trials"]

# Numbers that a pass over the decoder may hold for its inputs, and most windows of a pass.
_BUDGET = 4e7
_MOST_WINDOWS = 512


@dataclass(frozen=True)
class Contributions:
    """What parcels contributed to the evidence for the state of each trial.

    Attributes
    ----------
    values : ndarray of float64, shape (R, P)
        Contribution of each parcel, summed over the frames of the trial.
    difference : ndarray of float64, shape (R,)
        Evidence for the state that the decoder has in the trial, less that in the reference. The contributions of
        integrated gradients sum to it.
    """

    values: Array
    difference: Array

    @property
    def gap(self) -> float:
        """How far sums of contributions are off the differences, as a share of these."""
        return float(np.abs(self.values.sum(axis=1) - self.difference).sum() / np.abs(self.difference).sum())


def windows_per_pass(decoder: DifferentiableDecoder, batch: TrialBatch) -> int:
    """Return how many windows go through a decoder at a time, so that they fit into memory."""
    _, frames, parcels = batch.inputs.shape
    # Connectivity has a number for each pair of parcels.
    cost = frames * parcels + (4 * parcels**2 if decoder.is_scale_free else 0)
    return int(np.clip(_BUDGET / cost, 1, _MOST_WINDOWS))


def integrated_gradients(
    decoder: DifferentiableDecoder,
    batch: TrialBatch,
    *,
    steps: int,
    reference: Reference = "zero",
    references: int = 4,
    seed: int = 1234,
) -> Contributions:
    """Integrate gradients on the straight path from a reference to each trial (Sundararajan et al. 2017).

    Captum does it, with Gauss-Legendre points. What is explained is `DifferentiableDecoder.evidence` for the true
    state of each trial.

    Parameters
    ----------
    decoder : DifferentiableDecoder
        The decoder.
    batch : TrialBatch
        The R trials.
    steps : int
        Points on each path.
    reference : {"zero", "trials"}, default="zero"
        Zero signals, the mean of each parcel over its run; or other trials, of other states, over which the
        outcome is averaged (expected gradients, Erion et al. 2021).
    references : int, default=4
        Other trials for each.
    seed : int, default=1234
        Seed of their choice.
    """
    starts = [torch.zeros_like(batch.inputs)]
    if reference == "trials":
        starts = [_others(batch, np.random.default_rng([seed, number])) for number in range(references)]
    values, difference = np.zeros((len(batch), batch.inputs.shape[2])), np.zeros(len(batch))
    for rows in _chunks(len(batch), max(1, windows_per_pass(decoder, batch) // steps)):
        for start in starts:
            found = IntegratedGradients(lambda inputs, own: decoder.evidence(inputs, own, batch)).attribute(
                batch.inputs[rows],
                baselines=start[rows],
                target=batch.labels[rows],
                additional_forward_args=(rows,),
                n_steps=steps,
            )
            here = rows.cpu().numpy()
            values[here] += _numbers(found.sum(dim=1)) / len(starts)
            change = _evidence(decoder, batch, batch.inputs[rows], rows) - _evidence(
                decoder, batch, start[rows], rows
            )
            difference[here] += change / len(starts)
    return Contributions(values, difference)


def _others(batch: TrialBatch, rng: np.random.Generator) -> Tensor:
    """Return for each trial the signals of one of another state, as many frames: shorter ones start over."""
    labels, frames = batch.labels.cpu().numpy(), batch.timing.frames.long().cpu().numpy()
    inputs = torch.zeros_like(batch.inputs)
    for trial, length in enumerate(frames):
        others = np.flatnonzero(labels != labels[trial])
        other = int(rng.choice(others)) if len(others) else trial
        inputs[trial, :length] = batch.inputs[other, np.arange(length) % frames[other]]
    return inputs


def occlusion(decoder: DifferentiableDecoder, batch: TrialBatch, most_windows: int | None = None) -> Contributions:
    """Return what the evidence for the true state loses when a parcel is zero, its mean, in all frames.

    Captum's ablation of features, a parcel at a time. Contributions need not sum to anything: parcels that say the
    same stand in for each other.

    Parameters
    ----------
    decoder : DifferentiableDecoder
        The decoder.
    batch : TrialBatch
        The R trials.
    most_windows : int, optional
        Trials times parcels that the decoder is asked for at most: with many parcels fewer trials of each state
        are occluded, at least one. The others have nan.
    """
    chosen = _some_of_each(batch.labels.cpu().numpy(), most_windows, batch.inputs.shape[2])
    parcels = batch.inputs.shape[2]
    most = windows_per_pass(decoder, batch)
    feature = torch.arange(parcels, device=batch.inputs.device).expand(1, batch.inputs.shape[1], parcels)
    values = np.full((len(batch), parcels), np.nan)
    ablation = FeatureAblation(lambda inputs, own: decoder.evidence(inputs, own, batch))
    with torch.inference_mode():
        for places in _chunks(len(chosen), most):
            rows = chosen[places]
            found = ablation.attribute(
                batch.inputs[rows],
                target=batch.labels[rows],
                additional_forward_args=(rows,),
                feature_mask=feature,
                perturbations_per_eval=max(1, most // len(rows)),
            )
            values[rows.cpu().numpy()] = _numbers(found[:, 0])
        every = torch.arange(len(batch), device=batch.inputs.device)
        difference = said(decoder, batch, batch.inputs)[every, batch.labels]
        difference -= said(decoder, batch, torch.zeros_like(batch.inputs))[every, batch.labels]
    return Contributions(values, _numbers(difference))


def _some_of_each(labels: NDArray[np.int64], most_windows: int | None, n_parcels: int) -> Tensor:
    """Return the numbers of the first trials of each state, as many of each as a number of windows allows."""
    states = np.unique(labels)
    most = len(labels) if most_windows is None else max(1, most_windows // (n_parcels * len(states)))
    chosen = [np.flatnonzero(labels == state)[:most] for state in states]
    return torch.from_numpy(np.sort(np.concatenate(chosen)))


def weights(decoder: DifferentiableDecoder, batch: TrialBatch) -> Array:
    """Return the weights of a linear decoder, (P, labels): what the evidence gains for each SD of a parcel.

    The parcel is one SD higher in all frames of a trial; trials of other lengths have other weights, which are
    averaged.
    """
    rows = torch.arange(len(batch), device=batch.inputs.device)[: _MOST_WINDOWS // 4]
    inputs = torch.zeros_like(batch.inputs[rows]).requires_grad_()
    evidence = decoder.evidence(inputs, rows, batch)
    columns = [
        torch.autograd.grad(evidence[:, state].sum(), inputs, retain_graph=True)[0].sum(dim=(0, 1)) / len(rows)
        for state in range(evidence.shape[1])
    ]
    return _numbers(torch.stack(columns, dim=1))


def said(decoder: DifferentiableDecoder, batch: TrialBatch, inputs: Tensor) -> Tensor:
    """Return the evidence (R, labels) when signals `inputs` (R, L, P) stand in for those of the trials."""
    parts = []
    with torch.inference_mode():
        for rows in _chunks(len(batch), windows_per_pass(decoder, batch)):
            parts.append(decoder.evidence(inputs[rows], rows.to(inputs.device), batch))
    return torch.cat(parts)


def _evidence(decoder: DifferentiableDecoder, batch: TrialBatch, inputs: Tensor, rows: Tensor) -> Array:
    with torch.inference_mode():
        found = decoder.evidence(inputs, rows, batch)
    return _numbers(found.gather(1, batch.labels[rows, None])[:, 0])


def _chunks(count: int, size: int) -> Iterator[Tensor]:
    for first in range(0, count, size):
        yield torch.arange(first, min(first + size, count))


def _numbers(tensor: Tensor) -> Array:
    return tensor.detach().double().cpu().numpy()
