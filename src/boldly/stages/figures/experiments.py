"""Upstream experiments as figures need them: options, people, histories, and what their validations say."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from boldly.files import read_json
from boldly.records import InputError, Problem
from boldly.stages.figures.tables import read_histories

MANIFEST = "manifest.json"
VALIDATION, TRAIN = "validation", "train"
# Of a repetition with another seed.
REPEAT = re.compile(r"(?P<name>.+)_seed-\d+")
_SHARD = re.compile(r"ds-(?P<dataset>[^_]+)_sub-(?P<subject>[^_.]+)")


@dataclass(frozen=True)
class Experiment:
    """An upstream experiment.

    Attributes
    ----------
    name : str
        Name.
    options : dict
        Those of the training: framework, layers, width, steps, initialise, subjects_fraction and so on.
    people : int
        Number of subjects that were trained on.
    histories : dict of str to DataFrame
        "train" and "validation", as far as there are any.
    """

    name: str
    options: dict[str, Any]
    people: int
    histories: dict[str, pd.DataFrame]

    @property
    def framework(self) -> str:
        """Objective and network."""
        return str(self.options["framework"])

    @property
    def size(self) -> tuple[int, int]:
        """Layers and width."""
        return int(self.options["layers"]), int(self.options["width"])

    def best_row(self) -> pd.Series | None:
        """Return the validation whose weights were kept: that of the lowest loss, not before the first step."""
        evaluated = self.histories.get(VALIDATION)
        if evaluated is None or not {"l1", "l1_zero"} <= set(evaluated.columns):
            return None
        later = evaluated[evaluated["step"] > 0]
        return None if later.empty else later.iloc[int(later["loss"].argmin())]


def read_experiments(paths: list[Path]) -> list[Experiment]:
    """Return the upstream experiments of histories, in the order given; without those that have no steps.

    Parameters
    ----------
    paths : list of Path
        ``<experiment>/train_history.csv`` and ``<experiment>/eval_history.csv``, in any order. The record of the
        training, manifest.json, lies beside them.

    Raises
    ------
    InputError
        For tables that are no histories, and for experiments without a record.
    """
    folders = {path.parent.name: path.parent for path in paths}
    histories = {name: parts for name, parts in read_histories(paths).items() if has_steps(parts)}
    missing = [name for name in histories if not (folders[name] / MANIFEST).exists()]
    if missing:
        raise InputError(
            Problem(str(folders[name] / MANIFEST), name, "no record of the training", "rerun pretrain")
            for name in missing
        )
    return [_experiment(name, folders[name] / MANIFEST, parts) for name, parts in histories.items()]


def has_steps(parts: dict[str, pd.DataFrame]) -> bool:
    """Whether it was trained by steps, as principal components are not."""
    return any(table["step"].max() > 0 for table in parts.values())


def without_repeats(experiments: list[Experiment]) -> list[Experiment]:
    """Leave out repetitions with other seeds of experiments that are there."""
    names = {experiment.name for experiment in experiments}
    found = {name: REPEAT.fullmatch(name) for name in names}
    repeats = {name for name, match in found.items() if match is not None and match["name"] in names}
    return [experiment for experiment in experiments if experiment.name not in repeats]


def skill_curve(evaluated: pd.DataFrame, column: str = "l1") -> pd.DataFrame:
    """Return step and skill, ``1 - L1 / L1 of predicting zero``, of a validation history."""
    return pd.DataFrame({"step": evaluated["step"], "skill": 1 - evaluated[column] / evaluated["l1_zero"]})


def _experiment(name: str, manifest: Path, parts: dict[str, pd.DataFrame]) -> Experiment:
    content = read_json(manifest)
    if not isinstance(content.get("options"), dict) or "framework" not in content["options"]:
        raise InputError(Problem(str(manifest), name, "not the record of a training", "rerun pretrain"))
    shards = (_SHARD.match(Path(shard).name) for shard in content.get("training", ()))
    people = {(found["dataset"], found["subject"]) for found in shards if found}
    return Experiment(name, content["options"], len(people), parts)


@dataclass(frozen=True)
class PowerLaw:
    """A fit of ``floor + factor * n ** -exponent``."""

    floor: float
    factor: float
    exponent: float

    def __call__(self, n: np.ndarray) -> np.ndarray:
        """Return what the law says for numbers of people."""
        return self.floor + self.factor * np.asarray(n, float) ** -self.exponent


def fit_power_law(n: np.ndarray, loss: np.ndarray) -> PowerLaw | None:
    """Fit a power law to losses by number of people.

    Of three numbers or fewer the floor is zero, as two parameters are all that they can tell. None where there are
    fewer than three numbers, or where the loss does not fall.

    Parameters
    ----------
    n, loss : ndarray, shape (K,)
        Number of people, and the loss.
    """
    if len(set(n)) < 3:
        return None
    floors = np.linspace(0, 0.999 * loss.min(), 400) if len(set(n)) > 3 else np.zeros(1)
    laws = []
    for floor in floors:
        # A floor is given, so that what is left is a line in logarithms.
        slope, start = np.polyfit(np.log(n), np.log(loss - floor), 1)
        laws.append(PowerLaw(float(floor), float(np.exp(start)), float(-slope)))
    best = min(laws, key=lambda law: float(((law(n) - loss) ** 2).sum()))
    return best if best.exponent > 0 else None
