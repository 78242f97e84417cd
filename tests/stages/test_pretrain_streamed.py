"""Pretraining on shards that are read when their turn comes."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from boldly.bids import runs_name
from boldly.config import REVISIONS, PretrainOptions
from boldly.files import read_json
from boldly.provenance import file_sha256
from boldly.records import InputError
from boldly.samples import remote
from boldly.samples.shards import read_shard, write_shard
from boldly.samples.streams import StreamedWindows
from boldly.stages import pretrain
from boldly.training.loop import Interrupted
from tests.training import launcher, synthetic
from tests.web import Server, serving


def options(**changes: Any) -> PretrainOptions:
    values: dict[str, Any] = {"framework": "csm", "layers": 1, "width": 16, "heads": 2, "steps": 24}
    values |= {"batch_size": 8, "evaluate_every": 4, "checkpoint_every": 4, "validation_windows": 16}
    values |= {"window_frames": (6, 12), "learning_rate": 1e-3, "stream_shards": 2, "stream_steps": 3, "track": []}
    return PretrainOptions.model_validate(values | changes)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> list:
    found = synthetic.upstream_study(tmp_path_factory.mktemp("upstream"), n_subjects=5)
    for split, folder in found:
        (folder / runs_name(split.stem)).write_text(f"stands for the table of {split.stem}\n")
    return found


@pytest.fixture
def server(data: list) -> Iterator[Server]:
    with serving(data[0][1].parent) as server:
        yield server


def at(server: Server, data: list) -> list:
    return [(split, f"{server.url}/{folder.name}") for split, folder in data]


def test_a_training_from_an_address_is_that_from_the_folder(data: list, server: Server, tmp_path: Path) -> None:
    for name, source in (("folder", data), ("address", at(server, data))):
        pretrain.run(name="toy", options=options(), data=source, output=tmp_path / name)
    for name in ("model.safetensors", "config.json", "contract.json", "train_history.csv", "eval_history.csv"):
        assert (tmp_path / "folder" / name).read_bytes() == (tmp_path / "address" / name).read_bytes()
    folder, address = (read_json(tmp_path / name / "manifest.json") for name in ("folder", "address"))
    assert folder["revision"] == REVISIONS["pretrain"]
    shard = data[0][1] / "ds-one_sub-00.tar"
    assert folder["training"][shard.name] == file_sha256(shard)
    # The checksum of a shard cannot be known before it is read.
    assert address["training"][shard.name] == f"streamed, {shard.stat().st_size} bytes"
    assert address["training"].keys() == folder["training"].keys()
    table = data[0][1] / "one_runs.tsv"
    assert address["run_tables"][f"{server.url}/one/one_runs.tsv"] == file_sha256(table)


def test_an_interrupted_training_goes_on_with_the_group_at_hand(
    data: list, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = at(server, data)
    pretrain.run(name="toy", options=options(), data=source, output=tmp_path / "whole")
    stop_at, read = 13, []
    cut, load = StreamedWindows.__getitems__, StreamedWindows._read

    def interrupt(self, indices):
        if indices[0] == stop_at * 8:
            os.kill(os.getpid(), signal.SIGTERM)
        return cut(self, indices)

    def remember(self, group):
        read.append(group)
        return load(self, group)

    monkeypatch.setattr(StreamedWindows, "__getitems__", interrupt)
    with pytest.raises(Interrupted):
        pretrain.run(name="toy", options=options(), data=source, output=tmp_path / "again")
    monkeypatch.setattr(StreamedWindows, "__getitems__", cut)
    monkeypatch.setattr(StreamedWindows, "_read", remember)
    pretrain.run(name="toy", options=options(), data=source, output=tmp_path / "again")
    # 24 steps, 3 for each of 8 groups; the checkpoint is that of step 12 or 13, in the fifth group.
    assert len(read) == 4
    for name in ("model.safetensors", "train_history.csv", "eval_history.csv"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_the_contract_is_that_of_all_shards_wherever_a_training_was_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = synthetic.upstream_study(tmp_path / "upstream", n_subjects=5)
    for kernel, path in enumerate(sorted((tmp_path / "upstream").glob("*/*.tar"))):
        samples = list(read_shard(path))
        contract = replace(samples[0].contract, smoothing_fwhm_mm=float(kernel % 5))
        write_shard(path, [replace(sample, contract=contract) for sample in samples])
    wanted = options(allow_mismatch=["smoothing_fwhm_mm"])
    pretrain.run(name="toy", options=wanted, data=data, output=tmp_path / "whole")
    whole = read_json(tmp_path / "whole/contract.json")
    assert sorted(whole["varied"]["smoothing_fwhm_mm"]) == [0.0, 1.0, 2.0, 3.0]
    cut = StreamedWindows.__getitems__
    for step in (4, 13, 22):

        def interrupt(self, indices, step=step):
            if indices[0] == step * 8:
                os.kill(os.getpid(), signal.SIGTERM)
            return cut(self, indices)

        monkeypatch.setattr(StreamedWindows, "__getitems__", interrupt)
        with pytest.raises(Interrupted):
            pretrain.run(name="toy", options=wanted, data=data, output=tmp_path / "again")
        monkeypatch.setattr(StreamedWindows, "__getitems__", cut)
        pretrain.run(name="toy", options=wanted, data=data, output=tmp_path / "again")
        assert (tmp_path / "again/contract.json").read_bytes() == (tmp_path / "whole/contract.json").read_bytes()


def test_shards_that_never_have_their_turn_are_told(
    data: list, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        pretrain.run(name="toy", options=options(steps=4), data=data, output=tmp_path)
    # Two groups of two shards.
    assert "4 of 8 shards at most have their turn in 4 steps" in caplog.text


def test_a_shard_that_is_absent_is_named_before_the_training(data: list, server: Server, tmp_path: Path) -> None:
    source = [(split, url + "x") for split, url in at(server, data)]
    with pytest.raises(InputError) as error:
        pretrain.run(name="toy", options=options(), data=source, output=tmp_path)
    # Eight training subjects, all at once.
    assert len(error.value.problems) == 8
    assert f"{server.url}/onex/ds-one_sub-00.tar" in str(error.value)
    assert not (tmp_path / "checkpoints").exists()


def test_a_server_that_fails_half_way_is_named_and_the_training_can_go_on(
    data: list, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "_WAITS_S", (0.0,))
    source = at(server, data)
    pretrain.run(name="toy", options=options(), data=source, output=tmp_path / "whole")
    cut = StreamedWindows.__getitems__

    def fail(self, indices):
        if indices[0] == 10 * 8:
            server.busy = dict.fromkeys(server.asked, 10_000)
        return cut(self, indices)

    monkeypatch.setattr(StreamedWindows, "__getitems__", fail)
    with pytest.raises(InputError, match=f"(?s)the server answers 503.*{server.url}/"):
        pretrain.run(name="toy", options=options(), data=source, output=tmp_path / "again")
    server.busy = {}
    monkeypatch.setattr(StreamedWindows, "__getitems__", cut)
    pretrain.run(name="toy", options=options(), data=source, output=tmp_path / "again")
    one, other = (pd.read_csv(tmp_path / name / "train_history.csv") for name in ("whole", "again"))
    pd.testing.assert_frame_equal(one, other)


@pytest.mark.slow
def test_two_processes_agree_with_one(data: list, server: Server, tmp_path: Path) -> None:
    source = at(server, data)
    for processes in (1, 2):
        arguments = launcher.pretrain(source, tmp_path / str(processes), options(dropout=0.0))
        launcher.torchrun("-m", "boldly", *arguments, processes=processes)
    one, two = (pd.read_csv(tmp_path / name / "train_history.csv") for name in ("1", "2"))
    pd.testing.assert_frame_equal(one, two, rtol=1e-4)
