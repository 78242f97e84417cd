"""Pages of the site that are made from code and from other documents of the repository, and links between them.

The pages stand in ``docs/_made``, which git ignores.
"""

from __future__ import annotations

import argparse
import re
import shutil
import tomllib
from pathlib import Path
from xml.sax.saxutils import escape

from boldly.cli import parser

CHECKOUT = Path(__file__).parents[1]
# Documents that stand elsewhere in the repository, where its web page shows them, and their pages on the site.
TAKEN = {
    "config/README.md": "_made/options.md",
    "benchmarks/README.md": "_made/benchmarks.md",
    "CHANGELOG.md": "_made/changelog.md",
    "CONTRIBUTING.md": "_made/contributing.md",
    "data/upstream/README.md": "_made/shards.md",
    "results/README.md": "_made/results.md",
}
PICTURE = "workflow/rulegraph.svg"
# In git, for the web page of the repository.
LAYERS = "about/layers.svg"
_LINK = re.compile(r"\[([^\[\]]+)\]\((?!https?:|#|mailto:)([^)#\s]+)(#[^)\s]*)?\)")


def write(docs: Path) -> None:
    """Write all pages that are made."""
    folder = docs / "_made"
    folder.mkdir(exist_ok=True)
    for source, page in TAKEN.items():
        text = (CHECKOUT / source).read_text(encoding="utf-8")
        _write(docs / page, _relinked(text, Path(source), Path(page)))
    _write(folder / "commands.md", commands())
    _write(docs / LAYERS, layers())
    shutil.copyfile(CHECKOUT / PICTURE, folder / "rulegraph.svg")


def with_links_of_the_site(app: object, name: str, source: list[str]) -> None:
    """Change links to documents outside of docs/ into links to their pages on the site."""
    if not name.startswith("_made/"):
        page = Path(f"{name}.md")
        source[0] = _relinked(source[0], Path("docs") / page, page)


def _relinked(text: str, source: Path, page: Path) -> str:
    """Return Markdown whose links count from a page of the site, not from the file it was written in.

    Parameters
    ----------
    text : str
        Markdown.
    source : Path
        Where it stands in the repository.
    page : Path
        Where it stands on the site, relative to docs/.
    """

    def relinked(match: re.Match[str]) -> str:
        words, target = match[1], _normal(source.parent / match[2])
        anchor = match[3] or ""
        if target.startswith("docs/"):
            return f"[{words}]({_relative(target.removeprefix('docs/'), page)}{anchor})"
        if target == PICTURE:
            return f"[{words}]({_relative('_made/rulegraph.svg', page)})"
        if target in TAKEN:
            return f"[{words}]({_relative(TAKEN[target], page)}{anchor})"
        return words  # a file that is no page keeps its name

    return _LINK.sub(relinked, text)


def _normal(path: Path) -> str:
    parts: list[str] = []
    for part in path.parts:
        if part == "..":
            parts.pop()
        elif part != ".":
            parts.append(part)
    return "/".join(parts)


def _relative(target: str, page: Path) -> str:
    return "../" * len(page.parent.parts) + target


def commands() -> str:
    """Return the page of the command line, from its parser."""
    whole = parser()
    action = next(one for one in whole._actions if isinstance(one, argparse._SubParsersAction))
    said = {choice.dest: choice.help or "" for choice in action._choices_actions}
    lines = ["# Commands", "", "Made from the parser of `boldly`; `boldly COMMAND --help` says the same.", ""]
    for name, sub in action.choices.items():
        lines += [f"## boldly {name}", "", f"{said.get(name, '').capitalize()}.", ""]
        rows = [row for one in sub._actions if (row := _argument(one)) is not None]
        if rows:
            lines += ["| argument | meaning |", "|---|---|", *rows, ""]
    return "\n".join(lines)


def _argument(one: argparse.Action) -> str | None:
    if isinstance(one, argparse._HelpAction) or one.help == argparse.SUPPRESS:
        return None
    names = " ".join(one.option_strings) or one.dest.upper()
    metavar = " ".join(one.metavar) if isinstance(one.metavar, tuple) else one.metavar
    if one.option_strings and one.nargs != 0:
        names += f" {metavar or (one.choices and '{' + ','.join(map(str, one.choices)) + '}') or one.dest.upper()}"
    needed = " (required)" if one.required and one.option_strings else ""
    text = (one.help or "").replace("|", r"\|").replace("%%", "%").replace("<", "&lt;").replace("{}", "`{}`")
    return f"| `{names}`{needed} | {text} |"


def layers() -> str:
    """Return the drawing of the layers of the package, from the contract that import-linter checks."""
    content = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))
    contract = next(one for one in content["tool"]["importlinter"]["contracts"] if one["type"] == "layers")
    rows = [[name.strip().removeprefix("boldly.") for name in layer.split("|")] for layer in contract["layers"]]
    width, height, gap = 720, 34, 8
    parts = []
    for number, row in enumerate(rows):
        each = (width - gap * (len(row) - 1)) / len(row)
        for place, name in enumerate(row):
            x, y = place * (each + gap), number * (height + gap)
            parts.append(f'<rect x="{x:.1f}" y="{y}" width="{each:.1f}" height="{height}" rx="6"/>')
            parts.append(f'<text x="{x + each / 2:.1f}" y="{y + 22}">{escape(name)}</text>')
    style = (
        "rect{fill:#e3edf8;stroke:#0b5cad}text{font:14px sans-serif;text-anchor:middle;fill:#1d2430}"
        "@media(prefers-color-scheme:dark){rect{fill:#1f2f42;stroke:#7db8f5}text{fill:#e4e8ee}}"
    )
    tall = len(rows) * (height + gap)
    box = f'viewBox="-2 -2 {width + 4} {tall + 4}" width="{width}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {box}><style>{style}</style>{"".join(parts)}</svg>\n'


def _write(path: Path, text: str) -> None:
    """Write a page unless it is the same: Sphinx reads anew what is newer."""
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")
