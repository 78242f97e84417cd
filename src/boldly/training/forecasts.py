"""Forecasts that need no network: what a pretraining has to beat on held-out subjects."""

from __future__ import annotations

import torch
from torch import Tensor


def forecast(frames: Tensor, seen: Tensor, coefficients: Tensor | None, *, split: int = 0) -> Tensor:
    """Forecast each frame of windows from the frames before it; what is not seen is forecast as well.

    Parameters
    ----------
    frames : Tensor, shape (B, L, P)
        Signals.
    seen : Tensor of bool, shape (B, L)
        Frames that the forecast may use.
    coefficients : Tensor, optional
        See `boldly.training.linear.fit_forecasts`.
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
