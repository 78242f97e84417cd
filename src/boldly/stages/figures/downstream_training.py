"""Figure downstream_training (S4, S5, S7 of the preprint): decoders while they are trained by gradient steps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, MaxNLocator

from boldly.files import read_json
from boldly.records import InputError, Problem
from boldly.stages.figures import style

_POINTS = 100
_DASHES: tuple[Any, ...] = ("solid", (0, (1, 1)), (0, (4, 1.2)))
_MEASURES = {"loss": "cross-entropy, training", "accuracy": "accuracy, validation"}
_COLUMNS = ["dataset", "experiment", "kind", "n", "seed", "measure", "step", "value", "n_draws"]
# Those that the preprint shows: pretrained networks and the linear baseline.
_SHOWN = ("pretrained", "baseline")


def downstream_training(paths: list[Path]) -> tuple[Figure, pd.DataFrame]:
    """Draw training loss and validation accuracy over steps: a column per n, a row per dataset and measure.

    Curves are means over draws, one for each seed: a second seed, the replication, is dotted. Validation accuracy
    is drawn where validation units were set apart. Decoders without steps (probes) have no curves.

    Parameters
    ----------
    paths : list of Path
        Records of downstream experiments, ``results/models/downstream/<dataset>/<experiment>/adapt.json``, beside
        which the folders of their fits lie.

    Raises
    ------
    InputError
        For a file that is no such record.
    """
    parts = [part for path in paths for part in _curves_of(path)]
    if not parts:
        return style.nothing("no decoder was trained by gradient steps"), pd.DataFrame(columns=_COLUMNS)
    table = pd.concat(parts, ignore_index=True)
    keys = ["dataset", "experiment", "kind", "n", "seed", "measure", "step"]
    means = table.groupby(keys, sort=False)["value"].agg(value="mean", n_draws="size").reset_index()
    rows = [
        (dataset, measure)
        for dataset, part in means.groupby("dataset", sort=False)
        for measure in _MEASURES
        if measure in set(part["measure"])
    ]
    columns = max(part["n"].nunique() for _, part in means.groupby("dataset"))
    experiments = list(dict.fromkeys(means["experiment"]))
    colours = style.colours(experiments)
    seeds = sorted(means["seed"].unique())
    figure = style.new_figure(style.PAGE if columns > 2 else style.COLUMN * 1.3, 0.3 + 1.35 * len(rows))
    grid = figure.subplots(len(rows), columns, squeeze=False, sharey="row")
    for line, (dataset, measure) in zip(grid, rows, strict=True):
        of_row = means[(means["dataset"] == dataset) & (means["measure"] == measure)]
        _row(line, str(dataset), measure, of_row, colours, seeds)
    for axes in grid[-1]:
        axes.set_xlabel("step")
    style.legend_above(figure, _legend(colours, seeds))
    return figure, means[_COLUMNS]


def _curves_of(path: Path) -> Iterator[pd.DataFrame]:
    """Yield the curves of each fit of an experiment, averaged to points that its fits have in common."""
    record = read_json(path) if path.suffix == ".json" else {}
    if not {"dataset", "experiment", "kind", "fits"} <= set(record):
        raise InputError(
            Problem(str(path), "", "not the record of a downstream experiment", "pass its adapt.json")
        )
    if record.get("kind") not in _SHOWN:
        return
    about = {"dataset": record["dataset"], "experiment": record["experiment"], "kind": record["kind"]}
    for name, measure in (("train_history.csv", "loss"), ("eval_history.csv", "accuracy")):
        # Those of an earlier split or of other seeds may still lie beside them.
        histories = [(fit, _history(path.parent / fit["folder"] / name, measure)) for fit in record["fits"]]
        known = [(fit, curve) for fit, curve in histories if len(curve)]
        for n in dict.fromkeys(int(fit["n"]) for fit, _ in known):
            own = [(fit, curve) for fit, curve in known if int(fit["n"]) == n]
            longest = max((curve["step"].to_numpy() for _, curve in own), key=len)
            for fit, curve in own:
                yield _thinned(curve, longest).assign(**about, n=n, seed=int(fit["seed"]), measure=measure)


def _history(path: Path, measure: str) -> pd.DataFrame:
    """Return step and value of a history; without rows where it does not have the measure."""
    curve = pd.read_csv(path) if path.exists() and path.stat().st_size > 1 else pd.DataFrame()
    return curve.reindex(columns=["step", measure]).rename(columns={measure: "value"}).dropna()


def _thinned(curve: pd.DataFrame, longest: np.ndarray) -> pd.DataFrame:
    """Average a curve to points of the steps (S,) of the longest one: trainings may end at different steps."""
    width = max(1, -(-len(longest) // _POINTS))
    points = pd.Series(longest).groupby(np.arange(len(longest)) // width).mean()
    place = np.searchsorted(longest, curve["step"]).clip(max=len(longest) - 1) // width
    values = curve["value"].groupby(place).mean()
    return pd.DataFrame({"step": points[values.index].to_numpy(), "value": values.to_numpy()})


def _row(
    line: Any, dataset: str, measure: str, table: pd.DataFrame, colours: dict[str, str], seeds: list[int]
) -> None:
    sizes = sorted(table["n"].unique())
    for number, axes in enumerate(line):
        if number >= len(sizes):
            axes.set_axis_off()
            continue
        _panel(axes, table[table["n"] == sizes[number]], colours, seeds)
        axes.set_title(f"{dataset}, n = {sizes[number]}" if number == 0 else f"n = {sizes[number]}")
    line[0].set_ylabel(_MEASURES[measure].replace(", ", ",\n"))


def _panel(axes: Axes, table: pd.DataFrame, colours: dict[str, str], seeds: list[int]) -> None:
    for (experiment, seed), curve in table.sort_values("step").groupby(["experiment", "seed"], sort=False):
        axes.plot(
            curve["step"], curve["value"], color=colours[str(experiment)], linewidth=0.9,
            linestyle=_DASHES[seeds.index(int(str(seed))) % len(_DASHES)],
        )  # fmt: skip
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_major_locator(MaxNLocator(3, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    style.grid_lines(axes)


def _legend(colours: dict[str, str], seeds: list[int]) -> list[Line2D]:
    handles = [Line2D([], [], color=colour, label=style.spelled(name)) for name, colour in colours.items()]
    if len(seeds) > 1:
        handles += [
            Line2D(
                [],
                [],
                color=style.INK,
                linewidth=0.9,
                linestyle=_DASHES[place % len(_DASHES)],
                label=f"seed {seed}",
            )
            for place, seed in enumerate(seeds)
        ]
    return handles
