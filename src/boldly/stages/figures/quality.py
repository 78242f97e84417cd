"""Figure quality: motion, degrees of freedom and signal quality of all runs, and why runs are excluded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from boldly.stages.figures import style
from boldly.stages.figures.tables import kinds_of_reasons, read_all_runs

_PANELS = {
    "mean_fd_mm": "mean FD, mm",
    "mean_std_dvars": "mean std DVARS",
    "degrees_of_freedom": "degrees of freedom",
    "median_tsnr": "median tSNR",
    "median_coverage": "median coverage",
}
_USED = "#0072B2"
_REASONS = 6
_DOTS = 150  # more runs than this are drawn as a sample of them, evenly taken from the sorted values


def quality(paths: list[Path]) -> tuple[Figure, pd.DataFrame]:
    """Draw a dot per run and the quartiles of each dataset, runs that are excluded in orange, and the reasons.

    Parameters
    ----------
    paths : list of Path
        Run tables of the datasets, and their quality tables or folders that hold them.
    """
    runs = read_all_runs(paths)
    datasets = list(runs["dataset"].unique())
    excluded = runs[runs["status"] != "ok"]
    reasons = _count_reasons(excluded)
    rows = max(len(datasets), 2)
    heights = [0.45 + 0.17 * rows, 0.3 + 0.15 * max(len(reasons), 1)]
    figure = style.new_figure(style.PAGE, sum(heights) + 0.35)
    parts = figure.subfigures(2, 1, squeeze=False, height_ratios=heights)
    panels = parts[0, 0].subplots(1, len(_PANELS), sharey=True, squeeze=False)
    for axes, (measure, label) in zip(panels[0], _PANELS.items(), strict=True):
        for place, dataset in enumerate(datasets):
            _row(axes, place, runs[runs["dataset"] == dataset], measure)
        axes.set(xlabel=label, ylim=(len(datasets) - 0.4, -0.6))
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        style.grid_lines(axes, "x")
        axes.margins(x=0.08)
        if runs[measure].isna().all():
            axes.text(0.5, 0.5, "not known", transform=axes.transAxes, ha="center", va="center", color=style.GREY)
            axes.set_xticks([])
        elif measure == "median_coverage":
            axes.set_xlim(0, 1.05)
        elif measure != "mean_std_dvars":
            axes.set_xlim(left=0)
    panels[0, 0].set_yticks(range(len(datasets)), datasets, fontsize=5.5 if len(datasets) > 20 else 6.5)
    _draw_reasons(parts[1, 0].subplots(), reasons, len(excluded), len(runs))
    dots = {"a run": _USED, "an excluded run": style.ALERT} if len(excluded) else {"a run": _USED}
    style.legend_above(
        figure,
        [Line2D([], [], linestyle="", marker="o", markersize=2.5, color=c, label=text) for text, c in dots.items()]
        + [Line2D([], [], color=style.INK, linewidth=2.2, label="quartiles of a dataset, tick at the median")],
    )
    return figure, runs.drop(columns=["hours"])


def _row(axes: Axes, place: int, runs: pd.DataFrame, measure: str) -> None:
    known = runs.dropna(subset=[measure]).sort_values(measure)
    if known.empty:
        return
    quartiles = np.percentile(known[measure], [25, 50, 75])
    axes.plot(quartiles[[0, 2]], [place, place], color=style.INK, linewidth=2.2, zorder=4, solid_capstyle="butt")
    axes.plot(quartiles[1], place, "|", color=style.INK, markersize=7, markeredgewidth=1.4, zorder=5)
    for ok, colour, order in ((True, _USED, 2), (False, style.ALERT, 3)):
        part = known[(known["status"] == "ok") == ok]
        if len(part) > _DOTS and ok:
            part = part.iloc[np.linspace(0, len(part) - 1, _DOTS).astype(int)]
        # Golden-ratio steps fill the row evenly, the same each time.
        height = place + 0.6 * (np.arange(len(part)) * 0.618 % 1 - 0.5)
        axes.scatter(
            part[measure], height, s=3.5, color=colour, alpha=0.6, linewidth=0, zorder=order, clip_on=False
        )


def _count_reasons(excluded: pd.DataFrame) -> pd.Series:
    counts = kinds_of_reasons(excluded["reason"]).value_counts().sort_index()
    counts = counts.sort_values(ascending=False, kind="stable")
    if len(counts) > _REASONS:
        others = counts.iloc[_REASONS - 1 :]
        counts = pd.concat(
            [counts.iloc[: _REASONS - 1], pd.Series({f"{len(others)} other reasons": others.sum()})]
        )
    return counts


def _draw_reasons(axes: Axes, reasons: pd.Series, n_excluded: int, n_runs: int) -> None:
    axes.set_title(f"{n_excluded:,} of {n_runs:,} runs excluded")
    axes.set_xticks([])
    axes.spines[:].set_visible(False)
    if reasons.empty:
        axes.set_yticks([])
        return
    axes.barh(range(len(reasons)), reasons, color=style.ALERT, height=0.65, alpha=0.8)
    texts = [reason if len(reason) <= 60 else f"{reason[:59]}…" for reason in reasons.index]
    axes.set_yticks(range(len(reasons)), texts, fontsize=6)
    axes.tick_params(axis="y", length=0)
    axes.set(ylim=(len(reasons) - 0.5, -0.5), xlim=(0, max(reasons.max() * 1.1, 1)))
    for place, count in enumerate(reasons):
        axes.annotate(f"{count:,}", (count, place), (2, 0), textcoords="offset points", va="center", fontsize=6)
