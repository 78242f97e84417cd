"""A pretrained network for people: from a folder or a hub, and from signals to hidden states, in Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from boldly.models.build import encode_with, load_contract, load_encoder
from boldly.provenance import Contract
from boldly.sharing import folder_of


class Network:
    """A pretrained network; made by `from_pretrained`.

    Attributes
    ----------
    module : nn.Module
        The network, in evaluation mode.
    contract : Contract
        How its input must have come about: atlas, confounds, filters, scaling.
    window_frames : int
        The longest window that it was trained on, frames.
    """

    def __init__(self, module: nn.Module, contract: Contract) -> None:
        self.module, self.contract = module.eval(), contract
        sizes: Any = module.sizes
        self.window_frames: int = sizes.window_frames

    @classmethod
    def from_pretrained(cls, source: Path | str, *, revision: str | None = None) -> Self:
        """Read a network.

        Parameters
        ----------
        source : Path or str
            Folder of an upstream experiment (``results/models/upstream/csm``) or of `boldly import-weights`, or
            ``owner/name`` of a repository of a hub.
        revision : str, optional
            Commit, tag or branch of the repository.

        Raises
        ------
        InputError
            For a source that is not there or damaged, or a network that has no states of frames.
        """
        folder = folder_of(source, revision)
        return cls(load_encoder(folder), load_contract(folder))

    def encode(self, bold: ArrayLike, t_r: float, *, layer: int = -1) -> NDArray[np.float32]:
        """Return the hidden states of the frames of a run, window by window.

        Parameters
        ----------
        bold : array_like, shape (T, P)
            Signals of the parcels of the contract, scaled to mean 0 and standard deviation 1 over time.
        t_r : float
            Repetition time, s.
        layer : int, default=-1
            0: of the embedding of frames; -1: of the last layer.

        Returns
        -------
        ndarray of float32, shape (T, W)
            States.

        Raises
        ------
        ValueError
            For signals of another number of parcels.
        """
        signals = torch.as_tensor(np.asarray(bold, np.float32))
        if signals.ndim != 2 or signals.shape[1] != self.contract.n_parcels:
            raise ValueError(f"signals of shape {tuple(signals.shape)}: need (T, {self.contract.n_parcels})")
        with torch.inference_mode():
            states = self.states(signals[None], torch.tensor([t_r], dtype=torch.float32), layer)
        found: NDArray[np.float32] = torch.cat(states, dim=1)[0].numpy()
        return found

    def states(self, bold: Tensor, t_r: Tensor, layer: int = -1) -> list[Tensor]:
        """Return hidden states, (B, L, W) for each window, of runs (B, T, P) with repetition times (B,), s."""
        return [
            encode_with(self.module)(
                inputs=window,
                seconds=torch.arange(window.shape[1], device=bold.device) * t_r[:, None],
                t_r=t_r,
                marked=torch.zeros(window.shape[0], window.shape[2], dtype=torch.bool, device=bold.device),
            )[layer]
            for window in bold.split(self.window_frames, dim=1)
        ]
