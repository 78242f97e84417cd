"""Shards at a web address: read as streams, taken up again where a connection broke.

Requests go through `urllib`, which knows proxies and certificates. WebDataset reads the tars; its own opener of
addresses, a shell command, is never used.
"""

from __future__ import annotations

import io
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import TypeVar
from urllib.error import HTTPError
from urllib.parse import quote, urlsplit, urlunsplit
from urllib.request import Request, urlopen

from boldly.files import is_url
from boldly.records import InputError, Problem
from boldly.samples.s3 import web_address
from boldly.samples.tars import damaged

T = TypeVar("T")

# Of one wait for a server.
_TIMEOUT_S = 30.0
# Between attempts. A request that brought bytes starts with the first again.
_WAITS_S = (1.0, 2.0, 4.0)
# Answers that another attempt may change.
_PASSING = (408, 425, 429, 500, 502, 503, 504)
# Requests wait for the network, not for the processor.
_THREADS = 8
_TAR_MAGIC = slice(257, 262)


def join(folder: str, name: str) -> str:
    """Return the address of a file in a folder; what stands behind a question mark (a signature) stays there."""
    parts = urlsplit(folder)
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{quote(name)}"))


def shown(location: Path | str) -> str:
    """Return a path, or an address without what may be secret in it: user, password and query."""
    if not is_url(location):
        return str(location)
    parts = urlsplit(str(location))
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def name_of(location: Path | str) -> str:
    """Return the name of a file, at an address as well."""
    return Path(urlsplit(str(location)).path if is_url(location) else location).name


class WebStream(io.RawIOBase):
    """A file at an address, read from its start to its end.

    Parameters
    ----------
    url : str
        Address: http, https or s3.

    Raises
    ------
    InputError
        While reading, when a few attempts brought nothing, with the address.

    Notes
    -----
    A connection that is cut is noticed by the length that the server announced. The stream goes on from the byte
    that it has reached (a server that knows no ranges sends the bytes before it again).
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._reached = 0
        self._response: HTTPResponse | None = None
        # Size and ETag, as far as the server tells.
        self._identity: tuple[int | None, str | None] = (None, None)

    def readable(self) -> bool:
        """Tell that this is a stream to read."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill a buffer as far as bytes are there; 0 at the end."""
        count = _patiently(self.url, lambda: self._attempt(buffer))
        self._reached += count
        return count

    def close(self) -> None:
        """Give the connection up."""
        self._disconnect()
        super().close()

    def _attempt(self, buffer: memoryview) -> int:
        try:
            response = self._response or self._connect()
            count = response.readinto(buffer)
            size = self._identity[0]
            if not count and len(buffer) and size is not None and self._reached < size:
                raise ConnectionError(f"cut after {self._reached} of {size} bytes")
        except (OSError, HTTPException):
            self._disconnect()
            raise
        return count

    def _connect(self) -> HTTPResponse:
        headers = {"Range": f"bytes={self._reached}-"} if self._reached else {}
        response: HTTPResponse = urlopen(Request(web_address(self.url), headers=headers), timeout=_TIMEOUT_S)
        self._response = response
        identity = (_size(response), response.headers["ETag"])
        for before, now in zip(self._identity, identity, strict=True):
            if before is not None and now is not None and before != now:
                message = "changed while it was read"
                raise InputError(Problem(shown(self.url), "", message, "start again when the file is complete"))
        self._identity = identity
        skip = 0 if response.status == 206 else self._reached
        while skip:
            passed = len(response.read(min(skip, 1 << 20)))
            if not passed:
                raise ConnectionError(f"cut before byte {self._reached}, which was reached before")
            skip -= passed
        return response

    def _disconnect(self) -> None:
        if self._response is not None:
            self._response.close()
        self._response = None


def fetch(url: str) -> bytes:
    """Return the content of a small file at an address."""
    with WebStream(url) as stream:
        return stream.readall()


