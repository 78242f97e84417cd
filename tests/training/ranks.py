"""One of several processes that train together, for tests: told when to stop, and what it drew.

Usage, under torchrun: python -m tests.training.ranks FOLDER [RANK STEP]
The process RANK sends itself SIGTERM when the batch of STEP is cut. Each process writes what its generator was
like in every step; the first one writes the weights.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from boldly.config import PretrainOptions
from boldly.files import write_json
from boldly.models.build import build_network, pretraining_config
from boldly.samples.windows import Batch, Windows, window_options
from boldly.training.trainer import fit
from tests.training import synthetic

OPTIONS = PretrainOptions(
    framework="csm", layers=1, width=16, heads=2, dropout=0.2, batch_size=4, steps=40, checkpoint_every=15
)


class Stopping(Windows):
    """Windows that ask this process to stop."""

    stop_at: int | None = None

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        if self.stop_at is not None and indices[0] // OPTIONS.batch_size == self.stop_at:
            signal.raise_signal(signal.SIGTERM)
        return super().__getitems__(indices)


def main(folder: Path, stop_rank: int = -1, stop_at: int = -1) -> None:
    rank = int(os.environ["RANK"])
    corpus = synthetic.corpus([60] * 4)
    windows = Stopping(corpus, window_options(OPTIONS, 4), 1, OPTIONS.steps * 4)
    windows.stop_at = stop_at if rank == stop_rank else None
    network, drawn = build_network(pretraining_config(OPTIONS, 16), 1), []

    def remember(module: nn.Module, inputs: object) -> None:
        drawn.append(int(torch.get_rng_state().long().mul(torch.arange(5056)).sum()))

    network.register_forward_pre_hook(remember)
    outcome = fit(network, windows, OPTIONS, name="toy", validate=None, keys=windows.keys, seed=1, folder=folder)
    write_json(folder / f"drawn-{rank}.json", drawn)
    if rank == 0:
        save_file(outcome.weights, folder / "weights.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
