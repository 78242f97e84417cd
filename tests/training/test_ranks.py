"""Processes that train together: real ones, over the loopback device."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from boldly.files import read_json
from boldly.training import distributed
from boldly.training.checkpoints import CheckpointFolder
from tests.training.ranks import OPTIONS


def launch(folder: Path, *stop: int) -> None:
    distributed.launch("tests.training.ranks", [str(folder), *map(str, stop)], 2)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    launch(folder)
    return folder


def test_each_process_drops_out_other_units(whole: Path) -> None:
    one, other = (read_json(whole / f"drawn-{rank}.json") for rank in range(2))
    assert len(one) == len(other) == OPTIONS.steps
    assert not set(one) & set(other)


@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_a_signal_to_one_process_stops_all_and_keeps_the_checkpoints(
    whole: Path, tmp_path: Path, rank: int
) -> None:
    with pytest.raises(SystemExit):
        launch(tmp_path, rank, 17)
    # Neither process takes the training for finished.
    assert not list(tmp_path.glob("drawn-*"))
    # The stop is agreed on every ten steps.
    assert CheckpointFolder(tmp_path / "checkpoints").steps()[-1] == 20
    launch(tmp_path)
    before, after = (load_file(folder / "weights.safetensors") for folder in (whole, tmp_path))
    assert all(torch.equal(before[name], after[name]) for name in before)