def sizes(urls: Sequence[str]) -> dict[str, int | None]:
    """Ask for the sizes of files (bytes; None where the server does not tell) without reading them.

    Raises
    ------
    InputError
        With every file that is not there.
    """
    found: dict[str, int | None] = {}
    problems: list[Problem] = []
    with ThreadPoolExecutor(_THREADS) as pool:
        answers = {url: pool.submit(_patiently, url, partial(_ask, url)) for url in urls}
    for url, answer in answers.items():
        try:
            found[url] = answer.result()
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    return found


def stream_members(url: str) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Yield key and members of each sample of a tar at an address, while it arrives.

    Raises
    ------
    InputError
        For a file that cannot be read, is no tar, is cut, or has bytes that no member accounts for; the last two
        may show only behind the last sample.
    """
    # It imports torch, which those who prepare data do not have.
    from webdataset.tariterators import group_by_keys, tar_file_expander

    with WebStream(url) as connection:
        stream = _TarStream(connection)
        try:
            files = tar_file_expander([{"url": url, "stream": stream}])
            for sample in group_by_keys(files, lcase=False):
                key = sample.pop("__key__")
                yield key, {name: content for name, content in sample.items() if isinstance(content, bytes)}
            stream.check_end()
        except InputError as error:
            # WebDataset hangs stream and address on the words of an error.
            raise InputError(error.problems) from None
        except (tarfile.TarError, EOFError, ValueError, OverflowError, MemoryError) as error:
            reason = str(error.args[0] if error.args else error).partition(" @ ")[0]
            raise damaged(shown(url), "", f"not a complete tar: {reason}") from None


class _TarStream:
    """What a tar reader needs of a stream, and a look at its start and end, at which such a reader is generous."""

    def __init__(self, stream: io.RawIOBase) -> None:
        self._stream = io.BufferedReader(stream)
        self._started = False
        self._last = b""

    def read(self, count: int) -> bytes:
        content = self._stream.read(count)
        if not self._started:
            self._started = True
            # Nothing is unpacked: a small file must not become a large one.
            if content[_TAR_MAGIC] != b"ustar" and any(content[: tarfile.BLOCKSIZE]):
                raise tarfile.ReadError("the file does not start as one")
        self._last = (self._last + content)[-2 * tarfile.BLOCKSIZE :]
        return content

    def check_end(self) -> None:
        """Read to the end, which two zero blocks must be; readers also stop at damaged headers and cut files."""
        while rest := self.read(tarfile.RECORDSIZE):
            if any(rest):
                raise tarfile.ReadError("a damaged header, or bytes that no member accounts for")
        if len(self._last) < 2 * tarfile.BLOCKSIZE or any(self._last):
            raise tarfile.ReadError("the end of the archive is missing")


def _ask(url: str) -> int | None:
    with urlopen(Request(web_address(url, "HEAD"), method="HEAD"), timeout=_TIMEOUT_S) as response:
        return _size(response)


def _size(response: HTTPResponse) -> int | None:
    """Return the size of the whole file, of which an answer may hold the rest only."""
    whole = response.headers.get("Content-Range", "").rpartition("/")[2]
    text = whole or response.headers.get("Content-Length", "")
    return int(text) if text.isdigit() else None


def _patiently(url: str, attempt: Callable[[], T]) -> T:
    """Try a few times; say what is wrong, in words that name the address."""
    reason = ""
    for wait in (*_WAITS_S, None):
        try:
            return attempt()
        except HTTPError as error:
            reason = f"the server answers {error.code} {error.reason}"
            error.close()
            if error.code not in _PASSING:
                break
        except (OSError, HTTPException) as error:
            reason = str(getattr(error, "reason", "") or error) or type(error).__name__
        if wait is not None:
            time.sleep(wait)
    remedy = "check the address and the server, and start again; a training goes on from its last checkpoint"
    raise InputError(Problem(shown(url), "", f"cannot be read: {reason}", remedy))
