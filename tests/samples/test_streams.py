"""Streamed windows: a pure function of (seed, i), from wherever the shards come."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path

import pytest
import torch

from boldly.records import InputError
from boldly.samples.corpus import load_corpus
from boldly.samples.shards import write_shard
from boldly.samples.streams import StreamedWindows
from boldly.samples.windows import Batch, WindowOptions, Windows
from tests.samples.examples import contract, run_sample
from tests.web import serving

BATCH, GROUP = 4, 8
COUNT = 12 * GROUP
OPTIONS = WindowOptions(5, 9, BATCH, pairs=True, masking="frames", largest_gap=2)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("shards")
    for subject in range(7):
        name = f"{subject:02d}"
        samples = [run_sample(name, run, 40, seed=subject) for run in (1, 2)]
        write_shard(folder / f"ds-toy_sub-{name}.tar", samples)
    return sorted(folder.iterdir())


def windows(shards: list, n: int = 3, seed: int = 1, **changes) -> StreamedWindows:
    arguments = {"group_shards": n, "group_windows": GROUP} | changes
    return StreamedWindows(shards, OPTIONS, seed, COUNT, **arguments)


def batches(dataset, start: int = 0, stop: int = COUNT, size: int = BATCH) -> list[Batch]:
    return [dataset.__getitems__(range(at, at + size)) for at in range(start, stop, size)]


def equal(one: list[Batch], other: list[Batch]) -> bool:
    return all(
        a.keys() == b.keys() and all(torch.equal(torch.as_tensor(a[k]), torch.as_tensor(b[k])) for k in a)
        for a, b in zip(one, other, strict=True)
    )


def test_windows_do_not_depend_on_where_reading_starts(shards: list[Path]) -> None:
    whole = batches(windows(shards))
    for start in (BATCH, 5 * GROUP, COUNT - BATCH):
        assert equal(batches(windows(shards), start), whole[start // BATCH :])
    assert not equal(batches(windows(shards, seed=2)), whole)


def test_two_processes_cut_the_batches_of_one(shards: list[Path]) -> None:
    whole = batches(windows(shards))
    ranks = [windows(shards), windows(shards)]
    for step, batch in enumerate(whole):
        parts = [ranks[r].__getitems__(range(step * BATCH + 2 * r, step * BATCH + 2 * r + 2)) for r in (0, 1)]
        length = [part["inputs"].shape[1] for part in parts]
        if length == [batch["inputs"].shape[1]] * 2:
            assert torch.equal(torch.cat([part["inputs"] for part in parts]), batch["inputs"])
        assert torch.equal(torch.cat([part["follows"] for part in parts]), batch["follows"])


def test_an_address_gives_the_same_windows_as_the_folder(shards: list[Path]) -> None:
    with serving(shards[0].parent) as server:
        urls: list[Path | str] = [f"{server.url}/{path.name}" for path in shards]
        assert equal(batches(windows(urls)), batches(windows(shards)))


def test_all_shards_at_once_are_the_windows_of_a_corpus_in_memory(shards: list[Path]) -> None:
    in_memory = Windows(load_corpus(shards), OPTIONS, 1, COUNT)
    assert equal(batches(windows(shards, len(shards))), batches(in_memory))
    assert equal(batches(windows(shards, 1000)), batches(in_memory))


def test_a_group_is_cut_from_its_own_shards_and_a_pass_uses_each_shard_once(shards: list[Path]) -> None:
    streamed = windows(shards)
    used: list[int] = []
    for number in range(7):
        group = streamed.group(number)
        used += group
        keys = streamed.keys(range(number * GROUP, (number + 1) * GROUP))
        assert {key[:13] for key in keys} <= {f"ds-toy_sub-{shard:02d}" for shard in group}
    # Seven groups of three are three passes over seven shards; where two meet, a shard may come twice at once.
    assert set(used) == set(range(7))
    assert max(map(used.count, range(7))) <= 3
    assert len({streamed.group(number) for number in range(7)}) > 3


def test_only_the_group_at_hand_and_the_next_are_read(shards: list[Path]) -> None:
    read: list[list[int]] = []

    def load(paths):
        read.append([shards.index(path) for path in paths])
        return load_corpus(paths)

    streamed = windows(shards, load=load)
    batches(streamed, 5 * GROUP, 7 * GROUP)
    streamed.close()
    streamed._reader.shutdown(wait=True)
    assert read[:2] == [list(streamed.group(5)), list(streamed.group(6))]
    assert len(read) <= 3
    assert len(streamed._groups) == 2


def test_the_next_group_is_read_while_the_first_is_cut(shards: list[Path]) -> None:
    first = True
    started = threading.Event()

    def load(paths):
        nonlocal first
        if not first:
            started.set()
        first = False
        return load_corpus(paths)

    streamed = windows(shards, load=load)
    streamed.__getitems__(range(BATCH))
    assert started.wait(10)


def test_windows_of_several_groups_are_not_one_batch(shards: list[Path]) -> None:
    with pytest.raises(ValueError, match="windows 6 to 9 are not of one group"):
        windows(shards).__getitems__(range(6, 10))


def test_groups_of_another_contract_are_refused(shards: list[Path], tmp_path: Path) -> None:
    other = dataclasses.replace(run_sample("99", n_volumes=40), contract=contract(space="elsewhere"))
    write_shard(tmp_path / "ds-toy_sub-99.tar", [other])
    with pytest.raises(InputError, match="elsewhere"):
        batches(windows([*shards[:2], tmp_path / "ds-toy_sub-99.tar"], 1))


def test_a_shard_that_is_gone_is_named_when_its_turn_comes(shards: list[Path], tmp_path: Path) -> None:
    gone = tmp_path / "ds-toy_sub-98.tar"
    with pytest.raises(InputError, match=str(gone)):
        batches(windows([*shards[:2], gone], 1))
