"""Stage pretrain: a network learns the dynamics of unlabelled runs."""

from __future__ import annotations

import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState

from boldly.config import REVISIONS, PretrainOptions
from boldly.files import is_url
from boldly.models.build import build_network, build_objective, pretraining_config
from boldly.models.initial import initialise
from boldly.models.network import NetworkConfig
from boldly.provenance import Contract, file_sha256
from boldly.records import InputError, Problem
from boldly.samples.corpus import Corpus, load_corpus
from boldly.samples.packed import LooseShards, Shards, open_packed
from boldly.samples.shards import subject_shards
from boldly.samples.splits import UpstreamSplit, kept_apart, read_split
from boldly.samples.streams import StreamedWindows
from boldly.samples.windows import Windows
from boldly.stages.pretrain.material import (
    COMPARISONS,
    corpus_at,
    group_at,
    groups_at_start,
    held_out_runs,
    initial_weights,
    linear_fits,
    run_tables,
    seen_by,
    shards_of,
    start,
    training_windows,
    validation_of,
)
from boldly.stages.pretrain.outcome import (
    fit_components,
    save,
    tell_of_zeros,
    untrained,
    write_manifest,
    write_parcel_errors,
)
from boldly.training.checkpoints import CheckpointFolder
from boldly.training.continuity import check_continuity
from boldly.training.history import write_history
from boldly.training.loop import Fit, fit
from boldly.training.processes import joined_processes, share_batch
from boldly.training.validation import UpstreamValidation

logger = logging.getLogger(__name__)

# Frames that are looked at for the scale of signals, and how far that may be from mean 0 and standard deviation 1.
_SCALE_FRAMES, _MOST_LEVEL, _MOST_SPREAD = 4096, 1.0, 10.0

Data = list[tuple[Path, Path | str]]


def run(
    *,
    name: str,
    options: PretrainOptions,
    data: Data,
    output: Path,
    initial: Path | None = None,
    corpus: Path | None = None,
) -> None:
    """Pretrain a network.

    Steps: read the shards of the training and validation subjects (nobody trains who validates in another dataset
    of the same source); train, validating on fixed windows of the validation subjects; keep the weights of the
    best validation. An interrupted training goes on from its last
    checkpoint (in ``output/checkpoints``), with the same outcome. Processes that torchrun starts with the same
    arguments train together (`boldly launch`).

    Parameters
    ----------
    name : str
        Experiment.
    options : PretrainOptions
        Network and training.
    data : list of (Path, Path or str)
        Split JSON and shard folder of each dataset; those that `options.datasets` leaves out are not read. A
        folder may be a web address: the tars as `boldly shard` writes them, the run table
        ``<dataset>_runs.tsv`` beside.
    output : Path
        Folder for model.safetensors, config.json, contract.json, train_history.csv, eval_history.csv,
        parcel_errors.tsv (L1 of each parcel on the validation windows) and manifest.json.
    initial : Path, optional
        Folder of the weights to start from (see `boldly.models.initial.initialise`); None: untrained.
    corpus : Path, optional
        Folder of the same runs packed into one file (`boldly corpus`): processes map it, and find linear fits
        there. None: each process reads the shards into its memory.

    Raises
    ------
    InputError
        For damaged shards, shards of different contracts, runs that are too short, checkpoints of another config,
        a loss that is no number, and a training that made nothing better (`options.keep_untrained`).

    Notes
    -----
    Training, checkpoints and manifest know shards by their checksums. Those at a web address are not read before
    their turn comes: the sizes that the server tells and the checksum of the run table stand for them.
    """
    given = _given(name, options, data, output, initial, corpus)
    checkpoints = given.checkpoints
    with joined_processes() as processes:
        about: dict[str, Any] = {}
        if processes.is_main_process:
            share_batch(options, processes.num_processes, name)
            about = _about(given)
            checkpoints.claim(about)
            about |= seen_by(given.used, options, initial, given.source).to_manifest()
        # Nobody looks for checkpoints before they are known to be those of this experiment.
        processes.wait_for_everyone()
        trained = _train(given, processes) if options.framework != "components" else None
    if not processes.is_main_process:
        return
    if trained is None:
        fit_components(name, options, given.training, given.validation, output, about)
        return
    outcome = trained.outcome
    write_history(output / "train_history.csv", outcome.train_rows)
    write_history(output / "eval_history.csv", outcome.eval_rows)
    if not outcome.improved and not options.keep_untrained:
        raise untrained(name, output, outcome)
    tell_of_zeros(name, outcome)
    write_manifest(output, name, about, options, outcome.step, outcome.seconds)
    # The corpus of a streamed training is gone by now; a group of its shards stands for it.
    first, windows = given.training[: options.stream_shards], trained.windows
    allowed = options.allow_mismatch
    kept = windows.corpus if isinstance(windows, Windows) else load_corpus(first, allow_mismatch=allowed)
    save(output, trained.config, outcome.weights, trained.contract, kept, options)
    write_parcel_errors(output, trained.config, outcome.weights, options, trained.validate)
    checkpoints.delete()
    logger.info("%s: weights of step %d of %d, %.0f s", name, outcome.step, options.steps, outcome.seconds)


@dataclass(frozen=True)
class _Given:
    """What a pretraining is made from; the arguments of `run`, and the shards that they say."""

    name: str
    options: PretrainOptions
    used: list[tuple[UpstreamSplit, Path | str]]
    training: list[Path | str]
    validation: list[Path | str]
    source: Shards
    output: Path
    initial: Path | None

    @property
    def checkpoints(self) -> CheckpointFolder:
        """Where an interrupted training goes on from."""
        return CheckpointFolder(self.output / "checkpoints")


