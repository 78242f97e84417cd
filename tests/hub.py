"""A hub on the loopback device: as much of its interface as huggingface_hub asks for."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit


class Handler(BaseHTTPRequestHandler):
    """Repositories in memory; a commit is a set of files."""

    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        """Stay silent."""

    def answer(self, content: bytes, status: int = 200, **headers: str) -> None:
        """Send bytes, and none of them for HEAD."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def say(self, content: object, status: int = 200, **headers: str) -> None:
        """Send JSON."""
        self.answer(json.dumps(content).encode(), status, Content_Type="application/json", **headers)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        hub, path = self.server, urlsplit(self.path).path
        hub.requests.append(f"POST {path}")
        if path == "/api/repos/create":
            wanted = json.loads(body)
            name = f"{wanted['organization']}/{wanted['name']}" if wanted.get("organization") else wanted["name"]
            hub.commits.setdefault(name, {})
            self.say({"url": f"{hub.url}/{name}", "id": name, "name": name})
        elif path == "/api/validate-yaml":
            self.say({"errors": [], "warnings": []})
        elif "/preupload/" in path:
            asked = json.loads(body)["files"]
            modes = [{"path": item["path"], "uploadMode": "regular", "shouldIgnore": False} for item in asked]
            self.say({"files": modes})
        elif "/commit/" in path:
            name = path.removeprefix("/api/models/").partition("/commit/")[0]
            files = dict(hub.newest(name))
            for line in map(json.loads, body.decode().splitlines()):
                if line["key"] == "file":
                    files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            commit = hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()
            hub.commits[name][commit] = files
            self.say({"commitUrl": f"{hub.url}/{name}/commit/{commit}", "commitOid": commit})
        else:
            self.say({"error": "no such thing"}, 404)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        hub, path = self.server, unquote(urlsplit(self.path).path)
        hub.requests.append(f"{self.command} {path}")
        if path.startswith("/api/models/"):
            owner, name, *rest = path.removeprefix("/api/models/").split("/")
            files, commit = hub.files(f"{owner}/{name}", rest[1] if len(rest) > 1 else "main")
            if files is None:
                self.say({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")
            elif rest and rest[0] == "tree":
                self.say([{"type": "file", "path": p, "size": len(c), "oid": "0"} for p, c in files.items()])
            else:
                siblings = [{"rfilename": file} for file in files]
                about = {
                    "id": f"{owner}/{name}",
                    "sha": commit,
                    "siblings": siblings,
                    "tags": [],
                    "private": False,
                }
                self.say({**about, "modelId": f"{owner}/{name}", "downloads": 0})
            return
        repository, _, rest_of_path = path.strip("/").partition("/resolve/")
        revision, _, file = rest_of_path.partition("/")
        files, commit = hub.files(repository, revision)
        if files is None or file not in files:
            self.say({"error": "Entry not found"}, 404, X_Error_Code="EntryNotFound")
            return
        etag = hashlib.sha1(files[file]).hexdigest()
        self.answer(files[file], ETag=f'"{etag}"', X_Repo_Commit=commit, Accept_Ranges="bytes")


class Hub(ThreadingHTTPServer):
    """Repositories by name, each with its commits in their order; `requests` are what was asked for."""

    daemon_threads = True

    def __init__(self) -> None:
        self.commits: dict[str, dict[str, dict[str, bytes]]] = {}
        self.requests: list[str] = []
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        """Address."""
        return f"http://127.0.0.1:{self.server_port}"

    def newest(self, name: str) -> dict[str, bytes]:
        """Return the files of the newest commit."""
        return next(reversed(self.commits[name].values()), {})

    def files(self, name: str, revision: str) -> tuple[dict[str, bytes] | None, str]:
        """Return the files of a revision and its commit; None: there is none."""
        commits = self.commits.get(name, {})
        commit = next(reversed(commits), "") if revision == "main" else revision
        return commits.get(commit), commit


@contextmanager
def running_hub() -> Iterator[Hub]:
    """Run a hub on a free port."""
    with Hub() as hub:
        thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()
