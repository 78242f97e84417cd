"""The tables of an explanation: maps, and what they agree with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from boldly.stages.explain import agreement, faithfulness
from boldly.stages.explain.comparison import Comparison
from boldly.stages.explain.explanation import Map

# Methods that are none of a decoder, in the table of maps.
GLM, TRUTH = "glm", "truth"


def maps_table(
    maps: dict[str, Map], known: Comparison, states: Sequence[str], present: Sequence[int], n_parcels: int
) -> pd.DataFrame:
    """Return a row for each state, method and parcel."""
    parcels = known.parcels(n_parcels)
    nothing = np.full((n_parcels, len(states)), np.nan)
    columns = {method: (one.value, one.sd, one.direction) for method, one in maps.items()}
    if known.glm is not None:
        columns[GLM] = (known.glm, nothing, known.glm)
    if known.truth is not None:
        columns[TRUTH] = (known.truth["mean"], nothing, known.truth["mean"])
    tables = [
        parcels.assign(
            state=states[state], method=method, value=value[:, state], sd=sd[:, state], direction=sign[:, state]
        )
        for method, (value, sd, sign) in columns.items()
        for state in present
    ]
    order = ["state", "method", "index", "name", "value", "sd", "direction"]
    return pd.concat(tables, ignore_index=True)[order]


def summary_table(
    maps: dict[str, Map],
    hits: pd.DataFrame,
    curves: pd.DataFrame,
    known: Comparison,
    states: Sequence[str],
    present: Sequence[int],
) -> pd.DataFrame:
    """Return a row for each state and method, and one for each method over all states."""
    rows = []
    lines = dict(iter(curves.groupby(["method", "state"], sort=False)))
    for method, one in maps.items():
        for state in present:
            name = states[state]
            row = {"method": method, "state": name, "reliability": one.reliability[state], "gap": one.gap}
            row["area"] = faithfulness.area(lines[method, name], lines[faithfulness.RANDOM, name])
            direction = one.direction[:, state]
            row["glm_r"] = np.nan if known.glm is None else agreement.correlation(direction, known.glm[:, state])
            if known.truth is not None:
                row |= agreement.recovery(direction, one.value[:, state], known.truth, state)
            rows.append(row)
    table = agreement.summary_of_states(pd.DataFrame(rows))
    # Over all states: of the curve of all trials, not the mean of those of the states.
    for method in maps:
        whole = (table["method"] == method) & (table["state"] == faithfulness.ALL)
        table.loc[whole, "area"] = faithfulness.area(
            lines[method, faithfulness.ALL], lines[faithfulness.RANDOM, faithfulness.ALL]
        )
    return table.assign(area_of_chance=_area_of_chance(hits, curves))


def _area_of_chance(hits: pd.DataFrame, curves: pd.DataFrame) -> float:
    """Return the largest area that a random order has against their mean: what a worthless map may reach."""
    random = hits[hits["order"] == faithfulness.RANDOM]
    mean = curves[(curves["method"] == faithfulness.RANDOM) & (curves["state"] == faithfulness.ALL)]
    areas = []
    for _, own in random.groupby("number"):
        curve = own.groupby("removed")["hit"].mean().rename("accuracy").reset_index()
        areas.append(abs(faithfulness.area(curve, mean)))
    return max(areas)
