"""Figure downstream_embedding: test trials on a plane, near where a decoder says the same of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import hsv_to_rgb, to_hex
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from boldly.files import read_tsv
from boldly.stages.figures import style
from boldly.stages.figures.tables import (
    PREDICTION_TEXT,
    dataset_of,
    drawn_decoder,
    probabilities,
    tasks_of,
    unsuitable,
)

_NEEDED = ("experiment", "n", "key", "label", "label_name", "predicted")
_COLUMNS = ["dataset", "experiment", "n", "key", "state", "x", "y", "predictions", "share_right"]
_MOST_TRIALS = 3000
_PERPLEXITY = 30.0
_LEAST = 1e-4  # probabilities below are taken for this: their logarithms say little
_MARKERS = "osD^v*<>phd"


def downstream_embedding(paths: list[Path]) -> tuple[Figure, pd.DataFrame]:
    """Draw a map of test trials for each dataset, with the decoder of `drawn_decoder` at the largest n.

    A trial is what the decoder says of it: the logarithms of the probabilities of all states, averaged over draws
    and seeds and centred. t-SNE (van der Maaten and Hinton 2008, started from principal components, seed 0) lays
    them out. Colours are states, shades of one hue those of a task; a cross is a trial that most fits get wrong.

    Parameters
    ----------
    paths : list of Path
        Prediction tables, one per dataset.
    """
    tables = {path: read_tsv(path, PREDICTION_TEXT) for path in paths}
    for path, table in tables.items():
        if not set(_NEEDED) <= set(table.columns) or probabilities(table).shape[1] == 0:
            raise unsuitable(path, "not a table of predictions with probabilities", table)
    choice = drawn_decoder(list(tables.values()))
    columns = min(len(tables), 2)
    rows = -(-len(tables) // columns)
    figure = style.new_figure(style.PAGE if columns > 1 else style.COLUMN * 1.2, 3.7 * rows)
    grid = figure.subplots(rows, columns, squeeze=False)
    drawn = []
    for axes, own in zip(grid.flat, choice.tables, strict=False):
        points = _points(own)
        _panel(axes, points, choice.title(own))
        drawn.append(points)
    for axes in list(grid.flat)[len(tables) :]:
        axes.set_axis_off()
    return figure, pd.concat(drawn, ignore_index=True)[_COLUMNS]


def _points(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row per trial, with its place."""
    columns = probabilities(table).columns
    logs = np.log(table[columns].to_numpy(float).clip(_LEAST, 1))
    said = pd.DataFrame(logs, columns=columns).assign(
        key=table["key"].to_numpy(), right=(table["label"] == table["predicted"]).to_numpy(float)
    )
    mean = said.groupby("key", sort=True).mean()
    counts = said.groupby("key", sort=True).size()
    names = table.drop_duplicates("key").set_index("key").reindex(mean.index)
    if len(mean) > _MOST_TRIALS:
        kept = np.linspace(0, len(mean) - 1, _MOST_TRIALS).astype(int)
        mean, counts, names = mean.iloc[kept], counts.iloc[kept], names.iloc[kept]
    features = mean[columns].to_numpy()
    features = features - features.mean(axis=1, keepdims=True)
    x, y = _plane(features).T
    return pd.DataFrame(
        {
            "dataset": [dataset_of(str(key)) for key in mean.index],
            "experiment": names["experiment"].to_numpy(),
            "n": names["n"].to_numpy(),
            "key": mean.index,
            "label": names["label"].to_numpy(),
            "state": names["label_name"].to_numpy(),
            "x": x.round(3),
            "y": y.round(3),
            "predictions": counts.to_numpy(),
            "share_right": mean["right"].to_numpy().round(4),
        }
    )


def _plane(features: np.ndarray) -> np.ndarray:
    """Lay rows out on a plane; too few for t-SNE stand along their first two columns."""
    if len(features) < 8:
        return np.pad(features, ((0, 0), (0, 2)))[:, :2]
    from sklearn.manifold import TSNE

    perplexity = min(_PERPLEXITY, (len(features) - 1) / 3)
    layout = TSNE(perplexity=perplexity, init="pca", learning_rate="auto", random_state=0)
    return np.asarray(layout.fit_transform(features), float)


def _panel(axes: Axes, points: pd.DataFrame, title: str) -> None:
    states = points.drop_duplicates("label").sort_values("label")["state"].tolist()
    looks = _looks(states)
    for state in states:
        own = points[points["state"] == state]
        colour, marker = looks[state]
        wrong = own[own["share_right"] < 0.5]
        right = own[own["share_right"] >= 0.5]
        axes.scatter(right["x"], right["y"], s=9, color=colour, marker=marker, linewidth=0, alpha=0.75)
        axes.scatter(wrong["x"], wrong["y"], s=11, color=colour, marker="x", linewidth=0.9)
    _name(axes, points, states)
    axes.set_title(title, pad=13)
    style.subtitle(axes, "a point is a test trial, a cross one that most fits get wrong", style.GREY)
    axes.set(xlabel="t-SNE 1, no unit", ylabel="t-SNE 2, no unit", xticks=[], yticks=[])


def _name(axes: Axes, points: pd.DataFrame, states: list[str]) -> None:
    """Write the name of each state at the median of its trials, moved up or down where names would touch."""
    medians = points.groupby("state")[["x", "y"]].median()
    middles = {str(name): (float(x), float(y)) for name, x, y in medians.itertuples()}
    width, height = (float(np.ptp(points[axis])) or 1.0 for axis in ("x", "y"))
    placed: list[tuple[float, float, float]] = []
    for state in sorted(states, key=lambda name: middles[name][1]):
        text = state if len(state) <= 18 else f"{state[:17]}…"
        x, y = middles[state]
        half = 0.0105 * width * len(text)
        while any(
            abs(x - other) < half + reach and abs(y - there) < 0.042 * height for other, there, reach in placed
        ):
            y += 0.01 * height
        placed.append((x, y, half))
        axes.annotate(
            text, (x, y), ha="center", va="center", fontsize=5.6, color=style.INK, zorder=6,
            path_effects=[withStroke(linewidth=1.4, foreground="white")],
        )  # fmt: skip


def _looks(states: list[str]) -> dict[str, tuple[str, str]]:
    """Return colour and marker of each state: a hue per task, lightness and marker within it."""
    tasks = tasks_of(states)
    names = list(dict.fromkeys(tasks))
    looks = {}
    for place, (state, task) in enumerate(zip(states, tasks, strict=True)):
        within = [other for other, own in zip(states, tasks, strict=True) if own == task].index(state)
        hue = names.index(task) / len(names)
        shade = hsv_to_rgb((hue, 0.85 - 0.25 * (within % 2), 0.85 - 0.3 * ((within // 2) % 2)))
        colour = to_hex((float(shade[0]), float(shade[1]), float(shade[2])))
        marker = _MARKERS[(within if len(names) < len(states) else place) % len(_MARKERS)]
        looks[state] = (colour, marker)
    return looks
