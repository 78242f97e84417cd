"""Stage adapt: a network or a baseline learns to decode mental states from few labelled units."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from boldly.bids import entities
from boldly.config import REVISIONS, AdaptOptions
from boldly.decoders.encoders import MANIFEST
from boldly.files import read_json, write_json
from boldly.provenance import check_same, environment, file_sha256
from boldly.records import InputError, Problem
from boldly.samples.corpus import Corpus, load_corpus
from boldly.samples.shards import subject_shards
from boldly.samples.splits import DownstreamSplit, Draw, read_split
from boldly.stages.adapt.upstream import UpstreamModel
from boldly.words import counted, listed, noun

logger = logging.getLogger(__name__)

__all__ = ["MANIFEST", "Adaptation", "UpstreamModel", "run", "run_several"]

_RECORD = "fit.json"


class Experiment(Protocol):
    """How the decoders of an experiment are made: by gradient steps, or as probes of frozen encoders."""

    seeds: tuple[int, ...]

    def fit(self, draw: Draw, seed: int, folder: Path) -> dict[str, Any]:
        """Train a decoder on a draw, write it to a folder, and return what there is to say of it."""


@dataclass(frozen=True)
class Adaptation:
    """A downstream experiment: what to train, and where it goes.

    Attributes
    ----------
    name, options, output, models, members
        As the parameters of `run`.
    """

    name: str
    options: AdaptOptions
    output: Path
    models: tuple[UpstreamModel, ...] = ()
    members: tuple[Path, ...] = ()


def run(
    *,
    name: str,
    options: AdaptOptions,
    dataset: str,
    split: Path,
    shards: Path,
    models: list[UpstreamModel],
    output: Path,
    members: Sequence[Path] = (),
) -> None:
    """Train a decoder for each draw of training units and each seed.

    Each fit is independent of the others and written when it is done; an interrupted job goes on with those that
    are missing. `pretrained`, `untrained` and `scratch` differ in the weights that they start from.

    Parameters
    ----------
    name : str
        Experiment.
    options : AdaptOptions
        Start and training.
    dataset : str
        Downstream dataset.
    split : Path
        Its split JSON.
    shards : Path
        Its shard folder.
    models : list of UpstreamModel
        Upstream models; of an untrained or scratch network only the config is used. Empty for most baselines.
    output : Path
        Folder for ``n-<n>_draw-<d>_seed-<s>/``, ``encoders/`` and, last, adapt.json.
    members : sequence of Path, optional
        Folders of the adapted experiments that an ensemble (`options.members`) consists of.

    Raises
    ------
    InputError
        For damaged shards, a draw without a trial to train on, a model whose contract differs from that of the
        shards, or one that does not fit.
    """
    run_several([Adaptation(name, options, output, tuple(models), tuple(members))], dataset, split, shards)


def run_several(experiments: Sequence[Adaptation], dataset: str, split: Path, shards: Path) -> None:
    """Do what `run` does for several experiments on one dataset, which is read once.

    A probe takes seconds, and a process of its own would take as many to start.

    Parameters
    ----------
    experiments : sequence of Adaptation
        In the order in which they are trained.
    dataset, split, shards
        As those of `run`.

    Raises
    ------
    InputError
        As `run`; all draws without a trial and all models that do not fit are named before anything is trained.
    """
    parts = read_split(split, "downstream")
    paths = _paths(parts, dataset, shards)
    corpus = load_corpus(paths)
    problems = _without_trials(parts, corpus, split)
    for experiment in experiments:
        try:
            _check(experiment.models, corpus, experiment.options)
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    _tell_of_cut_trials(dataset, experiments, corpus)
    trials = {path.name: file_sha256(path) for path in paths}
    for experiment in experiments:
        _run(experiment, dataset, corpus, parts, trials)


def _without_trials(parts: DownstreamSplit, corpus: Corpus, split: Path) -> list[Problem]:
    """Name the draws in which no unit has a trial to train on; a fit would fail, and not say of whom."""
    owners = set(corpus.subjects if parts.by == "subject" else corpus.runs)
    return [
        Problem(
            str(split),
            f"n {draw.n}, draw {draw.draw}",
            f"no trial to train on is left of {noun(len(draw.train), parts.by)} {listed(draw.train)}",
            f"rerun split, which leaves out who has none, or leave them out of datasets.{parts.dataset}.subjects; "
            "results/logs/prepare says what scrubbing took",
        )
        for draw in parts.draws
        if owners.isdisjoint(draw.train)
    ]


def _tell_of_cut_trials(dataset: str, experiments: Sequence[Adaptation], corpus: Corpus) -> None:
    """Warn of trials that experiments do not see to their end; those that cut alike share a line."""
    cutting: dict[int, list[Adaptation]] = {}
    for experiment in experiments:
        if _cut_trials(experiment.options, corpus)["cut"]:
            cutting.setdefault(experiment.options.window_frames, []).append(experiment)
    message = "%s: %d of %s are longer than the %d frames that are looked at (%s); the longest has %d: raise "
    message += "window_frames in adapt.defaults, or let trials end sooner (datasets.%s.task)"
    for frames, alike in cutting.items():
        cut, trials, longest = _cut_trials(alike[0].options, corpus).values()
        names = listed(one.name for one in alike)
        logger.warning(message, dataset, cut, counted(trials, "trial"), frames, names, longest, dataset)


def _cut_trials(options: AdaptOptions, corpus: Corpus) -> dict[str, int]:
    """Count the trials that are longer than an experiment looks at; an ensemble looks at none by itself."""
    lengths = corpus.lengths
    cut = 0 if options.members is not None else int((lengths > options.window_frames).sum())
    return {"cut": cut, "trials": len(lengths), "longest_frames": int(lengths.max(initial=0))}


def _run(wanted: Adaptation, dataset: str, corpus: Corpus, parts: DownstreamSplit, trials: dict[str, str]) -> None:
    """Train the decoders of an experiment; `trials` are the checksums of the shards."""
    name, options, output = wanted.name, wanted.options, wanted.output
    experiment = _experiment(wanted, dataset, corpus, parts)
    signature = {
        "revision": REVISIONS["adapt"],
        "options": options.model_dump(mode="json"),
        "trials": trials,
        "models": [{**model.record, "sha256": model.checksums} for model in wanted.models],
        "members": {folder.name: file_sha256(folder / MANIFEST) for folder in wanted.members},
    }
    # A seed after the other: a probe encodes the trials once for each.
    jobs = [(draw, seed) for seed in experiment.seeds for draw in parts.draws]
    records: list[dict[str, Any]] = []
    for number, (draw, seed) in enumerate(jobs, start=1):
        folder = output / f"n-{draw.n}_draw-{draw.draw}_seed-{seed}"
        own = {**signature, "draw": json.loads(json.dumps(asdict(draw))), "seed": seed}
        if not _is_finished(folder, own):
            # What another method left here would pass for a part of this decoder.
            shutil.rmtree(folder, ignore_errors=True)
            about = experiment.fit(draw, seed, folder)
            write_json(folder / _RECORD, {**own, **about})
            logger.info("%s on %s, fit %d/%d: %s", name, dataset, number, len(jobs), _line(draw, seed, about))
        known = read_json(folder / _RECORD)
        about = {key: value for key, value in known.items() if key not in (*signature, "draw", "seed")}
        units = {part: list(getattr(draw, part)) for part in ("train", "validation", "test")}
        records.append({"folder": folder.name, "n": draw.n, "draw": draw.draw, "seed": seed, **units, **about})
    start = "+".join(options.members or [getattr(options, options.kind)])
    kind = getattr(experiment, "kind", options.kind)  # ensembles have that of their members
    content = {"experiment": name, "dataset": dataset, "kind": kind, "start": start, "fits": records}
    about = {"cut_trials": _cut_trials(options, corpus), "environment": environment()}
    write_json(output / MANIFEST, {**content, **signature, **about})


def _paths(split: DownstreamSplit, dataset: str, shards: Path) -> list[Path]:
    """Return the shards of the units that train or validate; nobody looks at the test units here."""
    units = {unit for draw in split.draws for unit in (*draw.train, *draw.validation)}
    if split.by == "run":
        units = {entities(unit)["sub"] for unit in units}
    return [path for subject in sorted(units) for path in subject_shards(shards, dataset, subject)]


def _experiment(wanted: Adaptation, dataset: str, corpus: Corpus, split: DownstreamSplit) -> Experiment:
    options, models, output = wanted.options, list(wanted.models), wanted.output
    if options.members is not None:
        from boldly.stages.adapt.ensembles import EnsembleExperiment

        return EnsembleExperiment(options, corpus, split, wanted.members, output)
    # What trains networks takes seconds to import: not for a baseline in closed form.
    if options.is_probe:
        from boldly.stages.adapt.probes import ProbeExperiment

        return ProbeExperiment(options, corpus, split, models, output)
    name = f"{wanted.name} on {dataset}"
    if options.is_fine_tuned:
        from boldly.stages.adapt.finetuning import FineTuningExperiment

        return FineTuningExperiment(name, options, corpus, split, models, output)
    from boldly.stages.adapt.networks import NetworkExperiment

    return NetworkExperiment(name, options, corpus, split, models, output)


def _check(models: Sequence[UpstreamModel], corpus: Corpus, options: AdaptOptions) -> None:
    """Refuse upstream models that the trials do not fit."""
    if options.upstream and not models:
        raise ValueError("a network needs the folder of an upstream model")
    if not models:
        return
    from boldly.models.build import load_config, load_contract

    for model in models:
        n_parcels = load_config(model.folder).n_parcels
        if n_parcels != corpus.frames.shape[1]:
            message = f"takes {n_parcels} parcels, the shards have {corpus.frames.shape[1]}"
            raise InputError(Problem(str(model.folder), "", message, "prepare both with the same atlas"))
        contract = load_contract(model.folder)
        check_same(contract, corpus.contract, str(model.folder), corpus.datasets[0], options.allow_mismatch)


def _is_finished(folder: Path, signature: dict[str, Any]) -> bool:
    path = folder / _RECORD
    return path.exists() and signature.items() <= read_json(path).items()


def _line(draw: Draw, seed: int, about: dict[str, Any]) -> str:
    accuracy = about.get("validation_accuracy")
    said = f"validation accuracy {accuracy:.3f}, " if accuracy is not None else ""
    chosen = f"{about['choice']}, " if "choice" in about else f"step {about['step']}, "
    return f"n {draw.n}, draw {draw.draw}, seed {seed}, {said}{chosen}{about['seconds']:.1f} s"
