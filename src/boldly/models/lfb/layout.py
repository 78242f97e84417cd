"""Token layout and masks: pure functions of frames, draws, and the learned vectors that stand between frames.

No randomness: what is masked comes in with the batch, so that a layout can be checked given the draws.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

# Time of tokens that are no frames.
SPECIAL_S = -1.0


@dataclass(frozen=True)
class Tokens:
    """What a network reads, in parcel space, and what it is to restore; names are LfB's.

    Attributes
    ----------
    inputs_embeds : Tensor, shape (B, T, P)
        Frames and learned vectors; padding is zero.
    t_rs : Tensor, shape (B, T)
        Time of the frames, s; -1 for SEP and CLS, 0 for padding.
    attention_mask : Tensor of bool, shape (B, T)
        Tokens that are read.
    token_type_ids : Tensor of int64, shape (B, T), optional
        Segments of a pair.
    modelling_mask : Tensor of bool, shape (B, T, P) or (B, T, 1), optional
        Where the outputs are compared with `targets`.
    targets : Tensor, shape (B, T, P), optional
        The frames to restore, at the positions of the outputs that they are compared with.
    forced : Tensor of bool, shape (B, T), optional
        Where the generator of autoencoding is fed the frame itself.
    """

    inputs_embeds: Tensor
    t_rs: Tensor
    attention_mask: Tensor
    token_type_ids: Tensor | None = None
    modelling_mask: Tensor | None = None
    targets: Tensor | None = None
    forced: Tensor | None = None


def causal(inputs: Tensor, seconds: Tensor, masked: Tensor, msk: Tensor) -> Tokens:
    """Replace one frame by MASK and cut what follows.

    Parameters
    ----------
    inputs : Tensor, shape (B, L, P)
        Frames.
    seconds : Tensor, shape (B, L)
        Their times, s; those of cut frames stay.
    masked : Tensor of bool, shape (B, L)
        The draw: one frame of each window.
    msk : Tensor, shape (1, 1, P)
        MASK.
    """
    # Frames up to the masked one: no masked frame lies before them.
    kept = masked.int().cumsum(dim=1) - masked.int() == 0
    tokens = torch.where(masked[..., None], msk.to(inputs.dtype), inputs)
    return Tokens(
        inputs_embeds=tokens * kept[..., None],
        t_rs=seconds,
        attention_mask=kept,
        modelling_mask=masked[..., None],
        targets=inputs,
    )


def paired(
    inputs: Tensor,
    seconds: Tensor,
    valid: Tensor,
    split: int,
    masked: Tensor,
    *,
    msk: Tensor,
    sep: Tensor,
    cls: Tensor,
) -> Tokens:
    """Lay out two windows as A SEP B SEP CLS, without gaps, with masks and segments one token late (8.13).

    A SEP belongs to the segment before it and is never masked.

    Parameters
    ----------
    inputs : Tensor, shape (B, L, P)
        A in the first `split` places, B in the others, each with its padding behind.
    seconds : Tensor, shape (B, L)
        Times, s; each window starts at 0 (8.12).
    valid : Tensor of bool, shape (B, L)
        Real frames.
    split : int
        Places of A.
    masked : Tensor of bool, shape (B, L) or (B, P)
        The draw: frames, replaced by MASK (Sequence-BERT); or parcels over all time (Network-BERT; needs a MASK of
        shape (1, positions, 1), whose value is that of the token's position).
    msk : Tensor, shape (1, 1, P) or (1, positions, 1)
        MASK.
    sep, cls : Tensor, shape (1, P) and (1, 1, P)
        SEP and CLS.

    Returns
    -------
    Tokens
        T = L + 3.
    """
    B, L, P = inputs.shape
    n_a = valid[:, :split].sum(dim=1, keepdim=True)  # (B, 1)
    n_b = valid[:, split:].sum(dim=1, keepdim=True)
    place = torch.arange(L + 3, device=inputs.device).expand(B, -1)  # (B, T)
    place_b = place - n_a - 1
    in_b = (place_b >= 0) & (place_b < n_b)
    is_frame = (place < n_a) | in_b
    is_cls = place == n_a + n_b + 2
    is_sep = (place == n_a) | (place == n_a + n_b + 1)
    source = torch.where(in_b, split + place_b, place).clamp(0, L - 1)

    frames = inputs.gather(1, source[..., None].expand(-1, -1, P)) * is_frame[..., None]
    by_parcel = msk.shape[1] > 1
    drawn = masked[:, None] if by_parcel else masked.gather(1, source)[..., None]
    hidden = drawn & is_frame[..., None]  # (B, T, P) or (B, T, 1)
    tokens = torch.where(hidden, msk[:, : L + 3].to(frames.dtype), frames)
    tokens = torch.where(is_sep[..., None], sep.to(frames.dtype), tokens)
    second = (place > n_a) & (place <= n_a + n_b + 1)
    return Tokens(
        inputs_embeds=torch.where(is_cls[..., None], cls.to(frames.dtype), tokens),
        t_rs=torch.where(is_sep | is_cls, SPECIAL_S, seconds.gather(1, source) * is_frame),
        attention_mask=place <= n_a + n_b + 2,
        token_type_ids=functional.pad(second, (1, -1)).long(),
        modelling_mask=functional.pad(hidden, (0, 0, 1, -1)),
        targets=functional.pad(frames, (0, 0, 1, -1)),
    )


def with_cls(inputs: Tensor, seconds: Tensor, valid: Tensor, cls: Tensor) -> Tokens:
    """Put CLS (1, 1, P) behind the last real frame of each trial (B, L, P); T = L + 1."""
    inputs, seconds = functional.pad(inputs, (0, 0, 0, 1)), functional.pad(seconds, (0, 1))
    n_frames = valid.sum(dim=1, keepdim=True)
    place = torch.arange(inputs.shape[1], device=inputs.device)
    is_cls = place == n_frames
    return Tokens(
        inputs_embeds=torch.where(is_cls[..., None], cls.to(inputs.dtype), inputs),
        t_rs=torch.where(is_cls, SPECIAL_S, seconds),
        attention_mask=place <= n_frames,
    )
