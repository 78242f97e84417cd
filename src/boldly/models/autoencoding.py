"""Autoencoding: an LSTM encoder squeezes a window into one vector, an LSTM decoder restores the frames."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from boldly.models.network import Network, NetworkConfig, real_frames, window_l1


class AutoencodingNetwork(Network):
    """Bidirectional LSTM encoder (directions averaged, residual, LayerNorm), LSTM decoder with teacher forcing.

    The decoder sees the frame before the one to restore unless it is masked: teacher forcing at the frames that are
    not. What it sees is known beforehand, so that a layer is one LSTM call.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        width = config.width
        layers = range(config.layers)
        # Two one-way LSTMs, the second on reversed windows: padding stands behind both and reaches no real frame.
        self.decoder = nn.ModuleDict(
            {
                "forwards": nn.ModuleList(nn.LSTM(width, width, batch_first=True) for _ in layers),
                "backwards": nn.ModuleList(nn.LSTM(width, width, batch_first=True) for _ in layers),
                "norms": nn.ModuleList(nn.LayerNorm(width) for _ in layers),
            }
        )
        self.dropout = nn.Dropout(config.dropout)
        if config.labels:
            return
        self.latent = nn.Linear(width, width)
        self.mask_vector = nn.Parameter(torch.randn(width) * 0.02)
        self.generator = nn.ModuleDict(
            {
                "lstms": nn.ModuleList(nn.LSTM(width, width, batch_first=True) for _ in layers),
                "norms": nn.ModuleList(nn.LayerNorm(width) for _ in layers),
            }
        )

    def encode(
        self, inputs: Tensor, seconds: Tensor, t_r: Tensor, marked: Tensor, valid: Tensor | None = None
    ) -> Tensor:
        """Return the hidden states of the frames (B, L, W)."""
        return self._encode(self.embedder(inputs, seconds, t_r, marked), valid)[0]

    def restore(
        self,
        inputs: Tensor,
        seconds: Tensor,
        t_r: Tensor,
        marked: Tensor,
        masked: Tensor,
        valid: Tensor | None = None,
    ) -> Tensor:
        """Return the restored frames (B, L, P)."""
        frames = self.embedder(inputs, seconds, t_r, marked)
        summary = self.latent(self._encode(frames, valid)[1])  # (B, W)
        seen = torch.where(masked[..., None], self.mask_vector.to(frames.dtype), frames)
        first = self.mask_vector.to(frames.dtype).expand(len(frames), 1, -1)
        before = torch.cat([first, seen[:, :-1]], dim=1)
        hidden = before + self.embedder.time(seconds, t_r) + summary[:, None]
        start = summary.tanh()[None].contiguous()
        for lstm, norm in zip(self.generator["lstms"], self.generator["norms"], strict=True):  # type: ignore[arg-type]
            hidden = norm(hidden + self.dropout(lstm(hidden, (start, torch.zeros_like(start)))[0]))
        return self.predict_frames(hidden)

    def objective(  # type: ignore[override]
        self, inputs: Tensor, marked: Tensor, valid: Tensor | None = None, **batch: Tensor
    ) -> dict[str, Tensor]:
        """Return the L1 of all frames."""
        prediction = self.restore(inputs=inputs, marked=marked, valid=valid, **batch)
        loss = window_l1(prediction, inputs, real_frames(inputs, valid), marked)
        return {"loss": loss.mean(), "window_loss": loss, "l1": loss}

    def naive(  # type: ignore[override]
        self, inputs: Tensor, marked: Tensor, valid: Tensor | None = None, **_: Tensor
    ) -> dict[str, Tensor]:
        """Return the L1 per window (B,) of predicting zero."""
        return {"l1_zero": window_l1(torch.zeros_like(inputs), inputs, real_frames(inputs, valid), marked)}

    def _encode(self, hidden: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the outputs (B, L, W) and the mean of the first and the last: the ends of both directions (B, W)."""
        B, L, W = hidden.shape
        position = torch.arange(L, device=hidden.device)
        length = valid.sum(dim=1) if valid is not None else position.new_full((B,), L)
        # Reverses the real frames and leaves the padding behind them; its own inverse.
        turned = torch.where(position < length[:, None], length[:, None] - 1 - position, position)
        turn = turned[..., None].expand(B, L, W)
        last = (length - 1)[:, None, None].expand(B, 1, W)
        parts = (self.decoder[name] for name in ("forwards", "backwards", "norms"))
        for forwards, backwards, norm in zip(*parts, strict=True):  # type: ignore[call-overload]
            ahead = forwards(hidden)[0]
            back = backwards(hidden.gather(1, turn))[0]
            hidden = norm(hidden + self.dropout((ahead + back.gather(1, turn)) / 2))
        return hidden, (hidden[:, 0] + hidden.gather(1, last)[:, 0]) / 2
