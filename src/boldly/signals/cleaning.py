"""Cleaning of parcel signals in time, in nilearn's order: detrend, filter, regress nuisances out, scale.

The operations and their details are those of `nilearn.signal.clean` 0.13 with a Butterworth filter, following
Lindquist et al. (2019), Human Brain Mapping 40: nuisance regressors are detrended and filtered like the signals,
so that the regression cannot bring filtered frequencies back. Scrubbed frames are interpolated with a cubic spline
for the filter's sake and removed before the regression; those at the ends of a run are cut off before all else.

Two things differ, where nilearn 0.13.1 does not do what its documentation says. With a filter, it takes numbers of
kept frames for a boolean mask: scrubbed frames whose mirror image in time is scrubbed too are not interpolated, so
that their spikes leak into their neighbours (or, at both ends, shift the frames). Here every scrubbed frame is.
And a regressor without variance, or without any beside the other regressors, is left out here, where nilearn
scales its rounding noise up to a regressor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import interpolate, linalg, signal

from boldly.config import ParcellateOptions

# Order of the Butterworth filter, which runs forwards and backwards.
_FILTER_ORDER = 5
# Signals that vary by less than this share of their level are constant: stored in single precision.
_CONSTANT = 1e-6
# Regressors whose own part is less than this share of them have none: computed in double precision.
_DEPENDENT = 1e-9

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Cleaned:
    """Signals of a run after cleaning.

    Attributes
    ----------
    data : ndarray of float64, shape (K, P)
        Cleaned signals of the K kept frames; zero where `constant`.
    mean, std : ndarray of float64, shape (P,)
        ``data * std + mean`` is the cleaned signal in image units, around the mean of the signal before cleaning.
    constant : ndarray of bool, shape (P,)
        Parcels that do not vary in time, or no longer do.
    tsnr : ndarray of float64, shape (P,)
        Temporal signal-to-noise ratio before all cleaning: mean over standard deviation (of the population) of the
        kept frames; nan where a parcel does not vary.
    """

    data: Array
    mean: Array
    std: Array
    constant: NDArray[np.bool_]
    tsnr: Array


class CleaningError(ValueError):
    """A run that cannot be cleaned, and what can be done about it."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


def clean(
    signals: Array,
    *,
    kept: NDArray[np.bool_],
    regressors: Array,
    t_r: float,
    options: ParcellateOptions,
) -> Cleaned:
    """Clean the signals of a run.

    Parameters
    ----------
    signals : ndarray of float64, shape (T, P)
        One column per parcel.
    kept : ndarray of bool, shape (T,)
        False for frames that are scrubbed.
    regressors : ndarray of float64, shape (T, R)
        What is regressed out, next to the mean; R may be 0. Values of scrubbed frames are not used.
    t_r : float
        Repetition time, s.
    options : ParcellateOptions
        Section `parcellate` of the config: `detrend`, `high_pass_hz`, `low_pass_hz` and `standardize` are used.
        ``zscore`` divides by the sample standard deviation (nilearn's ``zscore_sample``).

    Returns
    -------
    Cleaned
        With one row per kept frame.

    Raises
    ------
    CleaningError
        When too few frames are left, a frequency does not suit the repetition time, or numbers are not finite.
    """
    if kept.sum() < 2:
        raise CleaningError(f"{kept.sum()} of {len(kept)} frames are kept", "exclude the run")
    if not np.isfinite(signals).all():
        message = "the signals of the parcels are not finite: numbers in the image are too large"
        raise CleaningError(message, "repair the image, or exclude the run")
    if not np.isfinite(regressors[kept]).all():
        raise CleaningError("nuisance regressors are not finite", "rerun preprocess, or exclude the run")
    spread = signals[kept].std(axis=0)
    tsnr = np.divide(signals[kept].mean(axis=0), spread, out=np.full_like(spread, np.nan), where=spread > 0)
    constant = np.ptp(signals[kept], axis=0) <= _CONSTANT * np.abs(signals[kept]).max(axis=0)
    sos = _filter(t_r, options)
    if sos is None:
        # Without a filter time may have gaps.
        frames = np.ones(int(kept.sum()), dtype=bool)
        signals, regressors = signals[kept], regressors[kept]
    else:
        first, last = np.flatnonzero(kept)[[0, -1]]
        frames = kept[first : last + 1]
        signals = _interpolate(signals[first : last + 1], frames, t_r)
        regressors = _interpolate(regressors[first : last + 1], frames, t_r)
    baseline = signals.mean(axis=0)
    level = np.abs(regressors).max(axis=0, initial=0)
    if options.detrend:
        signals, regressors = _detrend(signals), _detrend(regressors)
    if sos is not None:
        signals, regressors = (_apply(sos, part)[frames] for part in (signals, regressors))
    varying = regressors.std(axis=0) > _DEPENDENT * level
    signals = _regress_out(signals, regressors[:, varying])
    constant |= signals.std(axis=0) <= _CONSTANT * spread
    data, mean, std = _scale(signals, baseline, options.standardize)
    data[:, constant] = 0
    return Cleaned(data, mean, std, constant, tsnr)


