"""Stage pretrain: a network learns the dynamics of unlabelled runs."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from accelerate import PartialState
from torch import Tensor

from boldly import bids
from boldly.config import PretrainOptions
from boldly.files import is_url, read_json, write_json, write_tsv
from boldly.models.basis import Basis, save_basis
from boldly.models.build import (
    CONTRACT,
    WEIGHTS,
    build_network,
    build_objective,
    is_encoder,
    pretraining_config,
    save_network,
    window_options,
)
from boldly.models.initial import initialise
from boldly.models.network import Network, NetworkConfig
from boldly.models.objective import Objective
from boldly.provenance import Contract, check_same, environment, file_sha256
from boldly.records import InputError, Problem
from boldly.samples import remote
from boldly.samples.corpus import Corpus, Group, load_corpus
from boldly.samples.packed import LooseShards, PackedShards, Shards, open_packed
from boldly.samples.seen import MANIFEST, Seen, read_seen, seen_in
from boldly.samples.shards import subject_shards
from boldly.samples.splits import UpstreamSplit, read_split
from boldly.samples.streams import StreamedWindows
from boldly.samples.windows import Windows
from boldly.training.checkpoints import CheckpointFolder
from boldly.training.components import (
    coming_components,
    hidden_basis,
    leading_components,
    signal_basis,
    unexplained,
)
from boldly.training.continuity import check_continuity
from boldly.training.history import write_history
from boldly.training.linear import (
    Forecasts,
    fit_forecasts,
    fitted_couplings,
    groups_of,
    linear_name,
    made_of,
    read_linear,
)
from boldly.training.loop import Fit, Interrupted, fit
from boldly.training.parcel_errors import COLUMNS, parcel_errors
from boldly.training.processes import join_processes, share_batch
from boldly.training.validation import UpstreamValidation

logger = logging.getLogger(__name__)

# Validation windows are drawn with another seed than those of the training.
_VALIDATION_SEED = 1 << 32
# Validation windows of one length: few, so that many lengths are seen.
_VALIDATION_BATCH = 32

# Frames that are looked at for the scale of signals, and how far that may be from mean 0 and standard deviation 1.
_SCALE_FRAMES, _MOST_LEVEL, _MOST_SPREAD = 4096, 1.0, 10.0

# How well each parcel is predicted.
PARCEL_ERRORS = "parcel_errors.tsv"
# Errors of forecasts that were fitted to the training subjects.
_COMPARISONS = "comparisons.json"
# Datasets and repetition times that a training began with.
_GROUPS = "groups.json"

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

    Steps: read the shards of the training and validation subjects; train, validating on fixed windows of the
    validation subjects; keep the weights of the best validation. An interrupted training goes on from its last
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
    splits = [(read_split(split, "upstream"), shards) for split, shards in data]
    used = [item for item in splits if options.datasets is None or item[0].dataset in options.datasets]
    share = options.subjects_fraction
    training = [path for split, shards in used for path in _paths(split, split.share(share), shards)]
    validation = [path for split, shards in used for path in _paths(split, split.validation, shards)]
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
            "run_tables": _run_tables(used),
            "initial": {path.name: file_sha256(path) for path in _weights(initial)},
        }
        checkpoints.claim(about)
        about |= _seen(used, options, initial, source).to_manifest()
    # Nobody looks for checkpoints before they are known to be those of this experiment.
    processes.wait_for_everyone()
    if options.framework == "components":
        if processes.is_main_process:
            _fit_components(name, options, training, validation, output, about)
        return
    windows = _windows(training, options, source)
    done = checkpoints.steps()
    # What the first shards tell about forecasts is kept: a training that goes on starts with those at hand.
    is_known = not validation or (checkpoints.path / _COMPARISONS).exists()
    runs = _corpus(windows, done[-1] * options.batch_size if done and is_known else 0)
    if processes.is_main_process:
        _check_continuity(windows, done[-1] * options.batch_size if done else 0, used)
        _tell_of_scale(name, runs)
    contract = runs.contract
    held_out = _held_out(validation, options, contract, source)
    linear = _linear(source, training, validation, options)
    groups = _groups(runs, held_out, checkpoints, goes_on=bool(done), writes=processes.is_main_process)
    config = pretraining_config(options, contract.n_parcels, groups)
    objective = build_objective(build_network(config, options.seed))
    validate = _validation(held_out, options, runs, checkpoints, linear)
    # Checkpoints hold what a fit would give.
    if not done:
        _start(objective, runs, groups, validate, linear, options)
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
        raise _untrained(name, output, outcome)
    _tell_of_zeros(name, outcome)
    _write_manifest(output, name, about, options, outcome.step, outcome.seconds)
    # The corpus of a streamed training is gone by now; a group of its shards stands for it.
    first = training[: options.stream_shards]
    allowed = options.allow_mismatch
    kept = windows.corpus if isinstance(windows, Windows) else load_corpus(first, allow_mismatch=allowed)
    _save(output, config, outcome.weights, contract, kept, options)
    _write_parcel_errors(output, config, outcome.weights, options, validate)
    checkpoints.delete()
    logger.info("%s: weights of step %d of %d, %.0f s", name, outcome.step, options.steps, outcome.seconds)


def _leave(processes: PartialState) -> None:
    """Part from the other processes: one that ends while joined to them may be aborted (gloo), and all with it."""
    processes.destroy_process_group()


def _write_manifest(
    output: Path, name: str, about: dict[str, Any], options: PretrainOptions, step: int, seconds: float
) -> None:
    outcome = {"options": options.model_dump(mode="json"), "step": step, "seconds": round(seconds, 1)}
    write_json(output / MANIFEST, {"experiment": name, **about, **outcome, "environment": environment()})


def _save(
    output: Path,
    config: NetworkConfig,
    weights: dict[str, Tensor],
    contract: Contract,
    corpus: Corpus,
    options: PretrainOptions,
) -> None:
    """Write a network, and beside it the components of its hidden states that read-outs look at."""
    network = build_network(config, options.seed)
    if is_encoder(network):
        network.load_state_dict(weights)
        save_basis(output, hidden_basis(network, corpus, options.window_frames))
    save_network(output, config, weights, contract)


def _write_parcel_errors(
    output: Path,
    config: NetworkConfig,
    weights: dict[str, Tensor],
    options: PretrainOptions,
    validate: UpstreamValidation | None,
) -> None:
    """Write how well each parcel of the validation windows is predicted; without validation an empty table."""
    table = pd.DataFrame(columns=COLUMNS)
    if validate is not None:
        network = build_network(config, options.seed)
        network.load_state_dict(weights)
        table = parcel_errors(build_objective(network), validate.windows)
    write_tsv(output / PARCEL_ERRORS, table)


def _fit_components(
    name: str,
    options: PretrainOptions,
    training: list[Path | str],
    validation: list[Path | str],
    output: Path,
    about: dict[str, Any],
) -> None:
    """Write the principal components of the training runs as a network: linear pretraining, without any step."""
    started = time.monotonic()
    allowed = options.allow_mismatch
    basis, covariance, contract = signal_basis(training, allow_mismatch=allowed)
    components = basis.components[0][:, : options.width]
    shares = {"train": unexplained(covariance, components)}
    if validation:
        shares["eval"] = unexplained(signal_basis(validation, contract, allow_mismatch=allowed)[1], components)
    for part in ("train", "eval"):
        rows = [{"step": 0, "loss": shares[part]}] if part in shares else []
        write_history(output / f"{part}_history.csv", rows)
    width = components.shape[1]
    config = NetworkConfig(framework="components", n_parcels=contract.n_parcels, width=width)
    _write_manifest(output, name, about, options, 0, time.monotonic() - started)
    eye = np.eye(width, dtype=np.float32)[None]
    save_basis(output, Basis(basis.mean @ components, eye, basis.variance[:, :width]))
    save_network(output, config, {"components": torch.from_numpy(components.copy())}, contract)
    write_tsv(output / PARCEL_ERRORS, pd.DataFrame(columns=COLUMNS))
    CheckpointFolder(output / "checkpoints").delete()
    logger.info("%s: %d components, %.0f %% of the variance", name, width, 100 * (1 - shares["train"]))


def _paths(split: UpstreamSplit, subjects: tuple[str, ...], shards: Path | str) -> list[Path | str]:
    return [path for subject in subjects for path in subject_shards(shards, split.dataset, subject)]


def _seen(
    used: list[tuple[UpstreamSplit, Path | str]], options: PretrainOptions, initial: Path | None, source: Shards
) -> Seen:
    """Return the people and runs that train, or choose the weights, here or in the model that it starts from."""
    seen = Seen()
    if initial is not None and (initial / CONTRACT).exists():
        seen = read_seen(initial) or Seen(unknown=frozenset([str(initial)]))
    for split, shards in used:
        people = (*split.share(options.subjects_fraction), *split.validation)
        seen |= seen_in(split.dataset, people, _paths(split, people, shards), source.fingerprints)
    return seen


def _run_tables(used: list[tuple[UpstreamSplit, Path | str]]) -> dict[str, str]:
    """Return the checksums of the run tables beside shards at web addresses."""
    urls = [remote.join(str(shards), bids.runs_name(split.dataset)) for split, shards in used if is_url(shards)]
    return {remote.shown(url): hashlib.sha256(remote.fetch(url)).hexdigest() for url in urls}


def _windows(paths: list[Path | str], options: PretrainOptions, source: Shards) -> Windows | StreamedWindows:
    """Return the windows of the training, of one corpus or of groups of shards."""
    wanted = window_options(options, options.batch_size)
    count = options.steps * options.batch_size
    if options.stream_shards is None:
        return Windows(source.corpus(paths), wanted, options.seed, count)
    turns = -(-options.steps // options.stream_steps) * options.stream_shards
    if turns < len(paths):
        message = "%d of %d shards at most have their turn in %d steps: raise stream_shards, or lower stream_steps"
        logger.warning(message, turns, len(paths), options.steps)
    return StreamedWindows(
        paths,
        wanted,
        options.seed,
        count,
        group_shards=options.stream_shards,
        group_windows=options.stream_steps * options.batch_size,
        allow_mismatch=options.allow_mismatch,
    )


def _corpus(windows: Windows | StreamedWindows, number: int) -> Corpus:
    """Return the runs that a window is cut from; streamed, those of its group (behind the end, of the last)."""
    return _group(windows, number).corpus


def _group(windows: Windows | StreamedWindows, number: int) -> Windows:
    return windows.at([min(number, len(windows) - 1)]) if isinstance(windows, StreamedWindows) else windows


def _linear(
    source: Shards, training: list[Path | str], validation: list[Path | str], options: PretrainOptions
) -> Forecasts | None:
    """Return the linear fits beside a packed corpus; None where there is none: then they are made when needed."""
    if not isinstance(source, PackedShards) or options.stream_shards is not None:
        return None
    shards = made_of(source.identities(training), source.identities(validation))
    return read_linear(source.folder / linear_name(options.subjects_fraction), shards)


def _check_continuity(
    windows: Windows | StreamedWindows, number: int, used: list[tuple[UpstreamSplit, Path | str]]
) -> None:
    """Check the windows of the group that the training starts with; of a group from the web one subject."""
    folders = {split.dataset: shards for split, shards in used}
    check_continuity(
        _group(windows, number),
        lambda dataset, subject: subject_shards(folders[dataset], dataset, subject),
        subjects=1 if any(is_url(shards) for shards in folders.values()) else 4,
    )


def _weights(initial: Path | None) -> list[Path]:
    if initial is None:
        return []
    return [path for path in (initial / WEIGHTS, initial / "pytorch_model.bin") if path.exists()]


def _groups(
    training: Corpus, held_out: Corpus | None, checkpoints: CheckpointFolder, *, goes_on: bool, writes: bool
) -> list[Group]:
    """Return the datasets and repetition times of the runs; of a training that goes on, of those it began with."""
    path = checkpoints.path / _GROUPS
    if goes_on:
        return [(dataset, t_r) for dataset, t_r in read_json(path)]
    groups = groups_of(training, held_out)
    if writes:
        write_json(path, groups)
    return groups


def _start(
    objective: Objective,
    runs: Corpus,
    groups: list[Group],
    validate: UpstreamValidation | None,
    linear: Forecasts | None,
    options: PretrainOptions,
) -> None:
    """Fit to the training runs what the network starts from: linear forecasts, components of its frames."""
    if objective.is_fitted:
        fits = linear or fit_forecasts(runs, groups)
        couplings = validate.choose_couplings(fits) if validate else fitted_couplings(fits)
        objective.start(couplings, partial(coming_components, runs))
    if options.start == "components" and isinstance(objective.network, Network):
        objective.network.start_embedding(leading_components(runs))


def _held_out(
    paths: list[Path | str], options: PretrainOptions, contract: Contract, source: Shards
) -> Corpus | None:
    """Return the runs of the held-out subjects; None where no subject is held out."""
    if not paths:
        return None
    corpus = source.corpus(paths)
    check_same(contract, corpus.contract, remote.shown(paths[0]), corpus.keys[0], options.allow_mismatch)
    return corpus


def _validation(
    held_out: Corpus | None,
    options: PretrainOptions,
    training: Corpus,
    checkpoints: CheckpointFolder,
    linear: Forecasts | None,
) -> UpstreamValidation | None:
    """Return the validation on the held-out subjects; None where no subject is held out."""
    if held_out is None:
        return None
    wanted = window_options(options, _VALIDATION_BATCH)
    windows = Windows(held_out, wanted, options.seed + _VALIDATION_SEED, options.validation_windows)
    cache = checkpoints.path / _COMPARISONS
    return UpstreamValidation(
        windows, _VALIDATION_BATCH, training=training, fitted=linear, cache=cache, calibrate=True
    )


def _untrained(name: str, output: Path, outcome: Fit) -> InputError:
    """Say that a training made nothing better; its checkpoints stay."""
    losses = {row["step"]: row["loss"] for row in outcome.eval_rows}
    message = (
        f"no validation was better than the one before the first step: loss {losses[0]:.4f} then, "
        f"{losses[outcome.step]:.4f} at best, at step {outcome.step}"
    )
    where = f"pretrain.experiments.{name}"
    remedy = (
        f"train on more runs, longer, or with a lower learning_rate; {where}.keep_untrained: true keeps the "
        f"weights of step {outcome.step} (the training is not repeated)"
    )
    return InputError(Problem(str(output / "eval_history.csv"), name, message, remedy))


def _tell_of_scale(name: str, runs: Corpus) -> None:
    """Warn of signals that are far from mean zero and variance one, which networks are built for."""
    frames = runs.frames[:: -(-len(runs.frames) // _SCALE_FRAMES)].astype(np.float32)
    level, spread = float(np.abs(frames.mean(axis=0)).mean()), float(frames.std(axis=0).mean())
    if level > _MOST_LEVEL or not 1 / _MOST_SPREAD < spread < _MOST_SPREAD:
        message = "%s: signals have a mean of %.3g and an SD of %.3g: z-score runs, or little is learned"
        logger.warning(message, name, level, spread)


def _tell_of_zeros(name: str, outcome: Fit) -> None:
    """Warn of weights that say signals no better than zeros do: they have learned next to nothing."""
    for row in outcome.eval_rows:
        if row["step"] == outcome.step and row["l1"] >= row["l1_zero"]:
            message = "%s: the weights of step %d err no less than predicting zero (L1 %.4f, %.4f): train longer"
            logger.warning(message, name, outcome.step, row["l1"], row["l1_zero"])


def _check_compiler(name: str) -> None:
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        where, message = f"pretrain.experiments.{name}.compile", f"there is no C++ compiler {compiler}"
        raise InputError(Problem(where, name, message, "install g++, name another one in CXX, or set it to false"))
