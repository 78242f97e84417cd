"""The picture of a decoded run: which state is how probable when, and which it was."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PatchCollection
from matplotlib.colors import Normalize
from matplotlib.patches import Rectangle

from boldly.decoding.decoder import PROBABILITY
from boldly.files import atomic_path
from boldly.stages.figures.style import ALERT, BLUES, GREY, INK, PAGE, new_figure, styled

_ROW = 0.16  # inches for each state
_DPI = 150


def draw_timeline(table: pd.DataFrame, labels: Sequence[str], title: str, output: Path) -> None:
    """Draw a decoded run.

    A row for each state, time from left to right: the darker, the more probable. A dot marks the decided state of
    each trial or window; of trials a frame shows the true state, in another colour where the decision is wrong.

    Parameters
    ----------
    table : DataFrame
        From `boldly.decoding.decoder.Decoder.decode_run`.
    labels : sequence of str
        The states, from top to bottom.
    title : str
        Name of the run.
    output : Path
        PNG to write.
    """
    shown = _spans(table)
    with styled():
        figure = new_figure(PAGE, 1.0 + _ROW * max(len(labels), 4))
        axes = figure.add_subplot()
        norm = Normalize(0, 1)
        probabilities = table[[f"{PROBABILITY}{name}" for name in labels]].to_numpy(np.float64)
        patches = [
            Rectangle((start, row - 0.5), stop - start, 1) for start, stop in shown for row in range(len(labels))
        ]
        cells = PatchCollection(patches, cmap=BLUES, norm=norm, linewidth=0)
        cells.set_array(np.ma.masked_invalid(probabilities.ravel()))
        axes.add_collection(cells)
        rows = {name: row for row, name in enumerate(labels)}
        _mark_decided(axes, table, shown, rows)
        if "trial_type" in table:
            _frame_true(axes, table, shown, rows)
        axes.set_xlim(min(0.0, shown[:, 0].min()), shown[:, 1].max())
        axes.set_ylim(len(labels) - 0.5, -0.5)
        axes.set_yticks(range(len(labels)), list(labels))
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("Time (s)")
        figure.suptitle(title, x=0.01, ha="left", fontsize=7.5, fontweight="bold")
        axes.set_title(_verdict(table), fontsize=6.5, fontweight="normal")
        bar = figure.colorbar(ScalarMappable(norm, BLUES), ax=axes, aspect=12, pad=0.01)
        bar.set_label("Probability")
        bar.outline.set_visible(False)
        with atomic_path(output) as temporary:
            figure.savefig(temporary, dpi=_DPI, metadata={"Software": None})


def _spans(table: pd.DataFrame) -> np.ndarray:
    """Return start and end of what is drawn for each row, s, shape (R, 2).

    Windows overlap: each stands for the time around its centre, up to half way to the next one.
    """
    onset, duration = table["onset"].to_numpy(np.float64), table["duration"].to_numpy(np.float64)
    # Brief events without a duration are still seen.
    ends = onset + np.where(np.isfinite(duration) & (duration > 0), duration, 1.0)
    if "trial_type" in table or len(table) < 2:
        return np.stack([onset, ends], axis=1)
    step = float(np.median(np.diff(onset)))
    centre = (onset + ends) / 2
    return np.stack([centre - step / 2, centre + step / 2], axis=1)


def _mark_decided(axes: Axes, table: pd.DataFrame, shown: np.ndarray, rows: dict[str, int]) -> None:
    known = table["state"].notna().to_numpy()
    centres = shown.mean(axis=1)[known]
    places = [rows[name] for name in table["state"][known]]
    is_windows = "trial_type" not in table
    axes.scatter(
        centres, places, s=3 if is_windows else 8, color="white", edgecolors=INK, linewidths=0.5, zorder=3
    )


def _frame_true(axes: Axes, table: pd.DataFrame, shown: np.ndarray, rows: dict[str, int]) -> None:
    for (start, stop), true, state in zip(shown, table["trial_type"], table["state"], strict=True):
        if true in rows:
            wrong = state != true
            axes.add_patch(
                Rectangle(
                    (start, rows[true] - 0.45),
                    stop - start,
                    0.9,
                    fill=False,
                    edgecolor=(ALERT if state is not None else GREY) if wrong else INK,
                    linewidth=1.0,
                    zorder=2,
                )
            )


def _verdict(table: pd.DataFrame) -> str:
    known = table["state"].notna()
    lost = f", {(~known).sum()} lost to scrubbing" if (~known).any() else ""
    if "trial_type" not in table:
        return f"{len(table)} sliding windows, drawn around their centres{lost}; dot: the decided state"
    right = int((table["state"] == table["trial_type"])[known].sum())
    return (
        f"{right} of {int(known.sum())} trials named correctly{lost}; frame: the true state "
        "(orange where another was named), dot: the decided state"
    )
