"""Small samples and time series for tests."""

from __future__ import annotations

from typing import Any

import numpy as np

from boldly.provenance import Contract
from boldly.samples.sample import Sample
from boldly.samples.timeseries import RunSeries

N_PARCELS = 6
LABELS = ["faces", "house", "rest"]


def contract(**changes: Any) -> Contract:
    """Return a contract, with changes."""
    fields: dict[str, Any] = {
        "atlas": "slabs",
        "atlas_sha256": "ab" * 32,
        "n_parcels": N_PARCELS,
        "space": "MNI152NLin2009cAsym",
        "confounds": {"strategy": ["motion"], "motion": "basic"},
        "smoothing_fwhm_mm": 3.0,
        "high_pass_hz": 0.008,
        "low_pass_hz": None,
        "detrend": True,
        "standardize": "zscore",
    }
    return Contract(**(fields | changes))


def run_sample(
    subject: str = "01", run: int = 1, n_volumes: int = 12, seed: int = 0, dtype: str = "float16", **changes: Any
) -> Sample:
    """Return an upstream sample of normal noise; `changes` go into its meta data."""
    rng = np.random.default_rng([seed, run])
    key = f"ds-toy_sub-{subject}_task-blocks_run-{run}"
    meta = {
        "dataset": "toy",
        "subject": subject,
        "run_key": key,
        "entities": {"sub": subject, "task": "blocks", "run": str(run)},
        "t_r": 2.0,
        "n_volumes": n_volumes,
        "marked": [],
        "missing": 0,
    }
    return Sample(
        key=key,
        bold=rng.normal(size=(n_volumes, N_PARCELS)).astype(dtype),
        mean=rng.normal(1000, 10, N_PARCELS).astype(np.float32),
        std=rng.uniform(1, 2, N_PARCELS).astype(np.float32),
        meta=meta | changes,
        contract=contract(),
    )


def trial_sample(subject: str = "01", run: int = 1, number: int = 0, label: int = 0, **changes: Any) -> Sample:
    """Return a downstream sample of five frames."""
    whole = run_sample(subject, run, n_volumes=5, seed=number)
    trial = {
        "number": number,
        "count": 3,
        "label": label,
        "label_name": LABELS[label],
        "labels": LABELS,
        "onset": 12.0 * number,
        "duration": 10.0,
    }
    key = f"{whole.key}_sample_{number:03d}"
    return Sample(key, whole.bold, whole.mean, whole.std, whole.meta | trial | changes, whole.contract)


def run_series(key: str, frames: np.ndarray | int = 40, seed: int = 0, **changes: Any) -> RunSeries:
    """Return the series of a run whose value in row r, parcel 0, is the number of the recorded frame."""
    numbers = np.arange(frames) if isinstance(frames, int) else np.asarray(frames)
    data = np.random.default_rng(seed).normal(size=(len(numbers), N_PARCELS)).astype(np.float32)
    data[:, 0] = numbers
    fields: dict[str, Any] = {
        "key": key,
        "data": data,
        "frames": numbers.astype(np.int64),
        "mean": np.full(N_PARCELS, 1000, np.float32),
        "std": np.full(N_PARCELS, 2, np.float32),
        "coverage": np.ones(N_PARCELS, np.float32),
        "tsnr": np.full(N_PARCELS, 50, np.float32),
        "meta": {"t_r": 2.0, "marked": []},
    }
    return RunSeries(**(fields | changes))


def same(one: Sample, other: Sample) -> bool:
    """Tell whether two samples have the same content."""
    arrays = all(
        np.array_equal(getattr(one, name), getattr(other, name))
        and getattr(one, name).dtype == getattr(other, name).dtype
        for name in ("bold", "mean", "std")
    )
    return arrays and (one.key, one.meta, one.contract) == (other.key, other.meta, other.contract)
