"""Figure upstream_losses: training and validation loss of each upstream experiment."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from boldly.stages.figures import style
from boldly.stages.figures.tables import read_histories

_LINE = 7.5  # points, height of a line under the title
_POINTS = 300  # longer training curves are averaged to as many points

# Predictions that need no network: columns of eval_history.csv, and what their curves are called.
_COMPARED = {"l1_zero": "zeros", "l1_ar1": "AR(1)", "l1_var": "VAR"}


def upstream_losses(paths: list[Path]) -> tuple[Figure, pd.DataFrame]:
    """Draw one panel per experiment, losses of different objectives having different units.

    Parameters
    ----------
    paths : list of Path
        ``<experiment>/train_history.csv`` and ``<experiment>/eval_history.csv``. Of the latter, the columns ``l1``
        (the part of the loss that is an error of prediction, where it is not all) and ``l1_zero``, ``l1_ar1`` and
        ``l1_var`` (that error of zeros, of a first-order process per parcel and of a vector autoregression) are
        drawn where they are.
    """
    histories = read_histories(paths)
    colours = style.colours(histories)
    n_columns = min(len(histories), 4 if len(histories) != 6 else 3)
    n_rows = int(np.ceil(len(histories) / n_columns))
    figure = style.new_figure(max(style.COLUMN * 0.8, style.PAGE * n_columns / 4), 1.9 * n_rows)
    panels = figure.subplots(n_rows, n_columns, squeeze=False)
    drawn = []
    for number, (axes, (name, parts)) in enumerate(zip(panels.flat, histories.items(), strict=False)):
        lines = {part: _lines(part, table) for part, table in parts.items()}
        curves = {label: curve for group in lines.values() for label, curve in group.items()}
        _draw(axes, name, curves, colours[name])
        axes.set_ylabel("loss" if number % n_columns == 0 else "")
        axes.set_xlabel("step" if number + n_columns >= len(histories) else "")
        drawn += [curve.assign(experiment=name, part=label) for label, curve in curves.items()]
    for axes in panels.flat[len(histories) :]:
        axes.set_axis_off()
    table = pd.concat(drawn, ignore_index=True)[["experiment", "part", "step", "loss"]]
    return figure, table


def _lines(part: str, table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the curves of a history by label."""
    curves = {part: _thinned(table[["step", "loss"]])}
    for column, label in (("l1", "validation L1"), *_COMPARED.items()):
        if column in table.columns and not np.allclose(table[column], table["loss"]):
            curves[label] = _thinned(table[["step", column]].rename(columns={column: "loss"}))
    return curves


def _thinned(curve: pd.DataFrame) -> pd.DataFrame:
    if len(curve) <= _POINTS:
        return curve.reset_index(drop=True)
    return curve.groupby(np.arange(len(curve)) * _POINTS // len(curve)).mean().reset_index(drop=True)


def _draw(axes: Axes, name: str, curves: dict[str, pd.DataFrame], colour: str) -> None:
    looks = {
        "train": {"color": colour, "alpha": 0.4, "linewidth": 0.8},
        "validation": {"color": colour, "linewidth": 1.4, "marker": "o", "markersize": 2.2},
        "validation L1": {"color": colour, "linewidth": 1.0, "linestyle": (0, (1, 1))},
        "zeros": {"color": style.GREY, "linewidth": 0.8, "linestyle": (0, (4, 2))},
        "AR(1)": {"color": style.GREY, "linewidth": 0.6, "linestyle": (0, (4, 1, 1, 1))},
        "VAR": {"color": style.GREY, "linewidth": 0.8, "linestyle": (0, (1, 2))},
    }
    for label, curve in curves.items():
        look = dict(looks[label])
        if len(curve) > 40:
            look.pop("marker", None)
        axes.plot(curve["step"], curve["loss"], **look)  # type: ignore[arg-type]
    low, high = _limits(curves)
    axes.set_ylim(low, high)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_major_locator(MaxNLocator(3, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    style.grid_lines(axes)
    _label(axes, name, curves, colour)


def _limits(curves: dict[str, pd.DataFrame]) -> tuple[float, float]:
    """Leave out the first, steep part of a long training curve: all that follows would be flat."""
    train = curves.get("train")
    parts = [curve["loss"] for label, curve in curves.items() if label != "train"]
    if train is not None:
        parts.append(train["loss"][len(train) // 20 :])
    values = pd.concat(parts)
    low, high = float(values.min()), float(values.max())
    margin = 0.08 * max(high - low, 0.01 * abs(high), 1e-6)
    return low - margin, high + margin


def _label(axes: Axes, name: str, curves: dict[str, pd.DataFrame], colour: str) -> None:
    """Write the last value of each curve under the title: inside the panel text would meet the curves."""
    last = {label: float(curve["loss"].iloc[-1]) for label, curve in curves.items()}
    shade = style.for_text(colour)
    losses = " · ".join(f"{label} {last[label]:.3f}" for label in ("validation", "train") if label in last)
    title = style.wrapped(style.spelled(name), 24)
    l1 = [("L1", last["validation L1"])] if "validation L1" in last else []
    others = [(label, last[label]) for label in _COMPARED.values() if label in last]
    lines = [" · ".join(f"{label} {loss:.3f}" for label, loss in part) for part in (l1 + others[:1], others[1:])]
    axes.set_title(title, pad=12 + _LINE * sum(map(bool, lines)))
    for number, (text, ink) in enumerate(
        reversed([(losses, shade), *((line, style.GREY) for line in lines if line)])
    ):
        style.subtitle(axes, text, ink, above=_LINE * number)
