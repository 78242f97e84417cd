"""Stage pretrain: a network learns the dynamics of unlabelled runs."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState

from boldly.config import PretrainOptions
from boldly.files import is_url
from boldly.models.build import build_network, build_objective, pretraining_config
from boldly.models.initial import initialise
from boldly.provenance import file_sha256
from boldly.records import InputError, Problem
from boldly.samples.corpus import Corpus, load_corpus
from boldly.samples.packed import LooseShards, open_packed
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
from boldly.training.loop import Interrupted, fit
from boldly.training.processes import join_processes, share_batch

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
    checkpoints = CheckpointFolder(output / "checkpoints")
    processes = join_processes()
    about: dict[str, Any] = {}
    if processes.is_main_process:
        share_batch(options, processes.num_processes, name)
        about = {
            # What is kept in the end has no say in the training: it may change on the way.
            "options": options.model_dump(mode="json", exclude={"keep_untrained"}),
            "training": source.identities(training),
            "validation": source.identities(validation),
            "run_tables": run_tables(used),
            "initial": {path.name: file_sha256(path) for path in initial_weights(initial)},
        }
        if options.deepspeed and Path(options.deepspeed).exists():
            # That a file is missing is said where it is read.
            about["deepspeed"] = {Path(options.deepspeed).name: file_sha256(options.deepspeed)}
        checkpoints.claim(about)
        about |= seen_by(used, options, initial, source).to_manifest()
    # Nobody looks for checkpoints before they are known to be those of this experiment.
    processes.wait_for_everyone()
    if options.framework == "components":
        if processes.is_main_process:
            fit_components(name, options, training, validation, output, about)
        return
    windows = training_windows(training, options, source)
    done = checkpoints.steps()
    # What the first shards tell about forecasts is kept: a training that goes on starts with those at hand.
    is_known = not validation or (checkpoints.path / COMPARISONS).exists()
    runs = corpus_at(windows, done[-1] * options.batch_size if done and is_known else 0)
    if processes.is_main_process:
        _check_continuity(windows, done[-1] * options.batch_size if done else 0, used)
        _tell_of_scale(name, runs)
    contract = runs.contract
    held_out = held_out_runs(validation, options, contract, source)
    linear = linear_fits(source, training, validation, options)
    groups = groups_at_start(runs, held_out, checkpoints, goes_on=bool(done), writes=processes.is_main_process)
    config = pretraining_config(options, contract.n_parcels, groups)
    objective = build_objective(build_network(config, options.seed))
    validate = validation_of(held_out, options, runs, checkpoints, linear)
    # Checkpoints hold what a fit would give.
    if not done:
        start(objective, runs, groups, validate, linear, options)
    if initial is not None:
        initialise(objective.network, initial)
    if options.compile:
        _check_compiler(name)
        # In place: weights keep their names. Windows have many lengths, one program does for all.
        objective.compile(dynamic=True)
    # Streamed, it is a group of shards that must not stay in memory.
    del runs
    try:
        outcome = fit(
            objective,
            windows,
            options,
            name=name,
            validate=validate,
            seed=options.seed,
            folder=output,
            deepspeed=options.deepspeed,
            track=options.track,
            validate_first=True,
        )
    except (InputError, Interrupted):
        _leave(processes)
        raise
    finally:
        if isinstance(windows, StreamedWindows):
            windows.close()
    _leave(processes)
    if not processes.is_main_process:
        return
    write_history(output / "train_history.csv", outcome.train_rows)
    write_history(output / "eval_history.csv", outcome.eval_rows)
    if not outcome.improved and not options.keep_untrained:
        raise untrained(name, output, outcome)
    tell_of_zeros(name, outcome)
    write_manifest(output, name, about, options, outcome.step, outcome.seconds)
    # The corpus of a streamed training is gone by now; a group of its shards stands for it.
    first = training[: options.stream_shards]
    allowed = options.allow_mismatch
    kept = windows.corpus if isinstance(windows, Windows) else load_corpus(first, allow_mismatch=allowed)
    save(output, config, outcome.weights, contract, kept, options)
    write_parcel_errors(output, config, outcome.weights, options, validate)
    checkpoints.delete()
    logger.info("%s: weights of step %d of %d, %.0f s", name, outcome.step, options.steps, outcome.seconds)


def _leave(processes: PartialState) -> None:
    """Part from the other processes: one that ends while joined to them may be aborted (gloo), and all with it."""
    processes.destroy_process_group()


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
