"""Training against a plain re-statement of the reference's way (`reference_training.py`), in one run, on a CPU.

Sizes are the defaults: 1,024 parcels, width 768, 4 layers (autoencoding 2 + 2), 12 heads, batches of 32 windows of
10 to 50 frames; both windows of a pair have 10 to 50 frames together, on either side. Data are generated: 64 slow
latent processes that drive each other, mixed into the parcels, half of the variance noise; subjects share dynamics
and mixing. Both sides read the same runs, ours from shards, theirs from tars with pickles. Sides take turns, and a
figure is that of the fastest turn of each side, the one least disturbed by whatever else the machine does. Our
steps are timed on windows of the mean length: those of a batch share a length, those of the reference do not.
Ours computes in bfloat16 where a matrix product is faster in it, the reference in float32 as it does on a CPU.
The BERT frameworks read pairs of windows on both sides, though ours reads single ones by default. Samples are
windows or pairs, through whole training steps with their loading.

windows per second: delivered by the loader, batches of 32.
windows per second (pairs): the same for pairs.
targets per second: supervised frames of CSM: each frame but the first of a window (frames further ahead, which
    ours predicts as well, are not counted), or one frame. The ratio is that of samples times 29: the objective.
samples per second (csm), float32: both sides in float32; the rest of the ratio above is due to bfloat16.
samples per second (csm), float32, the same windows: windows of the mean length, cut by our loader on both sides:
    the reference neither pads nor waits. The rest of the ratio above is due to padding and loading.

Usage: python benchmarks/train.py [--quick]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import reference_training as reference
import torch
from torch import Tensor, nn

from boldly.bids import shard_name
from boldly.config import Framework, PretrainOptions
from boldly.files import write_tsv
from boldly.models.build import build_network, build_objective, pretraining_config, window_options
from boldly.provenance import Contract
from boldly.samples.corpus import Corpus, load_corpus
from boldly.samples.shards import Sample, write_shard
from boldly.samples.windows import Batch, Windows

TABLE = Path("results/benchmarks/train.tsv")
T_R = 2.0
N_FRAMES = 300
FRAMEWORKS: tuple[Framework, ...] = ("csm", "sequence_bert", "network_bert", "autoencoding")

Row = tuple[str, float, float, str]


@dataclass(frozen=True)
class Sizes:
    """What is measured."""

    n_parcels: int = 1024
    width: int = 768
    layers: int = 4
    heads: int = 12
    batch: int = 32
    n_runs: int = 72
    turns: int = 6
    steps: int = 60


DEFAULT = Sizes()
QUICK = Sizes(n_parcels=64, width=48, layers=2, heads=4, n_runs=9, turns=2, steps=20)


@dataclass(frozen=True)
class Data:
    """The same runs for both sides."""

    corpus: Corpus
    tars: list[Path]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small sizes; the table is not written")
    arguments = parser.parse_args()
    dtype = faster_dtype()
    print(f"{torch.get_num_threads()} threads; ours in {str(dtype).removeprefix('torch.')}", flush=True)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="boldly-benchmark-") as folder:
        sizes = QUICK if arguments.quick else DEFAULT
        data = generate(Path(folder) / "default", sizes)
        rows += loading(data, sizes)
        for framework in FRAMEWORKS:
            rows += training(framework, data, sizes, dtype)
    table = pd.DataFrame(rows, columns=["metric", "ours", "reference", "unit"])
    table.insert(3, "ratio", table["ours"] / table["reference"])
    print(table.to_string(index=False, float_format=lambda value: f"{value:.4g}"))
    if not arguments.quick:
        write_tsv(TABLE, table)


def faster_dtype() -> torch.dtype:
    """Return bfloat16 where this processor multiplies matrices faster in it than in float32."""
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        frames, weights = torch.randn(1024, 768).to(dtype), torch.randn(768, 768).to(dtype)
        seconds[dtype] = min(_seconds(partial(torch.mm, frames, weights)) for _ in range(10))
    return min(seconds, key=seconds.__getitem__)


def loading(data: Data, sizes: Sizes) -> list[Row]:
    """Measure the loaders."""
    kinds: tuple[tuple[Framework, str], ...] = (("csm", ""), ("sequence_bert", " (pairs)"))
    rows = []
    for framework, label in kinds:
        seconds, other = loading_times(data, framework, sizes)
        rows.append((f"windows per second{label}", sizes.batch / seconds, sizes.batch / other, "1/s"))
        print(rows[-1], flush=True)
    return rows


def loading_times(data: Data, framework: Framework, sizes: Sizes) -> tuple[float, float]:
    """Return the seconds that a batch takes on both sides."""
    count, options = 10, options_of(framework, sizes)
    theirs = reference.batches(data.tars, sizes.batch, pairs=framework != "csm")

    def ours() -> None:
        # The same windows at each turn: a turn of short ones would be the fastest.
        deque(islice(our_batches(data, options, sizes), count), maxlen=0)

    seconds, other = take_turns(ours, lambda: next(theirs), 10 * sizes.turns)
    return seconds / count, other


def training(framework: Framework, data: Data, sizes: Sizes, dtype: torch.dtype) -> list[Row]:
    """Measure whole steps."""
    options = options_of(framework, sizes)
    objective = build_objective(build_network(pretraining_config(options, sizes.n_parcels), 1))
    plain = reference_network(framework, sizes)
    step, other_step = (stepper(one, options) for one in (objective, plain))
    mean = sum(options.window_frames) // 2
    windows = our_batches(data, options.model_copy(update={"window_frames": (mean, mean)}), sizes)
    theirs = reference.batches(data.tars, sizes.batch, pairs="bert" in framework)

    def ours(dtype: torch.dtype) -> None:
        batch = next(windows)
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            loss = objective(**batch)["loss"]
        step(loss)

    def alike() -> None:
        batch = next(windows)
        length = torch.full((sizes.batch,), mean)
        other_step(plain({"inputs": batch["inputs"], "seconds": batch["seconds"], "length": length}))

    def compare(metric: str, one: Callable[[], None], other: Callable[[], None]) -> tuple[Row, Row]:
        seconds, theirs = (sizes.batch / seconds for seconds in take_turns(one, other, sizes.turns))
        rows = (metric, seconds, theirs, "1/s"), ("targets per second", (mean - 1) * seconds, theirs, "1/s")
        print(rows[0], flush=True)
        return rows

    def as_it_is() -> None:
        other_step(plain(next(theirs)))

    name = f"samples per second ({framework})"
    samples, targets = compare(name, partial(ours, dtype), as_it_is)
    if framework != "csm":
        return [samples]
    single = compare(f"{name}, float32", partial(ours, torch.float32), as_it_is)[0]
    same = compare(f"{name}, float32, the same windows", partial(ours, torch.float32), alike)[0]
    return [targets, samples, single, same]


def options_of(framework: Framework, sizes: Sizes) -> PretrainOptions:
    """Return our options; pairs have half the frames for each window."""
    pairs = "bert" in framework
    return PretrainOptions(
        framework=framework,
        width=sizes.width,
        heads=sizes.heads,
        layers=max(1, sizes.layers // 2) if framework == "autoencoding" else sizes.layers,
        batch_size=sizes.batch,
        pairs=pairs,
        window_frames=(5, 25) if pairs else (10, 50),
        mask_fraction=0.1 if framework == "network_bert" else 0.2,
        steps=sizes.steps,
        learning_rate=5e-4,
    )


def our_batches(data: Data, options: PretrainOptions, sizes: Sizes) -> Iterator[Batch]:
    """Cut batch after batch."""
    windows = Windows(data.corpus, window_options(options, sizes.batch), 1, 1 << 40)
    for start in range(0, len(windows), sizes.batch):
        yield windows.__getitems__(range(start, start + sizes.batch))


def reference_network(framework: Framework, sizes: Sizes) -> reference.ReferenceNetwork:
    options = options_of(framework, sizes)
    torch.manual_seed(1)
    return reference.ReferenceNetwork(
        framework, sizes.n_parcels, sizes.width, options.layers, sizes.heads, options.dropout
    )


def stepper(network: nn.Module, options: PretrainOptions) -> Callable[[Tensor], None]:
    """Return what turns a loss into a step: gradients, clipping, AdamW, learning rate."""
    betas, decay = (options.beta1, options.beta2), options.weight_decay
    optimiser = torch.optim.AdamW(
        network.parameters(), options.learning_rate, betas, weight_decay=decay, fused=True
    )
    warmup = max(1, round(options.warmup_fraction * options.steps))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min((step + 1) / warmup, max(0.0, 1 - step / options.steps))
    )

    def step(loss: Tensor) -> None:
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), options.gradient_clip)
        optimiser.step()
        schedule.step()

    return step


def take_turns(ours: Callable[[], object], other: Callable[[], object], turns: int) -> tuple[float, float]:
    """Return the fewest seconds of both; the first turn warms up."""
    seconds = [(_seconds(ours), _seconds(other)) for _ in range(turns + 1)]
    return min(first for first, _ in seconds[1:]), min(second for _, second in seconds[1:])


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def generate(folder: Path, sizes: Sizes) -> Data:
    """Write runs of as many subjects, as shards and as the reference's tars."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(20240607)
    n_latent = min(64, sizes.n_parcels // 4)
    turn = np.linalg.qr(rng.standard_normal((n_latent, n_latent)))[0]
    dynamics = 0.6 * np.eye(n_latent) + 0.35 * turn
    mixing = rng.standard_normal((n_latent, sizes.n_parcels)) / np.sqrt(n_latent)
    contract = Contract("generated", "0" * 64, sizes.n_parcels, "none", {}, None, None, None, True, "zscore")
    shards, tars = [], []
    for number in range(sizes.n_runs):
        frames = simulate(rng, dynamics, mixing)
        key = f"ds-bench_sub-{number:03d}_task-rest"
        meta = {"dataset": "bench", "subject": f"{number:03d}", "run_key": key, "t_r": T_R, "entities": {}}
        meta |= {"marked": [], "n_volumes": N_FRAMES}
        nothing, one = np.zeros(sizes.n_parcels, np.float32), np.ones(sizes.n_parcels, np.float32)
        shards.append(folder / shard_name("bench", f"{number:03d}"))
        write_shard(shards[-1], [Sample(key, frames.astype(np.float16), nothing, one, meta, contract)])
        tars.append(folder / f"reference-{number:03d}.tar")
        reference.write_run(tars[-1], frames, T_R)
    return Data(load_corpus(shards), tars)


def simulate(rng: np.random.Generator, dynamics: np.ndarray, mixing: np.ndarray) -> np.ndarray:
    """Return one run (T, P), z-scored: half of its variance is noise of single frames."""
    burn_in = 50
    latent = np.zeros((burn_in + N_FRAMES, len(dynamics)))
    for t in range(1, len(latent)):
        latent[t] = latent[t - 1] @ dynamics + rng.standard_normal(len(dynamics))
    signal = latent[burn_in:] @ mixing
    signal /= signal.std()
    data = signal + rng.standard_normal(signal.shape)
    return ((data - data.mean(axis=0)) / data.std(axis=0)).astype(np.float32)


if __name__ == "__main__":
    main()
