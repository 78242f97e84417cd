"""Pictures of the report: files as data, captions from their templates, and views of brain maps that turn."""

from __future__ import annotations

import base64
import io
import re
import types
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jinja2
from docutils.core import publish_parts
from markupsafe import Markup
from PIL import Image

from boldly.scope import EVERYTHING, Scope

# Of the page's 30 MB, what pictures and brain maps may take; base64 makes three bytes of them four.
_PICTURE_BYTES = 12_000_000
_VIEWER_BYTES = 8_000_000
# Wider ones are made smaller where all together are too large: twice the width of the page on a fine screen.
_WIDTHS = (2000, 1400, 1000)

_CATEGORIES = {"upstream_losses": "training", "upstream_data": "data", "quality": "data"}
_CATEGORIES |= {"carpet": "data", "downstream_trials": "data"}
# By the beginning of a name, where the name itself is not listed.
_FAMILIES = {"upstream": "training", "downstream": "decoding", "explain": "maps"}
# Pictures of what the page shows as a table.
_TABLES = ("excluded",)
# In the order in which they are read; others follow by name.
_ORDER: tuple[str, ...] = ("upstream_data", "quality", "carpet", "downstream_trials", "upstream_losses")
_ORDER += ("downstream_accuracy", "downstream_curves", "downstream_comparisons", "downstream_confusion")


@dataclass(frozen=True)
class Picture:
    """A figure of the page.

    Attributes
    ----------
    name, title, category : str
        That of its file, what it shows, and the section where it stands: data, training, decoding or other.
    path : str
        Where the file lies, for pictures that are too large.
    source : str
        The picture as a data address; empty where there was no room.
    width, height : int
        Pixels.
    caption : Markup
        From its template, with the parameters of the config.
    """

    name: str
    title: str
    category: str
    path: str
    source: str
    width: int
    height: int
    caption: Markup


def pictures(
    folder: Path, captions: Path, config: dict[str, Any] | None, left_out: Collection[str] = ()
) -> list[Picture]:
    """Return the figures of a folder, made smaller where they would not fit the page.

    Parameters
    ----------
    folder : Path
        ``results/figures``.
    captions : Path
        Templates of the captions.
    config : dict or None
        The config; without it captions cannot say parameters, and only titles are given.
    left_out : collection of str, optional
        Names of figures that are not shown: those that the config has no data for.
    """
    paths = sorted(
        (path for path in folder.glob("*.png") if path.stem not in (*_TABLES, *left_out)),
        key=lambda path: (_rank(path.stem), path.stem),
    )
    contents = _fitting([path.read_bytes() for path in paths])
    return [
        _picture(path, content, caption(path.stem, captions, config))
        for path, content in zip(paths, contents, strict=True)
    ]


