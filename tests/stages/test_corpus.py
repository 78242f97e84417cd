"""Runs packed into one file, and pretrainings that map it."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from boldly import cli
from boldly.config import PretrainOptions
from boldly.files import read_json, write_json
from boldly.records import InputError
from boldly.samples import packed
from boldly.samples.corpus import load_corpus
from boldly.samples.packed import FRAMES, TABLE, open_packed
from boldly.samples.shards import read_shard, write_shard
from boldly.samples.splits import read_split
from boldly.stages import corpus, pretrain
from boldly.training.linear import linear_name
from tests.training import synthetic

Data = list[tuple[Path, Path | str]]


def options(**changes: Any) -> PretrainOptions:
    values: dict[str, Any] = {
        "framework": "csm",
        "layers": 1,
        "width": 16,
        "heads": 2,
        "steps": 8,
        "batch_size": 8,
    }
    values |= {"learning_rate": 1e-3, "evaluate_every": 4, "validation_windows": 16, "window_frames": (6, 12)}
    return PretrainOptions.model_validate(values | {"track": [], "keep_untrained": True} | changes)


@pytest.fixture
def data(tmp_path: Path) -> Data:
    return synthetic.upstream_study(tmp_path / "study", n_subjects=5)


OUTCOME = ("model.safetensors", "config.json", "contract.json", "train_history.csv", "eval_history.csv")


def test_the_order_in_which_datasets_are_named_does_not_matter(data: Data, tmp_path: Path) -> None:
    # A config may name them in any order; the rule that packs runs sorts them.
    assert len(data) > 1
    corpus.run(data=data, output=tmp_path / "corpus", share=1.0)
    for name, order in (("one", data), ("other", data[::-1])):
        pretrain.run(name="toy", options=options(), data=order, output=tmp_path / name, corpus=tmp_path / "corpus")
    for name in OUTCOME:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "other" / name).read_bytes(), name


@pytest.mark.parametrize("framework", ["csm", "sequence_bert"])
@pytest.mark.parametrize("share", [1.0, 0.5])
def test_a_training_on_packed_runs_is_that_on_shards(
    data: Data, tmp_path: Path, framework: str, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = options(framework=framework, subjects_fraction=share)
    pretrain.run(name="toy", options=chosen, data=data, output=tmp_path / "shards")
    corpus.run(data=data, output=tmp_path / "corpus", share=share)
    before = (tmp_path / "corpus" / FRAMES).stat().st_mtime_ns

    def fail(*arguments: object, **named: object) -> None:
        raise AssertionError("read or fitted again")

    for name in ("boldly.samples.packed.load_corpus", "boldly.samples.packed.read_fingerprints"):
        monkeypatch.setattr(name, fail)
    for name in ("boldly.stages.pretrain.material.fit_forecasts", "boldly.training.validation.fit_forecasts"):
        monkeypatch.setattr(name, fail)
    pretrain.run(name="toy", options=chosen, data=data, output=tmp_path / "packed", corpus=tmp_path / "corpus")
    for name in OUTCOME:
        assert (tmp_path / "packed" / name).read_bytes() == (tmp_path / "shards" / name).read_bytes(), name
    one, other = (read_json(tmp_path / kind / "manifest.json") for kind in ("shards", "packed"))
    for field in ("training", "validation", "people", "fingerprints", "without_fingerprints"):
        assert one[field] == other[field]
    assert (tmp_path / "corpus" / FRAMES).stat().st_mtime_ns == before


def test_fits_of_a_share_do_not_pack_the_runs_again(data: Data, tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    corpus.run(data=data, output=folder)
    before = {name: (folder / name).stat().st_mtime_ns for name in (FRAMES, TABLE, linear_name(1))}
    corpus.run(data=data, output=folder, share=0.5)
    assert {name: (folder / name).stat().st_mtime_ns for name in before} == before
    assert {item.name for item in folder.iterdir()} == {*before, linear_name(0.5)}


def test_a_folder_that_holds_anything_else_is_not_replaced(data: Data, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="study"):
        corpus.run(data=data, output=tmp_path)
    assert data[0][0].exists()


def test_a_pretraining_on_stale_runs_or_fits_does_not_start(data: Data, tmp_path: Path) -> None:
    corpus.run(data=data, output=tmp_path / "corpus")

    def start(**changes: Any) -> None:
        output = tmp_path / "out"
        pretrain.run(name="toy", options=options(**changes), data=data, output=output, corpus=tmp_path / "corpus")

    with pytest.raises(InputError, match=r"(?s)linear_0\.5.*boldly corpus"):
        start(subjects_fraction=0.5)
    shard = Path(data[0][1]) / "ds-one_sub-01.tar"
    (sample,) = read_shard(shard)
    write_shard(shard, [synthetic.sample(sample.key, np.asarray(sample.bold)[::-1], sample.meta)])
    with pytest.raises(InputError, match=r"(?s)changed.*ds-one_sub-01.tar.*boldly corpus"):
        start()
    corpus.run(data=data, output=tmp_path / "corpus")
    start()


def test_another_split_fits_anew(data: Data, tmp_path: Path) -> None:
    corpus.run(data=data, output=tmp_path / "corpus")
    split = read_json(data[0][0])
    write_json(data[0][0], split | {"train": split["train"][1:], "validation": ["00"]})
    found = open_packed(tmp_path / "corpus")
    with pytest.raises(InputError, match="other shards"):
        pretrain.run(name="toy", options=options(), data=data, output=tmp_path / "out", corpus=tmp_path / "corpus")
    corpus.run(data=data, output=tmp_path / "corpus")
    pretrain.run(name="toy", options=options(), data=data, output=tmp_path / "out", corpus=tmp_path / "corpus")
    assert len(open_packed(tmp_path / "corpus").names) < len(found.names)


def test_windows_in_the_wrong_order_are_noticed_in_packed_runs_as_well(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = packed._write

    def scrambling(stream: Any, dtype: Any, samples: list) -> None:
        for sample in samples:
            stream.write(np.asfortranarray(sample.bold.astype(dtype)).tobytes(order="A"))

    monkeypatch.setattr(packed, "_write", scrambling)
    corpus.run(data=data, output=tmp_path / "corpus")
    monkeypatch.setattr(packed, "_write", real)
    with pytest.raises(InputError, match="the order of the frames is lost"):
        pretrain.run(name="toy", options=options(), data=data, output=tmp_path / "out", corpus=tmp_path / "corpus")


def test_shares_of_subjects_lie_in_larger_ones(data: Data) -> None:
    split = read_split(data[0][0], "upstream")
    shares = [set(split.share(fraction)) for fraction in (0.1, 0.5, 0.75, 1.0)]
    assert [len(share) for share in shares] == [1, 2, 3, 4]
    assert all(small < large for small, large in pairwise(shares))


def test_shards_at_an_address_are_not_packed(data: Data, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="web address"):
        corpus.run(data=[(data[0][0], "https://example.org/one")], output=tmp_path / "corpus")
    assert not (tmp_path / "corpus").exists()


def test_the_command_packs_and_two_processes_map_the_same_frames(data: Data, tmp_path: Path) -> None:
    pairs = [argument for split, folder in data for argument in ("--data", str(split), str(folder))]
    assert cli.main(["corpus", *pairs, "--output", str(tmp_path / "corpus"), "--threads", "2"]) == 0
    everything = [path for _, folder in data for path in sorted(Path(folder).iterdir())]
    found = open_packed(tmp_path / "corpus").corpus(everything)
    expected = load_corpus(everything)
    assert [found.signals(r).tobytes() for r in range(10)] == [expected.signals(r).tobytes() for r in range(10)]
    # Mapped for reading, so that all processes see the same memory.
    program = f"""
from itertools import pairwise
from pathlib import Path
from boldly.samples.packed import open_packed
packed = open_packed(Path({str(tmp_path / "corpus")!r}))
print(next(line.split()[1] for line in open("/proc/self/maps") if line.rstrip().endswith("{FRAMES}")))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env={**os.environ}
    )
    assert done.stdout.strip() == "r--s"
