"""Causal sequence modeling: each frame is predicted from those before it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from transformers import GPT2Config, GPT2Model

from boldly.models.network import Network, NetworkConfig, Outputs, real_frames, small_linear, window_l1

# Memory of a typical parcel, s: where the learned persistence starts if that of the data is not known.
_TYPICAL_MEMORY_S = 5.0

# The network also predicts frames this many steps ahead, without persistence. The next frame alone leaves hidden
# states that know the change and have lost the pattern that lasts, which is what tells mental states apart.
_HORIZONS = (2, 4, 8)
_HORIZON_WEIGHT = 0.5


class CausalNetwork(Network):
    """GPT-2 blocks with a next-frame loss at every position.

    The prediction is ``exp(-t_r / memory)`` times the last frame, with a learned memory (s) per parcel as of a
    first-order process, plus what the network adds. Every frame but the first is a target, where the reference
    supervises one masked frame per sequence. Frames further ahead are predicted beside it.
    """

    def __init__(self, sizes: NetworkConfig) -> None:
        super().__init__(sizes)
        self.decoder = gpt2_blocks(sizes)
        if not sizes.labels:
            start = math.log(math.expm1(_TYPICAL_MEMORY_S))
            self.memory = nn.Parameter(torch.full((sizes.n_parcels,), start))
            self.far = nn.ModuleList(small_linear(sizes.width, sizes.n_parcels) for _ in _HORIZONS)

    def start_memory(self, memory_s: NDArray[np.floating]) -> None:
        """Start from the memory (P,) that the parcels have (s): a wrong one takes thousands of steps to mend."""
        if self.head is None:
            with torch.no_grad():
                self.memory.copy_(torch.log(torch.expm1(torch.as_tensor(memory_s, dtype=torch.float32))))

    def encode(
        self, inputs: Tensor, seconds: Tensor, t_r: Tensor, marked: Tensor, valid: Tensor | None = None
    ) -> list[Tensor]:
        """Return the hidden states (B, L, W) of all layers; padding stands behind and is seen by no real frame."""
        hidden = [self.embedder(inputs, seconds, t_r, marked)]
        for block in self.decoder.h:
            hidden.append(block(hidden[-1]))
        return [*hidden[:-1], self.decoder.ln_f(hidden[-1])]

    def predict_next(self, inputs: Tensor, seconds: Tensor, t_r: Tensor, marked: Tensor) -> Tensor:
        """Predict the frame after each frame (B, L, P)."""
        return self._add_persistence(inputs, t_r, self.encode(inputs, seconds, t_r, marked)[-1])

    def objective(self, inputs: Tensor, marked: Tensor, valid: Tensor | None = None, **batch: Any) -> Outputs:
        """Return the L1 of the next frames, plus the weighted L1 of frames further ahead."""
        hidden = self.encode(inputs, batch["seconds"], batch["t_r"], marked)[-1]
        frames = real_frames(inputs, valid)
        prediction = self._add_persistence(inputs[:, :-1], batch["t_r"], hidden[:, :-1])
        l1 = window_l1(prediction, inputs[:, 1:], frames[:, 1:], marked)
        far = sum(
            window_l1(layer(hidden[:, :-ahead]), inputs[:, ahead:], frames[:, ahead:], marked)
            for layer, ahead in zip(self.far, _HORIZONS, strict=True)
        )
        loss = l1 + _HORIZON_WEIGHT * far
        return {"loss": loss.mean(), "window_loss": loss, "l1": l1}

    def _add_persistence(self, inputs: Tensor, t_r: Tensor, hidden: Tensor) -> Tensor:
        persistence = torch.exp(-t_r[:, None] / functional.softplus(self.memory))  # (B, P)
        return persistence[:, None] * inputs + self.predict_frames(hidden)

    def naive(self, inputs: Tensor, marked: Tensor, valid: Tensor | None = None, **_: Any) -> Outputs:
        """Return the L1 per window (B,) of predicting zero and of predicting the last frame again."""
        target, frames = inputs[:, 1:], real_frames(inputs, valid)[:, 1:]
        return {
            "l1_zero": window_l1(torch.zeros_like(target), target, frames, marked),
            "l1_last_frame": window_l1(inputs[:, :-1], target, frames, marked),
        }


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
