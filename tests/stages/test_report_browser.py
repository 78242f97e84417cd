"""The report as a reader sees it, in headless Chromium: ``make test-browser``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from boldly.config import Config, parse, resolve
from boldly.stages import report
from tests.browser import Browser
from tests.stages import finished

pytestmark = pytest.mark.browser

# A page with a script that draws: what a view of a brain map has to be able to do inside the report.
VIEW = """<!DOCTYPE html><title>Map of state face</title><canvas width="200" height="100"></canvas>
<script>const pen = document.querySelector("canvas").getContext("2d"); pen.fillRect(0, 0, 100, 100);
parent.postMessage(pen.getImageData(1, 1, 1, 1).data[3], "*");</script>"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    results = finished.write(folder)
    view = results / "explain/task/face.html"
    view.parent.mkdir(parents=True)
    view.write_text(VIEW)
    config = resolve(parse(Config, finished.CONFIG, "test"), Path(__file__).parents[2])
    report.run(results=results, output=folder / "report.html", config=config)
    return folder / "report.html"


@pytest.fixture(scope="module")
def browser(page: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as found:
        found.open(page)
        yield found


def test_no_error_and_no_request(browser: Browser, page: Path) -> None:
    browser.console()
    browser.requests()  # those of the empty tab that it starts with
    browser.open(page)
    assert browser.console() == []
    assert browser.requests() == []


def test_requests_and_errors_would_be_seen(browser: Browser, page: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.html"
    other.write_text('<img src="http://127.0.0.1:9/none.png"><script>missing()</script>')
    browser.open(other)
    try:
        assert browser.requests() == ["http://127.0.0.1:9/none.png"]
        assert any("missing is not defined" in line for line in browser.console())
    finally:
        browser.open(page)


def test_every_picture_is_there(browser: Browser) -> None:
    sizes = browser.run("return [...document.images].map(image => [image.complete, image.naturalWidth])")
    assert len(sizes) == 2  # those of the finished study
    assert all(complete and width > 0 for complete, width in sizes)


def test_views_run_inside_the_page(browser: Browser) -> None:
    script = """const frame = document.querySelector("iframe");
    return new Promise(done => { addEventListener("message", event => done(event.data)); frame.srcdoc += " "; })"""
    assert browser.run(script) == 255  # an opaque pixel: its script drew


def test_headings_sort_rows(browser: Browser) -> None:
    accuracies = """const table = [...document.querySelectorAll("table")].find(
        one => one.textContent.includes("Balanced accuracy") || one.caption.textContent.includes("scores on"));
    const column = [...table.tHead.rows[0].cells].findIndex(one => one.textContent.startsWith("Accuracy"));
    const heading = table.tHead.rows[0].cells[column];
    heading.querySelector("button").click();
    return [heading.ariaSort, [...table.tBodies[0].rows].map(row => Number(row.cells[column].dataset.value))]"""
    said, first = browser.run(accuracies)
    assert said == "ascending"
    assert first == sorted(first)
    said, second = browser.run(accuracies)
    assert said == "descending"
    assert second == sorted(second, reverse=True)


@pytest.mark.parametrize("width", [390, 1600])
@pytest.mark.parametrize("dark", [False, True])
def test_text_is_readable_and_nothing_sticks_out(page: Path, tmp_path: Path, width: int, dark: bool) -> None:
    """The page never scrolls sideways, on a phone either; text and page contrast by 7 : 1 (WCAG, AAA)."""
    with Browser(tmp_path / "profile", (width, 900), dark=dark) as browser:
        browser.open(page)
        inside, whole = browser.run(
            "return [document.documentElement.clientWidth, document.documentElement.scrollWidth]"
        )
        ink, paper = browser.run("const s = getComputedStyle(document.body); return [s.color, s.backgroundColor]")
    assert whole <= inside
    light, dark_one = sorted((_luminance(ink), _luminance(paper)), reverse=True)
    assert (light + 0.05) / (dark_one + 0.05) >= 7
    assert (_luminance(paper) < 0.5) == dark


def _luminance(colour: str) -> float:
    """Return the relative luminance of ``rgb(r, g, b)``, as WCAG 2 defines it."""
    parts = [int(part) / 255 for part in colour.partition("(")[2].rstrip(")").split(",")[:3]]
    red, green, blue = (part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
