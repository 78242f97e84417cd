"""LfB's shards: tars of pickled arrays, read without unpickling and written so that LfB's tools can read them.

Members of a sample: ``<key>.bold.pyd`` (T, P) float32, ``<key>.t_r.pyd`` in seconds; for a trial also
``<key>.task_label.pyd`` and ``<key>.task_name`` (MDTB), and for HCP ``<key>.label_in_task.pyd``,
``<key>.label_across_tasks.pyd`` and ``<key>.mental_state``.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from boldly import bids
from boldly.config import PreprocessOptions
from boldly.provenance import Contract
from boldly.records import InputError, Problem
from boldly.samples.pickles import PickleError, load_numbers
from boldly.samples.sample import Sample
from boldly.samples.tars import Members, damaged, write_members

_NEEDED = ("bold.pyd", "t_r.pyd")
_NUMBERS = ("t_r.pyd", "task_label.pyd", "label_in_task.pyd", "label_across_tasks.pyd")
_TEXTS = ("task_name", "mental_state")


def contract(n_parcels: int) -> Contract:
    """Return the contract of LfB's published data: DiFuMo, with the preprocessing that the preprint describes.

    The checksum of the atlas image is not known: empty.
    """
    return Contract(
        atlas=f"DiFuMo {n_parcels}",
        atlas_sha256="",
        n_parcels=n_parcels,
        space="MNI152NLin2009cAsym",
        confounds=PreprocessOptions(
            strategy=["motion", "wm_csf", "global_signal"], motion="basic", wm_csf="basic", global_signal="basic"
        ).regression(),
        smoothing_fwhm_mm=3.0,
        high_pass_hz=0.008,
        low_pass_hz=None,
        detrend=True,
        standardize="zscore",
        version="learning-from-brains",
    )


def is_layout(members: Members) -> bool:
    """Tell whether a sample has LfB's members."""
    return any(name.endswith(".pyd") for name in members)


def decode(path: Path | str, key: str, members: Members) -> Sample:
    """Return a sample of LfB's. What its scaling removed is not known: mean 0, standard deviation 1.

    Raises
    ------
    InputError
        For missing, unknown or damaged members, pickles of anything but arrays and numbers among them.
    """
    unknown = sorted(set(members) - {*_NEEDED, *_NUMBERS, *_TEXTS})
    missing = [name for name in _NEEDED if name not in members]
    if unknown or missing:
        words = [f"lacks {name}" for name in missing] + [f"has an unknown member {name}" for name in unknown]
        raise damaged(path, key, f"the sample {', '.join(words)}")
    bold = _bold(path, key, members["bold.pyd"])
    numbers = {name: _number(path, key, name, members[name]) for name in _NUMBERS if name in members}
    if not 0 < numbers["t_r.pyd"] < np.inf:
        raise damaged(path, key, f"a t_r of {numbers['t_r.pyd']} s")
    try:
        texts = {name: members[name].decode() for name in _TEXTS if name in members}
    except UnicodeDecodeError as error:
        raise damaged(path, key, str(error)) from None
    parcels = bold.shape[1]
    bold, marked = _without_absent(path, key, bold)
    meta = {**_run_meta(path, key), "t_r": numbers["t_r.pyd"], "n_volumes": len(bold), "marked": marked}
    meta.update(_trial_meta(path, key, numbers, texts))
    mean, std = np.zeros(parcels, np.float32), np.ones(parcels, np.float32)
    return Sample(key, bold, mean, std, meta, contract(parcels))


def write_lfb_shards(folder: Path | str, samples: Iterable[Sample]) -> list[Path]:
    """Write samples in LfB's layout, one tar for each run, named by the run's key; each atomically.

    Labels are written as MDTB's are: ``task_label`` and ``task_name``.

    Parameters
    ----------
    folder : Path or str
        Where to write.
    samples : iterable of Sample
        Samples, those of a run together.

    Returns
    -------
    list of Path
        The tars.
    """
    paths = []
    for run_key, group in groupby(samples, key=lambda sample: str(sample.meta["run_key"])):
        path = Path(folder) / f"{run_key}.tar"
        write_members(path, [(sample.key, _encode(sample)) for sample in group])
        paths.append(path)
    return paths


