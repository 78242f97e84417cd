"""Stage evaluate at the size of MDTB: time, memory and the size of the table of predictions.

The study has 9 test subjects of 544 trials in 16 runs, 11 for training and 3 for validation, and 26 states; 12
experiments of 20 fits each (1, 3, 6 and 11 training subjects, 5 draws): 1.2 million rows of 26 probabilities.
Shards are real ones of few parcels. Networks are left out: probabilities are random numbers, few of them small,
which is the hardest case for the table. Everything else is the stage as the workflow calls it, with 1,000
permutations and three controls.

evaluate: wall time of the stage; reference: a target of five minutes.
peak memory of evaluate: of its process; reference: what its rule asks for.
table of predictions: its size in MB (10**6 bytes); reference: the same without compression.
write one experiment: predictions of one experiment; reference: pandas' to_csv with %.6f, compressed alike.
read for the figure: the columns that figure downstream_confusion takes; reference: the whole table.

Usage: python benchmarks/evaluate.py
"""

from __future__ import annotations

import gzip
import resource
import sys
import tempfile
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from boldly.bids import sample_key, shard_name
from boldly.config import EvaluateOptions
from boldly.files import read_tsv, write_json, write_tsv
from boldly.provenance import Contract
from boldly.samples.corpus import Corpus
from boldly.samples.shards import Sample, write_shard
from boldly.stages import evaluate
from boldly.stages.evaluate.predictions import Experiment, FitPredictions, trials_of, write_predictions
from boldly.stages.figures.downstream_confusion import COLUMNS

TABLE = Path("results/benchmarks/evaluate.tsv")
TARGET_S = 300.0
TARGET_GB = 8.0
STATES = [f"state {number:02d}" for number in range(26)]
SUBJECTS = [f"{number + 1:02d}" for number in range(23)]
TEST, POOL = SUBJECTS[:9], SUBJECTS[9:]
RUNS, TRIALS = 16, 34
SIZES, DRAWS, EXPERIMENTS = (1, 3, 6, 11), 5, 12
PARCELS = 8
CONTRACT = Contract("toy", "0" * 64, PARCELS, "toy", {}, None, None, None, True, "zscore")


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="boldly-benchmark-") as temporary:
        table = measure(Path(temporary))
    print(table.to_string(index=False, float_format=lambda value: f"{value:.4g}"))
    write_tsv(TABLE, table)


def measure(folder: Path) -> pd.DataFrame:
    """Write a study, evaluate it, and take the table of predictions apart."""
    random = np.random.default_rng(0)
    for subject in SUBJECTS:
        write_subject(folder / "shards", subject, random)
    split, models = write_experiments(folder)
    seen: list[Corpus] = []
    replace_networks(random, seen)
    predictions = folder / "predictions.tsv.gz"

    def run() -> None:
        evaluate.run(
            dataset="mdtb",
            split=split,
            shards=folder / "shards",
            models=models,
            ceilings=None,
            options=EvaluateOptions(),
            scores=folder / "scores.tsv",
            comparisons=folder / "comparisons.tsv",
            choices=folder / "choices.tsv",
            predictions=predictions,
        )

    seconds = timed(run)
    memory_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    with gzip.open(predictions) as stream:
        plain_mb = sum(len(line) for line in stream) / 1e6
    ours, pandas = write_one(folder, seen[0], random)
    part = timed(lambda: read_tsv(predictions, columns=COLUMNS))
    whole = timed(lambda: read_tsv(predictions))
    rows = [
        ("evaluate", seconds, TARGET_S, "s"),
        ("peak memory of evaluate", memory_gb, TARGET_GB, "GB"),
        ("table of predictions", predictions.stat().st_size / 1e6, plain_mb, "MB"),
        ("write one experiment", ours, pandas, "s"),
        ("read for the figure", part, whole, "s"),
    ]
    table = pd.DataFrame(rows, columns=["metric", "ours", "reference", "unit"])
    table.insert(3, "ratio", table["reference"] / table["ours"])
    return table


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def write_subject(folder: Path, subject: str, random: np.random.Generator) -> None:
    samples = []
    for run in range(RUNS):
        key = f"ds-mdtb_sub-{subject}_ses-a{run // 8 + 1}_task-mdtb_run-{run % 8 + 1}"
        for number in range(TRIALS):
            label = int(random.integers(len(STATES)))
            meta: dict[str, Any] = {
                "dataset": "mdtb",
                "subject": subject,
                "run_key": key,
                "entities": {},
                "t_r": 1.0,
            }
            meta |= {"n_volumes": int(random.integers(25, 35)), "marked": [], "number": number}
            meta |= {"label": label, "label_name": STATES[label], "labels": STATES}
            meta |= {"position": number / TRIALS, "mean_fd_mm": float(random.gamma(2, 0.1))}
            bold, flat = np.zeros((meta["n_volumes"], PARCELS), np.float16), np.zeros(PARCELS, np.float32)
            samples.append(Sample(sample_key(key, number), bold, flat, flat, meta, CONTRACT))
    write_shard(folder / shard_name("mdtb", subject), samples)


