"""Figure downstream_accuracy: test accuracy of each decoder by number of labelled units, as heat maps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from boldly.stages.figures import style
from boldly.stages.figures.tables import (
    DRAWN_SCORES,
    REFERENCES,
    highest_control,
    read_all_comparisons,
    read_all_scores,
)

KINDS = {
    "baseline": "baselines",
    "untrained": "untrained",
    "scratch": "from scratch",
    "pretrained": "pretrained",
}
_NAMES = 1.45  # inches, the names of the rows
_ABOVE, _BELOW = 0.62, 0.72  # inches for title and references, for axis and colour bar
_WIDEST, _NARROWEST, _HIGH = 0.56, 0.42, 0.215  # inches, cells
_NARROWEST_PANEL = 1.3  # inches: room for title and references above a single n
_LINE = 7.5  # points, a line of references
_GAP = 0.75  # of a row, for the heading of a group


def downstream_accuracy(paths: list[Path]) -> tuple[Figure, pd.DataFrame]:
    """Draw one heat map per dataset: rows baselines, untrained, from scratch, pretrained; columns labelled units.

    Maps beside each other have the same rows. The best decoder of each column is bold with a dot. A ring stands at
    decoders that may be as good: the interval of the paired difference holds zero or, where there is no such
    difference, their own interval holds the accuracy of the best. Chance, the best control and ceilings stand
    under the title and as marks at the colour bar.

    Parameters
    ----------
    paths : list of Path
        Score tables, one per dataset; panels stand in their order. With the tables of comparisons of the same
        datasets, rings follow from paired differences where there are any.

    Returns
    -------
    Figure
        The maps.
    DataFrame
        The accuracies that are drawn, with the mark of each cell: best, not worse, or empty.
    """
    scores = read_all_scores(paths)
    comparisons = read_all_comparisons(paths)
    datasets = list(dict.fromkeys(scores["dataset"]))
    decoders = _ordered(scores[scores["kind"].isin(KINDS)])
    marked = [_marked(decoders[decoders["dataset"] == name], comparisons) for name in datasets]
    lines = _lines_of([max(table["n"].nunique(), 1) for table in marked])
    rows = [pd.concat([marked[place] for place in line]) for line in lines]
    heights = [_ABOVE + _BELOW + _HIGH * _span(_named(table)) for table in rows]
    widths = [[max(_WIDEST * marked[place]["n"].nunique(), _NARROWEST_PANEL) for place in line] for line in lines]
    figure = style.new_figure(min(style.PAGE, _NAMES + max(map(sum, widths))), sum(heights))
    parts = figure.subfigures(len(lines), 1, squeeze=False, height_ratios=heights)
    for part, line, table, ratios in zip(parts.flat, lines, rows, widths, strict=True):
        panels = part.subplots(1, len(line), squeeze=False, sharey=True, width_ratios=ratios)
        for axes, place in zip(panels.flat, line, strict=True):
            own = scores[scores["dataset"] == datasets[place]]
            _draw(part, axes, datasets[place], marked[place], _named(table), own)
    everything = pd.concat([scores[~scores["kind"].isin(KINDS)], *marked])
    return figure, everything[[*DRAWN_SCORES, "mark"]].reset_index(drop=True)


def _ordered(decoders: pd.DataFrame) -> pd.DataFrame:
    """Sort by kind, then pretrained decoders of several networks behind those of one."""
    order = {kind: number for number, kind in enumerate(KINDS)}
    rank = decoders["kind"].map(order) + 0.5 * decoders["start"].fillna("").str.contains("+", regex=False)
    return decoders.assign(rank=rank).sort_values("rank", kind="stable")


def _marked(decoders: pd.DataFrame, comparisons: pd.DataFrame) -> pd.DataFrame:
    """Say of each decoder of a dataset whether it is the best of its column, or may be as good."""
    marks: list[str] = []
    best = {n: max(column.to_dict("records"), key=_value) for n, column in decoders.groupby("n")}
    for row in decoders.to_dict("records"):
        as_good = "not worse" if _may_be_as_good(row, best[row["n"]], comparisons) else ""
        marks.append("best" if row["experiment"] == best[row["n"]]["experiment"] else as_good)
    return decoders.assign(mark=marks)


def _value(row: dict[Any, Any]) -> float:
    return float(row["value"])


def _may_be_as_good(row: dict[Any, Any], best: dict[Any, Any], comparisons: pd.DataFrame) -> bool:
    """Whether the interval of the paired difference, or that of the row where there is none, allows for it."""
    pair = {row["experiment"], best["experiment"]}
    of_both = comparisons[
        (comparisons["dataset"] == row["dataset"])
        & (comparisons["n"] == row["n"])
        & comparisons["experiment"].isin(pair)
        & comparisons["baseline"].isin(pair)
    ]
    if len(of_both) and np.isfinite(of_both["ci_low"].iloc[0]):
        return bool(of_both["ci_low"].iloc[0] <= 0 <= of_both["ci_high"].iloc[0])
    return bool(row["ci_high"] >= best["value"])


def _named(table: pd.DataFrame) -> pd.DataFrame:
    """Return the experiments that are rows of a line of maps, in their order."""
    return table.drop_duplicates("experiment").sort_values("rank", kind="stable")


def _span(named: pd.DataFrame) -> float:
    """Return the height of the maps in rows."""
    return max(len(named), 1) + _GAP * named["kind"].nunique()


def _lines_of(columns: list[int]) -> list[list[int]]:
    """Part datasets, given by their numbers of columns, into lines that fit the page."""
    lines: list[list[int]] = [[]]
    used = 0.0
    for place, number in enumerate(columns):
        width = max(_NARROWEST * number, _NARROWEST_PANEL) + 0.1
        if lines[-1] and _NAMES + used + width > style.PAGE:
            lines.append([])
            used = 0.0
        lines[-1].append(place)
        used += width
    return lines


def _draw(
    figure: Any, axes: Axes, dataset: str, decoders: pd.DataFrame, named: pd.DataFrame, scores: pd.DataFrame
) -> None:
    names, sizes = list(named["experiment"]), sorted(decoders["n"].unique())
    places, headings = style.grouped(list(named["kind"]), gap=_GAP)
    references = {
        str(name): float(value)
        for name, value in zip(scores["experiment"], scores["value"], strict=True)
        if name in REFERENCES
    }
    controls = highest_control(scores)
    low = references.get("chance", 0.0)
    high = float(np.nanmax([*references.values(), *decoders["value"], low + 0.05]))
    norm = Normalize(low, high)
    for row in decoders.to_dict("records"):
        _cell(axes, (sizes.index(row["n"]), places[names.index(row["experiment"])]), row, norm)
    axes.set(
        xlim=(-0.5, max(len(sizes), 1) - 0.5),
        ylim=(_span(named) - 0.5, -0.5),
        xlabel=f"{style.LABELLED}\n● best, ○ may be as good",
    )
    axes.set_xticks(range(len(sizes)), [str(size) for size in sizes])
    axes.set_yticks(places, [style.wrapped(style.spelled(name), 26) for name in names], fontsize=6)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    _name_groups(axes, headings)
    marks = {text: references[name] for name, text in REFERENCES.items() if name in references}
    if len(controls):
        marks["best control"] = float(controls.max())
    # Room for all that there may be: titles of maps beside each other stand in one line.
    axes.set_title(dataset, pad=4 + _LINE * (len(REFERENCES) + 1))
    for number, (text, value) in enumerate(sorted(marks.items(), key=lambda mark: -mark[1])):
        above = _LINE * (len(REFERENCES) + 1 - len(marks) + number)
        style.subtitle(axes, f"{text} {value:.2f}", style.GREY, above=above)
    _colour_bar(figure, axes, norm, list(marks.values()))


def _cell(axes: Axes, place: tuple[int, float], score: dict[Any, Any], norm: Normalize) -> None:
    """Draw value, interval and mark."""
    x, y = place
    value, low, high = score["value"], score["ci_low"], score["ci_high"]
    face = style.BLUES(norm(value))
    axes.add_patch(Rectangle((x - 0.48, y - 0.47), 0.96, 0.94, facecolor=face, linewidth=0))
    look: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "va": "center"}
    look["color"] = style.ink_on(face)
    certain = not np.isfinite(low)
    is_best = score["mark"] == "best"
    weight = "bold" if is_best else "normal"
    axes.annotate(f"{value:.2f}", (x, y), (0, 0 if certain else 2.7), fontsize=6.5, fontweight=weight, **look)
    if not certain:
        axes.annotate(f"{low:.2f}\N{EN DASH}{high:.2f}", (x, y), (0, -4.2), fontsize=4.3, **look)
    if score["mark"]:
        # At a fixed distance from the value, however wide the cell is.
        sign = "\N{BLACK CIRCLE}" if is_best else "\N{WHITE CIRCLE}"
        axes.annotate(sign, (x, y), (-11.5, 0 if certain else 2.6), fontsize=4.5, **look)


def _name_groups(axes: Axes, headings: dict[str, float]) -> None:
    """Write the heading of each group above its names, with a line across the maps."""
    for kind, y in headings.items():
        if axes.get_subplotspec().is_first_col():  # type: ignore[union-attr]
            axes.annotate(
                KINDS[kind], (0, y), (-3.5, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
                ha="right", va="center", fontsize=5.8, color=style.GREY, fontstyle="italic", annotation_clip=False,
            )  # fmt: skip
        axes.plot([-0.48, axes.get_xlim()[1] - 0.02], [y, y], color=style.PALE, linewidth=0.5)


def _colour_bar(figure: Any, axes: Axes, norm: Normalize, marks: list[float]) -> None:
    bar = figure.colorbar(
        ScalarMappable(norm, style.BLUES), ax=axes, location="bottom", aspect=22, fraction=0.03, pad=0.02
    )
    bar.outline.set_visible(False)
    bar.ax.tick_params(width=0.4, length=2, labelsize=5.5)
    bar.locator.set_params(nbins=4)
    bar.set_label("accuracy, with marks at the values above", fontsize=6)
    for mark in marks:
        bar.ax.axvline(mark, color=style.ALERT, linewidth=1.2, clip_on=False)
