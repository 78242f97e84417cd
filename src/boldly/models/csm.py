"""Causal sequence modeling: each frame is predicted from those before it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import GPT2Config, GPT2Model

from boldly.models.network import (
    Network,
    NetworkConfig,
    Outputs,
    attention_kernel,
    real_frames,
    small_linear,
    window_l1,
)
from boldly.models.objective import SHARES, FitDynamics, Objective, Row, Sums, Targets, Weights

# Of the loss of frames further ahead.
_HORIZON_WEIGHT = 0.5

# Frames ahead that the next frame's own loss does not speak of already.
_NEAREST_FRAMES = 2


class CausalNetwork(Network):
    """GPT-2 blocks with a next-frame loss at every position.

    The prediction is that of a vector autoregression, ``exp(-t_r / memory) coupling`` times the last frame, plus
    what the blocks add. It is fitted beforehand and stays: the blocks would need thousands of steps to find it,
    and steps of an optimiser blur it. Every frame but the first is a target, where the reference supervises one
    masked frame per sequence. Frames further ahead are predicted beside it.

    What the blocks add is fitted to training subjects, and with few of them it may do harm to others. Of the kept
    weights it is therefore multiplied with the share from 0 to 1 that errs least on the validation subjects
    (`CausalModeling.settle`): shrinkage, its strength chosen on held-out data. With share 0 the forecast is that
    before the first step. The hidden states, which decoders read, stay as they are.
    """

    def __init__(self, sizes: NetworkConfig) -> None:
        super().__init__(sizes)
        self.decoder = gpt2_blocks(sizes)
        if self.unembedder is not None:
            # Before the first step predictions are those of the autoregression: with few data nothing is better.
            nn.init.zeros_(self.unembedder.weight)
            # Until they are fitted, the next frame is what the blocks say.
            self.register_buffer("memory", torch.tensor(torch.inf))
            self.register_buffer("coupling", torch.zeros(sizes.n_parcels, sizes.n_parcels))
            self.memory: Tensor
            self.coupling: Tensor
            self.far = nn.ModuleList(
                small_linear(sizes.width, sizes.n_parcels) for _ in (sizes.horizons_s or sizes.horizons)
            )

    def start_dynamics(self, memory_s: float, coupling: NDArray[np.floating]) -> None:
        """Set the vector autoregression that predictions start from; a decoder has none.

        Parameters
        ----------
        memory_s : float
            Time constant, s.
        coupling : ndarray, shape (P, P)
            ``exp(-t_r / memory_s)`` times this is what a frame, as a row, is multiplied with for the next.
        """
        if self.head is None:
            self.memory.fill_(memory_s)
            self.coupling.copy_(torch.as_tensor(coupling))

    def encode(
        self, inputs: Tensor, seconds: Tensor, t_r: Tensor, marked: Tensor, valid: Tensor | None = None
    ) -> list[Tensor]:
        """Return the hidden states (B, L, W) of all layers; padding stands behind and is seen by no real frame."""
        hidden = [self.embedder(inputs, seconds, t_r, marked)]
        with attention_kernel(hidden[0]):
            for block in self.decoder.h:
                hidden.append(block(hidden[-1]))
        return [*hidden[:-1], self.decoder.ln_f(hidden[-1])]

    def predict_next(self, inputs: Tensor, seconds: Tensor, t_r: Tensor, marked: Tensor) -> Tensor:
        """Predict the frame after each frame (B, L, P)."""
        hidden = self.encode(inputs, seconds, t_r, marked)[-1]
        return self._start(inputs, t_r, marked) + self.predict_frames(hidden)

    def predict(
        self, inputs: Tensor, seconds: Tensor, t_r: Tensor, marked: Tensor, valid: Tensor | None = None
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Return what the autoregression says of the next frames, what the blocks add, and farther frames.

        Returns
        -------
        start, added : Tensor, shape (B, L - 1, P)
            Their sum is the forecast of the frames from the second one on.
        far : list of Tensor, shape (B, L, P)
            For each horizon what is said at each frame.
        """
        hidden = self.encode(inputs, seconds, t_r, marked)[-1]
        start = self._start(inputs[:, :-1], t_r, marked)
        return start, self.predict_frames(hidden[:, :-1]), [layer(hidden) for layer in self.far]

    def _start(self, inputs: Tensor, t_r: Tensor, marked: Tensor) -> Tensor:
        """Return what the autoregression says of the frame after each frame (B, L, P)."""
        fading = torch.exp(-t_r / self.memory)[:, None]  # (B, 1)
        return (inputs * (fading * ~marked)[:, None]) @ self.coupling


