"""Maps of what the signals do: activation patterns of decoders, and the difference of mean signals."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Share of the largest variance of the evidence below which a direction of it is none: evidence sums to zero over
# states, so one is always.
_SMALLEST = 1e-6


def activation_patterns(signals: Array, evidence: Array) -> Array:
    """Return how signals change with what a decoder says: A = cov(x, s) cov(s)^-1 (Haufe et al. 2014, eq. 6).

    Of a linear decoder ``s = W^T x`` this is the exact transformation ``cov(x) W cov(s)^-1`` of its weights into
    the patterns of a forward model; weights themselves also cancel noise, so that a parcel without any effect can
    have a large one. Of another decoder it is the linear part of the same relation.

    Parameters
    ----------
    signals : ndarray, shape (R, P)
        Mean signal of each trial and parcel.
    evidence : ndarray, shape (R, L)
        What the decoder says of each trial and state.

    Returns
    -------
    ndarray, shape (P, L)
        Change of each parcel (SD) for each unit of the evidence for a state, that of the others held.

    Notes
    -----
    Haufe et al. (2014), On the interpretation of weight vectors of linear models in multivariate neuroimaging,
    NeuroImage 87, 96-110.
    """
    x, s = signals - signals.mean(axis=0), evidence - evidence.mean(axis=0)
    return x.T @ s @ np.linalg.pinv(s.T @ s, rcond=_SMALLEST, hermitian=True)


def mean_differences(signals: Array, labels: NDArray[np.int64], n_labels: int) -> Array:
    """Return the mean signal of each state less the mean of those of the other states, (P, L); no decoder is asked.

    A state without a trial has nan.
    """
    means = np.full((n_labels, signals.shape[1]), np.nan)
    for label in np.unique(labels):
        means[label] = signals[labels == label].mean(axis=0)
    there = ~np.isnan(means[:, 0])
    total, count = means[there].sum(axis=0), int(there.sum())
    if count < 2:
        return np.full((signals.shape[1], n_labels), np.nan)
    return (means - (total - means) / (count - 1)).T
