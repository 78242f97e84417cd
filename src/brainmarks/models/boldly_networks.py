"""Networks of boldly for Brainmarks, the evaluation suite of fMRI foundation models.

The suite finds this module by itself: ``brainmarks.models`` is a namespace package, in which installed
packages have modules of their own, whose functions register models by name. ``boldly_network`` is any network of
boldly; its keyword ``source`` is a folder or a repository, else the environment variable BOLDLY_NETWORK names it.

The interface is that of Brainmarks in 2026: a model takes a batch with ``bold`` (B, T, P), each parcel with mean 0
and standard deviation 1 over time, and ``tr`` (B,), s. It returns the embeddings of class, registers and patches,
each (B, tokens, W) or None.
"""

from __future__ import annotations

import os

import torch
from brainmarks.models.registry import register_model
from torch import Tensor, nn

from boldly.models.pretrained import Network
from boldly.records import InputError, Problem

# The suite's names of spaces of parcels, by the number of parcels of a network's atlas.
_SPACES = {400: "schaefer400", 450: "schaefer400_tians3"}
_VARIABLE = "BOLDLY_NETWORK"

Embeddings = tuple[Tensor | None, Tensor | None, Tensor | None]


class BoldlyEncoder(nn.Module):
    """A frozen network: a token for each window of a run (patches), and their mean (class).

    Parameters
    ----------
    network : Network
        The network.
    space : str
        The suite's name of its parcels.
    layer : int, default=-1
        Which of the states.
    """

    def __init__(self, network: Network, space: str, layer: int = -1) -> None:
        super().__init__()
        self.network, self.layer, self.__space__ = network, layer, space
        # So that the suite moves the weights to its device.
        self.module = network.module

    def forward(self, batch: dict[str, Tensor]) -> Embeddings:
        """Return the embeddings of class, registers (none) and patches."""
        bold = batch["bold"].float()
        t_r = batch["tr"].float().reshape(-1).to(bold.device)
        windows = self.network.states(bold, t_r, self.layer)
        patches = torch.stack([states.mean(dim=1) for states in windows], dim=1)
        return patches.mean(dim=1, keepdim=True), None, patches


@register_model
def boldly_network(
    source: str | None = None, revision: str | None = None, space: str | None = None, layer: int = -1
) -> BoldlyEncoder:
    """Return the network that a folder or repository holds.

    Parameters
    ----------
    source, revision
        As those of `Network.from_pretrained`; default: the environment variable BOLDLY_NETWORK.
    space : str, optional
        The suite's name of the parcels; default: that of an atlas of as many.
    layer : int, default=-1
        Which of the states.

    Raises
    ------
    InputError
        Without a source, or for parcels that the suite does not have.
    """
    source = source or os.environ.get(_VARIABLE)
    if source is None:
        message = "which network? The suite names none"
        raise InputError(Problem("boldly_network", "source", message, f"pass source, or export {_VARIABLE}"))
    network = Network.from_pretrained(source, revision=revision)
    found = space or _SPACES.get(network.contract.n_parcels)
    if found is None:
        message = f"the suite has no space of {network.contract.n_parcels} parcels ({network.contract.atlas})"
        raise InputError(
            Problem(str(source), "space", message, "pass space, or pretrain on Schaefer's 400 parcels")
        )
    return BoldlyEncoder(network, found, layer)
