"""Shards as one block of frames, in memory or mapped, for cutting windows without a loop over samples."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from boldly.files import read_json
from boldly.provenance import Contract, check_same
from boldly.records import InputError, Problem
from boldly.samples.remote import shown
from boldly.samples.sample import frame_numbers, run_fingerprint
from boldly.samples.shards import Sample, read_shard

# What a trial could be told by without its signals; length in frames, share of the run before it, mm.
COVARIATES = ("n_volumes", "position", "mean_fd_mm")


# Dataset and repetition time, s.
Group = tuple[str, float]


class Stretches(NamedTuple):
    """Frames without a gap between them: ``corpus.frames[first:end]``, of one sample; arrays of shape (S,)."""

    first: np.ndarray
    end: np.ndarray
    sample: np.ndarray


@dataclass(frozen=True)
class Corpus:
    """Frames of R samples (runs or trials), and what is known of each sample.

    Attributes
    ----------
    frames : ndarray of float16 or float32, shape (N, P)
        Signals of these samples, and perhaps of others.
    starts, lengths : ndarray of int64, shape (R,)
        Sample r is ``frames[starts[r]:starts[r] + lengths[r]]``.
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
    lengths: np.ndarray
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

    @property
    def groups(self) -> list[Group]:
        """Dataset and repetition time (s) of each sample; runs whose times differ by rounding are of one group."""
        return list(zip(self.datasets, self.t_r.round(3).tolist(), strict=True))

    @cached_property
    def stretches(self) -> Stretches:
        """The parts of the samples in which one frame follows the other; without gaps the samples themselves."""
        ends = self.starts + self.lengths
        if self.numbers is None:
            return Stretches(self.starts, ends, np.arange(len(self)))
        # A gap has the row of the frame behind it; samples need not lie side by side, nor in their order.
        gaps = np.flatnonzero(np.diff(self.numbers) != 1) + 1
        before = np.searchsorted(gaps, self.starts, side="right")
        parts = np.searchsorted(gaps, ends, side="left") - before + 1
        sample = np.repeat(np.arange(len(self)), parts)
        part = np.arange(len(sample)) - np.repeat(np.cumsum(parts) - parts, parts)
        limits = np.concatenate([[0], gaps, [0]])
        behind = before[sample] + part
        first = np.where(part == 0, self.starts[sample], limits[behind])
        end = np.where(part == parts[sample] - 1, ends[sample], limits[behind + 1])
        return Stretches(first, end, sample)

    def __len__(self) -> int:
        return len(self.keys)

    def signals(self, number: int) -> np.ndarray:
        """Return the frames of a sample, shape (T, P), not copied."""
        return self.frames[self.starts[number] : self.starts[number] + self.lengths[number]]

    def select(self, chosen: np.ndarray | list[int]) -> Corpus:
        """Return a corpus of the chosen samples (numbers, or a mask of shape (R,)), on the same frames."""
        numbers = np.arange(len(self))[np.asarray(chosen)] if len(chosen) else np.zeros(0, np.int64)
        return Corpus(
            frames=self.frames,
            starts=self.starts[numbers],
            lengths=self.lengths[numbers],
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
            numbers=self.numbers,
        )


