"""Stage adapt: a network or a baseline learns to decode mental states from few labelled units."""

from __future__ import annotations

import gc
import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from boldly.bids import entities
from boldly.config import AdaptOptions
from boldly.files import read_json, write_json
from boldly.models.build import (
    WEIGHTS,
    build_network,
    decoder_config,
    load_config,
    load_contract,
    load_weights,
    part_of,
    save_network,
    transfer,
)
from boldly.models.network import NetworkConfig
from boldly.provenance import check_same, environment, file_sha256
from boldly.records import InputError, Problem
from boldly.samples.corpus import Corpus, load_corpus
from boldly.samples.shards import subject_shards
from boldly.samples.splits import DownstreamSplit, Draw, read_split
from boldly.samples.windows import Trials
from boldly.training.journal import write_history
from boldly.training.trainer import Fit, fit
from boldly.training.validation import DecoderValidation

logger = logging.getLogger(__name__)

MANIFEST = "adapt.json"
_RECORD = "fit.json"


@dataclass(frozen=True)
class _Upstream:
    """What a decoder takes from a pretrained network: its sizes, and its weights unless it starts untrained."""

    folder: Path
    config: NetworkConfig
    weights: dict[str, Tensor] | None
    checksum: str | None


def run(
    *,
    name: str,
    options: AdaptOptions,
    dataset: str,
    split: Path,
    shards: Path,
    model: Path | None,
    output: Path,
) -> None:
    """Train a decoder for each draw of training units and each seed.

    Each fit is independent of the others and written when it is done; an interrupted job goes on with those that
    are missing. `pretrained` and `scratch` differ in the starting weights only.

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
    model : Path, optional
        Upstream model folder; of a scratch network only the config is used. None for a baseline.
    output : Path
        Folder for ``n-<n>_draw-<d>_seed-<s>/`` and, last, adapt.json.

    Raises
    ------
    InputError
        For damaged shards, a model whose contract differs from that of the shards, or one that does not fit.
    """
    parts = read_split(split, "downstream")
    paths = _paths(parts, dataset, shards)
    corpus = load_corpus(paths)
    upstream = _load_upstream(options, model, corpus)
    config = decoder_config(
        options, corpus.label_names, corpus.frames.shape[1], upstream.config if upstream else None
    )
    experiment = {
        "options": options.model_dump(mode="json"),
        "trials": {path.name: file_sha256(path) for path in paths},
        "model": upstream.checksum if upstream else None,
    }
    jobs = [(draw, seed) for draw in parts.draws for seed in options.seeds]
    # The Trainer collects garbage before each fit; without this it walks through all imported modules each time.
    gc.freeze()
    records = []
    for number, (draw, seed) in enumerate(jobs, start=1):
        folder = output / f"n-{draw.n}_draw-{draw.draw}_seed-{seed}"
        signature = {**experiment, "draw": json.loads(json.dumps(asdict(draw))), "seed": seed}
        if not _is_finished(folder, signature):
            network = _start(config, upstream, options, seed)
            outcome = _fit(f"{name} on {dataset}", network, options, corpus, parts, draw, seed)
            _write(folder, config, corpus, outcome, signature)
            _report(f"{name} on {dataset}, fit {number}/{len(jobs)}", draw, seed, outcome)
        fit_record = read_json(folder / _RECORD)
        records.append(
            {
                "folder": folder.name,
                **{"n": draw.n, "draw": draw.draw, "seed": seed},
                **{key: fit_record[key] for key in ("step", "seconds")},
            }
        )
    kind = next(word for word in ("pretrained", "scratch", "baseline") if getattr(options, word) is not None)
    content = {"experiment": name, "dataset": dataset, "kind": kind, "fits": records}
    write_json(output / MANIFEST, {**content, **experiment, "environment": environment()})