def write_experiments(folder: Path) -> tuple[Path, list[Path]]:
    draws = []
    for n in SIZES:
        for draw in range(DRAWS):
            order = [POOL[(draw + place) % len(POOL)] for place in range(len(POOL))]
            parts = {"train": sorted(order[:n]), "validation": sorted(order[n : n + 3]), "test": TEST}
            draws.append({"n": n, "draw": draw, **parts})
    split = folder / "mdtb.json"
    write_json(split, {"dataset": "mdtb", "role": "downstream", "by": "subject", "seed": 1, "draws": draws})
    models = []
    for number in range(EXPERIMENTS):
        kind = ("pretrained", "scratch", "untrained", "baseline")[number % 4]
        fits = [{**draw, "folder": f"n-{draw['n']}_draw-{draw['draw']}_seed-1", "seed": 1} for draw in draws]
        models.append(folder / f"experiment_{number:02d}")
        content = {"experiment": models[-1].name, "dataset": "mdtb", "kind": kind, "fits": fits}
        write_json(models[-1] / "adapt.json", {**content, "start": f"network_{number // 4}"})
    return split, models


def replace_networks(random: np.random.Generator, seen: list[Corpus]) -> None:
    """Put random probabilities in the place of decoders, and keep the trials that they are asked for."""

    def predict_fits(folder: Path, fits: list[str], corpus: Corpus) -> Iterator[tuple[str, np.ndarray]]:
        seen.append(corpus)
        for fit in fits:
            yield fit, probabilities(corpus, random)

    module = types.ModuleType("boldly.decoders.apply")
    module.predict_fits = predict_fits  # type: ignore[attr-defined]
    sys.modules["boldly.decoders.apply"] = module


def probabilities(corpus: Corpus, random: np.random.Generator) -> np.ndarray:
    signal = np.eye(len(STATES))[corpus.labels]
    logits = random.normal(size=(len(corpus), len(STATES))) + 2 * signal
    shares = np.exp(logits)
    return (shares / shares.sum(axis=1, keepdims=True)).astype(np.float32)


def write_one(folder: Path, corpus: Corpus, random: np.random.Generator) -> tuple[float, float]:
    """Return the seconds that we and pandas take for the predictions of one experiment."""
    trials = trials_of(corpus, "subject")
    everything = np.arange(len(corpus))
    fits = []
    for fit in range(len(SIZES) * DRAWS):
        shares = probabilities(corpus, random)
        fits.append(FitPredictions(1, str(fit), "1", everything, shares.argmax(axis=1), shares))
    experiment = Experiment("one", "pretrained", "network", tuple(fits))
    ours = timed(lambda: write_predictions(folder / "ours.tsv.gz", [experiment], trials))
    table = pd.concat(
        [
            pd.DataFrame(
                {
                    **{"experiment": "one", "n": 1, "draw": fit.draw, "seed": "1", "key": corpus.keys},
                    **{"run": corpus.runs, "subject": corpus.subjects, "label": corpus.labels},
                    **{"label_name": [STATES[label] for label in corpus.labels], "predicted": fit.predicted},
                    **{f"p_{name}": fit.probabilities[:, i] for i, name in enumerate(STATES)},
                }
            )
            for fit in fits
            if fit.probabilities is not None
        ]
    )
    compression = {"method": "gzip", "compresslevel": 4, "mtime": 0}
    reference = timed(
        lambda: table.to_csv(
            folder / "pandas.tsv.gz", sep="\t", index=False, float_format="%.6f", compression=compression
        )
    )
    with gzip.open(folder / "ours.tsv.gz") as one, gzip.open(folder / "pandas.tsv.gz") as other:
        assert one.read() == other.read(), "the same text"
    return ours, reference


if __name__ == "__main__":
    main()
