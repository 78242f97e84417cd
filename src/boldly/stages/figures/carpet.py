"""Figure carpet: the signals of all parcels over time, and how the head moved, as in Power 2017."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from boldly.records import InputError, Problem
from boldly.samples.timeseries import read_timeseries
from boldly.signals.confounds import read_movement
from boldly.stages.figures import style
from boldly.stages.figures.tables import read_all_runs

_RANGE = 2.5  # standard deviations from black to white
_MOST_NAMES = 20  # networks that have room for their names
_SCHAEFER = re.compile(r"\d+Networks_[LR]H_(?P<network>[^_]+)")


def carpet(paths: list[Path], key: str | None = None) -> tuple[Figure, pd.DataFrame]:
    """Draw one run of each dataset: framewise displacement, and below it the cleaned signals of the parcels.

    Frames that were scrubbed are orange. Parcels of one network stand together where the atlas names networks.

    Parameters
    ----------
    paths : list of Path
        Run tables of the datasets, and their folders in results/preprocess and results/parcellate; with the table
        of names of the atlas, parcels are ordered by network.
    key : str, optional
        The run to draw; default: of each dataset the run in use that moved most.

    Raises
    ------
    InputError
        If there is no such run in use.
    """
    folders = [path for path in paths if path.is_dir()]
    tables = [path for path in paths if not path.is_dir() and not _is_run_table(path)]
    networks = next((found for path in tables if (found := read_networks(path))), None)
    runs = read_all_runs([path for path in paths if path not in tables])
    used = runs[runs["status"] == "ok"]
    if key is not None:
        chosen = used[used["key"] == key]
    else:
        order = used.sort_values(["mean_fd_mm", "key"], ascending=[False, True])
        chosen = order.drop_duplicates("dataset").sort_values("dataset")
    if chosen.empty:
        reason = "".join(runs.loc[runs["key"] == key, "reason"]) or "no run in use has this key"
        raise InputError(Problem("results/index", key or "", reason, "take the key of a run with status ok"))
    n_columns = min(2, len(chosen))
    n_rows = -(-len(chosen) // n_columns)
    figure = style.new_figure(style.PAGE, 2.0 * n_rows)
    parts = figure.subfigures(n_rows, n_columns, squeeze=False).flat
    drawn = [_draw(part, run, folders, networks) for part, (_, run) in zip(parts, chosen.iterrows(), strict=False)]
    return figure, pd.concat(drawn, ignore_index=True)


def _is_run_table(path: Path) -> bool:
    return "status" in pd.read_csv(path, sep="\t", nrows=0).columns


def read_networks(path: Path) -> list[str]:
    """Return the network of each parcel from the names of an atlas; empty where they name none.

    That is the column whose name holds "network" (of several the first, as in the tables of DiFuMo), or the third
    part of names like ``7Networks_LH_Vis_1`` (Schaefer et al. 2018).
    """
    table = pd.read_csv(path, sep="\t", keep_default_na=False, dtype=str)
    column = next((name for name in table.columns if "network" in str(name).lower()), None)
    if column is not None:
        return list(table[column])
    names = next((table[name] for name in ("name", "label") if name in table.columns), pd.Series(dtype=str))
    parts = [_SCHAEFER.match(name) for name in names]
    return [found["network"] for found in parts if found] if parts and all(parts) else []


def _draw(part: SubFigure, run: pd.Series, folders: list[Path], networks: list[str] | None) -> pd.DataFrame:
    nuisance = _find(folders, run, "nuisance.tsv")
    kept, movement = read_movement(nuisance, run.key)
    series = read_timeseries(_find(folders, run, "timeseries.safetensors"), key=run.key)[0]
    if not series or len(kept) < series[0].frames.max(initial=-1) + 1:
        raise InputError(Problem(str(nuisance), run.key, "not the frames of its time series", "rerun parcellate"))
    n_parcels = series[0].data.shape[1]
    carpet = np.full((n_parcels, len(kept)), np.nan, np.float32)
    carpet[:, series[0].frames] = _scaled(series[0].data).T
    groups = _groups(networks, n_parcels)
    carpet = carpet[np.concatenate([places for _, places in groups])]
    seconds = np.arange(len(kept)) * run.t_r
    top, below = part.subplots(2, 1, sharex=True, height_ratios=[1, 3])
    _draw_movement(top, seconds, movement, run.key)
    grey = style.GREYS.with_extremes(bad=style.ALERT)
    picture = below.imshow(
        np.ma.masked_invalid(carpet), aspect="auto", cmap=grey, vmin=-_RANGE, vmax=_RANGE, interpolation="nearest",
        extent=(0, len(kept) * run.t_r, n_parcels, 0),
    )  # fmt: skip
    _name_groups(below, groups, n_parcels)
    bar = part.colorbar(picture, cax=below.inset_axes((1.015, 0, 0.015, 1)), ticks=[-_RANGE, 0, _RANGE])
    bar.ax.set_yticklabels([f"\N{MINUS SIGN}{_RANGE:g}", "0", f"{_RANGE:g}"], fontsize=5.5)
    bar.ax.tick_params(length=1.5, width=0.4, pad=1.5)
    bar.outline.set_linewidth(0.4)
    bar.set_label("standard deviations", fontsize=5.5, labelpad=-2)
    columns = {"key": run.key, "second": seconds, "kept": kept.astype(int), "framewise_displacement_mm": movement}
    return pd.DataFrame(columns)


def _groups(networks: list[str] | None, n_parcels: int) -> list[tuple[str, list[int]]]:
    """Return networks, in the order in which they begin, with their parcels; one nameless group without."""
    if networks is None or len(networks) != n_parcels:
        return [("", list(range(n_parcels)))]
    return [
        (name, [place for place, other in enumerate(networks) if other == name])
        for name in dict.fromkeys(networks)
    ]


def _name_groups(axes: Axes, groups: list[tuple[str, list[int]]], n_parcels: int) -> None:
    """Name the networks at the left, as far as they have room, and part them by lines."""
    ends = np.cumsum([len(places) for _, places in groups])
    for end in ends[:-1]:
        axes.axhline(end, color=style.ALERT, linewidth=0.35)
    has_names = 1 < len(groups) <= _MOST_NAMES
    ticks = [end - len(places) / 2 for end, (_, places) in zip(ends, groups, strict=True)] if has_names else []
    names = [name if len(name) <= 12 else f"{name[:11]}…" for name, _ in groups] if has_names else []
    axes.set_yticks(ticks, names, fontsize=5.2)
    axes.tick_params(axis="y", length=0)
    axes.set(xlabel="time, s", ylabel=f"{n_parcels} parcels")


def _scaled(data: np.ndarray) -> np.ndarray:
    """Return signals (T, P) in standard deviations, however they were standardized; constant ones are zero."""
    spread = data.std(axis=0)
    return (data - data.mean(axis=0)) / np.where(spread > 0, spread, 1)


def _draw_movement(axes: Axes, seconds: np.ndarray, movement: np.ndarray, title: str) -> None:
    axes.plot(seconds, movement, color=style.INK, linewidth=0.6)
    axes.set_title(title, fontsize=6)
    axes.set_ylabel("FD, mm", fontsize=6)
    axes.set_ylim(bottom=0)
    axes.tick_params(axis="x", length=0)
    style.grid_lines(axes)
    if not np.isfinite(movement).any():
        axes.text(0.5, 0.5, "no framewise displacement", transform=axes.transAxes, ha="center", color=style.GREY)


def _find(folders: list[Path], run: pd.Series, ending: str) -> Path:
    """Return the file of a run's subject in one of the folders of its dataset."""
    name = f"sub-{run.subject}_{ending}"
    found = [folder / name for folder in folders if folder.name == run.dataset and (folder / name).exists()]
    if not found:
        raise InputError(Problem(name, run.key, "no such file in the folders given", "run parcellate"))
    return found[0]
