"""A headless Chromium that tests look at pages with, driven by chromedriver over plain HTTP (W3C WebDriver)."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Self

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-sync",
    "--no-first-run",
)
WAY_OUT = "install chromium and chromium-driver (make test-browser does so on Debian)"


class Browser:
    """Chromium with a profile of its own; a context manager.

    Parameters
    ----------
    profile : Path
        Folder for its profile, new.
    size : tuple of int, default=(1280, 900)
        Width and height of the window, pixels.
    dark : bool, default=False
        Whether the reader prefers dark colours.
    """

    def __init__(self, profile: Path, size: tuple[int, int] = (1280, 900), *, dark: bool = False) -> None:
        programs = [shutil.which("chromedriver"), shutil.which("chromium") or shutil.which("google-chrome")]
        if not all(programs):
            raise FileNotFoundError(WAY_OUT)
        self._driver = subprocess.Popen(
            [str(programs[0]), "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self._address = f"http://127.0.0.1:{self._port()}"
        flags = [*FLAGS, f"--user-data-dir={profile}", f"--window-size={size[0]},{size[1]}"]
        options = {"binary": programs[1], "args": [*flags, "--force-dark-mode"] if dark else flags}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"}}
        answer = self._call("/session", {"capabilities": {"alwaysMatch": wanted}})
        self._session = f"/session/{answer['sessionId']}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._call(self._session, method="DELETE")
        finally:
            self._driver.terminate()
            self._driver.wait()

    def open(self, path: Path) -> None:
        """Load a page from a file and wait until it is complete."""
        self._call(f"{self._session}/url", {"url": path.resolve().as_uri()})

    def run(self, script: str) -> Any:
        """Return what the body of a function in JavaScript returns on the page."""
        return self._call(f"{self._session}/execute/sync", {"script": script, "args": []})

    def console(self) -> list[str]:
        """Return what the console has said since the last call."""
        return [entry["message"] for entry in self._log("browser")]

    def requests(self) -> list[str]:
        """Return the addresses that were asked for since the last call, without files and data addresses."""
        events = [json.loads(entry["message"])["message"] for entry in self._log("performance")]
        sent = [
            event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"
        ]
        return [address for address in sent if not address.startswith(("file:", "data:", "about:", "blob:"))]

    def _log(self, kind: str) -> list[dict[str, Any]]:
        return self._call(f"{self._session}/se/log", {"type": kind})

    def _port(self) -> int:
        deadline = time.monotonic() + 60
        assert self._driver.stdout is not None
        for line in self._driver.stdout:
            if found := re.search(r"successfully on port (\d+)", line):
                return int(found[1])
            if time.monotonic() > deadline:
                break
        raise TimeoutError("chromedriver names no port")

    def _call(self, path: str, content: Any = None, method: str | None = None) -> Any:
        data = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(
            self._address + path, data, {"Content-Type": "application/json"}, method=method
        )
        # Never through a proxy: it is this machine.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=120) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(error.read().decode()[:2000]) from None
