"""What the tables do not say: the config, where the data are from, and the atlas, recorded beside the report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from boldly.files import read_json, write_json
from boldly.layout import STUDY

# Beside the report, so that it can be written anew where the data are no longer within reach.
RECORD = STUDY

Record = dict[str, Any]


def record(results: Path, config: Record, warnings: list[str]) -> Record:
    """Write config, warnings, and what datasets and atlas say of themselves into the folder of results.

    Parameters
    ----------
    results : Path
        Folder of results.
    config : dict
        The complete config, as JSON.
    warnings : list of str
        What the config itself warns of.

    Returns
    -------
    dict
        config; warnings; datasets: the dataset_description.json of each dataset (`raw`, `derivatives`).
    """
    before = load(results) or {}
    known = before.get("datasets", {})
    found = {name: _descriptions(options) or known.get(name, {}) for name, options in config["datasets"].items()}
    study = {"config": config, "warnings": warnings, "datasets": found}
    if study != before:
        write_json(results / RECORD, study)
    return study


def load(results: Path) -> Record | None:
    """Return what `record` wrote; None where nothing is there."""
    path = results / RECORD
    return read_json(path) if path.is_file() else None


def _descriptions(options: Record) -> Record:
    """Return the dataset_description.json of the raw data and of the derivatives, as far as they are there."""
    found = {}
    if options["bids"]:
        found["raw"] = _description(Path(options["bids"]), 0)
    if options["derivatives"]:
        folder = Path(options["derivatives"])
        found["derivatives"] = _description(folder, 0)
        # Often <dataset>/derivatives/fmriprep.
        found.setdefault("raw", {})
        found["raw"] = found["raw"] or _description(folder.parent, 1)
    return {kind: content for kind, content in found.items() if content}


def _description(folder: Path, above: int) -> Record:
    """Read the description of a dataset in a folder, or in one of the next `above` folders around it."""
    for place in [folder, *folder.parents][: above + 1]:
        try:
            content = json.loads((place / "dataset_description.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            # A description is no condition for a report.
            continue
        if isinstance(content, dict):
            return content
    return {}
