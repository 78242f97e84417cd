"""Figure downstream_curves: accuracy by number of labelled units, pretrained or not, per network."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, NullLocator

from boldly.stages.figures import style
from boldly.stages.figures.tables import DRAWN_SCORES, REFERENCES, highest_control, read_all_scores

_Ends = list[tuple[str, float, str]]  # label, last value and colour of each line
_PER_LINE = 4
_DASHED = (0, (3, 1.5))
_DOTTED = (0, (1, 1.2))
# Without numbers of people: horizontal lines.
_REFERENCE_DASHES: dict[str, Any] = {
    "chance": (0, (1, 2)),
    "ceiling_mean_signal": (0, (6, 2, 1, 2)),
    "ceiling_any": (0, (7, 2)),
}
_CONTROL_DASHES = (0, (4, 1, 1, 1))
_BASELINE_DASHES = ((0, (1, 1)), (0, (5, 1.5)), (0, (3, 1, 1, 1)), (0, (8, 2)))
# Of many baselines, those that have curves of their own beside the best: of what the published system compared
# with, of the mean signal, and of linear pretraining; ensembles of baselines as well.
NAMED_BASELINES = ("linear", "mean_logistic", "components")
_MOST_BASELINES = 3
_LONGEST = 24  # characters of a label
_SEVERAL = "several networks"


@dataclass(frozen=True)
class _Family:
    """A pretrained experiment and the same network without pretraining: what a panel shows; or baselines alone.

    Attributes
    ----------
    pretrained, scratch, untrained : str or None
        Experiments; None where there is none.
    several : tuple of str
        Instead of these: all experiments that start from several upstream models, and "chosen".
    """

    pretrained: str | None = None
    scratch: str | None = None
    untrained: str | None = None
    several: tuple[str, ...] = field(default=())

    @property
    def name(self) -> str:
        """What the panel is called."""
        return _SEVERAL if self.several else self.pretrained or self.scratch or self.untrained or ""


@dataclass(frozen=True)
class _Line:
    """A curve of a panel. Those in front have markers and a band."""

    label: str
    rows: pd.DataFrame
    colour: str
    dashes: Any
    front: bool


def downstream_curves(paths: list[Path]) -> tuple[Figure, pd.DataFrame]:
    """Draw one row per dataset and one column per network.

    Pretrained networks are solid, those from scratch dashed, untrained ones dotted; experiments that start from
    several upstream models share a panel. Coloured bands are intervals. Of more than three baselines, a grey band
    reaches from the worst to the best of each n, and `NAMED_BASELINES` are drawn. Without any network, the
    baselines alone are drawn, in colour. A legend above names all lines but those of one panel alone, which are
    named at their ends.

    Parameters
    ----------
    paths : list of Path
        Score tables, one per dataset; rows stand in their order. Tables of comparisons are left out.
    """
    accuracy = read_all_scores(paths)
    families = _families(accuracy) or [_Family()]
    colours = style.colours([family.name for family in families])
    baselines = _named_baselines(accuracy)
    # As many lines as are needed, filled evenly.
    per_line = -(-len(families) // -(-len(families) // _PER_LINE))
    chunks = [families[first : first + per_line] for first in range(0, len(families), per_line)]
    lines = [(rows, chunk) for _, rows in accuracy.groupby("dataset", sort=False) for chunk in chunks]
    width = style.COLUMN * 0.8 if per_line == 1 else min(style.PAGE, 1.15 + 2.0 * per_line)
    figure = style.new_figure(width, 0.55 + 1.6 * len(lines))
    panels = _panels(figure, [rows["dataset"].iloc[0] for rows, _ in lines], per_line)
    ends: list[list[_Ends]] = []
    for number, (line, (rows, chunk)) in enumerate(zip(panels, lines, strict=True)):
        ends.append([])
        for axes, family in zip(line, chunk, strict=False):
            curves = _lines(family, rows, colours[family.name], baselines)
            own = bool(family.several) or not family.name
            ends[-1].append(_panel(axes, rows, curves, named_at_ends=own))
            if number == 0 or len(chunks) > 1:
                axes.set_title(style.wrapped(style.spelled(family.name), 22))
            if number == len(lines) - 1 or len(chunks) > 1:
                axes.set_xlabel(style.LABELLED)
        for axes in line[len(chunk) :]:
            axes.set_axis_off()
        line[0].set_ylabel(f"{rows['dataset'].iloc[0]}\naccuracy")
    # When all have given their data to the common scale.
    for line, (_, chunk), labels in zip(panels, lines, ends, strict=True):
        for place, (axes, of_panel) in enumerate(zip(line, labels, strict=False)):
            # Beside an empty place there is room.
            _labels(axes, of_panel, has_room=len(chunk) - 1 == place < len(line) - 1)
    style.legend_above(figure, _legend(accuracy, families, baselines))
    return figure, accuracy[DRAWN_SCORES]


def _panels(figure: Figure, datasets: list[str], per_line: int) -> list[list[Axes]]:
    """Return lines of panels, those of a dataset on one scale."""
    grid, first = figure.add_gridspec(len(datasets), per_line), dict[str, Axes]()
    panels: list[list[Axes]] = []
    for line, dataset in enumerate(datasets):
        panels.append([])
        for place in range(per_line):
            axes = figure.add_subplot(grid[line, place], sharey=first.get(dataset))
            first.setdefault(dataset, axes)
            axes.tick_params(labelleft=place == 0)
            panels[-1].append(axes)
    return panels


def _families(scores: pd.DataFrame) -> list[_Family]:
    """Put together the experiments of one network (their `start`): each pretrained one, and those that are not."""
    experiments = scores.drop_duplicates("experiment")
    without: dict[str, dict[str, str]] = {"scratch": {}, "untrained": {}}
    for name, kind, start in experiments[["experiment", "kind", "start"]].itertuples(index=False):
        if kind in without:
            without[kind].setdefault(start, name)
    pretrained = experiments[experiments["kind"] == "pretrained"]
    # The best by validation is of several experiments even where these start from one model.
    of_several = pretrained["start"].fillna("").str.contains("+", regex=False) | (
        pretrained["experiment"] == "chosen"
    )
    several, pretrained = tuple(pretrained.loc[of_several, "experiment"]), pretrained[~of_several]
    families = [
        _Family(name, without["scratch"].get(start), without["untrained"].get(start))
        for name, start in pretrained[["experiment", "start"]].itertuples(index=False)
    ]
    shown = {name for family in families for name in (family.scratch, family.untrained)}
    for kind in without:
        names = experiments.loc[experiments["kind"] == kind, "experiment"]
        families += [_Family(**{kind: name}) for name in names if name not in shown]
    return [*families, _Family(several=several)] if several else families


def _named_baselines(scores: pd.DataFrame) -> list[str]:
    """Return the baselines that have curves of their own: all if there are few."""
    experiments = scores[scores["kind"] == "baseline"].drop_duplicates("experiment")
    if len(experiments) <= _MOST_BASELINES:
        return list(experiments["experiment"])
    of_start = experiments.drop_duplicates("start").set_index("start")["experiment"]
    several = experiments.loc[experiments["start"].fillna("").str.contains("+", regex=False), "experiment"]
    return [*(of_start[start] for start in NAMED_BASELINES if start in of_start), *several]


def _lines(family: _Family, rows: pd.DataFrame, colour: str, baselines: list[str]) -> list[_Line]:
    own = style.colours(baselines)
    behind = [
        _Line(style.spelled(name), rows[rows["experiment"] == name], own[name], dashes, False)
        if family.name
        else _Line(style.spelled(name), rows[rows["experiment"] == name], own[name], "solid", True)
        for name, dashes in zip(baselines, _BASELINE_DASHES * len(baselines), strict=False)
    ]
    if family.several:
        own = style.colours(family.several)
        front = [
            _Line(_short(style.spelled(name)), rows[rows["experiment"] == name], own[name], "solid", True)
            for name in family.several
        ]
        return [line for line in [*behind, *front] if len(line.rows)]
    front = [
        _Line("untrained", rows[rows["experiment"] == family.untrained], colour, _DOTTED, True),
        _Line("scratch", rows[rows["experiment"] == family.scratch], colour, _DASHED, True),
        _Line("pretrained", rows[rows["experiment"] == family.pretrained], colour, "solid", True),
    ]
    return [line for line in [*behind, *front] if len(line.rows)]


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"


def _panel(axes: Axes, rows: pd.DataFrame, lines: list[_Line], *, named_at_ends: bool) -> _Ends:
    """Draw everything; return the labels of those lines that the legend does not name."""
    sizes = sorted(rows[rows["n"] > 0]["n"].unique())
    ends: _Ends = []
    for name, dashes in _REFERENCE_DASHES.items():
        for value in rows.loc[rows["experiment"] == name, "value"]:
            axes.axhline(value, color=style.GREY, linewidth=0.7, linestyle=dashes, zorder=1)
    controls = highest_control(rows)
    if len(controls):
        _reference(axes, controls)
    baselines = rows[rows["kind"] == "baseline"]
    if baselines["experiment"].nunique() > _MOST_BASELINES:
        _band(axes, baselines.groupby("n")["value"].agg(["min", "max"]))
    for number, line in enumerate(lines):
        # A single n: beside each other, so that whiskers do not cover each other.
        shift = (number - (len(lines) - 1) / 2) * 0.16
        end = _point(axes, line, shift) if len(sizes) == 1 else _curve(axes, line)
        if line.front and named_at_ends:
            ends.append((line.label, end, style.for_text(line.colour)))
    if not any(line.front for line in lines):
        axes.text(0.03, 0.95, "not trained", transform=axes.transAxes, va="top", color=style.GREY, fontsize=6)
    _x_axis(axes, sizes)
    style.grid_lines(axes)
    return ends


def _legend(scores: pd.DataFrame, families: list[_Family], baselines: list[str]) -> list[Any]:
    """Name what the panels have in common."""
    starts: list[tuple[str, str, Any]] = [
        ("pretrained", "pretrained", "solid"),
        ("scratch", "same network, from scratch", _DASHED),
        ("untrained", "same network, untrained", _DOTTED),
    ]
    look: dict[str, Any] = {"color": style.INK, "linewidth": 1.3, "marker": "o", "markersize": 2.6}
    handles: list[Any] = [
        Line2D(
            [],
            [],
            label=text,
            linestyle=dashes,
            markerfacecolor=style.INK if dashes == "solid" else "white",
            **look,
        )
        for kind, text, dashes in starts
        if any(getattr(family, kind) for family in families)
    ]
    if any(family.name for family in families):
        own = style.colours(baselines)
        handles += [
            Line2D([], [], label=style.spelled(name), linestyle=dashes, color=own[name], linewidth=0.9)
            for name, dashes in zip(baselines, _BASELINE_DASHES * len(baselines), strict=False)
        ]
    n_baselines = scores.loc[scores["kind"] == "baseline", "experiment"].nunique()
    if n_baselines > _MOST_BASELINES:
        label = f"all {n_baselines} baselines, worst to best"
        handles.append(Patch(facecolor=style.GREY, alpha=0.16, linewidth=0, label=label))
    there = set(scores["experiment"])
    handles += [
        Line2D([], [], label=REFERENCES[name], linestyle=dashes, color=style.GREY, linewidth=0.7)
        for name, dashes in _REFERENCE_DASHES.items()
        if name in there
    ]
    if (scores["kind"] == "control").any():
        label = "best control, sees no signal"
        handles.append(Line2D([], [], label=label, linestyle=_CONTROL_DASHES, color=style.GREY, linewidth=0.6))
    return handles


def _reference(axes: Axes, controls: pd.Series) -> None:
    """Draw the best control of each n."""
    x = np.log2(controls.index.to_numpy(float))
    look: dict[str, Any] = {"color": style.GREY, "linewidth": 0.6, "zorder": 1}
    if len(x) == 1:
        axes.axhline(controls.iloc[0], linestyle=_CONTROL_DASHES, **look)
    else:
        axes.plot(x, controls, linestyle=_CONTROL_DASHES, **look)


def _band(axes: Axes, baselines: pd.DataFrame) -> None:
    """Draw where baselines lie, from the worst to the best of each n."""
    x = np.log2(baselines.index.to_numpy(float))
    look: dict[str, Any] = {"facecolor": style.GREY, "alpha": 0.16, "linewidth": 0, "zorder": 1}
    if len(x) == 1:
        axes.axhspan(baselines["min"].iloc[0], baselines["max"].iloc[0], **look)
    else:
        axes.fill_between(x, baselines["min"], baselines["max"], **look)


def _curve(axes: Axes, line: _Line) -> float:
    """Draw accuracy by n and return the last value."""
    rows = line.rows.sort_values("n")
    x, y = np.log2(rows["n"].to_numpy(float)), rows["value"].to_numpy(float)
    dashed = line.dashes != "solid"
    if line.front:
        low, high = rows["ci_low"].to_numpy(float), rows["ci_high"].to_numpy(float)
        axes.fill_between(x, low, high, color=line.colour, alpha=0.1 if dashed else 0.2, linewidth=0, zorder=3)
        look = {"linewidth": 1.3, "zorder": 4, "marker": "o", "markersize": 2.6}
        look["markerfacecolor"] = "white" if dashed else line.colour
    else:
        look = {"linewidth": 0.9, "zorder": 2}
    axes.plot(x, y, color=line.colour, linestyle=line.dashes, **look)  # type: ignore[arg-type]
    return float(y[-1])


def _point(axes: Axes, line: _Line, shift: float) -> float:
    """Draw the accuracy at the only n, with a whisker, and return it."""
    row = line.rows.iloc[0]
    value = float(row["value"])
    whisker = [[value - row["ci_low"]], [row["ci_high"] - value]]
    axes.errorbar(
        [np.log2(row["n"]) + shift], [value], yerr=whisker, color=line.colour, marker="o", markersize=3.5,
        markerfacecolor="white" if line.dashes in (_DASHED, _DOTTED) else line.colour, linewidth=0.8,
    )  # fmt: skip
    return value


def _x_axis(axes: Axes, sizes: list[int]) -> None:
    """Put a tick at each n, on a logarithmic scale."""
    values = [float(np.log2(size)) for size in sizes] or [0.0]
    margin = 0.06 * (values[-1] - values[0]) or 0.7
    axes.set_xlim(values[0] - margin, values[-1] + margin)
    axes.xaxis.set_major_locator(FixedLocator(values))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(values, [str(size) for size in sizes] or [""])


def _labels(axes: Axes, ends: _Ends, *, has_room: bool) -> None:
    """Name the lines at their right ends, moved apart where they would touch."""
    axes.autoscale_view()
    low, high = axes.get_ylim()
    places = style.spread([y for _, y, _ in ends], 0.08 * (high - low), low, high)
    for (text, _, colour), y in zip(ends, places, strict=True):
        axes.annotate(
            text, (1, y), (2, 0), xycoords=("axes fraction", "data"), textcoords="offset points", fontsize=5.8,
            color=colour, va="center", annotation_clip=False, in_layout=not has_room,
        )  # fmt: skip
