"""Cleaning in time, against nilearn over a grid of options, and what differs from it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from nilearn.signal import clean as nilearn_clean

from boldly.config import ParcellateOptions
from boldly.signals.cleaning import Cleaned, CleaningError, clean

T, P, R = 120, 5, 4
# Both work in double precision: what is left is rounding, amplified by the filter.
TOLERANCE = 1e-9
# No two scrubbed frames are mirror images of each other in time (see test_no_spike_leaks...).
SCRUBBED = {
    "none": [],
    "inner": [20, 21, 60, 88],
    "ends": [0, 1, 2, 40, 116],
}
# nilearn's name for each scaling.
STANDARDIZE = {"zscore": "zscore_sample", "psc": "psc", "none": None}


def drifting_signals(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return signals with trends, around levels of 1000, and regressors that they contain."""
    rng = np.random.default_rng(seed)
    regressors = np.cumsum(rng.normal(size=(T, R)), axis=0) + np.array([0, 5, -200, 3000])
    signals = 1000 + 50 * rng.normal(size=P) + rng.normal(size=(T, P)) * 10
    signals += np.linspace(-30, 30, T)[:, None] + (regressors - regressors.mean(0)) @ rng.normal(size=(R, P))
    return signals, regressors


def kept_frames(name: str) -> np.ndarray:
    """Return which frames are kept."""
    kept = np.ones(T, dtype=bool)
    kept[SCRUBBED[name]] = False
    return kept


def options(**changes: Any) -> ParcellateOptions:
    return ParcellateOptions.model_validate(changes)


def scaled(signals: np.ndarray, opts: ParcellateOptions, **changes: Any) -> Cleaned:
    """Clean `signals` with frames, regressors and t_r that tests change."""
    given: dict[str, Any] = {"kept": kept_frames("none"), "regressors": np.empty((T, 0)), "t_r": 2.0}
    return clean(signals, **(given | changes), options=opts)


@pytest.mark.parametrize("detrend", [True, False])
@pytest.mark.parametrize("band", [(None, None), (0.008, None), (None, 0.1), (0.01, 0.1)])
@pytest.mark.parametrize("with_confounds", [True, False])
@pytest.mark.parametrize("scrubbed", list(SCRUBBED))
@pytest.mark.parametrize("standardize", list(STANDARDIZE))
@pytest.mark.parametrize("t_r", [0.72, 2.0, 3.0])
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
def test_equals_nilearn(
    detrend: bool,
    band: tuple[float | None, float | None],
    with_confounds: bool,
    scrubbed: str,
    standardize: str,
    t_r: float,
) -> None:
    signals, regressors = drifting_signals()
    if not with_confounds:
        regressors = np.empty((T, 0))
    kept = kept_frames(scrubbed)
    expected = nilearn_clean(
        signals,
        detrend=detrend,
        standardize=STANDARDIZE[standardize],
        sample_mask=np.flatnonzero(kept) if scrubbed != "none" else None,
        confounds=regressors if with_confounds else None,
        high_pass=band[0],
        low_pass=band[1],
        t_r=t_r,
    )
    opts = options(detrend=detrend, high_pass_hz=band[0], low_pass_hz=band[1], standardize=standardize)
    found = clean(signals, kept=kept, regressors=regressors, t_r=t_r, options=opts)
    assert found.data.shape == expected.shape == (kept.sum(), P)
    np.testing.assert_allclose(found.data / expected.std(), expected / expected.std(), rtol=0, atol=TOLERANCE)
    assert not found.constant.any()


