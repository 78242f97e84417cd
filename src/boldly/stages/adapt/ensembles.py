"""Decoders that are several probes at once: the mean of their probabilities, weighted by validation."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from boldly.config import AdaptOptions
from boldly.decoders.apply import WEIGHTS
from boldly.decoders.encoders import ENCODERS, MANIFEST
from boldly.decoders.probe import Probe
from boldly.decoders.selection import HeldOut, mixture, mixture_weights
from boldly.files import read_json
from boldly.records import InputError, Problem
from boldly.samples.corpus import Corpus
from boldly.samples.splits import DownstreamSplit, Draw
from boldly.stages.adapt.probes import describe_fit, write_probe
from boldly.stages.adapt.upstream import ENCODING, link_files


@dataclass(frozen=True)
class _Adapted:
    """A member: its folder and kind, and the folder of each fit by n, draw and seed."""

    folder: Path
    kind: str
    fits: dict[tuple[int, int, int], Path]

    def fit(self, draw: Draw, seed: int) -> Path:
        """Return the folder of a fit; one that was not repeated with this seed gives its first."""
        exact = self.fits.get((draw.n, draw.draw, seed))
        return exact or next(path for key, path in self.fits.items() if key[:2] == (draw.n, draw.draw))


class EnsembleExperiment:
    """Probes that other experiments fitted to the same draws speak together; see `boldly.stages.adapt.run`."""

    def __init__(
        self,
        options: AdaptOptions,
        corpus: Corpus,
        split: DownstreamSplit,
        members: Sequence[Path],
        output: Path,
    ) -> None:
        self._options, self._corpus = options, corpus
        self._members = [_adapted(folder, split) for folder in members]
        self.seeds = _seeds(self._members, split.draws[0])
        shutil.rmtree(output / ENCODERS, ignore_errors=True)
        for member in self._members:
            for encoder in _folders(member.folder / ENCODERS):
                _link_encoder(encoder, output / ENCODERS / encoder.name)

    @property
    def kind(self) -> str:
        """Pretrained if a member is, else a baseline if a member is: one of baselines passes for no more."""
        kinds = {member.kind for member in self._members}
        return next(kind for kind in ("pretrained", "baseline", "untrained") if kind in kinds)

    def fit(self, draw: Draw, seed: int, folder: Path) -> dict[str, Any]:
        """Weigh the members' probes of a draw and write them as one."""
        started = time.monotonic()
        folders = [member.fit(draw, seed) for member in self._members]
        probes = [Probe.load(folder) for folder in folders]
        _check_together(folders, probes, self._corpus.label_names)
        left_out = [HeldOut.load(folder) for folder in folders]
        weights, held_out = self._weights(left_out)
        members = tuple(
            replace(part, weight=float(weight) * part.weight)
            for probe, weight in zip(probes, weights, strict=True)
            for part in probe.members
            if weight > 0
        )
        probe = Probe(members, self._corpus.label_names, probes[0].longest)
        write_probe(folder, probe, self._corpus.contract)
        return describe_fit(probe, held_out, started)

    def _weights(self, left_out: list[HeldOut | None]) -> tuple[np.ndarray, HeldOut | None]:
        """Return what each member counts, and what they say together of trials left out."""
        equal = np.full(len(left_out), 1 / len(left_out))
        known = [held_out for held_out in left_out if held_out is not None]
        if len(known) < len(left_out):
            return equal, None
        match self._options.combine:
            case "weighted":
                weights = mixture_weights(known)
            case "best":
                weights = np.eye(len(known))[int(np.argmin([held_out.loss for held_out in known]))]
            case _:
                weights = equal
        return weights, mixture(known, weights)


def _adapted(folder: Path, split: DownstreamSplit) -> _Adapted:
    """Read what adapt wrote of a member; its fits have to be those of the draws of the split."""
    path = folder / MANIFEST
    try:
        content = read_json(path)
        fits, kind = content["fits"], str(content["kind"])
        found = {(fit["n"], fit["draw"], fit["seed"]): folder / fit["folder"] for fit in fits}
        own = {(fit["n"], fit["draw"], tuple(fit["train"]), tuple(fit["validation"])) for fit in fits}
    except (OSError, ValueError, KeyError, TypeError) as error:
        message = f"not a manifest of adapted models: {type(error).__name__} {error}"
        raise InputError(Problem(str(path), folder.name, message, "rerun adapt for this experiment")) from None
    if own != {(draw.n, draw.draw, draw.train, draw.validation) for draw in split.draws}:
        message = "was adapted to other draws than those of the split"
        raise InputError(Problem(str(path), folder.name, message, "rerun adapt for this experiment"))
    return _Adapted(folder, kind, found)


def _check_together(folders: Sequence[Path], probes: Sequence[Probe], states: tuple[str, ...]) -> None:
    """Refuse members of which an ensemble would make other decoders than they are."""
    longest, wrong = probes[0].longest, {}
    for folder, probe in zip(folders, probes, strict=True):
        if probe.longest != longest:
            wrong[folder] = f"cuts trials behind {probe.longest} frames, the first member behind {longest}"
        if (folder / WEIGHTS).exists():
            wrong[folder] = "is a probe and a network that was trained from there on"
        if probe.labels != states:
            wrong[folder] = f"its states are {', '.join(probe.labels)}, those of the trials {', '.join(states)}"
    if wrong:
        remedy = "take members with method probe and the same window_frames, adapted to these trials"
        raise InputError(Problem(str(folder), "", message, remedy) for folder, message in wrong.items())


def _folders(path: Path) -> Iterator[Path]:
    yield from sorted(entry for entry in path.iterdir() if entry.is_dir()) if path.is_dir() else ()


def _seeds(members: Sequence[_Adapted], draw: Draw) -> tuple[int, ...]:
    """Return the seeds of the fits: one for each combination of fits of the members, so that none counts twice."""
    seeds = dict.fromkeys(seed for member in members for *_, seed in member.fits)
    combined = {tuple(member.fit(draw, seed) for member in members): seed for seed in reversed(list(seeds))}
    return tuple(seed for seed in seeds if seed in combined.values())


def _link_encoder(source: Path, target: Path) -> None:
    """Keep an encoder of a member with the ensemble; another one of the same name would be taken for it."""
    for name in ENCODING:
        known, own = target / name, source / name
        if known.exists() and own.exists() and known.read_bytes() != own.read_bytes():
            message = f"another member has an encoder {source.name} with another {name}"
            raise InputError(Problem(str(source), source.name, message, "rename one of the upstream models"))
    link_files(source, target, tuple(path.name for path in source.iterdir()))
