"""What the folder of results holds, as the tables of the report. Nothing is computed anew."""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd

from boldly.bids import entities
from boldly.files import read_json, read_tsv
from boldly.records import Run, read_runs
from boldly.scope import EVERYTHING, Scope
from boldly.stages.report.tables import Column, Table, table

Record = dict[str, Any]


def read_run_tables(results: Path, scope: Scope = EVERYTHING) -> dict[str, list[Run]]:
    """Return all runs of each dataset; one that a later stage excluded has the status and reason of that stage."""
    found = {}
    for path in sorted((results / "index").glob("*_runs.tsv")):
        name = path.name.removesuffix("_runs.tsv")
        if not scope.has_dataset(name):
            continue
        later = {row["key"]: row for row in quality_rows(results, name) if row["status"] not in ("ok", "")}
        found[name] = [_with_status(run, later.get(run.key)) for run in read_runs(path)]
    return found


def _with_status(run: Run, row: dict[str, str] | None) -> Run:
    if row is None or run.status != "ok":
        return run
    return Run(**{**vars(run), "status": row["status"], "reason": row["reason"]})


def quality_rows(results: Path, dataset: str) -> list[dict[str, str]]:
    """Return the rows of the quality tables of all subjects of a dataset, of motion and of signals, by run.

    They are as many files as there are subjects, so they are read without pandas.
    """
    rows: dict[str, dict[str, str]] = {}
    for stage, ending in (("preprocess", "qc"), ("parcellate", "quality")):
        for path in sorted((results / stage / dataset).glob(f"sub-*_{ending}.tsv")):
            with path.open(newline="", encoding="utf-8") as stream:
                for row in csv.DictReader(stream, delimiter="\t"):
                    known = rows.setdefault(row["key"], {"status": "ok", "reason": ""})
                    status = {} if row["status"] == "ok" else {"status": row["status"], "reason": row["reason"]}
                    known |= {key: text for key, text in row.items() if key not in ("status", "reason")} | status
    return list(rows.values())


def read_splits(results: Path, scope: Scope = EVERYTHING) -> list[Record]:
    """Return the splits of all datasets that have one."""
    splits = [read_json(path) for path in sorted((results / "split").glob("*.json"))]
    return [split for split in splits if scope.has_dataset(split["dataset"])]


def datasets(runs: dict[str, list[Run]], splits: Iterable[Record]) -> Table:
    """Return people, runs and recorded time of each dataset; its role as far as it was split."""
    role = {split["dataset"]: split["role"] for split in splits}
    lines: list[Record] = []
    for name, rows in runs.items():
        used = [run for run in rows if run.status == "ok"]
        times = sorted({f"{run.t_r:g}" for run in used if not math.isnan(run.t_r)}, key=float)
        lines.append(
            {
                "dataset": name,
                "role": role.get(name, ""),
                "people": len({run.subject for run in rows}),
                "people_used": len({run.subject for run in used}),
                "runs": len(rows),
                "excluded": len(rows) - len(used),
                "hours": sum(run.n_volumes * run.t_r for run in used if not math.isnan(run.t_r)) / 3600,
                "t_r": ", ".join(times[:4]) + (" …" if len(times) > 4 else ""),
                "space": ", ".join(sorted({run.space for run in used} - {""})),
            }
        )
    columns = (
        Column("dataset", "Dataset"),
        Column("role", "Role"),
        Column("people", "People found", 0),
        Column("people_used", "People used", 0),
        Column("runs", "Runs found", 0),
        Column("excluded", "Runs excluded", 0),
        Column("hours", "Recorded time used (h)", 1),
        Column("t_r", "Repetition time (s)"),
        Column("space", "Space"),
    )
    return table("People, runs and recorded time of each dataset.", lines, columns)


def exclusions(runs: dict[str, list[Run]]) -> Table:
    """Return every run that takes no part, with the reason."""
    lines = [
        {"dataset": name, "run": run.key, "status": run.status, "reason": run.reason}
        for name, rows in runs.items()
        for run in rows
        if run.status != "ok"
    ]
    columns = (
        Column("dataset", "Dataset"),
        Column("run", "Run"),
        Column("status", "Status"),
        Column("reason", "Reason"),
    )
    return table("Runs that take no part, with the reason.", lines, columns)


def read_trial_tables(results: Path, scope: Scope = EVERYTHING) -> dict[str, pd.DataFrame]:
    """Return the table of trials of each dataset that has any."""
    found = {}
    for path in sorted((results / "index").glob("*_trials.tsv")):
        name = path.name.removesuffix("_trials.tsv")
        if not scope.is_decoded(name):
            continue
        content = read_tsv(path, text_columns=("key", "subject", "event", "label", "status", "reason"))
        if len(content):
            found[name] = content
    return found


