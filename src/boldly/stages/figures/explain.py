"""Figures of stage explain: maps of the states, faithfulness curves, and what maps agree with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import FuncFormatter, MaxNLocator

from boldly.files import read_tsv
from boldly.stages.figures import style
from boldly.stages.figures.tables import unsuitable

_MAPS = ("dataset", "experiment", "state", "method", "index", "name", "value", "direction")
_CURVES = ("dataset", "experiment", "method", "state", "share", "accuracy", "low", "high")
_SUMMARY = ("dataset", "experiment", "method", "state", "area", "area_of_chance", "glm_r", "reliability")
_TEXT = ("dataset", "experiment", "state", "method", "name")
_RANDOM, _ALL = "random", "all"
_GIVEN = {"glm": "GLM", "truth": "Truth"}
_NAMES = {
    "integrated_gradients": "Integrated gradients",
    "occlusion": "Occlusion",
    "patterns": "Patterns",
    "weights": "Weights",
    "mean_difference": "Mean difference",
    **_GIVEN,
}
_COLOURS = {
    "integrated_gradients": "#0072B2",
    "occlusion": "#E69F00",
    "patterns": "#009E73",
    "weights": "#CC79A7",
    "mean_difference": "#8C564B",
}
# Blue for low and red for high signals, equally dark, white between them.
_SIGNED: Colormap = LinearSegmentedColormap.from_list(
    "signed", ["#08306B", "#6BAED6", "#FFFFFF", "#F4A582", "#8E0B25"]
)
# More parcels than this would be lines too thin to see: those that matter most are drawn.
_MOST_PARCELS = 120
_MEASURES = {
    "area": "faithfulness: area\nagainst random orders",
    "reliability": "likeness of maps\nof two fits (r)",
    "glm_r": "likeness with the\ncontrast of a GLM (r)",
    "truth_r": "likeness with the\ntrue response (r)",
    "strength_r": "likeness with the strength\nof the true response (r)",
}


def explain_maps(paths: list[Path]) -> tuple[Figure, pd.DataFrame]:
    """Draw the direction of each parcel for each state, a panel for each method; GLM and truth stand last.

    Parameters
    ----------
    paths : list of Path
        ``maps.tsv`` of experiments. Each map is divided by its largest size: methods have units of their own.
    """
    tables = [_read(path, _MAPS, "a table of maps") for path in paths]
    rows = []
    for table in tables:
        methods = list(dict.fromkeys(table["method"]))
        rows.append((table, methods))
    width = max(len(methods) for _, methods in rows)
    heights = [0.13 * table["state"].nunique() + 0.75 for table, _ in rows]
    figure = style.new_figure(style.PAGE, sum(heights) + 0.45)
    panels = figure.subplots(len(rows), width, squeeze=False, height_ratios=heights)
    drawn, last = [], None
    for line, (table, methods) in zip(panels, rows, strict=True):
        kept = _parcels(table)
        for axes, method in zip(line, methods, strict=False):
            own = table[(table["method"] == method) & table["index"].isin(kept)]
            last = _draw_map(axes, own, method, is_first=method == methods[0])
            drawn.append(own)
        for axes in line[len(methods) :]:
            axes.remove()
        line[0].set_title(_heading(table), pad=22)  # names of methods, two lines, stand below it
    if last is not None:
        whole = [axes for axes in panels.flat if axes.figure is figure]
        bar = figure.colorbar(last, ax=whole, orientation="horizontal", shrink=0.3, aspect=40)
        bar.set_ticks([-1, 0, 1], labels=["low signals speak for the state", "0", "high signals speak for it"])
        bar.outline.set_visible(False)
    return figure, pd.concat(drawn, ignore_index=True)


def _parcels(table: pd.DataFrame) -> list[int]:
    """Return the parcels that are drawn, in their order: all, or those with the largest directions."""
    decoders = table[~table["method"].isin(list(_GIVEN))]
    size = decoders.assign(size=decoders["direction"].abs() / _largest(decoders)).groupby("index")["size"].max()
    return sorted(size.nlargest(_MOST_PARCELS).index)


def _largest(table: pd.DataFrame) -> pd.Series:
    return table.groupby(["method", "state"])["direction"].transform(lambda values: values.abs().max() or 1)


def _draw_map(axes: Axes, table: pd.DataFrame, method: str, *, is_first: bool) -> AxesImage:
    scaled = table.assign(direction=table["direction"] / _largest(table))
    grid = scaled.pivot(index="state", columns="index", values="direction")
    grid = grid.loc[list(dict.fromkeys(table["state"]))]
    shown = axes.imshow(
        grid.to_numpy(float), cmap=_SIGNED, vmin=-1, vmax=1, aspect="auto", interpolation="nearest"
    )
    axes.annotate(
        _NAMES[method].replace(" ", "\n"), (0, 1), (0, 3), xycoords="axes fraction", textcoords="offset points",
        fontsize=6.5, va="bottom", in_layout=False,
    )  # fmt: skip
    names = [name if len(name) <= 18 else f"{name[:17]}…" for name in map(str, grid.index)]
    axes.set_yticks(range(len(names)), names if is_first else [""] * len(names), fontsize=5.5)
    axes.set_xticks([])
    axes.set_xlabel(f"{grid.shape[1]} parcels", fontsize=5.8)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(True)
    axes.spines[:].set_color(style.PALE)
    return shown


def explain_curves(paths: list[Path]) -> tuple[Figure, pd.DataFrame]:
    """Draw accuracy as parcels are removed in the order of each map, and the band of random orders.

    Parameters
    ----------
    paths : list of Path
        ``curves.tsv`` of experiments.
    """
    tables = [_read(path, _CURVES, "a table of faithfulness curves") for path in paths]
    wholes = [table[table["state"] == _ALL] for table in tables]
    columns = min(3, len(wholes))
    lines = -(-len(wholes) // columns)
    figure = style.new_figure(min(style.PAGE, max(0.4 + 2.3 * columns, style.COLUMN)), 2.2 * lines + 0.3)
    panels = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
    named: dict[str, Artist] = {}
    for axes, table in zip(panels.flat, wholes, strict=False):
        for method, own in table.groupby("method", sort=False):
            own = own.sort_values("share")
            share, accuracy = 100 * own["share"], 100 * own["accuracy"]
            if method == _RANDOM:
                axes.fill_between(share, 100 * own["low"], 100 * own["high"], color=style.PALE, linewidth=0)
                (line,) = axes.plot(share, accuracy, color=style.GREY)
                line.set_label("random orders, with their range")
                named.setdefault(_RANDOM, line)
                continue
            # Of a linear decoder occlusion and integrated gradients are one line: both can be seen.
            dashed = {"mean_difference": "-.", "occlusion": "--"}.get(str(method), "-")
            (line,) = axes.plot(share, accuracy, dashed, color=_COLOURS[str(method)], marker="o", markersize=2)
            line.set_label(_NAMES[str(method)])
            named.setdefault(str(method), line)
        axes.set_title(_heading(table).replace(", ", "\n"))
        axes.set_ylim(bottom=0)
        style.grid_lines(axes)
    for axes in panels.flat[len(wholes) :]:
        axes.remove()
    for axes in panels[:, 0]:
        axes.set_ylabel("accuracy, %")
    for axes in panels.flat[max(0, len(wholes) - columns) : len(wholes)]:
        axes.set_xlabel("parcels removed, %")
        axes.tick_params(labelbottom=True)
    # Random orders last, whatever the first experiment lacks.
    handles = [named[name] for name in sorted(named, key=lambda name: name == _RANDOM)]
    style.legend_above(figure, handles, columns=2 if columns == 1 else None)
    return figure, pd.concat(wholes, ignore_index=True)


def explain_agreement(paths: list[Path]) -> tuple[Figure, pd.DataFrame]:
    """Draw how faithful and how alike maps are: a point for each state and a bar for their mean.

    Parameters
    ----------
    paths : list of Path
        ``summary.tsv`` of experiments. Likeness with the truth is drawn where it is known.
    """
    tables = [_read(path, _SUMMARY, "a table of what maps agree with") for path in paths]
    whole = pd.concat(tables, ignore_index=True)
    measures = [name for name in _MEASURES if name in whole and whole[name].notna().any()]
    lines = [(table, method) for table in tables for method in dict.fromkeys(table["method"])]
    places, headings = style.grouped([_heading(table) for table, _ in lines], step=0.75)
    figure = style.new_figure(style.PAGE, 0.19 * (len(lines) + 1.6 * len(tables)) + 0.75)
    panels = figure.subplots(1, len(measures), squeeze=False, sharey=True)[0]
    engine = figure.get_layout_engine()
    assert engine is not None
    engine.set(w_pad=0.08)  # type: ignore[call-arg]
    for axes, measure in zip(panels, measures, strict=True):
        for place, (table, method) in zip(places, lines, strict=True):
            own = table[table["method"] == method]
            states, mean = own.loc[own["state"] != _ALL, measure], own.loc[own["state"] == _ALL, measure]
            colour = _COLOURS[method]
            axes.barh(place, mean, height=0.55, color=colour, alpha=0.35, linewidth=0)
            jitter = np.linspace(-0.16, 0.16, len(states)) if len(states) > 1 else np.zeros(len(states))
            axes.plot(states, place + jitter, "o", color=colour, markersize=1.8, linestyle="none")
        axes.axvline(0, color=style.INK, linewidth=0.5)
        axes.set_xlabel(_MEASURES[measure], fontsize=6)
        axes.xaxis.set_major_locator(MaxNLocator(3))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        style.grid_lines(axes, "x")
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
    _mark_chance(panels[measures.index("area")], tables, places, lines)
    panels[0].set_yticks(places, [_NAMES[method] for _, method in lines])
    panels[0].set_ylim(max(places) + 0.6, min(headings.values()) - 0.5)
    for heading, place in headings.items():
        panels[0].annotate(
            heading, (0, place), (-4, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
            fontsize=7, fontweight="bold", va="center", ha="right",
        )  # fmt: skip
    return figure, whole


def _mark_chance(
    axes: Axes, tables: list[pd.DataFrame], places: list[float], lines: list[tuple[pd.DataFrame, str]]
) -> None:
    """Mark the largest area of a random order beside the areas of an experiment."""
    for table in tables:
        own = [place for place, (of, _) in zip(places, lines, strict=True) if of is table]
        chance = float(table["area_of_chance"].iloc[0])
        axes.plot([chance, chance], [min(own) - 0.35, max(own) + 0.35], ":", color=style.GREY, linewidth=0.9)


def _heading(table: pd.DataFrame) -> str:
    first = table.iloc[0]
    return f"{style.spelled(str(first['experiment']))}, {first['dataset']}"


def _read(path: Path, columns: tuple[str, ...], what: str) -> pd.DataFrame:
    table = read_tsv(path, _TEXT)
    if not set(columns) <= set(table.columns) or table.empty:
        raise unsuitable(path, f"not {what}", table)
    return table
