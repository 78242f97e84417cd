"""What is known of the published networks: names and shapes of their weights, and how small ones are built."""

from __future__ import annotations

from functools import cache
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from boldly.config import PretrainOptions
from boldly.models.build import window_options
from boldly.models.network import NetworkConfig, NetworkName
from boldly.samples.windows import Trials, Windows
from tests.training import synthetic

HERE = Path(__file__).parent
N_CLASSES = 7

FRAMEWORKS: dict[str, NetworkName] = {
    "CSM": "csm",
    "CSM_emb2": "csm",
    "BERT": "sequence_bert",
    "NetBERT": "network_bert",
    "autoencoder": "autoencoding",
    "decoding_GPT": "csm",
    "decoding_BERT": "sequence_bert",
    "decoding_NetBERT": "network_bert",
    "decoding_autoencoder": "autoencoding",
    "decoding_LinearBaseline": "linear",
}
PRETRAINING = [name for name in FRAMEWORKS if not name.startswith("decoding")]
DECODING = [name for name in FRAMEWORKS if name.startswith("decoding")]
P, W, WINDOW = 128, 64, 20


@cache
def _rows() -> list[list[str]]:
    return [line.split("\t") for line in (HERE / "weights.tsv").read_text().splitlines()[1:]]


def shapes(network: str) -> dict[str, tuple[int, ...]]:
    """Return the shape of each weight of a small published network."""
    found = {name: tuple(map(int, shape.split("x"))) for of, name, shape, _ in _rows() if of == network}
    assert found
    return found


def idle(network: str) -> set[str]:
    """Return the weights that get no gradient."""
    return {name for of, name, _, idle in _rows() if of == network and idle == "1"}


def weights(network: str, seed: int = 0) -> dict[str, Tensor]:
    """Return random weights."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(shape, generator=generator) / max(1.0, prod(shape[1:])) ** 0.5
        for name, shape in shapes(network).items()
    }


def sizes(network: str, **changes: Any) -> NetworkConfig:
    fields: dict[str, Any] = {"layers": 2, "heads": 4, "dropout": 0.1, "window_frames": WINDOW, "variant": "lfb"}
    fields["embedding_layers"] = 2 if network.endswith("emb2") else 1
    fields["labels"] = tuple(map(str, range(N_CLASSES))) if network in DECODING else ()
    return NetworkConfig(FRAMEWORKS[network], P, W, **(fields | changes))


def pretraining_batch(network: str, count: int = 5) -> dict[str, Any]:
    """Cut windows of 6 to 19 frames from four runs, as a pretraining does."""
    framework = FRAMEWORKS[network]
    options = PretrainOptions(framework=framework, variant="lfb", window_frames=(6, WINDOW), mask_fraction=0.3)
    corpus = synthetic.corpus([60, 45, 80, 70], t_r=[0.72, 2.0, 0.8, 1.5], n_parcels=P)
    return Windows(corpus, window_options(options, count), seed=3, count=100).__getitems__(range(count))


def trial_batch() -> dict[str, Any]:
    """Cut four trials, one of them as long as windows get."""
    labels = [0, 3, 6, 1]
    corpus = synthetic.corpus([9, 20, 14, 11], t_r=1.5, n_parcels=P, labels=labels, n_labels=N_CLASSES)
    return Trials(corpus, longest=WINDOW).__getitems__(range(4))
