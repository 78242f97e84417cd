"""Masked autoencoding: much of a window is left out, and what is left is all that the encoder sees."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from boldly.config import PretrainOptions
from boldly.models.network import Network, NetworkConfig, Outputs, attention_kernel, parcel_scale
from boldly.models.objective import Objective, Targets
from boldly.models.parcel_errors import tell
from boldly.samples.windows import WindowOptions, group_of_parcels

# Attention heads look back and ahead over these times, s, evenly spaced on a logarithmic scale.
_NEAREST_S, _FARTHEST_S = 2.0, 100.0

# Of the encoder; the decoder has one: what it would find out by itself, the encoder need not know.
_DECODER_LAYERS = 1


class MaskedAutoencodingNetwork(Network):
    """A transformer over tokens, each a group of parcels in one frame; a small decoder says the tokens left out.

    The encoder never meets a token that is hidden, nor a stand-in for it (He et al. 2022,
    doi:10.1109/CVPR52688.2022.01553): its states are about signals alone, and a step costs what it sees.
    The decoder asks for each hidden token by its group and its time, and reads the states of the visible ones.

    Groups are those of `boldly.samples.windows.group_of_parcels`. A group's part of the embedder's and of the
    unembedder's matrix is what its tokens are embedded and restored with, so that the embedding of a frame, as
    other frameworks have it, is the sum of those of its tokens. The state of a frame is the mean over its tokens.
    Attention falls with the seconds between two tokens, as in the BERT frameworks.
    """

    def __init__(self, sizes: NetworkConfig) -> None:
        super().__init__(sizes)
        self.groups = sizes.parcel_groups
        members, place = _members(sizes.n_parcels, self.groups)
        self.register_buffer("members", members, persistent=False)
        self.register_buffer("place", place, persistent=False)
        self.members: Tensor
        self.place: Tensor
        reach = torch.logspace(math.log10(_NEAREST_S), math.log10(_FARTHEST_S), sizes.heads)
        self.register_buffer("rates", 1 / reach, persistent=False)
        self.rates: Tensor
        self.group_vectors = nn.Parameter(torch.randn(self.groups, sizes.width) * 0.02)
        self.decoder = nn.ModuleList(_Block(sizes) for _ in range(sizes.layers))
        self.norm = nn.LayerNorm(sizes.width)
        if sizes.labels:
            return
        self.questions = nn.Parameter(torch.randn(self.groups, sizes.width) * 0.02)
        self.restorer = nn.ModuleList(_Block(sizes, reads=True) for _ in range(_DECODER_LAYERS))
        self.last_norm = nn.LayerNorm(sizes.width)

    def encode(
        self, inputs: Tensor, seconds: Tensor, t_r: Tensor, marked: Tensor, valid: Tensor | None = None
    ) -> list[Tensor]:
        """Return the hidden states of the frames, each (B, L, W): the embedding, then the output of each layer."""
        tokens = self._embed(inputs, seconds, t_r, marked)
        B, L = seconds.shape
        times, known = self._by_token(seconds), None if valid is None else self._by_token(valid)
        layers = self._layers(tokens.flatten(1, 2), self._nearness(times, times, known))
        return [hidden.view(B, L, self.groups, -1).mean(dim=2) for hidden in layers]

    def predict(
        self,
        inputs: Tensor,
        seconds: Tensor,
        t_r: Tensor,
        marked: Tensor,
        valid: Tensor | None = None,
        *,
        masked: Tensor,
        n_visible: int,
    ) -> Tensor:
        """Say the tokens that are hidden.

        Parameters
        ----------
        masked : Tensor of bool, shape (B, L, groups)
            Hidden tokens.
        n_visible : int
            Most visible tokens of a window.

        Returns
        -------
        Tensor, shape (B, L, P)
            Signals; without meaning where they were visible.
        """
        B, L = seconds.shape
        seen = ~masked.flatten(1)
        if valid is not None:
            seen = seen & self._by_token(valid)
        # Visible tokens first, in the order of time; those of windows that have fewer are not looked at.
        order = (~seen).to(torch.uint8).argsort(dim=1, stable=True)
        kept, asked = order[:, :n_visible], order[:, n_visible:]
        times = self._by_token(seconds)
        times_kept, seen_kept = times.gather(1, kept), seen.gather(1, kept)
        tokens = _take(self._embed(inputs, seconds, t_r, marked).flatten(1, 2), kept)
        states = self._layers(tokens, self._nearness(times_kept, times_kept, seen_kept))[-1]
        questions = self.questions + self.embedder.time(seconds, t_r)[:, :, None]  # (B, L, groups, W)
        said = _take(questions.flatten(1, 2), asked)
        bias = self._nearness(times.gather(1, asked), times_kept, seen_kept)
        with attention_kernel(said):
            for block in self.restorer:
                said = block(said, bias, states)
        said = self.last_norm(said)
        hidden = said.new_zeros(B, L * self.groups, said.shape[2])
        hidden = hidden.scatter(1, asked[..., None].expand_as(said), said).view(B, L, self.groups, -1)
        return self._restore(hidden)

    def _embed(self, inputs: Tensor, seconds: Tensor, t_r: Tensor, marked: Tensor) -> Tensor:
        """Embed tokens (B, L, groups, W), each with the variance that an embedded frame has elsewhere."""
        signals = functional.pad(inputs * parcel_scale(marked)[:, None], (0, 1))[..., self.members]  # (B, L, G, n)
        weight = functional.pad(self.embedder.projection.weight, (0, 1))[:, self.members]  # (W, G, n)
        tokens = torch.einsum("blgn,wgn->blgw", signals, weight) * math.sqrt(self.groups)
        at = self.embedder.projection.bias + self.embedder.time(seconds, t_r)
        return self.embedder.dropout(tokens + at[:, :, None] + self.group_vectors)

    def _restore(self, hidden: Tensor) -> Tensor:
        """Turn the states of tokens (B, L, groups, W) into signals (B, L, P)."""
        if self.unembedder is None:
            raise ValueError("a decoder of mental states does not predict frames")
        weight = functional.pad(self.unembedder.weight, (0, 0, 0, 1))[self.members]  # (G, n, W)
        said = torch.einsum("blgw,gnw->blgn", hidden, weight).flatten(2)
        return said[..., self.place] + self.unembedder.bias

    def _layers(self, tokens: Tensor, bias: Tensor) -> list[Tensor]:
        """Return what goes in, and the output of each layer, the last one normalised."""
        layers = [tokens]
        with attention_kernel(tokens):
            for block in self.decoder:
                layers.append(block(layers[-1], bias))
        return [*layers[:-1], self.norm(layers[-1])]

    def _by_token(self, of_frames: Tensor) -> Tensor:
        """Repeat what belongs to frames (B, L) for their tokens (B, L * groups)."""
        return of_frames.repeat_interleave(self.groups, dim=1)

    def _nearness(self, asking: Tensor, asked: Tensor, known: Tensor | None) -> Tensor:
        """Return what is added to attention scores (B, heads, tokens, tokens), given tokens' seconds (B, T)."""
        distance = (asking[:, :, None] - asked[:, None]).abs()
        bias = -distance[:, None] * self.rates[:, None, None]
        return bias if known is None else bias.masked_fill(~known[:, None, None], torch.finfo(bias.dtype).min)


