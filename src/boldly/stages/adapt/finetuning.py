"""Decoders that are probes first and are trained from there on: linear probing, then fine-tuning.

Training all weights while the head is still random distorts what the network learned in pretraining (Kumar et al.
2022, arXiv:2202.10054). Here a probe is fitted first, and its logits stay as they are. The logits of the network
are zero before the first step; their sum with those of the probe is trained. The training ends at the step where
the loss of trials that were left out is lowest. If that gains nothing, the decoder is the probe alone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from boldly.config import AdaptOptions
from boldly.decoders.classifiers import Labels, Matrix
from boldly.decoders.probe import Member, Probe
from boldly.decoders.readouts import Floats
from boldly.decoders.selection import Bools, folds, left_out_logits
from boldly.models.build import (
    decoder_config,
    layers_from_head,
    load_config,
    save_network,
    silence,
)
from boldly.models.network import NetworkConfig
from boldly.models.objective import Decoding, Row
from boldly.records import InputError, Problem
from boldly.samples.corpus import Corpus
from boldly.samples.splits import DownstreamSplit, Draw
from boldly.samples.windows import Trials
from boldly.stages.adapt.networks import starting_network
from boldly.stages.adapt.probes import ProbeExperiment
from boldly.stages.adapt.upstream import UpstreamModel
from boldly.training.history import write_history
from boldly.training.loop import Fit, fit
from boldly.training.validation import DecoderValidation

# Folds that a network is trained without, to find the step to end at.
_MOST_TRAININGS = 3
# Units, or trials, that make up a standard error.
_FEWEST = 3


class FineTuning(Decoding):
    """The logits of a network are added to given ones; before the first step they add nothing.

    Parameters
    ----------
    network : nn.Module
        The decoder.
    layer_decay : float
        Learning rate of each layer as a share of that of the layer above it.
    """

    def __init__(self, network: nn.Module, layer_decay: float) -> None:
        super().__init__(network)
        silence(network)
        self.layer_decay = layer_decay

    def rate(self, name: str) -> float:
        """Return a parameter's share of the learning rate."""
        return float(self.layer_decay ** layers_from_head(name, self.network.sizes.layers))


@dataclass(frozen=True)
class _Labelled:
    """Labelled trials, and what the probe's classifier sees of them.

    Attributes
    ----------
    corpus : Corpus
        R trials.
    features : ndarray of float32, shape (R, D)
        Scaled features.
    groups : list of list of str, each of length R
        Units and runs.
    """

    corpus: Corpus
    features: Floats
    groups: list[list[str]]

    def __len__(self) -> int:
        return len(self.corpus)

    @property
    def labels(self) -> Labels:
        return self.corpus.labels

    def select(self, chosen: Bools) -> _Labelled:
        groups = [list(np.array(names)[chosen]) for names in self.groups]
        return _Labelled(self.corpus.select(chosen), self.features[chosen], groups)

    def left_out(self) -> list[Bools]:
        """Return the folds for predictions of trials that were left out; none where that cannot be done."""
        return folds(self.groups, self.labels) if len(self) else []


@dataclass(frozen=True)
class _Tuned:
    """How a fine-tuning went; step 0: the probe alone."""

    step: int
    weights: dict[str, Tensor]
    train_rows: Sequence[Row] = ()
    eval_rows: Sequence[Row] = ()