class CausalModeling(Objective):
    """The L1 of the next frames, plus the weighted L1 of frames further ahead."""

    network: CausalNetwork

    def start(self, fit_dynamics: FitDynamics) -> None:
        """Start from the autoregression of the training runs."""
        self.network.start_dynamics(*fit_dynamics())

    def forward(
        self, inputs: Tensor, marked: Tensor, valid: Tensor | None = None, with_shares: bool = False, **batch: Any
    ) -> Outputs:
        """Return the loss and the L1 of the next frames.

        With `with_shares` also `l1_share_<n>`, the L1 of the next frames with ``SHARES[n]`` of what blocks add.
        """
        start, added, far = self.network(inputs=inputs, marked=marked, valid=valid, **batch)
        frames = real_frames(inputs, valid)
        l1 = window_l1(start + added, inputs[:, 1:], frames[:, 1:], marked)
        ahead = self._frames_ahead(batch["t_r"])
        loss = l1 + _HORIZON_WEIGHT * sum(
            _far_l1(said, horizon, inputs, frames, marked) for said, horizon in zip(far, ahead, strict=True)
        )
        shares = {
            f"l1_share_{number}": window_l1(start + share * added, inputs[:, 1:], frames[:, 1:], marked)
            for number, share in enumerate(SHARES if with_shares else ())
        }
        return {"loss": loss.mean(), "window_loss": loss, "l1": l1, **shares}

    def targets(self, inputs: Tensor, marked: Tensor, valid: Tensor | None = None, **_: Any) -> Targets:
        """Return all frames but the first, each to be said from those before it."""
        frames = real_frames(inputs, valid)
        later = frames.clone()
        later[:, 0] = False
        return Targets(later, marked, frames)

    def measure(self, *, calibrate: bool = False, **batch: Any) -> Outputs:
        """Return the losses of windows (B,), and those with shares of the blocks' forecast to choose from."""
        return super().measure(**batch, with_shares=calibrate)

    def choose(self, sums: Sums) -> tuple[Sums, Row]:
        """Choose the share of the blocks' forecast that errs least over all groups."""
        by_share = [np.array(sums.pop(f"l1_share_{number}")) for number in range(len(SHARES))]
        best = min(range(len(SHARES)), key=lambda number: by_share[number].sum())
        loss = np.array(sums["loss"]) - np.array(sums["l1"]) + by_share[best]
        return {**sums, "l1": by_share[best].tolist(), "loss": loss.tolist()}, {"forecast_share": SHARES[best]}

    def settle(self, weights: Weights, row: Row) -> Weights:
        """Keep the chosen share of what the blocks add to the forecasts."""
        share = row.get("forecast_share", 1.0)
        return {
            name: tensor * share if name.startswith("unembedder.") else tensor for name, tensor in weights.items()
        }

    def _frames_ahead(self, t_r: Tensor) -> list[Tensor]:
        """Return how many frames ahead each horizon lies in each window (B,)."""
        sizes = self.network.sizes
        if not sizes.horizons_s:
            return [torch.full_like(t_r, ahead, dtype=torch.long) for ahead in sizes.horizons]
        return [torch.round(ahead / t_r).long().clamp_min(_NEAREST_FRAMES) for ahead in sizes.horizons_s]


def _far_l1(prediction: Tensor, ahead: Tensor, inputs: Tensor, frames: Tensor, marked: Tensor) -> Tensor:
    """Return the L1 (B,) of what is said at each frame of the frame `ahead` (B,) behind it."""
    B, L = frames.shape
    place = torch.arange(L, device=ahead.device) + ahead[:, None]  # (B, L)
    window, there = torch.arange(B, device=ahead.device)[:, None], place.clamp_max(L - 1)
    counted = (place < L) & frames[window, there]
    return window_l1(prediction, inputs[window, there], counted, marked)


def gpt2_blocks(sizes: NetworkConfig) -> GPT2Model:
    """Build a GPT-2 without tables of words and positions: time is embedded in seconds."""
    network = GPT2Model(
        GPT2Config(
            vocab_size=1,
            n_positions=1,
            n_embd=sizes.width,
            n_layer=sizes.layers,
            n_head=sizes.heads,
            # The same function as the reference's gelu_new, in one kernel.
            activation_function="gelu_pytorch_tanh",
            resid_pdrop=sizes.dropout,
            # Without dropout of attention weights torch takes its memory-efficient kernels, on CPUs too.
            embd_pdrop=sizes.dropout,
            attn_pdrop=0.0,
            use_cache=False,
            bos_token_id=None,
            eos_token_id=None,
        )
    )
    network.wte = nn.Identity()  # type: ignore[assignment]
    network.wpe = nn.Identity()  # type: ignore[assignment]
    return network
