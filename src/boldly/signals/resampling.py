"""Time series at another repetition time: band-limited interpolation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]

# Share of the lower Nyquist frequency over which the gain falls from one to nothing, and how little nothing is.
_TRANSITION = 0.2
_ATTENUATION_DB = 60.0


def resample(data: Array, t_r: float, new_t_r: float) -> Array:
    """Bring signals to another repetition time, in one step for any ratio of the two.

    Each new frame is a weighted sum of frames around it; the weights are a sinc that passes what both repetition
    times can represent, under a Kaiser window: interpolation and, towards longer times, the low-pass that keeps
    aliases out (Smith & Gossett 1984, ICASSP 9, 112-115). The gain is one up to 80 % of the lower of the two
    Nyquist frequencies, and below -60 dB from the whole of it on; phases do not change. At its ends a run is
    continued by its point reflection.

    Parameters
    ----------
    data : ndarray, shape (T, P)
        Signals without gaps, the first frame at 0 s.
    t_r, new_t_r : float
        Repetition times, s.

    Returns
    -------
    ndarray of the dtype of `data`, shape (floor((T - 1) * t_r / new_t_r) + 1, P)
        The first frame at 0 s; `data` itself if the repetition times are the same.
    """
    if is_same(t_r, new_t_r):
        return data
    # Its import takes longer than a subject's shard; most datasets keep their repetition time.
    from scipy.signal import kaiser_beta, kaiserord

    n_frames, shortening = len(data), min(1.0, t_r / new_t_r)
    taps, _ = kaiserord(_ATTENUATION_DB, _TRANSITION)
    reach = taps / 2 / shortening
    margin = min(int(reach) + 1, n_frames - 1)
    around = np.pad(data, ((margin, margin), (0, 0)), mode="reflect", reflect_type="odd")
    distance = positions(n_frames, t_r, new_t_r)[:, None] - np.arange(-margin, n_frames + margin)
    window = np.i0(kaiser_beta(_ATTENUATION_DB) * np.sqrt(np.clip(1 - (distance / reach) ** 2, 0, None)))
    weights = np.sinc((1 - _TRANSITION / 2) * shortening * distance) * window * (np.abs(distance) <= reach)
    weights /= weights.sum(axis=1, keepdims=True)
    return (weights @ around).astype(data.dtype)


def is_same(t_r: float, new_t_r: float) -> bool:
    """Tell whether two repetition times differ by no more than rounding (they are kept to 5 decimals)."""
    return bool(np.isclose(t_r, new_t_r, rtol=0, atol=1e-5))


def positions(n_frames: int, t_r: float, new_t_r: float) -> NDArray[np.float64]:
    """Return where the new frames of a run lie, in frames of the old repetition time; all inside the run."""
    ratio = 1.0 if is_same(t_r, new_t_r) else new_t_r / t_r
    # A millionth of a frame, so that rounding does not cost the last one.
    return np.minimum(np.arange(int((n_frames - 1) / ratio + 1e-6) + 1) * ratio, n_frames - 1)


def fill_gaps(data: Array, frames: NDArray[np.int64], n_frames: int) -> Array:
    """Put scrubbed frames back, on the line between those beside them (at the ends: the nearest).

    Parameters
    ----------
    data : ndarray, shape (K, P)
        Signals of the frames that are left.
    frames : ndarray of int64, shape (K,)
        Their numbers in the run, rising.
    n_frames : int
        Frames of the run, T.

    Returns
    -------
    ndarray, shape (T, P)
    """
    place = np.interp(np.arange(n_frames), frames, np.arange(len(frames)))
    before = place.astype(np.int64)
    share = (place - before)[:, None].astype(data.dtype)
    after = np.minimum(before + 1, len(frames) - 1)
    return data[before] * (1 - share) + data[after] * share
