"""Figure downstream_accuracy: test accuracy of each decoder by number of labelled units, as heat maps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from boldly.stages.figures import style
from boldly.stages.figures.tables import DRAWN_SCORES, REFERENCES, read_all_scores

_KINDS = {
    "baseline": "baselines",
    "untrained": "untrained",
    "scratch": "from scratch",
    "pretrained": "pretrained",
}
_BESIDE, _ABOVE = 1.55, 0.85  # inches for names and colour bar, for title and axis
_CELL, _NARROWEST = 0.56, 0.46  # inches


def downstream_accuracy(paths: list[Path]) -> tuple[Figure, pd.DataFrame]:
    """Draw one heat map per dataset: rows baselines, untrained, from scratch, pretrained; columns labelled units.

    The best decoder of each column is bold. Reference values (chance and ceilings) stand under the title and as
    marks at the colour bar.

    Parameters
    ----------
    paths : list of Path
        Score tables, one per dataset; panels stand in their order.
    """
    scores = read_all_scores(paths)
    tables = [rows for _, rows in scores.groupby("dataset", sort=False)]
    decoders = [_ordered(rows[rows["kind"].isin(_KINDS)]) for rows in tables]
    figure, panels = _panels(
        widths=[max(rows["n"].nunique(), 1) for rows in decoders],
        heights=[max(rows["experiment"].nunique(), 1) for rows in decoders],
    )
    for axes, rows, shown in zip(panels, tables, decoders, strict=True):
        values = zip(rows["experiment"], rows["value"], strict=True)
        references = {str(name): float(value) for name, value in values if name in REFERENCES}
        _draw(figure, axes, str(rows["dataset"].iloc[0]), shown, references)
    return figure, scores[DRAWN_SCORES].reset_index(drop=True)


def _ordered(decoders: pd.DataFrame) -> pd.DataFrame:
    order = {kind: number for number, kind in enumerate(_KINDS)}
    return decoders.assign(rank=decoders["kind"].map(order)).sort_values("rank", kind="stable")


def _panels(widths: list[int], heights: list[int]) -> tuple[Figure, list[Axes]]:
    """Return axes for heat maps of so many columns and rows, as many in a line as fit the page."""
    fitting = int(style.PAGE // max(_BESIDE + _NARROWEST * max(widths), style.COLUMN))
    per_line = max(1, min(len(widths), fitting))
    widest = [max(widths[column::per_line]) for column in range(per_line)]
    inches = [_ABOVE + 0.27 * max(heights[i : i + per_line]) for i in range(0, len(heights), per_line)]
    # The line of references needs a column's width, even above a single n.
    ratios = [max(_BESIDE + _CELL * columns, style.COLUMN) for columns in widest]
    figure = style.new_figure(min(style.PAGE, sum(ratios)), sum(inches))
    panels = figure.subplots(len(inches), per_line, squeeze=False, width_ratios=ratios, height_ratios=inches)
    for axes in panels.flat[len(widths) :]:
        axes.set_axis_off()
    return figure, list(panels.flat[: len(widths)])


def _draw(figure: Figure, axes: Axes, dataset: str, decoders: pd.DataFrame, references: dict[str, float]) -> None:
    names, sizes = list(decoders["experiment"].unique()), sorted(decoders["n"].unique())
    low = references.get("chance", 0.0)
    high = float(np.nanmax([*references.values(), *decoders["value"], low + 0.05]))
    norm = Normalize(low, high)
    best = decoders.groupby("n")["value"].max().to_dict()
    for row in decoders.to_dict("records"):
        place = sizes.index(row["n"]), names.index(row["experiment"])
        _cell(
            axes, place, (row["value"], row["ci_low"], row["ci_high"]), norm, bold=row["value"] == best[row["n"]]
        )
    axes.set(xlim=(-0.5, len(sizes) - 0.5), ylim=(len(names) - 0.5, -0.5), xlabel="labelled units")
    axes.set_xticks(range(len(sizes)), [str(size) for size in sizes])
    axes.set_yticks(range(len(names)), [style.wrapped(style.spelled(name), 18) for name in names])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    _separate_kinds(axes, decoders.drop_duplicates("experiment")["kind"].tolist())
    axes.set_title(dataset, pad=12)
    texts = [f"{text} {references[name]:.2f}" for name, text in REFERENCES.items() if name in references]
    style.subtitle(axes, " · ".join(texts), style.GREY)
    _colour_bar(figure, axes, norm, [references[name] for name in REFERENCES if name in references])


def _cell(
    axes: Axes, place: tuple[int, int], score: tuple[float, float, float], norm: Normalize, *, bold: bool
) -> None:
    (x, y), (value, low, high) = place, score
    face = style.BLUES(norm(value))
    axes.add_patch(Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, facecolor=face, linewidth=0))
    look: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "va": "center"}
    look["color"] = style.ink_on(face)
    certain = not np.isfinite(low)
    weight = "bold" if bold else "normal"
    axes.annotate(f"{value:.2f}", (x, y), (0, 0 if certain else 3), fontsize=7, fontweight=weight, **look)
    if not certain:
        axes.annotate(f"{low:.2f}\N{EN DASH}{high:.2f}", (x, y), (0, -5), fontsize=4.6, **look)


def _separate_kinds(axes: Axes, kinds: list[str]) -> None:
    """Draw lines between groups of rows and name the groups at the right."""
    edge = axes.get_xlim()[1]
    for kind in dict.fromkeys(kinds):
        rows = [number for number, other in enumerate(kinds) if other == kind]
        if rows[0]:
            axes.axhline(rows[0] - 0.5, color=style.INK, linewidth=0.6)
        if len(rows) > 1 and len(set(kinds)) > 1:
            axes.annotate(
                _KINDS[kind], (edge, (rows[0] + rows[-1]) / 2), (3, 0), textcoords="offset points", rotation=270,
                ha="left", va="center", fontsize=5.8, color=style.GREY, annotation_clip=False,
            )  # fmt: skip


def _colour_bar(figure: Figure, axes: Axes, norm: Normalize, marks: list[float]) -> None:
    bar = figure.colorbar(ScalarMappable(norm, style.BLUES), ax=axes, aspect=25, fraction=0.05, pad=0.06)
    bar.outline.set_visible(False)
    bar.ax.tick_params(width=0.4, length=2, labelsize=5.5)
    bar.set_label("accuracy", fontsize=6)
    for mark in marks:
        bar.ax.axhline(mark, color=style.ALERT, linewidth=1.2, clip_on=False)
