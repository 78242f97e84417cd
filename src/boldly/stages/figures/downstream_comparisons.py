"""Figure downstream_comparisons: how much more accurate pretrained decoders and ensembles are than others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from boldly.stages.figures import style
from boldly.stages.figures.tables import read_all_comparisons, unsuitable

_SIGNIFICANT = 0.05
# Pretrained networks are each compared with their own.
_CONTROLS = {"untrained": "the same network, untrained", "scratch": "the same network, from scratch"}
_ROW, _GROUP = 0.052, 0.07  # inches: of one difference, and between the rows of others
_ABOVE, _BELOW = 0.3, 0.42  # inches, for titles and for the axis
_NAMES, _PANEL = 1.6, 1.9  # inches
_LEGEND_LINE, _LEGEND_NAME = 0.15, 1.75  # inches
_MOST_PANELS = 4
DRAWN = ["dataset", "n", "experiment", "baseline", "difference", "ci_low", "ci_high", "p_holm"]


def downstream_comparisons(paths: list[Path]) -> tuple[Figure, pd.DataFrame]:
    """Draw paired differences of pretrained decoders and ensembles: a row of panels per dataset, a panel per n.

    Each group of lines is one decoder that is compared with, a baseline or the same network without pretraining;
    colours are the pretrained experiments and ensembles of baselines. A filled marker says that the difference is
    significant at 0.05 after Holm's correction for all comparisons of the dataset at this n.

    Parameters
    ----------
    paths : list of Path
        Tables of comparisons, one per dataset; rows of panels stand in their order.
    """
    table = read_all_comparisons(paths)
    if table.empty and paths:
        # Without networks there is nothing to compare, and the table has a head alone.
        _check_heads(paths)
    # Of baselines only ensembles are compared with others.
    table = table[table["kind"].isin(("pretrained", "baseline"))].reset_index(drop=True)
    if table.empty:
        return style.nothing("no pretrained decoder, and no ensemble, is compared with another one"), table[DRAWN]
    others = table["other_kind"].map(_CONTROLS).fillna(table["baseline"].map(style.spelled))
    table = table.assign(other=others)
    names = list(table["experiment"].unique())
    colours = style.colours(names)
    blocks = [
        (str(dataset), part, sizes)
        for dataset, part in table.groupby("dataset", sort=False)
        for sizes in _lines(part)
    ]
    heights = [_ABOVE + _BELOW + _height(part, len(names)) for _, part, _ in blocks]
    columns = max(len(sizes) for *_, sizes in blocks)
    width = min(style.PAGE, max(_NAMES + _PANEL * columns, style.COLUMN * 1.2))
    per_line = max(1, int(width / _LEGEND_NAME))
    legend = _LEGEND_LINE * -(-len(names) // per_line) + 0.2
    figure = style.new_figure(width, sum(heights) + legend)
    parts = figure.subfigures(1 + len(blocks), 1, squeeze=False, height_ratios=[legend, *heights])
    _legend(parts.flat[0], colours, per_line)
    for part, (dataset, rows, sizes) in zip(parts.flat[1:], blocks, strict=True):
        panels = part.subplots(1, columns, squeeze=False, sharey=True, sharex=True)[0]
        for number, axes in enumerate(panels):
            if number < len(sizes):
                _panel(axes, rows[rows["n"] == sizes[number]], list(rows["other"].unique()), colours)
                size = f"n = {sizes[number]}"
                axes.set_title(size if number else f"{dataset}, {size}")
            else:
                axes.set_axis_off()
    return figure, table[DRAWN]


def _check_heads(paths: list[Path]) -> None:
    for path in paths:
        head = pd.read_csv(path, sep="\t", nrows=0)
        if "difference" not in head:
            raise unsuitable(path, "not a table of comparisons", head)


def _lines(part: pd.DataFrame) -> list[list[int]]:
    """Return the sizes of a dataset, as many together as stand beside each other."""
    sizes = sorted(int(n) for n in part["n"].unique())
    return [sizes[first : first + _MOST_PANELS] for first in range(0, len(sizes), _MOST_PANELS)]


def _height(rows: pd.DataFrame, n_names: int) -> float:
    return rows["other"].nunique() * (_ROW * max(n_names, 2) + _GROUP)


def _panel(axes: Axes, rows: pd.DataFrame, others: list[str], colours: dict[str, str]) -> None:
    step = 1 / (len(colours) + _GROUP / _ROW)
    for place in range(0, len(others), 2):
        axes.axhspan(place - 0.5, place + 0.5, facecolor="#F3F3F3", linewidth=0, zorder=0)
    axes.axvline(0, color=style.INK, linewidth=0.6, zorder=1)
    order = {name: number for number, name in enumerate(colours)}
    for row in rows.to_dict("records"):
        name = str(row["experiment"])
        y = others.index(row["other"]) + (order[name] - (len(colours) - 1) / 2) * step
        significant = row["p_holm"] < _SIGNIFICANT
        if np.isfinite(row["ci_low"]):
            axes.plot([row["ci_low"], row["ci_high"]], [y, y], color=colours[name], linewidth=0.7, zorder=2)
        axes.plot(
            row["difference"], y, "o", color=colours[name], markersize=2.5, markeredgewidth=0.6, zorder=3,
            markerfacecolor=colours[name] if significant else "white",
        )  # fmt: skip
    axes.set(ylim=(len(others) - 0.5, -0.5), xlabel="difference in accuracy")
    axes.set_yticks(range(len(others)), others, fontsize=6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _signed(value)))
    style.grid_lines(axes, "x")


def _signed(value: float) -> str:
    return f"{value:+.2g}".replace("-", "\N{MINUS SIGN}") if value else "0"


def _legend(part: SubFigure, colours: dict[str, str], per_line: int) -> None:
    handles = [
        Line2D([], [], color=colour, marker="o", markersize=3, linewidth=0.8, label=style.spelled(name))
        for name, colour in colours.items()
    ]
    part.legend(
        handles=handles, loc="upper left", ncols=per_line, borderaxespad=0.3, handlelength=1.6, columnspacing=1.2
    )
    text = "right of 0: the decoder with this colour is better · filled: p < 0.05, corrected"
    part.text(0.008, 0.02, text, fontsize=5.8, color=style.GREY, va="bottom")
