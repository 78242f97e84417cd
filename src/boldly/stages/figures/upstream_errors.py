"""Figure upstream_errors, S2 of the preprint: where in the brain networks predict well."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from boldly.config import AtlasOptions
from boldly.files import read_tsv
from boldly.records import InputError, Problem
from boldly.stages.figures import style
from boldly.stages.figures.tables import unsuitable

if TYPE_CHECKING:
    from boldly.signals.atlas import Atlas

_NEEDED = ("parcel", "l1", "l1_zero")
_COLUMNS = ["experiment", "parcel", "name", "l1", "l1_zero", "skill"]
_SLICES = 7
_IMAGES = (".nii", ".gz")


def upstream_errors(paths: list[Path]) -> tuple[Figure, pd.DataFrame]:
    """Draw axial slices of the L1 of each parcel, a row per experiment; without an atlas sorted values.

    Parameters
    ----------
    paths : list of Path
        ``<experiment>/parcel_errors.tsv``, and the image of the atlas (its table of names beside). Experiments
        that were not validated are left out.

    Raises
    ------
    InputError
        For other tables, and for an atlas with another number of parcels.
    """
    images = [path for path in paths if path.suffix in _IMAGES]
    errors = {path.parent.name: _read(path) for path in paths if path not in images}
    errors = {name: table for name, table in errors.items() if len(table)}
    if not errors:
        return style.nothing("no experiment was validated"), pd.DataFrame(columns=_COLUMNS)
    atlas = _load(images[0]) if images else None
    for name, table in errors.items():
        if atlas is not None and len(table) != atlas.n_parcels:
            message = f"{len(table)} parcels, the atlas has {atlas.n_parcels}"
            raise InputError(Problem(str(images[0]), name, message, "pass the atlas of the training"))
    names = list(atlas.names) if atlas is not None else [""] * len(next(iter(errors.values())))
    drawn = [
        table.assign(experiment=name, skill=1 - table["l1"] / table["l1_zero"]).assign(
            name=names if len(names) == len(table) else ""
        )
        for name, table in errors.items()
    ]
    figure = _maps(errors, atlas) if atlas is not None else _sorted(errors)
    return figure, pd.concat(drawn, ignore_index=True)[_COLUMNS]


def _load(path: Path) -> Atlas:
    # Reads images: the other figures do without nibabel.
    from boldly.signals.atlas import load_atlas

    return load_atlas(AtlasOptions(path=str(path)))


def _read(path: Path) -> pd.DataFrame:
    table = read_tsv(path)
    if not set(_NEEDED) <= set(table.columns):
        raise unsuitable(path, "not a table of the errors of parcels", table)
    return table


def _maps(errors: dict[str, pd.DataFrame], atlas: Atlas) -> Figure:
    parcels = _parcel_of_voxels(atlas)
    chosen = _slices(parcels, atlas.grid.affine)
    values = np.concatenate([np.asarray(table["l1"], float) for table in errors.values()])
    low, high = np.nanpercentile(values, [1, 99])
    # The lowest value is not white: that is what lies outside of all parcels.
    norm = Normalize(low - 0.25 * max(high - low, 1e-6), high)
    figure = style.new_figure(style.PAGE, 0.55 + 1.15 * len(errors))
    grid = figure.subplots(len(errors), _SLICES, squeeze=False)
    for line, (name, table) in zip(grid, errors.items(), strict=True):
        shades = np.r_[np.nan, np.asarray(table["l1"], float)]
        for axes, (place, z) in zip(line, chosen, strict=True):
            _slice(axes, shades[parcels[:, :, place]], norm)
            if axes in grid[0]:
                height = f"{z:.0f}".replace("-", "\N{MINUS SIGN}")
                axes.set_title(f"z = {height} mm", loc="center", fontsize=6, fontweight="normal")
        line[0].set_ylabel(style.spelled(name), fontsize=6.5)
    for x, side in ((0.0, "L"), (1.0, "R")):
        grid[0, 0].text(x, 0.5, side, transform=grid[0, 0].transAxes, fontsize=5.5, color=style.GREY, ha="center")
    bar = figure.colorbar(
        ScalarMappable(norm, style.BLUES), ax=grid, location="bottom", shrink=0.4, aspect=30, pad=0.02
    )
    bar.set_label("L1 on held-out subjects, standard deviations", fontsize=6)
    bar.outline.set_visible(False)
    return figure


def _parcel_of_voxels(atlas: Atlas) -> np.ndarray:
    """Return the number of the parcel of each voxel from 1, 0 outside of all, x from left to right."""
    if atlas.kind == "labels":
        labels = atlas.labels()
        there = np.isin(labels, atlas.values)
        parcels = np.where(there, np.searchsorted(atlas.values, labels) + 1, 0)
    else:
        parcels = np.zeros(atlas.grid.shape, np.int32)
        largest = np.zeros(atlas.grid.shape, np.float32)
        for number, weights in enumerate(atlas.maps(), start=1):
            peak = max(float(weights.max()), 1e-12)
            # The rim of a map is faint: a tenth of its peak is inside.
            more = (weights > largest) & (weights > 0.1 * peak)
            parcels[more], largest[more] = number, weights[more]
    return parcels[::-1] if atlas.grid.affine[0, 0] < 0 else parcels


def _slices(parcels: np.ndarray, affine: np.ndarray) -> list[tuple[int, float]]:
    """Return places and heights (mm) of slices that are spread over the parcels."""
    filled = np.flatnonzero((parcels > 0).any(axis=(0, 1)))
    places = np.linspace(filled[0], filled[-1], _SLICES + 2)[1:-1].round().astype(int)
    return [(int(place), float(affine[2, 2] * place + affine[2, 3])) for place in places]


def _slice(axes: Axes, values: np.ndarray, norm: Normalize) -> None:
    axes.imshow(
        np.ma.masked_invalid(values.T), cmap=style.BLUES, norm=norm, origin="lower", interpolation="nearest"
    )
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def _sorted(errors: dict[str, pd.DataFrame]) -> Figure:
    figure = style.new_figure(style.COLUMN, 2.4)
    axes: Any = figure.subplots()
    colours = style.colours(list(errors))
    for name, table in errors.items():
        axes.plot(np.sort(np.asarray(table["l1"], float)), color=colours[name], label=style.spelled(name))
    axes.set(xlabel="parcels, sorted", ylabel="L1, standard deviations")
    axes.legend()
    style.grid_lines(axes)
    return figure
