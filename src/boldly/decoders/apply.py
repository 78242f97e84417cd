"""Applying the decoders of an experiment: every encoder passes once over the trials, whatever was fitted to it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from boldly.decoders import probe as probes
from boldly.decoders.encoders import ENCODERS, SIGNAL, States, identity, network_states, signal_states
from boldly.decoders.probe import FeatureCache, Probe
from boldly.models.basis import FILE, load_basis
from boldly.models.build import WEIGHTS, load_contract, load_encoder
from boldly.provenance import check_same
from boldly.records import InputError, Problem
from boldly.samples.corpus import Corpus
from boldly.training.decoding import predict, predict_logits


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
        For missing or damaged decoders, and those whose contract differs from that of the trials.
    """
    folder = Path(folder)
    trained = [name for name in fits if not (folder / name / probes.CONFIG).exists()]
    for name in trained:
        yield name, predict(folder / name, corpus, allow_mismatch=allow_mismatch)
    loaded = {name: Probe.load(folder / name) for name in fits if name not in trained}
    encoded = _Encoded(folder, corpus)
    for name in sorted(loaded, key=lambda name: [member.encoder for member in loaded[name].members]):
        check_same(load_contract(folder / name), corpus.contract, str(folder), corpus.keys[0], allow_mismatch)
        probabilities = encoded.probabilities(loaded[name])
        if (folder / name / WEIGHTS).exists():
            probabilities = _tuned(
                probabilities, predict_logits(folder / name, corpus, allow_mismatch=allow_mismatch)
            )
        yield name, probabilities


def _tuned(probabilities: NDArray[np.float32], logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the probabilities of a probe to whose logits those of a network are added."""
    smallest = np.finfo(np.float32).tiny
    sums: NDArray[np.float64] = np.log(np.maximum(probabilities, smallest).astype(np.float64)) + logits
    return softmax(sums, axis=1).astype(np.float32)


class _Encoded:
    """The trials as the encoders of an experiment see them; those that are no longer needed are forgotten."""

    def __init__(self, folder: Path, corpus: Corpus) -> None:
        self._folder, self._corpus = folder, corpus
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
                path = self._folder / ENCODERS / member.encoder / FILE
                raise InputError(Problem(str(path), "", "no such file", "rerun adapt for this experiment"))
            total += member.weight * member.probabilities(features(everything, member.read_outs, member.layers))
        return total.astype(np.float32)

    def _encode(self, name: str, longest: int) -> tuple[States, FeatureCache | None]:
        if name == SIGNAL:
            states = signal_states(self._corpus, longest)
            return states, FeatureCache(states, identity(states.values.shape[2]))
        folder = self._folder / ENCODERS / name
        states = network_states(load_encoder(folder), self._corpus, longest)
        basis = load_basis(folder)
        return states, None if basis is None else FeatureCache(states, basis)
