"""Networks that oscillate with lags, and how they appear in the parcels of a subject."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]

N_NETWORKS = 8
PARCELS_PER_NETWORK = 6
N_PARCELS = N_NETWORKS * PARCELS_PER_NETWORK
NETWORK_NAMES = tuple("ABCDEFGH")

# Seed of what is the same in every study: networks, states, anatomy.
MODEL_SEED = 20220622

# Oscillations of the background: centre frequency (Hz) and coherence length (s), slow and lasting to fast and
# brief.
MODE_FREQUENCIES_HZ = np.array([0.015, 0.025, 0.035, 0.050, 0.065])
MODE_COHERENCE_S = np.array([40.0, 32.0, 26.0, 20.0, 16.0])
LARGEST_LAG_S = 6.0

# Standard deviations of the network signals, in units of the networks' own scale.
BACKGROUND_SD = 0.5
PRIVATE_SD = 0.3
PRIVATE_SCALE_S = 5.0

# Loadings of a parcel on networks other than its own, and how much subjects differ.
LEAKAGE_SD = 0.15
TOPOGRAPHY_SD = 0.3
GAIN_SD = 0.25
RESPONSE_LAG_SD_S = 0.6

# Noise of a single parcel: a slow physiological part, and a white one of this power per second (the faster the
# scan, the noisier the frame).
SLOW_NOISE_SD = 1.0
SLOW_NOISE_SCALE_S = 3.0
WHITE_NOISE_SD = 2.5


@dataclass(frozen=True)
class Background:
    """The oscillations that all datasets share.

    Attributes
    ----------
    loadings : array, shape (N_NETWORKS, n_modes)
        Strength of each mode in each network. Every mode sums to zero over networks, so that the brain's mean
        signal carries little of it and a global signal regression does not remove it.
    lags_s : array, shape (N_NETWORKS, n_modes)
        Delay with which a mode reaches a network.
    """

    loadings: Array
    lags_s: Array


@dataclass(frozen=True)
class Subject:
    """What makes a subject's signals their own.

    Attributes
    ----------
    mixing : array, shape (N_PARCELS, N_NETWORKS)
        Strength of each network in each parcel: the group's, with the subject's topography and gain.
    response_lag_s : float
        Shift of the subject's haemodynamic response against the group's.
    """

    mixing: Array
    response_lag_s: float


@cache
def background() -> Background:
    """Return the oscillations that all datasets share."""
    rng = np.random.default_rng([MODEL_SEED, 1])
    loadings = rng.standard_normal((N_NETWORKS, len(MODE_FREQUENCIES_HZ)))
    loadings -= loadings.mean(axis=0)
    loadings *= BACKGROUND_SD / np.sqrt((loadings**2).sum(axis=1, keepdims=True))
    loadings -= loadings.mean(axis=0)
    lags = rng.uniform(0.0, LARGEST_LAG_S, loadings.shape)
    return Background(loadings, lags)


@cache
def group_mixing() -> Array:
    """Return the strength of each network in each parcel of the average subject, shape (N_PARCELS, N_NETWORKS)."""
    rng = np.random.default_rng([MODEL_SEED, 2])
    mixing = rng.normal(0.0, LEAKAGE_SD, (N_PARCELS, N_NETWORKS))
    own = np.arange(N_PARCELS), np.arange(N_PARCELS) // PARCELS_PER_NETWORK
    mixing[own] = rng.uniform(0.7, 1.3, N_PARCELS)
    return mixing


def draw_subject(rng: np.random.Generator) -> Subject:
    """Draw a subject: topography (where networks lie), gain (how strong they are), lag of the response."""
    topography = group_mixing() + rng.normal(0.0, TOPOGRAPHY_SD, (N_PARCELS, N_NETWORKS))
    gain = np.exp(rng.normal(0.0, GAIN_SD, N_NETWORKS))
    return Subject(topography * gain, float(rng.normal(0.0, RESPONSE_LAG_SD_S)))


def background_covariance(lags_s: Array) -> Array:
    """Return the covariance of the networks' background, of one network with another some seconds later.

    Parameters
    ----------
    lags_s : array, shape (n,)
        Time of the second minus time of the first, s.

    Returns
    -------
    array, shape (N_NETWORKS, N_NETWORKS, n)
        Covariance of network i at time t and network j at time t + lag.
    """
    shared = background()
    shift = shared.lags_s[None, :] - shared.lags_s[:, None]  # (i, j, mode): how much later j is reached than i
    tau = np.asarray(lags_s)[None, None, None, :] - shift[..., None]
    kernel = np.cos(2 * np.pi * MODE_FREQUENCIES_HZ[:, None] * tau)
    kernel *= np.exp(-(tau**2) / (2 * MODE_COHERENCE_S[:, None] ** 2))
    covariance: Array = np.einsum("im,jm,ijmt->ijt", shared.loadings, shared.loadings, kernel)
    private = PRIVATE_SD**2 * np.exp(-np.abs(lags_s) / PRIVATE_SCALE_S)
    covariance += np.eye(N_NETWORKS)[..., None] * private
    return covariance


def parcel_noise_covariance(lags_s: Array, t_r: float) -> Array:
    """Return the covariance of one parcel's noise with itself some seconds later; parcels are independent.

    Parameters
    ----------
    lags_s : array, shape (n,)
        Multiples of the repetition time, s.
    t_r : float
        Repetition time, s.
    """
    slow = SLOW_NOISE_SD**2 * np.exp(-np.abs(lags_s) / SLOW_NOISE_SCALE_S)
    white: Array = np.where(lags_s == 0, WHITE_NOISE_SD**2 / t_r, 0.0)
    return slow + white


def draw_background(rng: np.random.Generator, n_volumes: int, t_r: float) -> Array:
    """Draw the background of the networks, a Gaussian process with covariance `background_covariance`.

    Each mode is drawn in the frequency domain and reaches the networks as a phase ramp, so that lags need not be
    multiples of the repetition time.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    n_volumes : int
        Number of frames T.
    t_r : float
        Repetition time, s.

    Returns
    -------
    array, shape (n_volumes, N_NETWORKS)
    """
    shared = background()
    # The transform is periodic: the padding is longer than any mode remembers.
    n_padded = n_volumes + int(np.ceil(6 * MODE_COHERENCE_S.max() / t_r))
    frequencies = np.fft.rfftfreq(n_padded, t_r)
    width = 1 / (2 * np.pi * MODE_COHERENCE_S)
    distance = (frequencies[:, None] - MODE_FREQUENCIES_HZ) / width
    mirrored = (frequencies[:, None] + MODE_FREQUENCIES_HZ) / width
    power = (np.exp(-(distance**2) / 2) + np.exp(-(mirrored**2) / 2)) / (2 * width * np.sqrt(2 * np.pi))
    noise = rng.standard_normal((2, len(frequencies), len(width)))
    spectrum = (noise[0] + 1j * noise[1]) * np.sqrt(power * n_padded / t_r / 2)
    ramp = np.exp(-2j * np.pi * frequencies[:, None, None] * shared.lags_s)
    networks = np.einsum("fm,km,fkm->fk", spectrum, shared.loadings, ramp)
    waves: Array = np.fft.irfft(networks, n_padded, axis=0)[:n_volumes]
    return waves + PRIVATE_SD * draw_decaying(rng, n_volumes, N_NETWORKS, t_r, PRIVATE_SCALE_S)


def draw_parcel_noise(rng: np.random.Generator, n_volumes: int, t_r: float) -> Array:
    """Draw the noise of the parcels, shape (n_volumes, N_PARCELS), with covariance `parcel_noise_covariance`."""
    slow = SLOW_NOISE_SD * draw_decaying(rng, n_volumes, N_PARCELS, t_r, SLOW_NOISE_SCALE_S)
    return slow + WHITE_NOISE_SD / np.sqrt(t_r) * rng.standard_normal((n_volumes, N_PARCELS))


def draw_decaying(rng: np.random.Generator, n_volumes: int, n_series: int, t_r: float, scale_s: float) -> Array:
    """Draw independent series of unit variance whose autocorrelation is ``exp(-lag / scale_s)``.

    Returns
    -------
    array, shape (n_volumes, n_series)
    """
    keep = np.exp(-t_r / scale_s)
    series = rng.standard_normal((n_volumes, n_series))
    series[1:] *= np.sqrt(1 - keep**2)
    for t in range(1, n_volumes):
        series[t] += keep * series[t - 1]
    return series
