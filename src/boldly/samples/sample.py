"""The record that every shard holds, whatever its layout."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from boldly.provenance import Contract


@dataclass(frozen=True)
class Sample:
    """One record of a shard.

    Attributes
    ----------
    key : str
        Run key, for a trial with ``_sample_NNN`` behind.
    bold : ndarray of float16 or float32, shape (T, P)
        Signals, scaled over the run.
    mean, std : ndarray of float32, shape (P,)
        What scaling removed.
    meta : dict
        dataset, subject, run_key, entities, t_r (s), n_volumes (frames of this sample), marked (parcel numbers,
        from 0), marked_names, missing (scrubbed frames inside its span), frames (numbers of its frames in the run,
        see `spans_of`); for a trial also number, count (trials of the run), first and stop (frames of the run),
        label, label_name, labels (all names, in label order), onset and duration (s), position (share of the run
        before it) and mean_fd_mm (over its frames; None where it is not known). The duration is None where the
        events do not tell it. Of a trial that is the mean of its frames, `averaged` tells how many they were, and
        `frames` names the one in their middle.
    contract : Contract
        How the signals came about.
    """

    key: str
    bold: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    meta: dict[str, Any]
    contract: Contract


def spans_of(numbers: np.ndarray) -> list[list[int]]:
    """Write the numbers of frames as spans without a gap: ``[[first, stop], ...]`` with first <= number < stop."""
    breaks = np.flatnonzero(np.diff(numbers) != 1) + 1
    return [[int(part[0]), int(part[-1]) + 1] for part in np.split(numbers, breaks) if len(part)]


def frame_numbers(sample: Sample) -> np.ndarray:
    """Return the number of each frame of a sample in its run, int32, shape (T,).

    A sample that does not say it (shards of boldly before these numbers, and LfB's) is taken to have no gap.
    """
    first = int(sample.meta.get("first", 0))
    spans = sample.meta.get("frames", [[first, first + len(sample.bold)]])
    return np.concatenate([np.zeros(0, np.int32), *(np.arange(*span, dtype=np.int32) for span in spans)])


def run_fingerprint(sample: Sample) -> str | None:
    """Return what tells the run of a sample from all others, by whatever name: a checksum of what scaling removed.

    Returns
    -------
    str or None
        SHA-256 of mean and standard deviation, hexadecimal; None where they are not known (0 and 1 throughout).
    """
    return scaling_fingerprint(sample.mean, sample.std)


def scaling_fingerprint(mean: np.ndarray, std: np.ndarray) -> str | None:
    """Return the fingerprint of a run from the mean and standard deviation of its samples, float32, shape (P,)."""
    if not mean.any() and (std == 1).all():
        return None
    return hashlib.sha256(mean.astype("<f4").tobytes() + std.astype("<f4").tobytes()).hexdigest()