@dataclass(frozen=True)
class _Trained:
    """A training that is over, and what its network is written with."""

    outcome: Fit
    config: NetworkConfig
    contract: Contract
    windows: Windows | StreamedWindows
    validate: UpstreamValidation | None


def _given(
    name: str, options: PretrainOptions, data: Data, output: Path, initial: Path | None, corpus: Path | None
) -> _Given:
    """Read the splits, and tell the shards of those who train and those who validate."""
    # Sorted, as in packed runs: in which order datasets are named must not matter.
    splits = sorted(
        ((read_split(split, "upstream"), shards) for split, shards in data), key=lambda item: item[0].dataset
    )
    used = [item for item in splits if options.datasets is None or item[0].dataset in options.datasets]
    apart = kept_apart([split for split, _ in used])
    used = [(split, shards) for split, (_, shards) in zip(apart, used, strict=True)]
    share = options.subjects_fraction
    training = [path for split, shards in used for path in shards_of(split, split.share(share), shards)]
    validation = [path for split, shards in used for path in shards_of(split, split.validation, shards)]
    source = open_packed(corpus) if corpus is not None else LooseShards(options.allow_mismatch)
    return _Given(name, options, used, training, validation, source, output, initial)


def _about(given: _Given) -> dict[str, Any]:
    """Return what checkpoints belong to: options, shards and files of a training."""
    options = given.options
    about = {
        # What is kept in the end has no say in the training: it may change on the way.
        "options": options.model_dump(mode="json", exclude={"keep_untrained"}),
        # Half a training of one version and half of another is one of neither.
        "revision": REVISIONS["pretrain"],
        "training": given.source.identities(given.training),
        "validation": given.source.identities(given.validation),
        "run_tables": run_tables(given.used),
        "initial": {path.name: file_sha256(path) for path in initial_weights(given.initial)},
    }
    if options.deepspeed and Path(options.deepspeed).exists():
        # That a file is missing is said where it is read.
        about["deepspeed"] = {Path(options.deepspeed).name: file_sha256(options.deepspeed)}
    return about


def _train(given: _Given, processes: PartialState) -> _Trained:
    """Build network, windows and validation, and train; from the last checkpoint where there is one."""
    options, source, checkpoints = given.options, given.source, given.checkpoints
    writes = processes.is_main_process
    windows = training_windows(given.training, options, source, checkpoints, writes=writes)
    done = checkpoints.steps()
    # What the first shards tell about forecasts is kept: a training that goes on starts with those at hand.
    is_known = not given.validation or (checkpoints.path / COMPARISONS).exists()
    runs = corpus_at(windows, done[-1] * options.batch_size if done and is_known else 0)
    if writes:
        _check_continuity(windows, done[-1] * options.batch_size if done else 0, given.used)
        _tell_of_scale(given.name, runs)
    contract = runs.contract
    held_out = held_out_runs(given.validation, options, contract, source)
    linear = linear_fits(source, given.training, given.validation, options)
    groups = groups_at_start(runs, held_out, checkpoints, goes_on=bool(done), writes=writes)
    config = pretraining_config(options, contract.n_parcels, groups)
    objective = build_objective(build_network(config, options.seed))
    validate = validation_of(held_out, options, runs, checkpoints, linear)
    # Checkpoints hold what a fit would give.
    if not done:
        start(objective, runs, groups, validate, linear, options)
    if given.initial is not None:
        initialise(objective.network, given.initial)
    if options.compile:
        _check_compiler(given.name)
        # In place: weights keep their names. Windows have many lengths, one program does for all.
        objective.compile(dynamic=True)
    # Streamed, it is a group of shards that must not stay in memory.
    del runs
    try:
        outcome = fit(
            objective,
            windows,
            options,
            name=given.name,
            validate=validate,
            seed=options.seed,
            folder=given.output,
            deepspeed=options.deepspeed,
            track=options.track,
            validate_first=True,
        )
    finally:
        if isinstance(windows, StreamedWindows):
            windows.close()
    if isinstance(windows, StreamedWindows):
        # By now the shards of all groups have been read.
        contract = windows.contract
    return _Trained(outcome, config, contract, windows, validate)


def _check_continuity(
    windows: Windows | StreamedWindows, number: int, used: list[tuple[UpstreamSplit, Path | str]]
) -> None:
    """Check the windows of the group that the training starts with; of a group from the web one subject."""
    folders = {split.dataset: shards for split, shards in used}
    check_continuity(
        group_at(windows, number),
        lambda dataset, subject: subject_shards(folders[dataset], dataset, subject),
        subjects=1 if any(is_url(shards) for shards in folders.values()) else 4,
    )


def _tell_of_scale(name: str, runs: Corpus) -> None:
    """Warn of signals that are far from mean zero and variance one, which networks are built for."""
    frames = runs.frames[:: -(-len(runs.frames) // _SCALE_FRAMES)].astype(np.float32)
    level, spread = float(np.abs(frames.mean(axis=0)).mean()), float(frames.std(axis=0).mean())
    if level > _MOST_LEVEL or not 1 / _MOST_SPREAD < spread < _MOST_SPREAD:
        message = "%s: signals have a mean of %.3g and an SD of %.3g: z-score runs, or little is learned"
        logger.warning(message, name, level, spread)


def _check_compiler(name: str) -> None:
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        where, message = f"pretrain.experiments.{name}.compile", f"there is no C++ compiler {compiler}"
        raise InputError(Problem(where, name, message, "install g++, name another one in CXX, or set it to false"))
