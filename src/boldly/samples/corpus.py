"""Shards held in memory as one block of frames, for cutting windows without a loop over samples."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from boldly.files import read_json
from boldly.provenance import Contract, check_same
from boldly.records import InputError, Problem
from boldly.samples.remote import shown
from boldly.samples.sample import frame_numbers, run_fingerprint
from boldly.samples.shards import Sample, read_shard

# What a trial could be told by without its signals; length in frames, share of the run before it, mm.
COVARIATES = ("n_volumes", "position", "mean_fd_mm")


class Stretches(NamedTuple):
    """Frames without a gap between them: ``corpus.frames[first:end]``, of one sample; arrays of shape (S,)."""

    first: np.ndarray
    end: np.ndarray
    sample: np.ndarray


@dataclass(frozen=True)
class Corpus:
    """All frames of R samples (runs or trials), one behind the other.

    Attributes
    ----------
    frames : ndarray of float16 or float32, shape (N, P)
        Signals of all samples.
    starts : ndarray of int64, shape (R + 1,)
        Sample r is ``frames[starts[r]:starts[r + 1]]``.
    t_r : ndarray of float64, shape (R,)
        Repetition times, s.
    marked : ndarray of bool, shape (R, P)
        Parcels without enough coverage: zeros that count neither in the input nor in a loss.
    labels : ndarray of int64, shape (R,)
        State of a trial; -1 for runs.
    label_names : tuple of str
        Names of the states by label; empty for runs.
    keys, datasets, subjects, runs : tuple of str, length R
        Sample key, dataset, subject, and the key of the run that it comes from.
    contract : Contract
        Shared by all samples.
    covariates : dict of str to ndarray of float64, shape (R,)
        By name in `COVARIATES`; nan where unknown.
    fingerprints : tuple of str or None, length R
        Of the run that a sample comes from (`boldly.samples.sample.run_fingerprint`); empty if not collected.
    numbers : ndarray of int32, shape (N,), optional
        Number of each frame in its run, which leaves out scrubbed ones; None: no sample has a gap.
    """

    frames: np.ndarray
    starts: np.ndarray
    t_r: np.ndarray
    marked: np.ndarray
    labels: np.ndarray
    label_names: tuple[str, ...]
    keys: tuple[str, ...]
    datasets: tuple[str, ...]
    subjects: tuple[str, ...]
    runs: tuple[str, ...]
    contract: Contract
    covariates: dict[str, np.ndarray] = field(default_factory=dict)
    fingerprints: tuple[str | None, ...] = ()
    numbers: np.ndarray | None = None

    def __post_init__(self) -> None:
        if not self.frames.flags.c_contiguous:
            raise ValueError("frames must be in C order: windows are cut as stretches of memory")

    @cached_property
    def lengths(self) -> np.ndarray:
        """Number of frames of each sample, shape (R,)."""
        return np.diff(self.starts)

    @cached_property
    def stretches(self) -> Stretches:
        """The parts of the samples in which one frame follows the other; without gaps the samples themselves."""
        first = self.starts[:-1]
        if self.numbers is not None:
            gaps = np.flatnonzero(np.diff(self.numbers) != 1) + 1
            first = np.union1d(first[self.lengths > 0], gaps)
        sample = np.searchsorted(self.starts, first, side="right") - 1
        return Stretches(first, np.append(first[1:], self.starts[-1]), sample)

    def __len__(self) -> int:
        return len(self.keys)

    def select(self, chosen: np.ndarray | list[int]) -> Corpus:
        """Return a corpus of the chosen samples (numbers, or a mask of shape (R,)), frames copied."""
        numbers = np.arange(len(self))[np.asarray(chosen)] if len(chosen) else np.zeros(0, np.int64)
        blocks = [self.frames[self.starts[r] : self.starts[r + 1]] for r in numbers]
        empty = np.zeros((0, self.frames.shape[1]), self.frames.dtype)
        return Corpus(
            frames=np.concatenate([empty, *blocks]),
            starts=np.concatenate([[0], np.cumsum(self.lengths[numbers])]).astype(np.int64),
            t_r=self.t_r[numbers],
            marked=self.marked[numbers],
            labels=self.labels[numbers],
            label_names=self.label_names,
            keys=tuple(self.keys[r] for r in numbers),
            datasets=tuple(self.datasets[r] for r in numbers),
            subjects=tuple(self.subjects[r] for r in numbers),
            runs=tuple(self.runs[r] for r in numbers),
            contract=self.contract,
            covariates={name: values[numbers] for name, values in self.covariates.items()},
            fingerprints=tuple(self.fingerprints[r] for r in numbers) if self.fingerprints else (),
            numbers=None if self.numbers is None else self.numbers[_rows(self.starts, numbers)],
        )


def load_corpus(paths: Iterable[Path | str], *, allow_mismatch: Collection[str] = (), threads: int = 1) -> Corpus:
    """Read shards into a corpus.

    Parameters
    ----------
    paths : iterable of Path or str
        Tars, or their web addresses.
    allow_mismatch : collection of str
        Contract fields in which shards may differ.
    threads : int, default=1
        Shards that are read at the same time.

    Raises
    ------
    InputError
        For damaged shards, shards without any sample, shards whose contracts or label names differ, and a sample
        that comes twice.

    Notes
    -----
    Ready-made shards do not hold the names of all states. They are read from ``labels.json`` beside the first
    shard (``{"labels": [...]}`` in label order); without that file they are those of the trials that are there.
    """
    paths = list(paths)
    samples: list[Sample] = []
    seen: set[str] = set()
    with ThreadPoolExecutor(threads) as pool:
        # One thread: as an iterator, so that nothing behind a wrong shard is read.
        shards = map(read_shard, paths) if threads == 1 else pool.map(lambda path: list(read_shard(path)), paths)
        for path, shard in zip(paths, shards, strict=True):
            for sample in shard:
                _check_meets(sample, samples, seen, shown(path), allow_mismatch)
                samples.append(sample)
                seen.add(sample.key)
    if not samples:
        where = f"{len(paths)} shards, the first {shown(paths[0])}" if paths else "no shards"
        raise InputError(
            Problem(where, "", "not a single sample", "see the reasons in the run tables of results/index")
        )
    return Corpus(
        frames=np.ascontiguousarray(np.concatenate([s.bold for s in samples])),
        starts=np.concatenate([[0], np.cumsum([len(s.bold) for s in samples])]).astype(np.int64),
        t_r=np.array([s.meta["t_r"] for s in samples]),
        marked=np.stack([_mark(s) for s in samples]),
        labels=np.array([s.meta.get("label", -1) for s in samples], np.int64),
        label_names=_label_names(samples, paths),
        keys=tuple(s.key for s in samples),
        datasets=tuple(s.meta["dataset"] for s in samples),
        subjects=tuple(s.meta["subject"] for s in samples),
        runs=tuple(s.meta["run_key"] for s in samples),
        contract=samples[0].contract,
        # None becomes nan.
        covariates={name: np.array([s.meta.get(name) for s in samples], np.float64) for name in COVARIATES},
        fingerprints=tuple(run_fingerprint(s) for s in samples),
        numbers=_numbers(samples),
    )


def _rows(starts: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """Return the rows of the frames of samples, one sample behind the other."""
    return np.concatenate([np.zeros(0, np.int64), *(np.arange(starts[r], starts[r + 1]) for r in samples)])


def _numbers(samples: list[Sample]) -> np.ndarray | None:
    """Return the number of each frame in its run; None where no sample has a gap."""
    if all(len(s.meta.get("frames", [])) <= 1 for s in samples):
        return None
    return np.concatenate([frame_numbers(s) for s in samples])


def _check_meets(
    sample: Sample, samples: list[Sample], seen: set[str], path: str, allow_mismatch: Collection[str]
) -> None:
    """Refuse a sample that does not go with those before it."""
    if not samples:
        return
    first = samples[0]
    check_same(first.contract, sample.contract, path, sample.key, allow_mismatch)
    if sample.bold.shape[1] != first.bold.shape[1]:
        message = f"{sample.bold.shape[1]} parcels, {first.key} has {first.bold.shape[1]}"
        raise InputError(Problem(path, sample.key, message, "use shards of one atlas"))
    if sample.key in seen:
        raise InputError(Problem(path, sample.key, "the sample comes twice", "pass each shard once"))
    if ("label" in sample.meta, sample.meta.get("labels")) != ("label" in first.meta, first.meta.get("labels")):
        message = f"its labels are not those of {first.key}"
        raise InputError(Problem(path, sample.key, message, "rerun shard for the whole dataset"))


def _label_names(samples: list[Sample], paths: list[Path | str]) -> tuple[str, ...]:
    if "label" not in samples[0].meta:
        return ()
    beside = Path(paths[0]).with_name("labels.json")
    found = {int(s.meta["label"]): str(s.meta["label_name"]) for s in samples}
    names: list[str] = samples[0].meta.get("labels") or []
    if not names:
        names = read_json(beside)["labels"] if beside.exists() else []
        names = names or [found.get(label, str(label)) for label in range(max(found) + 1)]
    if max(found) >= len(names):
        message = f"label {max(found)}, but {len(names)} names of states"
        raise InputError(Problem(str(beside), samples[0].key, message, "correct labels.json, or rerun shard"))
    return tuple(names)


def _mark(sample: Sample) -> np.ndarray:
    marked = np.zeros(sample.bold.shape[1], bool)
    marked[sample.meta.get("marked", [])] = True
    return marked