def _paths(split: DownstreamSplit, dataset: str, shards: Path) -> list[Path]:
    """Return the shards of the units that train or validate; nobody looks at the test units here."""
    units = {unit for draw in split.draws for unit in (*draw.train, *draw.validation)}
    if split.by == "run":
        units = {entities(unit)["sub"] for unit in units}
    return [path for subject in sorted(units) for path in subject_shards(shards, dataset, subject)]


def _load_upstream(options: AdaptOptions, model: Path | None, corpus: Corpus) -> _Upstream | None:
    if options.baseline is not None:
        return None
    if model is None:
        raise ValueError("a network needs the folder of an upstream model")
    config = load_config(model)
    if config.n_parcels != corpus.frames.shape[1]:
        message = f"takes {config.n_parcels} parcels, the shards have {corpus.frames.shape[1]}"
        raise InputError(Problem(str(model), "", message, "prepare both with the same atlas"))
    check_same(load_contract(model), corpus.contract, str(model), corpus.datasets[0], options.allow_mismatch)
    if options.scratch is not None:
        return _Upstream(model, config, None, None)
    return _Upstream(model, config, load_weights(model), file_sha256(model / WEIGHTS))


def _start(config: NetworkConfig, upstream: _Upstream | None, options: AdaptOptions, seed: int) -> nn.Module:
    """Build a decoder with the weights that it starts from."""
    network = build_network(config, seed)
    if upstream is not None and upstream.weights is not None:
        transfer(network, upstream.weights, str(upstream.folder / WEIGHTS))
    for name, parameter in network.named_parameters():
        if part_of(name) in options.freeze:
            parameter.requires_grad_(False)
    return network


def _fit(
    name: str,
    network: nn.Module,
    options: AdaptOptions,
    corpus: Corpus,
    split: DownstreamSplit,
    draw: Draw,
    seed: int,
) -> Fit:
    """Train on the trials of a draw; seed decides on weights of the head, order of trials, and dropout."""
    train = _choose(corpus, split, draw.train)
    validation = _choose(corpus, split, draw.validation)
    trials = Trials(train, options.window_frames, seed, options.steps * options.batch_size, options.shortest_crop)
    return fit(
        network,
        trials,
        options,
        name=f"{name}, n {draw.n}, draw {draw.draw}, seed {seed}",
        validate=DecoderValidation(Trials(validation, options.window_frames)) if len(validation) else None,
        keys=lambda numbers: [train.keys[r] for r in sorted(set(trials.runs(numbers)))],
        seed=seed,
    )


def _choose(corpus: Corpus, split: DownstreamSplit, units: tuple[str, ...]) -> Corpus:
    owners = corpus.subjects if split.by == "subject" else corpus.runs
    return corpus.select(np.isin(np.array(owners), units))


def _write(folder: Path, config: NetworkConfig, corpus: Corpus, outcome: Fit, signature: dict[str, Any]) -> None:
    """Write a fit; its record comes last and says that it is complete."""
    (folder / _RECORD).unlink(missing_ok=True)
    write_history(folder / "train_history.csv", outcome.train_rows)
    write_history(folder / "eval_history.csv", outcome.eval_rows)
    save_network(folder, config, outcome.weights, corpus.contract)
    write_json(folder / _RECORD, {**signature, "step": outcome.step, "seconds": round(outcome.seconds, 2)})


def _is_finished(folder: Path, signature: dict[str, Any]) -> bool:
    path = folder / _RECORD
    return path.exists() and signature.items() <= read_json(path).items()


def _report(name: str, draw: Draw, seed: int, outcome: Fit) -> None:
    chosen = [row for row in outcome.eval_rows if row["step"] == outcome.step]
    accuracy = f"validation accuracy {chosen[0]['accuracy']:.3f}, " if chosen else ""
    logger.info(
        "%s: n %d, draw %d, seed %d, %sstep %d, %.1f s",
        *(name, draw.n, draw.draw, seed, accuracy, outcome.step, outcome.seconds),
    )
