"""Trials to hidden states: each trial is encoded once, whatever is fitted to it afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from boldly.models.basis import Basis, fit_basis
from boldly.samples.corpus import Corpus

# Imported where a network is at hand: baselines in closed form start in a third of the time without it.
if TYPE_CHECKING:
    from torch import nn

Floats = NDArray[np.float32]

# The encoder that is none: the signals themselves.
SIGNAL = "signal"
# Where the folder of an experiment keeps the others, a folder each.
ENCODERS = "encoders"
# What adapt says of the decoders of an experiment, in its folder.
MANIFEST = "adapt.json"


@dataclass(frozen=True)
class States:
    """Hidden states of R trials, one behind the other.

    Attributes
    ----------
    values : ndarray of float32, shape (N, layers, W)
        States of all frames.
    starts : ndarray of int64, shape (R + 1,)
        Trial r is ``values[starts[r]:starts[r + 1]]``.
    t_r : ndarray of float64, shape (R,)
        Repetition times, s.
    numbers : ndarray of int32, shape (N,), optional
        Which frame of its run each is; None: no trial lacks a frame that scrubbing took.
    """

    values: Floats
    starts: NDArray[np.int64]
    t_r: NDArray[np.float64]
    numbers: NDArray[np.int32] | None = None

    def __len__(self) -> int:
        return len(self.t_r)

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Number of frames of each trial, shape (R,)."""
        return np.diff(self.starts)

    @property
    def n_layers(self) -> int:
        """Number of layers."""
        return self.values.shape[1]

    def select(self, chosen: NDArray[np.bool_]) -> States:
        """Return the states of some trials, copied."""
        frames = np.repeat(chosen, self.lengths)
        starts = np.concatenate([[0], np.cumsum(self.lengths[chosen])]).astype(np.int64)
        numbers = None if self.numbers is None else self.numbers[frames]
        return States(self.values[frames], starts, self.t_r[chosen], numbers)

    def basis(self) -> Basis:
        """Return the principal components of these very states."""
        return fit_basis([self.values])


def signal_states(corpus: Corpus, longest: int) -> States:
    """Return the signals themselves as states of one layer, trials cut behind `longest` frames."""
    starts, frames = _cut(corpus, longest)
    values = corpus.frames[frames].astype(np.float32)[:, None]
    return States(values, starts, corpus.t_r, _numbers(corpus, frames))


def _cut(corpus: Corpus, longest: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return where trials start once they are cut, (R + 1,), and the rows of the corpus that are left, (N,)."""
    lengths = np.minimum(corpus.lengths, longest)
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return starts, np.arange(starts[-1]) + np.repeat(corpus.starts - starts[:-1], lengths)


def _numbers(corpus: Corpus, frames: NDArray[np.int64]) -> NDArray[np.int32] | None:
    return None if corpus.numbers is None else corpus.numbers[frames]


def identity(n_parcels: int) -> Basis:
    """Return the components that leave signals as they are."""
    one = np.eye(n_parcels, dtype=np.float32)[None]
    return Basis(np.zeros((1, n_parcels), np.float32), one, np.ones((1, n_parcels), np.float32))


def network_states(network: nn.Module, corpus: Corpus, longest: int) -> States:
    """Return the hidden states that a network has for trials, in evaluation mode, on a GPU where there is one.

    Parameters
    ----------
    network : nn.Module
        With `encode`: a batch to the states of all layers, each (B, L, W).
    corpus : Corpus
        Trials.
    longest : int
        Longer trials are cut behind this many frames.
    """
    import torch

    from boldly.models.build import encode_with
    from boldly.samples.windows import TRIALS_PER_BATCH, Trials, to_device

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network.to(device).eval()
    trials = Trials(corpus, longest)
    starts, frames = _cut(corpus, longest)
    values: Floats | None = None
    with torch.inference_mode():
        for first in range(0, len(trials), TRIALS_PER_BATCH):
            last = min(first + TRIALS_PER_BATCH, len(trials))
            batch = to_device(trials.__getitems__(range(first, last)), device)
            del batch["labels"]
            states = torch.stack(encode_with(network)(**batch), dim=2)  # (B, L, layers, W)
            real = states[batch["valid"]] if "valid" in batch else states.flatten(end_dim=1)
            if values is None:
                values = np.empty((starts[-1], *real.shape[1:]), np.float32)
            values[starts[first] : starts[last]] = real.float().cpu().numpy()
    if values is None:
        raise ValueError("no trials to encode")
    return States(values, starts, corpus.t_r, _numbers(corpus, frames))
