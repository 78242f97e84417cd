"""Mental states: what they do to the networks, and when."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from boldly.simulation.networks import MODEL_SEED, N_NETWORKS, Array

# A trial's window is shifted by this much against its events (see boldly.config.TaskOptions.delay_s).
RECOMMENDED_DELAY_S = 3.0

# Strength of a state's sustained response and of the wave that passes once through the networks while it lasts.
PATTERN_AMPLITUDE = 0.65
WAVE_AMPLITUDE = 1.1
# Trials of one state differ: mean and standard deviation of the weights of pattern, wave and wave a quarter later.
# The wave is only partly locked to the onset: its strength and phase vary from trial to trial.
WEIGHT_MEANS = np.array([1.0, 0.7, 0.0])
WEIGHT_SDS = np.array([0.35, 0.6, 0.6])
CUE_AMPLITUDE = 0.8

# A state's pattern: which networks respond and with which sign (a row of the matrix in `library`). The states of a
# pair have the same pattern, and the wave of the second passes through the networks backwards.
PATTERNS = {"p1": 1, "p2": -1, "p3": 4, "s1": 2, "s2": -2, "s3": 3, "s4": -3, "s5": -4, "s6": 5}
PAIRS = (("p1a", "p1b"), ("p2a", "p2b"), ("p3a", "p3b"))
CUE = "cue"

_GRID_S = 0.1
_RESPONSE_TAIL_S = 26.0


@dataclass(frozen=True)
class State:
    """How a state drives the networks.

    Attributes
    ----------
    pattern : array, shape (N_NETWORKS,)
        Sustained response, sum zero.
    phase : array, shape (N_NETWORKS,)
        Phase (rad) at which the wave that passes through the networks reaches each of them. Evenly spread, so that
        the wave sums to zero over networks at every moment.
    wave : float
        Strength of the wave relative to WAVE_AMPLITUDE.
    """

    pattern: Array
    phase: Array
    wave: float = 1.0


@dataclass(frozen=True)
class Segment:
    """A stretch of a run in which the subject is in one state.

    Attributes
    ----------
    onset, duration : float
        Seconds from the first frame.
    state : str
        Name in `library`.
    weights : tuple of float
        Strength of the pattern, of the wave, and of the wave a quarter of a period later.
    """

    onset: float
    duration: float
    state: str
    weights: tuple[float, float, float]


@cache
def library() -> dict[str, State]:
    """Return all states by name.

    The patterns are rows of a Hadamard matrix, which sum to zero over networks. The order in which a wave visits
    the networks is random, another one for each pattern.
    """
    rng = np.random.default_rng([MODEL_SEED, 3])
    hadamard = np.ones((1, 1))
    while len(hadamard) < N_NETWORKS:
        hadamard = np.block([[hadamard, hadamard], [hadamard, -hadamard]])
    partners = {pair[0][:-1]: pair for pair in PAIRS}
    states: dict[str, State] = {}
    for name, row in PATTERNS.items():
        pattern = np.sign(row) * hadamard[abs(row)]
        phase = 2 * np.pi * rng.permutation(N_NETWORKS) / N_NETWORKS
        for member, direction in zip(partners.get(name, (name,)), (1, -1), strict=False):
            states[member] = State(pattern, direction * phase)
    states[CUE] = State(CUE_AMPLITUDE * hadamard[5:].mean(axis=0), np.zeros(N_NETWORKS), wave=0.0)
    return states


def haemodynamic_response(times_s: Array) -> Array:
    """Return the canonical double-gamma response: peak at 5 s, undershoot of a sixth at 15 s, unit area.

    Source: the default of SPM's ``spm_hrf`` (dispersions of 1 s).
    """
    times = np.maximum(np.asarray(times_s, dtype=float), 0.0)
    peak = times**5 * np.exp(-times) / math.gamma(6)
    undershoot = times**15 * np.exp(-times) / math.gamma(16)
    response: Array = (peak - undershoot / 6) * 6 / 5
    return response


@cache
def _response_basis(duration: float) -> Array:
    """Responses to a sustained drive and to the wave's sine and cosine, on a grid of _GRID_S from the onset.

    The wave is balanced: over the window of the trial its mean is zero, whatever its phase, so that a mean signal
    does not show in which order the networks responded.
    """
    times = np.arange(0.0, duration + _RESPONSE_TAIL_S, _GRID_S)
    on = times < duration - _GRID_S / 2
    angle = 2 * np.pi * times / duration
    kernel = haemodynamic_response(times) * _GRID_S
    drives = (on, on * np.sin(angle), on * np.cos(angle))
    basis = np.stack([np.convolve(drive, kernel)[: len(times)] for drive in drives])
    window = (times >= RECOMMENDED_DELAY_S) & (times < duration + RECOMMENDED_DELAY_S)
    means = basis[:, window].mean(axis=1)
    basis[1:] -= (means[1:] / means[0])[:, None] * basis[0]
    return basis


def response(state: State, duration: float, times_s: Array) -> Array:
    """Return the networks' responses to the parts of a state.

    Parameters
    ----------
    state : State
        The state.
    duration : float
        How long it lasts, s.
    times_s : array, shape (n,)
        Seconds since its onset; before the onset and long after the end the response is zero.

    Returns
    -------
    array, shape (3, n, N_NETWORKS)
        Response to the pattern, the wave and the wave a quarter of a period later. A trial's response is their sum
        with the weights of the trial.
    """
    basis = _response_basis(round(duration, 3))
    grid = np.arange(basis.shape[1]) * _GRID_S
    sustained, sine, cosine = (np.interp(times_s, grid, row, left=0.0, right=0.0)[:, None] for row in basis)
    wave = sine * np.cos(state.phase) - cosine * np.sin(state.phase)
    later = -cosine * np.cos(state.phase) - sine * np.sin(state.phase)
    strength = WAVE_AMPLITUDE * state.wave
    return np.stack([PATTERN_AMPLITUDE * sustained * state.pattern, strength * wave, strength * later])


def draw_weights(rng: np.random.Generator) -> tuple[float, float, float]:
    """Draw the weights of a trial."""
    pattern, wave, later = (float(w) for w in rng.normal(WEIGHT_MEANS, WEIGHT_SDS))
    return pattern, wave, later


def task_response(segments: Sequence[Segment], times_s: Array, response_lag_s: float) -> Array:
    """Add up the networks' responses to all segments of a run.

    Parameters
    ----------
    segments : sequence of Segment
        What happens in the run.
    times_s : array, shape (T,)
        Times of the frames, s.
    response_lag_s : float
        Delay of the subject's responses against the group's.

    Returns
    -------
    array, shape (T, N_NETWORKS)
    """
    states = library()
    total = np.zeros((len(times_s), N_NETWORKS))
    for segment in segments:
        since = times_s - segment.onset - response_lag_s
        total += np.tensordot(segment.weights, response(states[segment.state], segment.duration, since), 1)
    return total
