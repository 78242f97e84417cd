"""Figure downstream_reliability: whether the probabilities of decoders are as often right as they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MultipleLocator

from boldly.files import read_tsv
from boldly.stages.figures import style
from boldly.stages.figures.tables import PREDICTION_TEXT, dataset_of, probabilities, unsuitable
from boldly.words import counted

_BINS = 10
_MOST = 6
_NEEDED = ("experiment", "n", "key", "label", "predicted")
_COLUMNS = ["dataset", "experiment", "n", "bin", "confidence", "accuracy", "predictions", "calibration_error"]
# Of many baselines, these.
_BASELINES = ("components", "mean_logistic", "linear")


def downstream_reliability(paths: list[Path]) -> tuple[Figure, pd.DataFrame]:
    """Draw accuracy by confidence, a panel per dataset, at the largest n, over all draws and seeds.

    Predictions are sorted by the probability of the predicted state and parted into ten bins of equal counts. The
    expected calibration error is the mean distance between accuracy and confidence of the bins (Guo et al. 2017).
    Drawn are pretrained decoders of one network each, the one that validation chose, and baselines, but not more
    than can be told apart; the table has all.

    Parameters
    ----------
    paths : list of Path
        Prediction tables, one per dataset.
    """
    tables = [_bins(path) for path in paths]
    names = list(dict.fromkeys(name for table in tables for name in table["experiment"]))
    drawn = _drawn(names)
    colours = style.colours(drawn)
    columns = min(len(tables), 2)
    rows = -(-len(tables) // columns)
    width = max(style.COLUMN, min(style.PAGE, 3.2 * columns))
    figure = style.new_figure(width, 0.3 + 3.0 * rows)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes, table in zip(grid.flat, tables, strict=False):
        _panel(axes, table[table["experiment"].isin(drawn)], colours)
    for axes in list(grid.flat)[len(tables) :]:
        axes.set_axis_off()
    handles = [
        Line2D([], [], color=colour, marker="o", markersize=2.6, label=style.spelled(name))
        for name, colour in colours.items()
    ]
    ideal = Line2D([], [], color=style.GREY, linewidth=0.7, linestyle=(0, (3, 2)), label="perfectly calibrated")
    handles.append(ideal)
    if others := len(names) - len(drawn):
        handles.append(Line2D([], [], linestyle="none", label=f"in the table alone: {counted(others, 'decoder')}"))
    style.legend_above(figure, handles)
    return figure, pd.concat(tables, ignore_index=True)[_COLUMNS]


def _bins(path: Path) -> pd.DataFrame:
    table = read_tsv(path, PREDICTION_TEXT)
    if not set(_NEEDED) <= set(table.columns) or probabilities(table).shape[1] == 0:
        raise unsuitable(path, "not a table of predictions with probabilities", table)
    largest = table[table["n"] == table["n"].max()]
    parts = []
    for name in dict.fromkeys(largest["experiment"]):
        own = largest[largest["experiment"] == name]
        confidence = probabilities(own).max(axis=1).to_numpy(float)
        right = (own["label"] == own["predicted"]).to_numpy(float)
        order = np.argsort(confidence, kind="stable")
        rows = [
            {
                "bin": place,
                "confidence": confidence[part].mean(),
                "accuracy": right[part].mean(),
                "predictions": len(part),
            }
            for place, part in enumerate(np.array_split(order, min(_BINS, len(order))))
        ]
        bins = pd.DataFrame(rows)
        error = np.average((bins["confidence"] - bins["accuracy"]).abs(), weights=bins["predictions"])
        about = {"dataset": dataset_of(str(own["key"].iloc[0])), "experiment": name, "n": own["n"].iloc[0]}
        parts.append(bins.assign(**about, calibration_error=error))
    return pd.concat(parts, ignore_index=True)


def _drawn(names: list[str]) -> list[str]:
    """Return what is drawn: of networks the pretrained ones, of baselines a few."""
    without = [name for name in names if not name.endswith(("_scratch", "_untrained"))]
    networks = [name for name in without if name == "chosen" or style.framework_of(name) is not None]
    rest = [name for name in _BASELINES if name in without]
    others = [name for name in without if name not in networks and name not in rest]
    # What validation chose is drawn, however many networks there are.
    chosen = [name for name in networks if name == "chosen"]
    networks = [name for name in networks if name != "chosen"][: _MOST - len(chosen)] + chosen
    return [*networks, *(rest or others[:3])]


def _panel(axes: Axes, table: pd.DataFrame, colours: dict[str, str]) -> None:
    axes.plot([0, 1], [0, 1], color=style.GREY, linewidth=0.7, linestyle=(0, (3, 2)), zorder=1)
    lines = []
    for name, bins in table.groupby("experiment", sort=False):
        axes.plot(
            bins["confidence"], bins["accuracy"], color=colours[str(name)], marker="o", markersize=2.6,
            linewidth=0.9, clip_on=False, zorder=3,
        )  # fmt: skip
        lines.append(f"{style.spelled(str(name))} {bins['calibration_error'].iloc[0]:.3f}")
    axes.text(
        0.98, 0.02, "\n".join(["calibration error", *lines]), transform=axes.transAxes, fontsize=5.6, ha="right",
        va="bottom", color=style.GREY,
    )  # fmt: skip
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="probability of the predicted state", ylabel="share that is right")
    axes.set_aspect("equal")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MultipleLocator(0.25))
    axes.set_title(f"{table['dataset'].iloc[0]}, n = {table['n'].iloc[0]}")
    axes.grid(True, color=style.PALE, linewidth=0.4)
    axes.set_axisbelow(True)
