"""What a pretraining leaves: manifest, network, components of its hidden states, errors of parcels."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from boldly.config import PretrainOptions
from boldly.files import write_json, write_tsv
from boldly.layout import PARCEL_ERRORS
from boldly.models.basis import Basis, save_basis
from boldly.models.build import build_network, build_objective, is_encoder, save_network
from boldly.models.network import NetworkConfig
from boldly.provenance import Contract, environment
from boldly.records import InputError, Problem
from boldly.samples.corpus import Corpus
from boldly.samples.seen import MANIFEST
from boldly.training.checkpoints import CheckpointFolder
from boldly.training.components import hidden_basis, signal_basis, unexplained
from boldly.training.history import write_history
from boldly.training.loop import Fit
from boldly.training.parcel_errors import COLUMNS, parcel_errors
from boldly.training.validation import UpstreamValidation

logger = logging.getLogger(__name__)


def write_manifest(
    output: Path, name: str, about: dict[str, Any], options: PretrainOptions, step: int, seconds: float
) -> None:
    """Write what a training was made from, its options, the step whose weights are kept, and its time."""
    outcome = {"options": options.model_dump(mode="json"), "step": step, "seconds": round(seconds, 1)}
    write_json(output / MANIFEST, {"experiment": name, **about, **outcome, "environment": environment()})


def save(
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


def write_parcel_errors(
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


def fit_components(
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
    write_manifest(output, name, about, options, 0, time.monotonic() - started)
    eye = np.eye(width, dtype=np.float32)[None]
    save_basis(output, Basis(basis.mean @ components, eye, basis.variance[:, :width]))
    save_network(output, config, {"components": torch.from_numpy(components.copy())}, contract)
    write_tsv(output / PARCEL_ERRORS, pd.DataFrame(columns=COLUMNS))
    CheckpointFolder(output / "checkpoints").delete()
    logger.info("%s: %d components, %.0f %% of the variance", name, width, 100 * (1 - shares["train"]))


def untrained(name: str, output: Path, outcome: Fit) -> InputError:
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


def tell_of_zeros(name: str, outcome: Fit) -> None:
    """Warn of weights that say signals no better than zeros do: they have learned next to nothing."""
    for row in outcome.eval_rows:
        if row["step"] == outcome.step and row["l1"] >= row["l1_zero"]:
            message = "%s: the weights of step %d err no less than predicting zero (L1 %.4f, %.4f): train longer"
            logger.warning(message, name, outcome.step, row["l1"], row["l1_zero"])
