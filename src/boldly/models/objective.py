"""What a network is trained for: its view of the data, its loss, what it is compared with, what is kept of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from boldly.config import PretrainOptions
from boldly.models.network import Outputs, classified, window_l1
from boldly.samples.corpus import Group
from boldly.samples.windows import WindowOptions

Row = dict[str, float]
Weights = dict[str, Tensor]
# Name of a measure to its sums over the windows of each group.
Sums = dict[str, list[float]]
# Of the vector autoregression of each group: what a frame, as a row, is multiplied with for the next, (P, P).
Couplings = Mapping[Group, NDArray[np.floating]]
# Fits, on demand, components of frames at some times ahead, s, so many of them: (H, P, K).
ComingComponents = Callable[[Sequence[float], int], NDArray[np.floating]]

# What shares of a part of a forecast may be kept.
SHARES = tuple(number / 10 for number in range(11))


class Targets(NamedTuple):
    """What an objective asks for, and what may be known for it.

    Attributes
    ----------
    frames : Tensor of bool, shape (B, L)
        Frames that count.
    marked : Tensor of bool, shape (B, P)
        Parcels that do not count.
    seen : Tensor of bool, shape (B, L), or None
        Frames that a forecast of later ones may use; None: the objective is no matter of time.
    """

    frames: Tensor
    marked: Tensor
    seen: Tensor | None


class Objective(nn.Module):
    """What a network is trained for. The training loop and the validation know a framework by nothing else.

    A framework of one's own is one file with a network and a subclass of this (docs/frameworks.md). `forward` and
    `targets` have to be written; the rest has a default.

    `forward` takes a batch, as `boldly.samples.windows` cuts it, and returns a dict of tensors: `loss` (), and for
    each window (B,) `window_loss`, its loss, `l1`, the error that is compared with those of trivial forecasts, and
    whatever a validation is to show beside them.

    Parameters
    ----------
    network : nn.Module
        The network. `forward` must call it (not one of its methods), so that weights that are spread over
        processes are there when they are needed.
    """

    # Share that is masked where the config does not say.
    mask_fraction = 0.2
    # Whether AR(1), VAR and the last frame are forecasts of what `targets` asks for.
    has_forecasts = True
    # Whether `start` has a use for what is fitted to the training runs.
    is_fitted = False

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network: Any = network

    @classmethod
    def view(cls, options: PretrainOptions, batch_size: int) -> WindowOptions:
        """Return which windows are cut, of one length for each `batch_size` of them; here plain ones."""
        shortest, longest = options.window_frames
        fraction = cls.mask_fraction if options.mask_fraction is None else options.mask_fraction
        return WindowOptions(shortest, longest, batch_size, mask_fraction=fraction)

    def targets(self, inputs: Tensor, marked: Tensor, valid: Tensor | None = None, **batch: Any) -> Targets:
        """Return which values of a batch `l1` is about, and which frames a forecast of them may use."""
        raise NotImplementedError

    def naive(self, **batch: Any) -> Outputs:
        """Return the L1 of each window (B,) for predicting zero, as `l1_zero`."""
        targets, inputs = self.targets(**batch), batch["inputs"]
        return {"l1_zero": window_l1(torch.zeros_like(inputs), inputs, targets.frames, targets.marked)}

    def start(self, couplings: Couplings, coming_components: ComingComponents) -> None:
        """Set what the network starts from, given fits to the training runs; here nothing is fitted."""

    def measure(self, *, calibrate: bool = False, **batch: Any) -> Outputs:
        """Return what a validation sums up for each window (B,): `loss`, `l1` and so on.

        Parameters
        ----------
        calibrate : bool
            Measure also what `choose` chooses from.
        **batch
            Windows.
        """
        losses = {name: value for name, value in self(**batch).items() if name != "loss"}
        return {"loss": losses.pop("window_loss"), **losses}

    def choose(self, sums: Sums, groups: Sequence[Group]) -> tuple[Sums, Row]:
        """Choose, by the sums of a validation, something about the weights that are kept; here nothing.

        Parameters
        ----------
        sums : dict
            Sums over the windows of each group, by measure.
        groups : sequence of (str, float)
            These groups.

        Returns
        -------
        sums : dict
            Of the weights as `settle` will keep them.
        chosen : dict
            Stands in the row of the validation.
        """
        return sums, {}

    def settle(self, weights: Weights, row: Row | None) -> Weights:
        """Return the weights to keep, given those of the network and the row of their validation, if any."""
        return weights

    def rate(self, name: str) -> float:
        """Return the share of the learning rate that a parameter of the network is trained with."""
        return 1.0


class Decoding(Objective):
    """Mental states are told from labelled trials: the cross-entropy of the logits of a decoder.

    A batch may hold `offsets` (B, classes), to which the logits of the network are added.
    """

    has_forecasts = False

    def forward(self, labels: Tensor | None = None, offsets: Tensor | None = None, **batch: Any) -> Outputs:
        """Return `logits` (B, classes) and, with `labels`, the `loss`."""
        logits = self.network(**batch)["logits"]
        return classified(logits if offsets is None else logits + offsets, labels)
