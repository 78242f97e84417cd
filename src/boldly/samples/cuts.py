"""Numbers drawn by hashing, and stretches of frames copied out of a corpus, whole batches at a time."""

from __future__ import annotations

import enum
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from boldly.samples.corpus import Corpus

Batch = dict[str, Any]
Numbers = NDArray[np.int64]
Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


class Stream(enum.IntEnum):
    """What a number is drawn for: draws with different streams are independent."""

    RUN = 0
    ONSET = 1
    LENGTH = 2
    SECOND_LENGTH = 3
    FOLLOWS = 4
    GAP = 5
    OTHER_RUN = 6
    OTHER_ONSET = 7
    MASK = 8
    PHASE = 9
    ORDER = 10


@dataclass(frozen=True)
class Cut:
    """Where B windows lie: sample (number in the corpus), first row of the corpus, length; each of shape (B,)."""

    run: Numbers
    first: Numbers
    length: Numbers


def uniform(seed: int, index: int | Numbers, stream: int | Numbers) -> Floats:
    """Draw numbers in [0, 1) as a pure function of the arguments.

    Seed, stream and index go one after the other through the finalizer of SplitMix64 (Steele, Lea & Flood 2014).

    Parameters
    ----------
    seed : int
        Seed of the experiment.
    index : int or ndarray of int64
        Number of the window, any shape.
    stream : int or ndarray of int64
        What the number is for; of a shape that goes with that of `index`.

    Returns
    -------
    ndarray of float64, shape of `index` and `stream` together
    """
    state = np.zeros((), np.uint64)
    with np.errstate(over="ignore"):
        for part in (seed, stream, index):
            state = state + (np.asarray(part, np.int64).astype(np.uint64) + np.uint64(1)) * _GOLDEN
            state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            state = state ^ (state >> np.uint64(31))
    return np.asarray((state >> np.uint64(11)).astype(np.float64) * 2.0**-53)


def below(drawn: Floats, limit: int | Numbers) -> Numbers:
    """Turn numbers in [0, 1) into whole numbers in [0, limit)."""
    return (drawn * limit).astype(np.int64)


def _tensor(frames: NDArray[Any]) -> Tensor:
    """Return frames as a tensor without copying them; frames of a mapped file must not be written to."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writ", UserWarning)
        return torch.from_numpy(frames)


class Frames:
    """Copies windows out of a corpus, by way of memory used again: fresh memory costs more than the copy."""

    def __init__(self, corpus: Corpus) -> None:
        self._source = _tensor(corpus.frames)
        self._room = self._source.new_empty(0)

    def __call__(self, *cuts: Cut) -> tuple[Tensor, list[Bools]]:
        """Return windows, the cuts side by side.

        Returns
        -------
        frames : Tensor of float32, shape (B, L, P)
            L is the sum of the longest lengths of each cut; behind the end of shorter windows stand zeros.
        valid : list of ndarray of bool, shape (B, length)
            Real frames of each cut.
        """
        longest = [int(cut.length.max()) for cut in cuts]
        frames = torch.empty(len(cuts[0].run), sum(longest), self._source.shape[1])
        parts = frames.split(longest, dim=1)
        return frames, [self._copy(cut, part) for cut, part in zip(cuts, parts, strict=True)]

    def _copy(self, cut: Cut, frames: Tensor) -> Bools:
        longest, n_parcels = frames.shape[1:]
        offset = np.arange(longest)
        valid = offset < cut.length[:, None]
        if valid.all():
            # Each window is one stretch of memory: all windows there could be, as rows that overlap.
            shape = (len(self._source) - longest + 1, longest * n_parcels)
            rows, index = self._source.as_strided(shape, (n_parcels, 1)), cut.first
        else:
            rows, index = self._source, (cut.first[:, None] + np.minimum(offset, cut.length[:, None] - 1)).ravel()
        if self._room.numel() < frames.numel():
            self._room = self._source.new_empty(frames.numel())
        room = self._room[: frames.numel()].view(len(index), -1)
        torch.index_select(rows, 0, torch.from_numpy(index), out=room)
        frames.copy_(room.view(frames.shape))
        if not valid.all():
            frames[torch.from_numpy(~valid)] = 0
        return valid


def as_batch(frames: Tensor, valid: Bools, seconds: Floats, t_r: Floats, marked: Bools) -> Batch:
    """Return what all batches hold (see `boldly.samples.windows.Windows`)."""
    batch: Batch = {
        "inputs": frames,
        "seconds": torch.from_numpy(seconds).float(),
        "t_r": torch.from_numpy(t_r).float(),
        "marked": torch.from_numpy(marked),
    }
    # Its absence tells the network, without a look at the values, that there is no padding.
    if not valid.all():
        batch["valid"] = torch.from_numpy(valid)
    return batch
