"""What a study that used boldly cites: software, atlases, methods, and its own data, as BibTeX and as plain text."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

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


def _paper(
    key: str, short: str, title: str, authors: str, journal: str, where: str = "", **others: str
) -> Reference:
    """Make the reference of an article; `where` is "volume, pages"."""
    volume, _, pages = where.partition(", ")
    fields = {"journal": journal, "volume": volume, "pages": pages, **others}
    kept = {name: text for name, text in fields.items() if text}
    return Reference(key, "article", short, title, authors, short.rsplit(" ", 1)[1], kept)


_ALL = (
    Reference(
        "thomas2022", "inproceedings", "Thomas et al., 2022",
        "Self-supervised learning of brain dynamics from broad neuroimaging data",
        "Thomas, Armin W. and Ré, Christopher and Poldrack, Russell A.", "2022",
        {"booktitle": "Advances in Neural Information Processing Systems", "volume": "35",
         "url": "https://arxiv.org/abs/2206.11417"},
    ),
    _paper("fmriprep", "Esteban et al., 2019", "fMRIPrep: a robust preprocessing pipeline for functional MRI",
           "Esteban, Oscar and others", "Nature Methods", "16, 111-116", doi="10.1038/s41592-018-0235-4"),
    _paper("bids", "Gorgolewski et al., 2016", "The brain imaging data structure, a format for organizing and "
           "describing outputs of neuroimaging experiments", "Gorgolewski, Krzysztof J. and others", "Scientific Data",
           "3, 160044", doi="10.1038/sdata.2016.44"),
    _paper("nilearn", "Abraham et al., 2014", "Machine learning for neuroimaging with scikit-learn",
           "Abraham, Alexandre and others", "Frontiers in Neuroinformatics", "8, 14", doi="10.3389/fninf.2014.00014"),
    _paper("sklearn", "Pedregosa et al., 2011", "Scikit-learn: machine learning in Python",
           "Pedregosa, Fabian and others", "Journal of Machine Learning Research", "12, 2825-2830",
           url="https://jmlr.org/papers/v12/pedregosa11a.html"),
    _paper("numpy", "Harris et al., 2020", "Array programming with NumPy", "Harris, Charles R. and others", "Nature",
           "585, 357-362", doi="10.1038/s41586-020-2649-2"),
    Reference(
        "pytorch", "inproceedings", "Paszke et al., 2019",
        "PyTorch: an imperative style, high-performance deep learning library", "Paszke, Adam and others", "2019",
        {"booktitle": "Advances in Neural Information Processing Systems", "volume": "32",
         "url": "https://arxiv.org/abs/1912.01703"},
    ),
    Reference(
        "transformers", "inproceedings", "Wolf et al., 2020",
        "Transformers: state-of-the-art natural language processing", "Wolf, Thomas and others", "2020",
        {"booktitle": "EMNLP: System Demonstrations", "pages": "38-45", "doi": "10.18653/v1/2020.emnlp-demos.6"},
    ),
    _paper("snakemake", "Mölder et al., 2021", "Sustainable data analysis with Snakemake",
           "Mölder, Felix and others", "F1000Research", "10, 33", doi="10.12688/f1000research.29032.2"),
    _paper("power2012", "Power et al., 2012", "Spurious but systematic correlations in functional connectivity MRI "
           "networks arise from subject motion", "Power, Jonathan D. and others", "NeuroImage", "59, 2142-2154",
           doi="10.1016/j.neuroimage.2011.10.018"),
    _paper("friston1996", "Friston et al., 1996", "Movement-related effects in fMRI time-series",
           "Friston, Karl J. and others", "Magnetic Resonance in Medicine", "35, 346-355", doi="10.1002/mrm.1910350312"),
    _paper("compcor", "Behzadi et al., 2007", "A component based noise correction method (CompCor) for BOLD and "
           "perfusion based fMRI", "Behzadi, Yashar and others", "NeuroImage", "37, 90-101",
           doi="10.1016/j.neuroimage.2007.04.042"),
    _paper("aroma", "Pruim et al., 2015", "ICA-AROMA: a robust ICA-based strategy for removing motion artifacts from "
           "fMRI data", "Pruim, Raimon H. R. and others", "NeuroImage", "112, 267-277",
           doi="10.1016/j.neuroimage.2015.02.064"),
    _paper("holm1979", "Holm, 1979", "A simple sequentially rejective multiple test procedure", "Holm, Sture",
           "Scandinavian Journal of Statistics", "6, 65-70", url="https://www.jstor.org/stable/4615733"),
    _paper("difumo", "Dadi et al., 2020", "Fine-grain atlases of functional modes for fMRI analysis",
           "Dadi, Kamalaker and others", "NeuroImage", "221, 117126", doi="10.1016/j.neuroimage.2020.117126"),
    _paper("schaefer", "Schaefer et al., 2018", "Local-global parcellation of the human cerebral cortex from intrinsic "
           "functional connectivity MRI", "Schaefer, Alexander and others", "Cerebral Cortex", "28, 3095-3114",
           doi="10.1093/cercor/bhx179"),
    _paper("aal", "Tzourio-Mazoyer et al., 2002", "Automated anatomical labeling of activations in SPM using a "
           "macroscopic anatomical parcellation of the MNI MRI single-subject brain",
           "Tzourio-Mazoyer, Nathalie and others", "NeuroImage", "15, 273-289", doi="10.1006/nimg.2001.0978"),
    _paper("aal3", "Rolls et al., 2020", "Automated anatomical labelling atlas 3", "Rolls, Edmund T. and others",
           "NeuroImage", "206, 116189", doi="10.1016/j.neuroimage.2019.116189"),
    _paper("harvard-oxford", "Desikan et al., 2006", "An automated labeling system for subdividing the human cerebral "
           "cortex on MRI scans into gyral based regions of interest", "Desikan, Rahul S. and others", "NeuroImage",
           "31, 968-980", doi="10.1016/j.neuroimage.2006.01.021"),
)  # fmt: skip

LIBRARY: dict[str, Reference] = {reference.key: reference for reference in _ALL}


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
