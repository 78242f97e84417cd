"""The runs of many shards in one file that processes map."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from boldly.files import read_json
from boldly.provenance import file_sha256
from boldly.records import InputError
from boldly.samples import packed
from boldly.samples.corpus import Corpus, load_corpus
from boldly.samples.lfb_shards import write_lfb_shards
from boldly.samples.packed import FRAMES, TABLE, is_current, open_packed, pack
from boldly.samples.sample import Sample
from boldly.samples.shards import write_shard
from boldly.samples.windows import WindowOptions, Windows
from tests.samples.examples import contract, run_sample
from tests.samples.test_corpus import write_fortran_shards

PAIRS = WindowOptions(shortest=4, longest=9, batch_size=2, pairs=True, masking="frames")


def study(folder: Path, dtype: str = "float16") -> list[Path]:
    """Write three subjects: two runs and marked parcels, another repetition time, a gap of scrubbed frames."""
    samples = [
        [run_sample("01", 1, 40, dtype=dtype), run_sample("01", 2, 29, marked=[1, 4], dtype=dtype)],
        [run_sample("02", 1, 33, t_r=0.72, dtype=dtype)],
        [run_sample("03", 1, 25, dtype=dtype, frames=[[3, 15], [17, 30]])],
    ]
    paths = [folder / f"ds-toy_sub-{number:02d}.tar" for number in (1, 2, 3)]
    for path, own in zip(paths, samples, strict=True):
        write_shard(path, own)
    return paths


def assert_same(one: Corpus, other: Corpus) -> None:
    assert [one.signals(r).tobytes() for r in range(len(one))] == [
        other.signals(r).tobytes() for r in range(len(other))
    ]
    parts = [np.stack([c.stretches.end - c.stretches.first, c.stretches.sample]).tolist() for c in (one, other)]
    assert parts[0] == parts[1]
    for field in dataclasses.fields(Corpus):
        # Where frames lie, and those of samples that were not chosen, need not be the same.
        if field.name in ("frames", "starts", "numbers"):
            continue
        mine, its = getattr(one, field.name), getattr(other, field.name)
        if field.name == "covariates":
            assert mine.keys() == its.keys()
            for name in mine:
                np.testing.assert_array_equal(mine[name], its[name])
        elif isinstance(mine, np.ndarray):
            assert mine.dtype == its.dtype
            np.testing.assert_array_equal(mine, its)
        else:
            assert mine == its


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_packed_corpus_is_that_in_memory(tmp_path: Path, dtype: str, threads: int) -> None:
    paths = study(tmp_path, dtype)
    pack(paths, tmp_path / "corpus", threads=threads)
    found, expected = open_packed(tmp_path / "corpus").corpus(paths), load_corpus(paths)
    assert_same(found, expected)
    assert found.frames.dtype == expected.frames.dtype == np.dtype(dtype)


def test_frames_are_mapped_and_cannot_be_written_to(tmp_path: Path) -> None:
    pack(study(tmp_path), tmp_path / "corpus")
    frames = open_packed(tmp_path / "corpus").corpus(study(tmp_path)).frames
    with pytest.raises(ValueError, match="read-only"):
        frames[0] = 0
    # What other programs need to read it: an array of numpy's in C order.
    np.testing.assert_array_equal(np.load(tmp_path / "corpus" / FRAMES, mmap_mode="r"), frames)


@pytest.mark.parametrize("options", [PAIRS, WindowOptions(3, 12, 1), WindowOptions(5, 5, 4)])
def test_windows_of_some_shards_are_those_of_these_shards_in_memory(
    tmp_path: Path, options: WindowOptions, recwarn: pytest.WarningsRecorder
) -> None:
    paths = study(tmp_path)
    pack(paths, tmp_path / "corpus")
    for chosen in (paths, paths[::2], paths[::-1], paths[1:2]):
        mapped = Windows(open_packed(tmp_path / "corpus").corpus(chosen), options, 1, 16)
        in_memory = Windows(load_corpus(chosen), options, 1, 16)
        for first in range(0, 16, 4):
            one, other = (w.__getitems__(range(first, first + 4)) for w in (mapped, in_memory))
            assert one.keys() == other.keys()
            for name, value in one.items():
                assert (value == other[name]) if isinstance(value, int) else value.equal(other[name]), name
    # torch warns of memory that it must not write to.
    assert not recwarn.list


@pytest.mark.parametrize("chosen", [[0, 1, 2], [2], [2, 0], [1, 0]])
def test_a_gap_is_where_it_was_whatever_is_chosen(tmp_path: Path, chosen: list[int]) -> None:
    samples = [
        run_sample("01", 1, 12, frames=[[0, 5], [6, 13]]),
        run_sample("02", 1, 9),
        run_sample("03", 1, 10, frames=[[4, 5], [7, 12], [20, 24]]),
    ]
    parts = [[5, 7], [9], [1, 5, 4]]
    paths = [tmp_path / f"{number}.tar" for number in range(3)]
    for path, sample in zip(paths, samples, strict=True):
        write_shard(path, [sample])
    pack(paths, tmp_path / "corpus")
    own = [paths[number] for number in chosen]
    packed_ones = open_packed(tmp_path / "corpus").corpus(own)
    for corpus in (packed_ones, load_corpus(paths).select(chosen), load_corpus(own)):
        first, end, sample = (part.tolist() for part in corpus.stretches)
        assert sample == [place for place, number in enumerate(chosen) for _ in parts[number]]
        assert [b - a for a, b in zip(first, end, strict=True)] == [n for number in chosen for n in parts[number]]
        for place, number in enumerate(chosen):
            pieces = [corpus.frames[a:b] for a, b, of in zip(first, end, sample, strict=True) if of == place]
            np.testing.assert_array_equal(np.concatenate(pieces), samples[number].bold)


def test_mixed_precision_is_kept_whatever_comes_first(tmp_path: Path) -> None:
    shards = [("1", "float16"), ("2", "float32"), ("3", "float16")]
    for order in (shards, shards[::-1], [shards[1], shards[0]]):
        paths = [tmp_path / f"{name}.tar" for name, _ in order]
        for path, (name, dtype) in zip(paths, order, strict=True):
            write_shard(path, [run_sample(name, 1, 20, dtype=dtype)])
        pack(paths, tmp_path / "corpus")
        assert_same(open_packed(tmp_path / "corpus").corpus(paths), load_corpus(paths))


def test_arrays_in_fortran_order_are_packed_row_by_row(tmp_path: Path) -> None:
    samples = [run_sample("01", run, 40, dtype="float32") for run in (1, 2)]
    fortran = [dataclasses.replace(sample, bold=np.asfortranarray(sample.bold)) for sample in samples]
    paths = write_fortran_shards(tmp_path, fortran)
    pack(paths, tmp_path / "corpus")
    corpus = open_packed(tmp_path / "corpus").corpus(paths)
    for number, sample in enumerate(samples):
        np.testing.assert_array_equal(corpus.signals(number), sample.bold)


def test_runs_of_ready_made_shards_come_back(tmp_path: Path) -> None:
    paths = write_lfb_shards(tmp_path, [run_sample("01", run, 20, dtype="float32") for run in (1, 2)])
    pack(paths, tmp_path / "corpus")
    assert_same(open_packed(tmp_path / "corpus").corpus(paths), load_corpus(paths))
    assert open_packed(tmp_path / "corpus").fingerprints(paths[0]) == [None]


def test_checksums_and_fingerprints_are_those_of_the_shards(tmp_path: Path) -> None:
    paths = study(tmp_path)
    pack(paths, tmp_path / "corpus")
    found = open_packed(tmp_path / "corpus")
    assert found.identities(paths[1:]) == {path.name: file_sha256(path) for path in paths[1:]}
    expected = load_corpus(paths[:1])
    assert found.fingerprints(paths[0]) == list(expected.fingerprints)
    assert len(set(found.fingerprints(paths[0]))) == 2


def test_what_differs_is_refused_as_in_memory(tmp_path: Path) -> None:
    paths = study(tmp_path)
    write_shard(paths[2], [dataclasses.replace(run_sample("03"), contract=contract(smoothing_fwhm_mm=None))])
    with pytest.raises(InputError, match="smoothing_fwhm_mm"):
        pack(paths, tmp_path / "corpus")
    write_shard(paths[2], [run_sample("01", 1)])
    with pytest.raises(InputError, match="comes twice"):
        pack(paths, tmp_path / "corpus")
    (tmp_path / "other").mkdir()
    twice = tmp_path / "other" / paths[0].name
    write_shard(twice, [run_sample("09")])
    with pytest.raises(InputError, match="several shards have this name"):
        pack([*paths, twice], tmp_path / "corpus")
    write_shard(paths[2], [])
    with pytest.raises(InputError, match="not a single sample"):
        pack(paths[2:], tmp_path / "corpus")
    content = bytearray(paths[1].read_bytes())
    content[1000] ^= 1
    paths[1].write_bytes(content)
    with pytest.raises(InputError, match="checksum"):
        pack(paths, tmp_path / "corpus")
    assert not [item for item in tmp_path.iterdir() if "corpus" in item.name]


def test_a_shard_that_changed_is_noticed_and_one_that_was_only_copied_is_not(tmp_path: Path) -> None:
    paths = study(tmp_path)
    pack(paths, tmp_path / "corpus")
    assert is_current(tmp_path / "corpus", paths)
    for path in paths:
        os.utime(path, (0, 0))
    assert is_current(tmp_path / "corpus", paths)
    open_packed(tmp_path / "corpus").corpus(paths)

    write_shard(paths[0], [run_sample("01", 1, 40, seed=1), run_sample("01", 2, 29)])
    paths[2].unlink()
    new = tmp_path / "ds-toy_sub-04.tar"
    write_shard(new, [run_sample("04")])
    assert not is_current(tmp_path / "corpus", paths)
    assert not is_current(tmp_path / "corpus", [paths[1], new])
    with pytest.raises(InputError) as caught:
        open_packed(tmp_path / "corpus").corpus([*paths, new])
    # All at once, with the way out.
    told = {Path(problem.where).name: str(problem) for problem in caught.value.problems}
    assert told.keys() == {paths[0].name, paths[2].name, new.name}
    assert "changed" in told[paths[0].name]
    assert "no such shard" in told[paths[2].name]
    assert "boldly corpus" in told[new.name]
    assert_same(open_packed(tmp_path / "corpus").corpus(paths[1:2]), load_corpus(paths[1:2]))


@pytest.mark.parametrize("damage", ["no table", "no frames", "cut frames", "cut table", "format", "other frames"])
def test_a_damaged_corpus_is_refused_with_the_way_out(tmp_path: Path, damage: str) -> None:
    paths = study(tmp_path)
    pack(paths, tmp_path / "corpus")
    frames, table = tmp_path / "corpus" / FRAMES, tmp_path / "corpus" / TABLE
    match damage:
        case "no table":
            table.unlink()
        case "no frames":
            frames.unlink()
        case "cut frames":
            frames.write_bytes(frames.read_bytes()[:-1])
        case "cut table":
            table.write_text(table.read_text()[:-20])
        case "format":
            table.write_text(json.dumps(read_json(table) | {"format": 99}))
        case "other frames":
            np.save(frames, np.zeros((7, 6), np.float16))
    assert not is_current(tmp_path / "corpus", paths)
    with pytest.raises(InputError, match="boldly corpus"):
        open_packed(tmp_path / "corpus")


def _pack(arguments: tuple[list[Path], Path]) -> None:
    pack(*arguments)


def test_processes_that_pack_the_same_corpus_do_not_collide(tmp_path: Path) -> None:
    paths = study(tmp_path)
    # Also where an old one is to be replaced.
    for _ in range(2):
        with ProcessPoolExecutor(4) as pool:
            list(pool.map(_pack, [(paths, tmp_path / "corpus")] * 12))
        assert_same(open_packed(tmp_path / "corpus").corpus(paths), load_corpus(paths))
        assert [item.name for item in tmp_path.iterdir() if "corpus" in item.name] == ["corpus"]


def test_a_corpus_in_use_stays_readable_when_it_is_packed_anew(tmp_path: Path) -> None:
    paths = study(tmp_path)
    pack(paths, tmp_path / "corpus")
    used, before = open_packed(tmp_path / "corpus").corpus(paths), load_corpus(paths)
    write_shard(paths[0], [run_sample("01", 1, 12, seed=5)])
    pack(paths, tmp_path / "corpus")
    assert_same(used, before)


PROGRAM = """
import sys, time
from pathlib import Path
from boldly.samples import packed

