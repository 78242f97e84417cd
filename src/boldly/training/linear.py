"""Linear forecasts, fitted to the training runs: what a network starts from and has to beat.

Each says the next frame from the one before: a first-order process per parcel (AR(1)), or a vector autoregression
(VAR) with ridge. They depend on the runs alone: the fits to a corpus stand in a file beside it, which all
experiments and processes read.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from boldly.files import atomic_path
from boldly.records import InputError, Problem
from boldly.samples.corpus import Corpus

Matrix = NDArray[np.float64]
# Dataset and repetition time, s.
Group = tuple[str, float]
# For each group and forecast what multiplies a frame: nothing, numbers (P,), or a matrix (P, P), in float32.
Forecasts = dict[Group, dict[str, NDArray[np.float32] | None]]

NAMES = ("last_frame", "ar1", "var")

_FORMAT = 1

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
        `last_frame` (the same frame again), `ar1` and `var`.
    """
    datasets = np.array(corpus.datasets)
    found: Forecasts = {}
    for dataset, t_r in wanted:
        of_dataset = datasets == dataset
        choices = (of_dataset & (corpus.t_r == t_r), of_dataset, np.ones(len(corpus), bool))
        runs = next(np.flatnonzero(chosen) for chosen in choices if chosen.any())
        halves = [_moments(corpus, half) for half in _halves(corpus, runs)]
        ar1 = ar1_of(sum_of(halves)).astype(np.float32)
        var = fit_var(halves)[0].astype(np.float32)
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
    """Return the squared error on held-out moments for each penalty, with a few products of matrices for all.

    In the coordinates of the eigenvectors a penalty scales the rows of what the prior lacks, and the error is
    quadratic in these scales.
    """
    values, vectors = np.linalg.eigh(fitted.now)
    missing = vectors.T @ (fitted.lagged - fitted.now @ prior)
    start = vectors.T @ prior
    now = vectors.T @ held_out.now @ vectors
    lagged = vectors.T @ held_out.lagged
    predicted = now @ start
    constant = held_out.power - 2 * np.vdot(start, lagged) + np.vdot(start, predicted)
    linear = 2 * ((predicted - lagged) * missing).sum(axis=1)
    quadratic = now * (missing @ missing.T)
    scales = 1 / (values + penalties[:, None])
    return constant + scales @ linear + ((scales @ quadratic) * scales).sum(axis=1)


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
        # Products of a stretch in single precision, three times as fast; their sums over runs in double.
        frames = corpus.frames[stretch.first : stretch.end].astype(np.float32)
        before, after = frames[:-1], frames[1:]
        now += before.T @ before
        lagged += before.T @ after
        power += float(np.vdot(after, after))
    return Moments(now, lagged, power)


@dataclass(frozen=True)
class LinearFits:
    """What is fitted to the training runs of a corpus.

    Attributes
    ----------
    dynamics : Dynamics
        One VAR for all runs (`fit_dynamics`).
    forecasts : Forecasts
        Those of the groups that validate (`fit_forecasts`).
    """

    dynamics: Dynamics
    forecasts: Forecasts


def linear_name(share: float | Literal["*"]) -> str:
    """Return the name, beside a corpus, of the file of fits to a share of the training subjects (*: any share)."""
    return f"linear_{share if share == '*' else float(share)}.safetensors"


def made_of(training: Mapping[str, str], validation: Mapping[str, str]) -> str:
    """Return one checksum for the shards that fits depend on, given their checksums by name, in their order."""
    content = [list(training.items()), list(validation.items())]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def fit_linear(training: Corpus, validation: Corpus | None) -> LinearFits:
    """Fit all that pretrainings on these runs want to know."""
    groups: list[Group] = []
    if validation is not None:
        groups = sorted(set(zip(validation.datasets, validation.t_r.tolist(), strict=True)))
    return LinearFits(fit_dynamics(training), fit_forecasts(training, groups))


def write_linear(path: Path, fits: LinearFits, shards: str) -> None:
    """Write fits, atomically.

    Parameters
    ----------
    path : Path
        File to write (.safetensors).
    fits : LinearFits
        What to write.
    shards : str
        Checksum of the shards that they were fitted to (`made_of`).
    """
    memory_s, coupling, alone = fits.dynamics
    tensors: dict[str, NDArray] = {"coupling": coupling, "alone": alone}
    groups = sorted(fits.forecasts)
    for number, group in enumerate(groups):
        found = fits.forecasts[group].items()
        tensors |= {f"{number}/{name}": value for name, value in found if value is not None}
    about = {"format": _FORMAT, "made_of": shards, "memory_s": memory_s, "groups": groups}
    with atomic_path(path) as temporary:
        contiguous = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
        save_file(contiguous, temporary, {"boldly": json.dumps(about)})


def read_linear(path: Path, shards: str) -> LinearFits:
    """Read what `write_linear` wrote.

    Raises
    ------
    InputError
        For a file that is not there, damaged, or of other shards than those whose checksum is given.
    """
    remedy = "run boldly corpus with the same data and share (the workflow does it by itself)"
    try:
        with safe_open(path, "numpy") as stream:
            about = json.loads(stream.metadata()["boldly"])
            if (about["format"], about["made_of"]) != (_FORMAT, shards):
                message = "fitted to other shards than those of this training, or by another version of boldly"
                raise InputError(Problem(str(path), "", message, remedy))
            names = set(stream.keys())
            forecasts: Forecasts = {
                (str(dataset), float(t_r)): {
                    name: stream.get_tensor(f"{number}/{name}") if f"{number}/{name}" in names else None
                    for name in NAMES
                }
                for number, (dataset, t_r) in enumerate(about["groups"])
            }
            coupling, alone = stream.get_tensor("coupling"), stream.get_tensor("alone")
            return LinearFits(Dynamics(float(about["memory_s"]), coupling, alone), forecasts)
    except InputError:
        raise
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(Problem(str(path), "", f"no linear fits that can be read: {error}", remedy)) from None
