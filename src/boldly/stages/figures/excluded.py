"""Figure excluded: a table of the runs that take no part, and why."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from boldly.stages.figures import style
from boldly.stages.figures.tables import read_all_runs

_SHOWN = 40
_LINE = 0.135  # inches


def excluded(paths: list[Path]) -> tuple[Figure, pd.DataFrame]:
    """List the runs that are excluded; the picture holds the first of them, the table beside it all.

    Parameters
    ----------
    paths : list of Path
        Run tables of the datasets, and their quality tables or folders that hold them.
    """
    runs = read_all_runs(paths)
    table = runs.loc[runs["status"] != "ok", ["dataset", "key", "status", "reason"]].reset_index(drop=True)
    shown = table.head(_SHOWN)
    keys = [key if len(key) <= 48 else f"{key[:47]}…" for key in shown["key"]]
    reasons = [textwrap.wrap(reason, 78) or ["no reason given"] for reason in shown["reason"]]
    more = len(table) - len(shown)
    n_lines = sum(map(len, reasons)) + 2 + (more > 0)
    height = _LINE * (n_lines + 1)
    figure = style.new_figure(style.PAGE, height)

    def write(x: float, line: float, text: str, **look: object) -> None:
        figure.text(x, 1 - (line + 0.8) * _LINE / height, text, va="center", fontsize=6, **look)  # type: ignore[arg-type]

    title = (
        f"{len(table):,} of {len(runs):,} runs are excluded" if len(table) else f"all {len(runs):,} runs are used"
    )
    write(0.01, 0, title, fontweight="bold")
    line = 1.2
    for key, wrapped in zip(keys, reasons, strict=True):
        write(0.01, line, key)
        for number, part in enumerate(wrapped):
            write(0.42, line + number, part, color=style.GREY)
        line += len(wrapped)
    if more:
        write(0.01, line, f"and {more:,} more: see the table beside this figure", color=style.GREY)
    return figure, table
