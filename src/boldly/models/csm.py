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
from boldly.models.objective import SHARES, ComingComponents, Couplings, Objective, Row, Sums, Targets, Weights
from boldly.samples.corpus import Group
from boldly.samples.windows import WindowOptions, number_of

# What is said of coming frames: so many numbers at most.
_MOST_TARGETS = 48

# Farther than any two repetition times are from each other (logarithm of their ratio).
_FAR_AWAY = 100.0


class CausalNetwork(Network):
    """GPT-2 blocks with a next-frame loss at every position.

    The prediction is that of a vector autoregression, the last frame times a coupling, plus what the blocks add.
    It is fitted beforehand and stays: the blocks would need thousands of steps to find it, and steps of an
    optimiser blur it. Every frame but the first is a target, where the reference supervises one masked frame per
    sequence. Beside it the leading components of all coming frames together are predicted, as far as the horizons
    reach: of the next frame alone the blocks learn how it differs from what the autoregression says, mostly noise,
    and not the pattern that lasts, which is what tells mental states apart.

    Each dataset and repetition time (`NetworkConfig.groups`) has a coupling of its own: how much a frame says of
    the next one depends on the time between them, on the scanner and on the cleaning, and one coupling for all
    errs more than a fit to each. A window of another repetition time takes the nearest one of its dataset, one of
    an unknown dataset the nearest of all.

    What the blocks add is fitted to training subjects, and with few of them it may do harm to others. Of the kept
    weights it is therefore multiplied, in each group, with the share from 0 to 1 that errs least on the validation
    subjects (`CausalModeling.settle`): shrinkage, its strength chosen on held-out data. With share 0 the forecast
    is that before the first step, as it is without any validation subject. The hidden states, which decoders read,
    stay as they are.
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
            self.register_buffer("ahead", _any_targets(len(sizes.horizons_s), sizes.n_parcels))
            self.ahead: Tensor
            self.coming = small_linear(sizes.width, self.ahead.shape[2]) if sizes.horizons_s else None

    def start_targets(self, ahead: NDArray[np.floating]) -> None:
        """Set what is said of coming frames; a decoder says nothing.

        Parameters
        ----------
        ahead : ndarray, shape (H, P, K)
            What the frame at each horizon is multiplied with; their sum is what is to be said.
        """
        if self.head is None:
            self.ahead.copy_(torch.as_tensor(ahead))

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
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return what the autoregression says of the next frames, what the blocks add, and coming frames.

        Returns
        -------
        start, added : Tensor, shape (B, L - 1, P)
            Their sum is the forecast of the frames from the second one on.
        coming : Tensor, shape (B, L, K), or None
            What is said at each frame of those behind it, if there are horizons.
        """
        hidden, place = self.encode(inputs, seconds, t_r, marked)[-1], self.places(t_r, dataset)
        start = self._start(inputs[:, :-1], marked, place)
        added = self.share[place, None, None] * self.predict_frames(hidden[:, :-1])
        return start, added, None if self.coming is None else self.coming(hidden)

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
    """The L1 of the next frames, plus the squared error of the leading components of coming frames."""

    network: CausalNetwork
    is_fitted = True

    @classmethod
    def view(cls, options: PretrainOptions, batch_size: int) -> WindowOptions:
        """Return which windows are cut: plain ones that know their dataset."""
        return dataclasses.replace(super().view(options, batch_size), tell_dataset=True)

    def start(self, couplings: Couplings, coming_components: ComingComponents) -> None:
        """Start from the autoregressions of the training runs, and aim at components of their coming frames."""
        self.network.start_dynamics(couplings)
        if self.network.sizes.horizons_s:
            count = self.network.ahead.shape[2]
            self.network.start_targets(coming_components(self.network.sizes.horizons_s, count))

    def forward(
        self, inputs: Tensor, marked: Tensor, valid: Tensor | None = None, with_shares: bool = False, **batch: Any
    ) -> Outputs:
        """Return the loss and the L1 of the next frames.

        With `with_shares` also `l1_share_<n>`, the L1 of the next frames with ``SHARES[n]`` of what blocks add.
        """
        start, added, coming = self.network(inputs=inputs, marked=marked, valid=valid, **batch)
        frames = real_frames(inputs, valid)
        l1 = window_l1(start + added, inputs[:, 1:], frames[:, 1:], marked)
        loss = l1
        if coming is not None:
            loss = l1 + self._error_ahead(coming, inputs * ~marked[:, None], frames, batch["t_r"])
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

    def settle(self, weights: Weights, row: Row | None) -> Weights:
        """Keep the chosen shares of what the blocks add to the forecasts; nothing of it where nobody validates."""
        row = {"forecast_share": 0.0} if row is None else row
        mean = row.get("forecast_share", 1.0)
        places = range(max(1, len(self.network.sizes.groups)))
        shares = [row.get(self._share_name(place), mean) for place in places]
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

    def _error_ahead(self, said: Tensor, inputs: Tensor, frames: Tensor, t_r: Tensor) -> Tensor:
        """Return the mean squared error (B,) of what is said at each frame behind which all horizons lie."""
        B, L = frames.shape
        window, counted, target = torch.arange(B, device=t_r.device)[:, None], frames, torch.zeros_like(said)
        for ahead, directions in zip(self._frames_ahead(t_r), self.network.ahead, strict=True):
            place = torch.arange(L, device=t_r.device) + ahead[:, None]  # (B, L)
            there = place.clamp_max(L - 1)
            counted = counted & (place < L) & frames[window, there]
            target = target + (inputs @ directions)[window, there]
        error = (said - target).square().mean(dim=2) * counted
        return error.sum(dim=1) / counted.sum(dim=1).clamp_min(1)

    def _frames_ahead(self, t_r: Tensor) -> list[Tensor]:
        """Return how many frames ahead each horizon lies in each window (B,)."""
        return [torch.round(ahead / t_r).long().clamp_min(1) for ahead in self.network.sizes.horizons_s]


def _any_targets(n_horizons: int, n_parcels: int) -> Tensor:
    """Return parcels at some of the horizons, as what is said of coming frames until components are fitted."""
    count = min(_MOST_TARGETS, n_horizons * max(1, n_parcels // 4))
    number = torch.arange(count)
    directions = torch.zeros(n_horizons, n_parcels, count)
    if n_horizons:
        directions[number % n_horizons, number % n_parcels, number] = 1.0
    return directions


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
