"""Tool export: a subject's prepared data in the layouts that other tools read."""

from __future__ import annotations

import dataclasses
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import boldly
from boldly import bids
from boldly.config import AtlasOptions
from boldly.files import atomic_path, write_json, write_tsv
from boldly.provenance import Contract, file_sha256
from boldly.records import InputError, Problem
from boldly.samples.lfb_shards import write_lfb_shards
from boldly.samples.shards import read_shard
from boldly.samples.timeseries import RunSeries, read_timeseries
from boldly.signals.atlas import Atlas, load_parcels
from boldly.signals.grayordinates import Parcellation

_BIDS_VERSION = "1.10.0"
_UNITS = {"zscore": "standard deviations", "psc": "percent of the mean", "none": "image units"}


def lfb_shards(*, shard: Path, folder: Path, output: Path) -> None:
    """Write the samples of a shard as Learning from Brains has them: one tar of pickled arrays for each run.

    Parameters
    ----------
    shard : Path
        The subject's shard; its values are written, as float32.
    folder : Path
        Where the tars go. Tars of the subject's runs that are there and no longer in the shard are removed.
    output : Path
        The list of the tars with their checksums, written last.

    Raises
    ------
    InputError
        For a damaged shard; nothing is written then.
    """
    samples = list(read_shard(shard))
    written = write_lfb_shards(folder, samples)
    for stale in set(folder.glob(f"{shard.stem}_*.tar")) - set(written):
        stale.unlink()
    _write_list(output, "lfb", folder, written)


def bids_timeseries(*, timeseries: Path, atlas: AtlasOptions, dataset: str, folder: Path, output: Path) -> None:
    """Write a subject's time series as a BIDS derivative: TSV and JSON for each run.

    A table has a row for each recorded frame, ``n/a`` in those that scrubbing left out, so that rows stay evenly
    spaced in time; a column for each parcel, under its name; numbers that read back as the float32 they were.

    Parameters
    ----------
    timeseries : Path
        The subject's parcel time series.
    atlas : AtlasOptions
        The parcels, for their names.
    dataset : str
        Name of the dataset.
    folder : Path
        The derivative dataset. The subject's folder in it is replaced as a whole, or removed where no run is left.
    output : Path
        The list of the files with their checksums, written last.

    Raises
    ------
    InputError
        For a damaged file, and for time series of another atlas.
    """
    series, contract = read_timeseries(timeseries)
    parcels = load_parcels(atlas)
    if contract.atlas_sha256 != parcels.sha256:
        message = f"time series of the atlas {contract.atlas}, another image than {atlas.image}"
        raise InputError(Problem(str(timeseries), "", message, "give the atlas they were made with"))
    columns = _columns(parcels)
    written = []
    by_subject = _by_subject(series)
    # Time series without a run, all of which were excluded, tell by their name alone whose they are.
    if (named := bids.entities(timeseries.name).get("sub")) and named not in by_subject:
        shutil.rmtree(folder / f"sub-{named}", ignore_errors=True)
    for subject, runs in by_subject.items():
        with atomic_path(folder / f"sub-{subject}") as temporary:
            for run in runs:
                name = bids.timeseries_path(_entities(run), contract.space, contract.atlas)
                path = temporary / name.relative_to(f"sub-{subject}")
                write_tsv(path, _table(run, columns))
                write_json(bids.sidecar(path), _sidecar(run, contract, columns))
                written += [folder / name, bids.sidecar(folder / name)]
    write_json(folder / "dataset_description.json", _description(dataset))
    _write_list(output, "bids", folder, written)


def _by_subject(series: Sequence[RunSeries]) -> dict[str, list[RunSeries]]:
    runs: dict[str, list[RunSeries]] = {}
    for run in series:
        runs.setdefault(run.meta["subject"], []).append(run)
    return runs


def _entities(run: RunSeries) -> dict[str, str]:
    found = {"subject": run.meta["subject"], **run.meta["entities"]}
    return {key: found.get(name, "") for name, key in bids.RUN_ENTITIES.items()}


def _columns(atlas: Atlas | Parcellation) -> list[str]:
    """Return a name for each parcel; those that several share get the parcel's number behind."""
    counts = Counter(atlas.names)
    return [
        name if counts[name] == 1 else f"{name} {value}"
        for name, value in zip(atlas.names, atlas.values, strict=True)
    ]


def _table(run: RunSeries, columns: list[str]) -> pd.DataFrame:
    values = np.full((run.meta["n_volumes"], len(columns)), None, dtype=object)
    # Nine digits give a float32 back exactly.
    values[run.frames] = [[f"{value:.9g}" for value in row] for row in run.data.tolist()]
    return pd.DataFrame(values, columns=columns)


def _sidecar(run: RunSeries, contract: Contract, columns: list[str]) -> dict[str, Any]:
    scrubbed = np.setdiff1d(np.arange(run.meta["n_volumes"]), run.frames)
    return {
        "SamplingFrequency": round(1 / run.meta["t_r"], 9),
        **({"StartTime": run.meta["start_time"]} if "start_time" in run.meta else {}),
        "RepetitionTime": run.meta["t_r"],
        "Units": _UNITS[contract.standardize],
        "Atlas": contract.atlas,
        "AtlasSha256": contract.atlas_sha256,
        "ScrubbedFrames": scrubbed.tolist(),
        "ZeroParcels": [columns[number] for number in run.meta["marked"]],
        "Contract": dataclasses.asdict(contract),
    }


def _description(dataset: str) -> dict[str, Any]:
    return {
        "Name": f"{dataset}: parcel time series",
        "BIDSVersion": _BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "boldly", "Version": boldly.__version__}],
    }


def _write_list(output: Path, layout: str, folder: Path, written: Sequence[Path]) -> None:
    files = {str(path.relative_to(folder)): file_sha256(path) for path in sorted(written)}
    write_json(output, {"layout": layout, "folder": str(folder), "sha256": files})
