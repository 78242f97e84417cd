"""Batches of subjects that one job prepares, and what is known of each subject: done with what, and what it took.

A subject is in a batch by its label alone, so one that is added moves no other. What makes a result stale is kept
for each subject and stage, in ``results/prepare/<dataset>/sub-<label>.json``: batches repeat nothing that is done.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boldly import bids, fingerprints, layout
from boldly.config import BatchOptions
from boldly.files import read_json, write_json
from boldly.records import Run, read_runs

# In the order in which a subject goes through them.
STAGES = ("preprocess", "parcellate", "shard")
# Files of a subject that other stages read, by the stage that writes them.
OUTPUTS: dict[str, tuple[str, ...]] = {
    "preprocess": (layout.NUISANCE, layout.QC),
    "parcellate": (layout.TIMESERIES, layout.QUALITY),
    "shard": (layout.SHARD,),
}
# Where nothing was measured yet: a run of 200 volumes and 1,024 maps takes about 1 s, on a slow file system more.
_SECONDS_PER_RUN = 4.0
# Subjects that a measurement is the mean of.
_MEASURED = 50
_BATCHES = "batches.json"


def names(subjects: Iterable[str], count: int) -> list[str]:
    """Return the names of the batches that hold a subject, of `count`: ``3of16``."""
    return [f"{number}of{count}" for number in sorted({_number(subject, count) for subject in subjects})]


def of_subject(subject: str, count: int) -> str:
    """Return the name of the batch that a subject is in, of `count`."""
    return f"{_number(subject, count)}of{count}"


def members(batch: str, subjects: Iterable[str]) -> list[str]:
    """Return those of some subjects that are in a batch, in order."""
    number, count = map(int, batch.split("of"))
    return sorted(subject for subject in subjects if _number(subject, count) == number)


def _number(subject: str, count: int) -> int:
    return int(hashlib.sha256(subject.encode()).hexdigest()[:8], 16) % count + 1


def count(dataset: str, n_subjects: int, n_runs: int, options: BatchOptions) -> int:
    """Return the number of batches of a dataset.

    Parameters
    ----------
    dataset : str
        Name. Batches that were made before stay as they are until there are twice as many subjects: other names
        of batches would look like other data to what follows.
    n_subjects, n_runs : int
        Usable ones.
    options : BatchOptions
        How long a job should last, or how many subjects it should have.
    """
    before = Path(layout.PREPARED.format(dataset=dataset)) / _BATCHES
    if before.exists():
        known = read_json(before)
        if n_subjects <= 2 * known["subjects"]:
            return int(known["batches"])
    if options.subjects is not None:
        return max(1, math.ceil(n_subjects / options.subjects))
    wanted = n_runs * seconds_per_run() / (60 * options.minutes)
    return max(1, min(n_subjects, round(wanted)))


def keep_count(dataset: str, batch: str, n_subjects: int) -> None:
    """Remember how many batches a dataset has, for later calls of `count`."""
    path = Path(layout.PREPARED.format(dataset=dataset)) / _BATCHES
    now = {"batches": int(batch.split("of")[1]), "subjects": n_subjects}
    known = read_json(path) if path.exists() else None
    # Also the same number for many more subjects: else each process would go on deciding, by what it measures.
    if known is None or known["batches"] != now["batches"] or n_subjects > 2 * known["subjects"]:
        write_json(path, now)


def seconds_per_run() -> float:
    """Return what a run took in this folder, all three stages, s; a default where nothing was measured."""
    seconds = runs = 0.0
    for path in sorted(Path(layout.PREPARED.format(dataset=".")).glob("*/sub-*.json"))[:_MEASURED]:
        stages = read_json(path)
        if set(STAGES) <= set(stages):
            seconds += sum(stages[stage]["seconds"] for stage in STAGES)
            runs += stages["parcellate"]["runs"]
    return seconds / runs if runs else _SECONDS_PER_RUN


def memory_of_jobs(stage: str) -> list[float]:
    """Return the most memory that each job of a stage took in this folder, MB, as Snakemake measured it."""
    found = []
    for path in sorted(Path(layout.USAGE).joinpath(stage).glob("**/*.tsv")):
        header, *rows = (line.split("\t") for line in path.read_text(encoding="utf-8").splitlines() or [""])
        for row in rows:
            memory = dict(zip(header, row, strict=False)).get("max_rss", "")
            # A job of less than a second has none.
            found += [float(memory)] if re.fullmatch(r"\d+(\.\d+)?", memory) else []
    return found


@dataclass(frozen=True)
class Marker:
    """The file that stands for a batch that is done up to a stage: sizes and a checksum of each subject's files.

    The same results give the same bytes, by which Snakemake sees that nothing that follows is stale. It compares
    files of less than 1 MB, hence little for each stage.
    """

    dataset: str
    role: str
    stage: str
    batch: str

    @property
    def path(self) -> Path:
        """The file."""
        return Path(layout.BATCH.format(dataset=self.dataset, stage=self.stage, batch=self.batch))

    def write(self, stamps: Mapping[str, Mapping[str, Any]]) -> None:
        """Write it, given the stamps of all subjects."""
        done = STAGES[: STAGES.index(self.stage) + 1]
        content = {
            subject: {stage: _summary(stamp[stage]["files"]) for stage in done}
            for subject, stamp in sorted(stamps.items())
        }
        write_json(self.path, content)

    def lost(self, sizes: Mapping[str, Mapping[str, int]]) -> list[str]:
        """Return the files of its subjects that are gone, or cut, given what each folder holds, in bytes."""
        found = []
        for subject, stages in read_json(self.path).items():
            for stage, written in stages.items():
                paths = outputs(stage, self.dataset, self.role, subject)
                for path, size in zip(paths, written["bytes"], strict=True):
                    if sizes[str(path.parent)].get(path.name) != size:
                        found.append(str(path))
        return found


def _summary(files: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {"bytes": [content["bytes"] for content in files.values()], "checksum": _checksum(files)}


def outputs(stage: str, dataset: str, role: str, subject: str) -> list[Path]:
    """Return the files that a stage writes for a subject."""
    return [Path(pattern.format(dataset=dataset, role=role, subject=subject)) for pattern in OUTPUTS[stage]]


def forget_lost(roles: Mapping[str, str]) -> list[str]:
    """Remove the markers of batches of which files are gone or cut, so that Snakemake has these made again.

    Parameters
    ----------
    roles : mapping
        From the names of datasets to what they are for.

    Returns
    -------
    list of str
        The files.
    """
    lost = []
    for dataset, role in roles.items():
        markers = _markers(dataset)
        patterns = [pattern for stage in STAGES for pattern in OUTPUTS[stage]] if markers else []
        folders = {
            str(Path(pattern.format(dataset=dataset, role=role, subject="x")).parent) for pattern in patterns
        }
        sizes = {folder: _sizes_in(folder) for folder in folders}
        for path in markers:
            stage, _, batch = path.stem.partition("_")
            try:
                missing = Marker(dataset, role, stage, batch).lost(sizes)
            except ValueError:
                missing = [str(path)]
            if missing:
                lost += missing
                path.unlink(missing_ok=True)
    return lost


def forget_stage(dataset: str, stage: str) -> None:
    """Forget that a stage is done for any subject of a dataset, so that it is repeated, with what comes behind."""
    for path in Path(layout.PREPARED.format(dataset=dataset)).glob("sub-*.json"):
        stages = read_json(path)
        if stage in stages:
            write_json(path, {name: content for name, content in stages.items() if name != stage})
    for path in _markers(dataset):
        if STAGES.index(path.stem.partition("_")[0]) >= STAGES.index(stage):
            path.unlink(missing_ok=True)


def withdraw_exports(dataset: str, kind: str, subjects: Collection[str]) -> list[str]:
    """Remove what was exported of people who are no longer among the subjects of a dataset.

    Parameters
    ----------
    dataset, kind : str
        Name of the dataset, and layout of its exported files.
    subjects : collection of str
        Labels of those who have a usable run.

    Returns
    -------
    list of str
        Those of whom something was removed: ``sub-01``.
    """
    lists = Path(layout.EXPORTED.format(dataset=dataset, subject="*", kind=kind))
    gone = []
    for path in sorted(lists.parent.glob(lists.name)):
        person = path.name.removeprefix(f"{dataset}_").removesuffix(f"_{kind}.json")
        if person.removeprefix("sub-") in subjects:
            continue
        written = read_json(path)
        folder = Path(written["folder"])
        for name in written["sha256"]:
            (folder / name).unlink(missing_ok=True)
            for parent in Path(name).parents[:-1]:
                with suppress(OSError):
                    # It may hold files of others.
                    (folder / parent).rmdir()
        # Last: what a process that is killed here leaves is found again.
        path.unlink()
        gone.append(person)
    return gone


def _markers(dataset: str) -> list[Path]:
    folder = Path(layout.PREPARED.format(dataset=dataset))
    return [path for stage in STAGES for path in sorted(folder.glob(f"{stage}_*of*.json"))]


def _sizes_in(folder: str) -> dict[str, int]:
    sizes = {}
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            # One that another process has renamed since, or a link to nothing, says nothing about the others.
            with suppress(FileNotFoundError):
                sizes[entry.name] = entry.stat().st_size
    return sizes


@dataclass(frozen=True)
class Tables:
    """What index tells of the subjects of a dataset: their usable runs, and a checksum of their rows of trials."""

    runs: dict[str, list[Run]]
    trials: dict[str, str]

    def inputs(self, subject: str) -> dict[str, str]:
        """Return a checksum of what each stage reads of a subject: rows of tables; names, sizes, times of files.

        Snakemake itself notices a newer file, not one that was replaced by an older one.
        """
        runs = self.runs.get(subject, [])
        tables = [Path(run.confounds) for run in runs if run.confounds]
        tables += [sidecar for table in tables if (sidecar := bids.sidecar(table)).exists()]
        images = [path for run in runs for path in (run.bold, run.mask) if path]
        return {
            "preprocess": _checksum(runs, fingerprints.of_files(tables)),
            "parcellate": _checksum(runs, fingerprints.of_files(images)),
            "shard": _checksum(runs, self.trials.get(subject, "")),
        }


def read_tables(runs: Path | str, trials: Path | str) -> Tables:
    """Read the run table of a dataset and its table of trials."""
    return _read_tables(str(runs), str(trials), *(os.stat(path).st_mtime_ns for path in (runs, trials)))


@functools.cache
def _read_tables(runs: str, trials: str, *_modified: int) -> Tables:
    by_subject: dict[str, list[Run]] = {}
    for run in read_runs(runs, usable=True):
        by_subject.setdefault(run.subject, []).append(run)
    sums: dict[str, Any] = {}
    with open(trials, "rb") as rows:
        next(rows)
        for row in rows:
            # A name that holds a line break goes on in a line of its own, without a subject.
            subject = [*row.split(b"\t", 2), b""][1].decode()
            sums.setdefault(subject, hashlib.sha256()).update(row)
    return Tables(by_subject, {subject: checksum.hexdigest()[:16] for subject, checksum in sums.items()})


def keys(inputs: Mapping[str, str], options: Mapping[str, Sequence[object]]) -> dict[str, str]:
    """Return for each stage a checksum of all that its results depend on, those of the stages before included.

    Parameters
    ----------
    inputs : mapping
        `Tables.inputs` of the subject.
    options : mapping
        For each stage what it is called with, its revision included.
    """
    found, before = {}, ""
    for stage in STAGES:
        before = found[stage] = _checksum(before, inputs[stage], *options[stage])
    return found


def of_batch(tables: Tables, batch: str) -> str:
    """Return a checksum of what all stages read of the subjects of a batch."""
    return _checksum(*((subject, tables.inputs(subject)) for subject in members(batch, tables.runs)))


def _checksum(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()[:16]