class FineTuningExperiment:
    """Probes that are trained from there on; parameters as in `boldly.stages.adapt.run`."""

    def __init__(
        self,
        name: str,
        options: AdaptOptions,
        corpus: Corpus,
        split: DownstreamSplit,
        models: list[UpstreamModel],
        output: Path,
    ) -> None:
        self._name, self._options, self._corpus = name, options, corpus
        self._owners = np.array(corpus.subjects if split.by == "subject" else corpus.runs)
        self._models, self._first = {model.seed: model for model in models}, models[0]
        upstream = load_config(models[0].folder)
        if upstream.framework == "components":
            message = "principal components have nothing to fine-tune"
            raise InputError(Problem(str(models[0].folder), "", message, "set method: probe for this experiment"))
        self._config = decoder_config(options, corpus.label_names, corpus.frames.shape[1], upstream)
        self._probes = ProbeExperiment(options, corpus, split, models, output)
        # A probe of one network is the same with all seeds; the training that goes on from there is not.
        is_repeated = len(models) == 1 and len(options.seeds) > 1
        self.seeds = tuple(options.seeds) if is_repeated else self._probes.seeds

    def fit(self, draw: Draw, seed: int, folder: Path) -> dict[str, Any]:
        """Fit a probe to the trials of a draw, train it from there on, and write both."""
        started = time.monotonic()
        about = self._probes.fit(draw, seed, folder)
        probe = Probe.load(folder)
        (member,) = probe.members
        model = self._models.get(seed, self._first)
        tuned = _Tuning(
            f"{self._name}, n {draw.n}, draw {draw.draw}, seed {seed}",
            self._options,
            self._config,
            member,
            partial(starting_network, self._config, seed, model, self._options.freeze),
            seed,
        )(*self._parts(member, draw, seed))
        write_history(folder / "train_history.csv", list(tuned.train_rows))
        write_history(folder / "eval_history.csv", list(tuned.eval_rows))
        about |= {"step": tuned.step, "choice": f"{probe}; probe alone"}
        if tuned.step:
            save_network(folder, self._config, tuned.weights, self._corpus.contract)
            about["choice"] = f"{probe}; fine-tuned {tuned.step} steps"
        for row in tuned.eval_rows:
            if row["step"] == tuned.step:
                about |= {f"validation_{name}": row[name] for name in ("loss", "accuracy")}
        return {**about, "seconds": round(time.monotonic() - started, 2)}

    def _parts(self, member: Member, draw: Draw, seed: int) -> tuple[_Labelled, _Labelled]:
        """Return the trials that train and those that validate."""
        chosen: Bools = np.isin(self._owners, (*draw.train, *draw.validation))
        groups = [list(self._owners[chosen]), list(np.array(self._corpus.runs)[chosen])]
        known = _Labelled(self._corpus.select(chosen), self._probes.features(member, seed, chosen), groups)
        trains, validates = (
            known.select(np.isin(self._owners[chosen], units)) for units in (draw.train, draw.validation)
        )
        return trains, validates


