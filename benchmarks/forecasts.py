"""Causal sequence modeling against linear forecasts, by the number of training units.

A network that has few data may not do worse than a linear forecast; with more it should do better. The sequence
model is `csm` of a config, with the recipe that is the default. For each dataset and repetition time it starts
from a VAR whose penalty pulls to AR(1); how far is settled on the units for validation. It keeps the weights of
the best validation after its first step, and of what its blocks add to the forecast the share that errs least on
the units for validation. The forecasts are those of eval_history.csv: a ridge VAR and AR(1) per parcel, of each
dataset and repetition time, fitted to the same training units. All say the next frame of the same windows. Units
for validation and for the test are the same in all rows, and no unit is in two of them; fewer training units lie
in more.

demo: the simulated upstream runs of `make demo`, config/config.yaml; units are subjects.
haxby: real runs of one subject (the README's example), config/config.yaml; units are its runs.
song: real runs of nine people (config/song.yaml, `SONG` its folder), 1 s; units are people.
song, 1 and 2 s: the same people, of every other one every other frame.

The table has the L1 over the test units (z-scored signals): `start` is that of the sequence model before its first
step. `gain over start` and `gain over VAR` are the shares of their L1 that the sequence model takes away, with the
95 % interval of a t-test over test units. `share` is what is kept of the blocks' part of the forecast, `step` that
of the best validation.

Usage: python benchmarks/forecasts.py [DATA..] (after `make demo`; for real data after the README's example, and
with SONG)
"""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from boldly.config import PretrainOptions, load_config
from boldly.files import write_tsv
from boldly.models.build import build_network, build_objective, pretraining_config, window_options
from boldly.samples.corpus import Corpus, load_corpus
from boldly.samples.timeseries import read_timeseries
from boldly.samples.windows import Windows
from boldly.training.components import coming_components, leading_components
from boldly.training.linear import fit_linear, groups_of
from boldly.training.loop import fit
from boldly.training.processes import Processes
from boldly.training.validation import UpstreamValidation

TABLE = Path("results/benchmarks/forecasts.tsv")
TEST_WINDOWS = 128  # of each test unit


@dataclass(frozen=True)
class Data:
    """Where runs lie, what a unit is, and how many units there are for what."""

    name: str
    pattern: str
    test: int
    validation: int
    train: tuple[int, ...]
    by_run: bool = False
    config: str = "config/config.yaml"
    halved: bool = False


DATA = (
    Data("demo", "results/parcellate/demo0?/*_timeseries.safetensors", 12, 8, (2, 5, 10, 20, 40)),
    Data("haxby", "haxby/results/parcellate/haxby/*_timeseries.safetensors", 3, 2, (1, 3, 7), by_run=True),
    Data("song", "${SONG}/ds-songup/*.tar", 3, 2, (1, 4), config="config/song.yaml"),
    Data("song, 1 and 2 s", "${SONG}/ds-songup/*.tar", 4, 2, (3,), config="config/song.yaml", halved=True),
)


def main() -> None:
    rows = []
    for data in DATA:
        if sys.argv[1:] and data.name not in sys.argv[1:]:
            continue
        paths = sorted(Path(name) for name in glob.glob(os.path.expandvars(data.pattern)))
        if not paths:
            print(f"{data.name}: no {data.pattern}, left out", flush=True)
            continue
        options = load_config(Path(data.config), Path()).pretrain.experiments["csm"]
        corpus = load_corpus(paths) if paths[0].suffix == ".tar" else corpus_of(paths, by_run=data.by_run)
        if data.halved:
            corpus = halved(corpus)
        units = np.random.default_rng(1).permutation(sorted(set(corpus.subjects)))
        test, validation, rest = np.split(units, [data.test, data.test + data.validation])
        for count in data.train:
            row = compare(corpus, options, rest[:count], validation, test)
            rows.append({"data": data.name, "training units": count, **row})
            print(rows[-1], flush=True)
    if not rows:
        sys.exit("forecasts: no time series to measure on; run make demo first")
    table = pd.DataFrame(rows)
    print(table.to_string(index=False))
    write_tsv(TABLE, table)