def load_corpus(paths: Iterable[Path | str], *, allow_mismatch: Collection[str] = (), threads: int = 1) -> Corpus:
    """Read shards into a corpus in memory.

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
    collected, blocks = Collected(allow_mismatch), []
    with ThreadPoolExecutor(threads) as pool:
        # One thread: as an iterator, so that nothing behind a wrong shard is read.
        shards = map(read_shard, paths) if threads == 1 else pool.map(lambda path: list(read_shard(path)), paths)
        for path, shard in zip(paths, shards, strict=True):
            for sample in shard:
                collected.add(sample, path)
                blocks.append(sample.bold)
    collected.check_any(paths)
    return collected.corpus(np.ascontiguousarray(np.concatenate(blocks)), paths)


class Collected:
    """What is known of samples beside their frames, gathered sample by sample.

    Parameters
    ----------
    allow_mismatch : collection of str
        Contract fields in which samples may differ.
    """

    def __init__(self, allow_mismatch: Collection[str] = ()) -> None:
        self._allow_mismatch = allow_mismatch
        self._keys: dict[str, None] = {}
        self._metas: list[dict[str, Any]] = []
        self._marked: list[np.ndarray] = []
        self._lengths: list[int] = []
        self._fingerprints: list[str | None] = []
        self._numbers: list[np.ndarray] = []
        self._has_gaps = False
        self._contract: Contract | None = None

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, sample: Sample, path: Path | str) -> None:
        """Take a sample that was read from a shard; its signals are not kept.

        Raises
        ------
        InputError
            If it does not go with those before it: another contract, other label names, or the same key.
        """
        self._check_meets(sample, shown(path))
        self._contract = self._contract.with_another(sample.contract) if self._contract else sample.contract
        self._keys[sample.key] = None
        self._metas.append(sample.meta)
        self._lengths.append(len(sample.bold))
        self._fingerprints.append(run_fingerprint(sample))
        self._numbers.append(frame_numbers(sample))
        self._has_gaps |= len(sample.meta.get("frames", [])) > 1
        marked = np.zeros(sample.bold.shape[1], bool)
        marked[sample.meta.get("marked", [])] = True
        self._marked.append(marked)

    def check_any(self, paths: Sequence[Path | str]) -> None:
        """Refuse shards that hold no sample at all."""
        if not self._keys:
            where = f"{len(paths)} shards, the first {shown(paths[0])}" if paths else "no shards"
            remedy = "see the reasons in the run tables of results/index"
            raise InputError(Problem(where, "", "not a single sample", remedy))

    def corpus(self, frames: np.ndarray, paths: Sequence[Path | str]) -> Corpus:
        """Return the corpus of the samples, given their frames one behind the other (N, P) and the shards."""
        assert self._contract is not None
        lengths = np.array(self._lengths, np.int64)
        metas = self._metas
        return Corpus(
            frames=frames,
            starts=np.cumsum(lengths) - lengths,
            lengths=lengths,
            t_r=np.array([meta["t_r"] for meta in metas], np.float64),
            marked=np.stack(self._marked),
            labels=np.array([meta.get("label", -1) for meta in metas], np.int64),
            label_names=_label_names(next(iter(self._keys)), metas, paths),
            keys=tuple(self._keys),
            datasets=tuple(meta["dataset"] for meta in metas),
            subjects=tuple(meta["subject"] for meta in metas),
            runs=tuple(meta["run_key"] for meta in metas),
            contract=self._contract,
            # None becomes nan.
            covariates={name: np.array([meta.get(name) for meta in metas], np.float64) for name in COVARIATES},
            fingerprints=tuple(self._fingerprints),
            numbers=np.concatenate(self._numbers) if self._has_gaps else None,
        )

    def _check_meets(self, sample: Sample, path: str) -> None:
        if self._contract is None:
            return
        first, first_key = self._metas[0], next(iter(self._keys))
        check_same(self._contract, sample.contract, path, sample.key, self._allow_mismatch)
        if sample.bold.shape[1] != len(self._marked[0]):
            message = f"{sample.bold.shape[1]} parcels, {first_key} has {len(self._marked[0])}"
            raise InputError(Problem(path, sample.key, message, "use shards of one atlas"))
        if sample.key in self._keys:
            raise InputError(Problem(path, sample.key, "the sample comes twice", "pass each shard once"))
        if ("label" in sample.meta, sample.meta.get("labels")) != ("label" in first, first.get("labels")):
            message = f"its labels are not those of {first_key}"
            raise InputError(Problem(path, sample.key, message, "rerun shard for the whole dataset"))


def _label_names(first_key: str, metas: list[dict[str, Any]], paths: Sequence[Path | str]) -> tuple[str, ...]:
    if "label" not in metas[0]:
        return ()
    beside = Path(paths[0]).with_name("labels.json")
    found = {int(meta["label"]): str(meta["label_name"]) for meta in metas}
    names: list[str] = metas[0].get("labels") or []
    if not names:
        names = read_json(beside)["labels"] if beside.exists() else []
        names = names or [found.get(label, str(label)) for label in range(max(found) + 1)]
    if max(found) >= len(names):
        message = f"label {max(found)}, but {len(names)} names of states"
        raise InputError(Problem(str(beside), first_key, message, "correct labels.json, or rerun shard"))
    return tuple(names)
