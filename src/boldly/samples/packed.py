"""The runs of many shards in one file, which all processes of a node share by mapping it.

A folder holds ``frames.npy`` (N, P), the frames of all samples one behind the other as they are stored in the
shards, and ``samples.json``: what is known of the samples, and the checksums of the shards that they come from. Of
the frames a process reads what it needs; what it reads is in the memory of the node once, however many processes
look at it, and leaves it when the memory is needed for something else.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np

from boldly.files import atomic_path, is_url, read_json, write_json
from boldly.provenance import Contract, file_sha256
from boldly.records import InputError, Problem
from boldly.samples import remote
from boldly.samples.corpus import Collected, Corpus, load_corpus
from boldly.samples.sample import Sample, spans_of
from boldly.samples.shards import read_fingerprints, read_shard

FRAMES, TABLE = "frames.npy", "samples.json"

_FORMAT = 1
_REMEDY = "pack the runs again (boldly corpus; the workflow does it by itself)"
# What a corpus has as tuples of text.
_TEXTS = ("keys", "datasets", "subjects", "runs", "fingerprints")

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclasses.dataclass(frozen=True)
class ShardRecord:
    """A shard that was packed.

    Attributes
    ----------
    name : str
        Its file name.
    size, mtime_ns : int
        Bytes, and when it was written: while both are the same it is not read again.
    sha256 : str
        Checksum.
    samples : int
        Number of samples, one behind the other in the order of the shards.
    """

    name: str
    size: int
    mtime_ns: int
    sha256: str
    samples: int

    def is_that(self, path: Path) -> bool:
        """Tell whether a shard that is there is the one that was packed."""
        found = path.stat()
        if found.st_size != self.size:
            return False
        # A copy may have another time; then its content decides.
        return found.st_mtime_ns == self.mtime_ns or file_sha256(path) == self.sha256


class LooseShards:
    """Shards as they lie in folders or at web addresses: what is asked of them is read from them.

    Parameters
    ----------
    allow_mismatch : collection of str
        Contract fields in which shards may differ.
    """

    def __init__(self, allow_mismatch: Collection[str] = ()) -> None:
        self._allow_mismatch = allow_mismatch

    def corpus(self, paths: Sequence[Path | str]) -> Corpus:
        """Return the runs of shards, in memory."""
        return load_corpus(paths, allow_mismatch=self._allow_mismatch)

    def identities(self, paths: Sequence[Path | str]) -> dict[str, str]:
        """Return what shards are known by: the checksum of a file, the size of one at a web address."""
        told = remote.sizes([str(path) for path in paths if is_url(path)])
        return {
            remote.name_of(path): f"streamed, {told[str(path)]} bytes" if is_url(path) else file_sha256(path)
            for path in paths
        }

    def fingerprints(self, path: Path | str) -> list[str | None]:
        """Return the fingerprint of the run of each sample of a shard."""
        return read_fingerprints(path)


class PackedShards:
    """Shards that were packed: their frames are mapped, and what is known of them is read from one table.

    Parameters
    ----------
    folder : Path
        As `pack` wrote it.
    records : sequence of ShardRecord
        The shards.
    whole : Corpus
        The samples of all of them.
    """

    def __init__(self, folder: Path, records: Sequence[ShardRecord], whole: Corpus) -> None:
        self.folder = folder
        self._whole = whole
        self._records = {record.name: record for record in records}
        ends = np.cumsum([record.samples for record in records])
        self._samples = {
            record.name: range(end - record.samples, end)
            for record, end in zip(records, ends.tolist(), strict=True)
        }

    @property
    def names(self) -> tuple[str, ...]:
        """File names of the shards."""
        return tuple(self._records)

    def corpus(self, paths: Sequence[Path | str]) -> Corpus:
        """Return the runs of some of the shards, in the order of these; frames are neither copied nor read.

        Raises
        ------
        InputError
            With all shards that are not there, were not packed, or have changed since.
        """
        records = self._checked(paths)
        return self._whole.select([number for record in records for number in self._samples[record.name]])

    def identities(self, paths: Sequence[Path | str]) -> dict[str, str]:
        """Return the checksums of shards by file name; errors are those of `corpus`."""
        return {record.name: record.sha256 for record in self._checked(paths)}

    def fingerprints(self, path: Path | str) -> list[str | None]:
        """Return the fingerprint of the run of each sample of a shard."""
        return [self._whole.fingerprints[number] for number in self._samples[remote.name_of(path)]]

    def _checked(self, paths: Sequence[Path | str]) -> list[ShardRecord]:
        problems = []
        for path in paths:
            record = self._records.get(remote.name_of(path))
            if record is None:
                message = f"its runs are not among those packed in {self.folder}"
                problems.append(Problem(remote.shown(path), "", message, _REMEDY))
            elif not Path(path).exists():
                problems.append(Problem(str(path), "", "no such shard", "rerun shard, or correct the path"))
            elif not record.is_that(Path(path)):
                message = f"it has changed since its runs were packed in {self.folder}"
                problems.append(Problem(str(path), "", message, _REMEDY))
        if problems:
            raise InputError(problems)
        return [self._records[remote.name_of(path)] for path in paths]


Shards = LooseShards | PackedShards


def pack(paths: Sequence[Path], folder: Path, *, threads: int = 1) -> None:
    """Write the runs of shards into a folder that `open_packed` reads; it appears as a whole or not at all.

    A few shards are in memory at a time. Several processes may do the same at the same time.

    Parameters
    ----------
    paths : sequence of Path
        Tars, of different names. What makes them a corpus is checked as `load_corpus` does it.
    folder : Path
        To write; one that is there is replaced, and stays readable for those who have it open.
    threads : int, default=1
        Shards that are read at the same time.

    Raises
    ------
    InputError
        As `load_corpus` does.
    """
    twice = [name for name, count in Counter(path.name for path in paths).items() if count > 1]
    if twice:
        message, remedy = "several shards have this name", "give shards different names, or pass each once"
        raise InputError(Problem(name, "", message, remedy) for name in twice)
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        # One run in single precision makes it the precision of all: no number changes.
        for dtype in (np.dtype(np.float16), np.dtype(np.float32)):
            try:
                _pack_as(dtype, paths, temporary, threads)
            except _PrecisionError:
                continue
            break


class _PrecisionError(Exception):
    """A sample has more precision than the file that it is written to."""


def _pack_as(dtype: np.dtype, paths: Sequence[Path], folder: Path, threads: int) -> None:
    collected, records = Collected(), []
    with (folder / FRAMES).open("wb") as stream:
        n_parcels = 0
        for path, (record, samples) in zip(paths, _ahead(_read, paths, threads), strict=True):
            for sample in samples:
                if not len(collected):
                    n_parcels = sample.bold.shape[1]
                    _write_header(stream, dtype, 0, n_parcels)
                collected.add(sample, path)
            _write(stream, dtype, samples)
            records.append(record)
        collected.check_any(paths)
        corpus = collected.corpus(np.empty((0, n_parcels), dtype), paths)
        stream.seek(0)
        _write_header(stream, dtype, int(corpus.lengths.sum()), n_parcels)
    write_json(folder / TABLE, _to_json(corpus, records))


def _read(path: Path) -> tuple[ShardRecord, list[Sample]]:
    try:
        found = path.stat()
    except FileNotFoundError:
        raise InputError(Problem(str(path), "", "no such shard", "rerun shard, or correct the path")) from None
    samples = list(read_shard(path))
    return ShardRecord(path.name, found.st_size, found.st_mtime_ns, file_sha256(path), len(samples)), samples


def _ahead(read: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[Result]:
    """Yield what is read of items, in their order; as many as there are threads are read ahead."""
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(read, item))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _write(stream: IO[bytes], dtype: np.dtype, samples: list[Sample]) -> None:
    for sample in samples:
        if sample.bold.dtype.itemsize > dtype.itemsize:
            raise _PrecisionError
        stream.write(np.ascontiguousarray(sample.bold, dtype).data)


def _write_header(stream: IO[bytes], dtype: np.dtype, n_frames: int, n_parcels: int) -> None:
    """Write the header of an .npy file; numpy leaves room in it for any number of frames."""
    about = {"descr": dtype.newbyteorder("<").str, "fortran_order": False, "shape": (n_frames, n_parcels)}
    np.lib.format.write_array_header_1_0(stream, about)


def _to_json(corpus: Corpus, records: list[ShardRecord]) -> dict[str, Any]:
    samples: dict[str, Any] = {name: list(getattr(corpus, name)) for name in _TEXTS}
    samples |= {name: getattr(corpus, name).tolist() for name in ("lengths", "t_r", "labels")}
    samples["marked"] = [np.flatnonzero(row).tolist() for row in corpus.marked]
    samples["covariates"] = {
        name: [None if np.isnan(value) else value for value in values.tolist()]
        for name, values in corpus.covariates.items()
    }
    if corpus.numbers is not None:
        of_samples = np.split(corpus.numbers, corpus.starts[1:])
        samples["frames"] = [spans_of(numbers) for numbers in of_samples]
    return {
        "format": _FORMAT,
        "contract": dataclasses.asdict(corpus.contract),
        "label_names": list(corpus.label_names),
        "shards": [dataclasses.asdict(record) for record in records],
        "samples": samples,
    }


def _from_json(content: dict[str, Any], frames: np.ndarray) -> tuple[list[ShardRecord], Corpus]:
    if content["format"] != _FORMAT:
        raise ValueError(f"format version {content['format']}, this program reads {_FORMAT}")
    samples = content["samples"]
    lengths = np.array(samples["lengths"], np.int64)
    if frames.ndim != 2 or len(frames) != lengths.sum():
        raise ValueError(f"frames of shape {frames.shape}, {int(lengths.sum())} frames in the table")
    marked = np.zeros((len(lengths), frames.shape[1]), bool)
    for row, parcels in zip(marked, samples["marked"], strict=True):
        row[parcels] = True
    spans = [np.arange(*span, dtype=np.int32) for own in samples.get("frames", []) for span in own]
    corpus = Corpus(
        frames=frames,
        starts=np.cumsum(lengths) - lengths,
        lengths=lengths,
        t_r=np.array(samples["t_r"], np.float64),
        marked=marked,
        labels=np.array(samples["labels"], np.int64),
        label_names=tuple(content["label_names"]),
        keys=tuple(samples["keys"]),
        datasets=tuple(samples["datasets"]),
        subjects=tuple(samples["subjects"]),
        runs=tuple(samples["runs"]),
        contract=Contract.from_json(json.dumps(content["contract"])),
        covariates={name: np.array(values, np.float64) for name, values in samples["covariates"].items()},
        fingerprints=tuple(samples["fingerprints"]),
        numbers=np.concatenate(spans) if spans else None,
    )
    return [ShardRecord(**record) for record in content["shards"]], corpus


def open_packed(folder: Path) -> PackedShards:
    """Open what `pack` wrote.

    Raises
    ------
    InputError
        For a folder that is not there, not complete, or of another version of boldly.
    """
    try:
        # A plain array that looks at the map: slices of numpy's memmap class cost more than those of arrays.
        frames = np.load(folder / FRAMES, mmap_mode="r", allow_pickle=False).view(np.ndarray)
        records, corpus = _from_json(read_json(folder / TABLE), frames)
    except FileNotFoundError as error:
        raise InputError(Problem(str(error.filename), "", "no such file", _REMEDY)) from None
    except (ValueError, KeyError, TypeError, EOFError) as error:
        message = f"not a corpus of packed runs: {type(error).__name__} {error}"
        raise InputError(Problem(str(folder), "", message, _REMEDY)) from None
    return PackedShards(folder, records, corpus)


def is_current(folder: Path, paths: Sequence[Path]) -> bool:
    """Tell whether a folder holds the runs of just these shards, in their order, as they are now."""
    try:
        found = open_packed(folder)
        return list(found.identities(paths)) == list(found.names)
    except InputError:
        return False
