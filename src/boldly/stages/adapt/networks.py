"""Decoders that are trained by gradient steps: all weights of a network, or a baseline."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from boldly.config import AdaptOptions
from boldly.decoders.encoders import ENCODERS
from boldly.models.build import (
    WEIGHTS,
    build_network,
    decoder_config,
    load_config,
    load_weights,
    part_of,
    save_network,
    transfer,
)
from boldly.models.network import NetworkConfig
from boldly.models.objective import Decoding
from boldly.samples.corpus import Corpus
from boldly.samples.splits import DownstreamSplit, Draw
from boldly.samples.windows import Trials
from boldly.stages.adapt.upstream import UpstreamModel, keep
from boldly.training.history import write_history
from boldly.training.loop import Fit, fit
from boldly.training.validation import DecoderValidation


class NetworkExperiment:
    """Networks trained by gradient steps; parameters as in `boldly.stages.adapt.run`."""

    def __init__(
        self,
        name: str,
        options: AdaptOptions,
        corpus: Corpus,
        split: DownstreamSplit,
        models: list[UpstreamModel],
        output: Path,
    ) -> None:
        self._name, self._options, self._corpus, self._split = name, options, corpus, split
        self._models = {model.seed: model for model in models}
        repeated = options.pretrained is not None and len(models) > 1
        self.seeds = tuple(self._models) if repeated else tuple(options.seeds)
        upstream = load_config(models[0].folder) if models else None
        self._config = decoder_config(options, corpus.label_names, corpus.frames.shape[1], upstream)
        # What an earlier config named would pass for what these networks were pretrained on.
        shutil.rmtree(output / ENCODERS, ignore_errors=True)
        if options.pretrained is not None:
            for model in models:
                keep(model, output, frozen=False)

    def fit(self, draw: Draw, seed: int, folder: Path) -> dict[str, Any]:
        """Train a network on a draw and write it."""
        outcome = self._train(draw, seed)
        write_history(folder / "train_history.csv", outcome.train_rows)
        write_history(folder / "eval_history.csv", outcome.eval_rows)
        save_network(folder, self._config, outcome.weights, self._corpus.contract)
        about = {"step": outcome.step, "seconds": round(outcome.seconds, 2)}
        chosen = [row for row in outcome.eval_rows if row["step"] == outcome.step]
        return {**about, **({"validation_accuracy": chosen[0]["accuracy"]} if chosen else {})}

    def _train(self, draw: Draw, seed: int) -> Fit:
        """Train on the trials of a draw; seed decides on weights of the head, order of trials, and dropout."""
        options = self._options
        train, validation = self._choose(draw.train), self._choose(draw.validation)
        count = options.steps * options.batch_size
        trials = Trials(train, options.window_frames, seed, count, options.shortest_crop)
        return fit(
            Decoding(self._start(seed)),
            trials,
            options,
            name=f"{self._name}, n {draw.n}, draw {draw.draw}, seed {seed}",
            validate=DecoderValidation(Trials(validation, options.window_frames)) if len(validation) else None,
            seed=seed,
        )

    def _start(self, seed: int) -> nn.Module:
        """Build a decoder with the weights that it starts from."""
        model = None
        if self._options.pretrained is not None:
            model = self._models.get(seed) or next(iter(self._models.values()))
        return starting_network(self._config, seed, model, self._options.freeze)

    def _choose(self, units: tuple[str, ...]) -> Corpus:
        owners = self._corpus.subjects if self._split.by == "subject" else self._corpus.runs
        return self._corpus.select(np.isin(np.array(owners), units))


def starting_network(
    config: NetworkConfig, seed: int, model: UpstreamModel | None, freeze: Collection[str]
) -> nn.Module:
    """Build a decoder with the weights of an upstream model, if there is one; frozen parts are not trained."""
    network = build_network(config, seed)
    if model is not None:
        transfer(network, load_weights(model.folder), str(model.folder / WEIGHTS))
    for name, parameter in network.named_parameters():
        if part_of(name) in freeze:
            parameter.requires_grad_(False)
    return network
