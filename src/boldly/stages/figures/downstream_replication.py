"""Figure downstream_replication (S6 of the preprint): decoding accuracy with one seed and with another."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from boldly.records import read_scores
from boldly.stages.figures import style
from boldly.stages.figures.tables import check_scores

_KINDS = ("baseline", "untrained", "scratch", "pretrained")
_COLUMNS = ["dataset", "experiment", "kind", "n", "seed", "value", "n_draws"]
# Differences up to this are pale: the darkest shade is for those that change what a reader concludes.
_FULL_SHADE = 0.1


def downstream_replication(paths: list[Path]) -> tuple[Figure, pd.DataFrame]:
    """Draw, for each dataset, maps of the mean accuracy over draws with two seeds, and their difference.

    The seeds are the two that most decoders have both of. Decoders with one seed alone, such as baselines in
    closed form, are left out, whatever their seed is.

    Parameters
    ----------
    paths : list of Path
        Score tables, one per dataset.
    """
    table = pd.concat([_fits(path) for path in paths], ignore_index=True)
    blocks = [block for _, part in table.groupby("dataset", sort=False) if (block := _two_seeds(part)) is not None]
    if not blocks:
        return style.nothing("no decoder was fitted with two seeds"), table[_COLUMNS].iloc[:0]
    heights = [0.62 + 0.2 * block["experiment"].nunique() for block in blocks]
    figure = style.new_figure(style.PAGE, sum(heights))
    parts = figure.subfigures(len(blocks), 1, squeeze=False, height_ratios=heights)
    for part, block in zip(parts.flat, blocks, strict=True):
        _draw(part.subplots(1, 3, sharey=True), block)
    return figure, pd.concat(blocks, ignore_index=True)[_COLUMNS]


def _fits(path: Path) -> pd.DataFrame:
    """Return the mean over draws of the accuracy of each decoder, n and seed."""
    table = read_scores(path)
    check_scores(path, table)
    summary = (table[["subject", "label"]] == "all").all(axis=1) & (table["metric"] == "accuracy")
    fits = table[summary & (table["draw"] != "all") & (table["seed"] != "all") & table["kind"].isin(_KINDS)]
    keys = ["dataset", "experiment", "kind", "n", "seed"]
    return fits.groupby(keys, sort=False)["value"].agg(value="mean", n_draws="size").reset_index()


def _two_seeds(table: pd.DataFrame) -> pd.DataFrame | None:
    """Return the rows of decoders that have both of two seeds, those with which most rows are left."""
    counts = table.groupby("seed", sort=False).size().sort_values(ascending=False, kind="stable")
    parts = {two: _with_both(table, two) for two in combinations(counts.index, 2)}
    two = max(parts, key=lambda two: len(parts[two]), default=None)
    if two is None or parts[two].empty:
        return None
    order = {kind: place for place, kind in enumerate(_KINDS)}
    part = parts[two]
    part = part.assign(rank=part["kind"].map(order), place=part["seed"].map({two[0]: 0, two[1]: 1}))
    return part.sort_values(["rank", "place"], kind="stable")


def _with_both(table: pd.DataFrame, two: tuple[str, str]) -> pd.DataFrame:
    part = table[table["seed"].isin(two)]
    seeds = part.groupby("experiment")["seed"].nunique()
    return part[part["experiment"].isin(seeds.index[seeds == 2])]


def _draw(panels: Any, block: pd.DataFrame) -> None:
    names, sizes = list(dict.fromkeys(block["experiment"])), sorted(block["n"].unique())
    seeds = list(dict.fromkeys(block.sort_values("place")["seed"]))
    values = [
        block[block["seed"] == seed].pivot_table(index="experiment", columns="n", values="value") for seed in seeds
    ]
    values = [table.reindex(index=names, columns=sizes) for table in values]
    low, high = (
        float(edge(np.nan_to_num(np.stack(values), nan=np.nanmean(np.stack(values))))) for edge in (np.min, np.max)
    )
    norm = Normalize(low - 0.02, high + 0.02)
    for axes, table, seed in zip(panels, values, seeds, strict=False):
        _map(axes, table, style.BLUES, norm, "{:.2f}")
        axes.set_title(f"{block['dataset'].iloc[0]}, seed {seed}" if axes is panels[0] else f"seed {seed}")
    difference = values[1] - values[0]
    most = max(float(np.nanmax(np.abs(difference.to_numpy()))), _FULL_SHADE)
    _map(panels[2], difference, style.DIVERGING, Normalize(-most, most), "{:+.2f}")
    panels[2].set_title(f"second \N{MINUS SIGN} first, mean size {np.nanmean(np.abs(difference.to_numpy())):.3f}")
    panels[0].set_yticks(range(len(names)), [style.spelled(name) for name in names], fontsize=6)


def _map(axes: Axes, table: pd.DataFrame, shades: Any, norm: Normalize, form: str) -> None:
    values = table.to_numpy(float)
    for row in range(len(table)):
        for column in range(table.shape[1]):
            # Rounded first: adding zero turns minus zero into zero.
            value = round(float(values[row, column]), 2) + 0.0
            if not np.isfinite(value):
                continue
            face = shades(norm(value))
            axes.add_patch(Rectangle((column - 0.48, row - 0.47), 0.96, 0.94, facecolor=face, linewidth=0))
            text = form.format(value).replace("-", "\N{MINUS SIGN}").replace("+0.00", "0.00")
            axes.text(column, row, text, ha="center", va="center", fontsize=6, color=style.ink_on(face))
    axes.set(xlim=(-0.5, table.shape[1] - 0.5), ylim=(len(table) - 0.5, -0.5), xlabel=style.LABELLED)
    axes.set_xticks(range(table.shape[1]), [str(size) for size in table.columns])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
