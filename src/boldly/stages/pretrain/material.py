"""What a pretraining is made from: shards, windows, validation windows, linear fits, and whom the data are of."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from functools import partial
from pathlib import Path

from boldly import bids
from boldly.config import PretrainOptions
from boldly.files import is_url, read_json, write_json
from boldly.models.build import CONTRACT, WEIGHTS, window_options
from boldly.models.network import Network
from boldly.models.objective import Objective
from boldly.provenance import Contract, check_same
from boldly.samples import remote
from boldly.samples.corpus import Corpus, Group
from boldly.samples.packed import PackedShards, Shards
from boldly.samples.seen import Seen, read_seen, seen_in
from boldly.samples.shards import subject_shards
from boldly.samples.splits import UpstreamSplit
from boldly.samples.streams import StreamedWindows
from boldly.samples.windows import Windows
from boldly.training.checkpoints import CheckpointFolder
from boldly.training.components import coming_components, leading_components
from boldly.training.linear import (
    Forecasts,
    fit_forecasts,
    fitted_couplings,
    groups_of,
    linear_name,
    made_of,
    read_linear,
)
from boldly.training.validation import UpstreamValidation

logger = logging.getLogger(__name__)

# Validation windows are drawn with another seed than those of the training.
_VALIDATION_SEED = 1 << 32
# Validation windows of one length: few, so that many lengths are seen.
_VALIDATION_BATCH = 32
# Errors of forecasts that were fitted to the training subjects.
COMPARISONS = "comparisons.json"
# Datasets and repetition times that a training began with.
_GROUPS = "groups.json"
# What a streamed training knows of the contracts of the shards that it has read.
_CONTRACT_SO_FAR = "contract.json"


def shards_of(split: UpstreamSplit, subjects: tuple[str, ...], shards: Path | str) -> list[Path | str]:
    """Return the shards of subjects of a split, files or web addresses."""
    return [path for subject in subjects for path in subject_shards(shards, split.dataset, subject)]


def seen_by(
    used: list[tuple[UpstreamSplit, Path | str]], options: PretrainOptions, initial: Path | None, source: Shards
) -> Seen:
    """Return the people and runs that train, or choose the weights, here or in the model that it starts from."""
    seen = Seen()
    if initial is not None and (initial / CONTRACT).exists():
        seen = read_seen(initial) or Seen(unknown=frozenset([str(initial)]))
    for split, shards in used:
        people = (*split.share(options.subjects_fraction), *split.validation)
        seen |= seen_in(split.dataset, people, shards_of(split, people, shards), source.fingerprints)
    return seen


def run_tables(used: list[tuple[UpstreamSplit, Path | str]]) -> dict[str, str]:
    """Return the checksums of the run tables beside shards at web addresses."""
    urls = [remote.join(str(shards), bids.runs_name(split.dataset)) for split, shards in used if is_url(shards)]
    return {remote.shown(url): hashlib.sha256(remote.fetch(url)).hexdigest() for url in urls}


def training_windows(
    paths: list[Path | str],
    options: PretrainOptions,
    source: Shards,
    checkpoints: CheckpointFolder,
    *,
    writes: bool,
) -> Windows | StreamedWindows:
    """Return the windows of the training, of one corpus or of groups of shards.

    The contract of the shards that were read is kept beside the checkpoints: a training that goes on does not read
    the groups before again.
    """
    wanted = window_options(options, options.batch_size)
    count = options.steps * options.batch_size
    if options.stream_shards is None:
        return Windows(source.corpus(paths), wanted, options.seed, count)
    turns = -(-options.steps // options.stream_steps) * options.stream_shards
    if turns < len(paths):
        message = "%d of %d shards at most have their turn in %d steps: raise stream_shards, or lower stream_steps"
        logger.warning(message, turns, len(paths), options.steps)
    so_far = checkpoints.path / _CONTRACT_SO_FAR

    def keep(contract: Contract) -> None:
        write_json(so_far, dataclasses.asdict(contract))

    return StreamedWindows(
        paths,
        wanted,
        options.seed,
        count,
        group_shards=options.stream_shards,
        group_windows=options.stream_steps * options.batch_size,
        allow_mismatch=options.allow_mismatch,
        contract=Contract.from_json(so_far.read_text(encoding="utf-8")) if so_far.exists() else None,
        on_contract=keep if writes else None,
    )


def corpus_at(windows: Windows | StreamedWindows, number: int) -> Corpus:
    """Return the runs that a window is cut from; streamed, those of its group (behind the end, of the last)."""
    return group_at(windows, number).corpus


def group_at(windows: Windows | StreamedWindows, number: int) -> Windows:
    """Return the windows among which the one with this number is; streamed, those of its group of shards."""
    return windows.at([min(number, len(windows) - 1)]) if isinstance(windows, StreamedWindows) else windows


def linear_fits(
    source: Shards, training: list[Path | str], validation: list[Path | str], options: PretrainOptions
) -> Forecasts | None:
    """Return the linear fits beside a packed corpus; None where there is none: then they are made when needed."""
    if not isinstance(source, PackedShards) or options.stream_shards is not None:
        return None
    shards = made_of(source.identities(training), source.identities(validation))
    return read_linear(source.folder / linear_name(options.subjects_fraction), shards)


def initial_weights(initial: Path | None) -> list[Path]:
    """Return the files of weights in the folder that a training starts from."""
    if initial is None:
        return []
    return [path for path in (initial / WEIGHTS, initial / "pytorch_model.bin") if path.exists()]


def groups_at_start(
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


def held_out_runs(
    paths: list[Path | str], options: PretrainOptions, contract: Contract, source: Shards
) -> Corpus | None:
    """Return the runs of the held-out subjects; None where no subject is held out."""
    if not paths:
        return None
    corpus = source.corpus(paths)
    check_same(contract, corpus.contract, remote.shown(paths[0]), corpus.keys[0], options.allow_mismatch)
    return corpus


def validation_of(
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
    cache = checkpoints.path / COMPARISONS
    return UpstreamValidation(
        windows, _VALIDATION_BATCH, training=training, fitted=linear, cache=cache, calibrate=True
    )


def start(
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
