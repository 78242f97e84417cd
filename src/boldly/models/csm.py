"""Causal sequence modeling: each frame is predicted from those before it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import GPT2Config, GPT2Model

from boldly.config import PretrainOptions
from boldly.models.network import (
    Network,
    NetworkConfig,
    Outputs,
    attention_kernel,
    real_frames,
    small_linear,
    window_l1,
)
from boldly.models.objective import SHARES, Couplings, Objective, Row, Sums, Targets, Weights
from boldly.samples.corpus import Group
from boldly.samples.windows import WindowOptions, number_of

# Of the loss of frames further ahead.
_HORIZON_WEIGHT = 0.5

# Frames ahead that the next frame's own loss does not speak of already.
_NEAREST_FRAMES = 2

# Farther than any two repetition times are from each other (logarithm of their ratio).
_FAR_AWAY = 100.0


class CausalNetwork(Network):
    """GPT-2 blocks with a next-frame loss at every position.

    The prediction is that of a vector autoregression, the last frame times a coupling, plus what the blocks add.
    It is fitted beforehand and stays: the blocks would need thousands of steps to find it, and steps of an
    optimiser blur it. Every frame but the first is a target, where the reference supervises one masked frame per
    sequence. Frames further ahead are predicted beside it.

    Each dataset and repetition time (`NetworkConfig.groups`) has a coupling of its own: how much a frame says of
    the next one depends on the time between them, on the scanner and on the cleaning, and one coupling for all
    errs more than a fit to each. A window of another repetition time takes the nearest one of its dataset, one of
    an unknown dataset the nearest of all.

    What the blocks add is fitted to training subjects, and with few of them it may do harm to others. Of the kept
    weights it is therefore multiplied, in each group, with the share from 0 to 1 that errs least on the validation
    subjects (`CausalModeling.settle`): shrinkage, its strength chosen on held-out data. With share 0 the forecast
    is that before the first step. The hidden states, which decoders read, stay as they are.
    """

    def __init__(self, sizes: NetworkConfig) -> None:
        super().__init__(sizes)
        self.decoder = gpt2_blocks(sizes)
        if self.unembedder is not None:
            # Before the first step predictions are those of the autoregression: with few data nothing is better.
            nn.init.zeros_(self.unembedder.weight)
            # Until they are fitted, the next frame is what the blocks say. No buffers: those are sent to all
            # processes before each step.
            n_groups = max(1, len(sizes.groups))
            self.coupling = nn.Parameter(torch.zeros(n_groups, *2 * [sizes.n_parcels]), requires_grad=False)
            self.share = nn.Parameter(torch.ones(n_groups), requires_grad=False)
            self.far = nn.ModuleList(
                small_linear(sizes.width, sizes.n_parcels) for _ in (sizes.horizons_s or sizes.horizons)
            )

    def start_dynamics(self, couplings: Couplings) -> None:
        """Set the vector autoregressions that predictions start from; a decoder has none.

        Parameters
        ----------
        couplings : dict
            For each of the network's groups what a frame, as a row, is multiplied with for the next, (P, P).
        """
        if self.head is None:
            with torch.no_grad():
                for coupling, group in zip(self.coupling, self.sizes.groups, strict=True):
                    coupling.copy_(torch.as_tensor(couplings[group]))

    @torch.compiler.disable
    def places(self, t_r: Tensor, dataset: Tensor | None = None) -> Tensor:
        """Return the numbers (B,) of the groups that windows belong to.

        Parameters
        ----------
        t_r : Tensor, shape (B,)
            Repetition times, s.
        dataset : Tensor of int64, shape (B,), optional
            Datasets (`boldly.samples.windows.number_of`); None: unknown.
        """
        groups = self.sizes.groups or (("", 1.0),)
        t_rs = t_r.new_tensor([group_t_r for _, group_t_r in groups])
        distance = (t_r[:, None] / t_rs).log().abs()  # (B, groups)
        if dataset is not None:
            names = dataset.new_tensor([number_of(name) for name, _ in groups])
            distance = distance + _FAR_AWAY * (dataset[:, None] != names)
        return distance.argmin(dim=1)

    def encode(
        self, inputs: Tensor, seconds: Tensor, t_r: Tensor, marked: Tensor, valid: Tensor | None = None
    ) -> list[Tensor]:
        """Return the hidden states (B, L, W) of all layers; padding stands behind and is seen by no real frame."""
        hidden = [self.embedder(inputs, seconds, t_r, marked)]
        with attention_kernel(hidden[0]):
            for block in self.decoder.h:
                hidden.append(block(hidden[-1]))
        return [*hidden[:-1], self.decoder.ln_f(hidden[-1])]

    def predict_next(
        self, inputs: Tensor, seconds: Tensor, t_r: Tensor, marked: Tensor, dataset: Tensor | None = None
    ) -> Tensor:
        """Predict the frame after each frame (B, L, P)."""
        hidden, place = self.encode(inputs, seconds, t_r, marked)[-1], self.places(t_r, dataset)
        return self._start(inputs, marked, place) + self.share[place, None, None] * self.predict_frames(hidden)

    def predict(
        self,
        inputs: Tensor,
        seconds: Tensor,
        t_r: Tensor,
        marked: Tensor,
        valid: Tensor | None = None,
        dataset: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Return what the autoregression says of the next frames, what the blocks add, and farther frames.

        Returns
        -------
        start, added : Tensor, shape (B, L - 1, P)
            Their sum is the forecast of the frames from the second one on.
        far : list of Tensor, shape (B, L, P)
            For each horizon what is said at each frame.
        """
        hidden, place = self.encode(inputs, seconds, t_r, marked)[-1], self.places(t_r, dataset)
        start = self._start(inputs[:, :-1], marked, place)
        added = self.share[place, None, None] * self.predict_frames(hidden[:, :-1])
        return start, added, [layer(hidden) for layer in self.far]

    @torch.compiler.disable
    def _start(self, inputs: Tensor, marked: Tensor, place: Tensor) -> Tensor:
        """Return what the autoregressions of the windows' groups (B,) say of the next frames (B, L, P)."""
        inputs = inputs * ~marked[:, None]
        if len(self.coupling) == 1:
            return inputs @ self.coupling[0]
        said = torch.empty_like(inputs)
        for number in place.unique().tolist():
            rows = place == number
            said[rows] = (inputs[rows] @ self.coupling[number]).to(said.dtype)
        return said