def trials(events: dict[str, pd.DataFrame]) -> Table:
    """Return how many trials each state has, of how many people."""
    lines: list[Record] = []
    for dataset, rows in events.items():
        # Rows that were merged are one trial.
        used = rows[rows["status"] == "ok"].drop_duplicates(["key", "trial"])
        for state, of_state in used.groupby("label", sort=True):
            people = of_state.groupby("subject").size()
            seconds = of_state["n_frames"] * of_state["t_r"]
            lines.append(
                {
                    "dataset": dataset,
                    "state": state,
                    "trials": len(of_state),
                    "people": len(people),
                    "fewest": people.min(),
                    "most": people.max(),
                    "seconds": seconds.median(),
                }
            )
    columns = (
        Column("dataset", "Dataset"),
        Column("state", "State"),
        Column("trials", "Trials", 0),
        Column("people", "People", 0),
        Column("fewest", "Fewest per person", 0),
        Column("most", "Most per person", 0),
        Column("seconds", "Median length (s)", 1),
    )
    caption = "Trials of each state; those that scrubbing or the exclusion of runs takes later still count here."
    return table(caption, lines, columns)


def left_out(events: dict[str, pd.DataFrame]) -> Table:
    """Return why events became no trials."""
    lines = [
        {"dataset": dataset, "reason": reason, "events": len(of_reason)}
        for dataset, rows in events.items()
        for reason, of_reason in rows[rows["status"] != "ok"].groupby("reason", sort=True)
    ]
    columns = (Column("dataset", "Dataset"), Column("reason", "Reason"), Column("events", "Events", 0))
    return table("Events that became no trials, with the reason.", lines, columns)


def used_quality(results: Path, runs: dict[str, list[Run]]) -> dict[str, list[dict[str, str]]]:
    """Return the rows of the quality tables of each dataset's runs that are used."""
    found = {}
    for name, of_dataset in runs.items():
        # Tables of people whom the config no longer has stay in the folder.
        used = {run.key for run in of_dataset if run.status == "ok"}
        found[name] = [row for row in quality_rows(results, name) if row["key"] in used]
    return found


def moving(used: dict[str, list[dict[str, str]]], limit_mm: float) -> dict[str, tuple[int, int]]:
    """Return for each dataset how many of its used runs move more on average than a limit, and their number."""
    values = {name: _numbers(rows, "mean_fd_mm") for name, rows in used.items()}
    many = {name: sum(value > limit_mm for value in numbers) for name, numbers in values.items()}
    return {name: (count, len(values[name])) for name, count in many.items() if count}


def quality(used: dict[str, list[dict[str, str]]]) -> Table:
    """Return medians, and the worst run, of each measure of quality of each dataset."""
    lines: list[Record] = []
    for name, rows in used.items():
        values = {key: _numbers(rows, key) for key in ("mean_fd_mm", "scrubbed_fraction", "degrees_of_freedom")}
        values |= {key: _numbers(rows, key) for key in ("median_tsnr", "median_coverage", "n_marked")}
        if not any(values.values()):
            continue
        record: Record = {"dataset": name, "runs": len(rows)}
        for key, numbers in values.items():
            record[key] = median(numbers) if numbers else None
        record["worst_fd_mm"] = max(values["mean_fd_mm"], default=None)
        record["fewest_df"] = min(values["degrees_of_freedom"], default=None)
        record["lowest_tsnr"] = min(values["median_tsnr"], default=None)
        lines.append(record)
    columns = (
        Column("dataset", "Dataset"),
        Column("runs", "Runs used", 0),
        Column("mean_fd_mm", "Mean framewise displacement (mm)", 3),
        Column("worst_fd_mm", "Largest mean of a run (mm)", 3),
        Column("scrubbed_fraction", "Scrubbed fraction", 3),
        Column("degrees_of_freedom", "Degrees of freedom", 0),
        Column("fewest_df", "Fewest of a run", 0),
        Column("median_tsnr", "Temporal SNR", 1),
        Column("lowest_tsnr", "Lowest of a run", 1),
        Column("median_coverage", "Parcel coverage", 2),
    )
    return table("Quality of the runs that are used: median over runs, and the worst run.", lines, columns)


def _numbers(rows: Iterable[dict[str, str]], key: str) -> list[float]:
    texts = (row.get(key, "") for row in rows)
    return [float(text) for text in texts if text not in ("", "n/a")]


def read_manifests(results: Path, scope: Scope = EVERYTHING) -> dict[str, Record]:
    """Return what each upstream experiment wrote about itself."""
    paths = sorted((results / "models" / "upstream").glob("*/manifest.json"))
    return {path.parent.name: read_json(path) for path in paths if scope.has_pretraining(path.parent.name)}


def read_downstream(results: Path, scope: Scope = EVERYTHING) -> dict[tuple[str, str], Record]:
    """Return what each downstream experiment wrote about itself, by dataset and name."""
    paths = sorted((results / "models" / "downstream").glob("*/*/adapt.json"))
    named = {(path.parts[-3], path.parts[-2]): path for path in paths}
    return {names: read_json(path) for names, path in named.items() if scope.has_decoder(*names)}


