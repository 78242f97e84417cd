"""What the simulation put into each parcel for each labelled state: what explanations of decoders should find."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from boldly.simulation.anatomy import parcel_names
from boldly.simulation.networks import Array, group_mixing
from boldly.simulation.states import RECOMMENDED_DELAY_S, WEIGHT_MEANS, WEIGHT_SDS, library, response

_STEP_S = 0.1


def true_maps(processes: Mapping[str, str], durations_s: Sequence[float]) -> pd.DataFrame:
    """Return how the parcels of the average subject respond to the states of a dataset in the window of a trial.

    Parameters
    ----------
    processes : mapping of str to str
        Process of each state, by its name in the dataset.
    durations_s : sequence of float
        Durations of trials, all as frequent.

    Returns
    -------
    DataFrame
        One row for each state and parcel. `mean` is the expected response, averaged over the window; the wave is
        zero there, so that this is the pattern. `strength` is the root of the mean square of the response over
        trials and window, waves included. Both in units of the networks' signals.
    """
    tables = []
    names = [name for name, _ in parcel_names()]
    for state, process in processes.items():
        parts = [_moments(process, duration) for duration in durations_s]
        mean, square = (np.mean(part, axis=0) for part in zip(*parts, strict=True))
        columns = {"index": range(1, len(names) + 1), "name": names, "mean": mean, "strength": np.sqrt(square)}
        tables.append(pd.DataFrame({"state": state, **columns}))
    return pd.concat(tables, ignore_index=True)


def _moments(process: str, duration_s: float) -> tuple[Array, Array]:
    """Return mean and mean square of the parcels' responses over the window of a trial, each (N_PARCELS,)."""
    times = np.arange(RECOMMENDED_DELAY_S, RECOMMENDED_DELAY_S + duration_s, _STEP_S)
    parts = response(library()[process], duration_s, times) @ group_mixing().T  # (3, n, N_PARCELS)
    expected = np.tensordot(WEIGHT_MEANS, parts, 1)
    square = expected**2 + np.tensordot(WEIGHT_SDS**2, parts**2, 1)
    return expected.mean(axis=0), square.mean(axis=0)
