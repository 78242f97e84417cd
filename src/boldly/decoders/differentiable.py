"""Decoders as one differentiable function of the signals: encoders, read-outs and classifiers, restated in torch.

What `boldly.decoders.apply` computes with arrays, trial by trial, is computed here for a batch of trials, so that
gradients reach the signals. Both give the same probabilities (``tests/decoders/test_differentiable.py``).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from boldly.config import ReadOut
from boldly.decoders import probe as probes
from boldly.decoders.encoders import ENCODERS, SIGNAL
from boldly.decoders.probe import Member, Probe
from boldly.decoders.torch_readouts import READ_OUTS, Timing
from boldly.models.basis import FILE, Basis, load_basis
from boldly.models.build import (
    WEIGHTS,
    encode_with,
    load_config,
    load_contract,
    load_encoder,
    load_network,
)
from boldly.provenance import check_same
from boldly.records import InputError, Problem
from boldly.samples.corpus import Corpus
from boldly.samples.windows import Trials

# Read-outs that are sums over frames: with a linear encoder and a linear classifier the decoder is linear.
LINEAR_READ_OUTS: frozenset[ReadOut] = frozenset({"mean", "slices", "leading"})
# Read-outs that do not change, or change without bound, when signals become small: nothing to start a path from
# lies at zero.
SCALE_FREE_READ_OUTS: frozenset[ReadOut] = frozenset({"tangent", "correlation"})


@dataclass(frozen=True)
class TrialBatch:
    """Trials as one padded batch.

    Attributes
    ----------
    inputs : Tensor, shape (R, L, P)
        Signals; zeros behind the end of shorter trials.
    fields : dict of str to Tensor, first dimension R
        What networks take beside them: `seconds`, `t_r`, `marked` and, where lengths differ, `valid`.
    timing : Timing
        What read-outs know of time.
    labels : Tensor of int64, shape (R,)
        States.
    """

    inputs: Tensor
    fields: dict[str, Tensor]
    timing: Timing
    labels: Tensor

    @classmethod
    def cut(cls, corpus: Corpus, longest: int, device: torch.device | str = "cpu") -> TrialBatch:
        """Cut all trials of a corpus behind `longest` frames."""
        if not len(corpus):
            raise ValueError("no trials")
        batch: dict[str, Any] = Trials(corpus, longest).__getitems__(range(len(corpus)))
        timing = Timing.of(np.minimum(corpus.lengths, longest), corpus.t_r, _numbers(corpus, longest))
        labels, inputs = batch.pop("labels").to(device), batch.pop("inputs").float().to(device)
        return cls(inputs, {name: tensor.to(device) for name, tensor in batch.items()}, timing.to(device), labels)

    def __len__(self) -> int:
        return len(self.inputs)


def _numbers(corpus: Corpus, longest: int) -> list[np.ndarray] | None:
    if corpus.numbers is None:
        return None
    ends = corpus.starts + np.minimum(corpus.lengths, longest)
    return [corpus.numbers[start:end] for start, end in zip(corpus.starts, ends, strict=True)]


class DifferentiableDecoder(nn.Module):
    """Signals of some trials of a batch to the logarithm of the probability of each state.

    Parameters
    ----------
    labels : tuple of str
        Names of the states.
    longest : int
        Longer trials are cut behind this many frames.
    probe : Probe, optional
        Frozen encoders, read-outs and classifiers.
    encoders : dict of str to nn.Module
        The networks of the probe's members, by name.
    bases : dict of str to Basis
        Components of their states, where members have none of their own.
    network : nn.Module, optional
        A network that gives logits. Beside a probe they are added to the probe's.
    """

    def __init__(
        self,
        labels: tuple[str, ...],
        longest: int,
        *,
        probe: Probe | None = None,
        encoders: dict[str, nn.Module] | None = None,
        bases: dict[str, Basis] | None = None,
        network: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.labels, self.longest = labels, longest
        self._probe = probe
        self._encoders = nn.ModuleDict({str(k): module for k, module in enumerate((encoders or {}).values())})
        self._places = {name: str(k) for k, name in enumerate(encoders or {})}
        known = bases or {}
        self._members = nn.ModuleList(
            _MemberHead(member, known.get(member.encoder)) for member in (probe.members if probe else ())
        )
        self._network = network
        self.eval().requires_grad_(False)

    @property
    def is_linear(self) -> bool:
        """Whether logits are sums of signals with fixed weights."""
        if self._probe is None or self._network is not None or len(self._probe.members) > 1:
            return False
        (member,) = self._probe.members
        if not set(member.read_outs) <= LINEAR_READ_OUTS or len(member.classifier.weights) > 1:
            return False
        if member.encoder == SIGNAL:
            return True
        sizes: Any = self._encoders[self._places[member.encoder]].sizes
        return bool(sizes.framework == "components")

    @property
    def is_scale_free(self) -> bool:
        """Whether a read-out sees the proportions of signals and not their size."""
        members = self._probe.members if self._probe is not None else ()
        return any(SCALE_FREE_READ_OUTS & set(member.read_outs) for member in members)

    def forward(self, inputs: Tensor, rows: Tensor, batch: TrialBatch) -> Tensor:
        """Return log-probabilities (B, labels), double precision.

        Parameters
        ----------
        inputs : Tensor, shape (B, L, P)
            Signals that take the place of those in the batch.
        rows : Tensor of int64, shape (B,)
            Which trial of the batch each one is.
        batch : TrialBatch
            The trials.
        """
        fields = {name: tensor[rows] for name, tensor in batch.fields.items()}
        total = inputs.new_zeros((len(inputs), len(self.labels)), dtype=torch.float64)
        if self._probe is not None:
            total = self._mixture(inputs, fields, batch.timing.select(rows))
        if self._network is not None:
            total = (total + self._network(inputs=inputs, **fields)["logits"].double()).log_softmax(dim=1)
        return total

    def evidence(self, inputs: Tensor, rows: Tensor, batch: TrialBatch) -> Tensor:
        """Return log-probabilities less their mean over states: of a softmax its logits, centred.

        They are linear in the features of a linear classifier, and do not saturate as probabilities do.
        """
        said = self(inputs, rows, batch)
        return said - said.mean(dim=1, keepdim=True)

    def _mixture(self, inputs: Tensor, fields: dict[str, Tensor], timing: Timing) -> Tensor:
        assert self._probe is not None
        states: dict[str, Sequence[Tensor]] = {}
        parts = []
        for member, head in zip(self._probe.members, self._members, strict=True):
            if member.encoder not in states:
                if member.encoder == SIGNAL:
                    states[SIGNAL] = [inputs]
                else:
                    encoder = self._encoders[self._places[member.encoder]]
                    states[member.encoder] = encode_with(encoder)(inputs=inputs, **fields)
            parts.append(head(states[member.encoder], timing).log_softmax(dim=1) + math.log(member.weight))
        return torch.stack(parts).logsumexp(dim=0)


class _MemberHead(nn.Module):
    """States of an encoder to logits: components, read-outs, scaling, classifier; see `boldly.decoders.probe`."""

    def __init__(self, member: Member, basis: Basis | None) -> None:
        super().__init__()
        self._member = member
        self._tables = nn.ParameterDict()
        own = member.basis or basis
        # Without a basis the states are parcels, read as they are.
        self._has_basis = own is not None
        if own is not None:
            for name in ("mean", "components", "variance"):
                self._keep(name, getattr(own, name))
        self._keep("centre", member.scaling.mean)
        self._keep("scale", member.scaling.scale)
        for kind, arrays in (("weight", member.classifier.weights), ("bias", member.classifier.biases)):
            for layer, array in enumerate(arrays):
                self._keep(f"{kind}{layer}", array.astype(np.float64))

    def _keep(self, name: str, array: np.ndarray) -> None:
        self._tables[name] = nn.Parameter(torch.from_numpy(np.array(array)), requires_grad=False)

    def forward(self, states: Sequence[Tensor], timing: Timing) -> Tensor:
        tables, blocks = self._tables, []
        for layer in self._member.layers:
            projected, variance = states[layer].float(), None
            if self._has_basis:
                projected = (projected - tables["mean"][layer]) @ tables["components"][layer]
                variance = tables["variance"][layer].double()
            projected = projected.double()
            # Scrubbing and padding: what is behind the end of a trial is no state of it.
            projected = projected * timing.valid[..., None]
            variance = projected.new_ones(projected.shape[2]) if variance is None else variance
            blocks += [READ_OUTS[word](projected, timing, variance) for word in self._member.read_outs]
        # An infinite scale says that a block is the same in all trials: it is zero then, and so is its gradient.
        hidden = (torch.cat(blocks, dim=1) - tables["centre"]) / tables["scale"].double()
        for layer in range(len(self._member.classifier.weights)):
            hidden = (hidden.relu() if layer else hidden) @ tables[f"weight{layer}"] + tables[f"bias{layer}"]
        return hidden


def load_differentiable(
    folder: Path | str, fit: str, corpus: Corpus, *, allow_mismatch: Collection[str] = ()
) -> DifferentiableDecoder:
    """Read a decoder of an experiment as a function that gradients pass through.

    Parameters
    ----------
    folder : Path or str
        Folder of the experiment, or of a packaged decoder: encoders lie in ``encoders/``.
    fit : str
        Name of the decoder's folder in it.
    corpus : Corpus
        Trials that it will be applied to, for the comparison of contracts.
    allow_mismatch : collection of str
        Contract fields in which decoder and trials may differ.

    Raises
    ------
    InputError
        For a missing or damaged decoder, and one whose contract differs from that of the trials.
    """
    folder, own = Path(folder), Path(folder) / fit
    check_same(load_contract(own), corpus.contract, str(own), corpus.keys[0], allow_mismatch)
    has_network = (own / WEIGHTS).exists()
    network = load_network(own) if has_network else None
    if not (own / probes.CONFIG).exists():
        sizes = load_config(own)
        if network is None or not sizes.labels:
            message = "neither a probe nor a network that decodes"
            raise InputError(Problem(str(own), "", message, "rerun adapt for this experiment"))
        return DifferentiableDecoder(sizes.labels, sizes.window_frames, network=network)
    probe = Probe.load(own)
    encoders: dict[str, nn.Module] = {}
    bases: dict[str, Basis] = {}
    for member in probe.members:
        if member.encoder == SIGNAL or member.encoder in encoders:
            continue
        encoders[member.encoder] = load_encoder(folder / ENCODERS / member.encoder)
        basis = load_basis(folder / ENCODERS / member.encoder)
        if basis is not None:
            bases[member.encoder] = basis
        elif member.basis is None:
            path = folder / ENCODERS / member.encoder / FILE
            raise InputError(Problem(str(path), "", "no such file", "rerun adapt for this experiment"))
    return DifferentiableDecoder(
        probe.labels, probe.longest, probe=probe, encoders=encoders, bases=bases, network=network
    )
