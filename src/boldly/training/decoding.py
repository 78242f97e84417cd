"""Applying a trained decoder: one pass over fixed trials."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from boldly.models.build import load_config, load_contract, load_network
from boldly.provenance import check_same
from boldly.records import InputError, Problem
from boldly.samples.corpus import Corpus
from boldly.samples.windows import TRIALS_PER_BATCH, Trials, to_device


def predict(folder: Path | str, corpus: Corpus, *, allow_mismatch: Collection[str] = ()) -> NDArray[np.float32]:
    """Return the probability of each state for each trial, in the order of the corpus.

    Parameters
    ----------
    folder : Path or str
        A decoder trained by stage adapt.
    corpus : Corpus
        The trials; longer ones are cut as they were in training.
    allow_mismatch : collection of str
        Contract fields in which model and trials may differ.

    Returns
    -------
    ndarray of float32, shape (R, n_labels)

    Raises
    ------
    InputError
        If the contracts differ, or the folder holds no decoder.
    """
    return torch.from_numpy(predict_logits(folder, corpus, allow_mismatch=allow_mismatch)).softmax(dim=1).numpy()


def predict_logits(
    folder: Path | str, corpus: Corpus, *, allow_mismatch: Collection[str] = ()
) -> NDArray[np.float32]:
    """Return the logits that `predict` makes probabilities of."""
    check_same(load_contract(folder), corpus.contract, str(folder), corpus.keys[0], allow_mismatch)
    return logits_of(load_decoder(folder), corpus)


def load_decoder(folder: Path | str) -> nn.Module:
    """Read a network with a head, in evaluation mode.

    Raises
    ------
    InputError
        If the folder holds no decoder.
    """
    if not load_config(folder).labels:
        raise InputError(
            Problem(str(folder), "", "a pretrained network, not a decoder", "give a folder that adapt wrote")
        )
    return load_network(folder)


def logits_of(network: nn.Module, corpus: Corpus) -> NDArray[np.float32]:
    """Return the logits of a decoder for each trial, shape (R, n_labels), on a GPU where there is one."""
    sizes: Any = network.sizes
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network.to(device)
    trials = Trials(corpus, sizes.window_frames)
    parts = []
    with torch.inference_mode():
        for start in range(0, len(trials), TRIALS_PER_BATCH):
            batch = trials.__getitems__(range(start, min(start + TRIALS_PER_BATCH, len(trials))))
            del batch["labels"]
            parts.append(network(**to_device(batch, device))["logits"].cpu())
    return torch.cat(parts).numpy()
