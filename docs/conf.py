"""Configuration of the documentation's site: ``make docs``."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import generated

from boldly import __version__

project = "boldly"
author = "The boldly developers"
copyright = "2026, The boldly developers"
version = release = __version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx_design",
]
html_theme = "furo"
html_title = f"boldly {__version__}"
html_theme_options = {"light_css_variables": {"color-brand-primary": "#0b5cad", "color-brand-content": "#0b5cad"}}
html_show_sphinx = False

myst_enable_extensions = ["colon_fence", "deflist"]
# As the web page of a repository makes anchors of headings.
myst_heading_anchors = 4

autosummary_generate = True
autodoc_typehints = "none"  # numpydoc's sections say them
autodoc_default_options = {"members": True, "show-inheritance": False}
numpydoc_show_class_members = False
# Docstrings write types in words that are no names of classes ("array of float32 (T, P)").
numpydoc_xref_param_type = False
exclude_patterns = ["_build", "_parts"]
# Annotated types of pydantic cannot be looked up by name.
suppress_warnings = ["autodoc.import_object", "ref.python"]


def setup(app: object) -> None:
    """Write the pages that are made from code before the others are read."""
    generated.write(Path(__file__).parent)
    app.connect("source-read", generated.with_links_of_the_site)  # type: ignore[attr-defined]
