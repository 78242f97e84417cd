"""One of several processes that train together, for tests: told when to stop, and what it drew and saw.

Usage: torchrun -m tests.training.ranks FOLDER SETTINGS
SETTINGS is a JSON object: `stop_rank` sends itself SIGTERM when the batch of step `stop_at` is cut; `options` are
those of the training. Each process writes what its generator was like in every step, and the types of what it
embedded; the first one writes the weights.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from boldly.config import PretrainOptions
from boldly.files import write_json
from boldly.models.build import build_network, build_objective, pretraining_config, window_options
from boldly.samples.windows import Batch, Windows
from boldly.training.loop import fit
from boldly.training.processes import joined_processes
from boldly.training.validation import UpstreamValidation
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


def main(folder: Path, stop_rank: int = -1, stop_at: int = -1, options: Any = None) -> None:
    rank = int(os.environ["RANK"])
    chosen = PretrainOptions.model_validate({**OPTIONS.model_dump(), **(options or {})})
    corpus = synthetic.corpus([60] * 4)
    windows = Stopping(corpus, window_options(chosen, chosen.batch_size), 1, chosen.steps * chosen.batch_size)
    windows.stop_at = stop_at if rank == stop_rank else None
    objective = build_objective(build_network(pretraining_config(chosen, 16), 1))
    drawn: list[int] = []
    types: set[str] = set()

    def remember(module: nn.Module, inputs: tuple[Tensor, Tensor]) -> None:
        types.update(str(tensor.dtype) for tensor in inputs)
        if module.training:
            drawn.append(int(torch.get_rng_state().long().mul(torch.arange(5056)).sum()))

    objective.network.embedder.time.register_forward_pre_hook(remember)
    try:
        # As stage pretrain does.
        with joined_processes():
            outcome = fit(
                objective,
                windows,
                chosen,
                name="toy",
                validate=UpstreamValidation(Windows(corpus, window_options(chosen, 8), 9, 16), 8, training=corpus),
                seed=1,
                folder=folder,
                deepspeed=chosen.deepspeed,
                validate_first=True,
            )
    finally:
        threads = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
        write_json(folder / f"threads-{rank}.json", threads)
    write_json(folder / f"seen-{rank}.json", {"drawn": drawn, "types": sorted(types)})
    if rank == 0:
        write_json(folder / "evaluation.json", outcome.eval_rows)
        save_file(outcome.weights, folder / "weights.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]), **json.loads(sys.argv[2]))
