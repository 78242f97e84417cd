"""Windows in another order than the runs that they are cut from do not reach a network."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from boldly.bids import shard_name
from boldly.config import Framework, PretrainOptions
from boldly.models.build import window_options
from boldly.records import InputError
from boldly.samples import packed
from boldly.samples.corpus import Corpus, load_corpus
from boldly.samples.shards import subject_shards, write_shard
from boldly.samples.streams import StreamedWindows
from boldly.samples.windows import Windows
from boldly.stages import pretrain
from boldly.training.continuity import check_continuity
from tests.training import synthetic


def study(folder: Path, *, level: float = 0.0, slow: float = 0.8) -> list[Path]:
    """Write the shards of two datasets, whose parcels follow themselves."""
    rng, paths = np.random.default_rng(3), []
    for dataset in ("one", "two"):
        for subject in ("00", "01", "02"):
            key = f"ds-{dataset}_sub-{subject}_task-rest"
            frames = rng.standard_normal((120, 16))
            for t in range(1, 120):
                frames[t] += slow * frames[t - 1]
            meta: dict[str, Any] = {
                "dataset": dataset,
                "subject": subject,
                "run_key": key,
                "t_r": 2.0,
                "entities": {},
            }
            frames += level * np.arange(1, 17)
            sample = synthetic.sample(key, frames, {**meta, "marked": [], "n_volumes": 120})
            paths.append(folder / dataset / shard_name(dataset, subject))
            write_shard(paths[-1], [sample])
    return paths


def options(framework: Framework = "csm") -> PretrainOptions:
    return PretrainOptions(
        framework=framework, layers=1, width=16, heads=2, steps=20, batch_size=8, window_frames=(6, 12), track=[]
    )


def scrambled(corpus: Corpus, dataset: str = "two") -> Corpus:
    """Read the runs of a dataset as if they lay in memory parcel by parcel."""
    frames = corpus.frames.copy()
    for run, (first, end) in enumerate(zip(corpus.starts, corpus.starts + corpus.lengths, strict=True)):
        if corpus.datasets[run] == dataset:
            frames[first:end] = frames[first:end].ravel(order="F").reshape(end - first, -1)
    return dataclasses.replace(corpus, frames=frames)


def check(folder: Path, windows: Any) -> None:
    check_continuity(windows, lambda dataset, subject: subject_shards(folder / dataset, dataset, subject))


@pytest.mark.parametrize("framework", ["csm", "sequence_bert", "network_bert", "autoencoding"])
def test_scrambled_windows_are_refused_with_dataset_shard_and_both_numbers(
    tmp_path: Path, framework: Framework
) -> None:
    corpus, wanted = load_corpus(study(tmp_path)), window_options(options(framework), 8)
    check(tmp_path, Windows(corpus, wanted, 1, 400))
    with pytest.raises(InputError) as caught:
        check(tmp_path, Windows(scrambled(corpus), wanted, 1, 400))
    (problem,) = caught.value.problems
    assert problem.entity == "two"
    assert "ds-two_sub-0" in problem.where
    # The process has 0.8; each run has 120 frames of 16 parcels.
    assert "those of its runs with 0.7" in problem.message or "those of its runs with 0.8" in problem.message
    assert "windows correlate with 0.0" in problem.message or "windows correlate with -0.0" in problem.message
    assert "boldly shard" in problem.remedy


def test_signals_that_were_not_standardised_are_compared_without_their_level(tmp_path: Path) -> None:
    corpus, wanted = load_corpus(study(tmp_path, level=20.0)), window_options(options(), 8)
    check(tmp_path, Windows(corpus, wanted, 1, 400))
    with pytest.raises(InputError, match="two"):
        check(tmp_path, Windows(scrambled(corpus), wanted, 1, 400))


@pytest.mark.parametrize("count", [1, 8, 400])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("framework", ["csm", "sequence_bert"])
def test_sound_windows_pass_however_few_the_training_takes(
    tmp_path: Path, count: int, seed: int, framework: Framework
) -> None:
    corpus, wanted = load_corpus(study(tmp_path, slow=0.95)), window_options(options(framework), 8)
    check(tmp_path, Windows(corpus, wanted, seed, count))


@pytest.mark.parametrize("seed", range(4))
def test_sound_windows_of_slow_waves_pass(tmp_path: Path, seed: int) -> None:
    data = synthetic.upstream_study(tmp_path, n_subjects=2)
    corpus = load_corpus([path for _, folder in data for path in sorted(folder.iterdir())])
    check(tmp_path, Windows(corpus, window_options(options(), 8), seed, 8))


def test_a_pretraining_on_scrambled_windows_does_not_start(tmp_path: Path, monkeypatch: Any) -> None:
    data = synthetic.upstream_study(tmp_path, n_subjects=3)

    def scramble(*arguments: Any, **named: Any) -> Corpus:
        return scrambled(scrambled(load_corpus(*arguments, **named)), "one")

    monkeypatch.setattr(packed, "load_corpus", scramble)
    with pytest.raises(InputError) as caught:
        pretrain.run(name="toy", options=options(), data=data, output=tmp_path / "out")
    assert [problem.entity for problem in caught.value.problems] == ["one", "two"]
    assert not list((tmp_path / "out").glob("checkpoints/checkpoint-*"))


def test_groups_of_a_stream_are_checked(tmp_path: Path) -> None:
    paths = study(tmp_path)
    windows = StreamedWindows(
        paths,
        window_options(options(), 8),
        1,
        160,
        group_shards=6,
        group_windows=80,
        load=lambda shards: scrambled(load_corpus(shards)),
    )
    try:
        with pytest.raises(InputError, match="two"):
            check(tmp_path, windows.at([0]))
    finally:
        windows.close()


def test_of_a_large_corpus_only_a_few_shards_are_read_again(tmp_path: Path) -> None:
    corpus = load_corpus(study(tmp_path))
    n = 12_000
    large = dataclasses.replace(
        corpus,
        frames=np.tile(corpus.frames[:120], (n, 1)),
        starts=np.arange(n) * 120,
        lengths=np.full(n, 120),
        t_r=np.full(n, 2.0),
        marked=np.zeros((n, 16), bool),
        labels=np.full(n, -1),
        keys=(corpus.keys[0],) * n,
        datasets=("one",) * n,
        subjects=tuple(f"{number:05d}" for number in range(n)),
        runs=(corpus.keys[0],) * n,
    )
    asked = []

    def shards(dataset: str, subject: str) -> list[Path]:
        asked.append(subject)
        return subject_shards(tmp_path / dataset, dataset, "00")

    windows = Windows(large, window_options(options(), 8), 1, 640_000)
    started = time.monotonic()
    check_continuity(windows, shards)
    # Well below a second on an idle machine; others may use this one.
    assert time.monotonic() - started < 3
    assert len(asked) == 4
