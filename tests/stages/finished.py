"""The folder of results of a finished study, a few kilobytes, as the stages write it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from boldly.files import write_json, write_tsv
from boldly.records import (
    Comparison,
    Event,
    Run,
    Score,
    write_comparisons,
    write_runs,
    write_scores,
    write_trials,
)

CONFIG: dict[str, Any] = {
    "atlas": {"name": "difumo", "dimension": 64},
    "datasets": {
        "rest": {"role": "upstream", "derivatives": "data/rest/derivatives/fmriprep"},
        "task": {
            "role": "downstream",
            "bids": "data/task",
            "derivatives": "data/task/derivatives/fmriprep",
            "task": {"delay_s": 5},
        },
    },
    "preprocess": {"strategy": ["motion", "compcor", "high_pass"], "exclude": {"mean_fd_mm": 0.5}},
    "parcellate": {"high_pass_hz": None},
    "split": {"downstream": {"train": [1, 3], "test": 4}},
    "pretrain": {"experiments": {"csm": {"framework": "csm", "steps": 500}}},
    "adapt": {"baselines": ["mean_logistic"], "experiments": {"csm": {"pretrained": "csm"}}},
}
ENVIRONMENT = {"boldly": "0.1.0", "git_commit": "0123456789abcdef", "python": "3.11.7"}


def write(folder: Path) -> Path:
    """Write results and the descriptions of the data; return the folder of results."""
    results = folder / "results"
    for dataset in ("rest", "task"):
        write_runs(results / f"index/{dataset}_runs.tsv", _runs(dataset))
        table = pd.DataFrame({"key": [f"ds-{dataset}_sub-01_task-a"], "status": "ok", "reason": None})
        write_tsv(
            results / f"preprocess/{dataset}/sub-01_qc.tsv", table.assign(mean_fd_mm=0.2, degrees_of_freedom=150)
        )
        excluded = pd.DataFrame({"key": [f"ds-{dataset}_sub-02_task-a"], "status": "excluded"})
        reason = "mean FD 0.9 mm is over 0.5 mm"
        write_tsv(
            results / f"preprocess/{dataset}/sub-02_qc.tsv",
            excluded.assign(reason=reason, mean_fd_mm=0.9, degrees_of_freedom=150),
        )
    write_json(
        results / "split/task.json", {"dataset": "task", "role": "downstream", "by": "subject", "draws": []}
    )
    write_json(results / "split/rest.json", {"dataset": "rest", "role": "upstream", "by": "subject"})
    write_trials(results / "index/task_trials.tsv", _events())
    _write_scores(results / "evaluate")
    model = {"options": {"framework": "csm", "layers": 4, "width": 64, "steps": 500}, "step": 500, "seconds": 90.0}
    model |= {"training": {"a.tar": ""}, "validation": {"b.tar": ""}, "environment": ENVIRONMENT}
    write_json(results / "models/upstream/csm/manifest.json", model)
    (results / "models/upstream/csm/eval_history.csv").write_text("step,loss,skill\n0,0.9,0.0\n500,0.7,0.1\n")
    downstream = {"experiment": "csm", "dataset": "task", "environment": ENVIRONMENT, "options": {}}
    write_json(results / "models/downstream/task/csm/adapt.json", downstream)
    for name in ("quality", "downstream_accuracy"):
        path = results / f"figures/{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (1440, 400), "white").save(path)
    _describe(folder / "data/task", "Faces and houses", DatasetDOI="doi:10.18112/openneuro.ds000105.v3.0.0")
    maker = {"GeneratedBy": [{"Name": "fMRIPrep", "Version": "23.2.1"}]}
    _describe(folder / "data/task/derivatives/fmriprep", "fMRIPrep", **maker)
    return results


def _runs(dataset: str) -> list[Run]:
    runs = []
    for subject in ("01", "02", "03"):
        key, short = f"ds-{dataset}_sub-{subject}_task-a", subject == "03"
        status, reason = ("excluded", "8 volumes, fewer than 10") if short else ("ok", "")
        files = ("b.nii.gz", "m.nii.gz", "c.tsv", "")
        head = (dataset, subject, "", "a", "", "", "", "MNI152NLin2009cAsym")
        runs.append(Run(*head, key, *files, 2.0, 180, status, reason))  # type: ignore[arg-type]
    return runs


def _events() -> list[Event]:
    events = []
    for trial, name in enumerate(["face", "house", "face"]):
        place = (20.0 * trial, 10.0, trial, 10 * trial, 10 * trial + 5, 5, 2.0)
        events.append(Event("ds-task_sub-01_task-a", "01", name, name, *place))
    nothing = (90.0, 3.0, None, None, None, 0, 2.0, "excluded", "dropped: matches 'cue'")
    return [*events, Event("ds-task_sub-01_task-a", "01", "cue", "", *nothing)]  # type: ignore[arg-type]


def _write_scores(folder: Path) -> None:
    whole = ("all", "all", "all")
    rows = [Score("task", "chance_uniform", 0, *whole, "accuracy", 0.5, 0.5, 0.5, 40, "chance")]
    for n in (1, 3):
        for name, kind, value in (("csm", "pretrained", 0.7), ("mean_logistic", "baseline", 0.6)):
            interval = (value - 0.05, value + 0.05)
            rows.append(Score("task", name, n, *whole, "accuracy", value, *interval, 40, kind))
            rows.append(Score("task", name, n, *whole, "log_loss", 0.4, 0.3, 0.5, 40, kind))
        seen = Score("task", "control_motion", n, *whole, "accuracy", 0.64, 0.6, 0.7, 40, "control")
        rows.append(replace(seen, flag="above chance"))
    # A single fit is no row of the table.
    rows.append(Score("task", "csm", 3, "0", "1234", "all", "accuracy", 0.123, 0.1, 0.2, 40, "pretrained"))
    write_scores(folder / "task_scores.tsv", rows)
    pair = ("csm", "pretrained", "mean_logistic", "baseline", 0.1, 0.02, 0.18)
    write_comparisons(folder / "task_comparisons.tsv", [Comparison("task", 3, *pair, 0.01, 0.0004, 4, 5, 3)])


def _describe(folder: Path, name: str, **fields: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    content = {"Name": name, "Authors": ["Doe, Jane", "Roe, Max"], "License": "CC0", **fields}
    (folder / "dataset_description.json").write_text(json.dumps(content))
