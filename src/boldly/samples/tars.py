"""Tars as WebDataset has them: the members of a sample stand together, ``<key>.<name>``; nothing is compressed.

Reading trusts nothing: names, sizes and the end of the archive are checked, and nothing is ever extracted.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO

from boldly.files import atomic_path
from boldly.records import InputError, Problem

Members = Mapping[str, bytes]


def write_members(path: Path | str, samples: Iterable[tuple[str, Members]]) -> None:
    """Write samples, atomically; the same samples give the same bytes.

    The bytes are those of ``webdataset.TarWriter(user="boldly", group="boldly", mtime=0, compress=False)``,
    without its import of torch; names beyond the 100 characters of old tars get an extended header.

    Parameters
    ----------
    path : Path or str
        The tar.
    samples : iterable of (str, dict of str to bytes)
        Key, and content by name of the member. A key has neither dots nor slashes.

    Raises
    ------
    ValueError
        For a key with a dot or slash (readers would split it), or one that comes twice (they would merge them).
    """
    seen: set[str] = set()
    with (
        atomic_path(path) as temporary,
        temporary.open("wb") as stream,
        tarfile.open(fileobj=stream, mode="w:", format=tarfile.PAX_FORMAT) as tar,
    ):
        for key, members in samples:
            if "." in key or "/" in key or key in seen:
                raise ValueError(f"sample key {key!r} is used twice, or has a dot or slash")
            seen.add(key)
            for name in sorted(members):
                member = tarfile.TarInfo(f"{key}.{name}")
                member.size = len(members[name])
                member.mode = 0o444
                member.uname = member.gname = "boldly"
                tar.addfile(member, io.BytesIO(members[name]))


def read_members(path: Path | str, names: Collection[str] | None = None) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Yield key and members of each sample, in the order of the tar.

    Parameters
    ----------
    path : Path or str
        The tar.
    names : collection of str, optional
        Names of the members to read; the others are passed over and empty. Default: all.

    Raises
    ------
    InputError
        For a file that is not there, is no tar, is cut (also exactly between two samples), has bytes that no
        member accounts for, holds anything but plain files, or a name with a folder in it.
    """
    key, members = "", dict[str, bytes]()
    seen: set[str] = set()
    try:
        with Path(path).open("rb") as stream, tarfile.open(fileobj=stream, mode="r:") as tar:
            end, size = 0, stream.seek(0, io.SEEK_END)
            for header in tar:
                next_key, name = _key_and_name(path, header)
                if next_key != key:
                    if members:
                        yield key, members
                    if next_key in seen:
                        raise damaged(path, next_key, "the sample stands there twice")
                    key, members = next_key, {}
                    seen.add(key)
                if name in members:
                    raise damaged(path, header.name, "the member stands there twice")
                wanted = names is None or name in names
                members[name] = _content(path, stream, header, size) if wanted else b""
                end = header.offset_data + _blocks(header.size)
            _check_end(path, stream, end, key)
    except FileNotFoundError:
        raise InputError(Problem(str(path), "", "no such shard", "rerun shard, or correct the path")) from None
    except InputError:
        raise
    except (tarfile.TarError, EOFError, ValueError, OverflowError, RecursionError, MemoryError) as error:
        raise damaged(path, key, f"not a complete tar: {error}") from None
    if members:
        yield key, members


def damaged(path: Path | str, entity: str, message: str) -> InputError:
    """Return the error for a shard that cannot be used."""
    remedy = "delete it and rerun shard; fetch a ready-made shard again"
    return InputError(Problem(str(path), entity, f"damaged shard: {message}", remedy))


def _key_and_name(path: Path | str, header: tarfile.TarInfo) -> tuple[str, str]:
    if header.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or header.issparse():
        raise damaged(path, header.name, "not a plain file")
    if "/" in header.name or "\\" in header.name or header.name.startswith("."):
        raise damaged(path, header.name, "a member's name may have no folder")
    key, dot, name = header.name.partition(".")
    if not dot:
        raise damaged(path, header.name, "not the name of a sample's member")
    return key, name


def _content(path: Path | str, stream: IO[bytes], header: tarfile.TarInfo, size: int) -> bytes:
    # The size is what the header says: it is compared with the file before anything is read.
    if header.size < 0 or header.offset_data + _blocks(header.size) > size:
        raise damaged(path, header.name, f"the file is cut: {header.size} bytes declared, fewer are there")
    stream.seek(header.offset_data)
    content = stream.read(header.size)
    if any(stream.read(_blocks(header.size) - header.size)):
        raise damaged(path, header.name, "bytes after the content that are not zero")
    return content


def _blocks(size: int) -> int:
    return -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def _check_end(path: Path | str, stream: IO[bytes], end: int, key: str) -> None:
    """Look for the two zero blocks that close a tar: nothing else tells a file that is cut between members."""
    stream.seek(end)
    rest = stream.read()
    where = f"after {key}" if key else "at its start"
    if len(rest) >= tarfile.BLOCKSIZE and rest.strip(b"\0"):
        raise damaged(path, where, "a damaged header, or bytes that no member accounts for")
    if len(rest) < 2 * tarfile.BLOCKSIZE:
        raise damaged(path, where, "the file is cut: the end of the archive is missing")
