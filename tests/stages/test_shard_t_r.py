"""Stage shard: runs at a common repetition time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from boldly.config import ShardOptions
from boldly.provenance import check_same
from boldly.records import InputError
from boldly.samples.sample import Sample
from boldly.samples.timeseries import RunSeries
from boldly.signals.confounds import write_nuisance
from tests.samples.examples import N_PARCELS, contract, run_series
from tests.stages.test_shard import KEYS, T_R, events, moving, run_stage

__all__ = ["events"]

N_VOLUMES = 40


def smooth_series(frames: np.ndarray | int = N_VOLUMES) -> RunSeries:
    """Return z-scored sines that are slow enough for 4 s; parcel 3 is marked."""
    numbers = np.arange(frames) if isinstance(frames, int) else frames
    data = np.sin(2 * np.pi * 0.02 * (1 + np.arange(N_PARCELS) / 4) * numbers[:, None] * T_R)
    data = ((data - data.mean(axis=0)) / data.std(axis=0, ddof=1)).astype(np.float32)
    data[:, 3] = 0
    return run_series(KEYS[0], numbers, data=data, meta={"t_r": T_R, "marked": [3]})


def at(
    folder: Path, t_r: float | None, series: RunSeries | None = None, *more: Any, **changes: Any
) -> list[Sample]:
    options = ShardOptions(dtype="float32", t_r_s=t_r)
    return run_stage(folder, [series or smooth_series()], *more, options=options, **changes)


@pytest.mark.parametrize(("t_r", "expected"), [(4.0, 20), (3.0, 27), (0.75, 105)])
def test_a_run_has_the_new_repetition_time_and_as_many_frames_as_fit(
    tmp_path: Path, t_r: float, expected: int
) -> None:
    (sample,) = at(tmp_path, t_r)
    # floor((T - 1) * t_r / new) + 1 frames of 78 s.
    assert sample.bold.shape == (expected, N_PARCELS)
    assert sample.bold.dtype == np.float32
    assert (sample.meta["t_r"], sample.meta["n_volumes"], sample.meta["missing"]) == (t_r, expected, 0)
    assert sample.contract == contract(t_r_s=t_r)


def test_signals_are_scaled_again_and_scaling_stays_reversible(tmp_path: Path) -> None:
    series = smooth_series()
    (sample,) = at(tmp_path, 4.0, series)
    others = [0, 1, 2, 4, 5]
    assert np.allclose(sample.bold[:, others].mean(axis=0), 0, atol=1e-6)
    assert np.allclose(sample.bold[:, others].std(axis=0, ddof=1), 1, atol=1e-6)
    assert not sample.bold[:, 3].any()
    restored = sample.bold * sample.std + sample.mean
    # Every second frame, but for the ends, where runs are continued by reflection.
    expected = (series.data * series.std + series.mean)[::2]
    assert np.abs(restored - expected)[8:-8].max() < 0.02


def test_data_that_are_not_z_scored_are_not_scaled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.stages.test_shard.contract", lambda: contract(standardize="psc"))
    series = smooth_series()
    (sample,) = at(tmp_path, 4.0, series)
    assert np.array_equal(sample.mean, series.mean)
    assert np.abs(sample.bold - series.data[::2])[8:-8].max() < 0.01


def test_the_same_repetition_time_keeps_the_bytes_of_the_signals(tmp_path: Path) -> None:
    (plain,), (same,) = at(tmp_path, None, name="a.tar"), at(tmp_path, T_R, name="b.tar")
    assert plain.bold.tobytes() == same.bold.tobytes()
    assert plain.mean.tobytes() == same.mean.tobytes()
    assert plain.meta == same.meta


def test_frames_beside_scrubbed_ones_are_left_out(tmp_path: Path) -> None:
    (sample,) = at(tmp_path, 4.0, smooth_series(np.delete(np.arange(N_VOLUMES), [10, 11, 12])))
    # Frames 5 and 6 of 4 s are frames 10 and 12 of 2 s.
    assert (sample.meta["n_volumes"], sample.meta["missing"]) == (18, 2)


def test_trials_keep_their_times(tmp_path: Path, events: Path) -> None:
    nuisance = tmp_path / "nuisance.tsv"
    write_nuisance(nuisance, {KEYS[0]: moving(np.arange(N_VOLUMES) / 100)})
    plain = at(tmp_path, None, None, events, nuisance=nuisance, name="a.tar")
    slow = at(tmp_path, 4.0, None, events, nuisance=nuisance, name="b.tar")
    assert [s.meta["onset"] for s in slow] == [s.meta["onset"] for s in plain] == [4.0, 16.0, 28.0]
    # 4 s <= t < 14 s: frames 2 to 6 of 2 s, 1 to 3 of 4 s.
    assert (plain[0].meta["first"], plain[0].meta["stop"]) == (2, 7)
    assert (slow[0].meta["first"], slow[0].meta["stop"]) == (1, 4)
    assert slow[0].bold.shape == (3, N_PARCELS)
    # The displacement of recorded frames 2, 4 and 6.
    assert slow[0].meta["mean_fd_mm"] == pytest.approx(0.04)


def test_another_repetition_time_is_another_contract() -> None:
    with pytest.raises(InputError, match=r"t_r_s: None != 2\.0"):
        check_same(contract(), contract(t_r_s=2.0), "file", "entity")
    check_same(contract(), contract(t_r_s=2.0), "file", "entity", ("t_r_s",))
    assert contract().sha256 != contract(t_r_s=2.0).sha256
