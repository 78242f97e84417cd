"""Figure upstream_sizes, Figure 3 of the preprint: how well networks of several sizes predict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import EngFormatter, MaxNLocator

from boldly.stages.figures import style
from boldly.stages.figures.experiments import (
    VALIDATION,
    Experiment,
    read_experiments,
    skill_curve,
    without_repeats,
)

# Skills that lie closer than this have almost the same colour.
_LEAST_SPAN = 0.01
_DASHES: tuple[Any, ...] = ("solid", (0, (4, 1.2)), (0, (1, 1)), (0, (4, 1, 1, 1)))
_COLUMNS = ["experiment", "framework", "layers", "width", "step", "skill", "is_kept", "is_best"]


def upstream_sizes(paths: list[Path]) -> tuple[Figure, pd.DataFrame]:
    """Draw, of each framework, skill over steps of all sizes, and below a map of the skill that is kept.

    Parameters
    ----------
    paths : list of Path
        Histories of the experiments, as `read_experiments` takes them. Frameworks of one size alone are left out.

    An experiment that was not validated has neither curve nor place in the map.
    """
    experiments = [one for one in without_repeats(read_experiments(paths)) if one.best_row() is not None]
    frameworks: dict[str, list[Experiment]] = {}
    for experiment in experiments:
        frameworks.setdefault(experiment.framework, []).append(experiment)
    frameworks = {name: of_it for name, of_it in frameworks.items() if len({one.size for one in of_it}) > 1}
    if not frameworks:
        return style.nothing("no framework has validated experiments of several sizes"), pd.DataFrame(
            columns=_COLUMNS
        )
    tables = {framework: _table(of_it) for framework, of_it in frameworks.items()}
    n_layers = max(table["layers"].nunique() for table in tables.values())
    maps = 0.55 + 0.3 * n_layers
    figure = style.new_figure(max(style.COLUMN, style.PAGE * len(tables) / 4), 1.9 + maps)
    grid = figure.subplots(2, len(tables), squeeze=False, height_ratios=[1.75, maps])
    widths = sorted({width for table in tables.values() for width in table["width"]})
    shades = {w: style.BLUES(0.35 + 0.65 * i / max(len(widths) - 1, 1)) for i, w in enumerate(widths)}
    low, high = (np.concatenate([_later(t) for t in tables.values()]) for _ in range(2))
    for number, (framework, table) in enumerate(tables.items()):
        top, below = grid[:, number]
        _curves(top, table, shades)
        top.set_title(style.spelled(framework))
        top.set_ylim(low.min() - 0.08 * np.ptp(low), high.max() + 0.08 * np.ptp(high))
        top.set_ylabel(style.SKILL if number == 0 else "")
        if number:
            top.set_yticklabels([])
        _map(below, table, first=number == 0)
    style.legend_above(figure, _legend(shades, tables))
    return figure, pd.concat(tables.values(), ignore_index=True)[_COLUMNS]


def _later(table: pd.DataFrame) -> np.ndarray:
    """Return what curves show but for the start, next to which all that follows would be flat."""
    later = table.loc[table["step"] > 0.05 * table["step"].max(), "skill"]
    return np.asarray(later if len(later) else table["skill"])


def _table(experiments: list[Experiment]) -> pd.DataFrame:
    parts = []
    for experiment in experiments:
        kept = experiment.best_row()
        assert kept is not None
        layers, width = experiment.size
        part = skill_curve(experiment.histories[VALIDATION])
        about: dict[str, Any] = {
            "experiment": experiment.name,
            "framework": experiment.framework,
            "layers": layers,
        }
        parts.append(part.assign(**about, width=width, is_kept=part["step"] == kept["step"]))
    table = pd.concat(parts, ignore_index=True)
    best = table.loc[table["is_kept"], "skill"].idxmax()
    return table.assign(is_best=table["experiment"] == table.loc[best, "experiment"])


def _curves(axes: Axes, table: pd.DataFrame, shades: dict[int, Any]) -> None:
    layers = sorted(table["layers"].unique())
    for _, curve in table.groupby("experiment", sort=False):
        first = curve.iloc[0]
        axes.plot(
            curve["step"], curve["skill"], color=shades[first["width"]], linewidth=1.1,
            linestyle=_DASHES[layers.index(first["layers"]) % len(_DASHES)],
        )  # fmt: skip
    axes.set_xlabel("step")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_major_locator(MaxNLocator(3, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    style.grid_lines(axes)


def _map(axes: Axes, table: pd.DataFrame, *, first: bool) -> None:
    """Draw the skill of the weights that are kept by layers and width, of several trainings of a size the best."""
    kept = table[table["is_kept"]].sort_values("skill", kind="stable")
    kept = kept.drop_duplicates(["layers", "width"], keep="last")
    layers, widths = sorted(kept["layers"].unique()), sorted(kept["width"].unique())
    low, high = kept["skill"].min(), kept["skill"].max()
    # Differences that mean nothing must not look like large ones.
    reach = 0.7 * max(high - low, _LEAST_SPAN)
    norm = Normalize((low + high) / 2 - reach, (low + high) / 2 + reach)
    # Sizes that hardly differ need a further digit.
    digits = 3 if np.ptp(kept["skill"]) >= 0.003 else 4
    for row in kept.to_dict("records"):
        x, y = widths.index(row["width"]), layers.index(row["layers"])
        face = style.BLUES(norm(row["skill"]))
        axes.add_patch(Rectangle((x - 0.48, y - 0.47), 0.96, 0.94, facecolor=face, linewidth=0))
        # Rounded first: adding zero turns minus zero into zero.
        value = f"{round(row['skill'], digits) + 0.0:.{digits}f}".replace("-", "\N{MINUS SIGN}")
        text = f"\N{BLACK CIRCLE} {value}" if row["is_best"] else value
        weight = "bold" if row["is_best"] else "normal"
        axes.text(x, y, text, ha="center", va="center", fontsize=6, color=style.ink_on(face), fontweight=weight)
    axes.set(
        xlim=(-0.5, len(widths) - 0.5),
        ylim=(len(layers) - 0.5, -0.5),
        xlabel="width\nskill in the cells, \N{BLACK CIRCLE} best",
    )
    axes.set_xticks(range(len(widths)), [str(width) for width in widths])
    axes.set_yticks(range(len(layers)), [str(number) for number in layers])
    axes.set_ylabel("layers" if first else "")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _legend(shades: dict[int, Any], tables: dict[str, pd.DataFrame]) -> list[Line2D]:
    handles = [
        Line2D([], [], color=shade, linewidth=1.6, label=f"width {width}") for width, shade in shades.items()
    ]
    most = max((sorted(table["layers"].unique()) for table in tables.values()), key=len)
    same = all(sorted(table["layers"].unique()) == most for table in tables.values())
    words = ("fewest layers", "more", "most", "even more")
    for number in range(len(most)):
        text = f"{most[number]} layer{'s' if most[number] > 1 else ''}" if same else words[number % len(words)]
        handles.append(
            Line2D([], [], color=style.INK, linewidth=1.1, linestyle=_DASHES[number % len(_DASHES)], label=text)
        )
    return handles
