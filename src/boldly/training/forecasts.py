"""Forecasts that need no network: what a pretraining has to beat on held-out subjects.

Each says the next frame from the one before: the same frame again, a first-order process per parcel (AR(1)), or a
vector autoregression (VAR) with ridge. They are fitted to the training runs of a dataset and repetition time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from boldly.samples.corpus import Corpus

Matrix = NDArray[np.float64]
# Dataset and repetition time, s.
Group = tuple[str, float]
# For each group and forecast what multiplies a frame: nothing, numbers (P,), or a matrix (P, P).
Forecasts = dict[Group, dict[str, Tensor | None]]

NAMES = ("last_frame", "ar1", "var")

# Ridge penalties, as multiples of the mean power of a parcel.
_PENALTIES = 10.0 ** np.arange(-3.5, 2.01, 0.5)

# Time constants to choose from, s; the last one is as good as none.
_MEMORIES_S = (1.0, 2.0, 4.0, 8.0, 16.0, 1000.0)


@dataclass(frozen=True)
class Stretch:
    """Frames of one run without a gap, ``corpus.frames[first:end]``, and its repetition time, s."""

    first: int
    end: int
    t_r: float


@dataclass(frozen=True)
class Moments:
    """Sums over pairs of neighbouring frames x, y: x'x and x'y, each (P, P), and y'y summed over parcels."""

    now: Matrix
    lagged: Matrix
    power: float

    def faded(self, factor: float) -> Moments:
        """Return the moments with x multiplied by a number."""
        return Moments(factor**2 * self.now, factor * self.lagged, self.power)

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.now + other.now, self.lagged + other.lagged, self.power + other.power)


def fit_forecasts(corpus: Corpus, wanted: Iterable[Group]) -> Forecasts:
    """Fit the forecasts of some datasets and repetition times.

    A group without training runs takes those of its dataset, a dataset without any takes all.

    Parameters
    ----------
    corpus : Corpus
        Training runs.
    wanted : iterable of (str, float)
        Dataset and repetition time (s).

    Returns
    -------
    Forecasts
        In float32.
    """
    datasets = np.array(corpus.datasets)
    found: Forecasts = {}
    for dataset, t_r in wanted:
        of_dataset = datasets == dataset
        choices = (of_dataset & (corpus.t_r == t_r), of_dataset, np.ones(len(corpus), bool))
        runs = next(np.flatnonzero(chosen) for chosen in choices if chosen.any())
        halves = [_moments(corpus, half) for half in _halves(corpus, runs)]
        ar1 = torch.from_numpy(ar1_of(sum_of(halves))).float()
        var = torch.from_numpy(fit_var(halves)[0]).float()
        found[dataset, t_r] = {"last_frame": None, "ar1": ar1, "var": var}
    return found


class Dynamics(NamedTuple):
    """A VAR for all repetition times: ``y = exp(-t_r / memory_s) x coupling``.

    Attributes
    ----------
    memory_s : float
        Time constant, s.
    coupling : ndarray, shape (P, P)
        What frames, as rows, are multiplied with.
    alone : ndarray, shape (P,)
        What each parcel is multiplied with where parcels say nothing of each other: the AR(1) that the coupling
        was pulled to.
    """

    memory_s: float
    coupling: Matrix
    alone: Matrix

    def blended(self, share: float) -> Dynamics:
        """Return the dynamics with only a share of what the coupling has beyond AR(1)."""
        ar1 = np.diag(self.alone)
        return self._replace(coupling=ar1 + share * (self.coupling - ar1))


def fit_dynamics(corpus: Corpus) -> Dynamics:
    """Fit one VAR to all runs whatever their repetition time: ``y = exp(-t_r / memory) x coupling``.

    Its penalty pulls each parcel towards its own AR(1), not towards nothing: with little data forecasts are hardly
    worse than those. Memory and penalty are those that err least on subjects left out of the fit.

    Parameters
    ----------
    corpus : Corpus
        Training runs.

    Returns
    -------
    Dynamics
    """
    t_rs = np.unique(corpus.t_r).tolist()
    halves = [
        {t_r: _moments(corpus, [stretch for stretch in half if stretch.t_r == t_r]) for t_r in t_rs}
        for half in _halves(corpus, np.arange(len(corpus)))
    ]
    fits = {}
    # With one repetition time all memories say the same.
    for memory_s in _MEMORIES_S if len(t_rs) > 1 else _MEMORIES_S[-1:]:
        parts = [sum_of([half[t].faded(math.exp(-t / memory_s)) for t in t_rs]) for half in halves]
        coupling, error = fit_var(parts, towards_ar1=True)
        fits[memory_s] = error, Dynamics(memory_s, coupling, ar1_of(sum_of(parts)))
    return min(fits.values(), key=lambda fit: fit[0])[1]


