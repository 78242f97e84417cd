"""How well each parcel is predicted: the table behind figure upstream_errors."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from boldly.models.objective import Objective
from boldly.models.parcel_errors import listening
from boldly.samples.windows import Windows, to_device

COLUMNS = ["parcel", "l1", "l1_zero", "values"]
_BATCH = 32


def parcel_errors(objective: Objective, windows: Windows) -> pd.DataFrame:
    """Return the mean absolute error of each parcel over validation windows, in the units of the signals.

    Parameters
    ----------
    objective : Objective
        With the weights that are kept. What its `l1` is made of is what it computes first in a pass.
    windows : Windows
        Fixed windows of held-out subjects. Values of parcels count alike, whatever their window.

    Returns
    -------
    DataFrame
        A row per parcel: its number from 1, `l1`, `l1_zero` (of predicting zero at the same places), and the
        number of values. Empty where nothing is told of parcels.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    objective = objective.to(device).eval()
    sums: dict[str, np.ndarray] = {}
    # Windows are copied into room that earlier validations may have made in this mode.
    with torch.inference_mode():
        for start in range(0, len(windows), _BATCH):
            numbers = range(start, min(start + _BATCH, len(windows)))
            batch = to_device(windows.__getitems__(numbers), device)
            for name, compute in (("l1", objective), ("l1_zero", objective.naive)):
                with listening() as heard:
                    compute(**batch)
                if not heard:
                    return pd.DataFrame(columns=COLUMNS)
                found = np.stack([part.double().cpu().numpy() for part in heard[0]])
                sums[name] = sums.get(name, np.zeros_like(found)) + found
    means = {name: total / np.maximum(count, 1) for name, (total, count) in sums.items()}
    counts = sums["l1"][1].astype(int)
    return pd.DataFrame({"parcel": np.arange(1, len(counts) + 1), **means, "values": counts})[COLUMNS]
