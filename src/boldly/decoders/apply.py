"""Applying the decoders of an experiment: every encoder passes once over the trials, whatever was fitted to it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from boldly.decoders import probe as probes
from boldly.decoders.encoders import ENCODERS, SIGNAL, States, identity, network_states, signal_states
from boldly.decoders.probe import FeatureCache, Probe
from boldly.models.basis import FILE, Basis, load_basis
from boldly.provenance import check_same
from boldly.records import InputError, Problem
from boldly.samples.corpus import Corpus

# Imported where a network is at hand: decoders in closed form start in a third of the time, and without torch.
if TYPE_CHECKING:
    from torch import nn

# File of a network's weights (`boldly.models.build`).
WEIGHTS = "model.safetensors"


def predict_fits(
    folder: Path | str, fits: Sequence[str], corpus: Corpus, *, allow_mismatch: Collection[str] = ()
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yield the probability of each state for each trial, for each decoder of an experiment.

    Parameters
    ----------
    folder : Path or str
        Folder of the experiment.
    fits : sequence of str
        Names of the decoders' folders in it.
    corpus : Corpus
        The trials.
    allow_mismatch : collection of str
        Contract fields in which decoders and trials may differ.

    Yields
    ------
    name : str
        Folder of the decoder; those that share encoders come one after the other.
    probabilities : ndarray of float32, shape (R, labels)
        In the order of the corpus.

    Raises
    ------
    InputError
        For missing or damaged decoders, and those whose contract or states differ from those of the trials.
    """
    from boldly.models.build import load_config, load_contract
    from boldly.training.decoding import predict, predict_logits

    folder = Path(folder)
    trained = [name for name in fits if not (folder / name / probes.CONFIG).exists()]
    for name in trained:
        _check_states(load_config(folder / name).labels, corpus, folder / name)
        yield name, predict(folder / name, corpus, allow_mismatch=allow_mismatch)
    loaded = {name: Probe.load(folder / name) for name in fits if name not in trained}
    encoded = _Encoded(_Encoders(folder), corpus)
    for name in sorted(loaded, key=lambda name: [member.encoder for member in loaded[name].members]):
        check_same(load_contract(folder / name), corpus.contract, str(folder), corpus.keys[0], allow_mismatch)
        _check_states(loaded[name].labels, corpus, folder / name)
        probabilities = encoded.probabilities(loaded[name])
        if (folder / name / WEIGHTS).exists():
            probabilities = _tuned(
                probabilities, predict_logits(folder / name, corpus, allow_mismatch=allow_mismatch)
            )
        yield name, probabilities


def _check_states(labels: Sequence[str], corpus: Corpus, folder: Path) -> None:
    """Refuse a decoder to which the numbers of the trials' states mean others."""
    # Ready-made shards may lack the name of a state that none of their trials has: it is its number.
    for number, (own, other) in enumerate(zip(labels, corpus.label_names, strict=False)):
        if own != other and str(number) not in (own, other):
            message = f"state {number} is '{own}' for it and '{other}' in the trials"
            raise InputError(Problem(str(folder), corpus.keys[0], message, "rerun adapt for this experiment"))


class LoadedFit:
    """A decoder and the networks that it reads from, read once and applied to any number of trials.

    Parameters
    ----------
    folder : Path or str
        Folder of the experiment.
    name : str
        Folder of the decoder in it.

    Attributes
    ----------
    probe : Probe or None
        The probe; None for a network alone.
    network : nn.Module or None
        The trained network; None for a probe alone.
    longest : int
        Longer trials are cut behind this many frames.

    Raises
    ------
    InputError
        For missing or damaged files.
    """

    def __init__(self, folder: Path | str, name: str) -> None:
        folder = Path(folder)
        self.probe = Probe.load(folder / name) if (folder / name / probes.CONFIG).exists() else None
        self.network: nn.Module | None = None
        if self.probe is None or (folder / name / WEIGHTS).exists():
            from boldly.training.decoding import load_decoder

            self.network = load_decoder(folder / name)
        self._encoders = _Encoders(folder)
        for member in self.probe.members if self.probe is not None else ():
            if member.encoder != SIGNAL:
                self._encoders.load(member.encoder)

    @property
    def longest(self) -> int:
        """Longer trials are cut behind this many frames."""
        if self.probe is not None:
            return self.probe.longest
        sizes: Any = self.network.sizes  # type: ignore[union-attr]
        longest: int = sizes.window_frames
        return longest

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the states, in the order of probabilities."""
        if self.probe is not None:
            return self.probe.labels
        sizes: Any = self.network.sizes  # type: ignore[union-attr]
        return tuple(sizes.labels)

    def encoder(self, name: str) -> nn.Module:
        """Return the network of an encoder."""
        return self._encoders.load(name)[0]

    def probabilities(self, corpus: Corpus) -> NDArray[np.float32]:
        """Return the probability of each state for each trial, shape (R, labels); contracts are not compared."""
        if self.network is None:
            assert self.probe is not None
            return _Encoded(self._encoders, corpus).probabilities(self.probe)
        import torch

        from boldly.training.decoding import logits_of

        logits = logits_of(self.network, corpus)
        if self.probe is None:
            return torch.from_numpy(logits).softmax(dim=1).numpy()
        return _tuned(_Encoded(self._encoders, corpus).probabilities(self.probe), logits)


def _tuned(probabilities: NDArray[np.float32], logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the probabilities of a probe to whose logits those of a network are added."""
    smallest = np.finfo(np.float32).tiny
    sums: NDArray[np.float64] = np.log(np.maximum(probabilities, smallest).astype(np.float64)) + logits
    return softmax(sums, axis=1).astype(np.float32)


class _Encoders:
    """The encoders of an experiment, each read when it is first asked for and kept."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._loaded: dict[str, tuple[nn.Module, Basis | None]] = {}

    def load(self, name: str) -> tuple[nn.Module, Basis | None]:
        if name not in self._loaded:
            from boldly.models.build import load_encoder

            folder = self.folder / ENCODERS / name
            self._loaded[name] = load_encoder(folder), load_basis(folder)
        return self._loaded[name]


class _Encoded:
    """The trials as the encoders of an experiment see them; those that are no longer needed are forgotten."""

    def __init__(self, encoders: _Encoders, corpus: Corpus) -> None:
        self._encoders, self._corpus = encoders, corpus
        self._known: dict[str, tuple[States, FeatureCache | None]] = {}

    def probabilities(self, probe: Probe) -> NDArray[np.float32]:
        wanted = {member.encoder for member in probe.members}
        self._known = {name: entry for name, entry in self._known.items() if name in wanted}
        total = np.zeros((len(self._corpus), len(probe.labels)))
        everything = np.ones(len(self._corpus), bool)
        for member in probe.members:
            if member.encoder not in self._known:
                self._known[member.encoder] = self._encode(member.encoder, probe.longest)
            states, features = self._known[member.encoder]
            if member.basis is not None:
                features = FeatureCache(states, member.basis)
            if features is None:
                path = self._encoders.folder / ENCODERS / member.encoder / FILE
                raise InputError(Problem(str(path), "", "no such file", "rerun adapt for this experiment"))
            total += member.weight * member.probabilities(features(everything, member.read_outs, member.layers))
        return total.astype(np.float32)

    def _encode(self, name: str, longest: int) -> tuple[States, FeatureCache | None]:
        if name == SIGNAL:
            states = signal_states(self._corpus, longest)
            return states, FeatureCache(states, identity(states.values.shape[2]))
        network, basis = self._encoders.load(name)
        states = network_states(network, self._corpus, longest)
        return states, None if basis is None else FeatureCache(states, basis)
