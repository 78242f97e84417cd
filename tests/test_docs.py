"""Links between documents hold on the web page of the repository, and what is made for the site is made whole."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from boldly.cli import parser

CHECKOUT = Path(__file__).parents[1]
# Pictures and lists that the site makes.
MADE = "_made/"


@pytest.fixture(scope="module")
def generated() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generated", CHECKOUT / "docs/generated.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def documents() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "*.md"], cwd=CHECKOUT, capture_output=True, text=True)
    names = listed.stdout.split() if listed.returncode == 0 else []
    return [CHECKOUT / name for name in names] or sorted(CHECKOUT.glob("*.md"))


def anchors(path: Path) -> set[str]:
    """Return the anchors of headings, as the web page of a repository makes them."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_lead_somewhere() -> None:
    broken = []
    for page in documents():
        for target in re.findall(r"\]\((?!https?:|mailto:)([^)\s]+)\)", page.read_text()):
            name, _, anchor = target.partition("#")
            other = (page.parent / name).resolve() if name else page
            if MADE in target:
                continue
            if not other.exists() or (anchor and other.suffix == ".md" and anchor not in anchors(other)):
                broken.append(f"{page.relative_to(CHECKOUT)}: {target}")
    assert not broken


def test_the_page_of_commands_has_all(generated: ModuleType) -> None:
    page = generated.commands()
    for name in re.findall(r"^    ([a-z-]+) ", parser().format_help(), re.MULTILINE):
        assert f"## boldly {name}" in page


def test_layers_are_drawn_from_the_contract(generated: ModuleType) -> None:
    drawing = generated.layers()
    # In git, so that the repository's web page shows it: make docs writes it anew.
    assert (CHECKOUT / "docs" / generated.LAYERS).read_text() == drawing
    for name in ("cli", "stages", "training", "models", "samples", "config", "files"):
        assert f">{name}</text>" in drawing


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[a](../config/README.md#atlas)", "[a](_made/options.md#atlas)"),
        ("[a](decoders.md)", "[a](decoders.md)"),
        ("[a](../Snakefile) b", "a b"),
        ("[`a`](../Snakefile) `x[0]`, y[1], [b](decoders.md)", "`a` `x[0]`, y[1], [b](decoders.md)"),
        ("![a](../workflow/rulegraph.svg)", "![a](_made/rulegraph.svg)"),
        ("[a](https://example.org)", "[a](https://example.org)"),
        ("[a](#here)", "[a](#here)"),
    ],
)
def test_links_of_the_repository_become_those_of_the_site(generated: ModuleType, text: str, expected: str) -> None:
    source = [text]
    generated.with_links_of_the_site(None, "decoders", source)
    assert source == [expected]


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-b",
        "html",
        "-W",
        "--keep-going",
        "-q",
        "docs",
        str(tmp_path / "site"),
    ]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    for page in ("index", "_made/options", "_made/api/boldly.signals", "tutorials/demo"):
        assert (tmp_path / f"site/{page}.html").is_file()