class _Block(nn.Module):
    """Attention and a perceptron, each behind LayerNorm and added to what comes in (pre-norm).

    With `reads`, tokens look at other tokens than themselves.
    """

    def __init__(self, sizes: NetworkConfig, *, reads: bool = False) -> None:
        super().__init__()
        width = sizes.width
        self.heads = sizes.heads
        self.norm = nn.LayerNorm(width)
        self.norm_read = nn.LayerNorm(width) if reads else None
        self.ask = nn.Linear(width, width)
        self.answer = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        self.inner = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 4 * width),
            nn.GELU(approximate="tanh"),
            nn.Linear(4 * width, width),
        )
        self.dropout = nn.Dropout(sizes.dropout)

    def forward(self, hidden: Tensor, bias: Tensor, read: Tensor | None = None) -> Tensor:
        """Pass tokens (B, T, W) through; `read` (B, S, W) is what they look at, `bias` (B, heads, T, S)."""
        own = self.norm(hidden)
        source = own if read is None or self.norm_read is None else self.norm_read(read)
        query, (key, value) = self._split(self.ask(own), 1)[0], self._split(self.answer(source), 2)
        found = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias.to(query.dtype))
        hidden = hidden + self.dropout(self.out(found.transpose(1, 2).flatten(2)))
        return hidden + self.dropout(self.inner(hidden))

    def _split(self, hidden: Tensor, n_parts: int) -> Tensor:
        """Turn (B, T, parts * W) into (parts, B, heads, T, W / heads)."""
        B, T, _ = hidden.shape
        return hidden.view(B, T, n_parts, self.heads, -1).permute(2, 0, 3, 1, 4)


