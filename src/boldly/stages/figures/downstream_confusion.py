"""Figure downstream_confusion: which mental states a decoder mistakes for which, by task."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from boldly.files import read_tsv
from boldly.metrics import confusion
from boldly.stages.figures import style
from boldly.stages.figures.tables import PREDICTION_TEXT, dataset_of, drawn_decoder, tasks_of, unsuitable

COLUMNS = ("experiment", "n", "key", "label", "label_name", "predicted")


def downstream_confusion(paths: list[Path]) -> tuple[Figure, pd.DataFrame]:
    """Draw one matrix per dataset, with the decoder of `drawn_decoder` at the largest n.

    States of one task stand together, with lines between tasks.

    Parameters
    ----------
    paths : list of Path
        Prediction tables, one per dataset; panels stand in their order.
    """
    # Probabilities are most of such a table, and are not drawn.
    choice = drawn_decoder([_checked(read_tsv(path, PREDICTION_TEXT, columns=COLUMNS), path) for path in paths])
    tables = choice.tables
    cells = [table["label"].nunique() for table in tables]
    sides = [(0.26 if n <= 14 else 0.185) * n + 1.42 for n in cells]
    figure = style.new_figure(min(max(sides), style.PAGE), sum(sides))
    panels = figure.subplots(len(tables), 1, squeeze=False, height_ratios=sides)
    drawn = []
    for axes, table in zip(panels.flat, tables, strict=True):
        drawn.append(_draw(axes, table, choice.title(table)))
    return figure, pd.concat(drawn, ignore_index=True)


def _checked(predictions: pd.DataFrame, path: Path) -> pd.DataFrame:
    if not set(COLUMNS) <= set(predictions.columns):
        raise unsuitable(path, "not a table of predictions", predictions)
    return predictions


def _by_task(names: pd.Series) -> pd.Series:
    """Bring the states of a task together; tasks stand in the order of their first label."""
    tasks = tasks_of(list(names))
    order = sorted(range(len(tasks)), key=lambda place: (tasks.index(tasks[place]), place))
    return names.iloc[order]


def _part_tasks(axes: Axes, names: list[str]) -> None:
    """Draw a line between tasks, if any has several states."""
    tasks = tasks_of(names)
    if len(set(tasks)) == len(tasks):
        return
    for place in range(1, len(tasks)):
        if tasks[place] != tasks[place - 1]:
            axes.axhline(place - 0.5, color=style.GREY, linewidth=0.4)
            axes.axvline(place - 0.5, color=style.GREY, linewidth=0.4)


def _draw(axes: Axes, predictions: pd.DataFrame, title: str) -> pd.DataFrame:
    names = _by_task(predictions.drop_duplicates("label").set_index("label")["label_name"].sort_index())
    n_labels = int(max(predictions["label"].max(), predictions["predicted"].max())) + 1
    counts = confusion(predictions["label"].to_numpy(), predictions["predicted"].to_numpy(), n_labels)
    # States without a test trial have no row to be a share of.
    present = np.array(names.index)
    shares = counts[np.ix_(present, present)] / counts[present].sum(axis=1, keepdims=True)
    axes.imshow(shares, cmap=style.BLUES, vmin=0, vmax=1)
    axes.set_anchor("W")
    texts = [name if len(name) <= 20 else f"{name[:19]}…" for name in names]
    axes.set_xticks(range(len(texts)), texts, rotation=90, fontsize=5.8)
    axes.set_yticks(range(len(texts)), texts, fontsize=5.8)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    size = 5.0 if len(texts) <= 14 else 4.4
    for row, column in zip(*np.nonzero(shares >= 0.05), strict=True):
        share = shares[row, column]
        axes.text(
            column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=size,
            color=style.ink_on(style.BLUES(share)),
        )  # fmt: skip
    first = predictions.iloc[0]
    dataset = dataset_of(str(first["key"]))
    _part_tasks(axes, list(names))
    axes.set_title(title)
    axes.set(xlabel="predicted, % of the trials of a state", ylabel="true state")
    labels = [int(label) for label in present]
    records = [
        (
            dataset,
            first["experiment"],
            first["n"],
            names[one],
            names[other],
            counts[one, other],
            shares[row, column],
        )
        for row, one in enumerate(labels)
        for column, other in enumerate(labels)
    ]
    columns = ["dataset", "experiment", "n", "true", "predicted", "predictions", "share"]
    return pd.DataFrame(records, columns=columns)
