"""Decoders that are probes: encoders stay as they are, and each trial is encoded once for all sizes and draws."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from boldly.config import PROBE_BASELINES, AdaptOptions
from boldly.decoders.encoders import SIGNAL, States, identity, network_states, signal_states
from boldly.decoders.probe import CONTRACT, Choices, FeatureCache, Member, Probe, fit_member
from boldly.decoders.readouts import Floats
from boldly.decoders.selection import Bools, folds
from boldly.files import atomic_path
from boldly.models.basis import Basis, load_basis
from boldly.samples.corpus import Corpus
from boldly.samples.splits import DownstreamSplit, Draw
from boldly.stages.adapt.upstream import ENCODERS, UpstreamModel, keep

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class _Encoded:
    """The trials as an encoder sees them; `features` where the encoder has components of its own."""

    name: str
    states: States
    features: FeatureCache | None


class ProbeExperiment:
    """Probes of frozen networks, of upstream components, or of the signals; see `boldly.stages.adapt.run`."""

    def __init__(
        self,
        options: AdaptOptions,
        corpus: Corpus,
        split: DownstreamSplit,
        models: list[UpstreamModel],
        output: Path,
    ) -> None:
        self._options, self._corpus, self._models, self._output = options, corpus, models, output
        self._owners = np.array(corpus.subjects if split.by == "subject" else corpus.runs)
        self._choices = _choices(options)
        self._encoded: dict[str, _Encoded] = {}
        shutil.rmtree(output / ENCODERS, ignore_errors=True)
        if options.pretrained is not None:
            self.seeds = tuple(dict.fromkeys(model.seed for model in models))
        else:
            self.seeds = tuple(options.seeds) if options.untrained is not None else tuple(options.seeds[:1])

    def fit(self, draw: Draw, seed: int, folder: Path) -> dict[str, Any]:
        """Fit a probe to the trials of a draw and write it."""
        started = time.monotonic()
        members = [self._member(encoded, draw) for encoded in self._encoders(seed)]
        losses = np.array([member.chosen["loss"] for member in members], np.float64)
        if self._options.combine == "best" and len(members) > 1 and np.isfinite(losses).all():
            members = [members[int(np.argmin(losses))]]
        probe = Probe(tuple(members), self._corpus.label_names, self._options.window_frames)
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(folder / CONTRACT) as temporary:
            temporary.write_text(self._corpus.contract.to_json() + "\n", encoding="utf-8")
        probe.save(folder)
        about = {"choice": str(probe), "seconds": round(time.monotonic() - started, 2)}
        for number in ("loss", "accuracy"):
            # None, where nothing could be left out, becomes nan.
            values = np.array([member.chosen[number] for member in members], np.float64)
            if np.isfinite(values).all():
                about[f"validation_{number}"] = float(np.mean(values))
        return about

    def _member(self, encoded: _Encoded, draw: Draw) -> Member:
        """Fit the part of one encoder; choices are made on validation units, else inside the training units."""
        chosen: Bools = np.isin(self._owners, (*draw.train, *draw.validation))
        labels = self._corpus.labels[chosen]
        if draw.validation:
            left_out = [np.isin(self._owners[chosen], draw.validation)]
        else:
            runs = np.array(self._corpus.runs)[chosen]
            left_out = folds([list(self._owners[chosen]), list(runs)], labels)
        basis: Basis | None = None
        if encoded.features is not None:
            blocks = partial(encoded.features, chosen)
        else:
            own = encoded.states.select(chosen)
            basis = own.basis()
            blocks = partial(FeatureCache(own, basis), np.ones(len(own), bool))
        return fit_member(
            encoded.name,
            blocks,
            encoded.states.n_layers,
            labels,
            len(self._corpus.label_names),
            left_out,
            self._choices,
            basis,
        )

    def features(self, member: Member, seed: int, chosen: Bools) -> Floats:
        """Return what a member's classifier sees of some trials, (R, D)."""
        (encoded,) = (encoded for encoded in self._encoders(seed) if encoded.name == member.encoder)
        cache = encoded.features
        if cache is None:
            assert member.basis is not None, "without components of its own, an encoder has those of its probes"
            cache = FeatureCache(encoded.states, member.basis)
        return member.scaling(cache(chosen, member.read_outs, member.layers))

    def _encoders(self, seed: int) -> list[_Encoded]:
        """Return the trials as seen by each encoder of a seed; those of another seed are forgotten."""
        wanted = self._names(seed)
        self._encoded = {name: encoded for name, encoded in self._encoded.items() if name in wanted}
        for name, model in wanted.items():
            if name not in self._encoded:
                self._encoded[name] = self._encode(name, model, seed)
        return list(self._encoded.values())

    def _names(self, seed: int) -> dict[str, UpstreamModel | None]:
        """Return the encoders of a seed by name; a model that was not repeated serves all seeds."""
        if not self._models:
            return {SIGNAL: None}
        found: dict[str, UpstreamModel] = {}
        for model in self._models:
            if model.name not in found or model.seed == seed:
                found[model.name] = model
        if self._options.untrained is not None:
            return {f"{model.name}_untrained_seed-{seed}": model for model in found.values()}
        return {model.label: model for model in found.values()}

    def _encode(self, name: str, model: UpstreamModel | None, seed: int) -> _Encoded:
        longest = self._options.window_frames
        if model is None:
            states = signal_states(self._corpus, longest)
            baseline = self._options.baseline or ""
            on_parcels = PROBE_BASELINES[baseline].encoder == "signal"
            basis = identity(self._corpus.frames.shape[1]) if on_parcels else None
        else:
            network = self._network(name, model, seed)
            states = network_states(network, self._corpus, longest)
            basis = load_basis(self._output / ENCODERS / name)
        return _Encoded(name, states, None if basis is None else FeatureCache(states, basis))

    def _network(self, name: str, model: UpstreamModel, seed: int) -> nn.Module:
        """Return an encoder, kept with the experiment."""
        from boldly.models.build import build_network, load_config, load_encoder, save_network

        if self._options.untrained is None:
            keep(model, self._output, frozen=True)
            return load_encoder(model.folder)
        config = replace(load_config(model.folder), labels=())
        network = build_network(config, seed)
        save_network(self._output / ENCODERS / name, config, network.state_dict(), self._corpus.contract)
        return network


def _choices(options: AdaptOptions) -> Choices:
    """Return what a probe chooses from; the first is taken where nothing can be left out."""
    read_outs, classifiers, layers = options.read_out_words(), options.classifiers, tuple(options.layers)
    if options.baseline is not None:
        preset = PROBE_BASELINES[options.baseline]
        parted = tuple(tuple(words.split("+")) for words in preset.read_outs)
        read_outs, classifiers, layers = parted, [preset.classifier], ("all",)  # type: ignore[assignment]
    penalties = options.penalties
    candidates = tuple(
        (name, penalty) for name in classifiers for penalty in (penalties[:1] if name == "lda" else penalties)
    )
    return Choices(read_outs, layers, candidates)
