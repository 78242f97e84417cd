"""Atlases: what the parcels are, from a 3-D image of labels or a 4-D image of maps, and a table of their names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from boldly.bids import sidecar
from boldly.config import AtlasOptions
from boldly.files import read_foreign_table, read_json
from boldly.layout import names_table
from boldly.provenance import file_sha256
from boldly.records import InputError, Problem
from boldly.signals.grayordinates import Parcellation, read_labels
from boldly.signals.images import Grid, Volumes, open_volumes
from boldly.words import listed

# What the columns of numbers and names are called: by boldly and BIDS, and by tables of TemplateFlow.
_NUMBERS = ("index", "component")
_TEXTS = ("name", "difumo_names", "label")


@dataclass(frozen=True)
class Atlas:
    """Parcels in a space.

    Attributes
    ----------
    name : str
        Name in contracts and figures.
    sha256 : str
        Checksum of the image file.
    kind : {"labels", "maps"}
        Each voxel belongs to one parcel; or each parcel is a map of weights, and maps may overlap.
    values : tuple of int
        Label of each parcel, ascending; number of each map, from 0.
    names : tuple of str
        Name of each parcel; ``parcel-<value>`` where there is no table.
    volumes : Volumes
        The image.
    """

    name: str
    sha256: str
    kind: Literal["labels", "maps"]
    values: tuple[int, ...]
    names: tuple[str, ...]
    volumes: Volumes

    @property
    def n_parcels(self) -> int:
        """Number of parcels P: that of the image, whatever part of it a run covers."""
        return len(self.values)

    @property
    def grid(self) -> Grid:
        """Voxels of the atlas image."""
        return self.volumes.grid

    def labels(self) -> NDArray[np.int32]:
        """Return the labels of a label atlas, shape (X, Y, Z)."""
        return _integers(self.volumes).reshape(self.grid.shape, order="F")

    def maps(self) -> Iterator[NDArray[np.floating]]:
        """Read the maps of a map atlas one by one, shape (X, Y, Z); weights that are not finite are zero."""
        volumes = self.volumes
        scaled = (volumes.slope, volumes.inter) != (1.0, 0.0)
        # The precision that nilearn resamples maps in: that of the image's values.
        dtype = np.float64 if scaled or volumes.dtype.itemsize > 4 else np.float32
        for _, block in volumes.blocks(size=4):
            for stored in block:
                values = stored.astype(dtype)
                if scaled:
                    values = values * volumes.slope + volumes.inter
                if volumes.dtype.kind == "f":
                    values[~np.isfinite(values)] = 0
                yield values.reshape(self.grid.shape, order="F")


def load_atlas(options: AtlasOptions) -> Atlas:
    """Read what is needed to know an atlas: header, labels, names.

    Parameters
    ----------
    options : AtlasOptions
        Section `atlas` of the config. An image with one volume has labels, one with more has maps. The table of
        names (columns index, name) lists labels by value, or maps in their order.

    Raises
    ------
    InputError
        When image or table is missing or not what it was when it was fetched, or they do not fit together.
    """
    volumes, sha256 = open_atlas(options)
    kind: Literal["labels", "maps"] = "maps" if volumes.n_volumes > 1 else "labels"
    if kind == "maps":
        values = tuple(range(volumes.n_volumes))
    else:
        labels = np.unique(_integers(volumes))
        values = tuple(int(value) for value in labels if value != 0)
        if not values:
            message = "the image has no label but 0"
            raise InputError(Problem(options.image, "atlas", message, "give an image with labels"))
    name = options.label if options.fetched else options.name
    return Atlas(
        name=name or sidecar(Path(options.image)).stem,
        sha256=sha256,
        kind=kind,
        values=values,
        names=_names(options, kind, values),
        volumes=volumes,
    )


def load_parcellation(options: AtlasOptions) -> Parcellation:
    """Read a parcellation of surfaces (``.dlabel.nii``).

    Parameters
    ----------
    options : AtlasOptions
        Section `atlas` of the config; without `labels` the names are those in the file.

    Raises
    ------
    InputError
        When it is missing, no parcellation, or not the one of `sha256`.
    """
    path = Path(options.image)
    axis, labels, names = read_labels(path)
    values = tuple(int(value) for value in np.unique(labels) if value != 0)
    if options.labels is not None:
        chosen = _names(options, "labels", values)
    else:
        chosen = tuple(names.get(value, f"parcel-{value}") for value in values)
    name, sha256 = options.name or sidecar(path).stem, _sha256(options)
    return Parcellation(name, sha256, values, chosen, path, axis, labels)


def load_parcels(options: AtlasOptions) -> Atlas | Parcellation:
    """Read what is needed to know an atlas of voxels (`load_atlas`) or of surfaces (`load_parcellation`)."""
    return load_parcellation(options) if options.is_parcellation else load_atlas(options)


def open_atlas(options: AtlasOptions) -> tuple[Volumes, str]:
    """Open the image of an atlas, once its files are found to be what they should be.

    Parameters
    ----------
    options : AtlasOptions
        Section `atlas` of the config.

    Returns
    -------
    volumes : Volumes
        The image; only its header is read.
    sha256 : str
        Checksum of the image file.

    Raises
    ------
    InputError
        For an image that is missing or no image; for a fetched atlas also when a file of it is missing, with the
        way to fetch it elsewhere, or has another checksum than when it was fetched.
    """
    if options.fetched:
        _check_fetched(options)
    return open_volumes(options.image, "atlas"), _sha256(options)


def _sha256(options: AtlasOptions) -> str:
    sha256 = file_sha256(options.image)
    if options.sha256 not in (None, sha256):
        message = f"the checksum of the image is {sha256}, not the one of the config, {options.sha256}"
        remedy = "put the right image there, or correct atlas.sha256"
        raise InputError(Problem(options.image, "atlas.sha256", message, remedy))
    return sha256


def how_to_fetch(options: AtlasOptions) -> str:
    """Say how the files of a fetched atlas come to a machine without network."""
    chosen = options.model_dump_json(include={"name", "dimension", "resolution_mm", "variant"}, exclude_none=True)
    names = ", ".join(Path(path).name for path in options.fetched)
    return (
        "where there is network, run `snakemake --cores 1 --directory STUDY --configfile CONFIG -- atlas` with "
        f"the folder and config of the study, or `boldly atlas --atlas '{chosen}'` "
        f"and copy {names} from data/atlas there into {options.cache} here"
    )


def _check_fetched(options: AtlasOptions) -> None:
    *files, record = options.fetched
    absent = [path for path in options.fetched if not Path(path).is_file()]
    if absent:
        raise InputError([Problem(path, "atlas", "not fetched yet", how_to_fetch(options)) for path in absent])
    try:
        expected = dict(read_json(record)["sha256"])
    except (ValueError, KeyError, TypeError) as error:
        message = f"not a readable record of a fetched atlas: {error}"
        raise InputError(Problem(record, "atlas", message, f"delete it; {how_to_fetch(options)}")) from None
    remedy = f"delete it; {how_to_fetch(options)}"
    changed = [path for path in files if file_sha256(path) != expected.get(Path(path).name)]
    if changed:
        message = f"its checksum is not the one in {record}: the file was changed or not wholly copied"
        raise InputError([Problem(path, "atlas", message, remedy) for path in changed])


def _integers(volumes: Volumes) -> NDArray[np.int32]:
    """Read the labels of an image in the file's order."""
    found = np.nan_to_num(volumes.values()[0], nan=0.0, posinf=0.0, neginf=0.0)
    labels = np.rint(found)
    if np.abs(labels).max() > np.iinfo(np.int32).max:
        message = f"a label of {np.abs(labels).max():g}: labels go up to {np.iinfo(np.int32).max}"
        raise InputError(Problem(str(volumes.path), volumes.entity, message, "number the parcels anew"))
    if np.abs(labels - found).max() > 1e-3:
        message = "a 3-D atlas must have whole numbers, this one has weights"
        remedy = "give labels (3-D), or maps of weights as a 4-D image"
        raise InputError(Problem(str(volumes.path), volumes.entity, message, remedy))
    return labels.astype(np.int32)


