"""A probe: frozen encoders, their read-outs, and classifiers. How it is fitted, kept in a folder, and applied."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from scipy.special import softmax

from boldly.config import ClassifierName, ReadOut
from boldly.decoders.classifiers import Classifier, Labels
from boldly.decoders.encoders import States
from boldly.decoders.readouts import Floats, Scaling, read_out
from boldly.decoders.selection import Bools, Fitted, HeldOut, choose
from boldly.files import atomic_path, read_json, write_json
from boldly.models.basis import Basis
from boldly.records import InputError, Problem

ARRAYS = "decoder.safetensors"
CONFIG = "decoder.json"
CONTRACT = "contract.json"


@dataclass(frozen=True)
class Choices:
    """What is chosen from, by validation.

    Attributes
    ----------
    read_outs : tuple of tuple of str
        Read-outs that are used together.
    layers : tuple of str
        Layers: all, first (the embedding), middle, last.
    candidates : tuple of (str, float)
        Classifiers with their penalties.
    """

    read_outs: tuple[tuple[ReadOut, ...], ...]
    layers: tuple[str, ...]
    candidates: tuple[tuple[ClassifierName, float], ...]


@dataclass(frozen=True)
class Member:
    """One encoder's part of a probe.

    Attributes
    ----------
    encoder : str
        Name of the encoder: a folder in ``encoders/`` of the experiment, or "signal".
    read_outs : tuple of str
        Read-outs that were chosen.
    layers : tuple of int
        Layers that they look at.
    basis : Basis or None
        Components of the states, where they were fitted to the training trials; None: the encoder has its own.
    scaling : Scaling
        Of the features.
    classifier : Classifier
        On the scaled features.
    chosen : dict
        Words and numbers of the choice, for people: layers, classifier, penalty, temperature, loss, accuracy.
    weight : float
        What its probabilities count; those of all members sum to 1.
    """

    encoder: str
    read_outs: tuple[ReadOut, ...]
    layers: tuple[int, ...]
    basis: Basis | None
    scaling: Scaling
    classifier: Classifier
    chosen: dict[str, Any]
    weight: float = 1.0

    def probabilities(self, blocks: list[Floats]) -> NDArray[np.float64]:
        """Return the probability of each state for each trial, (R, labels), from its read-outs, each (R, D)."""
        return softmax(self.classifier.logits(self.scaling(blocks)), axis=1)

    def __str__(self) -> str:
        constants = f"{self.chosen['classifier']} {self.chosen['penalty']:g}"
        share = f"{self.weight:.2f} " if self.weight < 1 else ""
        return f"{share}{self.encoder}: {'+'.join(self.read_outs)}, {self.chosen['layers']} layers, {constants}"


def fit_member(
    encoder: str,
    blocks: Callable[[Sequence[ReadOut], Sequence[int]], list[Floats]],
    n_layers: int,
    labels: Labels,
    n_labels: int,
    left_out: Sequence[Bools],
    choices: Choices,
    basis: Basis | None = None,
) -> tuple[Member, HeldOut | None]:
    """Fit classifiers to the features of training trials for each read-out, and keep the best.

    Parameters
    ----------
    encoder : str
        Its name.
    blocks : callable
        Read-outs and layers to features of the trials that train, and of those that validate, each (R, D).
    n_layers : int
        Number of layers that there are.
    labels : ndarray of int64, shape (R,)
        States of the trials.
    n_labels : int
        Number of states.
    left_out : sequence of ndarray of bool, shape (R,)
        See `boldly.decoders.selection.choose`.
    choices : Choices
        What is chosen from.
    basis : Basis, optional
        Components of the states, if they were fitted to the trials given: the member keeps them.

    Returns
    -------
    member : Member
        The best, with the weight 1.
    held_out : HeldOut or None
        Its predictions for trials that were left out; None where nothing could be left out.
    """
    best: Member | None = None
    loss, held_out = math.nan, None
    for word in choices.layers:
        layers = layer_numbers(word, n_layers)
        for read_outs in choices.read_outs:
            features = blocks(read_outs, layers)
            scaling = Scaling.fit(features)
            fitted = choose(scaling(features), labels, n_labels, left_out, choices.candidates)
            if best is None or fitted.loss < loss:
                loss = fitted.loss
                chosen = _words(word, fitted)
                best = Member(encoder, tuple(read_outs), layers, basis, scaling, fitted.classifier, chosen)
                held_out = fitted.held_out
    if best is None:
        raise ValueError("no read-out to choose from")
    return best, held_out


def _words(layers: str, fitted: Fitted) -> dict[str, Any]:
    numbers = {name: getattr(fitted, name) for name in ("penalty", "temperature", "loss", "accuracy")}
    # JSON has no nan.
    known = {name: number if math.isfinite(number) else None for name, number in numbers.items()}
    return {"layers": layers, "classifier": fitted.name, **known}


def layer_numbers(word: str, n_layers: int) -> tuple[int, ...]:
    """Return the layers that a word of the config means: all, first (the embedding), middle, last."""
    numbers = {"first": (0,), "middle": (n_layers // 2,), "last": (n_layers - 1,)}
    return numbers.get(word, tuple(range(n_layers)))


class FeatureCache:
    """Features of all trials that an experiment trains on, computed once and looked up for each draw.

    Parameters
    ----------
    states : States
        Of all trials.
    basis : Basis
        Of the encoder.
    """

    def __init__(self, states: States, basis: Basis) -> None:
        self._states, self._basis = states, basis
        self._known: dict[tuple[ReadOut, int], Floats] = {}

    def __call__(self, chosen: Bools, read_outs: Sequence[ReadOut], layers: Sequence[int]) -> list[Floats]:
        """Return the blocks of some trials, in the order of `boldly.decoders.readouts.read_out`."""
        for layer in layers:
            missing = [word for word in read_outs if (word, layer) not in self._known]
            found = read_out(self._states, self._basis, missing, [layer]) if missing else []
            self._known.update(zip([(word, layer) for word in missing], found, strict=True))
        return [self._known[word, layer][chosen] for layer in layers for word in read_outs]


@dataclass(frozen=True)
class Probe:
    """A decoder whose encoders are frozen: the weighted mean of what its members say.

    Attributes
    ----------
    members : tuple of Member
        One for each encoder that was kept.
    labels : tuple of str
        Names of the states in label order.
    longest : int
        Longer trials are cut behind this many frames.
    """

    members: tuple[Member, ...]
    labels: tuple[str, ...]
    longest: int

    def __str__(self) -> str:
        return "; ".join(map(str, self.members))

    def save(self, folder: Path | str) -> None:
        """Write arrays and config to a folder, each atomically."""
        tensors: dict[str, NDArray] = {}
        described = []
        for number, member in enumerate(self.members):
            parts: dict[str, NDArray] = {"mean": member.scaling.mean, "scale": member.scaling.scale}
            for layer, (weight, bias) in enumerate(
                zip(member.classifier.weights, member.classifier.biases, strict=True)
            ):
                parts |= {f"weight.{layer}": weight, f"bias.{layer}": bias}
            if member.basis is not None:
                parts |= {f"basis.{name}": array for name, array in asdict(member.basis).items()}
            tensors |= {f"{number}.{name}": np.ascontiguousarray(array) for name, array in parts.items()}
            words = {"encoder": member.encoder, "read_outs": member.read_outs, "layers": member.layers}
            described.append({**words, "weight": member.weight, "chosen": member.chosen})
        write_json(Path(folder) / CONFIG, {"labels": self.labels, "longest": self.longest, "members": described})
        with atomic_path(Path(folder) / ARRAYS) as temporary:
            save_file(tensors, temporary)

    @classmethod
    def load(cls, folder: Path | str) -> Probe:
        """Read what `save` wrote.

        Raises
        ------
        InputError
            For missing or damaged files.
        """
        try:
            content = read_json(Path(folder) / CONFIG)
            tensors = load_file(Path(folder) / ARRAYS)
            members = tuple(
                _member(
                    item, {name.partition(".")[2]: t for name, t in tensors.items() if name.startswith(f"{n}.")}
                )
                for n, item in enumerate(content["members"])
            )
            if not members:
                raise ValueError("no members")
            return cls(members, tuple(content["labels"]), int(content["longest"]))
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            message = f"not a decoder: {type(error).__name__} {error}"
            raise InputError(Problem(str(folder), "", message, "rerun adapt for this experiment")) from None


def _member(item: dict[str, Any], tensors: dict[str, NDArray]) -> Member:
    n_layers = sum(name.startswith("weight.") for name in tensors)
    classifier = Classifier(
        *(tuple(tensors[f"{part}.{layer}"] for layer in range(n_layers)) for part in ("weight", "bias"))
    )
    basis = None
    if not n_layers:
        raise ValueError("no weights")
    if unknown := set(item["read_outs"]) - set(get_args(ReadOut)):
        raise ValueError(f"no read-out {', '.join(sorted(unknown))}")
    if "basis.mean" in tensors:
        basis = Basis(*(tensors[f"basis.{name}"] for name in ("mean", "components", "variance")))
    scaling = Scaling(tensors["mean"], tensors["scale"])
    words, layers = tuple(item["read_outs"]), tuple(item["layers"])
    weight = float(item["weight"])
    return Member(item["encoder"], words, layers, basis, scaling, classifier, item["chosen"], weight)
