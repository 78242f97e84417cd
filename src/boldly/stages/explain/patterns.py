"""Maps of what the signals do: activation patterns of decoders, and the difference of mean signals."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def activation_patterns(signals: Array, evidence: Array) -> Array:
    """Return how signals change with what a decoder says of each state: a = cov(x, s) / var(s).

    Of a linear decoder ``s = w^T x`` this is exactly ``cov(x) w / var(s)``, the transformation of its weights into
    the pattern of a forward model with one factor (Haufe et al. 2014, eq. 7). Weights themselves also cancel
    noise, so that a parcel without any effect can have a large one. Of another decoder the pattern is the linear
    part of the same relation.

    The evidence for one state is a factor by itself, whatever that for other states does. Their common inverse
    covariance (eq. 6) holds the others still instead, and takes away what states have in common: of two states
    with the same map little is left.

    Parameters
    ----------
    signals : ndarray, shape (R, P)
        Mean signal of each trial and parcel.
    evidence : ndarray, shape (R, L)
        What the decoder says of each trial and state.

    Returns
    -------
    ndarray, shape (P, L)
        Change of each parcel (SD) for each unit of the evidence for a state.

    Notes
    -----
    Haufe et al. (2014), On the interpretation of weight vectors of linear models in multivariate neuroimaging,
    NeuroImage 87, 96-110.
    """
    x, s = signals - signals.mean(axis=0), evidence - evidence.mean(axis=0)
    power = (s**2).sum(axis=0)
    # Evidence that is the same in all trials goes with nothing.
    return x.T @ s / np.where(power > 0, power, np.inf)


def mean_differences(signals: Array, labels: NDArray[np.int64], n_labels: int) -> Array:
    """Return the mean signal of each state less the mean of those of the other states, (P, L).

    No decoder is asked. A state without a trial has nan.
    """
    means = np.full((n_labels, signals.shape[1]), np.nan)
    for label in np.unique(labels):
        means[label] = signals[labels == label].mean(axis=0)
    there = ~np.isnan(means[:, 0])
    total, count = means[there].sum(axis=0), int(there.sum())
    if count < 2:
        return np.full((signals.shape[1], n_labels), np.nan)
    return (means - (total - means) / (count - 1)).T