def slowly(frames):
    print("half", flush=True)
    time.sleep(60)

read, packed.read_shard = packed.read_shard, lambda path: (slowly(path) if "03" in str(path) else read(path))
packed.pack([Path(p) for p in sys.argv[2:]], Path(sys.argv[1]))
"""


def test_a_killed_pack_leaves_nothing_half_written(tmp_path: Path) -> None:
    paths = study(tmp_path)
    pack(paths[:1], tmp_path / "corpus")
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "corpus"), *map(str, paths)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "half\n"
        process.send_signal(signal.SIGKILL)
    # The old one is whole, and says that it lacks the others.
    assert is_current(tmp_path / "corpus", paths[:1])
    assert not is_current(tmp_path / "corpus", paths)
    pack(paths, tmp_path / "corpus")
    assert_same(open_packed(tmp_path / "corpus").corpus(paths), load_corpus(paths))
    assert [item.name for item in tmp_path.iterdir() if "corpus" in item.name] == ["corpus"]


def test_few_shards_are_in_memory_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = []
    for number in range(20):
        paths.append(tmp_path / f"{number:02d}.tar")
        write_shard(paths[-1], [run_sample(f"{number:02d}")])
    read, written = [], []
    real_read, real_write = packed.read_shard, packed._write

    def reading(path: Path) -> list[Sample]:
        read.append(path)
        time.sleep(0.001)
        return list(real_read(path))

    def writing(*arguments: object) -> None:
        # Those that are written, two threads at work, and what waits for the writer.
        written.append(len(read))
        assert len(read) <= len(written) + 4
        real_write(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(packed, "read_shard", reading)
    monkeypatch.setattr(packed, "_write", writing)
    pack(paths, tmp_path / "corpus", threads=2)
    assert len(written) == 20
