"""A web server on the loopback device that serves a folder, and fails as real ones do."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class Handler(SimpleHTTPRequestHandler):
    """Files with ranges; answers as its server is told."""

    server: Server

    def log_message(self, *args: Any) -> None:
        """Stay silent."""

    def do_GET(self) -> None:
        web = self.server
        name = Path(self.path.partition("?")[0]).name
        web.requests.append(self.path)
        web.asked[name] += 1
        if web.busy.get(name, 0) >= web.asked[name]:
            self.send_error(503)
            return
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        content = path.read_bytes()
        start = int((self.headers["Range"] or "bytes=0-")[len("bytes=") : -1]) if web.ranges else 0
        web.starts.append((name, start))
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if web.lengths:
            self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        # A cut connection: fewer bytes than announced, then nothing.
        cut = web.cut.get(name, 0) >= web.asked[name]
        self.wfile.write(content[start : start + (len(content) - start) // 2] if cut else content[start:])


class Server(ThreadingHTTPServer):
    """What happened, and what shall happen.

    Attributes
    ----------
    asked : Counter
        GET requests by file name; `requests` are their paths, `starts` names and first bytes of answers.
    busy, cut : dict of str to int
        How many of the first requests for a file are answered with 503, or with half of what is left of it.
    ranges, lengths : bool
        Whether the server knows ranges, and tells the sizes of files.
    """

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        self.requests: list[str] = []
        self.starts: list[tuple[str, int]] = []
        self.asked: Counter[str] = Counter()
        self.busy: dict[str, int] = {}
        self.cut: dict[str, int] = {}
        self.ranges = self.lengths = True
        super().__init__(("127.0.0.1", 0), partial(Handler, directory=str(folder)))

    @property
    def url(self) -> str:
        """Address of the folder."""
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def serving(folder: Path) -> Iterator[Server]:
    """Serve a folder on a free port."""
    with Server(folder) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
