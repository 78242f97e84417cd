"""Stage pretrain: a network learns the dynamics of unlabelled runs."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

import numpy as np

from boldly.config import PretrainOptions, parse
from boldly.files import write_json
from boldly.models.build import WEIGHTS, build_network, pretraining_config, save_network
from boldly.models.csm import CausalNetwork
from boldly.models.initial import initialise
from boldly.provenance import check_same, environment, file_sha256
from boldly.records import InputError, Problem
from boldly.samples.corpus import Corpus, load_corpus
from boldly.samples.shards import subject_shards
from boldly.samples.splits import UpstreamSplit, read_split
from boldly.samples.windows import Windows, window_options
from boldly.training import distributed
from boldly.training.checkpoints import CheckpointFolder
from boldly.training.journal import write_history
from boldly.training.trainer import fit
from boldly.training.validation import UpstreamValidation

logger = logging.getLogger(__name__)

# Validation windows are drawn with another seed than those of the training.
_VALIDATION_SEED = 1 << 32
# Of the order in which shares of the training subjects grow.
_SHARE_SEED = 1
# Validation windows of one length: few, so that many lengths are seen.
_VALIDATION_BATCH = 32

Data = list[tuple[Path, Path]]


def run(
    *,
    name: str,
    options: PretrainOptions,
    data: Data,
    output: Path,
    initial: Path | None = None,
    processes: int = 1,
) -> None:
    """Pretrain a network.

    Steps: read the shards of the training and validation subjects; train, validating on fixed windows of the
    validation subjects; keep the weights of the best validation. An interrupted training goes on from its last
    checkpoint (in ``output/checkpoints``), with the same outcome.

    Parameters
    ----------
    name : str
        Experiment.
    options : PretrainOptions
        Network and training.
    data : list of (Path, Path)
        Split JSON and shard folder of each dataset; those that `options.datasets` leaves out are not read.
    output : Path
        Folder for model.safetensors, config.json, contract.json, train_history.csv, eval_history.csv and
        manifest.json.
    initial : Path, optional
        Folder of the weights to start from (see `boldly.models.initial.initialise`); None: untrained.
    processes : int, default=1
        Processes that share a batch; on GPUs one per device.

    Raises
    ------
    InputError
        For damaged shards, shards of different contracts, runs that are too short, checkpoints of another config,
        and a loss that is no number.
    """
    splits = [(read_split(split, "upstream"), shards) for split, shards in data]
    used = [item for item in splits if options.datasets is None or item[0].dataset in options.datasets]
    training = [path for split, shards in used for path in _paths(split, _share(split, options), shards)]
    validation = [path for split, shards in used for path in _paths(split, split.validation, shards)]
    checkpoints = CheckpointFolder(output / "checkpoints")
    experiment = {
        "options": options.model_dump(mode="json"),
        "training": {path.name: file_sha256(path) for path in training},
        "validation": {path.name: file_sha256(path) for path in validation},
        "initial": {path.name: file_sha256(path) for path in _weights(initial)},
    }
    if not distributed.inside():
        checkpoints.claim(experiment)
    if processes > 1 and not distributed.inside():
        _check_share(name, options, processes)
        distributed.launch("boldly.stages.pretrain", [_pack(name, options, data, output, initial)], processes)
        return

    corpus = load_corpus(training)
    config = pretraining_config(options, corpus.frames.shape[1])
    windows = Windows(
        corpus, window_options(options, options.batch_size), options.seed, options.steps * options.batch_size
    )
    network = build_network(config, options.seed)
    if isinstance(network, CausalNetwork):
        network.start_memory(corpus.memory_s())
    if initial is not None:
        initialise(network, initial)
    outcome = fit(
        network,
        windows,
        options,
        name=name,
        validate=_validation(validation, options, corpus),
        keys=lambda numbers: [corpus.keys[r] for r in sorted(set(windows.runs(numbers)))],
        seed=options.seed,
        folder=output,
        deepspeed=options.deepspeed,
        track=options.track,
    )
    if not distributed.is_first():
        return
    write_history(output / "train_history.csv", outcome.train_rows)
    write_history(output / "eval_history.csv", outcome.eval_rows)
    about = {"experiment": name, **experiment, "step": outcome.step, "seconds": round(outcome.seconds, 1)}
    write_json(output / "manifest.json", {**about, "environment": environment()})
    save_network(output, config, outcome.weights, corpus.contract)
    checkpoints.delete()
    logger.info("%s: weights of step %d of %d, %.0f s", name, outcome.step, options.steps, outcome.seconds)


def _paths(split: UpstreamSplit, subjects: tuple[str, ...], shards: Path) -> list[Path]:
    return [path for subject in subjects for path in subject_shards(shards, split.dataset, subject)]


def _share(split: UpstreamSplit, options: PretrainOptions) -> tuple[str, ...]:
    """Choose training subjects, at least one; they do not depend on the experiment, so that shares are nested."""
    order = np.random.default_rng(_SHARE_SEED).permutation(len(split.train))
    count = max(1, round(options.subjects_fraction * len(split.train)))
    return tuple(split.train[number] for number in sorted(order[:count]))


def _weights(initial: Path | None) -> list[Path]:
    if initial is None:
        return []
    return [path for path in (initial / WEIGHTS, initial / "pytorch_model.bin") if path.exists()]


def _validation(paths: list[Path], options: PretrainOptions, training: Corpus) -> UpstreamValidation | None:
    """Return the validation on the held-out subjects; None where no subject is held out."""
    if not paths:
        return None
    corpus = load_corpus(paths)
    check_same(training.contract, corpus.contract, str(paths[0]), corpus.keys[0])
    windows = Windows(
        corpus,
        window_options(options, _VALIDATION_BATCH),
        options.seed + _VALIDATION_SEED,
        options.validation_windows,
    )
    return UpstreamValidation(windows, _VALIDATION_BATCH)


def _check_share(name: str, options: PretrainOptions, processes: int) -> None:
    if options.batch_size % processes:
        message = f"{options.batch_size} windows cannot be shared evenly by {processes} processes"
        where = f"pretrain.experiments.{name}.batch_size"
        raise InputError(Problem(where, name, message, f"choose a multiple of {processes}"))


def _pack(name: str, options: PretrainOptions, data: Data, output: Path, initial: Path | None) -> str:
    content = {
        "name": name,
        "options": options.model_dump(mode="json"),
        "data": [[str(split), str(shards)] for split, shards in data],
        "output": str(output),
        "initial": str(initial) if initial else None,
    }
    return json.dumps(content)


def _worker(packed: str) -> int:
    """Be one of several processes."""
    logging.basicConfig(level=logging.INFO if distributed.is_first() else logging.WARNING, format="%(message)s")
    content = json.loads(packed)
    try:
        run(
            name=content["name"],
            options=parse(PretrainOptions, content["options"], "options"),
            data=[(Path(split), Path(shards)) for split, shards in content["data"]],
            output=Path(content["output"]),
            initial=Path(content["initial"]) if content["initial"] else None,
        )
    except InputError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_worker(sys.argv[1]))
