"""Figure upstream_losses, Figure 4 of the preprint: how well each experiment predicts held-out subjects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, MaxNLocator

from boldly.stages.figures import style
from boldly.stages.figures.experiments import REPEAT, has_steps, skill_curve
from boldly.stages.figures.published import PUBLISHED
from boldly.stages.figures.tables import read_histories

_LINE = 7.5  # points, height of a line under the title
_POINTS = 300  # longer training curves are averaged to as many points

# Forecasts that need no network: columns of eval_history.csv, and what their lines are called.
_FORECASTS = {"l1_ar1": "AR(1)", "l1_var": "VAR"}
_VALIDATED = "validation"
_COLUMNS = ["experiment", "repetition", "part", "step", "skill"]
_AR1_DASHES, _VAR_DASHES, _ZERO_DASHES = (0, (4, 1, 1, 1)), (0, (1, 1.2)), (0, (4, 2))
_PUBLISHED = "Thomas et al. 2022"

Histories = dict[str, dict[str, pd.DataFrame]]


def upstream_losses(paths: list[Path], *, published: bool = False) -> tuple[Figure, pd.DataFrame]:
    """Draw one panel per experiment: the skill on held-out subjects over optimiser steps.

    Skill is ``1 - L1 / L1 of predicting zero``, the same quantity in all panels, although what is predicted is
    another (the next frame, masked frames, ...). Repetitions with other seeds are thin lines in the panel of their
    experiment. An experiment without steps (principal components) has no panel.

    Parameters
    ----------
    paths : list of Path
        ``<experiment>/train_history.csv`` and ``<experiment>/eval_history.csv``. Of the latter, ``l1`` and
        ``l1_zero`` are drawn, and ``l1_ar1`` and ``l1_var`` (a first-order process per parcel and a vector
        autoregression) where they are. The training loss is drawn where it is the L1 and nothing else.
    published : bool, default=False
        Draw what Thomas et al. (2022) published of their models, of other data (see
        `boldly.stages.figures.published`).
    """
    histories = {name: parts for name, parts in read_histories(paths).items() if has_steps(parts)}
    panels = _panels_of(histories)
    if not panels:
        return style.nothing("no upstream experiment is trained by steps"), pd.DataFrame(columns=_COLUMNS)
    colours = style.colours(panels)
    n_columns = min(len(panels), 4 if len(panels) != 6 else 3)
    n_rows = int(np.ceil(len(panels) / n_columns))
    figure = style.new_figure(max(style.COLUMN, style.PAGE * n_columns / 4), 1.9 * n_rows + 0.35)
    grid = figure.subplots(n_rows, n_columns, squeeze=False, sharey=True)
    drawn: list[pd.DataFrame] = []
    for number, (axes, (name, repeats)) in enumerate(zip(grid.flat, panels.items(), strict=False)):
        curves = _curves(histories[name])
        others = {repeat: _curves(histories[repeat]) for repeat in repeats}
        _draw(axes, name, curves, [lines for lines in others.values() if lines], colours[name])
        axes.set_ylabel(style.SKILL if number % n_columns == 0 else "")
        axes.set_xlabel("step" if number + n_columns >= len(panels) else "")
        for repeat, lines in {name: curves, **others}.items():
            about = {"experiment": name, "repetition": repeat}
            drawn += [curve.assign(**about, part=label) for label, curve in lines.items()]
        if published:
            drawn += _draw_published(axes, name)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    _share_limits(list(grid.flat), drawn)
    style.legend_above(figure, _legend(drawn))
    return figure, (pd.concat(drawn) if drawn else pd.DataFrame(columns=_COLUMNS))[_COLUMNS]


def _panels_of(histories: Histories) -> dict[str, list[str]]:
    """Return the experiments, each with its repetitions; a repetition alone is an experiment."""
    panels: dict[str, list[str]] = {}
    for name in sorted(histories, key=lambda name: REPEAT.fullmatch(name) is not None):
        found = REPEAT.fullmatch(name)
        if found and found["name"] in panels:
            panels[found["name"]].append(name)
        else:
            panels[name] = []
    return panels


def _curves(parts: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Return step and skill by label; nothing without a validation, which says what predicting zero reaches."""
    evaluated = parts.get("validation")
    if evaluated is None or not {"l1", "l1_zero"} <= set(evaluated.columns):
        return {}
    curves = {_VALIDATED: _thinned(skill_curve(evaluated))}
    for column, label in _FORECASTS.items():
        if column in evaluated.columns:
            curves[label] = _thinned(skill_curve(evaluated, column))
    if "train" in parts and np.allclose(evaluated["loss"], evaluated["l1"]):
        train = parts["train"]
        skill = 1 - train["loss"] / evaluated["l1_zero"].mean()
        curves["train"] = _thinned(pd.DataFrame({"step": train["step"], "skill": skill}))
    return curves


