"""Figure upstream_frameworks, Figure 1 of the preprint: what networks see and say, and their parts with shapes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch, Patch, Rectangle
from safetensors import SafetensorError, safe_open

from boldly.files import read_json
from boldly.records import InputError, Problem
from boldly.stages.figures import style

CONFIG, WEIGHTS = "config.json", "model.safetensors"
_COLUMNS = ["experiment", "framework", "part", "does", "output", "parameters"]
_NEEDED = ("framework", "n_parcels", "width", "layers", "window_frames")
# Cells of the drawn windows: parcels by frames.
_PARCELS, _FRAMES = 6, 12
_SEEN, _HIDDEN, _SAID = "#C9D9E8", "#FFFFFF", "#D55E00"
_PER_LINE = 4

_SAYS = {
    "csm": "each next frame, from those before it",
    "autoencoding": "each frame, from a summary of all and the frame before",
    "sequence_bert": "frames that are masked, from those on both sides",
    "network_bert": "parcels that are masked, from the others",
    "masked_autoencoding": "parts of frames that are masked, from the rest",
    "components": "nothing: principal components of frames",
}
_PARTS = {
    "embedder": "Linear, LayerNorm, time in s",
    "decoder": "",
    "unembedder": "Linear",
}


def upstream_frameworks(paths: list[Path]) -> tuple[Figure, pd.DataFrame]:
    """Draw one column per model: a window as it is seen, what is to be said, and the parts of the network.

    Shapes are (B, T, P) for B windows of T frames and P parcels, and W for the width. Numbers of parameters come
    from the head of the file of weights.

    Parameters
    ----------
    paths : list of Path
        ``<experiment>/config.json``, or folders of models; ``model.safetensors`` lies beside.

    Raises
    ------
    InputError
        If a folder holds no model.
    """
    models = {folder.name: _read(folder) for folder in dict.fromkeys(_folder(path) for path in paths)}
    models = {name: model for name, model in models.items() if model[0]["framework"] != "components"} or models
    columns = min(len(models), _PER_LINE)
    rows = -(-len(models) // columns)
    figure = style.new_figure(max(style.COLUMN, style.PAGE * columns / _PER_LINE), 0.25 + 3.1 * rows)
    grid = figure.subplots(rows, columns, squeeze=False)
    drawn = []
    colours = style.colours(list(models))
    for axes, (name, (config, counts)) in zip(grid.flat, models.items(), strict=False):
        parts = _parts(config, counts)
        _panel(axes, name, config, parts, colours[name])
        drawn.append(parts.assign(experiment=name, framework=config["framework"]))
    for axes in list(grid.flat)[len(models) :]:
        axes.set_axis_off()
    style.legend_above(figure, _legend())
    return figure, pd.concat(drawn, ignore_index=True)[_COLUMNS]


def _folder(path: Path) -> Path:
    return path if path.is_dir() else path.parent


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """Return config.json, and the number of parameters of each part."""
    try:
        config = read_json(folder / CONFIG)
        with safe_open(folder / WEIGHTS, framework="numpy") as weights:
            shapes = {name: weights.get_slice(name).get_shape() for name in weights.keys()}  # noqa: SIM118
    except (OSError, ValueError, SafetensorError) as error:
        raise InputError(Problem(str(folder), folder.name, f"no model: {error}", "rerun pretrain")) from None
    if missing := [field for field in _NEEDED if field not in config]:
        message = f"config.json without {', '.join(missing)}"
        raise InputError(Problem(str(folder / CONFIG), folder.name, message, "rerun pretrain"))
    counts: dict[str, int] = {}
    for name, shape in shapes.items():
        part = name.split(".")[0]
        counts[part] = counts.get(part, 0) + int(np.prod(shape))
    return config, counts


def _parts(config: dict[str, Any], counts: dict[str, int]) -> pd.DataFrame:
    """Return the parts of a network in the order in which data pass them."""
    window, parcels, width, layers = (config[field] for field in ("window_frames", "n_parcels", "width", "layers"))
    heads = config.get("heads", 1)
    is_recurrent = config["framework"] == "autoencoding"
    inside = f"{layers} + {layers} layers of LSTM" if is_recurrent else f"{layers} layers, {heads} heads"
    rows = [("input", "z-scored signals", f"(B, {window}, {parcels})", 0)]
    for part, count in sorted(counts.items(), key=lambda item: _order(item[0])):
        does = inside if part in ("decoder", "encoder") else _PARTS.get(part, "")
        shape = f"(B, {window}, {parcels if part == 'unembedder' else width})"
        rows.append((part, does, "" if _order(part) > len(_PARTS) else shape, count))
    return pd.DataFrame(rows, columns=["part", "does", "output", "parameters"])


def _order(part: str) -> int:
    """Return the place of a part; parts without one, such as weights of the objective, stand behind."""
    order = ("embedder", "encoder", "decoder", "unembedder")
    return order.index(part) if part in order else len(order)


def _panel(axes: Axes, name: str, config: dict[str, Any], parts: pd.DataFrame, colour: str) -> None:
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.set_axis_off()
    axes.set_title(style.wrapped(style.spelled(name), 24))
    _window(axes, str(config["framework"]))
    says = _SAYS.get(str(config["framework"]), "")
    axes.text(0.5, 0.70, _two_lines(f"predicts {says}"), ha="center", va="top", fontsize=5.8, color=style.INK)
    main = parts[(parts["part"] != "input") & (parts["output"] != "")]
    rest = int(parts["parameters"].sum() - main["parameters"].sum())
    step = 0.56 / (len(main) + 1)
    y = 0.545
    first = parts.iloc[0]
    axes.text(0.5, y, first["output"], ha="center", va="center", fontsize=5.8, color=style.GREY)
    for row in main.to_dict("records"):
        top = y - 0.03
        bottom = top - (step - 0.055)
        box = FancyBboxPatch(
            (0.01, bottom), 0.98, top - bottom, boxstyle="round,pad=0,rounding_size=0.02", facecolor=colour,
            alpha=0.22, linewidth=0,
        )  # fmt: skip
        axes.add_patch(box)
        text = f"{row['part']}, {_counted(int(row['parameters']))}"
        middle = (top + bottom) / 2
        if row["does"]:
            axes.text(0.5, middle + 0.02, text, ha="center", va="center", fontsize=5.8, fontweight="bold")
            axes.text(0.5, middle - 0.02, row["does"], ha="center", va="center", fontsize=5.6)
        else:
            axes.text(0.5, middle, text, ha="center", va="center", fontsize=5.8, fontweight="bold")
        y = bottom - 0.028
        axes.text(0.5, y, row["output"], ha="center", va="center", fontsize=5.8, color=style.GREY)
    if rest:
        axes.text(
            0.5,
            y - 0.05,
            f"the objective has {_counted(rest)} more",
            ha="center",
            fontsize=5.6,
            color=style.GREY,
        )


def _two_lines(text: str, width: int = 34) -> str:
    if len(text) <= width:
        return text
    cut = text.rfind(" ", 0, width + 1)
    return f"{text[:cut]}\n{text[cut + 1 :]}"


def _counted(number: int) -> str:
    for size, word in ((1_000_000, "M"), (1_000, "k")):
        if number >= size:
            return f"{number / size:.3g} {word} weights"
    return f"{number} weights"


def _window(axes: Axes, framework: str) -> None:
    """Draw a window as rows of parcels by columns of frames: seen, hidden, to be said."""
    left, bottom, width, height = 0.12, 0.755, 0.76, 0.22
    cell = (width / _FRAMES, height / _PARCELS)
    hidden, said = _masks(framework)
    for parcel in range(_PARCELS):
        for frame in range(_FRAMES):
            corner = (left + frame * cell[0], bottom + parcel * cell[1])
            face = _HIDDEN if hidden[parcel, frame] else _SEEN
            axes.add_patch(Rectangle(corner, *cell, facecolor=face, edgecolor="white", linewidth=0.4))
            if said[parcel, frame]:
                middle = (corner[0] + cell[0] / 2, corner[1] + cell[1] / 2)
                axes.plot(*middle, "o", color=_SAID, markersize=1.5, zorder=4)
    frame_box = Rectangle((left, bottom), width, height, facecolor="none", edgecolor=style.GREY, linewidth=0.5)
    axes.add_patch(frame_box)
    axes.text(left + width / 2, bottom - 0.008, "frames", ha="center", va="top", fontsize=5.2, color=style.GREY)
    axes.text(
        left - 0.02, bottom + height / 2, "parcels", ha="right", va="center", fontsize=5.2, rotation=90,
        color=style.GREY,
    )  # fmt: skip


def _masks(framework: str) -> tuple[np.ndarray, np.ndarray]:
    """Return which cells of a drawn window are hidden from the network, and which it has to say."""
    hidden = np.zeros((_PARCELS, _FRAMES), bool)
    if framework == "csm":
        said = np.ones_like(hidden)
        said[:, 0] = False
        return hidden, said
    if framework == "sequence_bert":
        hidden[:, [3, 4, 8]] = True
    elif framework == "network_bert":
        hidden[[1, 4]] = True
    elif framework == "masked_autoencoding":
        hidden[:3, 2:6] = True
        hidden[3:, 7:11] = True
    else:
        return hidden, ~hidden
    return hidden, hidden


def _legend() -> list[Any]:
    dot = Line2D([], [], linestyle="", marker="o", markersize=2.5, color=_SAID, label="predicted")
    return [
        Patch(facecolor=_SEEN, label="seen"),
        Patch(facecolor=_HIDDEN, edgecolor=style.GREY, linewidth=0.5, label="masked"),
        dot,
    ]
