"""From parcels to hidden states and back."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from boldly.models.network import NetworkConfig

# Tokens that BERT and GPT-2 have a place for.
N_POSITIONS = 512

_STEP_S = 0.2
_LONGEST_S = 300
# A row for each step below 300 s, and a last one for tokens that are no frames.
_N_TIMES = round(_LONGEST_S / _STEP_S) + 1

# Of MASK, CLS and SEP: which framework has them.
_MASKING = ("csm", "sequence_bert", "network_bert")
_PAIRED = ("sequence_bert", "network_bert")


class Embedder(nn.Module):
    """A linear map and LayerNorm of each token, plus a learned vector for its time; holds MASK, CLS and SEP.

    With several layers each but the last ends with GELU and dropout (the activation is our choice).
    """

    def __init__(self, sizes: NetworkConfig) -> None:
        super().__init__()
        last = sizes.embedding_layers - 1
        layers = [
            _block(sizes.width if number else sizes.n_parcels, sizes, last=number == last)
            for number in range(sizes.embedding_layers)
        ]
        # The name of its own under which LfB keeps it.
        self.embed_model = nn.ModuleDict({"model": nn.Sequential(*(part for layer in layers for part in layer))})
        self.wt_re = nn.Embedding(_N_TIMES, sizes.width)
        if sizes.framework in _MASKING:
            shape = (1, N_POSITIONS, 1) if sizes.framework == "network_bert" else (1, 1, sizes.n_parcels)
            self.msk_embed = nn.Parameter(torch.randn(shape))
            self.cls_embed = nn.Parameter(torch.randn(1, 1, sizes.n_parcels))
        if sizes.framework in _PAIRED:
            self.sep_embed = nn.Parameter(torch.randn(1, sizes.n_parcels))

    def forward(self, inputs_embeds: Tensor, t_rs: Tensor) -> Tensor:
        """Embed tokens (B, T, P) at times (B, T), s, as (B, T, W)."""
        return self.embed_model["model"](inputs_embeds) + self.wt_re(time_rows(t_rs))


class Unembedder(nn.Module):
    """A linear map to parcels; in front of it as many layers as the embedder has besides its first."""

    def __init__(self, sizes: NetworkConfig) -> None:
        super().__init__()
        layers = [_block(sizes.width, sizes, last=False) for _ in range(sizes.embedding_layers - 1)]
        self.model = nn.Sequential(
            *(part for layer in layers for part in layer), nn.Linear(sizes.width, sizes.n_parcels)
        )

    def forward(self, hidden: Tensor) -> Tensor:
        """Turn hidden states (B, T, W) into signals (B, T, P)."""
        return self.model(hidden)


def time_rows(t_rs: Tensor) -> Tensor:
    """Return the row of the time embedding for times in seconds: the nearest 0.2 s step (halves to even).

    Negative times are those of tokens that are no frames; times beyond the table take its last step.
    """
    rows = torch.round(t_rs.float() / _STEP_S).clamp(0, _N_TIMES - 2).long()
    return rows.masked_fill(t_rs < 0, _N_TIMES - 1)


def _block(n_inputs: int, sizes: NetworkConfig, *, last: bool) -> list[nn.Module]:
    parts: list[nn.Module] = [nn.Linear(n_inputs, sizes.width), nn.LayerNorm(sizes.width)]
    return [*parts, *([] if last else [nn.GELU()]), nn.Dropout(sizes.dropout)]