def _encode(sample: Sample) -> dict[str, bytes]:
    members = {
        "bold.pyd": _pickle(np.ascontiguousarray(sample.bold, np.float32)),
        "t_r.pyd": _pickle(np.float32(sample.meta["t_r"])),
    }
    if "label" in sample.meta:
        members["task_label.pyd"] = _pickle(int(sample.meta["label"]))
        members["task_name"] = str(sample.meta["label_name"]).encode()
    return members


def _pickle(value: Any) -> bytes:
    """Pickle as numpy 1 did: old installations do not know the module names of numpy 2."""
    # Protocol 3 spells names as plain lines, and the first one stands before any data.
    return pickle.dumps(value, protocol=3).replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n", 1)


def _bold(path: Path | str, key: str, content: bytes) -> np.ndarray:
    bold = _load(path, key, "bold.pyd", content)
    if not isinstance(bold, np.ndarray) or bold.ndim != 2 or bold.dtype.kind != "f" or not bold.size:
        raise damaged(path, key, "bold.pyd is not an array of real numbers with frames and parcels")
    # numpy pickles keep the memory order, and many of these arrays are in Fortran order.
    return np.ascontiguousarray(bold, np.float16 if bold.dtype.itemsize == 2 else np.float32)


def _without_absent(path: Path | str, key: str, bold: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """Mark parcels that are nan at all frames (outside of the images) and make them zeros, as parcellate does.

    Raises
    ------
    InputError
        For a parcel with some frames that are no numbers, and where no parcel is left.
    """
    bad = ~np.isfinite(bold)
    if not bad.any():
        return bold, []
    absent = np.isnan(bold).all(axis=0)
    partly = np.flatnonzero(bad.any(axis=0) & ~absent)
    if len(partly) or absent.all():
        first = f", the first is parcel {partly[0] + 1} of {bold.shape[1]}" if len(partly) else ""
        message = f"bold.pyd has {bad.sum()} values that are nan or infinite{first}"
        remedy = "leave these frames out, or write nan at all frames of a parcel that is absent: it is marked then"
        raise InputError(Problem(str(path), key, message, remedy))
    return np.where(absent, bold.dtype.type(0), bold), np.flatnonzero(absent).tolist()


def _number(path: Path | str, key: str, name: str, content: bytes) -> float:
    value = _load(path, key, name, content)
    if isinstance(value, np.ndarray):
        if value.size != 1:
            raise damaged(path, key, f"{name} is not one number")
        value = value.item()
    # Labels may come as floats and times as integers: both are numbers here.
    return float(value)


def _load(path: Path | str, key: str, name: str, content: bytes) -> Any:
    try:
        return load_numbers(content)
    except PickleError as error:
        raise damaged(path, key, f"{name}: {error}") from None


def _run_meta(path: Path | str, key: str) -> dict[str, Any]:
    found = bids.entities(key)
    absent = [name for name in ("ds", "sub") if name not in found]
    if absent:
        raise damaged(path, key, f"its key has no {' and no '.join(absent)} entity")
    run = {name: found[name] for name in bids.RUN_ENTITIES.values() if name in found}
    return {
        "dataset": found["ds"],
        "subject": found["sub"],
        "run_key": bids.run_of_sample(key),
        "entities": run,
        "missing": 0,
    }


def _trial_meta(path: Path | str, key: str, numbers: dict[str, float], texts: dict[str, str]) -> dict[str, Any]:
    """Return number and label of a trial: HCP's labels count across tasks, MDTB's are the tasks."""
    label = numbers.get("label_across_tasks.pyd", numbers.get("task_label.pyd"))
    if label is None:
        return {}
    if label < 0 or label != int(label):
        raise damaged(path, key, f"a label of {label}")
    number = key.partition("_sample_")[2]
    name = " ".join(texts[name] for name in _TEXTS if name in texts)
    return {
        "number": int(number) if number.isdigit() else 0,
        "label": int(label),
        "label_name": name or str(int(label)),
    }
