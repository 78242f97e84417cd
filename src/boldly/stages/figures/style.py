"""What all figures share: sizes, colours, names, and the way they are saved."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Colormap, LinearSegmentedColormap, to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from boldly.files import atomic_path, write_tsv

COLUMN = 3.5  # inches, one column of a journal page
PAGE = 7.2  # inches, its full width

INK = "#222222"
GREY = "#767676"
PALE = "#D0D0D0"
ALERT = "#D55E00"

LABELLED = "n, labelled people or runs"
SKILL = "skill: 1 \N{MINUS SIGN} L1 / L1 of zero"

# Okabe and Ito's colours, told apart with all kinds of colour vision. Frameworks keep theirs in all figures.
_FRAMEWORKS = {
    "autoencoding": "#E69F00",
    "csm": "#0072B2",
    "sequence_bert": "#009E73",
    "network_bert": "#CC79A7",
    "masked_autoencoding": "#56B4E9",
}
# So do decoders of several networks and the baselines that figures name.
_NAMED = {
    "ensemble": "#8C564B",
    "chosen": "#3F3F3F",
    "components": "#5D3A9B",
    "linear": "#B8A600",
    "mean_logistic": "#B5446E",
    "mean_mlp": "#7FA650",
}
_OTHERS = tuple(_NAMED.values())

# From near white to blue, lightness falling evenly; readable without colour vision and on grey paper.
BLUES: Colormap = LinearSegmentedColormap.from_list("blues", ["#F5F8FC", "#9CC3E3", "#2F7ABF", "#08306B"])

# From orange over white to blue, equally dark at both ends.
DIVERGING: Colormap = LinearSegmentedColormap.from_list(
    "diverging", ["#8A3B00", "#D98C4A", "#FAF7F4", "#5A9BD0", "#0B3F73"]
)

# For signals: black is low, white is high.
GREYS: Colormap = LinearSegmentedColormap.from_list("greys", ["#000000", "#FFFFFF"])

_SPELLINGS = {
    "sequence bert": "Sequence-BERT",
    "network bert": "Network-BERT",
    "autoencoding": "Autoencoding",
    "masked Autoencoding": "Masked autoencoding",
    "csm": "CSM",
    "mlp": "MLP",
    "lda": "LDA",
}

_RC: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 7,
    "axes.titlesize": 7.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 7,
    "axes.linewidth": 0.6,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "xtick.minor.size": 1.5,
    "ytick.minor.size": 1.5,
    "lines.linewidth": 1.2,
    "legend.frameon": False,
    "legend.fontsize": 6.5,
    "hatch.linewidth": 0.4,
    "pdf.fonttype": 42,
    "svg.hashsalt": "boldly",
}


def styled() -> Any:
    """Return a context in which figures have the house style, whatever the user's matplotlibrc says."""
    settings: dict[Any, Any] = {}
    settings.update(mpl.rcParamsDefault)
    settings.update(_RC, backend="agg")
    return mpl.rc_context(settings)


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure, inches, that arranges its axes by itself."""
    layout = ConstrainedLayoutEngine(w_pad=0.04, h_pad=0.04, wspace=0.03, hspace=0.03)
    figure = Figure(figsize=(width, height), layout=layout)
    FigureCanvasAgg(figure)
    return figure


def nothing(text: str) -> Figure:
    """Return a picture that says why there is nothing to draw."""
    figure = new_figure(COLUMN, 0.6)
    figure.text(0.5, 0.5, text, ha="center", va="center", color=GREY)
    return figure


def save(figure: Figure, table: pd.DataFrame, output: Path, dpi: int) -> None:
    """Write the picture as PNG and PDF and what it shows as TSV; the same figure gives the same bytes."""
    undated: dict[str, dict[str, Any]] = {
        ".pdf": {"CreationDate": None, "Producer": None, "Creator": None},
        ".png": {"Software": None},
    }
    logging.getLogger("fontTools").setLevel(logging.WARNING)  # it tells of every glyph in a PDF
    write_tsv(output.with_suffix(".tsv"), table)
    for suffix, metadata in undated.items():
        with atomic_path(output.with_suffix(suffix)) as temporary:
            figure.savefig(temporary, dpi=dpi, metadata=metadata)


def spelled(name: str) -> str:
    """Return the name of an experiment as a reader writes it: ``sequence_bert_small`` is "Sequence-BERT small"."""
    text = name.replace("_", " ").strip()
    for word, spelling in _SPELLINGS.items():
        text = re.sub(rf"\b{word}\b", spelling, text)
    return text


def framework_of(name: str) -> str | None:
    """Return the framework that the name of an experiment holds, the longest that does."""
    return max((framework for framework in _FRAMEWORKS if framework in name), key=len, default=None)


def legend_above(figure: Figure, handles: Sequence[Any], columns: int | None = None) -> None:
    """Name lines and markers above all panels, in as many columns as fit."""
    if not handles:
        return
    longest = max(len(str(handle.get_label())) for handle in handles)
    fitting = max(1, int(figure.get_figwidth() / (0.35 + 0.052 * longest)))
    columns = columns or min(fitting, len(handles))
    # Panels keep their height, however many lines the legend has.
    figure.set_figheight(figure.get_figheight() + 0.14 * (-(-len(handles) // columns) - 1))
    figure.legend(
        handles=list(handles), loc="outside upper left", ncols=columns, handlelength=2.0, columnspacing=1.2,
        borderaxespad=0.2,
    )  # fmt: skip


def colours(names: Iterable[str]) -> dict[str, str]:
    """Return a colour for each name: its own, or that of its framework; of several, others have a darker shade.

    Names of another kind, and a third name of a framework, have colours that are free.
    """
    names = list(names)
    chosen: dict[str, str] = {name: _NAMED[name] for name in names if name in _NAMED}
    for name in sorted(names, key=len):
        framework = framework_of(name)
        if framework is not None and name not in chosen:
            colour = _FRAMEWORKS[framework]
            shades = [shade for shade in (colour, _darker(colour)) if shade not in chosen.values()]
            chosen |= dict(zip([name], shades, strict=False))
    free = [colour for colour in (*_OTHERS, *_FRAMEWORKS.values()) if colour not in chosen.values()]
    for number, name in enumerate(name for name in names if name not in chosen):
        chosen[name] = free[number % len(free)] if free else INK
    return {name: chosen[name] for name in names}


def grouped(kinds: Sequence[str], step: float = 1.0, gap: float = 0.9) -> tuple[list[float], dict[str, float]]:
    """Return the places of rows that stand in groups, from 0 downwards, and those of a heading above each group.

    Parameters
    ----------
    kinds : sequence of str
        Group of each row, rows of one group together.
    step : float, default=1.0
        From one row to the next.
    gap : float, default=0.9
        Room for a heading.
    """
    places: list[float] = []
    headings: dict[str, float] = {}
    here = -step
    for kind in kinds:
        if kind not in headings:
            headings[kind] = here + (step + gap) / 2
            here += gap
        here += step
        places.append(here)
    return places, headings


def ink_on(shade: tuple[float, float, float, float]) -> str:
    """Return the colour of text that can be read on a shade."""
    red, green, blue, _ = shade
    return "white" if 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.55 else INK


def subtitle(axes: Axes, text: str, colour: str, *, above: float = 0.0) -> None:
    """Write a small line between the title (set with ``pad=12`` and more) and the axes, points `above` these."""
    axes.annotate(
        text, (0, 1), (0, 3 + above), xycoords="axes fraction", textcoords="offset points", fontsize=5.8,
        color=colour, in_layout=False,
    )  # fmt: skip


def for_text(colour: str) -> str:
    """Return a darker shade of a colour: thin strokes on white need more contrast than areas."""
    return _darker(colour, 0.72)


def _darker(colour: str, share: float = 0.55) -> str:
    red, green, blue = to_rgb(colour)
    return to_hex((share * red, share * green, share * blue))


def wrapped(text: str, width: int) -> str:
    """Break a long name into two lines at most, the second cut where it is too long."""
    if len(text) <= width:
        return text
    cut = text.rfind(" ", 0, width + 1)
    cut = cut if cut > 0 else width
    rest = text[cut:].strip()
    return f"{text[:cut]}\n{rest if len(rest) <= width else rest[: width - 1] + '…'}"


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Move label positions apart until neighbours are `gap` away from each other, within limits if there is room.

    Parameters
    ----------
    wanted : sequence of float
        Where labels should be.
    gap : float
        Smallest distance, same unit.
    low, high : float
        Limits.

    Returns
    -------
    list of float
        Positions in the order of `wanted`.
    """
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    gap = min(gap, (high - low) / max(len(wanted) - 1, 1))
    # Groups that touch move as one, centred on the mean of what they want (pool adjacent violators).
    groups: list[tuple[float, int]] = []
    for rank, i in enumerate(order):
        groups.append((wanted[i] - rank * gap, 1))
        while len(groups) > 1 and groups[-2][0] > groups[-1][0]:
            (b, n), (a, m) = groups.pop(), groups.pop()
            groups.append(((a * m + b * n) / (m + n), m + n))
    positions = [0.0] * len(wanted)
    rank = 0
    ceiling = high - gap * (len(wanted) - 1)
    for base, size in groups:
        for _ in range(size):
            positions[order[rank]] = min(max(base, low), ceiling) + rank * gap
            rank += 1
    return positions


def grid_lines(axes: Axes, axis: str = "y") -> None:
    """Draw thin lines behind the data along one axis."""
    axes.grid(True, axis=axis, color=PALE, linewidth=0.4)  # type: ignore[arg-type]
    axes.set_axisbelow(True)