class _Tuning:
    """Training of networks beside the probe of a draw.

    Parameters
    ----------
    name : str
        For messages.
    options : AdaptOptions
        Of the training.
    config : NetworkConfig
        Of the network.
    member : Member
        The probe.
    start : callable
        Returns the network to train, with the weights that it starts from.
    seed : int
        Of the order of trials, and of dropout.
    """

    def __init__(
        self,
        name: str,
        options: AdaptOptions,
        config: NetworkConfig,
        member: Member,
        start: Callable[[], nn.Module],
        seed: int,
    ) -> None:
        self._name, self._options, self._config, self._member = name, options, config, member
        self._start, self._seed = start, seed

    def __call__(self, trains: _Labelled, validates: _Labelled) -> _Tuned:
        """Train on some trials; the step to end at is chosen on others, or else among those that train."""
        if len(trains) and len(validates):
            return self._validated(trains, validates)
        return self._cross_validated(trains)

    def _validated(self, trains: _Labelled, validates: _Labelled) -> _Tuned:
        found = self._train_beside(trains, validates)
        if found is None:
            return _Tuned(0, {})
        outcome, losses = found
        step = choose_step([int(row["step"]) for row in outcome.eval_rows], losses, validates.groups[0])
        return _Tuned(step, outcome.weights, outcome.train_rows, outcome.eval_rows)

    def _cross_validated(self, trains: _Labelled) -> _Tuned:
        """Take the step that is best for trials of some folds, and train so many steps on all."""
        outs = trains.left_out()[:_MOST_TRAININGS]
        found = [(out, self._train_beside(trains.select(~out), trains.select(out))) for out in outs]
        trainings = [training for _, training in found if training is not None]
        units = [name for out, own in found if own is not None for name in trains.select(out).groups[0]]
        offsets = self._left_out(trains)
        if not trainings or offsets is None:
            return _Tuned(0, {})
        losses = np.concatenate([losses for _, losses in trainings], axis=1)
        rows = _mean_rows([outcome.eval_rows for outcome, _ in trainings], [own.shape[1] for _, own in trainings])
        step = choose_step([int(row["step"]) for row in rows], losses, units)
        if step == 0:
            return _Tuned(0, {}, (), rows)
        outcome = self._train(trains, offsets, None, step)
        return _Tuned(step, outcome.weights, outcome.train_rows, rows)

    def _train_beside(self, trains: _Labelled, others: _Labelled) -> tuple[Fit, Floats] | None:
        """Train on some trials, validate on others; None where no predictions for left-out trials can be had.

        The others get the probe's logits from a classifier that was fitted to the training trials alone. Returned
        beside the outcome are the losses of the others at each validation, (validations, R).
        """
        offsets = self._left_out(trains)
        if offsets is None:
            return None
        both = np.concatenate([trains.features, others.features])
        labels = np.concatenate([trains.labels, others.labels])
        is_other = np.arange(len(labels)) >= len(trains)
        said = self._predict(both, labels, [is_other])[is_other]
        validation = DecoderValidation(Trials(others.corpus, self._options.window_frames, offsets=said))
        outcome = self._train(trains, offsets, validation)
        return outcome, np.stack(validation.losses)

    def _left_out(self, trials: _Labelled) -> Matrix | None:
        """Return the probe's logits for trials, each of a classifier that was fitted to others.

        The probe is all but certain of the trials that it was fitted to: there would be nothing left to learn.
        """
        parts = trials.left_out()
        return self._predict(trials.features, trials.labels, parts) if parts else None

    def _predict(self, features: Floats, labels: Labels, left_out: Sequence[Bools]) -> Matrix:
        chosen = self._member.chosen
        return left_out_logits(
            features,
            labels,
            len(self._config.labels),
            left_out,
            chosen["classifier"],
            chosen["penalty"],
            chosen["temperature"],
        )

    def _train(
        self,
        trains: _Labelled,
        offsets: Matrix,
        validation: DecoderValidation | None,
        last_step: int | None = None,
    ) -> Fit:
        options, corpus = self._options, trains.corpus
        count = options.steps * options.batch_size
        trials = Trials(corpus, options.window_frames, self._seed, count, options.shortest_crop, offsets=offsets)
        return fit(
            FineTuning(self._start(), options.layer_decay),
            trials,
            options,
            name=self._name,
            validate=validation,
            validate_first=True,
            seed=self._seed,
            last_step=last_step,
        )


def choose_step(steps: Sequence[int], losses: Floats, units: Sequence[str]) -> int:
    """Return the step with the lowest mean loss, or 0 where it is hardly better than that.

    What it gains over step 0 has to exceed the standard error of the gain (the rule of one standard error; Breiman
    et al. 1984): the lowest of several means is lower by chance. The standard error is that over units, as the
    trials of a unit gain or lose together; over trials where there are fewer than three units.

    Parameters
    ----------
    steps : sequence of int
        Steps with a validation, the first of them 0.
    losses : ndarray of float32, shape (validations, R)
        Loss of each trial.
    units : sequence of str, length R
        Unit of each trial.
    """
    best = int(losses.mean(axis=1).argmin())
    gain = (losses[0] - losses[best]).astype(np.float64)
    names, owner = np.unique(units, return_inverse=True)
    if len(names) >= _FEWEST:
        gain = np.bincount(owner, gain) / np.bincount(owner)
    if len(gain) < _FEWEST or gain.mean() <= gain.std(ddof=1) / math.sqrt(len(gain)):
        return 0
    return steps[best]


def _mean_rows(histories: list[list[Row]], sizes: list[int]) -> list[Row]:
    """Return the mean rows of trainings that were validated at the same steps, weighted by numbers of trials."""
    return [
        {name: float(np.average([row[name] for row in rows], weights=sizes)) for name in rows[0]}
        for rows in zip(*histories, strict=True)
    ]
