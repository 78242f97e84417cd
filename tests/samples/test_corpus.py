"""Shards as one block of frames."""

from __future__ import annotations

import dataclasses
import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from boldly.records import InputError
from boldly.samples.corpus import Corpus, load_corpus
from boldly.samples.lfb_shards import write_lfb_shards
from boldly.samples.sample import Sample
from boldly.samples.shards import write_shard
from boldly.samples.tars import write_members
from boldly.samples.windows import WindowOptions, Windows
from tests.samples.examples import LABELS, contract, run_sample, trial_sample
from tests.training import synthetic


def load(folder: Path, *shards: list[Sample]) -> Corpus:
    paths = [folder / f"{number}.tar" for number in range(len(shards))]
    for path, samples in zip(paths, shards, strict=True):
        write_shard(path, samples)
    return load_corpus(paths)


def test_each_sample_lies_where_starts_says(tmp_path: Path) -> None:
    samples = [run_sample("01", 1, 12), run_sample("01", 2, 9), run_sample("02", 1, 20, marked=[1, 5])]
    corpus = load(tmp_path, samples[:2], samples[2:])
    assert corpus.lengths.tolist() == [12, 9, 20]
    for number, sample in enumerate(samples):
        assert np.array_equal(corpus.signals(number), sample.bold)
    assert corpus.subjects == ("01", "01", "02")
    assert np.flatnonzero(corpus.marked[2]).tolist() == [1, 5]
    assert not corpus.marked[:2].any()
    assert corpus.labels.tolist() == [-1, -1, -1]
    assert corpus.label_names == ()


def test_trials_have_labels_and_all_their_names(tmp_path: Path) -> None:
    corpus = load(tmp_path, [trial_sample(number=0, label=1), trial_sample(number=1, label=0)])
    assert corpus.labels.tolist() == [1, 0]
    assert corpus.label_names == tuple(LABELS)


def test_shards_without_samples_are_passed_over(tmp_path: Path) -> None:
    assert len(load(tmp_path, [], [run_sample()], [])) == 1


def test_not_a_single_sample_is_an_error_that_names_a_shard(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"0\.tar"):
        load(tmp_path, [], [])


def test_a_selection_has_the_chosen_samples_in_the_order_asked_for_and_copies_no_frames(tmp_path: Path) -> None:
    corpus = load(tmp_path, [run_sample(run=1, n_volumes=12), run_sample(run=2, n_volumes=9)])
    chosen = corpus.select([1, 0])
    assert chosen.lengths.tolist() == [9, 12]
    assert np.array_equal(chosen.signals(0), corpus.frames[12:])
    assert chosen.frames is corpus.frames
    assert len(corpus.select(np.array([False, False]))) == 0


def test_contracts_must_agree_unless_allowed(tmp_path: Path) -> None:
    other = dataclasses.replace(run_sample(run=2), contract=contract(smoothing_fwhm_mm=None))
    with pytest.raises(InputError, match="smoothing_fwhm_mm"):
        load(tmp_path, [run_sample()], [other])
    paths = [tmp_path / "0.tar", tmp_path / "1.tar"]
    both = load_corpus(paths, allow_mismatch=["smoothing_fwhm_mm"])
    assert len(both) == 2
    assert both.contract.varied == {"smoothing_fwhm_mm": [3.0, None]}


def test_a_sample_that_comes_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="comes twice"):
        load(tmp_path, [run_sample()], [run_sample()])


def test_labels_of_two_datasets_do_not_mix(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="labels"):
        load(tmp_path, [trial_sample()], [trial_sample(run=2, labels=["faces", "other", "rest"])])


def test_names_that_ready_made_shards_lack_come_from_labels_json(tmp_path: Path) -> None:
    paths = write_lfb_shards(tmp_path, [trial_sample(number=0, label=1)])
    assert load_corpus(paths).label_names == ("0", "house")
    (tmp_path / "labels.json").write_text(json.dumps({"labels": LABELS}))
    assert load_corpus(paths).label_names == tuple(LABELS)
    (tmp_path / "labels.json").write_text(json.dumps({"labels": LABELS[:1]}))
    with pytest.raises(InputError, match="1 names of states"):
        load_corpus(paths)


def test_arrays_pickled_in_fortran_order_are_cut_into_windows_as_they_are(tmp_path: Path) -> None:
    """numpy keeps the memory order when it pickles; windows are cut as stretches of memory."""
    samples = [run_sample("01", run, 40, dtype="float32") for run in (1, 2)]
    fortran = [dataclasses.replace(sample, bold=np.asfortranarray(sample.bold)) for sample in samples]
    paths = write_fortran_shards(tmp_path, fortran)
    corpus = load_corpus(paths)
    windows = Windows(corpus, WindowOptions(shortest=8, longest=8, batch_size=4), seed=1, count=4)
    batch = windows.__getitems__(range(4))
    for window, run in zip(batch["inputs"].numpy(), windows.runs(range(4)), strict=True):
        bold = samples[run].bold
        assert any(np.array_equal(window, bold[first : first + 8]) for first in range(len(bold) - 7))


def write_fortran_shards(folder: Path, samples: list[Sample]) -> list[Path]:
    paths = []
    for sample in samples:
        members = {"bold.pyd": pickle.dumps(sample.bold), "t_r.pyd": pickle.dumps(np.float32(2.0))}
        path = folder / f"{sample.key}.tar"
        write_members(path, [(sample.key, members)])
        paths.append(path)
    return paths


def test_a_corpus_in_fortran_order_is_refused() -> None:
    whole = synthetic.corpus([20, 30])
    with pytest.raises(ValueError, match="C order"):
        dataclasses.replace(whole, frames=np.asfortranarray(whole.frames))


def test_covariates_of_trials_are_carried_and_nan_where_unknown(tmp_path: Path) -> None:
    samples = [trial_sample(number=number) for number in range(3)]
    for sample, motion in zip(samples, (0.1, None, 0.3), strict=True):
        sample.meta.update(position=0.25, mean_fd_mm=motion)
    del samples[2].meta["position"]
    write_shard(tmp_path / "a.tar", samples)
    corpus = load_corpus([tmp_path / "a.tar"])
    np.testing.assert_array_equal(corpus.covariates["n_volumes"], [5, 5, 5])
    np.testing.assert_array_equal(corpus.covariates["position"], [0.25, 0.25, np.nan])
    np.testing.assert_array_equal(corpus.select([2, 1]).covariates["mean_fd_mm"], [0.3, np.nan])


def test_frames_that_their_numbers_do_not_fit_are_damage(tmp_path: Path) -> None:
    write_shard(tmp_path / "a.tar", [run_sample(n_volumes=12, frames=[[0, 3], [5, 10**12]])])
    with pytest.raises(InputError, match="12 frames, not those that its JSON numbers"):
        load_corpus([tmp_path / "a.tar"])
