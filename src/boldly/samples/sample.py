"""The record that every shard holds, whatever its layout."""

from __future__ import annotations

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
        dataset, subject, run_key, entities, t_r (s), n_volumes (frames of this sample), marked (parcel numbers),
        missing (scrubbed frames inside its span); for a trial also number, count (trials of the run), first and
        stop (frames of the run), label, label_name, labels (all names, in label order), onset and duration (s),
        position (share of the run before it) and mean_fd_mm (over its frames; None where it is not known).
    contract : Contract
        How the signals came about.
    """

    key: str
    bold: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    meta: dict[str, Any]
    contract: Contract
