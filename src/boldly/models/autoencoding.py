"""Autoencoding: an LSTM encoder squeezes a window into one vector, an LSTM decoder restores the frames."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from boldly.config import PretrainOptions
from boldly.models.network import Network, NetworkConfig, Outputs, real_frames, window_l1
from boldly.models.objective import Objective, Targets
from boldly.samples.windows import WindowOptions


class _EncoderLayer(nn.Module):
    """An LSTM in each direction, their outputs averaged, dropout, residual, LayerNorm.

    Two one-way LSTMs, the second on reversed windows: padding stands behind both and reaches no real frame.
    """

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.forwards = nn.LSTM(width, width, batch_first=True)
        self.backwards = nn.LSTM(width, width, batch_first=True)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: Tensor, turn: Tensor) -> Tensor:
        """Read windows (B, L, W); `turn` (B, L, W) holds the positions of the frames in reverse order."""
        ahead = self.forwards(hidden)[0]
        back = self.backwards(hidden.gather(1, turn))[0].gather(1, turn)
        return self.norm(hidden + self.dropout((ahead + back) / 2))


class _GeneratorLayer(nn.Module):
    """An LSTM, dropout, residual, LayerNorm."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.lstm = nn.LSTM(width, width, batch_first=True)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: Tensor, start: Tensor) -> Tensor:
        """Go through windows (B, L, W) from the state `start` (1, B, W)."""
        return self.norm(hidden + self.dropout(self.lstm(hidden, (start, torch.zeros_like(start)))[0]))


class AutoencodingNetwork(Network):
    """Bidirectional LSTM encoder, LSTM decoder with teacher forcing.

    The encoder is the part named `decoder`, as in the other frameworks: it is what decodes mental states. The
    generator sees the frame before the one to restore unless it is masked: teacher forcing at the frames that are
    not. What it sees is known beforehand, so that a layer is one LSTM call.
    """

    def __init__(self, sizes: NetworkConfig) -> None:
        super().__init__(sizes)
        width, dropout = sizes.width, sizes.dropout
        self.decoder = nn.ModuleList(_EncoderLayer(width, dropout) for _ in range(sizes.layers))
        if sizes.labels:
            return
        self.latent = nn.Linear(width, width)
        self.mask_vector = nn.Parameter(torch.randn(width) * 0.02)
        self.generator = nn.ModuleList(_GeneratorLayer(width, dropout) for _ in range(sizes.layers))

    def encode(
        self, inputs: Tensor, seconds: Tensor, t_r: Tensor, marked: Tensor, valid: Tensor | None = None
    ) -> list[Tensor]:
        """Return the hidden states of the frames, each (B, L, W): the embedding, then the output of each layer."""
        return self._encode(self.embedder(inputs, seconds, t_r, marked), valid)[0]

    def predict(
        self,
        inputs: Tensor,
        seconds: Tensor,
        t_r: Tensor,
        marked: Tensor,
        valid: Tensor | None = None,
        *,
        masked: Tensor,
    ) -> Tensor:
        """Return the restored frames (B, L, P)."""
        frames = self.embedder(inputs, seconds, t_r, marked)
        summary = self.latent(self._encode(frames, valid)[1])  # (B, W)
        nothing = self.mask_vector.to(frames.dtype)
        seen = torch.where(masked[..., None], nothing, frames)
        before = torch.cat([nothing.expand(len(frames), 1, -1), seen[:, :-1]], dim=1)
        hidden = before + self.embedder.time(seconds, t_r) + summary[:, None]
        start = summary.tanh()[None].contiguous()
        for layer in self.generator:
            hidden = layer(hidden, start)
        return self.predict_frames(hidden)

    def _encode(self, hidden: Tensor, valid: Tensor | None) -> tuple[list[Tensor], Tensor]:
        """Return the states (B, L, W) of all layers, and the mean of both directions' last outputs (B, W)."""
        B, L, W = hidden.shape
        position = torch.arange(L, device=hidden.device)
        length = valid.sum(dim=1) if valid is not None else position.new_full((B,), L)
        # Reverses the real frames and leaves the padding behind them; its own inverse.
        turned = torch.where(position < length[:, None], length[:, None] - 1 - position, position)
        turn = turned[..., None].expand(B, L, W)
        layers = [hidden]
        for layer in self.decoder:
            layers.append(layer(layers[-1], turn))
        last = layers[-1].gather(1, turn[:, :1])[:, 0]
        return layers, (layers[-1][:, 0] + last) / 2


class Autoencoding(Objective):
    """The L1 of all frames. Masks say which frames the generator must do without: teacher forcing of a half."""

    network: AutoencodingNetwork

    @classmethod
    def view(cls, options: PretrainOptions, batch_size: int) -> WindowOptions:
        """Return windows half of whose frames are masked, one by one."""
        wanted = super().view(options, batch_size)
        return replace(wanted, masking="frames", mask_fraction=0.5, mask_span=1)

    def forward(self, inputs: Tensor, marked: Tensor, valid: Tensor | None = None, **batch: Any) -> Outputs:
        """Return the L1 of all frames."""
        restored = self.network(inputs=inputs, marked=marked, valid=valid, **batch)
        loss = window_l1(restored, inputs, real_frames(inputs, valid), marked)
        return {"loss": loss.mean(), "window_loss": loss, "l1": loss}

    def targets(self, inputs: Tensor, marked: Tensor, valid: Tensor | None = None, **batch: Any) -> Targets:
        """Return all frames; seen is what teacher forcing shows."""
        frames = real_frames(inputs, valid)
        return Targets(frames, marked, frames & ~batch["masked"])
