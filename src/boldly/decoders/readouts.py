"""Read-outs: the states of a trial, of any length, to a fixed number of features.

Each read-out looks at the first principal components of the states (`boldly.models.basis`) of a layer and gives a
block of features:

- ``mean``: the mean over time.
- ``slices``: means in eight parts of the trial, which know what comes first and what comes later.
- ``leading``: the slices of the first eight components alone, where the others hold mostly noise.
- ``covariance``: covariances of eight components with themselves, now and up to four seconds later, as signed
  square roots: what runs ahead of what.
- ``power``: the covariance of 32 components, as signed square roots.
- ``tangent``: the covariance of 32 components on the scale where factors add up, the matrix logarithm
  (log-Euclidean metric; Arsigny et al. 2006, doi:10.1002/mrm.20965): what varies with what.
- ``correlation``: Fisher's z of the correlations of all pairs of components (or parcels): functional connectivity.

A trial of a single frame has its own mean, covariances and correlations of zero, and the matrix logarithm of the
components' variances.

Blocks are centred and scaled as a whole, not feature by feature: features that vary little stay small.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from boldly.config import ReadOut
from boldly.decoders.encoders import States
from boldly.models.basis import Basis

Floats = NDArray[np.float32]

PARTS = 8
LEADING = 8
LAGS_S = (0.0, 1.0, 2.0, 3.0, 4.0)
COMPONENTS = 32
# Share of a sphere of the same trace in each covariance: trials have fewer frames than a covariance has numbers.
SHRINKAGE = 0.1
# Fisher's z of a correlation of one is infinite.
HIGHEST = 0.999
# Share of the components' variance below which a trial does not vary, and share of the largest component's below
# which another one does not: what rounding leaves is smaller. Behind a LayerNorm one direction never varies.
STILL = 1e-9
# Half way between the components' own variances and equal ones, before covariances are taken.
WHITENING = 0.5


def read_out(states: States, basis: Basis, words: Sequence[ReadOut], layers: Sequence[int]) -> list[Floats]:
    """Return one block of features for each read-out and layer.

    Parameters
    ----------
    states : States
        Of R trials.
    basis : Basis
        Components of the states of each layer.
    words : sequence of str
        Read-outs.
    layers : sequence of int
        Layers, from 0, the embedding.

    Returns
    -------
    list of ndarray of float32, shape (R, D)
        D differs from block to block.
    """
    blocks = []
    for layer in layers:
        projected = (states.values[:, layer] - basis.mean[layer]) @ basis.components[layer]
        for word in words:
            # (N, K), in double precision for the sums.
            block = _READ_OUTS[word](projected.astype(np.float64), states, basis.variance[layer])
            blocks.append(block.astype(np.float32, copy=False))
    return blocks


def _mean(projected: NDArray, states: States, variance: Floats) -> NDArray:
    return _means(projected, states.starts[:-1], states.starts[1:])


def _slices(projected: NDArray, states: States, variance: Floats) -> NDArray:
    """Return the means of the parts, which overlap by a frame where the length is no multiple of their number."""
    edges = part_edges(states.lengths) + states.starts[:-1, None, None]
    parts = [_means(projected, *edges[:, part].T) for part in range(PARTS)]
    return np.concatenate(parts, axis=1)


def part_edges(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the first frame of each part of trials and the one behind its last, shape (R, PARTS, 2)."""
    edges = np.arange(PARTS + 1) / PARTS * lengths[:, None]  # (R, parts + 1)
    first = np.floor(edges[:, :-1]).astype(np.int64)
    stop = np.maximum(np.ceil(edges[:, 1:]).astype(np.int64), first + 1)
    return np.stack([first, stop], axis=2)


def _leading(projected: NDArray, states: States, variance: Floats) -> NDArray:
    return _slices(projected[:, :LEADING], states, variance)


def _means(values: NDArray, first: NDArray, stop: NDArray) -> NDArray:
    """Return the means of stretches of frames, each summed by itself: no trial has a say in those of others."""
    edges = np.stack([first, stop], axis=1).ravel()
    # An edge may lie behind the last frame.
    padded = np.concatenate([values, np.zeros((1, values.shape[1]))])
    return np.add.reduceat(padded, edges, axis=0)[::2] / (stop - first)[:, None]


def _covariance(projected: NDArray, states: States, variance: Floats) -> NDArray:
    values = projected[:, :LEADING]
    upper = np.triu_indices(values.shape[1])
    features = []
    for trial, (start, stop) in enumerate(zip(states.starts[:-1], states.starts[1:], strict=True)):
        frames = values[start:stop] - values[start:stop].mean(axis=0)
        parts = []
        for lag_s in LAGS_S:
            numbers = None if states.numbers is None else states.numbers[start:stop]
            lag = lag_frames(lag_s, states.t_r[trial], len(frames))
            now, later = lagged_pairs(len(frames), lag, numbers)
            product = frames[now].T @ frames[later] / max(1, len(now))
            parts.append(product[upper] if lag_s == 0 else product.ravel())
        features.append(np.concatenate(parts))
    table = np.stack(features)
    return np.sign(table) * np.sqrt(np.abs(table))


def lag_frames(lag_s: float, t_r: float, length: int) -> int:
    """Return a lag as a number of frames, less than the trial has."""
    return min(round(lag_s / float(t_r)), int(length) - 1)