class MaskedAutoencoding(Objective):
    """The L1 of the hidden tokens. Parcels without coverage count nowhere."""

    network: MaskedAutoencodingNetwork
    has_forecasts = False
    mask_fraction = 0.5

    @classmethod
    def view(cls, options: PretrainOptions, batch_size: int) -> WindowOptions:
        """Return windows of which groups of parcels are hidden over blocks of frames."""
        wanted = super().view(options, batch_size)
        return replace(wanted, masking="blocks", mask_span=options.mask_span, parcel_groups=options.parcel_groups)

    def forward(self, inputs: Tensor, marked: Tensor, masked: Tensor, **batch: Any) -> Outputs:
        """Return the loss and its parts."""
        said = self.network(inputs=inputs, marked=marked, masked=masked, **batch)
        loss = self._error(said, inputs, marked, masked, batch.get("valid"))
        return {"loss": loss.mean(), "window_loss": loss, "l1": loss}

    def targets(self, inputs: Tensor, marked: Tensor, valid: Tensor | None = None, **batch: Any) -> Targets:
        """Refuse: what is hidden is not the same parcels in all frames, which forecasts would need."""
        raise NotImplementedError("masked autoencoding is compared with zeros alone")

    def naive(self, **batch: Any) -> Outputs:
        """Return the L1 of each window (B,) for predicting zero, as `l1_zero`."""
        inputs, marked, masked = batch["inputs"], batch["marked"], batch["masked"]
        return {"l1_zero": self._error(torch.zeros_like(inputs), inputs, marked, masked, batch.get("valid"))}

    @staticmethod
    def _error(said: Tensor, inputs: Tensor, marked: Tensor, masked: Tensor, valid: Tensor | None) -> Tensor:
        """Return the mean absolute error of the hidden values of each window (B,)."""
        group = torch.from_numpy(group_of_parcels(inputs.shape[2], masked.shape[2])).to(masked.device)
        counted = masked[:, :, group] & ~marked[:, None]
        if valid is not None:
            counted = counted & valid[..., None]
        error = (said.float() - inputs).abs() * counted
        tell(error, counted)
        return error.sum(dim=(1, 2)) / counted.sum(dim=(1, 2)).clamp_min(1)


def _members(n_parcels: int, n_groups: int) -> tuple[Tensor, Tensor]:
    """Return the parcels of each group (groups, n), and where each parcel stands in it, (P,).

    Smaller groups are filled up with the number `n_parcels`, where no parcel is.
    """
    group = group_of_parcels(n_parcels, n_groups)
    size = int(np.bincount(group).max())
    members = np.full((n_groups, size), n_parcels)
    place = np.zeros(n_parcels, np.int64)
    for number in range(n_groups):
        own = np.flatnonzero(group == number)
        members[number, : len(own)] = own
        place[own] = number * size + np.arange(len(own))
    return torch.from_numpy(members), torch.from_numpy(place)


def _take(tokens: Tensor, numbers: Tensor) -> Tensor:
    """Return tokens (B, T, W) by their numbers (B, S)."""
    return tokens.gather(1, numbers[..., None].expand(-1, -1, tokens.shape[2]))
