"""Figure upstream_scaling: the error on held-out subjects by the number of training people."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from boldly.stages.figures import style
from boldly.stages.figures.experiments import PowerLaw, fit_power_law, read_experiments

_NETWORK = ["framework", "layers", "width"]
_COLUMNS = ["experiment", *_NETWORK, "people", "l1", "l1_zero", "l1_var", "floor", "factor", "exponent"]
_FEWEST = 2
_PER_LINE = 4


def upstream_scaling(paths: list[Path]) -> tuple[Figure, pd.DataFrame]:
    """Draw the L1 that is kept by number of training people, on a logarithmic axis, with a power law.

    The law is ``floor + factor * people ** -exponent`` by least squares, of networks of one framework and size. Of
    three numbers of people its floor is zero; of two there is none. Experiments with the same number of people
    (other seeds) are averaged for the fit.

    Parameters
    ----------
    paths : list of Path
        Histories of experiments with several `subjects_fraction`, as `read_experiments` takes them.
    """
    rows = []
    for experiment in read_experiments(paths):
        kept = experiment.best_row()
        if kept is not None:
            about = dict(zip(_NETWORK, (experiment.framework, *experiment.size), strict=True))
            about |= {"experiment": experiment.name, "people": experiment.people}
            rows.append({**about, "l1": kept["l1"], "l1_zero": kept["l1_zero"], "l1_var": kept.get("l1_var")})
    table = pd.DataFrame(rows, columns=_COLUMNS)
    parts = [part for _, part in table.groupby(_NETWORK, sort=False) if part["people"].nunique() >= _FEWEST]
    if not parts:
        return style.nothing("no network was trained on several numbers of people"), table
    columns = min(len(parts), _PER_LINE)
    lines = -(-len(parts) // columns)
    figure = style.new_figure(max(style.COLUMN, style.PAGE * columns / _PER_LINE), 2.2 * lines)
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    titles = _titles(parts)
    colours = style.colours(titles.values())
    drawn = []
    for number, (axes, part) in enumerate(zip(panels, parts, strict=False)):
        part = part.sort_values("people")
        mean = part.groupby("people")["l1"].mean()
        law = fit_power_law(mean.index.to_numpy(float), mean.to_numpy(float))
        _panel(axes, part, law, colours[titles[number]])
        axes.set_title(style.spelled(titles[number]), pad=13)
        axes.set_ylabel("L1 on held-out subjects" if number % columns == 0 else "")
        if law is not None:
            part = part.assign(floor=law.floor, factor=law.factor, exponent=law.exponent)
        drawn.append(part)
    for axes in panels[len(parts) :]:
        axes.set_axis_off()
    return figure, pd.concat(drawn, ignore_index=True)[_COLUMNS]


def _titles(parts: list[pd.DataFrame]) -> dict[int, str]:
    """Return what panels are called: the framework, with the size where there are several of it."""
    networks = [tuple(part[_NETWORK].iloc[0]) for part in parts]
    frameworks = [framework for framework, _, _ in networks]
    return {
        number: f"{framework} {layers} x {width}" if frameworks.count(framework) > 1 else str(framework)
        for number, (framework, layers, width) in enumerate(networks)
    }


def _panel(axes: Axes, part: pd.DataFrame, law: PowerLaw | None, colour: str) -> None:
    people = sorted(part["people"].unique())
    axes.set_xscale("log")
    if law is not None:
        x = np.geomspace(people[0], people[-1], 100)
        axes.plot(x, law(x), color=colour, linewidth=1.0, alpha=0.7)
        start = f"{law.floor:.3f} + " if law.floor else ""
        text = f"L1 = {start}{law.factor:.3g} · people$^{{-{law.exponent:.2g}}}$"
    else:
        text = "no power law: too few numbers" if len(people) < 3 else "no power law: the error does not fall"
    axes.plot(part["people"], part["l1"], "o", color=colour, markersize=3.5)
    style.subtitle(axes, text, style.for_text(colour))
    var = part.dropna(subset=["l1_var"])
    if len(var):
        axes.plot(
            var["people"], var["l1_var"].astype(float), "x", color=style.GREY, markersize=3.5, markeredgewidth=0.8
        )
        end = var.iloc[-1]
        axes.annotate(
            "VAR", (end["people"], end["l1_var"]), (-5, 0), textcoords="offset points", fontsize=5.8, ha="right",
            va="center", color=style.GREY,
        )  # fmt: skip
    axes.set_xlabel("training people")
    axes.xaxis.set_major_locator(FixedLocator([float(number) for number in people]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks([float(number) for number in people], [str(number) for number in people])
    axes.margins(x=0.12, y=0.15)
    style.grid_lines(axes)