def lagged_pairs(length: int, lag: int, numbers: NDArray[np.int32] | None) -> tuple[NDArray, NDArray]:
    """Return which frames of a trial have one that comes `lag` frames later, and which these are.

    Where scrubbing took frames, the next one that is there is not the next one in time: `numbers` (length,) says
    which frame of its run each is; None: none is missing.
    """
    if numbers is None:
        first = np.arange(length - lag)
        return first, first + lag
    later = np.searchsorted(numbers, numbers + lag)
    there = np.flatnonzero((later < length) & (numbers[np.minimum(later, length - 1)] == numbers + lag))
    return there, later[there]


def _power(projected: NDArray, states: States, variance: Floats) -> NDArray:
    values = projected[:, :COMPONENTS]
    upper = np.triu_indices(values.shape[1])
    table = _covariances(values, states)[:, *upper]
    return np.sign(table) * np.sqrt(np.abs(table))


def _tangent(projected: NDArray, states: States, variance: Floats) -> NDArray:
    values = projected[:, :COMPONENTS]
    floor = max(1e-6 * float(variance.max()), 1e-12)
    weights = np.maximum(variance[: values.shape[1]], floor) ** (-WHITENING / 2)
    return _logarithms(values * weights, states, variance[: values.shape[1]] * weights**2)


def _logarithms(values: NDArray, states: States, expected: NDArray) -> NDArray:
    """Return the matrix logarithms of the trials' covariances, as upper triangles of the same length (norm).

    A trial that does not vary, such as one of a single frame, tells nothing of its covariance: it gets that with
    the variances `expected` (K,).
    """
    n = values.shape[1]
    upper = np.triu_indices(n)
    weights = np.where(upper[0] == upper[1], 1, np.sqrt(2))
    covariances = _covariances(values, states)
    power = np.trace(covariances, axis1=1, axis2=2) / n
    still = power <= STILL * expected.mean()
    covariances[still], power[still] = np.diag(expected), expected.mean()
    # Components that never vary leave the least number.
    shrunk = (1 - SHRINKAGE) * covariances + (SHRINKAGE * power + 1e-12)[:, None, None] * np.eye(n)
    spectra, vectors = np.linalg.eigh(shrunk)
    logarithms = (vectors * np.log(spectra)[:, None]) @ vectors.transpose(0, 2, 1)
    return logarithms[:, *upper] * weights


def _covariances(values: NDArray, states: States) -> NDArray:
    """Return the covariance of each trial, (R, K, K)."""
    found = [
        np.cov(values[start:stop].T, bias=True)
        for start, stop in zip(states.starts[:-1], states.starts[1:], strict=True)
    ]
    return np.stack(found).reshape(-1, values.shape[1], values.shape[1])


def _correlation(projected: NDArray, states: States, variance: Floats) -> NDArray:
    below = np.flatnonzero(np.tri(projected.shape[1], k=-1))
    # Of many parcels there are half a million pairs: trial by trial, in single precision, they fit into memory.
    table = np.empty((len(states), len(below)), np.float32)
    for trial, (start, stop) in enumerate(zip(states.starts[:-1], states.starts[1:], strict=True)):
        frames = projected[start:stop] - projected[start:stop].mean(axis=0)
        power = (frames**2).sum(axis=0)
        # Signals that do not vary correlate with none.
        frames /= np.where(power > STILL * power.max(), np.sqrt(power), np.inf)
        found = (frames.T @ frames).ravel()[below].astype(np.float32)
        table[trial] = np.arctanh(np.clip(found, -HIGHEST, HIGHEST))
    return table


_READ_OUTS: dict[ReadOut, Callable[[NDArray, States, Floats], NDArray]] = {
    "mean": _mean,
    "slices": _slices,
    "leading": _leading,
    "covariance": _covariance,
    "power": _power,
    "tangent": _tangent,
    "correlation": _correlation,
}


@dataclass(frozen=True)
class Scaling:
    """What the blocks of a read-out are centred with, and divided by as a whole.

    Attributes
    ----------
    mean : ndarray of float32, shape (D,)
        Mean of each feature of all blocks over the training trials.
    scale : ndarray of float32, shape (D,)
        For each feature the root of the total variance of its block; infinite for a block that is the same in all
        training trials, so that it is zero in all others.
    """

    mean: Floats
    scale: Floats

    @classmethod
    def fit(cls, blocks: list[Floats]) -> Scaling:
        """Fit to the training trials' blocks, each (R, D)."""
        means = [block.mean(axis=0) for block in blocks]
        totals = [_total(block - mean, mean) for block, mean in zip(blocks, means, strict=True)]
        scales = [np.full(block.shape[1], total) for block, total in zip(blocks, totals, strict=True)]
        return cls(np.concatenate(means).astype(np.float32), np.concatenate(scales).astype(np.float32))

    def __call__(self, blocks: list[Floats]) -> Floats:
        """Return features of shape (R, D), all blocks side by side."""
        features = np.concatenate(blocks, axis=1)
        # In place: of many parcels there are half a million features.
        features -= self.mean
        features /= self.scale
        return features


def _total(centred: Floats, mean: Floats) -> float:
    """Return the root of the total variance of a block (R, D); infinite where only rounding varies."""
    total = math.sqrt(math.fsum(float(trial @ trial) for trial in centred) / len(centred))
    return total if total > 1e-6 * float(np.linalg.norm(mean)) else math.inf
