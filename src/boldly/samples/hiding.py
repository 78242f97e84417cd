"""What is hidden from a network in pretraining: frames, parcels, or blocks of both."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from boldly.samples.cuts import Batch, Bools, Numbers, Stream, below, uniform

if TYPE_CHECKING:
    from boldly.samples.windows import WindowOptions

# More spans than any window has: makes (window, span) one number.
_MOST_SPANS = 1 << 20


def hide(options: WindowOptions, seed: int, index: Numbers, batch: Batch) -> Batch:
    """Return what a batch says of the values that are hidden in it.

    Parameters
    ----------
    options : WindowOptions
        What is hidden (`masking`), and how much of it.
    seed : int
        Seed of the experiment.
    index : ndarray of int64, shape (B,)
        Numbers of the windows.
    batch : dict
        The windows.

    Returns
    -------
    dict
        `masked`, bool: (B, L) frames, (B, P) parcels or (B, L, groups) blocks; of blocks also `n_visible`, the
        most tokens of a window that stay visible. Empty where nothing is hidden.
    """
    if options.masking == "frames":
        return {"masked": torch.from_numpy(hidden_frames(options, seed, index, batch))}
    if options.masking == "parcels":
        return {"masked": torch.from_numpy(hidden_parcels(options, seed, index, batch["marked"].numpy()))}
    if options.masking == "blocks":
        masked, n_visible = hidden_blocks(options, seed, index, batch)
        return {"masked": torch.from_numpy(masked), "n_visible": n_visible}
    if options.masking == "one_frame":
        return {"masked": torch.from_numpy(hidden_frame(seed, index, batch))}
    if options.masking == "coin":
        coin = float(uniform(seed, index[0], Stream.MASK))
        return {"masked": torch.full(batch["inputs"].shape[:2], coin < 0.5)}
    return {}


def hidden_frames(options: WindowOptions, seed: int, index: Numbers, batch: Batch) -> Bools:
    """Hide the wanted number of frames in spans of `mask_span`, at least one and never all."""
    n_frames = batch["inputs"].shape[1]
    valid = batch["valid"].numpy() if "valid" in batch else np.ones((len(index), n_frames), bool)
    phase = below(uniform(seed, index, Stream.PHASE), options.mask_span)
    # Counted over real frames, so that the padding that the rest of the batch brings has no say.
    span = (valid.cumsum(axis=1) - 1 + phase[:, None]) // options.mask_span
    score = uniform(seed, index[:, None] * _MOST_SPANS + span, Stream.MASK)
    chosen = _share(valid.sum(axis=1), options.mask_fraction)
    # A stable order keeps the items of one span, whose scores are equal, together.
    order = np.argsort(np.where(valid, score, np.inf), axis=1, kind="stable")
    hidden = np.zeros(score.shape, bool)
    np.put_along_axis(hidden, order, np.arange(n_frames) < chosen[:, None], axis=1)
    return hidden


def hidden_parcels(options: WindowOptions, seed: int, index: Numbers, marked: Bools) -> Bools:
    """Hide the wanted number of unmarked parcels, at least one and never all."""
    n_parcels = marked.shape[1]
    score = uniform(seed, index[:, None] * n_parcels + np.arange(n_parcels), Stream.MASK)
    score[marked] = np.inf
    chosen = _share((~marked).sum(axis=1), options.mask_fraction)
    # No two scores are equal: the highest of those chosen says which they are, without an order of all.
    return score <= np.take_along_axis(np.sort(score, axis=1), chosen[:, None] - 1, axis=1)


def hidden_blocks(options: WindowOptions, seed: int, index: Numbers, batch: Batch) -> tuple[Bools, int]:
    """Hide the wanted number of tokens, each a group of parcels in a frame; return the most that stay visible.

    In every other window groups are hidden at all times, in the others blocks of one group and `mask_span`
    frames: the first asks for what parcels have in common, the second for how it goes on.
    """
    n_frames, n_groups = batch["inputs"].shape[1], options.parcel_groups
    valid = batch["valid"].numpy() if "valid" in batch else np.ones((len(index), n_frames), bool)
    numbers = index[:, None] * n_groups + np.arange(n_groups)  # (B, G)
    phase = below(uniform(seed, numbers, Stream.PHASE), options.mask_span)
    span = (valid.cumsum(axis=1)[..., None] - 1 + phase[:, None]) // options.mask_span  # (B, L, G)
    span[index % 2 == 0] = 0
    score = uniform(seed, numbers[:, None] * _MOST_SPANS + span, Stream.MASK)
    score = np.where(valid[..., None], score, np.inf).reshape(len(index), -1)
    there = valid.sum(axis=1) * n_groups
    chosen = _share(there, options.mask_fraction)
    order = np.argsort(score, axis=1, kind="stable")
    hidden = np.zeros(score.shape, bool)
    np.put_along_axis(hidden, order, np.arange(score.shape[1]) < chosen[:, None], axis=1)
    return hidden.reshape(-1, n_frames, n_groups), int((there - chosen).max())


def hidden_frame(seed: int, index: Numbers, batch: Batch) -> Bools:
    """Hide one real frame, not the first."""
    n_frames = batch["inputs"].shape[1]
    length = batch["valid"].numpy().sum(axis=1) if "valid" in batch else np.full(len(index), n_frames)
    return np.arange(n_frames) == 1 + below(uniform(seed, index, Stream.MASK), length - 1)[:, None]


def group_of_parcels(n_parcels: int, n_groups: int) -> Numbers:
    """Return the group of each parcel (P,): every `n_groups`-th parcel is in the same one.

    Atlases list the parcels of a network one after the other. Each group therefore has some of most networks, and
    what is hidden of a network is said by its other parcels as well as by other networks.
    """
    return np.arange(n_parcels) % n_groups


def _share(available: Numbers, fraction: float) -> Numbers:
    """Return how many items are hidden: the wanted share of those that are there, at least one and never all."""
    return np.clip(np.rint(fraction * available), 1, available - 1).astype(np.int64)