def _interpolate(values: Array, kept: NDArray[np.bool_], t_r: float) -> Array:
    """Fill frames that are not kept with a cubic spline through those that are."""
    if kept.all() or not values.shape[1]:
        return values
    times = np.arange(len(values)) * t_r
    filled = values.copy()
    filled[~kept] = interpolate.CubicSpline(times[kept], values[kept])(times[~kept])
    return filled


def _detrend(values: Array) -> Array:
    """Remove mean and linear trend."""
    time = np.arange(len(values), dtype=np.float64)
    time -= time.mean()
    time /= np.sqrt((time**2).sum())
    centred = values - values.mean(axis=0)
    return centred - np.outer(time, time @ centred)


def _filter(t_r: float, options: ParcellateOptions) -> Array | None:
    """Design the Butterworth filter, as second-order sections; None when there is nothing to filter."""
    high_pass, low_pass = options.high_pass_hz, options.low_pass_hz
    if high_pass is None and low_pass is None:
        return None
    nyquist = 0.5 / t_r
    remedy = "correct parcellate.high_pass_hz and low_pass_hz, or the t_r of the run"
    if high_pass is not None and high_pass >= min(nyquist, low_pass or np.inf):
        limit = f"the highest frequency of a run with t_r {t_r:g} s, {nyquist:g} Hz"
        raise CleaningError(
            f"high_pass_hz {high_pass:g} leaves nothing: it is not below low_pass_hz {low_pass} or {limit}", remedy
        )
    if low_pass is not None:
        # scipy wants less than the Nyquist frequency; nilearn steps back by as much.
        low_pass = min(low_pass, nyquist * (1 - 10 * float(np.finfo(np.float32).eps)))
    kind: Literal["bandpass", "highpass", "lowpass"]
    edges: float | list[float]
    if high_pass is not None and low_pass is not None:
        kind, edges = "bandpass", [high_pass, low_pass]
    elif high_pass is not None:
        kind, edges = "highpass", high_pass
    else:
        assert low_pass is not None
        kind, edges = "lowpass", low_pass
    return signal.butter(_FILTER_ORDER, edges, kind, output="sos", fs=1 / t_r)


def _apply(sos: Array, values: Array) -> Array:
    """Filter forwards and backwards; the ends are padded by odd reflection."""
    if not values.shape[1]:
        return values
    try:
        return signal.sosfiltfilt(sos, values, axis=0)
    except ValueError as error:
        message = f"the run is too short for the filter: {len(values)} frames between the first and last kept one"
        raise CleaningError(f"{message} ({error})", "exclude the run, or set high_pass_hz to null") from None


def _regress_out(signals: Array, regressors: Array) -> Array:
    """Remove what regressors explain, the mean apart."""
    if not regressors.shape[1]:
        return signals
    regressors = regressors - regressors.mean(axis=0)
    std = regressors.std(axis=0)
    regressors /= np.where(std < np.finfo(np.float64).eps, 1, std)
    # Pivoting puts dependent regressors last, with (nearly) zeros on the diagonal.
    basis, triangle, _ = linalg.qr(regressors, mode="economic", pivoting=True)
    own = np.abs(np.diag(triangle))
    basis = basis[:, own > _DEPENDENT * own[0]]
    return signals - basis @ (basis.T @ signals)


def _scale(signals: Array, baseline: Array, standardize: str) -> tuple[Array, Array, Array]:
    """Scale the signals over time; return them with what brings them back around their baseline."""
    centre = signals.mean(axis=0)
    if standardize == "none":
        return signals.copy(), baseline - centre, np.ones_like(centre)
    if standardize == "zscore":
        std = signals.std(axis=0, ddof=1)
        std[std < np.finfo(np.float64).eps] = 1
        return (signals - centre) / std, baseline, std
    # Percent of the mean: of the one that detrending and filters have taken away, if they have.
    gone = np.abs(centre).mean() < 0.1 * np.abs(baseline).mean()
    level = np.abs(centre + baseline if gone else centre)
    percent = np.divide(100, level, out=np.zeros_like(level), where=level >= np.finfo(np.float64).eps)
    return (signals - centre) * percent, baseline, level / 100
