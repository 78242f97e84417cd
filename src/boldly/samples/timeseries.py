"""The file of a subject's parcel time series: one safetensors file, one array per run, contract in the header."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from boldly.files import atomic_path
from boldly.provenance import Contract
from boldly.records import InputError, Problem


@dataclass(frozen=True)
class RunSeries:
    """The parcel signals of one run.

    Attributes
    ----------
    key : str
        Run key.
    data : ndarray of float32, shape (T, P)
        Cleaned signals. Parcels that the run does not cover are zero.
    frames : ndarray of int64, shape (T,)
        Number of each row in the recorded run (scrubbed frames are absent).
    mean, std : ndarray of float32, shape (P,)
        What standardization removed, in image units: ``data * std + mean`` restores the cleaned signal.
    coverage : ndarray of float32, shape (P,)
        Share of each parcel's weight inside the brain mask.
    tsnr : ndarray of float32, shape (P,)
        Temporal signal-to-noise ratio of each parcel before cleaning; nan where it does not vary.
    meta : dict
        t_r (s), entities, `marked` (numbers of parcels below min_coverage, from 0), `marked_names`; must be JSON.
    """

    key: str
    data: np.ndarray
    frames: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    coverage: np.ndarray
    tsnr: np.ndarray
    meta: dict[str, Any] = field(default_factory=dict)


_PARTS = ("data", "frames", "mean", "std", "coverage", "tsnr")


def write_timeseries(path: Path | str, series: list[RunSeries], contract: Contract) -> None:
    """Write a subject's runs, atomically; the same input gives the same bytes.

    A subject without a usable run gets a file without arrays.
    """
    tensors = {f"{run.key}/{part}": np.ascontiguousarray(getattr(run, part)) for run in series for part in _PARTS}
    about = {"contract": contract.to_json(), "runs": {run.key: run.meta for run in series}}
    # One entry: safetensors writes several in an order that changes from call to call.
    header = {"boldly": json.dumps(about, sort_keys=True)}
    # Not save_file, which leaves a file of its own behind when it is killed.
    with atomic_path(path) as temporary:
        temporary.write_bytes(save(tensors, header))


def read_timeseries(path: Path | str, *, key: str | None = None) -> tuple[list[RunSeries], Contract]:
    """Read what `write_timeseries` wrote; with a key, that run alone (an empty list if it is not there).

    Raises
    ------
    InputError
        For a file that is cut or no such file at all.
    """
    try:
        with safe_open(path, "numpy") as stream:
            about = json.loads(stream.metadata()["boldly"])
            contract = Contract.from_json(about["contract"])
            series = [
                RunSeries(name, meta=meta, **{part: stream.get_tensor(f"{name}/{part}") for part in _PARTS})
                for name, meta in about["runs"].items()
                if key in (None, name)
            ]
    except (SafetensorError, FileNotFoundError, ValueError, KeyError, TypeError) as error:
        problem = Problem(
            str(path), "", f"not a readable time series file: {error}", "delete it and rerun parcellate"
        )
        raise InputError(problem) from None
    return series, contract
