"""Decoders that a network has to beat: a linear one, and an MLP on the signal's mean over time."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from boldly.models.network import NetworkConfig, parcel_scale, real_frames


class LinearBaseline(nn.Module):
    """A linear map over time (window to one value), then a linear map over parcels, as in the reference."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.sizes = config
        self.time = nn.Linear(config.window_frames, 1)
        self.classes = nn.Linear(config.n_parcels, len(config.labels))

    def forward(
        self, inputs: Tensor, marked: Tensor, valid: Tensor | None = None, labels: Tensor | None = None, **_: Tensor
    ) -> dict[str, Tensor]:
        """Return `logits` (B, classes) and, with labels, `loss`."""
        inputs = inputs * (parcel_scale(marked)[:, None] * real_frames(inputs, valid)[..., None])
        inputs = functional.pad(inputs, (0, 0, 0, self.sizes.window_frames - inputs.shape[1]))
        return _outputs(self.classes(self.time(inputs.transpose(1, 2)).squeeze(-1)), labels)


class MeanMlp(nn.Module):
    """A multi-layer perceptron on each parcel's mean over the window: blind to dynamics, hard to beat."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.sizes = config
        self.layers = nn.Sequential(
            nn.Linear(config.n_parcels, config.width),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.width, len(config.labels)),
        )

    def forward(
        self, inputs: Tensor, marked: Tensor, valid: Tensor | None = None, labels: Tensor | None = None, **_: Tensor
    ) -> dict[str, Tensor]:
        """Return `logits` (B, classes) and, with labels, `loss`."""
        frames = real_frames(inputs, valid).float()
        mean = torch.einsum("blp,bl->bp", inputs, frames) / frames.sum(dim=1, keepdim=True)
        return _outputs(self.layers(mean * parcel_scale(marked)), labels)


def _outputs(logits: Tensor, labels: Tensor | None) -> dict[str, Tensor]:
    logits = logits.float()
    return {"logits": logits} if labels is None else {"loss": functional.cross_entropy(logits, labels), "logits": logits}
