"""What `boldly decode` writes beside tables and pictures: descriptions as BIDS wants them, and scores."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import boldly
from boldly import bids
from boldly.config import DecodeOptions, EvaluateOptions
from boldly.decoding.decoder import PROBABILITY, Decoder
from boldly.decoding.folder import CONFIG
from boldly.files import read_json, read_tsv
from boldly.provenance import file_sha256
from boldly.records import Run, Score, write_scores
from boldly.stages.evaluate.predictions import Experiment, FitPredictions, Trials
from boldly.stages.evaluate.references import uniform_guessing
from boldly.stages.evaluate.scores import is_summary, score, summary_line
from boldly.words import noun

logger = logging.getLogger(__name__)

SCORES = "scores.tsv"
# Those of the runs that were not in the training, where some were.
UNSEEN = "scores_unseen.tsv"
_BIDS_VERSION = "1.10.0"


def ending(decoder: Decoder) -> str:
    """Return the end of the names of files that a decoder makes: entity desc, suffix."""
    return f"desc-{re.sub('[^A-Za-z0-9]', '', decoder.about.name) or 'decoder'}_decoding"


def checksum(decoder: Decoder) -> str:
    """Return the SHA-256 of a decoder's config.json, which has the checksums of its other files."""
    return file_sha256(decoder.folder / CONFIG)


def sidecar_of(
    decoder: Decoder, options: DecodeOptions, record: Run, table: pd.DataFrame, signature: str
) -> dict[str, Any]:
    """Return the JSON beside a table: its columns, and where it comes from."""
    has_trials = "trial_type" in table
    delay = "the haemodynamic delay of the decoder is taken off"
    columns: dict[str, Any] = {
        "onset": {
            "Description": "Onset of the trial" if has_trials else f"Onset of the sliding window; {delay}",
            "Units": "s",
        },
        "duration": {"Description": "Duration of the trial or window", "Units": "s"},
        "state": {"Description": "Most probable state; n/a where scrubbing left too few frames"},
        "probability": {"Description": "Probability of that state"},
    }
    if has_trials:
        columns["trial_type"] = {"Description": "State that the events name, in the names of the decoder"}
    for name in decoder.about.labels:
        columns[f"{PROBABILITY}{name}"] = {"Description": f"Probability of the state '{name}'"}
    length_s, step_s = decoder.window(options.window_s, options.step_s)
    return {
        **columns,
        "Description": f"States decoded from one run by {decoder.about.name}",
        "Sources": [path for path in (record.bold, record.mask, record.confounds, record.events) if path],
        "RepetitionTime": record.t_r,
        **({} if has_trials else {"WindowLength": length_s, "WindowStep": step_s}),
        "Decoder": {"Name": decoder.about.name, "ConfigSha256": checksum(decoder)},
        "AllowedMismatch": sorted(decoder.allow_mismatch),
        "SeenInTraining": table.attrs["seen"],
        "Signature": signature,
    }


def description(decoder: Decoder, options: DecodeOptions) -> dict[str, Any]:
    """Return dataset_description.json of the decoded folder."""
    made_by = {
        "Name": "boldly",
        "Version": boldly.__version__,
        "Description": f"boldly decode with {decoder.about.name} (SHA-256 of its config {checksum(decoder)})",
    }
    sources = [Path(folder) for folder in (options.derivatives, options.events) if folder is not None]
    return {
        "Name": f"Mental states decoded by {decoder.about.name}",
        "BIDSVersion": _BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [made_by],
        "SourceDatasets": [{"URL": path.resolve().as_uri()} for path in sources],
    }


