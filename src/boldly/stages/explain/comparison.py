"""What maps are compared with, a general linear model and the truth of simulated data, and their parcels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from boldly.config import AtlasOptions, ExplainOptions
from boldly.records import InputError, Problem
from boldly.samples.corpus import Corpus
from boldly.signals.atlas import Atlas, load_parcels
from boldly.signals.grayordinates import Parcellation
from boldly.stages.explain.agreement import read_truth
from boldly.stages.explain.contrasts import state_contrasts

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Known:
    """What maps are compared with and drawn on.

    Attributes
    ----------
    series : Path or None
        Folder of the time series of the dataset's subjects, for the general linear model.
    trials : Path or None
        Its table of events and trials.
    truth : Path or None
        Table of the truth of simulated data.
    atlas : AtlasOptions or None
        The atlas, for names and images.
    """

    series: Path | None = None
    trials: Path | None = None
    truth: Path | None = None
    atlas: AtlasOptions | None = None


class Comparison:
    """What the maps of all experiments of a dataset are compared with, worked out once."""

    def __init__(self, dataset: str, corpus: Corpus, known: Known, options: ExplainOptions) -> None:
        states, n_parcels = corpus.label_names, corpus.frames.shape[1]
        self._parcels = None if known.atlas is None else _parcels_of(known.atlas, dataset, corpus)
        # Parcels of surfaces have names and no volume to draw.
        self.atlas = self._parcels if isinstance(self._parcels, Atlas) else None
        self.glm: Array | None = None
        if options.glm and known.series is not None and known.trials is not None:
            series = {
                subject: known.series / f"sub-{subject}_timeseries.safetensors"
                for subject in sorted(set(corpus.subjects))
            }
            self.glm = state_contrasts(series, known.trials, states, set(corpus.runs))
        self.truth: dict[str, Array] | None = None
        if known.truth is not None:
            self.truth = read_truth(known.truth, dataset, states, n_parcels)

    def parcels(self, n_parcels: int) -> pd.DataFrame:
        """Return number and name of each parcel: the label in the image, or the number of the map from 1."""
        if self._parcels is None:
            return pd.DataFrame(
                {"index": range(1, n_parcels + 1), "name": [f"parcel-{k + 1}" for k in range(n_parcels)]}
            )
        first = 1 if self.atlas is not None and self.atlas.kind == "maps" else 0
        parcels = self._parcels
        return pd.DataFrame({"index": [value + first for value in parcels.values], "name": parcels.names})


def _parcels_of(atlas: AtlasOptions, dataset: str, corpus: Corpus) -> Atlas | Parcellation:
    """Read the parcels of an atlas, which has to be that of the signals."""
    parcels = load_parcels(atlas)
    if parcels.sha256 != corpus.contract.atlas_sha256:
        message = f"the signals are those of another atlas, {corpus.contract.atlas}"
        raise InputError(Problem(atlas.image, dataset, message, "give that atlas"))
    return parcels