def test_low_pass_above_the_nyquist_frequency_equals_nilearn() -> None:
    signals, _ = drifting_signals()
    with pytest.warns(UserWarning, match="superior to Nyquist"):
        expected = nilearn_clean(signals, standardize="zscore_sample", low_pass=0.3, high_pass=0.01, t_r=2.0)
    found = scaled(signals, options(low_pass_hz=0.3, high_pass_hz=0.01))
    np.testing.assert_allclose(found.data, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(
    "scrubbed", [[50, T - 1 - 50], [0, T - 1], [0, 1, 2, T - 1, T - 2], [30, 31, T - 31, T - 32]]
)
def test_no_spike_leaks_from_scrubbed_frames_where_it_does_in_nilearn(scrubbed: list[int]) -> None:
    # What scrubbed frames hold must not matter. In nilearn 0.13.1 it does when their mirror images are scrubbed.
    signals, regressors = drifting_signals()
    kept = np.ones(T, dtype=bool)
    kept[scrubbed] = False
    spiked, spiked_regressors = signals.copy(), regressors.copy()
    spiked[scrubbed] += 5000
    spiked_regressors[scrubbed] = np.nan
    quiet = scaled(signals, options(), kept=kept, regressors=regressors)
    loud = scaled(spiked, options(), kept=kept, regressors=spiked_regressors)
    np.testing.assert_array_equal(loud.data, quiet.data)


@pytest.mark.parametrize("opts", [{}, {"high_pass_hz": None}, {"high_pass_hz": None, "detrend": False}])
@pytest.mark.parametrize("standardize", list(STANDARDIZE))
def test_mean_and_std_bring_the_signal_back_around_its_baseline(opts: dict[str, Any], standardize: str) -> None:
    signals, _ = drifting_signals()
    plain = scaled(signals, options(**opts, standardize="none"))
    found = scaled(signals, options(**opts, standardize=standardize))
    restored = found.data * found.std + found.mean
    np.testing.assert_allclose(restored.mean(axis=0), signals.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(restored - restored.mean(0), plain.data - plain.data.mean(0), rtol=0, atol=1e-9)


@pytest.mark.parametrize("standardize", list(STANDARDIZE))
@pytest.mark.parametrize("level", [0.0, 1234.5])
def test_a_parcel_that_does_not_vary_is_zero_and_reported(standardize: str, level: float) -> None:
    signals, regressors = drifting_signals()
    signals[:, 2] = level
    found = scaled(signals, options(standardize=standardize), regressors=regressors)
    np.testing.assert_array_equal(found.constant, np.arange(P) == 2)
    assert not found.data[:, 2].any()
    assert np.isfinite(found.data).all()


def test_a_parcel_that_the_regressors_explain_fully_is_zero_and_reported() -> None:
    signals, regressors = drifting_signals()
    signals[:, 1] = 500 + 3 * regressors[:, 0]
    found = scaled(signals, options(), regressors=regressors)
    np.testing.assert_array_equal(found.constant, np.arange(P) == 1)


def test_a_constant_regressor_changes_nothing() -> None:
    # nilearn scales what rounding leaves of it to unit variance and regresses that out.
    signals, regressors = drifting_signals()
    with_constant = np.column_stack([regressors, np.full(T, 1234.567)])
    one = scaled(signals, options(), regressors=regressors)
    other = scaled(signals, options(), regressors=with_constant)
    np.testing.assert_array_equal(one.data, other.data)


def test_a_repeated_regressor_changes_nothing() -> None:
    signals, regressors = drifting_signals()
    one = scaled(signals, options(), regressors=regressors)
    other = scaled(signals, options(), regressors=np.column_stack([regressors, 2 * regressors[:, 0] + 7]))
    np.testing.assert_allclose(other.data, one.data, rtol=0, atol=TOLERANCE)


def test_inputs_are_left_as_they_are() -> None:
    signals, regressors = drifting_signals()
    before = signals.copy(), regressors.copy()
    scaled(signals, options(), kept=kept_frames("ends"), regressors=regressors)
    np.testing.assert_array_equal(signals, before[0])
    np.testing.assert_array_equal(regressors, before[1])


def test_signals_that_are_not_finite_are_refused() -> None:
    signals, _ = drifting_signals()
    signals[7, 1] = np.inf
    with pytest.raises(CleaningError, match="not finite"):
        scaled(signals, options())


@pytest.mark.parametrize(
    ("changes", "opts", "message"),
    [
        ({"kept": np.arange(T) < 1}, {}, "1 of 120 frames are kept"),
        ({"kept": np.arange(T) < 15}, {}, "too short for the filter"),
        ({"regressors": np.full((T, 1), np.nan)}, {}, "not finite"),
        ({"t_r": 70.0}, {}, "high_pass_hz 0.008 leaves nothing"),
        ({}, {"high_pass_hz": 0.1, "low_pass_hz": 0.05}, "high_pass_hz 0.1 leaves nothing"),
    ],
)
def test_what_cannot_be_cleaned_says_why(changes: dict[str, Any], opts: dict[str, Any], message: str) -> None:
    with pytest.raises(CleaningError, match=message) as caught:
        scaled(drifting_signals()[0], options(**opts), **changes)
    assert caught.value.remedy


def test_tsnr_is_that_of_the_kept_frames_before_cleaning() -> None:
    signals, regressors = drifting_signals()
    signals[:, 1] = 7.0
    kept = kept_frames("inner")
    found = clean(signals, kept=kept, regressors=regressors, t_r=2.0, options=ParcellateOptions()).tsnr
    others = np.delete(signals[kept], 1, axis=1)
    expected = others.mean(axis=0) / others.std(axis=0)
    np.testing.assert_allclose(np.delete(found, 1), expected)
    assert np.isnan(found[1])
