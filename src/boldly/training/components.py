"""What is fitted to unlabelled runs without gradients: components of hidden states, and linear pretraining."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from boldly.models.basis import Basis, fit_basis
from boldly.models.build import encode_with
from boldly.provenance import Contract, check_same
from boldly.records import InputError, Problem
from boldly.samples.corpus import Corpus, load_corpus
from boldly.samples.remote import shown
from boldly.samples.windows import WindowOptions, Windows, to_device

# Windows that the components of hidden states are fitted to, and how many are encoded at once.
_WINDOWS, _BATCH = 1024, 64
_SEED = 1
# Frames whose products are summed at once, in double precision.
_FRAMES = 4096
# Components that embeddings start from, as a share of the parcels, and frames that they are fitted to.
_LEADING, _MOST_FRAMES = 0.25, 1 << 17
# Variance that is none but for rounding, as a share of the largest.
_LEAST = 1e-6


def hidden_basis(network: nn.Module, corpus: Corpus, window_frames: tuple[int, int]) -> Basis:
    """Return the principal components of the hidden states of a network over windows of runs.

    Parameters
    ----------
    network : nn.Module
        With `encode`: a batch to the states of all layers, each (B, L, W).
    corpus : Corpus
        Runs.
    window_frames : (int, int)
        Shortest and longest window, frames.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = copy.deepcopy(network).to(device).eval()
    shortest, longest = window_frames
    windows = Windows(corpus, WindowOptions(shortest, longest, _BATCH), _SEED, _WINDOWS)

    def states() -> Iterator[NDArray[np.float32]]:
        for first in range(0, _WINDOWS, _BATCH):
            batch = to_device(windows.__getitems__(range(first, first + _BATCH)), device)
            with torch.inference_mode():
                layers = torch.stack(encode_with(network)(**batch), dim=2)  # (B, L, layers, W)
            real = layers[batch["valid"]] if "valid" in batch else layers.flatten(end_dim=1)
            yield real.float().cpu().numpy()

    return fit_basis(states())


def signal_basis(
    paths: Iterable[Path | str], like: Contract | None = None, *, allow_mismatch: Collection[str] = ()
) -> tuple[Basis, NDArray[np.float64], Contract]:
    """Return the principal components of runs, read one shard at a time, and the covariance of their parcels.

    Parameters
    ----------
    paths : iterable of Path or str
        Shards.
    like : Contract, optional
        What the contract of all shards must be; default: that of the first.
    allow_mismatch : collection of str
        Contract fields in which shards may differ.

    Returns
    -------
    basis : Basis
        Of the signals, one layer.
    covariance : ndarray of float64, shape (P, P)
        Of all frames.
    contract : Contract
        Of the shards.

    Raises
    ------
    InputError
        For damaged shards, shards of different contracts, and none at all.
    """
    contracts: list[Contract] = [like] if like else []
    total: list[NDArray[np.float64]] = []
    counts: list[int] = []

    def blocks() -> Iterator[NDArray[np.float64]]:
        for path in paths:
            corpus = load_corpus([path], allow_mismatch=allow_mismatch)
            if contracts:
                check_same(contracts[0], corpus.contract, shown(path), corpus.keys[0], allow_mismatch)
            contracts[:] = [contracts[0].with_another(corpus.contract) if contracts else corpus.contract]
            for first in range(0, len(corpus.frames), _FRAMES):
                block = corpus.frames[first : first + _FRAMES].astype(np.float64)
                total[:] = [block.T @ block + (total[0] if total else 0)]
                counts.append(len(block))
                yield block[:, None]

    paths = list(paths)
    if not paths:
        raise InputError(Problem("no shards", "", "there is nothing to fit components to", "see the run tables"))
    basis = fit_basis(blocks())
    return basis, total[0] / sum(counts), contracts[0]


def leading_components(corpus: Corpus, share: float = _LEADING) -> NDArray[np.float32]:
    """Return the directions in which the frames of runs vary most, what networks start their embedding from.

    Parameters
    ----------
    corpus : Corpus
        Runs. Of many frames some are looked at, evenly spread.
    share : float, default=0.25
        Number of components as a share of the number of parcels.

    Returns
    -------
    ndarray of float32, shape (P, K)
        Orthonormal columns, in the order of falling variance; at least one.
    """
    # A corpus may be some samples of many: `frames` are those of all.
    ends = np.cumsum(corpus.lengths)
    wanted = np.arange(0, ends[-1], -(-ends[-1] // _MOST_FRAMES))
    sample = np.searchsorted(ends, wanted, side="right")
    rows = corpus.starts[sample] + wanted - (ends - corpus.lengths)[sample]
    blocks = (corpus.frames[rows[first : first + _FRAMES], None] for first in range(0, len(rows), _FRAMES))
    count = max(1, round(share * corpus.frames.shape[1]))
    return fit_basis(blocks, most=count).components[0]


def coming_components(corpus: Corpus, horizons_s: Sequence[float], count: int) -> NDArray[np.float32]:
    """Return what coming frames have most in common: principal components of frames at several times, together.

    Parameters
    ----------
    corpus : Corpus
        Runs. Of many frames some are looked at, evenly spread.
    horizons_s : sequence of float
        Times, s; the nearest frames are taken, of the next one at the earliest.
    count : int
        Number of components K, those of largest variance.

    Returns
    -------
    ndarray of float32, shape (H, P, K)
        What the frame at each horizon is multiplied with; each sum over horizons has variance one. Zero where
        there are no more components.
    """
    leading = leading_components(corpus)
    first, end, sample = corpus.stretches
    ahead = np.maximum(1, np.rint(np.array(horizons_s) / corpus.t_r[:, None])).astype(int)[sample]  # (S, H)
    step = -(-int((end - first).sum()) // _MOST_FRAMES)
    n_columns = len(horizons_s) * leading.shape[1]
    products, total = np.zeros((n_columns, n_columns)), 0
    for start, stop, frames_ahead in zip(first.tolist(), end.tolist(), ahead, strict=True):
        signals = corpus.frames[start:stop].astype(np.float32) @ leading
        now = np.arange(0, len(signals) - frames_ahead.max(), step)
        if len(now):
            together = np.concatenate([signals[now + frames] for frames in frames_ahead], axis=1)
            products += together.T @ together
            total += len(now)
    variances, vectors = np.linalg.eigh(products / max(total, 1))
    order = np.argsort(variances)[::-1][:count]
    found = np.zeros((n_columns, count))
    # Of equal frames (a long repetition time) some combinations have no variance.
    real = variances[order] > _LEAST * variances[-1]
    found[:, : len(order)][:, real] = vectors[:, order[real]] / np.sqrt(variances[order[real]])
    parts = found.reshape(len(horizons_s), -1, count)
    return np.einsum("pl,hlk->hpk", leading, parts).astype(np.float32)


def unexplained(covariance: NDArray[np.float64], components: NDArray[np.floating]) -> float:
    """Return the share of variance, 0 to 1, that lies outside of some components, (P, K)."""
    inside = np.trace(components.T @ covariance @ components)
    return float(1 - inside / np.trace(covariance))
