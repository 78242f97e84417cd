"""Linear forecasts, fitted to the training runs: what a network starts from and has to beat.

Each says the next frame from the one before, for the runs of one dataset and repetition time: a first-order
process per parcel (AR(1)), or a vector autoregression (VAR) with ridge. They depend on the runs alone: the fits to
a corpus stand in a file beside it, which all experiments and processes read.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from boldly.files import atomic_path
from boldly.records import InputError, Problem
from boldly.samples.corpus import Corpus, Group

Matrix = NDArray[np.float64]
# For each group and forecast what multiplies a frame: nothing, numbers (P,), or a matrix (P, P), in float32.
Forecasts = dict[Group, dict[str, NDArray[np.float32] | None]]

# What networks are compared with.
NAMES = ("last_frame", "ar1", "var")
# The VAR that causal sequence modeling starts from.
COUPLING = "coupling"

_FORMAT = 3

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
        `last_frame` (the same frame again), `ar1`, `var`, and `coupling`: a VAR whose penalty pulls not towards
        nothing but towards each parcel's AR(1), or towards one VAR for all groups (`_fit_common`), whichever errs
        less on subjects left out of the fit. With little data it is hardly worse than those.
    """
    wanted, datasets, t_rs = list(wanted), np.array(corpus.datasets), corpus.t_r.round(3)
    halves: dict[Group, list[Moments]] = {}
    for dataset, t_r in wanted:
        of_dataset = datasets == dataset
        choices = (of_dataset & (t_rs == t_r), of_dataset, np.ones(len(corpus), bool))
        runs = next(np.flatnonzero(chosen) for chosen in choices if chosen.any())
        halves[dataset, t_r] = [_moments(corpus, half) for half in _halves(corpus, runs)]
    common = _fit_common(halves) if len(halves) > 1 else {}
    found: Forecasts = {}
    for group, parts in halves.items():
        alone = [np.diag(ar1_of(part)) for part in _others_and_whole(parts)]
        # Where datasets are alike, what they have in common is the better guess; where they are not, AR(1) is.
        guesses = [alone, *([common[group]] if common else [])]
        coupling, _ = min((fit_var(parts, guess) for guess in guesses), key=lambda fit: fit[1])
        fits = {"ar1": np.diag(alone[-1]), "var": fit_var(parts)[0], COUPLING: coupling}
        in_single = {name: fit.astype(np.float32) for name, fit in fits.items()}
        found[group] = {"last_frame": None, **in_single}
    return found


def _fit_common(halves: Mapping[Group, list[Moments]]) -> dict[Group, list[Matrix]]:
    """Fit one VAR to all groups whatever their repetition time: ``y = exp(-t_r / memory) x coupling``.

    Its penalty pulls to AR(1). Memory and penalty are those that err least on subjects left out of the fit.

    Returns
    -------
    dict
        For each group couplings (P, P): without the first part of any group, without the second, of all.
    """
    fits = []
    # With one repetition time all memories say the same.
    memories = _MEMORIES_S if len({t_r for _, t_r in halves}) > 1 else _MEMORIES_S[-1:]
    for memory_s in memories:
        factors = {group: math.exp(-group[1] / memory_s) for group in halves}
        # One after the other: moments of many datasets fill the memory once as it is.
        parts = [sum_of(parts[half].faded(factors[group]) for group, parts in halves.items()) for half in (0, 1)]
        priors = [np.diag(ar1_of(part)) for part in _others_and_whole(parts)]
        penalty, error = _choose_penalty(parts, priors)
        fits.append((error, memory_s, penalty, parts, priors))
    _, memory_s, penalty, parts, priors = min(fits, key=lambda fit: fit[0])
    couplings = [
        _solve(part, penalty, prior) for part, prior in zip(_others_and_whole(parts), priors, strict=True)
    ]
    return {group: [math.exp(-group[1] / memory_s) * coupling for coupling in couplings] for group in halves}


def fitted_couplings(fits: Forecasts) -> dict[Group, NDArray[np.float32]]:
    """Return the couplings as they were fitted."""
    found = {group: fit[COUPLING] for group, fit in fits.items()}
    return {group: coupling for group, coupling in found.items() if coupling is not None}


