"""Figures upstream_largest and upstream_warm_start (S1, S3): trainings of the supplement beside others.

S1 of the preprint is the training of the largest network of the size search; S3 that of networks that start from
the weights of language models.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, MaxNLocator

from boldly.stages.figures import style
from boldly.stages.figures.experiments import (
    TRAIN,
    VALIDATION,
    Experiment,
    read_experiments,
    skill_curve,
    without_repeats,
)

_POINTS = 300
_COLUMNS = ["experiment", "framework", "curve", "part", "step", "skill"]
_DASHED = (0, (3, 1.3))


def upstream_largest(paths: list[Path]) -> tuple[Figure, pd.DataFrame]:
    """Draw training and validation of the largest network of each framework.

    Parameters
    ----------
    paths : list of Path
        Histories of experiments, as `read_experiments` takes them.
    """
    largest: dict[str, Experiment] = {}
    for experiment in without_repeats(read_experiments(paths)):
        before = largest.get(experiment.framework)
        if experiment.best_row() is not None and (before is None or _weights(experiment) > _weights(before)):
            largest[experiment.framework] = experiment
    if not largest:
        return style.nothing("no experiment was validated"), pd.DataFrame(columns=_COLUMNS)
    panels = {
        f"{style.spelled(framework)}\n{one.size[0]} layers, width {one.size[1]}": [("largest", one)]
        for framework, one in largest.items()
    }
    return _draw(panels, with_training=True)


def upstream_warm_start(paths: list[Path]) -> tuple[Figure, pd.DataFrame]:
    """Draw the validation of experiments that start from other weights, beside the same without.

    The untrained partner is, of the experiments of the same framework, layers and width that have no `initialise`,
    the one whose other options (steps, share of the people and so on) are most alike.

    Parameters
    ----------
    paths : list of Path
        Histories of experiments, as `read_experiments` takes them.
    """
    experiments = [one for one in without_repeats(read_experiments(paths)) if one.best_row() is not None]
    warm = [one for one in experiments if one.options.get("initialise")]
    if not warm:
        text = "no validated experiment starts from other weights"
        return style.nothing(text), pd.DataFrame(columns=_COLUMNS)
    panels = {}
    for one in warm:
        cold = [
            other
            for other in experiments
            if not other.options.get("initialise") and (other.framework, other.size) == (one.framework, one.size)
        ]
        start = Path(str(one.options["initialise"])).name
        title = f"{style.spelled(one.framework)}\nfrom {start if len(start) <= 22 else start[:21] + '…'}"
        while title in panels:
            title += " "
        alike = sorted(cold, key=lambda other: _differences(one, other))
        panels[title] = [("warm", one), *(("cold", other) for other in alike[:1])]
    return _draw(panels, with_training=False)


def _differences(one: Experiment, other: Experiment) -> int:
    """Return the number of options in which two trainings differ."""
    names = {*one.options, *other.options}
    return sum(one.options.get(name) != other.options.get(name) for name in names)


def _weights(experiment: Experiment) -> int:
    """Return what the number of weights is proportional to."""
    layers, width = experiment.size
    return layers * width**2


def _draw(panels: dict[str, list[tuple[str, Experiment]]], *, with_training: bool) -> tuple[Figure, pd.DataFrame]:
    colours = style.colours([experiments[0][1].name for experiments in panels.values()])
    figure = style.new_figure(max(style.COLUMN, style.PAGE * min(len(panels), 4) / 4), 2.25)
    grid = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    drawn = []
    for number, (axes, (title, experiments)) in enumerate(zip(grid, panels.items(), strict=True)):
        colour = colours[experiments[0][1].name]
        for curve, experiment in experiments:
            for part, table in _parts(experiment, with_training=with_training).items():
                _line(axes, table, curve, part, colour)
                about = {"experiment": experiment.name, "framework": experiment.framework}
                drawn.append(table.assign(**about, curve=curve, part=part))
        axes.set_title(title)
        axes.set_xlabel("step")
        axes.set_ylabel(style.SKILL if number == 0 else "")
        axes.axhline(0, color=style.GREY, linewidth=0.6, zorder=1)
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.xaxis.set_major_locator(MaxNLocator(3, integer=True))
        style.grid_lines(axes)
    table = pd.concat(drawn, ignore_index=True)[_COLUMNS]
    style.legend_above(figure, _legend(table))
    return figure, table


def _parts(experiment: Experiment, *, with_training: bool) -> dict[str, pd.DataFrame]:
    evaluated = experiment.histories[VALIDATION]
    parts = {VALIDATION: skill_curve(evaluated)}
    # The training loss is drawn where it is the L1 and nothing else.
    if (
        with_training
        and TRAIN in experiment.histories
        and (evaluated["loss"] - evaluated["l1"]).abs().max() < 1e-6
    ):
        train = experiment.histories[TRAIN]
        curve = pd.DataFrame({"step": train["step"], "skill": 1 - train["loss"] / evaluated["l1_zero"].mean()})
        width = max(1, -(-len(curve) // _POINTS))
        parts[TRAIN] = curve.groupby([place // width for place in range(len(curve))]).mean().reset_index(drop=True)
    return parts


def _line(axes: Axes, table: pd.DataFrame, curve: str, part: str, colour: str) -> None:
    if part == TRAIN:
        axes.plot(table["step"], table["skill"], color=colour, linewidth=0.8, alpha=0.45, zorder=2)
        return
    shade, dashes = (style.GREY, _DASHED) if curve == "cold" else (colour, "solid")
    axes.plot(table["step"], table["skill"], color=shade, linestyle=dashes, linewidth=1.4, zorder=3)


def _legend(table: pd.DataFrame) -> list[Line2D]:
    curves, parts = set(table["curve"]), set(table["part"])
    looks = [
        ("warm" in curves, "starts from these weights", {"color": style.INK, "linewidth": 1.4}),
        (
            "cold" in curves,
            "same network, untrained",
            {"color": style.GREY, "linewidth": 1.4, "linestyle": _DASHED},
        ),
        ("largest" in curves, "held-out subjects", {"color": style.INK, "linewidth": 1.4}),
        (TRAIN in parts, "training windows", {"color": style.INK, "linewidth": 0.8, "alpha": 0.45}),
        (True, "0: predicting zero", {"color": style.GREY, "linewidth": 0.6}),
    ]
    return [Line2D([], [], label=text, **look) for there, text, look in looks if there]  # type: ignore[arg-type]
