"""Figure upstream_skill: how much better than linear forecasts networks are, by dataset and repetition time."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from boldly.stages.figures import style
from boldly.stages.figures.experiments import Experiment, read_experiments, without_repeats
from boldly.stages.figures.tables import read_all_runs

_AGAINST = {"skill_ar1": "AR(1)", "skill_var": "VAR"}
_COLUMN = re.compile(r"(?P<skill>skill_ar1|skill_var)_(?P<dataset>[A-Za-z0-9]+?)(_(?P<t_r>[0-9.]+)s)?")
_COLUMNS = ["experiment", "dataset", "t_r", "against", "skill"]


def upstream_skill(paths: list[Path]) -> tuple[Figure, pd.DataFrame]:
    """Draw, of each experiment, ``1 - L1 / L1 of a linear forecast`` on each dataset, datasets by repetition time.

    Parameters
    ----------
    paths : list of Path
        Run tables of the datasets, which say their repetition times, and histories of experiments as
        `read_experiments` takes them. Those that are not compared with forecasts (Network-BERT) are left out.
    """
    tables = [path for path in paths if path.name.endswith("_runs.tsv")]
    t_r = read_all_runs(tables).groupby("dataset")["t_r"].median() if tables else pd.Series(dtype=float)
    experiments = without_repeats(read_experiments([path for path in paths if path not in tables]))
    table = pd.DataFrame([row for one in experiments for row in _rows(one, t_r)], columns=_COLUMNS)
    # Of a dataset of several repetition times each has a row of its own.
    several = table[table["dataset"].str.contains(",")]["dataset"].str.split(",").str[0]
    table = table[~table["dataset"].isin(set(several))]
    if table.empty:
        return style.nothing("no validation compares a network with AR(1) and VAR by dataset"), table
    order = table.drop_duplicates("dataset").sort_values(["t_r", "dataset"])
    names = list(table["experiment"].unique())
    figure = style.new_figure(max(style.COLUMN, style.PAGE * min(len(names), 4) / 4), 1.0 + 0.17 * len(order))
    panels = figure.subplots(1, len(names), squeeze=False, sharey=True, sharex=True)[0]
    colours = style.colours(names)
    for axes, name in zip(panels, names, strict=True):
        _panel(axes, table[table["experiment"] == name], list(order["dataset"]), colours[name])
        axes.set_title(style.wrapped(style.spelled(name), 22))
    labels = [
        f"{str(row['dataset']).split(',')[0]}, {row['t_r']:g} s"
        if row["t_r"] == row["t_r"]
        else str(row["dataset"])
        for row in order.to_dict("records")
    ]
    panels[0].set_yticks(range(len(order)), labels, fontsize=6)
    panels[0].set_ylim(len(order) - 0.4, -0.6)
    style.legend_above(figure, _legend())
    return figure, table.sort_values(["experiment", "t_r", "dataset"], kind="stable")[_COLUMNS]


def _rows(experiment: Experiment, t_r: pd.Series) -> list[dict[str, object]]:
    kept = experiment.best_row()
    rows = []
    for column in [] if kept is None else kept.index:
        found = _COLUMN.fullmatch(str(column))
        if found:
            own = found["t_r"]
            name = found["dataset"] + (f", {own}" if own else "")
            seconds = float(own) if own else t_r.get(found["dataset"], float("nan"))
            about = {"experiment": experiment.name, "dataset": name, "t_r": seconds}
            rows.append({**about, "against": _AGAINST[found["skill"]], "skill": kept[column]})  # type: ignore[index]
    return rows


def _panel(axes: Axes, table: pd.DataFrame, datasets: list[str], colour: str) -> None:
    axes.axvline(0, color=style.INK, linewidth=0.6, zorder=1)
    places = {dataset: place for place, dataset in enumerate(datasets)}
    for against, part in table.groupby("against"):
        y = part["dataset"].map(places)
        filled = against == "VAR"
        axes.plot(
            part["skill"], y, "o" if filled else "D", color=colour, markersize=3.6 if filled else 3.0,
            markerfacecolor=colour if filled else "white", markeredgewidth=0.8, zorder=3 if filled else 2,
        )  # fmt: skip
    axes.set_xlabel("skill: 1 \N{MINUS SIGN} L1 / L1 of forecast")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.margins(x=0.1)
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:+.2g}" if abs(value) > 1e-12 else "0"))
    axes.grid(True, color=style.PALE, linewidth=0.4)
    axes.set_axisbelow(True)


def _legend() -> list[Line2D]:
    look = {"linestyle": "", "color": style.INK, "markersize": 3.6}
    return [
        Line2D([], [], marker="o", label="against VAR", **look),  # type: ignore[arg-type]
        Line2D([], [], marker="D", markerfacecolor="white", label="against AR(1)", **look),  # type: ignore[arg-type]
        Line2D([], [], color=style.INK, linewidth=0.6, label="0: as good as the forecast"),
    ]
