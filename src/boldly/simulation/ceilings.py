"""The best accuracy that a decoder of the demo study can reach: known, as it is known how the study was made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from boldly.simulation.networks import (
    N_NETWORKS,
    Array,
    Subject,
    background_covariance,
    draw_subject,
    parcel_noise_covariance,
)
from boldly.simulation.states import RECOMMENDED_DELAY_S, WEIGHT_MEANS, WEIGHT_SDS, library, response

Decoder = Literal["any", "mean_signal"]


def observed_correct(
    decoder: Decoder,
    states: Sequence[str],
    durations_s: Sequence[float],
    t_r: float,
    *,
    n_subjects: int = 500,
    n_trials: int = 20,
    seed: int = 1234,
) -> tuple[int, int]:
    """Count how many trials an ideal observer names correctly.

    The observer knows everything about the model: what each state does to the networks, the covariance of
    background and noise, and of each subject topography, gain and lag. It sees the parcels' signals in the
    window of a trial (``any``) or their average over the window (``mean_signal``), without artefacts, voxel
    noise and the responses to neighbouring trials. It does not know the background, the noise and how strong
    the response to this trial is. It chooses the most probable state. No decoder of real windows of the study
    knows or sees more, so none is better in expectation.

    With parcel noise that is independent and alike in all parcels, the signals projected on the networks carry all
    that there is to know about the state, so the Gaussian likelihoods are those of N_NETWORKS series. An unknown
    strength of a response adds a covariance of rank one.

    Parameters
    ----------
    decoder : {"any", "mean_signal"}
        What the observer sees.
    states : sequence of str
        Names in `states.library`, equally frequent.
    durations_s : sequence of float
        Durations of trials, equally frequent, the same for all states.
    t_r : float
        Repetition time, s.
    n_subjects, n_trials : int
        Subjects to draw, and trials of each, all of one duration.
    seed : int
        Seed of the draw.

    Returns
    -------
    correct, total : int
        Number of trials named correctly, and of all.
    """
    rng = np.random.default_rng(seed)
    correct = 0
    for _ in range(n_subjects):
        subject, duration = draw_subject(rng), float(rng.choice(durations_s))
        # Frames do not fall on the onsets of trials.
        offset = float(rng.uniform(0, t_r))
        responses = _whitened_responses(decoder, states, duration, t_r, subject, offset)
        correct += _count_correct(responses, n_trials, rng)
    return correct, n_subjects * n_trials


def _whitened_responses(
    decoder: Decoder, states: Sequence[str], duration: float, t_r: float, subject: Subject, offset: float
) -> Array:
    """Responses to the states' parts where background and noise are white, shape (n_states, n, 3)."""
    first = RECOMMENDED_DELAY_S + offset
    times = np.arange(first, duration + RECOMMENDED_DELAY_S - 1e-9, t_r)
    responses = np.stack([response(library()[s], duration, times - subject.response_lag_s) for s in states])
    lags = t_r * np.arange(-len(times) + 1.0, len(times))
    between = np.arange(len(times)) - np.arange(len(times))[:, None] + len(times) - 1
    networks = background_covariance(lags)[..., between].transpose(2, 0, 3, 1)  # (T, K, T, K)
    noise = parcel_noise_covariance(lags, t_r)[between]
    gram = np.linalg.inv(subject.mixing.T @ subject.mixing)
    if decoder == "mean_signal":
        responses = responses.mean(axis=2, keepdims=True)
        covariance = networks.mean(axis=(0, 2)) + noise.mean() * gram
    else:
        size = len(times) * N_NETWORKS
        covariance = networks.reshape(size, size) + np.kron(noise, gram)
    flat = responses.reshape(len(states) * 3, -1)
    whitened: Array = np.linalg.solve(np.linalg.cholesky(covariance), flat.T)
    return whitened.reshape(-1, len(states), 3).transpose(1, 0, 2)


def _count_correct(responses: Array, count: int, rng: np.random.Generator) -> int:
    """Draw trials in whitened coordinates and count those for which the likeliest state is the true one."""
    n_states, size, _ = responses.shape
    truth = rng.integers(n_states, size=count)
    weights = WEIGHT_MEANS + WEIGHT_SDS * rng.standard_normal((count, 3))
    trials = np.einsum("nsw,nw->ns", responses[truth], weights) + rng.standard_normal((count, size))
    likelihood = np.empty((count, n_states))
    for state, parts in enumerate(responses):
        # Weights N(m, diag(sd^2)) make the trial N(parts m, 1 + S S') with S = parts sd; Woodbury in three
        # dimensions.
        spread = parts * WEIGHT_SDS
        residual = trials - parts @ WEIGHT_MEANS
        core = np.eye(3) + spread.T @ spread
        projected = residual @ spread
        explained = (projected * np.linalg.solve(core, projected.T).T).sum(axis=1)
        likelihood[:, state] = explained - (residual**2).sum(axis=1) - np.linalg.slogdet(core)[1]
    return int((likelihood.argmax(axis=1) == truth).sum())
