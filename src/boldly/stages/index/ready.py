"""Run tables of datasets that come as ready-made shards, boldly's own or LfB's."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tqdm import tqdm

from boldly import bids
from boldly.config import DatasetOptions
from boldly.records import Event, InputError, Problem, Run, read_runs
from boldly.samples import remote
from boldly.samples.sample import Sample
from boldly.samples.shards import read_shard


@dataclass(frozen=True)
class _Record:
    """What is remembered of a sample; its arrays are not."""

    run_key: str
    space: str
    t_r: float
    n_volumes: int
    label: int | None
    label_name: str
    trial: Event | None


def survey_shards(
    dataset: str, options: DatasetOptions, fewest_volumes: int
) -> tuple[list[Run], list[Event], list[str], list[Problem]]:
    """Read every shard of a dataset once.

    Tars are named ``ds-<dataset>_sub-<subject>[_..].tar``: one for each subject, or, as LfB writes them, one for
    each run. The frames of a downstream run are those of its trials together, since shards do not hold more.

    Returns
    -------
    runs : list of Run
        Without paths of images; those of upstream that are shorter than `fewest_volumes` are excluded.
    events : list of Event
        The trials; empty for upstream.
    labels : list of str
        Names of the states in label order; empty for upstream.
    problems : list of Problem
        Damaged shards, samples of another dataset or without what the role needs, absent subjects.

    Raises
    ------
    InputError
        When there is not a single shard.
    """
    folder = Path(str(options.shards))
    paths = _tars(dataset, options, folder)
    problems = [
        Problem(
            str(folder), f"sub-{subject}", "asked for, but has no shard", f"correct datasets.{dataset}.subjects"
        )
        for subject in sorted(_wanted(options) - {bids.entities(path.name)["sub"] for path in paths})
    ]
    records: list[_Record] = []
    for path in tqdm(paths, desc=f"{dataset}: shards", unit="file", disable=None):
        try:
            for sample in read_shard(path):
                problem = _misfit(sample, dataset, options, path)
                if problem is None:
                    records.append(_record(sample))
                else:
                    problems.append(problem)
        except InputError as error:
            subject = f"sub-{bids.entities(path.name)['sub']}"
            problems += [replace(problem, entity=problem.entity or subject) for problem in error.problems]
    if options.tasks is not None:
        records = [record for record in records if bids.entities(record.run_key).get("task") in options.tasks]
    labels, wrong = _labels(records, str(folder), dataset)
    events = [record.trial for record in records if record.trial is not None]
    return _runs(dataset, records, fewest_volumes), events, labels, problems + wrong


def survey_remote(
    dataset: str, options: DatasetOptions, fewest_volumes: int
) -> tuple[list[Run], list[Event], list[str], list[Problem]]:
    """Read the run table beside shards at a web address; of the tars, ask only whether they are there.

    Returns
    -------
    runs, events, labels, problems
        As `survey_shards`; neither events nor labels.

    Raises
    ------
    InputError
        When there is no readable run table.
    """
    folder = str(options.shards)
    url = remote.join(folder, bids.runs_name(dataset))
    table, wanted, where = _fetched_runs(url), _wanted(options), remote.shown(url)
    problems = [
        Problem(where, dataset, f"runs of dataset {other}", "put there the table of this dataset")
        for other in sorted({run.dataset for run in table} - {dataset})
    ] + [
        Problem(where, f"sub-{name}", "asked for, but has no run", f"correct datasets.{dataset}.subjects")
        for name in sorted(wanted - {run.subject for run in table})
    ]
    runs = [
        replace(_long_enough(run, fewest_volumes), bold="", mask="", confounds="", events="")
        for run in table
        if (not wanted or run.subject in wanted) and (options.tasks is None or run.task in options.tasks)
    ]
    subjects = sorted({run.subject for run in runs if run.status == "ok"})
    try:
        remote.sizes([remote.join(folder, bids.shard_name(dataset, subject)) for subject in subjects])
    except InputError as error:
        problems += error.problems
    return runs, [], [], problems


def _fetched_runs(url: str) -> list[Run]:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "runs.tsv"
        path.write_bytes(remote.fetch(url))
        try:
            return read_runs(path)
        except InputError as error:
            where, remedy = remote.shown(url), "copy the table of results/index there, beside the tars"
            problems = [replace(problem, where=where, remedy=remedy) for problem in error.problems]
            raise InputError(problems) from None


def _long_enough(run: Run, fewest_volumes: int) -> Run:
    """Return a run, excluded if it is too short."""
    if run.status != "ok" or run.n_volumes >= fewest_volumes:
        return run
    return replace(run, status="excluded", reason=f"{run.n_volumes} volumes, fewer than {fewest_volumes}")


def _wanted(options: DatasetOptions) -> set[str]:
    return {name.removeprefix("sub-") for name in options.subjects or ()}


def _tars(dataset: str, options: DatasetOptions, folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise InputError(Problem(str(folder), dataset, "no such folder", f"correct datasets.{dataset}.shards"))
    named = {path: bids.entities(path.name) for path in sorted(folder.glob("ds-*.tar"))}
    paths = [path for path, found in named.items() if found.get("ds") == dataset and "sub" in found]
    if not paths:
        others = sorted({found.get("ds", "") for found in named.values()} - {""})
        message = f"no shard named ds-{dataset}_sub-*.tar (found datasets: {', '.join(others) or 'none'})"
        raise InputError(Problem(str(folder), dataset, message, "name the dataset in the config as in its shards"))
    wanted = _wanted(options)
    return [path for path in paths if not wanted or named[path]["sub"] in wanted]


def _misfit(sample: Sample, dataset: str, options: DatasetOptions, path: Path) -> Problem | None:
    subject = bids.entities(path.name)["sub"]
    if (sample.meta["dataset"], sample.meta["subject"]) != (dataset, subject):
        message = f"a sample of dataset {sample.meta['dataset']}, subject {sample.meta['subject']}"
        return Problem(str(path), sample.key, message, "move it to the shard of its own dataset and subject")
    if options.role == "downstream" and "label" not in sample.meta:
        message = "a downstream sample without a label"
        return Problem(str(path), sample.key, message, f"set datasets.{dataset}.role to upstream")
    return None


def _record(sample: Sample) -> _Record:
    meta = sample.meta
    return _Record(
        run_key=meta["run_key"],
        space=sample.contract.space,
        t_r=round(float(meta["t_r"]), 5),
        n_volumes=int(meta["n_volumes"]),
        label=meta.get("label"),
        label_name=str(meta.get("label_name", "")),
        trial=_trial(meta) if "label" in meta else None,
    )


def _trial(meta: Mapping[str, Any]) -> Event:
    """Return the trial of a sample; shards of LfB know no times."""
    onset, duration = (math.nan if meta.get(name) is None else float(meta[name]) for name in ("onset", "duration"))
    name = str(meta.get("label_name", meta["label"]))
    return Event(
        key=meta["run_key"],
        subject=str(meta["subject"]),
        event=name,
        label=name,
        onset=onset,
        duration=duration,
        trial=int(meta.get("number", 0)),
        first=meta.get("first"),
        stop=meta.get("stop"),
        n_frames=int(meta["n_volumes"]),
        t_r=float(meta["t_r"]),
    )


def _labels(records: Iterable[_Record], where: str, dataset: str) -> tuple[list[str], list[Problem]]:
    names: dict[int, set[str]] = defaultdict(set)
    for record in records:
        if record.label is not None:
            names[record.label].add(record.label_name)
    problems = [
        Problem(
            where, dataset, f"label {label} has several names: {', '.join(sorted(found))}", "make the shards anew"
        )
        for label, found in sorted(names.items())
        if len(found) > 1
    ]
    # A state may be absent from the subjects at hand; its number stays reserved.
    labels = [min(names[label]) if label in names else str(label) for label in range(max(names, default=-1) + 1)]
    return labels, problems


def _runs(dataset: str, records: Iterable[_Record], fewest_volumes: int) -> list[Run]:
    by_run: dict[str, list[_Record]] = defaultdict(list)
    for record in records:
        by_run[record.run_key].append(record)
    runs = []
    for key, samples in by_run.items():
        found = bids.entities(key)
        n_volumes = sum(sample.n_volumes for sample in samples)
        is_short = samples[0].label is None and n_volumes < fewest_volumes
        runs.append(
            Run(
                dataset=dataset,
                **bids.run_fields(found),
                space=samples[0].space,
                key=key,
                bold="",
                mask="",
                confounds="",
                events="",
                t_r=samples[0].t_r,
                n_volumes=n_volumes,
                status="excluded" if is_short else "ok",
                reason=f"{n_volumes} volumes, fewer than {fewest_volumes}" if is_short else "",
            )
        )
    return runs
