"""How long a training takes to forecast as well as the reference's does, on real runs and at equal precision.

Both sides train causal sequence modeling of the size of `config/song.yaml` in float32 on the runs of seven people
and forecast the last frame of the same windows of two others: 30 frames of 200 parcels, one repetition time. The
reference is the plain re-statement in `reference_training.py`; it reads tars with pickles, and its target is one
frame of a window. It trains at each of some constant learning rates; the row has its smallest error, reached
in the given number of steps. Ours reads shards. Its time counts reading, the fit of the linear forecast that it
starts from, and steps; the time of validations counts on neither side. The ratio is given where ours errs no more.

default: as `boldly pretrain` trains.
without linear start: the same network, which has to learn by its steps what a linear fit would tell it.
linear start alone: no step at all.

Usage: SONG=/path/to/song python benchmarks/time_to_error.py [--steps 400]
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import reference_training as reference
import torch
from torch import Tensor

from boldly.config import PretrainOptions, load_config
from boldly.files import write_tsv
from boldly.models.build import build_network, build_objective, pretraining_config, window_options
from boldly.models.objective import Objective, Row
from boldly.samples.corpus import Corpus, load_corpus
from boldly.samples.windows import Windows
from boldly.training.components import coming_components, leading_components
from boldly.training.linear import fit_linear, fitted_couplings
from boldly.training.loop import fit
from boldly.training.processes import Processes

TABLE = Path("results/benchmarks/time_to_error.tsv")
LENGTH, WINDOWS = 30, 512
EVERY = 25
RATES = (5e-4, 2e-3)


class _ReachedError(Exception):
    """The error aimed at is reached."""


class Clock:
    """Seconds since the start without those of validations."""

    def __init__(self) -> None:
        self._start, self._out = time.perf_counter(), 0.0

    def seconds(self) -> float:
        """Return the seconds so far."""
        return time.perf_counter() - self._start - self._out

    def leave_out(self, since: float) -> None:
        """Do not count what passed since a `time.perf_counter()`."""
        self._out += time.perf_counter() - since


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=400, help="steps of the reference")
    steps = parser.parse_args().steps
    if "SONG" not in os.environ:
        sys.exit("time_to_error: export SONG=/path/to/song first (see config/song.yaml)")
    paths = sorted(Path(os.environ["SONG"], "ds-songup").glob("*.tar"))
    people = sorted({path.name.split("_")[1] for path in paths})
    held_out = [path for path in paths if path.name.split("_")[1] in people[-2:]]
    training = [path for path in paths if path not in held_out]
    windows = last_frames(load_corpus(held_out))
    options = load_config(Path("config/song.yaml"), Path()).pretrain.experiments["csm"]
    options = options.model_copy(update={"precision": "float32", "evaluate_every": EVERY})

    curves = {rate: reference_curve(load_corpus(training), windows, options, rate, steps) for rate in RATES}
    rate = min(curves, key=lambda rate: min(error for _, _, error in curves[rate]))
    step, seconds, error = min(curves[rate], key=lambda point: point[2])
    rows: list[dict[str, str | int | float]] = [
        {"training": f"reference, learning rate {rate:g}", "step": step, "seconds": seconds, "L1": error}
    ]
    for name, linear, most in (("default", True, options.steps), ("without linear start", False, options.steps)):
        step, seconds, reached = ours(training, windows, options, error, linear=linear, most=most)
        rows.append({"training": name, "step": step, "seconds": seconds, "L1": reached})
    start = Clock()
    corpus = load_corpus(training)
    ((_, coupling),) = fitted_couplings(fit_linear(corpus, None)).items()
    seconds = start.seconds()
    rows.insert(1, {"training": "linear start alone", "step": 0, "seconds": seconds, "L1": np.nan})
    forecast = windows[:, -2].numpy() @ coupling
    rows[1]["L1"] = float(np.abs(forecast - windows[:, -1].numpy()).mean())
    table = pd.DataFrame(rows)
    slowest = table["seconds"].iloc[0]
    table["ratio"] = np.where(table["L1"] <= error, slowest / table["seconds"], np.nan)
    table["zeros L1"] = float(windows[:, -1].abs().mean())
    print(table.round(4).to_string(index=False))
    write_tsv(TABLE, table.round(4))


def last_frames(corpus: Corpus) -> Tensor:
    """Return windows of held-out runs, (B, L, P); the last frame of each is to be forecast."""
    rng = np.random.default_rng(5)
    runs = rng.integers(len(corpus), size=WINDOWS)
    onsets = [int(rng.integers(corpus.lengths[run] - LENGTH + 1)) for run in runs]
    cut = [
        corpus.signals(run)[onset : onset + LENGTH].astype(np.float32)
        for run, onset in zip(runs, onsets, strict=True)
    ]
    return torch.from_numpy(np.stack(cut))


def reference_curve(
    corpus: Corpus, windows: Tensor, options: PretrainOptions, rate: float, steps: int
) -> list[tuple[int, float, float]]:
    """Train the reference; return step, seconds and error of each validation."""
    torch.manual_seed(0)
    sizes = (corpus.frames.shape[1], options.width, options.layers, options.heads, options.dropout)
    network = reference.ReferenceNetwork("csm", *sizes)
    optimiser = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=options.weight_decay, fused=True)
    t_r = float(corpus.t_r[0])
    seconds = (torch.arange(LENGTH) * t_r).expand(len(windows), LENGTH)
    places = torch.full((len(windows),), LENGTH - 1)
    curve = []
    with tempfile.TemporaryDirectory() as folder:
        tars = [Path(folder, f"run-{number}.tar") for number in range(len(corpus))]
        for number, path in enumerate(tars):
            reference.write_run(path, corpus.signals(number), t_r)
        clock = Clock()
        batches = reference.batches(tars, options.batch_size, pairs=False)
        for step in range(1, steps + 1):
            loss = network(next(batches))
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
            if step % EVERY == 0:
                since = time.perf_counter()
                network.eval()
                with torch.inference_mode():
                    error = float(network.masked_error(windows, seconds, places).mean())
                network.train()
                clock.leave_out(since)
                curve.append((step, clock.seconds(), error))
                print(
                    f"reference, rate {rate:g}, step {step}: {clock.seconds():.1f} s, L1 {error:.4f}", flush=True
                )
    return curve


def ours(
    paths: list[Path], windows: Tensor, options: PretrainOptions, aim: float, *, linear: bool, most: int
) -> tuple[int, float, float]:
    """Train until the error is reached, or to the end; return step, seconds and error."""
    clock = Clock()
    corpus = load_corpus(paths)
    config = pretraining_config(options, corpus.frames.shape[1], sorted(set(corpus.groups)))
    objective = build_objective(build_network(config, options.seed))
    if linear:
        objective.start(fitted_couplings(fit_linear(corpus, None)), partial(coming_components, corpus))
    objective.network.start_embedding(leading_components(corpus))
    source = Windows(corpus, window_options(options, options.batch_size), options.seed, most * options.batch_size)
    found: list[tuple[int, float, float]] = []

    def validate(trained: Objective, processes: Processes) -> Row:
        since = time.perf_counter()
        batch = {
            "inputs": windows[:, :-1],
            "seconds": (torch.arange(LENGTH - 1) * float(corpus.t_r[0])).expand(len(windows), -1),
            "t_r": torch.full((len(windows),), float(corpus.t_r[0])),
            "marked": torch.zeros(len(windows), windows.shape[2], dtype=torch.bool),
        }
        with torch.inference_mode():
            said = trained.network.predict_next(**batch)[:, -1]
        error = float((said - windows[:, -1]).abs().mean())
        clock.leave_out(since)
        found.append((len(found) * EVERY, clock.seconds(), error))
        print(
            f"ours, linear start {linear}, step {found[-1][0]}: {found[-1][1]:.1f} s, L1 {error:.4f}", flush=True
        )
        if error <= aim and len(found) > 1:
            raise _ReachedError
        return {"criterion": error, "l1": error}

    try:
        fit(objective, source, options, name="csm", validate=validate, seed=options.seed, validate_first=True)
    except _ReachedError:
        return found[-1]
    return min(found, key=lambda point: point[2])


if __name__ == "__main__":
    main()
