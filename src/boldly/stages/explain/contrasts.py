"""What a general linear model of the events says of each parcel and state, to compare maps with.

The model is fitted to parcel signals, as stage parcellate cleaned them, not to voxels: parcels are what decoders
see. nilearn makes the design (canonical response of Glover 1999, no drifts: the signals are detrended, filtered
and denoised already) and fits it with first-order autoregressive noise. For each run the effect of a state is that
against all time that no event names; effects are averaged over the runs of a person, and the contrast of a state
is its effect less the mean of those of the other states.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from boldly.records import read_trials
from boldly.samples.timeseries import RunSeries, read_timeseries

logger = logging.getLogger(__name__)

Array = NDArray[np.float64]


def state_contrasts(
    series: Mapping[str, Path], trials: Path, states: Sequence[str], runs: Collection[str] | None = None
) -> Array | None:
    """Return the contrast of each state, averaged over people.

    Parameters
    ----------
    series : mapping of str to Path
        Time series of each subject.
    trials : Path
        Table of events and trials of the dataset.
    states : sequence of str
        Names of the L states.
    runs : collection of str, optional
        Keys of the runs that count; default: all.

    Returns
    -------
    ndarray, shape (P, L), or None
        In SD of the parcels; nan for states without events. None without any run.
    """
    people = []
    for subject, path in series.items():
        events = pd.DataFrame([vars(event) for event in read_trials(trials, subject=subject)])
        effects = [
            _effects(run, _timed(events[events["key"] == run.key], states), states)
            for run in read_timeseries(path)[0]
            if runs is None or run.key in runs
        ]
        if effects:
            people.append(_mean(effects))
    if not people:
        logger.warning("no run to fit a general linear model to")
        return None
    effects_of = _mean([_against_others(person) for person in people])
    logger.info("general linear model: %d people, %d states", len(people), len(states))
    return effects_of


def _timed(events: pd.DataFrame, states: Sequence[str]) -> pd.DataFrame:
    """Return onsets, durations and what stands in the design: states, and all else under its own name."""
    is_state = events["label"].isin(list(states)) & events["trial"].notna()
    name = events["label"].where(is_state, "other " + events["event"].astype("string").fillna(""))
    # An event without a duration is an impulse.
    return pd.DataFrame(
        {"trial_type": name, "onset": events["onset"], "duration": events["duration"].fillna(0.0)}
    ).reset_index(drop=True)


def _effects(run: RunSeries, events: pd.DataFrame, states: Sequence[str]) -> Array:
    """Fit a run; return the effect of each state, (P, L), nan for states that it lacks."""
    from nilearn.glm.contrasts import compute_contrast
    from nilearn.glm.first_level import make_first_level_design_matrix, run_glm

    t_r, start = float(run.meta["t_r"]), float(run.meta.get("start_time", 0.0))
    effects = np.full((run.data.shape[1], len(states)), np.nan)
    there = [state for state in states if (events["trial_type"] == state).any()]
    if not there:
        return effects
    times = start + np.arange(int(run.frames.max()) + 1) * t_r
    design = make_first_level_design_matrix(times, events, hrf_model="glover", drift_model=None)
    has_gaps = len(run.frames) < len(times)
    # Across gaps frames are no neighbours: the noise of those that are left is taken as independent.
    labels, results = run_glm(
        run.data.astype(np.float64), design.to_numpy()[run.frames], noise_model="ols" if has_gaps else "ar1"
    )
    for state in there:
        contrast = (design.columns == state).astype(float)
        effects[:, list(states).index(state)] = compute_contrast(labels, results, contrast).effect_size()
    return effects


def _mean(parts: Sequence[Array]) -> Array:
    """Average over those that have a state."""
    stacked = np.stack(parts)
    there = ~np.isnan(stacked)
    counts = there.sum(axis=0)
    total = np.where(there, stacked, 0).sum(axis=0)
    return np.where(counts > 0, total / np.maximum(counts, 1), np.nan)


def _against_others(effects: Array) -> Array:
    """Return the effect of each state less the mean of those of the others; as it is, of a single state."""
    there = ~np.isnan(effects[0])
    if there.sum() < 2:
        return effects
    total = np.nansum(effects, axis=1, keepdims=True)
    return effects - (total - effects) / (there.sum() - 1)
