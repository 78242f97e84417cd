"""Decoders that are probes: encoders stay as they are, and each trial is encoded once for all sizes and draws."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from boldly.config import PROBE_BASELINES, AdaptOptions
from boldly.decoders.encoders import ENCODERS, SIGNAL, States, identity, network_states, signal_states
from boldly.decoders.probe import CONTRACT, Choices, FeatureCache, Member, Probe, fit_member
from boldly.decoders.readouts import Floats
from boldly.decoders.selection import Bools, HeldOut, folds
from boldly.files import atomic_path
from boldly.models.basis import Basis, load_basis
from boldly.provenance import Contract
from boldly.samples.corpus import Corpus
from boldly.samples.splits import DownstreamSplit, Draw
from boldly.stages.adapt.upstream import UpstreamModel, keep


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
        self._encoded: _Encoded | None = None
        if options.pretrained is not None:
            self.seeds = tuple(dict.fromkeys(model.seed for model in models))
        else:
            self.seeds = tuple(options.seeds) if options.untrained is not None else tuple(options.seeds[:1])
        # At once and for all seeds: decoders of an interrupted job, which are not fitted again, need theirs too.
        shutil.rmtree(output / ENCODERS, ignore_errors=True)
        for seed in self.seeds:
            name, model = self._named(seed)
            if model is not None and not (output / ENCODERS / name).exists():
                self._keep(name, model, seed)

    def fit(self, draw: Draw, seed: int, folder: Path) -> dict[str, Any]:
        """Fit a probe to the trials of a draw and write it."""
        started = time.monotonic()
        member, held_out = self._member(self._encoder(seed), draw)
        probe = Probe((member,), self._corpus.label_names, self._options.window_frames)
        write_probe(folder, probe, self._corpus.contract)
        if held_out is not None:
            held_out.save(folder)
        return describe_fit(probe, held_out, started)

    def _member(self, encoded: _Encoded, draw: Draw) -> tuple[Member, HeldOut | None]:
        """Fit the part of one encoder; choices are made on validation units, else inside the training units."""
        chosen: Bools = np.isin(self._owners, (*draw.train, *draw.validation))
        labels = self._corpus.labels[chosen]
        validates = np.isin(self._owners[chosen], draw.validation)
        # Units may have no usable trial.
        if validates.any() and not validates.all():
            left_out = [validates]
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
        encoded = self._encoder(seed)
        cache = encoded.features
        if cache is None:
            assert member.basis is not None, "without components of its own, an encoder has those of its probes"
            cache = FeatureCache(encoded.states, member.basis)
        return member.scaling(cache(chosen, member.read_outs, member.layers))

    def _encoder(self, seed: int) -> _Encoded:
        """Return the trials as seen by the encoder of a seed; what that of another seed sees is forgotten."""
        name, model = self._named(seed)
        if self._encoded is None or self._encoded.name != name:
            self._encoded = self._encode(name, model)
        return self._encoded

    def _named(self, seed: int) -> tuple[str, UpstreamModel | None]:
        """Return the encoder of a seed and its name; a model that was not repeated serves all seeds."""
        if not self._models:
            return SIGNAL, None
        model = next((model for model in self._models if model.seed == seed), self._models[0])
        if self._options.untrained is not None:
            return f"{Path(model.name).name}_untrained_seed-{seed}", model
        return model.label, model

    def _encode(self, name: str, model: UpstreamModel | None) -> _Encoded:
        longest = self._options.window_frames
        if model is None:
            states = signal_states(self._corpus, longest)
            baseline = self._options.baseline or ""
            on_parcels = PROBE_BASELINES[baseline].encoder == "signal"
            basis = identity(self._corpus.frames.shape[1]) if on_parcels else None
        else:
            from boldly.models.build import load_encoder

            folder = self._output / ENCODERS / name
            states = network_states(load_encoder(folder), self._corpus, longest)
            basis = load_basis(folder)
        return _Encoded(name, states, None if basis is None else FeatureCache(states, basis))

    def _keep(self, name: str, model: UpstreamModel, seed: int) -> None:
        """Keep an encoder with the experiment."""
        from boldly.models.build import build_network, load_config, save_network

        if self._options.untrained is None:
            keep(model, self._output, frozen=True)
            return
        config = replace(load_config(model.folder), labels=())
        weights = build_network(config, seed).state_dict()
        save_network(self._output / ENCODERS / name, config, weights, self._corpus.contract)


def write_probe(folder: Path, probe: Probe, contract: Contract) -> None:
    """Write a decoder, and the contract of the trials that it is for, to the folder of a fit."""
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder / CONTRACT) as temporary:
        temporary.write_text(contract.to_json() + "\n", encoding="utf-8")
    probe.save(folder)


def describe_fit(probe: Probe, held_out: HeldOut | None, started: float) -> dict[str, Any]:
    """Return what the manifest says of a fit: choice, seconds since `time.monotonic()`, and its validation."""
    about: dict[str, Any] = {"choice": str(probe), "seconds": round(time.monotonic() - started, 2)}
    if held_out is not None:
        about |= {"validation_loss": held_out.loss, "validation_accuracy": held_out.accuracy}
    return about


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