def _names(options: AtlasOptions, kind: str, values: tuple[int, ...]) -> tuple[str, ...]:
    path = names_table(options)
    if path is None:
        return tuple(f"parcel-{value}" for value in values)

    def problem(message: str, remedy: str) -> InputError:
        return InputError(Problem(str(path), "atlas.labels", message, remedy))

    if not path.is_file():
        raise problem("no such file", "correct atlas.labels, or leave it out")
    try:
        table = _read_table(path)
    except (UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        remedy = "write tab- or comma-separated text, UTF-8, with columns index and name"
        raise problem(f"not a table: {error}", remedy) from None
    numbers, texts = (_column(table, names) for names in (_NUMBERS, _TEXTS))
    if numbers is None or texts is None:
        found = ", ".join(map(str, table.columns))
        raise problem(f"no columns index and name (found: {found})", "rename the columns")
    index = pd.to_numeric(numbers, errors="coerce")
    if index.isna().any() or index.duplicated().any():
        raise problem("column index has cells that are no numbers, or the same number twice", "correct the table")
    if kind == "maps":
        if len(table) != len(values):
            raise problem(f"{len(table)} names for {len(values)} maps", "give one row for each map")
        return tuple(texts.to_numpy()[np.argsort(index.to_numpy(), kind="stable")])
    known = dict(zip(index.astype(int), texts, strict=True))
    missing = [value for value in values if value not in known]
    if missing:
        raise problem(f"no row for the labels {listed(missing)}", "add them to the table")
    return tuple(known[value] for value in values)


def _read_table(path: Path) -> pd.DataFrame:
    """Read a table as text; with commas where its first line has no tab."""
    first = path.read_text(encoding="utf-8-sig").partition("\n")[0]
    separator = "\t" if "\t" in first or "," not in first else ","
    return read_foreign_table(path, separator, dtype="str", keep_default_na=False, encoding="utf-8-sig")


def _column(table: pd.DataFrame, names: tuple[str, ...]) -> pd.Series | None:
    """Return the first column with one of some names, in upper or lower case."""
    spelled = {str(column).strip().lower(): column for column in table.columns}
    found = next((spelled[name] for name in names if name in spelled), None)
    return None if found is None else table[found].str.strip()
