"""Figure upstream_data: how many subjects and runs each dataset brings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter
from matplotlib.transforms import Bbox

from boldly.stages.figures import style
from boldly.stages.figures.tables import read_all_runs
from boldly.words import counted

# Up to this many datasets stand beside their markers by name; more are numbered and listed.
_NAMED = 10
# Ticks in a decade, from few to many.
_TICKS = (
    (1,),
    (1, 3),
    (1, 2, 5),
    (1, 1.5, 2, 3, 4, 6, 8),
    (1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 8, 9),
)
_FEWEST_TICKS = 3
_AREA = (12.0, 420.0)  # smallest and largest marker, square points


def upstream_data(paths: list[Path]) -> tuple[Figure, pd.DataFrame]:
    """Draw subjects by runs of each dataset, on logarithmic axes, area for hours.

    Runs that are excluded are shown as rings at the number that was found; of many datasets they are listed.

    Parameters
    ----------
    paths : list of Path
        Run tables of the datasets; with their quality tables (or folders of these) the runs that preprocess
        excluded count as excluded as well.
    """
    table = _by_dataset(read_all_runs(paths))
    listed = len(table) > _NAMED
    figure = style.new_figure(style.PAGE if listed else style.COLUMN, 3.6 if listed else 3.0)
    if listed:
        axes, key = figure.subplots(1, 2, width_ratios=(1.0, 1.05))
        _list_datasets(key, table)
    else:
        axes = figure.subplots()
    _scatter(axes, table, rings=not listed)
    figure.canvas.draw()  # labels are placed around markers, whose places are known from here
    texts = [str(number + 1) for number in range(len(table))] if listed else list(table["dataset"])
    _place_labels(axes, table, texts)
    return figure, table


def _by_dataset(runs: pd.DataFrame) -> pd.DataFrame:
    used = runs[runs["status"] == "ok"]
    table = pd.DataFrame(
        {
            "subjects": used.groupby("dataset")["subject"].nunique(),
            "runs": used.groupby("dataset").size(),
            "hours": used.groupby("dataset")["hours"].sum().round(2),
            "subjects_found": runs.groupby("dataset")["subject"].nunique(),
            "runs_found": runs.groupby("dataset").size(),
        }
    )
    table = table.fillna(0).astype({"subjects": int, "runs": int})
    table["runs_excluded"] = table["runs_found"] - table["runs"]
    return table.sort_values(["runs", "hours"], ascending=False).reset_index()


def _areas(hours: pd.Series) -> pd.Series:
    return np.clip(_AREA[1] * hours / max(hours.max(), 1e-9), _AREA[0], None)


def _scatter(axes: Axes, table: pd.DataFrame, *, rings: bool) -> None:
    some = table[table["runs"] > 0]
    excluded = table[(table["runs_excluded"] > 0) & rings]
    for row in excluded.to_dict("records"):
        x, y = ((max(row[name], 1), row[f"{name}_found"]) for name in ("subjects", "runs"))
        axes.plot(x, y, color=style.ALERT, linewidth=0.7, zorder=2)
    axes.scatter(
        excluded["subjects_found"], excluded["runs_found"], s=9, facecolor="white", edgecolor=style.ALERT,
        linewidth=0.8, zorder=4,
    )  # fmt: skip
    axes.scatter(
        some["subjects"], some["runs"], s=_areas(some["hours"]), color="#0072B2", alpha=0.55, linewidth=0.5,
        edgecolor="white", zorder=3,
    )  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel="subjects", ylabel="runs")
    for axis, name in ((axes.xaxis, "subjects_found"), (axes.yaxis, "runs_found")):
        low, high = np.log10(max(table[name.removesuffix("_found")].min(), 1)), np.log10(table[name].max())
        margin = max(0.16 * (high - low), 0.25)
        limits = 10 ** np.array([low - margin, high + margin])
        (axes.set_xlim if axis is axes.xaxis else axes.set_ylim)(*limits)
        axis.set_major_locator(FixedLocator(_ticks(*limits)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axis.set_minor_formatter(NullFormatter())
    style.grid_lines(axes, "both")
    n_subjects, n_runs = int(table["subjects"].sum()), int(table["runs"].sum())
    total = f"{counted(n_subjects, 'subject')}, {counted(n_runs, 'run')}, {_hours(table['hours'].sum())}"
    axes.set_title(total)
    lines = [f"area: hours of recording, largest {_hours(table['hours'].max())}"]
    if len(excluded):
        lines.append(f"ring: with {counted(int(table['runs_excluded'].sum()), 'excluded run')}")
    axes.text(
        0.98,
        0.02,
        "\n".join(lines),
        transform=axes.transAxes,
        ha="right",
        va="bottom",
        fontsize=6,
        color=style.GREY,
    )


def _ticks(low: float, high: float) -> list[float]:
    """Return whole numbers for a logarithmic axis from low to high: the coarsest series that has three there."""
    ticks: list[float] = []
    for series in _TICKS:
        numbers = (multiple * 10**power for power in range(9) for multiple in series)
        ticks = sorted(number for number in numbers if low <= number <= high and number == int(number))
        if len(ticks) >= _FEWEST_TICKS:
            break
    return ticks


def _hours(hours: float) -> str:
    return f"{hours:,.0f} h" if hours >= 10 else f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.0f} min"


def _place_labels(axes: Axes, table: pd.DataFrame, texts: list[str]) -> None:
    """Put each label at the first place around its marker where it covers neither a marker nor another label."""
    scale = axes.figure.dpi / 72
    centres = axes.transData.transform(np.maximum(table[["subjects", "runs"]].to_numpy(float), 1))
    radii = np.sqrt(_areas(table["hours"]).to_numpy() / np.pi) * scale
    taken = [Bbox.from_bounds(x - r, y - r, 2 * r, 2 * r) for (x, y), r in zip(centres, radii * 0.8, strict=True)]
    inside = axes.get_window_extent()
    for text, (x, y), radius in zip(texts, centres, radii, strict=True):
        label = axes.text(0, 0, text, fontsize=6, transform=None, ha="center", va="center", zorder=5)
        box = label.get_window_extent()
        size = np.array([box.width, box.height])
        places = []
        for distance in (2.0, 6.0, 11.0, 17.0):
            away = radius + distance * scale
            for angle in (0, 180, 90, 270, 45, 135, 315, 225):
                unit = np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))])
                left, low = np.array([x, y]) + unit * (away + size / 2) - size / 2
                places.append(Bbox.from_bounds(left, low, box.width, box.height))
        chosen = min(places, key=lambda place: (_covered(place, taken, inside), places.index(place)))
        taken.append(chosen)
        label.remove()
        back = axes.transData.inverted()
        middle, point = (tuple(back.transform(place)) for place in (chosen.p0 + size / 2, (x, y)))
        far = places.index(chosen) >= 16
        axes.annotate(
            text, point, middle, fontsize=6, ha="center", va="center", zorder=5, annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": style.GREY, "linewidth": 0.4, "shrinkA": 0, "shrinkB": 0}
            if far else None,
        )  # fmt: skip


def _covered(place: Bbox, taken: list[Bbox], inside: Bbox) -> float:
    """Return the area that a place shares with others, and what of it is outside the axes."""
    shared = 0.0
    for other in taken:
        both = Bbox.intersection(place, other)
        shared += 0.0 if both is None else both.width * both.height
    within = Bbox.intersection(place, inside)
    return shared + place.width * place.height - (0.0 if within is None else within.width * within.height)


def _list_datasets(axes: Axes, table: pd.DataFrame) -> None:
    """List the numbered datasets, in two columns where one would be too long."""
    axes.set_axis_off()
    axes.set(xlim=(0, 1), ylim=(0, 1))
    n_columns = 2 if len(table) > 24 else 1
    n_rows = int(np.ceil(len(table) / n_columns))
    step = min(1 / (n_rows + 1), 0.054)
    size, longest = (5.0, 10) if n_columns == 2 else (6.0, 20)
    for column in range(n_columns):
        left, right = column / n_columns, (column + 1) / n_columns - 0.03
        ends = [left + (right - left) * share for share in (0.52, 0.65, 0.86, 1.0)]
        for x, text in zip(ends, ("subjects", "runs", "excluded", "hours"), strict=True):
            axes.text(x, 1, text, ha="right", va="top", fontsize=size - 0.5, color=style.GREY)
        rows = table.iloc[column * n_rows : (column + 1) * n_rows].to_dict("records")
        for place, row in enumerate(rows):
            y = 1 - (place + 1.2) * step
            axes.text(left + 0.04, y, str(column * n_rows + place + 1), ha="right", va="top", fontsize=size)
            name = str(row["dataset"])
            name = name if len(name) <= longest else f"{name[: longest - 1]}…"
            axes.text(left + 0.06, y, name, va="top", fontsize=size)
            numbers = [f"{row[word]:,}" for word in ("subjects", "runs", "runs_excluded")]
            numbers.append(f"{row['hours']:,.0f}" if row["hours"] >= 10 else f"{row['hours']:.1f}")
            for x, text in zip(ends, numbers, strict=True):
                axes.text(x, y, text, ha="right", va="top", fontsize=size)
