"""The shard: an uncompressed WebDataset tar of one subject, one sample per run or per trial. Nothing is pickled.

Members of a sample, in this order: ``<key>.bold.npy`` (T, P), ``<key>.json``, ``<key>.mean.npy`` (P,),
``<key>.std.npy`` (P,).
"""

from __future__ import annotations

import dataclasses
import io
import json
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from boldly.files import atomic_path
from boldly.provenance import Contract
from boldly.records import InputError, Problem

FORMAT_VERSION = 1
_MEMBERS = ("bold.npy", "json", "mean.npy", "std.npy")


@dataclass(frozen=True)
class Sample:
    """One record of a shard.

    Attributes
    ----------
    key : str
        Run key, for a trial with ``_sample_NNN`` behind.
    bold : ndarray of float16 or float32, shape (T, P)
        Signals, scaled over the run.
    mean, std : ndarray of float32, shape (P,)
        What scaling removed.
    meta : dict
        dataset, subject, run_key, entities, t_r (s), n_volumes (frames of this sample), marked (parcel numbers);
        for a trial also number, label, label_name, labels (all names, in label order), onset and duration (s).
    contract : Contract
        How the signals came about.
    """

    key: str
    bold: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    meta: dict[str, Any]
    contract: Contract


def write_shard(path: Path | str, samples: Iterable[Sample]) -> None:
    """Write a tar with `webdataset.TarWriter`, atomically; the same samples give the same bytes."""
    import webdataset  # pulls in torch: only jobs that write shards pay for it

    with (
        atomic_path(path) as temporary,
        temporary.open("wb") as stream,
        webdataset.TarWriter(stream, user="boldly", group="boldly", mtime=0, compress=False) as writer,
    ):
        for sample in samples:
            writer.write(_encode(sample))


def read_shard(path: Path | str) -> Iterator[Sample]:
    """Yield the samples of a tar in their order.

    Raises
    ------
    InputError
        For a file that is cut, or a sample with a missing, unknown or damaged member.
    """
    members: dict[str, bytes] = {}
    current = ""
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                key, _, name = member.name.partition(".")
                if not member.isfile() or name not in _MEMBERS or "/" in key:
                    raise _damaged(path, member.name, "not a member that a boldly shard has")
                if key != current and members:
                    yield _decode(path, current, members)
                    members = {}
                current = key
                stream = tar.extractfile(member)
                members[name] = stream.read() if stream else b""
    except (tarfile.TarError, EOFError) as error:
        raise _damaged(path, current, str(error)) from None
    if members:
        yield _decode(path, current, members)


def _encode(sample: Sample) -> dict[str, Any]:
    meta = {
        **sample.meta,
        "format": FORMAT_VERSION,
        "contract": dataclasses.asdict(sample.contract),
        "contract_sha256": sample.contract.sha256,
    }
    arrays = {name: _npy(getattr(sample, name)) for name in ("bold", "mean", "std")}
    return {
        "__key__": sample.key,
        "json": json.dumps(meta, sort_keys=True, allow_nan=False).encode(),
        **{f"{name}.npy": content for name, content in arrays.items()},
    }


def _decode(path: Path | str, key: str, members: dict[str, bytes]) -> Sample:
    missing = [name for name in _MEMBERS if name not in members]
    if missing:
        raise _damaged(path, key, f"the sample lacks {', '.join(missing)}")
    try:
        meta = json.loads(members["json"])
        arrays = [
            np.load(io.BytesIO(members[f"{name}.npy"]), allow_pickle=False) for name in ("bold", "mean", "std")
        ]
        contract = Contract.from_json(json.dumps(meta.pop("contract")))
    except (ValueError, KeyError, TypeError, EOFError) as error:
        raise _damaged(path, key, str(error)) from None
    if meta.pop("format") != FORMAT_VERSION:
        raise _damaged(path, key, f"format version other than {FORMAT_VERSION}")
    if meta.pop("contract_sha256") != contract.sha256:
        raise _damaged(path, key, "the contract does not match its checksum")
    bold, mean, std = arrays
    return Sample(key, bold, mean, std, meta, contract)


def _npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.ascontiguousarray(array), allow_pickle=False)
    return stream.getvalue()


def _damaged(path: Path | str, entity: str, message: str) -> InputError:
    return InputError(Problem(str(path), entity, f"damaged shard: {message}", "delete it and rerun shard"))
