"""Tool atlas: fetch a published atlas, once, where there is network, with its checksums and its licence."""

from __future__ import annotations

import gzip
import logging
import tarfile
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple
from xml.etree.ElementTree import ParseError

import nibabel as nib
import numpy as np
import pandas as pd

from boldly.config import AtlasOptions
from boldly.files import atomic_path, write_json, write_tsv
from boldly.provenance import file_sha256
from boldly.records import InputError, Problem
from boldly.signals.atlas import how_to_fetch, load_atlas

logger = logging.getLogger(__name__)

# What may come out of a download: no network, a page instead of an archive, an archive that is cut.
_FAILURES = (
    OSError,
    EOFError,
    ValueError,
    KeyError,
    AssertionError,
    ParseError,
    tarfile.TarError,
    zipfile.BadZipFile,
    nib.filebasedimages.ImageFileError,
    nib.spatialimages.HeaderDataError,
    nib.wrapstruct.WrapStructError,
)


class Origin(NamedTuple):
    """Where an atlas is from, on what terms, and whether they let anyone pass it on."""

    source: str
    citation: str
    licence: str
    may_be_shared: bool = False


ORIGINS = {
    "difumo": Origin(
        "https://parietal-inria.github.io/DiFuMo",
        "Dadi et al. (2020), Fine-grain atlases of functional modes for fMRI analysis, NeuroImage 221, 117126",
        "non-commercial research use is unrestricted",
    ),
    "schaefer": Origin(
        "https://github.com/ThomasYeoLab/CBIG",
        "Schaefer et al. (2018), Local-global parcellation of the human cerebral cortex from intrinsic functional "
        "connectivity MRI, Cerebral Cortex 28, 3095-3114",
        "MIT",
        may_be_shared=True,
    ),
    "aal": Origin(
        "https://www.gin.cnrs.fr/en/tools/aal",
        "Tzourio-Mazoyer et al. (2002), Automated anatomical labeling of activations in SPM, NeuroImage 15, "
        "273-289; AAL3: Rolls et al. (2020), Automated anatomical labelling atlas 3, NeuroImage 206, 116189",
        "not stated with the files: ask its authors before commercial use",
    ),
    "harvard-oxford": Origin(
        "https://fsl.fmrib.ox.ac.uk/fsl/docs",
        "Desikan et al. (2006), An automated labeling system for subdividing the human cerebral cortex on MRI "
        "scans into gyral based regions of interest, NeuroImage 31, 968-980",
        "that of FSL, which excludes commercial use",
    ),
}


def run(*, atlas: AtlasOptions) -> None:
    """Write image, table of names and record of a published atlas into its cache folder.

    The record, ``<label>_atlas.json``, is written last and says source, citation, licence, template and checksums;
    the stages that use the atlas compare the checksums. Nothing is done when all three are there and sound.

    Parameters
    ----------
    atlas : AtlasOptions
        Section `atlas` of the config, by name.

    Raises
    ------
    InputError
        For an atlas given by its path, one that cannot be fetched (with the way to bring it here by hand), and
        files in the cache that are not what was fetched.
    """
    if not atlas.fetched:
        message = f"the atlas is an image of your own, {atlas.path}: nothing to fetch"
        raise InputError(Problem("config", "atlas.path", message, "give atlas.name instead of atlas.path"))
    image, table, record = map(Path, atlas.fetched)
    if not all(path.is_file() for path in (image, table, record)):
        _fetch(atlas, image, table, record)
    found = load_atlas(atlas)
    origin = ORIGINS[str(atlas.name)]
    logger.info("%s: %d parcels (%s), %s, %s", found.name, found.n_parcels, found.kind, found.grid, image)
    logger.info("licence: %s", origin.licence)
    logger.info("please cite: %s", origin.citation)


def _fetch(atlas: AtlasOptions, image: Path, table: Path, record: Path) -> None:
    image.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".", dir=image.parent) as folder:
        try:
            bunch = _fetcher(atlas)(data_dir=folder)
            content = _image_bytes(bunch.maps)
            names = _names(bunch, nib.Nifti1Image.from_bytes(content))
        except _FAILURES as error:
            message = f"could not be fetched: {type(error).__name__}: {error}"
            raise InputError(Problem(str(image), f"atlas {atlas.label}", message, how_to_fetch(atlas))) from error
    # All or none; the record takes its name last.
    with atomic_path(record) as third, atomic_path(table) as second, atomic_path(image) as first:
        first.write_bytes(gzip.compress(content, mtime=0))
        write_tsv(second, names)
        about = {
            "atlas": atlas.label,
            **{key: value for key, value in ORIGINS[str(atlas.name)]._asdict().items() if key != "may_be_shared"},
            "template": str(bunch.template),
            "sha256": {image.name: file_sha256(first), table.name: file_sha256(second)},
        }
        write_json(third, about)


def _fetcher(atlas: AtlasOptions) -> Callable[..., Any]:
    """Return nilearn's fetcher with the arguments that the options stand for, all but `data_dir`."""
    from nilearn import datasets

    size = {"resolution_mm": atlas.resolution_mm}
    variant = str(atlas.variant)
    match atlas.name:
        case "difumo":
            return partial(datasets.fetch_atlas_difumo, dimension=atlas.dimension, **size)
        case "schaefer":
            networks = int(variant.removesuffix("networks"))
            return partial(
                datasets.fetch_atlas_schaefer_2018, n_rois=atlas.dimension, yeo_networks=networks, **size
            )
        case "aal":
            return partial(datasets.fetch_atlas_aal, version=variant)
        case "harvard-oxford":
            name = f"{variant}-{atlas.resolution_mm}mm"
            return partial(datasets.fetch_atlas_harvard_oxford, atlas_name=name)
    raise ValueError(f"no fetcher for the atlas {atlas.name}")


def _image_bytes(maps: Any) -> bytes:
    """Return the NIfTI file that nilearn gives, as a path or as an image, uncompressed."""
    if isinstance(maps, nib.Nifti1Image):
        return bytes(maps.to_bytes())
    content = Path(maps).read_bytes()
    return gzip.decompress(content) if str(maps).endswith(".gz") else content


def _names(bunch: Any, image: nib.Nifti1Image) -> pd.DataFrame:
    """Return the number and name of each parcel, from the forms that nilearn gives them in.

    Label atlases have a look-up table by value, the background among its rows (AAL: two lists). Maps have a table
    in their order (DiFuMo), or a list of names that may begin with a background that no map stands for.
    """
    if len(image.shape) == 4 and image.shape[3] > 1:
        labels = bunch.labels
        names = list(labels["difumo_names"] if isinstance(labels, pd.DataFrame) else labels)
        if len(names) == image.shape[3] + 1 and names[0] == "Background":
            names = names[1:]
        if len(names) != image.shape[3]:
            raise ValueError(f"{len(names)} names for {image.shape[3]} maps")
        return pd.DataFrame({"index": range(1, len(names) + 1), "name": names})
    # AAL's look-up table has the values sorted and the names not: right only where its file happens to be sorted.
    pairs = (bunch.indices, bunch.labels) if "indices" in bunch else (bunch.lut["index"], bunch.lut["name"])
    known = {int(value): str(name) for value, name in zip(*pairs, strict=True)}
    values = [int(value) for value in np.unique(np.asarray(image.dataobj)) if value != 0]
    return pd.DataFrame({"index": values, "name": [known.get(value, f"parcel-{value}") for value in values]})