class CausalModeling(Objective):
    """The L1 of the next frames, plus the weighted L1 of frames further ahead."""

    network: CausalNetwork
    starts_from_couplings = True

    @classmethod
    def view(cls, options: PretrainOptions, batch_size: int) -> WindowOptions:
        """Return which windows are cut: plain ones that know their dataset."""
        return dataclasses.replace(super().view(options, batch_size), tell_dataset=True)

    def start(self, couplings: Couplings) -> None:
        """Start from the autoregressions of the training runs."""
        self.network.start_dynamics(couplings)

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

    def choose(self, sums: Sums, groups: Sequence[Group]) -> tuple[Sums, Row]:
        """Choose, for each group of the network, the share of the blocks' forecast that errs least."""
        by_share = np.array([sums.pop(f"l1_share_{number}") for number in range(len(SHARES))])
        places = self._places(groups)
        loss, l1 = np.array(sums["loss"]) - sums["l1"], np.empty(len(groups))
        shares: Row = {}
        for place in np.unique(places):
            errors = by_share[:, places == place]
            best = int(errors.sum(axis=1).argmin())
            l1[places == place] = errors[best]
            shares[self._share_name(place)] = SHARES[best]
        mean = {"forecast_share": float(np.mean(list(shares.values())))}
        return {**sums, "l1": l1.tolist(), "loss": (loss + l1).tolist()}, {**mean, **shares}

    def settle(self, weights: Weights, row: Row) -> Weights:
        """Keep the chosen shares of what the blocks add to the forecasts."""
        mean = row.get("forecast_share", 1.0)
        shares = [row.get(self._share_name(place), mean) for place in range(len(self.network.share))]
        return {**weights, "share": torch.tensor(shares)}

    def _places(self, groups: Sequence[Group]) -> NDArray[np.int64]:
        datasets, t_rs = zip(*groups, strict=True)
        numbers = torch.tensor([number_of(dataset) for dataset in datasets])
        return self.network.places(torch.tensor(t_rs), numbers).numpy()

    def _share_name(self, place: int) -> str:
        if not self.network.sizes.groups:
            return "forecast_share"
        dataset, t_r = self.network.sizes.groups[place]
        return f"forecast_share_{dataset}_{t_r:g}s"

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