def fit_var(parts: list[Moments], priors: Sequence[Matrix] | None = None) -> tuple[Matrix, float]:
    """Solve the normal equations of a VAR, with the ridge that errs least on the parts left out of the fit.

    Parameters
    ----------
    parts : list of Moments
        Of different subjects, so that the ridge is that for subjects never seen.
    priors : sequence of ndarray, optional
        Couplings (P, P) that the penalty pulls to: for each part one that the part had no say in, and one for all.
        None: to nothing.

    Returns
    -------
    coupling : ndarray, shape (P, P)
        What frames, as rows, are multiplied with.
    error : float
        Squared error on the parts left out, summed.
    """
    if priors is None:
        priors = [np.zeros_like(parts[0].now)] * (len(parts) + 1)
    penalty, error = _choose_penalty(parts, priors)
    return _solve(sum_of(parts), penalty, priors[-1]), error


def _choose_penalty(parts: list[Moments], priors: Sequence[Matrix]) -> tuple[float, float]:
    """Return the ridge that errs least on the parts left out of the fit, and that error."""
    *others, whole = _others_and_whole(parts)
    penalties = _PENALTIES * max(np.trace(whole.now) / len(whole.now), np.finfo(float).tiny)
    errors = np.zeros(len(penalties))
    for fitted, held_out, prior in zip(others, parts, priors[:-1], strict=True):
        errors += _held_out_errors(fitted, held_out, penalties, prior)
    return float(penalties[int(errors.argmin())]), float(errors.min())


def _solve(moments: Moments, penalty: float, prior: Matrix) -> Matrix:
    missing = moments.lagged - moments.now @ prior
    return prior + np.linalg.solve(moments.now + penalty * np.eye(len(prior)), missing)


def _others_and_whole(parts: list[Moments]) -> list[Moments]:
    """Return for each part the sum of the others, and the sum of all."""
    others = [sum_of(parts[:number] + parts[number + 1 :]) for number in range(len(parts))]
    return [*others, sum_of(parts)]


def sum_of(parts: Iterable[Moments]) -> Moments:
    """Add moments up."""
    return functools.reduce(operator.add, parts)


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


def linear_name(share: float | Literal["*"]) -> str:
    """Return the name, beside a corpus, of the file of fits to a share of the training subjects (``*``: any)."""
    return f"linear_{share if share == '*' else float(share)}.safetensors"


def made_of(training: Mapping[str, str], validation: Mapping[str, str]) -> str:
    """Return one checksum for the shards that fits depend on, given their checksums by name, in their order."""
    content = [list(training.items()), list(validation.items())]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def groups_of(training: Corpus, validation: Corpus | None) -> list[Group]:
    """Return the datasets and repetition times of the runs that train or validate, sorted."""
    return sorted({*training.groups, *(validation.groups if validation is not None else ())})


def fit_linear(training: Corpus, validation: Corpus | None) -> Forecasts:
    """Fit all that pretrainings on these runs want to know: the forecasts of all groups in either corpus."""
    return fit_forecasts(training, groups_of(training, validation))


def write_linear(path: Path, fits: Forecasts, shards: str) -> None:
    """Write fits, atomically.

    Parameters
    ----------
    path : Path
        File to write (.safetensors).
    fits : Forecasts
        What to write.
    shards : str
        Checksum of the shards that they were fitted to (`made_of`).
    """
    groups = sorted(fits)
    tensors = {
        f"{number}/{name}": np.ascontiguousarray(value)
        for number, group in enumerate(groups)
        for name, value in fits[group].items()
        if value is not None
    }
    about = {"format": _FORMAT, "made_of": shards, "groups": groups}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, {"boldly": json.dumps(about)})


def read_linear(path: Path, shards: str) -> Forecasts:
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
            return {
                (str(dataset), float(t_r)): {
                    name: None if name == "last_frame" else stream.get_tensor(f"{number}/{name}")
                    for name in (*NAMES, COUPLING)
                }
                for number, (dataset, t_r) in enumerate(about["groups"])
            }
    except InputError:
        raise
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(Problem(str(path), "", f"no linear fits that can be read: {error}", remedy)) from None
