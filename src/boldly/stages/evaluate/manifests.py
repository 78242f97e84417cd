"""What adapt.json says of the decoders of an experiment, and that they belong to the split they are scored on."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boldly.decoders.encoders import MANIFEST
from boldly.files import read_json
from boldly.records import InputError, Problem
from boldly.samples.splits import DownstreamSplit, Draw
from boldly.words import listed

KINDS = ("pretrained", "scratch", "untrained", "baseline")
_PARTS = ("train", "validation", "test")
_REMEDY = "rerun adapt for this experiment"


@dataclass(frozen=True)
class Fit:
    """One decoder of an experiment.

    Attributes
    ----------
    folder : str
        Its name in the folder of the experiment.
    draw : Draw
        Which units trained, validated and are tested.
    seed : int
        Seed of the whole training.
    choice : str
        What was chosen by validation, in words; empty where nothing was.
    validation_loss, validation_accuracy : float
        Of trials that were left out of the fit, never of test trials; nan where unknown.
    """

    folder: str
    draw: Draw
    seed: int
    choice: str = ""
    validation_loss: float = float("nan")
    validation_accuracy: float = float("nan")


@dataclass(frozen=True)
class Decoder:
    """An experiment that adapt wrote.

    Attributes
    ----------
    folder : Path
        Where adapt.json and the fits lie.
    name, kind : str
        Experiment, and one of `KINDS`.
    start : str
        Upstream experiment of a network, or which baseline.
    fits : tuple of Fit
        Sorted by n, draw and seed.
    """

    folder: Path
    name: str
    kind: str
    start: str
    fits: tuple[Fit, ...]


def read_decoders(models: list[Path], dataset: str, split: DownstreamSplit, split_path: Path) -> list[Decoder]:
    """Read the manifests of experiments and check that each was adapted on the draws of the split.

    Parameters
    ----------
    models : list of Path
        Folders that adapt wrote.
    dataset : str
        Name of the dataset.
    split : DownstreamSplit
        The split that is scored.
    split_path : Path
        Its file, for errors.

    Raises
    ------
    InputError
        With every manifest that is not one, lacks fits, or belongs to another dataset or split: a decoder that was
        trained on what another split calls test would pass for a good one.
    """
    draws = {(draw.n, draw.draw): draw for draw in split.draws}
    decoders, problems = [], []
    for folder in models:
        path = folder / MANIFEST
        try:
            content = read_json(path)
            name, kind, fits = str(content["experiment"]), str(content["kind"]), content["fits"]
            start = str(content["start"])
            known = {(int(fit["n"]), int(fit["draw"]), int(fit["seed"])): _validation(fit) for fit in fits}
            folders = {(int(fit["n"]), int(fit["draw"]), int(fit["seed"])): str(fit["folder"]) for fit in fits}
            wrong = _wrong(content, dataset, draws, split_path)
        except (OSError, ValueError, KeyError, TypeError) as error:
            message = f"not a manifest of adapted models: {type(error).__name__} {error}"
            problems.append(Problem(str(path), "", message, _REMEDY))
            continue
        if wrong:
            problems.append(Problem(str(path), name, wrong, _REMEDY))
            continue
        found = tuple(Fit(folders[key], draws[key[:2]], key[2], **known[key]) for key in sorted(folders))
        decoders.append(Decoder(folder, name, kind, start, found))
    for name, count in Counter(decoder.name for decoder in decoders).items():
        if count > 1:
            message = f"{count} folders hold an experiment of this name"
            problems.append(Problem(str(split_path), name, message, "pass each experiment once"))
    if problems:
        raise InputError(problems)
    return decoders


def _validation(fit: dict[str, Any]) -> dict[str, Any]:
    """Return what a manifest says of the validation of a fit, as fields of `Fit`."""
    step = f"step {fit['step']}" if "step" in fit else ""
    numbers: dict[str, Any] = {
        name: float(fit[name]) for name in ("validation_loss", "validation_accuracy") if name in fit
    }
    return {"choice": str(fit.get("choice", step)), **numbers}


def _wrong(
    content: dict[str, Any], dataset: str, draws: dict[tuple[int, int], Draw], split_path: Path
) -> str | None:
    """Say what is wrong with a manifest, if anything."""
    fits = content["fits"]
    if content["kind"] not in KINDS:
        return f"kind '{content['kind']}' is none of {', '.join(KINDS)}"
    if content["dataset"] != dataset:
        return f"adapted on dataset {content['dataset']}, not on {dataset}"
    fitted = {(fit["n"], fit["draw"]) for fit in fits}
    seeds = {fit["seed"] for fit in fits}
    grid = {(fit["n"], fit["draw"], fit["seed"]) for fit in fits}
    if fitted != set(draws) or len(fits) != len(grid) or len(grid) != len(draws) * len(seeds):
        return (
            f"has {len(fits)} fits of {len(seeds)} seeds for {len(fitted)} draws, but the split {split_path} has "
            f"{len(draws)} draws, {len(set(draws) - fitted)} of them without a fit"
        )
    if absent := [part for part in _PARTS if any(part not in fit for fit in fits)]:
        return f"does not say which units each fit had for {', '.join(absent)}: an earlier version wrote it"
    for fit in fits:
        draw = draws[fit["n"], fit["draw"]]
        for part in _PARTS:
            if sorted(fit[part]) != sorted(getattr(draw, part)):
                return (
                    f"was adapted on another split: of n {draw.n}, draw {draw.draw} it had for {part} "
                    f"{listed(sorted(fit[part]), 6)}; {split_path} has {listed(sorted(getattr(draw, part)), 6)}"
                )
    return None
