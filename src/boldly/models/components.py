"""Linear pretraining: frames to the principal components of the upstream runs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from boldly.models.network import NetworkConfig, parcel_scale


class ComponentsNetwork(nn.Module):
    """A projection on principal components, with the interface of an encoder: what pretraining has to beat.

    `width` of its sizes is the number of components.
    """

    def __init__(self, sizes: NetworkConfig) -> None:
        super().__init__()
        self.sizes = sizes
        self.components = nn.Parameter(torch.zeros(sizes.n_parcels, sizes.width), requires_grad=False)

    def encode(self, inputs: Tensor, marked: Tensor, **_: Any) -> list[Tensor]:
        """Return the components of the frames, (B, L, W), as the only layer."""
        return [(inputs * parcel_scale(marked)[:, None]) @ self.components]
