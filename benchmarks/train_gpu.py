"""Training on a GPU: samples per second, model FLOP utilisation and the wait for the loader, beside the reference.

Data, sizes and the re-statement of the reference are those of `train.py`; batches of 192 windows. Ours computes in
bfloat16, the reference in float16 mixed precision as published.

samples per second: through whole training steps with loading; fastest turn of each side.
model FLOP utilisation: floating-point operations of the matrix products and attention of a step, as torch counts
    them, by the seconds of a step and the peak of the device (`--peak-tflops`, dense bfloat16). Only for ours.
loader wait: share of a step in which the device waits for its batch: the time of a step less that of a step on a
    batch that lies on the device already.

Without a GPU it says so and ends with status 2; `--cpu` exercises the code on a CPU at tiny sizes.

Usage: python benchmarks/train_gpu.py [--peak-tflops 989] [--cpu]
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import reference_training as reference
import torch
from torch.utils.flop_counter import FlopCounterMode
from train import (
    DEFAULT,
    FRAMEWORKS,
    QUICK,
    Data,
    Sizes,
    generate,
    options_of,
    our_batches,
    reference_network,
    stepper,
)

from boldly.config import Framework
from boldly.files import write_tsv
from boldly.models.build import build_network, build_objective, pretraining_config
from boldly.samples.windows import Batch, to_device

TABLE = Path("results/benchmarks/train_gpu.tsv")
# Steps of a turn: the device is waited for once, at its end.
STEPS = 10

Row = tuple[str, float, float, str]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--peak-tflops", type=float, help="dense bfloat16 peak of the device; default: not reported"
    )
    parser.add_argument("--cpu", action="store_true", help="tiny sizes on a CPU; the table is not written")
    arguments = parser.parse_args()
    if not arguments.cpu and not torch.cuda.is_available():
        sys.exit(_no_gpu())
    device = torch.device("cpu" if arguments.cpu else "cuda")
    sizes = QUICK if arguments.cpu else dataclasses.replace(DEFAULT, batch=192)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="boldly-benchmark-") as folder:
        data = generate(Path(folder) / "data", sizes)
        for framework in FRAMEWORKS:
            rows += measure(framework, data, sizes, device, arguments.peak_tflops)
    table = pd.DataFrame(rows, columns=["metric", "ours", "reference", "unit"])
    table.insert(3, "ratio", table["ours"] / table["reference"])
    print(table.to_string(index=False, float_format=lambda value: f"{value:.4g}"))
    if not arguments.cpu:
        write_tsv(TABLE, table)


def _no_gpu() -> int:
    print(
        "train_gpu: no CUDA device is visible; run it on a machine with a GPU, or with --cpu to try the code",
        file=sys.stderr,
    )
    return 2


def measure(framework: Framework, data: Data, sizes: Sizes, device: torch.device, peak: float | None) -> list[Row]:
    """Measure the steps of one framework."""
    options = options_of(framework, sizes)
    objective = build_objective(build_network(pretraining_config(options, sizes.n_parcels), 1)).to(device)
    plain = reference_network(framework, sizes).to(device)
    step, other_step = stepper(objective, options), stepper(plain, options)
    mean = sum(options.window_frames) // 2
    windows = our_batches(data, options.model_copy(update={"window_frames": (mean, mean)}), sizes)
    theirs = reference.batches(data.tars, sizes.batch, pairs="bert" in framework)

    def train_on(batch: Batch) -> None:
        with torch.autocast(device.type, torch.bfloat16):
            loss = objective(**batch)["loss"]
        step(loss)

    def other() -> None:
        batch = to_device(next(theirs), device)
        with torch.autocast(device.type, torch.float16, enabled=device.type == "cuda"):
            loss = plain(batch)
        other_step(loss)

    there = to_device(next(windows), device)
    seconds = fastest(lambda: train_on(to_device(next(windows), device)), device, sizes.turns)
    without_loading = fastest(lambda: train_on(there), device, sizes.turns)
    other_seconds = fastest(other, device, sizes.turns, steps=2)
    with FlopCounterMode(display=False) as counter:
        train_on(there)
    rate = sizes.batch / np.array([seconds, other_seconds])
    rows: list[Row] = [(f"samples per second ({framework})", rate[0], rate[1], "1/s")]
    wait = max(0.0, 1 - without_loading / seconds)
    rows.append((f"loader wait ({framework})", wait, np.nan, "share"))
    achieved = counter.get_total_flops() / seconds / 1e12
    rows.append((f"model TFLOP per second ({framework})", achieved, np.nan, "TFLOP/s"))
    if peak is not None:
        rows.append((f"model FLOP utilisation ({framework})", achieved / peak, np.nan, "share"))
    return rows


def fastest(work: Callable[[], object], device: torch.device, turns: int, steps: int = STEPS) -> float:
    """Return the fewest seconds of a step; the first turn warms up."""
    return min(_turn(work, device, steps) for _ in range(turns + 1))


def _turn(work: Callable[[], object], device: torch.device, steps: int) -> float:
    _wait_for(device)
    started = time.perf_counter()
    for _ in range(steps):
        work()
    _wait_for(device)
    return (time.perf_counter() - started) / steps


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
