"""How faithful a map is: accuracy as the parcels that it puts first are removed, against random orders.

A map that names the parcels which a decoder uses loses accuracy fast. Trials are never used twice: the order of
the parcels for trials of a unit comes from the trials of the other units (all trials, where there is one unit
alone).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from boldly.decoders.differentiable import DifferentiableDecoder, TrialBatch
from boldly.stages.explain.attributions import said

Array = NDArray[np.float64]
Integers = NDArray[np.int64]

RANDOM = "random"
# The row of a curve over all states.
ALL = "all"


@dataclass(frozen=True)
class Orders:
    """The order in which parcels are removed, the first first: methods to (R, P), and random orders, each (P,)."""

    of_methods: Mapping[str, Integers]
    random: Sequence[Integers]


def rank(values: Array) -> Integers:
    """Return the parcels of each row (R, P) by falling value."""
    order: Integers = np.argsort(-values, axis=-1, kind="stable")
    return order


def without_own_unit(units: NDArray[np.str_], of_others: Callable[[NDArray[np.bool_]], Array]) -> Array:
    """Return the values of maps for each trial (R, P), from the trials of all other units.

    Parameters
    ----------
    units : ndarray of str, shape (R,)
        Unit of each trial.
    of_others : callable
        Mask of trials (R,) to the values that each trial would get from these, (R, P).
    """
    found = np.unique(units)
    if len(found) == 1:
        return of_others(np.ones(len(units), bool))
    parts = {unit: of_others(units != unit) for unit in found}
    return np.stack([parts[unit][trial] for trial, unit in enumerate(units)])


def random_orders(count: int, n_parcels: int, seed: int) -> list[Integers]:
    """Return orders of the parcels drawn at random, the same for all decoders."""
    return [np.random.default_rng([seed, number]).permutation(n_parcels) for number in range(count)]


def counts_of(shares: Sequence[float], n_parcels: int) -> list[int]:
    """Return how many parcels are removed at each point of a curve, from none to all."""
    return sorted({0, n_parcels, *(round(share * n_parcels) for share in shares)})


def hits(decoder: DifferentiableDecoder, batch: TrialBatch, orders: Orders, counts: Sequence[int]) -> pd.DataFrame:
    """Remove parcels and note which trials are still told.

    Parameters
    ----------
    decoder : DifferentiableDecoder
        The decoder.
    batch : TrialBatch
        R trials.
    orders : Orders
        What goes first.
    counts : sequence of int
        How many parcels are removed; none and all are the same for all orders.

    Returns
    -------
    DataFrame
        Columns order (a method, or RANDOM), number (of the random order), removed (parcels), trial, hit.
    """
    n_trials, n_parcels = len(batch), batch.inputs.shape[2]
    ends = {count: _hit(decoder, batch, np.tile(np.arange(n_parcels), (n_trials, 1)), count) for count in counts
            if count in (0, n_parcels)}  # fmt: skip
    tables = []
    lines = [(name, 0, order) for name, order in orders.of_methods.items()]
    lines += [(RANDOM, number, np.tile(order, (n_trials, 1))) for number, order in enumerate(orders.random)]
    for name, number, order in lines:
        for count in counts:
            hit = ends[count] if count in ends else _hit(decoder, batch, order, count)
            about = {"order": name, "number": number, "removed": count}
            tables.append(pd.DataFrame({**about, "trial": np.arange(n_trials), "hit": hit}))
    return pd.concat(tables, ignore_index=True)


def _hit(decoder: DifferentiableDecoder, batch: TrialBatch, order: Integers, count: int) -> NDArray[np.bool_]:
    kept = np.ones(order.shape, np.float32)
    np.put_along_axis(kept, order[:, :count], 0, axis=1)
    inputs = batch.inputs * torch.from_numpy(kept).to(batch.inputs.device)[:, None]
    found: NDArray[np.bool_] = (said(decoder, batch, inputs).argmax(dim=1) == batch.labels).cpu().numpy()
    return found


def curves(table: pd.DataFrame, states: Sequence[str]) -> pd.DataFrame:
    """Average over trials, fits and random orders.

    Parameters
    ----------
    table : DataFrame
        Rows of `hits`, with columns fit and label beside.
    states : sequence of str
        Names of the states by label.

    Returns
    -------
    DataFrame
        Columns method, state (ALL: of all trials), removed (parcels), accuracy (of a state: the share of its
        trials that are told), low, high: of random orders the lowest and highest, else those of the fits.
    """
    rows = []
    for label in (None, *range(len(states))):
        own = table if label is None else table[table["label"] == label]
        if own.empty:
            continue
        for (order, removed), part in own.groupby(["order", "removed"], sort=False):
            over = "number" if order == RANDOM else "fit"
            means = part.groupby(over)["hit"].mean()
            rows.append(
                {
                    "method": order,
                    "state": ALL if label is None else states[label],
                    "removed": removed,
                    "accuracy": part["hit"].mean(),
                    "low": means.min(),
                    "high": means.max(),
                }
            )
    return pd.DataFrame(rows)


def area(curve: pd.DataFrame, other: pd.DataFrame) -> float:
    """Return the area between two curves over the share of removed parcels: `other` less `curve`, trapezoids.

    Positive where accuracy falls faster in the order of `curve`; a mean difference of accuracies, from -1 to 1.
    """
    share = curve["removed"].to_numpy(float) / curve["removed"].max()
    return float(np.trapezoid(other["accuracy"].to_numpy() - curve["accuracy"].to_numpy(), share))
