"""The shard: an uncompressed WebDataset tar of one subject, one sample per run or per trial. Nothing is pickled.

Members of a sample, in this order: ``<key>.bold.npy`` (T, P), ``<key>.json``, ``<key>.mean.npy`` (P,),
``<key>.std.npy`` (P,). The JSON holds the checksums of the arrays and of itself.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, overload

import numpy as np

from boldly import bids
from boldly.files import is_url
from boldly.provenance import Contract
from boldly.samples import lfb_shards
from boldly.samples.remote import join, shown, stream_members
from boldly.samples.sample import Sample, scaling_fingerprint
from boldly.samples.tars import Members, damaged, read_members, write_members

__all__ = [
    "FORMAT_VERSION",
    "Sample",
    "read_fingerprints",
    "read_shard",
    "sample_keys",
    "subject_shards",
    "write_shard",
]

FORMAT_VERSION = 1
_ARRAYS = ("bold", "mean", "std")
_MEMBERS = ("bold.npy", "json", "mean.npy", "std.npy")
_NEEDED = ("dataset", "subject", "run_key", "t_r", "n_volumes")
_NPY_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def write_shard(path: Path | str, samples: Iterable[Sample]) -> None:
    """Write a tar, atomically; the same samples give the same bytes. No sample at all gives an empty tar."""
    write_members(path, ((sample.key, _encode(sample)) for sample in samples))


def read_shard(path: Path | str) -> Iterator[Sample]:
    """Yield the samples of a tar in their order; LfB's layout (`boldly.samples.lfb_shards`) is understood as well.

    A tar at a web address is read while it arrives. Arrays share memory with what was read and cannot be written
    to.

    Raises
    ------
    InputError
        For a file that is cut, or a sample with a missing, unknown or damaged member: a flipped byte is noticed.
    """
    for key, members in stream_members(path) if isinstance(path, str) and is_url(path) else read_members(path):
        decode = lfb_shards.decode if lfb_shards.is_layout(members) else _decode
        yield decode(shown(path), key, members)


def read_fingerprints(path: Path | str) -> list[str | None]:
    """Return the fingerprint of the run of each sample of a tar, without reading the signals.

    None stands for samples whose scaling is not known (`run_fingerprint`), all of LfB's among them.

    Raises
    ------
    InputError
        For a file that is cut or damaged in its structure; checksums are not compared.
    """
    fingerprints = []
    for key, members in read_members(path, ("mean.npy", "std.npy")):
        try:
            scaling = None if lfb_shards.is_layout(members) else (members["mean.npy"], members["std.npy"])
            fingerprints.append(scaling and scaling_fingerprint(*map(_array, scaling)))
        except (KeyError, ValueError) as error:
            raise damaged(path, key, f"no mean and standard deviation: {error}") from None
    return fingerprints


def sample_keys(path: Path | str) -> list[str]:
    """Return the keys of the samples of a tar in their order; no content is read.

    Raises
    ------
    InputError
        For a file that is not there, is cut or damaged in its structure; checksums are not compared.
    """
    return [key for key, _ in read_members(path, ())]


@overload
def subject_shards(folder: Path, dataset: str, subject: str) -> list[Path]: ...
@overload
def subject_shards(folder: Path | str, dataset: str, subject: str) -> list[Path | str]: ...
def subject_shards(folder: Path | str, dataset: str, subject: str) -> list[Path] | list[Path | str]:
    """Return the tars of a subject in a folder: the one that boldly writes, or LfB's, one for each run, sorted.

    Parameters
    ----------
    folder : Path or str
        Folder of shards, or its web address: there only the name that boldly gives counts.
    dataset, subject : str
        Names.

    Returns
    -------
    list of Path or str
        The name that boldly gives if there is no file at all, so that errors name it.
    """
    if isinstance(folder, str) and is_url(folder):
        address: list[Path | str] = [join(folder, bids.shard_name(dataset, subject))]
        return address
    whole = Path(folder) / bids.shard_name(dataset, subject)
    return [whole] if whole.exists() else sorted(whole.parent.glob(f"{whole.stem}_*.tar")) or [whole]


def _encode(sample: Sample) -> dict[str, bytes]:
    arrays = {name: _npy(getattr(sample, name)) for name in _ARRAYS}
    meta = {
        **sample.meta,
        "format": FORMAT_VERSION,
        "contract": dataclasses.asdict(sample.contract),
        "contract_sha256": sample.contract.sha256,
    }
    sha256 = {name: hashlib.sha256(content).hexdigest() for name, content in arrays.items()}
    content = _canonical({**meta, "sha256": {**sha256, "meta": _meta_sha256(meta)}})
    return {"json": content, **{f"{name}.npy": array for name, array in arrays.items()}}


def _decode(path: Path | str, key: str, members: Members) -> Sample:
    unknown = sorted(set(members) - set(_MEMBERS))
    if unknown:
        raise damaged(path, key, f"members that a shard does not have: {', '.join(unknown)}")
    missing = [name for name in _MEMBERS if name not in members]
    if missing:
        raise damaged(path, key, f"the sample lacks {', '.join(missing)}")
    meta, contract = _decode_meta(path, key, members)
    try:
        bold, mean, std = (_array(members[f"{name}.npy"]) for name in _ARRAYS)
    except ValueError as error:
        raise damaged(path, key, str(error)) from None
    parcels = (contract.n_parcels,)
    if bold.ndim != 2 or bold.shape[1:] != parcels or mean.shape != parcels or std.shape != parcels:
        shapes = f"bold {bold.shape}, mean {mean.shape}, std {std.shape}"
        raise damaged(path, key, f"{shapes}: not the {contract.n_parcels} parcels of its contract")
    if len(bold) != meta["n_volumes"]:
        raise damaged(path, key, f"{len(bold)} frames, {meta['n_volumes']} in its JSON")
    if "frames" in meta and sum(stop - first for first, stop in meta["frames"]) != len(bold):
        raise damaged(path, key, f"{len(bold)} frames, not those that its JSON numbers")
    return Sample(key, bold, mean, std, meta, contract)


def _decode_meta(path: Path | str, key: str, members: Members) -> tuple[dict[str, Any], Contract]:
    """Return the meta data of a sample and its contract, once all checksums are found right."""
    try:
        meta = json.loads(members["json"])
        if meta["format"] != FORMAT_VERSION:
            raise ValueError(f"format version {meta['format']}, this program reads {FORMAT_VERSION}")
        sha256 = meta.pop("sha256")
        wrong = [f"{name}.npy" for name in _ARRAYS if _sha256(members[f"{name}.npy"]) != sha256[name]]
        if sha256["meta"] != _meta_sha256(meta):
            wrong.append("json")
        if wrong:
            raise ValueError(f"the checksum of {', '.join(wrong)} does not match its content")
        contract = Contract.from_json(json.dumps(meta.pop("contract")))
        if meta.pop("contract_sha256") != contract.sha256:
            raise ValueError("the checksum of the contract does not match its content")
        del meta["format"]
        absent = [name for name in _NEEDED if name not in meta]
        if absent:
            raise ValueError(f"its JSON lacks {', '.join(absent)}")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        message = f"its JSON lacks {error}" if isinstance(error, KeyError) else str(error)
        raise damaged(path, key, message) from None
    return meta, contract


def _canonical(content: dict[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, allow_nan=False).encode()


def _meta_sha256(meta: dict[str, Any]) -> str:
    return _sha256(_canonical(meta))


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.ascontiguousarray(array), allow_pickle=False)
    return stream.getvalue()


def _array(content: bytes) -> np.ndarray:
    """Read an array in .npy format without trusting the size that it declares."""
    stream = io.BytesIO(content)
    version = np.lib.format.read_magic(stream)
    if version not in _NPY_HEADERS:
        raise ValueError(f"array format {version}")
    shape, fortran, dtype = _NPY_HEADERS[version](stream)
    if dtype not in (np.dtype("<f2"), np.dtype("<f4")) or fortran:
        raise ValueError(f"an array of {dtype}, not float16 or float32 in C order")
    expected = dtype.itemsize
    for length in shape:
        expected *= length
    if expected != len(content) - stream.tell():
        raise ValueError(f"an array of shape {shape} in {len(content)} bytes")
    return np.frombuffer(content, dtype, offset=stream.tell()).reshape(shape)