def read_contract(results: Path, scope: Scope = EVERYTHING) -> Record:
    """Return the contract of an upstream experiment, else of a decoder; empty where there is neither."""
    for path in sorted((results / "models" / "upstream").glob("*/contract.json")):
        if scope.has_pretraining(path.parent.name):
            return dict(read_json(path))
    for folder in sorted((results / "models" / "downstream").glob("*/*/")):
        paths = sorted(folder.rglob("contract.json")) if scope.has_decoder(*folder.parts[-2:]) else []
        if paths:
            return dict(read_json(paths[0]))
    return {}


def training(results: Path, manifests: dict[str, Record]) -> Table:
    """Return options, skill and time of each upstream experiment."""
    lines: list[Record] = []
    for name, manifest in manifests.items():
        options = manifest.get("options", {})
        record: Record = {
            "experiment": name,
            "framework": options.get("framework"),
            "layers": options.get("layers"),
            "width": options.get("width"),
            "steps": options.get("steps"),
            "kept": manifest.get("step"),
            "minutes": _minutes(manifest.get("seconds")),
            "people": _people(manifest.get("training", ())) or None,
            "held_out": _people(manifest.get("validation", ())) or None,
        }
        history = results / "models" / "upstream" / name / "eval_history.csv"
        if history.is_file():
            rows = pd.read_csv(history)
            kept = rows[rows["step"] == manifest.get("step")] if len(rows) else rows
            row = (kept if len(kept) else rows).iloc[-1] if len(rows) else pd.Series(dtype=float)
            record |= {key: row.get(key) for key in ("loss", "skill", "skill_ar1", "skill_var")}
        if options.get("framework") == "components":
            # Nothing of it is trained by steps.
            record |= dict.fromkeys(("layers", "steps", "kept", "loss"))
        lines.append(record)
    columns = (
        Column("experiment", "Experiment"),
        Column("framework", "Framework"),
        Column("layers", "Layers", 0),
        Column("width", "Width", 0),
        Column("people", "Training people", 0),
        Column("held_out", "Held-out people", 0),
        Column("steps", "Steps", 0),
        Column("kept", "Step kept", 0),
        Column("loss", "Validation loss", 4),
        Column("skill", "Skill over zero", 4),
        Column("skill_ar1", "Skill over AR(1)", 4),
        Column("skill_var", "Skill over VAR", 4),
        Column("minutes", "Time (min)", 1),
    )
    caption = (
        "Pretraining, with the validation of the step whose weights were kept. Skill is 1 - L1 / L1 of a forecast "
        "without a network, on held-out people. The losses of different frameworks are not the same quantity."
    )
    return table(caption, lines, columns)


def _people(shards: Iterable[str]) -> int:
    """Return the number of people that shards are of; of some people there is a tar for each run."""
    found = {shard: entities(Path(shard).name) for shard in shards}
    return len({(of["ds"], of["sub"]) if {"ds", "sub"} <= set(of) else shard for shard, of in found.items()})


def _minutes(seconds: float | None) -> float | None:
    return None if seconds is None else seconds / 60


def usage(results: Path, scope: Scope = EVERYTHING) -> Table:
    """Return jobs, time and memory of each stage."""
    lines: list[Record] = []
    for folder in sorted((results / "usage").glob("*/")):
        paths = (path for path in folder.rglob("*.tsv") if scope.has_job(folder.name, path.stem))
        rows = [row for path in paths for row in _usage_rows(path)]
        if not rows:
            continue
        seconds = [number for row in rows for number in _numbers([row], "s")]
        memory = [number for row in rows for number in _numbers([row], "max_rss")]
        lines.append(
            {
                "stage": folder.name,
                "jobs": len(rows),
                "minutes": sum(seconds) / 60,
                "longest": max(seconds, default=0.0) / 60,
                "memory": max(memory, default=0.0) / 1024,
            }
        )
    columns = (
        Column("stage", "Stage"),
        Column("jobs", "Jobs", 0),
        Column("minutes", "Time of all jobs (min)", 1),
        Column("longest", "Longest job (min)", 1),
        Column("memory", "Most memory of a job (GB)", 2),
    )
    return table("Time and memory of each stage, as Snakemake measured them.", lines, columns)


def _usage_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    return [{key: "" if text in ("-", "NA") else text for key, text in row.items()} for row in rows]


def environments(manifests: Iterable[Record]) -> list[Record]:
    """Return the environments that models were trained in, the most frequent first, with how many each made."""
    found = [manifest["environment"] for manifest in manifests if manifest.get("environment")]
    counted = Counter(tuple(sorted((key, str(value)) for key, value in one.items())) for one in found)
    return [{**dict(one), "models": count} for one, count in counted.most_common()]
