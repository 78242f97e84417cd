"""The time series file of a subject."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from boldly.records import InputError
from boldly.samples.timeseries import read_timeseries, write_timeseries
from tests.samples.examples import contract, run_series

SERIES = [run_series("ds-toy_sub-01_task-a"), run_series("ds-toy_sub-01_task-b", np.array([0, 3, 4]))]


def test_runs_come_back_as_they_were(tmp_path: Path) -> None:
    write_timeseries(tmp_path / "a.safetensors", SERIES, contract())
    found, found_contract = read_timeseries(tmp_path / "a.safetensors")
    assert found_contract == contract()
    for one, other in zip(found, SERIES, strict=True):
        assert (one.key, one.meta) == (other.key, other.meta)
        for part in ("data", "frames", "mean", "std", "coverage"):
            assert np.array_equal(getattr(one, part), getattr(other, part))
            assert getattr(one, part).dtype == getattr(other, part).dtype


def test_the_same_runs_give_the_same_bytes(tmp_path: Path) -> None:
    # Often enough to see an order that is drawn at random.
    for number in range(8):
        write_timeseries(tmp_path / f"{number}.safetensors", SERIES, contract())
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


def test_a_subject_may_have_no_usable_run(tmp_path: Path) -> None:
    write_timeseries(tmp_path / "a.safetensors", [], contract())
    assert read_timeseries(tmp_path / "a.safetensors") == ([], contract())


@pytest.mark.parametrize("length", [0, 4, 100, -1])
def test_a_cut_file_is_an_error_that_names_it(tmp_path: Path, length: int) -> None:
    path = tmp_path / "a.safetensors"
    write_timeseries(path, SERIES, contract())
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(InputError, match=r"a\.safetensors"):
        read_timeseries(path)


def test_an_absent_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.safetensors"):
        read_timeseries(tmp_path / "absent.safetensors")


def test_weights_are_not_time_series(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"weight": np.zeros(3, np.float32)}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="not a readable time series file"):
        read_timeseries(tmp_path / "model.safetensors")