def maps(results: Path, scope: Scope = EVERYTHING, room: int = _PICTURE_BYTES // 2) -> list[Picture]:
    """Return the pictures of explanations (``results/explain/<dataset>/<decoder>/pictures``), as many as fit."""
    found = []
    for path in sorted((results / "explain").glob("*/*/pictures/*.png")):
        dataset, decoder = path.parts[-4:-2]
        if not scope.has_decoder(dataset, decoder):
            continue
        content = _narrowed(path.read_bytes(), _WIDTHS[1])
        method = path.stem.replace("_", " ")
        text = Markup("<p><strong>{}.</strong> {}, decoder {}.</p>").format(method.capitalize(), dataset, decoder)
        fits = len(content) <= room
        room -= len(content) if fits else 0
        picture = _picture(path, content if fits else None, text)
        name = f"explain-{dataset}-{decoder}-{path.stem}"
        found.append(replace(picture, name=name, title=f"{picture.title}: {dataset}, {decoder}", category="maps"))
    return found


def _rank(name: str) -> int:
    return _ORDER.index(name) if name in _ORDER else len(_ORDER)


def _fitting(contents: list[bytes]) -> list[bytes | None]:
    """Return pictures that fit into the page: all as they are, all narrower, or without the largest."""
    for width in _WIDTHS:
        if sum(map(len, contents)) <= _PICTURE_BYTES:
            break
        contents = [_narrowed(content, width) for content in contents]
    kept: list[bytes | None] = list(contents)
    for index in sorted(range(len(contents)), key=lambda index: len(contents[index]), reverse=True):
        if sum(len(content) for content in kept if content) <= _PICTURE_BYTES:
            break
        kept[index] = None
    return kept


def _narrowed(content: bytes, width: int) -> bytes:
    with Image.open(io.BytesIO(content)) as image:
        if image.width <= width:
            return content
        small = image.convert("RGB").resize(
            (width, round(image.height * width / image.width)), Image.Resampling.LANCZOS
        )
    stream = io.BytesIO()
    small.save(stream, "PNG", optimize=True)
    return min(stream.getvalue(), content, key=len)


def _picture(path: Path, content: bytes | None, text: Markup) -> Picture:
    title = re.search(r"<strong>(.+?)\.?</strong>", text)
    plain = Markup(title[1]).unescape() if title else path.stem.replace("_", " ")
    default = _FAMILIES.get(path.stem.split("_")[0], "other")
    found = Picture(path.stem, plain, _CATEGORIES.get(path.stem, default), str(path), "", 0, 0, text)
    if content is None:
        return found
    with Image.open(io.BytesIO(content)) as image:
        width, height = image.size
    source = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    return replace(found, source=source, width=width, height=height)


def caption(name: str, folder: Path, config: dict[str, Any] | None) -> Markup:
    """Return the caption of a figure: its template is that of its name, or of the beginning of its name."""
    fitting = [path for path in folder.glob("*.rst") if name == path.stem or name.startswith(f"{path.stem}_")]
    if not fitting or config is None:
        title = name.replace("_", " ").capitalize()
        return Markup("<p><strong>{}.</strong></p>").format(title)
    template = max(fitting, key=lambda path: len(path.stem))
    return from_template(template, config, view=name.removeprefix(template.stem).strip("_"))


def from_template(path: Path, config: dict[str, Any], **wildcards: str) -> Markup:
    """Return what a template of workflow/report says, as HTML; `snakemake --report` renders the same templates."""
    snakemake = types.SimpleNamespace(config=config, wildcards=types.SimpleNamespace(**wildcards))
    text = jinja2.Environment().from_string(path.read_text(encoding="utf-8")).render(snakemake=snakemake)
    # The text holds names from the config: it must neither read files nor bring HTML of its own.
    settings = {"file_insertion_enabled": False, "raw_enabled": False, "report_level": 5}
    return Markup(publish_parts(text, writer="html5", settings_overrides=settings)["body"])


@dataclass(frozen=True)
class Viewer:
    """A page of its own, with a brain map that turns, to be shown inside the report."""

    title: str
    content: str


def viewers(results: Path, scope: Scope = EVERYTHING) -> list[Viewer]:
    """Return the views of brain maps in the folder of results, as many as fit the page.

    They are the HTML files in ``results/figures`` and ``results/explain`` that need no other file; one that would
    fetch something is left out, as the report makes no request.
    """
    found = []
    room = _VIEWER_BYTES
    for path in _html(results, scope):
        content = path.read_text(encoding="utf-8")
        if len(content) <= room and not _fetches(content):
            room -= len(content)
            title = re.search(r"<title>(.*?)</title>", content, re.DOTALL | re.IGNORECASE)
            name = path.stem.replace("_", " ")
            found.append(Viewer(title[1].strip() if title and title[1].strip() else name, content))
    return found


def _html(results: Path, scope: Scope) -> Iterable[Path]:
    for path in sorted((results / "explain").rglob("*.html")):
        # <dataset>/<decoder>/views/<name>.html; what was put beside them by hand belongs to the dataset.
        dataset, *inner, _ = path.relative_to(results / "explain").parts
        if scope.has_decoder(dataset, inner[0]) if inner else scope.is_decoded(dataset):
            yield path
    yield from sorted((results / "figures").rglob("*.html"))


def _fetches(content: str) -> bool:
    return (
        re.search(r"<(script|link|img|iframe)\b[^>]*\b(src|href)\s*=\s*[\"']?https?:", content, re.IGNORECASE)
        is not None
    )