def summarise(decoder: Decoder, output: Path, paths: Sequence[Path]) -> None:
    """Write scores of the decoded trials of a cohort, with intervals over people (over trials for a single one).

    Where some of the runs were in the training, those of the others alone are written too.

    Parameters
    ----------
    decoder : Decoder
        Tables of others do not count.
    output : Path
        Folder that `run` wrote.
    paths : sequence of Path
        Tables of the cohort's runs; others in the folder are of people or runs that are no longer part of it.
    """
    tables, seen = _decoded_trials(decoder, paths)
    new = {name: table for name, table in tables.items() if name not in seen}
    if not (seen and new):
        (output / UNSEEN).unlink(missing_ok=True)
    if not tables:
        (output / SCORES).unlink(missing_ok=True)
        return
    flag = f"{len(seen)} of {len(tables)} runs were in the training" if seen else ""
    rows = _scores(decoder, tables, output, flag)
    if seen:
        logger.warning("%s: the scores of all runs say nothing about new people", flag)
    if seen and new:
        unseen = _scores(decoder, new, output, "", UNSEEN)
        logger.info("all %s, some known from the training: %s", _trials_of(tables), _said(rows))
        logger.info("%s in the %d runs that were not: %s", _trials_of(new), len(new), _said(unseen))
    else:
        logger.info("%s: %s", _trials_of(tables), _said(rows))


def _trials_of(tables: dict[str, pd.DataFrame]) -> str:
    people = len({bids.entities(name)["sub"] for name in tables})
    number = sum(map(len, tables.values()))
    return f"{number} {noun(number, 'trial')} of {people} {noun(people, 'person', 'people')}"


def _said(rows: Sequence[Score]) -> str:
    return "; ".join(summary_line(row) for row in rows if is_summary(row))


def _scores(
    decoder: Decoder, tables: dict[str, pd.DataFrame], output: Path, flag: str, name: str = SCORES
) -> list[Score]:
    """Write the scores of runs, and return those of the decoder."""
    about = decoder.about
    numbers = {label: number for number, label in enumerate(about.labels)}
    whole = pd.concat(tables.values(), ignore_index=True)
    runs = [key for key, table in tables.items() for _ in range(len(table))]
    trials = Trials(
        keys=tuple(f"{key}_{row}" for row, key in enumerate(runs)),
        runs=tuple(runs),
        subjects=tuple(bids.entities(key)["sub"] for key in runs),
        labels=np.array([numbers[label] for label in whole["trial_type"]], np.int64),
        label_names=tuple(about.labels),
        by="subject",
    )
    probabilities = whole[[f"{PROBABILITY}{label}" for label in about.labels]].to_numpy(np.float32)
    training = about.training
    fit = FitPredictions(
        training.n,
        str(training.draw),
        str(training.seed),
        np.arange(len(whole)),
        np.array([numbers[label] for label in whole["state"]], np.int64),
        probabilities,
    )
    experiment = Experiment(about.name, training.kind, training.start, (fit,))
    dataset = output.resolve().name
    rows, _ = score([experiment], trials, dataset=dataset, options=EvaluateOptions())
    # There is one fit: its own rows repeat the summary.
    rows = [replace(row, flag=flag) if flag else row for row in rows if row.draw == "all"]
    write_scores(output / name, [*uniform_guessing(trials, dataset), *rows])
    return rows


def _decoded_trials(decoder: Decoder, paths: Sequence[Path]) -> tuple[dict[str, pd.DataFrame], set[str]]:
    """Return the decoded trials by run, and the runs that were in the training."""
    sha256 = checksum(decoder)
    tables: dict[str, pd.DataFrame] = {}
    seen: set[str] = set()
    for path in sorted(paths):
        try:
            about = read_json(bids.sidecar(path))
        except (OSError, ValueError):
            continue
        if about.get("Decoder", {}).get("ConfigSha256") != sha256 or "trial_type" not in about:
            continue
        table = read_tsv(path, ("trial_type", "state"))
        table = table[table["state"].notna()]
        if len(table):
            name = path.name.partition("_space-")[0]
            tables[name] = table
            if about.get("SeenInTraining"):
                seen.add(name)
    return tables, seen