def _thinned(curve: pd.DataFrame) -> pd.DataFrame:
    """Average a long curve to `_POINTS` points."""
    curve = curve.reset_index(drop=True)
    if len(curve) <= _POINTS:
        return curve
    return curve.groupby(np.arange(len(curve)) * _POINTS // len(curve)).mean().reset_index(drop=True)


def _draw(
    axes: Axes, name: str, curves: dict[str, pd.DataFrame], others: list[dict[str, pd.DataFrame]], colour: str
) -> None:
    looks = {
        "train": {"color": colour, "alpha": 0.4, "linewidth": 0.8},
        _VALIDATED: {"color": colour, "linewidth": 1.4, "marker": "o", "markersize": 2.2},
        "AR(1)": {"color": style.GREY, "linewidth": 0.7, "linestyle": _AR1_DASHES},
        "VAR": {"color": style.GREY, "linewidth": 0.8, "linestyle": _VAR_DASHES},
    }
    axes.axhline(0, color=style.GREY, linewidth=0.8, linestyle=_ZERO_DASHES, zorder=1)
    for lines in others:
        axes.plot(*lines[_VALIDATED].to_numpy().T, color=colour, linewidth=0.6, alpha=0.8)
    for label, curve in curves.items():
        look = dict(looks[label])
        if len(curve) > 40:
            look.pop("marker", None)
        axes.plot(curve["step"], curve["skill"], **look)  # type: ignore[arg-type]
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_major_locator(MaxNLocator(3, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    style.grid_lines(axes)
    _label(axes, name, curves, len(others), colour)
    if not curves:
        axes.text(0.5, 0.5, "not validated", transform=axes.transAxes, ha="center", color=style.GREY)


def _draw_published(axes: Axes, name: str) -> list[pd.DataFrame]:
    """Mark what was published of the framework, at its steps or, where the axis ends before, at its end."""
    framework = style.framework_of(name)
    drawn = []
    for place, point in enumerate(PUBLISHED.get(framework or "", ())):
        low, high = axes.get_xlim()
        beyond = point.step > high
        # Of two that lie behind the end, the last one alone.
        if beyond and place == 0:
            continue
        axes.plot(
            high if beyond else point.step, point.skill, clip_on=False, zorder=6, linestyle="",
            marker="^" if point.at_least else "D", markersize=3.6, markeredgecolor=style.INK, markeredgewidth=0.6,
            markerfacecolor="white" if place == 0 else style.ALERT,
        )  # fmt: skip
        axes.set_xlim(low, high)
        about = {
            "experiment": name,
            "repetition": _PUBLISHED,
            "part": "at least" if point.at_least else "published",
        }
        drawn.append(pd.DataFrame([{**about, "step": point.step, "skill": point.skill}]))
    return drawn


def _legend(drawn: list[pd.DataFrame]) -> list[Line2D]:
    """Name the lines that there are."""
    parts = {part for curve in drawn for part in curve["part"]}
    looks: dict[str, dict[str, Any]] = {
        _VALIDATED: {"color": style.INK, "linewidth": 1.4, "marker": "o", "markersize": 2.2},
        "train": {"color": style.INK, "alpha": 0.4, "linewidth": 0.8},
        "VAR": {"color": style.GREY, "linewidth": 0.8, "linestyle": _VAR_DASHES},
        "AR(1)": {"color": style.GREY, "linewidth": 0.7, "linestyle": _AR1_DASHES},
    }
    marked: dict[str, Any] = {"linestyle": "", "markersize": 3.6, "markeredgecolor": style.INK}
    looks["published"] = {"marker": "D", "markerfacecolor": style.ALERT, **marked}
    looks["at least"] = {"marker": "^", "markerfacecolor": style.ALERT, **marked}
    texts = {
        _VALIDATED: "held-out subjects",
        "train": "training windows",
        "published": f"{_PUBLISHED}, other data",
        "at least": "the same, lower bound",
    }
    zero = Line2D([], [], color=style.GREY, linewidth=0.8, linestyle=_ZERO_DASHES, label="predicting zero")
    handles = [
        Line2D([], [], label=texts.get(part, part), **look) for part, look in looks.items() if part in parts
    ]
    return [*handles, zero]


def _share_limits(panels: list[Axes], drawn: list[pd.DataFrame]) -> None:
    """Leave out the first, steep part of training curves: all that follows would be flat."""
    parts = [
        curve["skill"][len(curve) // 20 :] if (curve["part"] == "train").any() else curve["skill"]
        for curve in drawn
    ]
    values = pd.concat([pd.Series([0.0]), *parts])
    margin = 0.08 * max(float(values.max() - values.min()), 0.01)
    panels[0].set_ylim(float(values.min()) - margin, float(values.max()) + margin)


def _label(axes: Axes, name: str, curves: dict[str, pd.DataFrame], n_others: int, colour: str) -> None:
    """Write the last value of each curve under the title: inside the panel text would meet the curves."""
    # Rounded first: adding zero turns minus zero into zero.
    last = {label: round(float(curve["skill"].iloc[-1]), 3) + 0.0 for label, curve in curves.items()}
    own = [f"{label} {last[label]:.3f}" for label in (_VALIDATED, "train") if label in last]
    others = f"{n_others} more seed{'s' if n_others != 1 else ''}" if n_others else ""
    trivial = [f"{label} {last[label]:.3f}" for label in _FORECASTS.values() if label in last]
    title = style.wrapped(style.spelled(name), 24)
    lines = [
        (others, style.for_text(colour)),
        (" · ".join(trivial), style.GREY),
        (" · ".join(own), style.for_text(colour)),
    ]
    # As many lines everywhere, so that titles of panels beside each other stand in one line.
    axes.set_title(title, pad=4 + len(lines) * _LINE)
    for number, (text, ink) in enumerate(lines):
        style.subtitle(axes, text, ink, above=_LINE * number)