def forecast(frames: Tensor, seen: Tensor, coefficients: Tensor | None, *, split: int = 0) -> Tensor:
    """Forecast each frame of windows from the frames before it; what is not seen is forecast as well.

    Parameters
    ----------
    frames : Tensor, shape (B, L, P)
        Signals.
    seen : Tensor of bool, shape (B, L)
        Frames that the forecast may use.
    coefficients : Tensor, optional
        See `fit_forecasts`.
    split : int
        First frame of the second window of pairs: it starts anew. 0: no pairs.

    Returns
    -------
    Tensor, shape (B, L, P)
        The first frame of a window is forecast as zero.
    """
    said = torch.zeros_like(frames)
    for place in range(1, frames.shape[1]):
        if place == split:
            continue
        before = torch.where(seen[:, place - 1, None], frames[:, place - 1], said[:, place - 1])
        if coefficients is None:
            said[:, place] = before
        else:
            said[:, place] = before * coefficients if coefficients.ndim == 1 else before @ coefficients
    return said


def fit_var(parts: list[Moments], *, towards_ar1: bool = False) -> tuple[Matrix, float]:
    """Solve the normal equations of a VAR, with the ridge that errs least on the parts left out of the fit.

    Parameters
    ----------
    parts : list of Moments
        Of different subjects, so that the ridge is that for subjects never seen.
    towards_ar1 : bool, default=False
        The penalty is on the difference from AR(1), not on the coupling itself.

    Returns
    -------
    coupling : ndarray, shape (P, P)
        What frames, as rows, are multiplied with.
    error : float
        Squared error on the parts left out, summed; with a single part that of the fit itself.
    """
    whole = sum_of(parts)
    penalties = _PENALTIES * max(np.trace(whole.now) / len(whole.now), np.finfo(float).tiny)
    errors = np.zeros(len(penalties))
    for number, held_out in enumerate(parts):
        rest = [part for other, part in enumerate(parts) if other != number]
        fitted = sum_of(rest or parts)
        errors += _held_out_errors(fitted, held_out, penalties, _prior(fitted, towards_ar1))
    best, prior = penalties[int(errors.argmin())], _prior(whole, towards_ar1)
    missing = whole.lagged - whole.now @ prior
    return prior + np.linalg.solve(whole.now + best * np.eye(len(prior)), missing), float(errors.min())


def sum_of(parts: list[Moments]) -> Moments:
    """Add moments up."""
    whole = parts[0]
    for part in parts[1:]:
        whole = whole + part
    return whole


def _prior(moments: Moments, towards_ar1: bool) -> Matrix:
    """Return the coupling that a penalty pulls to."""
    return np.diag(ar1_of(moments)) if towards_ar1 else np.zeros_like(moments.now)


def _held_out_errors(fitted: Moments, held_out: Moments, penalties: Matrix, prior: Matrix) -> Matrix:
    """Return the squared error on held-out moments for each penalty, with one decomposition for all."""
    values, vectors = np.linalg.eigh(fitted.now)
    missing = vectors.T @ (fitted.lagged - fitted.now @ prior)
    start = vectors.T @ prior
    now = vectors.T @ held_out.now @ vectors
    lagged_held_out = vectors.T @ held_out.lagged
    errors = []
    for penalty in penalties:
        solution = start + missing / (values + penalty)[:, None]
        errors.append(held_out.power - 2 * np.vdot(solution, lagged_held_out) + np.vdot(solution, now @ solution))
    return np.array(errors)


def ar1_of(moments: Moments) -> Matrix:
    """Return what each parcel is multiplied with for its next value (P,)."""
    return np.diag(moments.lagged) / np.maximum(np.diag(moments.now), np.finfo(float).tiny)


def _halves(corpus: Corpus, runs: NDArray[np.int64]) -> list[list[Stretch]]:
    """Part runs by subject where there are several, else by run, else the only run in its middle."""
    first, end, run = (part[np.isin(corpus.stretches.sample, runs)] for part in corpus.stretches)
    stretches = [Stretch(*row) for row in zip(first.tolist(), end.tolist(), corpus.t_r[run].tolist(), strict=True)]
    if len(stretches) == 1:
        (whole,) = stretches
        middle = (whole.first + whole.end) // 2
        return [[replace(whole, end=middle)], [replace(whole, first=middle)]]
    subjects = np.unique(np.array(corpus.subjects)[run], return_inverse=True)[1]
    runs_or_parts = np.unique(run, return_inverse=True)[1] if len(runs) > 1 else np.arange(len(run))
    part = (subjects if subjects.max() > 0 else runs_or_parts) % 2
    return [[stretch for stretch, of in zip(stretches, part, strict=True) if of == half] for half in (0, 1)]


def _moments(corpus: Corpus, stretches: Iterable[Stretch]) -> Moments:
    """Read stretches one after the other."""
    n_parcels = corpus.frames.shape[1]
    now, lagged, power = np.zeros((n_parcels, n_parcels)), np.zeros((n_parcels, n_parcels)), 0.0
    for stretch in stretches:
        frames = corpus.frames[stretch.first : stretch.end].astype(np.float64)
        before, after = frames[:-1], frames[1:]
        now += before.T @ before
        lagged += before.T @ after
        power += float(np.vdot(after, after))
    return Moments(now, lagged, power)
