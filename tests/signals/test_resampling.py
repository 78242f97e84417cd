"""Another repetition time: what both can represent stays, the rest goes."""

from __future__ import annotations

import numpy as np
import pytest

from boldly.signals.resampling import fill_gaps, positions, resample


def middle(data: np.ndarray, t_r: float, new: float) -> np.ndarray:
    """Leave out 20 frames of the slower at the ends: runs go on as reflections, where a sine is not itself."""
    ends = round(20 * max(t_r, new) / new)
    return data[ends:-ends]


def sine(frequency: float, t_r: float, n_frames: int = 600) -> np.ndarray:
    """Return a sine with a phase, shape (T, 1)."""
    return np.sin(2 * np.pi * frequency * np.arange(n_frames) * t_r + 0.7)[:, None]


@pytest.mark.parametrize(
    ("t_r", "new"), [(0.72, 2.0), (0.8, 2.0), (2.0, 0.72), (2.0, 3.0), (1.0, 0.5), (2.5, 2.49)]
)
def test_a_sine_that_both_can_represent_keeps_its_phase_and_amplitude(t_r: float, new: float) -> None:
    for share in (0.05, 0.4, 0.78):
        frequency = share / (2 * max(t_r, new))
        found = resample(sine(frequency, t_r), t_r, new)
        expected = sine(frequency, new, len(found))
        # The window's ripple is 60 dB down, a thousandth; twice that for sums of ripples.
        assert np.abs(middle(found - expected, t_r, new)).max() < 2e-3


@pytest.mark.parametrize(("t_r", "new"), [(0.72, 2.0), (0.5, 1.0), (2.0, 3.0)])
def test_a_sine_above_the_new_nyquist_frequency_is_removed(t_r: float, new: float) -> None:
    for share in (1.02, 1.2):
        assert np.abs(middle(resample(sine(share / (2 * new), t_r), t_r, new), t_r, new)).max() < 2e-3


def test_a_constant_and_zeros_stay_what_they_are_up_to_the_ends() -> None:
    data = np.tile([3.0, 0.0], (100, 1))
    found = resample(data, 0.72, 2.0)
    assert np.allclose(found[:, 0], 3, atol=1e-12)
    assert not found[:, 1].any()


def test_slow_signals_are_right_at_the_ends_too() -> None:
    found = resample(sine(0.01, 0.72), 0.72, 2.0)
    assert np.abs(found - sine(0.01, 2.0, len(found))).max() < 0.02


@pytest.mark.parametrize(
    ("n_frames", "t_r", "new", "expected"),
    # The last new frame lies on the last old one (first two) or before it.
    [(5, 1.0, 2.0, 3), (251, 0.72, 0.9, 201), (1200, 0.72, 2.0, 432), (10, 2.0, 0.5, 37), (1, 2.0, 0.5, 1)],
)
def test_as_many_frames_as_fit_into_the_run(n_frames: int, t_r: float, new: float, expected: int) -> None:
    assert resample(np.zeros((n_frames, 2), np.float32), t_r, new).shape == (expected, 2)
    assert positions(n_frames, t_r, new)[-1] <= n_frames - 1


def test_the_same_repetition_time_gives_the_same_bytes() -> None:
    data = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    assert resample(data, 0.72, 0.720001).tobytes() == data.tobytes()
    assert resample(data, 0.72, 2.0).dtype == np.float32


def test_gaps_are_filled_on_straight_lines() -> None:
    frames = np.array([1, 2, 5])
    filled = fill_gaps(np.array([[1.0], [2.0], [8.0]]), frames, 7)
    assert filled[:, 0] == pytest.approx([1, 1, 2, 4, 6, 8, 8])