def halved(corpus: Corpus) -> Corpus:
    """Take every other frame of every other subject, as a slower scanner would."""
    slow = np.isin(corpus.subjects, sorted(set(corpus.subjects))[::2])
    runs = [corpus.signals(run)[:: 1 + chosen] for run, chosen in enumerate(slow)]
    lengths = np.array([len(run) for run in runs])
    return replace(
        corpus,
        frames=np.concatenate(runs),
        starts=np.cumsum(lengths) - lengths,
        lengths=lengths,
        t_r=corpus.t_r * (1 + slow),
    )


def corpus_of(paths: Sequence[Path], *, by_run: bool) -> Corpus:
    """Put runs into a corpus; units, in the place of subjects, are subjects of a dataset or runs."""
    files = [read_timeseries(path) for path in paths]
    runs = [run for series, _ in files for run in series]
    lengths = np.array([len(run.data) for run in runs])
    marked = np.zeros((len(runs), runs[0].data.shape[1]), bool)
    for row, run in zip(marked, runs, strict=True):
        row[run.meta["marked"]] = True
    return Corpus(
        frames=np.concatenate([run.data for run in runs]),
        starts=np.cumsum(lengths) - lengths,
        lengths=lengths,
        t_r=np.array([run.meta["t_r"] for run in runs]),
        marked=marked,
        labels=np.full(len(runs), -1),
        label_names=(),
        keys=tuple(run.key for run in runs),
        datasets=tuple(run.meta["dataset"] for run in runs),
        subjects=tuple(run.key if by_run else f"{run.meta['dataset']}_{run.meta['subject']}" for run in runs),
        runs=tuple(run.key for run in runs),
        contract=files[0][1],
    )


def compare(
    corpus: Corpus, options: PretrainOptions, train: np.ndarray, validation: np.ndarray, test: np.ndarray
) -> dict[str, float | int | str]:
    """Train on some units, choose the step on others, and measure on the rest."""
    training, chosen = (corpus.select(np.isin(corpus.subjects, units)) for units in (train, validation))
    wanted = window_options(options, options.batch_size)
    config = pretraining_config(options, corpus.frames.shape[1], groups_of(training, chosen))
    objective, start = (build_objective(build_network(config, options.seed)) for _ in range(2))
    windows = Windows(training, wanted, options.seed, options.steps * options.batch_size)
    fits = fit_linear(training, chosen)
    validate = UpstreamValidation(
        Windows(chosen, wanted, 2, 512), 32, fitted=fits, training=training, calibrate=True
    )
    couplings = validate.choose_couplings(fits)
    for one in (objective, start):
        one.start(couplings, partial(coming_components, training))
        one.network.start_embedding(leading_components(training))
    outcome = fit(
        objective,
        windows,
        options.model_copy(update={"evaluate_every": options.steps // 20}),
        name="csm",
        validate=validate,
        seed=options.seed,
        validate_first=True,
    )
    objective.network.load_state_dict(outcome.weights)
    rows = []
    for unit in test:
        held_out = Windows(corpus.select(np.isin(corpus.subjects, [unit])), wanted, 3, TEST_WINDOWS)
        validate = UpstreamValidation(held_out, 32, training=training)
        row = validate(objective.eval(), Processes())
        rows.append({**row, "start": validate(start.eval(), Processes())["l1"]})
    table = pd.DataFrame(rows)
    means = table[["start", "l1", "l1_var", "l1_ar1", "l1_zero"]].mean().round(4)
    names = {"l1": "CSM", "l1_var": "VAR", "l1_ar1": "AR(1)", "l1_zero": "zeros"}
    errors = {names.get(str(column), str(column)): float(value) for column, value in means.items()}
    gains = {f"gain over {names.get(other, other)}": gain(table, other) for other in ("start", "l1_var")}
    (kept,) = [row for row in outcome.eval_rows if row["step"] == outcome.step]
    return {**errors, **gains, "share": round(kept["forecast_share"], 2), "step": outcome.step}


def gain(table: pd.DataFrame, other: str) -> str:
    """Return the share of another forecast's L1 that the sequence model takes away, with its interval."""
    gains = 1 - table["l1"] / table[other]
    half = stats.t.ppf(0.975, len(gains) - 1) * stats.sem(gains)
    low, high = gains.mean() - half, gains.mean() + half
    return f"{gains.mean():.4f} [{low:.4f}, {high:.4f}]"


if __name__ == "__main__":
    main()
