"""Read-outs: the states of a trial, of any length, to a fixed number of features.

Each read-out looks at the first principal components of the states (`boldly.models.basis`) of a layer and gives a
block of features:

- ``mean``: the mean over time.
- ``slices``: means in eight parts of the trial, which know what comes first and what comes later.
- ``covariance``: covariances of eight components with themselves, now and up to four seconds later, as signed
  square roots: what runs ahead of what.
- ``power``: the covariance of 32 components, as signed square roots.
- ``tangent``: the covariance of 32 components on the scale where covariances add up, the matrix logarithm
  (log-Euclidean metric; Arsigny et al. 2006, doi:10.1002/mrm.20965): what varies with what.
- ``correlation``: Fisher's z of the correlations of all pairs of components (or parcels): functional connectivity.

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

_SLICES = 8
_LAGGED_COMPONENTS, _LAGS_S = 8, (0.0, 1.0, 2.0, 3.0, 4.0)
_COMPONENTS = 32
# Share of a sphere of the same trace in each covariance: trials have fewer frames than a covariance has numbers.
_SHRINKAGE = 0.1
# Half way between the components' own variances and equal ones, before covariances are taken.
_WHITENING = 0.5


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
        # (N, K), in double precision: the sums below are differences of cumulated sums.
        projected = (states.values[:, layer] - basis.mean[layer]) @ basis.components[layer]
        for word in words:
            block = _READ_OUTS[word](projected.astype(np.float64), states, basis.variance[layer])
            blocks.append(block.astype(np.float32))
    return blocks


def _mean(projected: NDArray, states: States, variance: Floats) -> NDArray:
    return _means(projected, states.starts[:-1], states.starts[1:])


def _slices(projected: NDArray, states: States, variance: Floats) -> NDArray:
    """Return the means of the parts, which overlap by a frame where the length is no multiple of their number."""
    edges = np.arange(_SLICES + 1) / _SLICES * states.lengths[:, None]  # (R, parts + 1)
    first = np.floor(edges[:, :-1]).astype(np.int64)
    stop = np.maximum(np.ceil(edges[:, 1:]).astype(np.int64), first + 1)
    parts = [
        _means(projected, states.starts[:-1] + first[:, part], states.starts[:-1] + stop[:, part])
        for part in range(_SLICES)
    ]
    return np.concatenate(parts, axis=1)


def _means(values: NDArray, first: NDArray, stop: NDArray) -> NDArray:
    """Return the means of stretches of frames, by one cumulated sum."""
    sums = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, axis=0)])
    return (sums[stop] - sums[first]) / (stop - first)[:, None]


def _covariance(projected: NDArray, states: States, variance: Floats) -> NDArray:
    values = projected[:, :_LAGGED_COMPONENTS]
    upper = np.triu_indices(values.shape[1])
    features = []
    for trial, (start, stop) in enumerate(zip(states.starts[:-1], states.starts[1:], strict=True)):
        frames = values[start:stop] - values[start:stop].mean(axis=0)
        parts = []
        for lag_s in _LAGS_S:
            lag = min(round(lag_s / states.t_r[trial]), len(frames) - 1)
            product = frames[: len(frames) - lag].T @ frames[lag:] / (len(frames) - lag)
            parts.append(product[upper] if lag_s == 0 else product.ravel())
        features.append(np.concatenate(parts))
    table = np.stack(features)
    return np.sign(table) * np.sqrt(np.abs(table))


def _power(projected: NDArray, states: States, variance: Floats) -> NDArray:
    values = projected[:, :_COMPONENTS]
    upper = np.triu_indices(values.shape[1])
    table = _covariances(values, states)[:, *upper]
    return np.sign(table) * np.sqrt(np.abs(table))


def _tangent(projected: NDArray, states: States, variance: Floats) -> NDArray:
    values = projected[:, :_COMPONENTS]
    weights = np.maximum(variance[: values.shape[1]], 1e-6 * variance.max()) ** (-_WHITENING / 2)
    return _logarithms(values * weights, states)


def _logarithms(values: NDArray, states: States) -> NDArray:
    """Return the matrix logarithms of the trials' covariances, as upper triangles of the same length (norm)."""
    n = values.shape[1]
    upper = np.triu_indices(n)
    weights = np.where(upper[0] == upper[1], 1, np.sqrt(2))
    covariances = _covariances(values, states)
    power = np.trace(covariances, axis1=1, axis2=2) / n
    shrunk = (1 - _SHRINKAGE) * covariances + (_SHRINKAGE * power + 1e-12)[:, None, None] * np.eye(n)
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
    from nilearn.connectome import ConnectivityMeasure
    from sklearn.covariance import EmpiricalCovariance

    trials = [projected[a:b] for a, b in zip(states.starts[:-1], states.starts[1:], strict=True)]
    measure = ConnectivityMeasure(
        EmpiricalCovariance(), kind="correlation", vectorize=True, discard_diagonal=True, standardize=False
    )
    found = np.nan_to_num(measure.fit_transform(trials))
    return np.arctanh(np.clip(found, -0.999, 0.999))


_READ_OUTS: dict[ReadOut, Callable[[NDArray, States, Floats], NDArray]] = {
    "mean": _mean,
    "slices": _slices,
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
        For each feature the root of the total variance of its block.
    """

    mean: Floats
    scale: Floats

    @classmethod
    def fit(cls, blocks: list[Floats]) -> Scaling:
        """Fit to the training trials' blocks, each (R, D)."""
        means = [block.mean(axis=0) for block in blocks]
        totals = [
            math.sqrt(max(float(((block - mean) ** 2).sum(axis=1).mean()), 1e-30))
            for block, mean in zip(blocks, means, strict=True)
        ]
        scales = [np.full(block.shape[1], total) for block, total in zip(blocks, totals, strict=True)]
        return cls(np.concatenate(means).astype(np.float32), np.concatenate(scales).astype(np.float32))

    def __call__(self, blocks: list[Floats]) -> Floats:
        """Return features of shape (R, D), all blocks side by side."""
        return (np.concatenate(blocks, axis=1) - self.mean) / self.scale
