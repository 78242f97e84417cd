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

_COLUMNS = ["experiment", "framework", "people", "l1", "l1_zero", "l1_var", "floor", "factor", "exponent"]
_FEWEST = 2


def upstream_scaling(paths: list[Path]) -> tuple[Figure, pd.DataFrame]:
    """Draw the L1 that is kept by number of training people, on a logarithmic axis, with a power law.

    The law is ``floor + factor * people ** -exponent`` by least squares. Of three numbers of people its floor is
    zero; of two there is none. Experiments with the same number of people (other seeds) are averaged for the fit.

    Parameters
    ----------
    paths : list of Path
        Histories of experiments with several `subjects_fraction`, as `read_experiments` takes them.
    """
    rows = []
    for experiment in read_experiments(paths):
        kept = experiment.best_row()
        if kept is not None:
            about = {"experiment": experiment.name, "framework": experiment.framework, "people": experiment.people}
            rows.append({**about, "l1": kept["l1"], "l1_zero": kept["l1_zero"], "l1_var": kept.get("l1_var")})
    table = pd.DataFrame(rows, columns=_COLUMNS)
    several = [
        name for name, part in table.groupby("framework", sort=False) if part["people"].nunique() >= _FEWEST
    ]
    if not several:
        return style.nothing("no network was trained on several numbers of people"), table
    figure = style.new_figure(max(style.COLUMN, style.PAGE * len(several) / 4), 2.2)
    panels = figure.subplots(1, len(several), squeeze=False)[0]
    colours = style.colours(list(map(str, several)))
    drawn = []
    for number, (axes, framework) in enumerate(zip(panels, several, strict=True)):
        part = table[table["framework"] == framework].sort_values("people")
        mean = part.groupby("people")["l1"].mean()
        law = fit_power_law(mean.index.to_numpy(float), mean.to_numpy(float))
        _panel(axes, part, law, colours[str(framework)])
        axes.set_title(style.spelled(str(framework)), pad=13)
        axes.set_ylabel("L1 on held-out subjects" if number == 0 else "")
        if law is not None:
            part = part.assign(floor=law.floor, factor=law.factor, exponent=law.exponent)
        drawn.append(part)
    return figure, pd.concat(drawn, ignore_index=True)[_COLUMNS]


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
