"""Figure downstream_trials: how many trials each person has of each state, and what was left out."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from boldly.records import Event, read_trials
from boldly.signals.states import count_states
from boldly.stages.figures import style

_NAMED_PEOPLE = 24
_ROW = 0.17  # inches


def downstream_trials(paths: list[Path]) -> tuple[Figure, pd.DataFrame]:
    """Draw one panel per dataset: states as rows, people as columns.

    Parameters
    ----------
    paths : list of Path
        Tables of trials of index, one per dataset; panels stand in their order.
    """
    tables = [(path.name.removesuffix("_trials.tsv"), read_trials(path)) for path in paths]
    heights = [
        _ROW * len({event.label for event in events if event.trial is not None}) + 1.0 for _, events in tables
    ]
    figure = style.new_figure(style.PAGE, sum(heights))
    panels = figure.subplots(len(tables), 1, squeeze=False, height_ratios=heights)
    drawn = [_draw(axes, *table) for axes, table in zip(panels.flat, tables, strict=True)]
    return figure, pd.concat(drawn, ignore_index=True)


def _draw(axes: Axes, dataset: str, events: list[Event]) -> pd.DataFrame:
    # Rows that were merged are one trial.
    trials = {(event.key, event.trial): event for event in events if event.trial is not None}.values()
    counts = Counter((trial.label, trial.subject) for trial in trials)
    states = count_states(events)
    people = sorted({trial.subject for trial in trials})
    matrix = np.array([[counts[state.name, person] for person in people] for state in states])
    axes.set_title(f"{dataset}: {len(trials):,} trials of {len(people):,} people", pad=12)
    style.subtitle(axes, _left_out(events), style.GREY)
    if not states:
        axes.set_axis_off()
    else:
        _draw_matrix(axes, matrix, people)
        names = [state.name if len(state.name) <= 20 else f"{state.name[:19]}…" for state in states]
        texts = [f"{name}  {state.n_trials:,}" for name, state in zip(names, states, strict=True)]
        axes.set_yticks(range(len(texts)), texts, fontsize=5.8)
        for label, state in zip(axes.get_yticklabels(), states, strict=True):
            label.set_color(style.ALERT if state.is_rare or state.resembles else style.INK)
    rows = [(dataset, state.name, person, counts[state.name, person]) for state in states for person in people]
    return pd.DataFrame(rows, columns=["dataset", "state", "subject", "trials"])


def _draw_matrix(axes: Axes, matrix: np.ndarray, people: list[str]) -> None:
    most = max(int(matrix.max()), 1)
    axes.imshow(matrix, cmap=style.BLUES, vmin=0, vmax=most, aspect="auto", interpolation="nearest")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("people")
    if len(people) > _NAMED_PEOPLE:
        axes.set_xticks([])
        return
    axes.set_xticks(range(len(people)), [person[:8] for person in people], fontsize=5.8, rotation=90)
    for row, column in np.ndindex(matrix.shape):
        number = int(matrix[row, column])
        axes.text(
            column, row, str(number), ha="center", va="center", fontsize=5.0,
            color=style.ink_on(style.BLUES(number / most)),
        )  # fmt: skip


def _left_out(events: list[Event]) -> str:
    kinds = Counter(event.reason.partition(":")[0] for event in events if event.trial is None)
    words = ", ".join(f"{number:,} {kind}" for kind, number in kinds.most_common())
    return f"events that are no trials: {words}" if words else "every event is part of a trial"
