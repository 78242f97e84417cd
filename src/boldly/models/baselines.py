"""Decoders that a network has to beat: a linear one, and an MLP on the signal's mean over time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from boldly.models.network import NetworkConfig, Outputs, classified, parcel_scale, real_frames


class LinearBaseline(nn.Module):
    """A linear map over time (window to one value), then a linear map over parcels, as in the reference.

    It starts from the mean over time: random weights would average the signal away, which few steps cannot mend.
    """

    def __init__(self, sizes: NetworkConfig) -> None:
        super().__init__()
        self.sizes = sizes
        self.time = nn.Linear(sizes.window_frames, 1)
        nn.init.constant_(self.time.weight, 1 / sizes.window_frames)
        nn.init.zeros_(self.time.bias)
        self.classes = nn.Linear(sizes.n_parcels, len(sizes.labels))

    def forward(
        self,
        inputs: Tensor,
        marked: Tensor,
        valid: Tensor | None = None,
        labels: Tensor | None = None,
        **_: Any,
    ) -> Outputs:
        """Return `logits` (B, classes) and, with labels, `loss`."""
        inputs = inputs * (parcel_scale(marked)[:, None] * real_frames(inputs, valid)[..., None])
        inputs = functional.pad(inputs, (0, 0, 0, self.sizes.window_frames - inputs.shape[1]))
        return classified(self.classes(self.time(inputs.transpose(1, 2)).squeeze(-1)), labels)


class MeanMlp(nn.Module):
    """A multi-layer perceptron on each parcel's mean over the window: blind to dynamics, hard to beat."""

    def __init__(self, sizes: NetworkConfig) -> None:
        super().__init__()
        self.sizes = sizes
        self.layers = nn.Sequential(
            nn.Linear(sizes.n_parcels, sizes.width),
            nn.GELU(),
            nn.Dropout(sizes.dropout),
            nn.Linear(sizes.width, len(sizes.labels)),
        )

    def forward(
        self,
        inputs: Tensor,
        marked: Tensor,
        valid: Tensor | None = None,
        labels: Tensor | None = None,
        **_: Any,
    ) -> Outputs:
        """Return `logits` (B, classes) and, with labels, `loss`."""
        frames = real_frames(inputs, valid).float()
        mean = torch.einsum("blp,bl->bp", inputs, frames) / frames.sum(dim=1, keepdim=True)
        return classified(self.layers(mean * parcel_scale(marked)), labels)
