"""What a study that used boldly cites: software, atlases, methods, its own data; as BibTeX and as plain text."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

_SPECIAL = str.maketrans({"&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "$": r"\$"})


@dataclass(frozen=True)
class Reference:
    """A publication, a piece of software, or a dataset.

    Attributes
    ----------
    key : str
        BibTeX key.
    kind : str
        BibTeX entry type: article, inproceedings, misc.
    short : str
        How the text cites it: "Esteban et al., 2019".
    title, authors, year : str
        Authors as BibTeX has them: "Family, Given and Family, Given".
    fields : dict
        The other fields: journal, volume, pages, doi, url, note.
    """

    key: str
    kind: str
    short: str
    title: str
    authors: str
    year: str
    fields: dict[str, str] = field(default_factory=dict)

    def bibtex(self) -> str:
        """Return the entry of a BibTeX file."""
        content = {"title": f"{{{_escaped(self.title)}}}", "author": _escaped(self.authors), "year": self.year}
        # Web addresses and DOIs are read as they are.
        content |= {key: text if key in ("doi", "url") else _escaped(text) for key, text in self.fields.items()}
        lines = [f"  {key} = {{{text}}}" for key, text in content.items() if text]
        return f"@{self.kind}{{{self.key},\n" + ",\n".join(lines) + "\n}\n"

    @property
    def link(self) -> str | None:
        """Web address, if there is one."""
        doi = self.fields.get("doi")
        return f"https://doi.org/{doi}" if doi else self.fields.get("url")

    def text(self) -> str:
        """Return the entry of a list of references."""
        people = self.authors.strip("{}").replace(" and others", " et al.").replace(" and ", "; ")
        where = self.fields.get("journal") or self.fields.get("booktitle") or self.fields.get("note", "")
        numbers = ", ".join(self.fields[key] for key in ("volume", "pages") if key in self.fields)
        head = f"{people} ({self.year})" if self.year else people
        parts = (head, self.title, f"{where} {numbers}".strip())
        return ". ".join(part.rstrip(".") for part in parts if part) + "."


def _escaped(text: str) -> str:
    return text.replace("\\", "").replace("{", "").replace("}", "").translate(_SPECIAL)


def _library() -> dict[str, Reference]:
    content = yaml.safe_load(Path(__file__).with_name("library.yaml").read_text(encoding="utf-8"))
    return {key: Reference(key=key, **fields) for key, fields in content.items()}


LIBRARY = _library()


def software(version: str, commit: str | None) -> Reference:
    """Return the reference of boldly itself."""
    note = f"Version {version}" + (f", commit {commit[:12]}" if commit else "")
    title = "boldly: from fMRIPrep derivatives to trained decoders of mental states"
    return Reference("boldly", "misc", f"boldly {version}", title, "{The boldly developers}", "", {"note": note})


def of_dataset(name: str, description: dict[str, Any]) -> Reference | None:
    """Return the reference of a dataset, from its dataset_description.json; None where that says nothing of use.

    Parameters
    ----------
    name : str
        Name of the dataset in the config.
    description : dict
        Content of dataset_description.json: Name, Authors, DatasetDOI, License, HowToAcknowledge,
        ReferencesAndLinks.
    """
    if not description:
        return None
    authors = [str(author) for author in _listed(description.get("Authors"))]
    doi = re.sub(r"^(doi:|https?://(dx\.)?doi\.org/)", "", str(description.get("DatasetDOI") or ""), flags=re.I)
    links = [str(link) for link in _listed(description.get("ReferencesAndLinks"))]
    notes = [str(description.get("HowToAcknowledge") or ""), *links]
    if licence := description.get("License"):
        notes.append(f"Licence: {licence}")
    fields = {"note": " ".join(f"{note.rstrip('.')}." for note in notes if note), "doi": doi}
    fields["url"] = next((link for link in links if link.startswith("http")), "") if not doi else ""
    title = str(description.get("Name") or name)
    family = re.split(r"[,\s]", authors[0])[0] if authors else ""
    short = f"{family} et al." if len(authors) > 1 else family or title.split(":")[0]
    kept = {key: text for key, text in fields.items() if text}
    return Reference(f"data-{name}", "misc", f"{short}, dataset", title, " and ".join(authors), "", kept)


def _listed(value: Any) -> Iterable[Any]:
    return value if isinstance(value, list) else [value] if value else []


def bibliography(references: Iterable[Reference]) -> str:
    """Return a BibTeX file."""
    return "\n".join(reference.bibtex() for reference in references)
