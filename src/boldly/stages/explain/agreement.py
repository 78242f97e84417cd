"""How well maps agree with each other and with what is known: a GLM, or the truth of simulated data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from boldly.files import read_tsv
from boldly.records import InputError, Problem

Array = NDArray[np.float64]

TRUTH_COLUMNS = ("dataset", "state", "index", "name", "mean", "strength")


def correlation(one: Array, other: Array) -> float:
    """Return Pearson's correlation over the parcels that both have; nan where one does not vary."""
    there = np.isfinite(one) & np.isfinite(other)
    if there.sum() < 2 or np.ptp(one[there]) == 0 or np.ptp(other[there]) == 0:
        return float("nan")
    return float(np.corrcoef(one[there], other[there])[0, 1])


def auc(values: Array, positive: NDArray[np.bool_]) -> float:
    """Return the chance that a positive parcel has a larger value than one of the others; ties count half.

    It is the mean rank of the positive parcels, scaled so that 0.5 is chance and 1 has all of them first.
    """
    up, down = values[positive], values[~positive]
    if not len(up) or not len(down):
        return float("nan")
    order = np.sign(up[:, None] - down[None, :])
    return float((order + 1).mean() / 2)


def reliability(maps: Array) -> float:
    """Return the mean correlation between the maps of pairs of fits, shape (fits, P); nan for a single fit."""
    pairs = [correlation(maps[i], maps[j]) for i in range(len(maps)) for j in range(i)]
    return float(np.mean(pairs)) if pairs else float("nan")


def read_truth(path: Path, dataset: str, states: tuple[str, ...], n_parcels: int) -> dict[str, Array]:
    """Read the maps that the simulation put into a dataset.

    Returns
    -------
    dict of str to ndarray, shape (P, L)
        `mean`: mean response to a state over its trials, against that to the other states; `strength`: root of its
        mean square, waves included. nan for states that the table does not have.

    Raises
    ------
    InputError
        For a table that lacks a column, or has another number of parcels.
    """
    table = read_tsv(path, ("dataset", "state"))  # states may be numbers
    if absent := [name for name in TRUTH_COLUMNS if name not in table]:
        raise InputError(Problem(str(path), dataset, f"no column {', '.join(absent)}", "run simulate again"))
    own = table[table["dataset"] == dataset]
    found = {name: np.full((n_parcels, len(states)), np.nan) for name in ("mean", "strength")}
    for column, state in enumerate(states):
        rows = own[own["state"] == state].sort_values("index")
        if len(rows) not in (0, n_parcels):
            message = f"{len(rows)} parcels of state '{state}', the signals have {n_parcels}"
            raise InputError(Problem(str(path), dataset, message, "use the atlas of the simulation"))
        for name in found:
            if len(rows):
                found[name][:, column] = rows[name].to_numpy(float)
    there = ~np.isnan(found["mean"][0])
    total = np.nansum(found["mean"], axis=1, keepdims=True)
    if there.sum() > 1:
        found["mean"] = found["mean"] - (total - found["mean"]) / (there.sum() - 1)
    return found


def recovery(direction: Array, value: Array, truth: dict[str, Array], state: int) -> dict[str, float]:
    """Compare a map of a state with the truth.

    Returns
    -------
    dict
        `truth_r`: correlation of the direction with the true mean response; `truth_auc`: chance that a parcel that
        responds upwards has a higher direction than one that responds downwards; `strength_r`: correlation of
        the map's size with the strength of the true response.
    """
    mean, strength = truth["mean"][:, state], truth["strength"][:, state]
    if np.isnan(mean).any():
        return dict.fromkeys(("truth_r", "truth_auc", "strength_r"), float("nan"))
    return {
        "truth_r": correlation(direction, mean),
        "truth_auc": auc(direction, mean > 0),
        "strength_r": correlation(np.abs(value), strength),
    }


def summary_of_states(table: pd.DataFrame) -> pd.DataFrame:
    """Add a row for each method that is the mean over its states."""
    numbers = table.select_dtypes("number").columns
    means = table.groupby("method", sort=False)[list(numbers)].mean().reset_index().assign(state="all")
    return pd.concat([means, table], ignore_index=True)[list(table.columns)]
