"""Tool decode: a decoder applied to a derivatives folder, as tables and pictures of a BIDS derivative."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import multiprocessing
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits
from tqdm import tqdm

import boldly
from boldly import bids, hcp
from boldly.config import REVISIONS, DatasetOptions, DecodeOptions, EvaluateOptions, IndexOptions
from boldly.decoding.decoder import PROBABILITY, Decoder
from boldly.decoding.folder import CONFIG, atlas_options
from boldly.decoding.preparation import Recipe
from boldly.decoding.timeline import draw_timeline
from boldly.files import read_json, read_tsv, write_json, write_tsv
from boldly.provenance import check_same, file_sha256
from boldly.records import InputError, Problem, Run, Score, read_runs, write_problems, write_scores
from boldly.stages import index
from boldly.stages.evaluate.predictions import Experiment, FitPredictions, Trials
from boldly.stages.evaluate.references import uniform_guessing
from boldly.stages.evaluate.scores import is_summary, score, summary_line
from boldly.stages.index.survey import events_tables
from boldly.words import noun

logger = logging.getLogger(__name__)

SCORES = "scores.tsv"
# Those of the runs that were not in the training, where some were.
UNSEEN = "scores_unseen.tsv"
PROBLEMS = "problems.tsv"

# What runs are called in messages: decoded data have no name in a config.
_DATASET = "new"
_BIDS_VERSION = "1.10.0"
_DECIMALS = 6
_MOST_LISTED = 5
# Ways out of index name options of a config; here they are options of the command line.
_OF_DATASET = re.compile(rf"datasets\.(?:{_DATASET}|<name>)\.(\w+)(: whole_image)?")
_FLAGS = {
    "bids": "--events",
    "subjects": "--participant",
    "tasks": "--bids-task",
    "filters": "--filter",
    "exclude_runs": "--filter",
}
_OF_TASK = {
    "add them to the task's labels, or leave them out with drop, or map them with rename": (
        "leave them out, or map them to states of the decoder: drop and rename in a YAML file for --task"
    ),
    "the task's ": "in a YAML file for --task the option ",
    "(index.on_error: exclude)": "",
}
_OTHER_REGRESSION = (
    "the decoder was trained with this regression: compute the confounds again, or change it with --preprocess "
    "and accept that with --allow-mismatch confounds"
)


def run(
    *,
    options: DecodeOptions,
    output: Path,
    cache: Path | None = None,
    workers: int | None = None,
    summary: bool = True,
) -> None:
    """Decode all runs of a cohort.

    Runs that were decoded before and did not change, nor the decoder or the options, are left as they are. Each
    file takes its name when it is complete.

    Parameters
    ----------
    options : DecodeOptions
        The decoder, whom to decode, and in what they may differ from the training.
    output : Path
        Folder of the derivative dataset: ``sub-<label>/[ses-<label>/]func/*_desc-<decoder>_decoding.tsv`` and
        ``.json``, a row per trial or window; ``sub-<label>/figures/*_decoding.png``; ``scores.tsv`` where there
        are events; ``problems.tsv`` where runs are defective; ``dataset_description.json``.
    cache : Path, optional
        See `boldly.decoding.decoder.Decoder.from_pretrained`.
    workers : int, optional
        Runs that are decoded at the same time; default: one for each core.
    summary : bool, default=True
        Whether scores of all that lies in `output`, the table of problems and the description of the dataset are
        written: left to a last call where several write to the same folder.

    Raises
    ------
    InputError
        For a decoder or a cohort that cannot be used at all; and, when all other runs are decoded, with every
        problem of every defective run, unless `options.on_error` is "exclude".
    """
    decoder = Decoder.from_pretrained(
        options.model, atlas=options.atlas, cache=cache, allow_mismatch=options.allow_mismatch
    )
    decoder.window(options.window_s, options.step_s)
    recipe = decoder.recipe(task=options.task, preprocess=options.preprocess)
    records, problems = find_runs(decoder, options, recipe)
    jobs = [_job(decoder, recipe, options, record, output) for record in records]
    todo = [job for job in jobs if not job.is_done()]
    if len(todo) < len(jobs):
        logger.info("%d of %d runs are decoded already, unchanged", len(jobs) - len(todo), len(jobs))
    for number, (job, found) in enumerate(_decode_all(decoder, recipe, options, todo, workers or _cores()), 1):
        problems += found
        outcome = f"defective: {found[0].message}" if found else str(job.table)
        logger.info("%d/%d %s: %s", number, len(todo), job.record.key, outcome)
    for problem in problems:
        _remove(decoder, output, problem.entity)
    if summary:
        write_json(output / "dataset_description.json", _description(decoder, options))
        write_problems(output / PROBLEMS, problems)
        summarise(decoder, output)
    if problems and options.on_error == "stop":
        raise InputError(problems)


def find_runs(decoder: Decoder, options: DecodeOptions, recipe: Recipe) -> tuple[list[Run], list[Problem]]:
    """Find the runs of a cohort with their files.

    Returns
    -------
    runs : list of Run
        Those that can be decoded, as far as their headers tell; with the path of their events, if there are any.
    problems : list of Problem
        What is wrong with the others.

    Raises
    ------
    InputError
        Where the cohort as a whole cannot be used.
    """
    space = options.space or decoder.contract.space
    contract = replace(recipe.contract_of(space, decoder.contract.images), t_r_s=decoder.contract.t_r_s)
    check_same(decoder.contract, contract, options.derivatives, decoder.about.name, decoder.allow_mismatch)
    dataset = DatasetOptions(
        role="upstream",
        derivatives=options.derivatives,
        # Its sidecars say what those of the derivatives may not: repetition times, slice times.
        bids=options.events,
        layout=options.layout or decoder.about.layout,
        image_suffix=decoder.about.image_suffix,
        fmriprep=options.fmriprep,
        subjects=options.participants,
        tasks=options.tasks,
        filters=options.filters,
        space=space,
        resolution=options.resolution,
        without_mask=options.without_mask,
    )
    atlas = atlas_options(decoder.folder, decoder.about, decoder.image, decoder.cache / "atlas")
    with tempfile.TemporaryDirectory(prefix="boldly-") as temporary:
        runs, labels = Path(temporary, "runs.tsv"), Path(temporary, "labels.json")
        try:
            index.run(
                dataset=_DATASET,
                dataset_options=dataset,
                options=IndexOptions(on_error="exclude", minimum_volumes=2),
                preprocess=recipe.preprocess,
                window_frames=2,
                atlas=atlas,
                runs=runs,
                labels=labels,
            )
        except InputError as error:
            found = [_translated(problem) for problem in error.problems]
            # Runs that are defective one and all are still the fault of each.
            if found[0].message.startswith("not one of"):
                return [], found[1:] or found
            raise InputError(found) from None
        records = read_runs(runs)
        problems = _read_problems(runs.with_name(f"{_DATASET}_problems.tsv"))
    usable = [record for record in records if record.status == "ok"]
    problems += [
        Problem(record.bold, record.key, record.reason, "leave the run out")
        for record in records
        if record.status == "excluded"
    ]
    if options.events is not None:
        usable = _with_events(usable, Path(options.events), is_hcp=dataset.layout == "hcp")
    return usable, problems


def _with_events(records: Sequence[Run], folder: Path, *, is_hcp: bool) -> list[Run]:
    """Return runs with the path of their events: tables of a BIDS folder, of HCP also folders beside images."""
    try:
        tables = events_tables(folder, _DATASET, {record.subject for record in records})
    except InputError as error:
        raise InputError([_translated(problem) for problem in error.problems]) from None
    found = []
    for record in records:
        entities = {key: getattr(record, name) for name, key in bids.RUN_ENTITIES.items() if getattr(record, name)}
        best = bids.best_match(tables[record.subject], entities)
        beside = hcp.events_folder(Path(record.bold).parent)
        if is_hcp and len(best) != 1 and beside.is_dir():
            best = [beside]
        found.append(replace(record, events=str(best[0]) if len(best) == 1 else ""))
    without = [record.key for record in found if not record.events]
    if without:
        message = "%d of %d runs have no events table in %s, so that sliding windows are decoded: %s"
        logger.warning(message, len(without), len(found), folder, _listed(without))
    return found


def _listed(keys: Sequence[str]) -> str:
    """Name some runs, few in number."""
    return ", ".join(keys[:_MOST_LISTED]) + (", ..." if len(keys) > _MOST_LISTED else "")


def _translated(problem: Problem) -> Problem:
    """Put a way out into the terms of the command line."""
    remedy = _OF_DATASET.sub(
        lambda found: _FLAGS.get(found[1], f"--{found[1].replace('_', '-')}") + (found[2] or "").replace(":", ""),
        problem.remedy,
    )
    for words, others in _OF_TASK.items():
        remedy = remedy.replace(words, others)
    if "preprocess." in remedy:
        remedy = _OTHER_REGRESSION
    return replace(problem, remedy=remedy.strip())


def _read_problems(path: Path) -> list[Problem]:
    if not path.exists():
        return []
    rows = read_tsv(path, "all").fillna("").to_dict("records")
    return [
        _translated(Problem(str(row["file"]), str(row["entity"]), str(row["message"]), str(row["way_out"])))
        for row in rows
    ]


@dataclass(frozen=True)
class Job:
    """A run to decode, and its files.

    Attributes
    ----------
    record : Run
        The run.
    table, picture : Path
        What is written; the JSON file beside the table is written last.
    signature : str
        Checksum of all that the result depends on.
    """

    record: Run
    table: Path
    picture: Path
    signature: str

    def is_done(self) -> bool:
        """Tell whether the run was decoded from the same input by the same decoder."""
        try:
            known = read_json(bids.sidecar(self.table))["Signature"]
        except (OSError, ValueError, KeyError, TypeError):
            return False
        return bool(known == self.signature) and self.table.exists() and self.picture.exists()


def _job(decoder: Decoder, recipe: Recipe, options: DecodeOptions, record: Run, output: Path) -> Job:
    entities = {key: getattr(record, name) for name, key in bids.RUN_ENTITIES.items()}
    stem = f"{bids.run_prefix(entities)}_space-{record.space}_{_ending(decoder)}"
    subject = output / f"sub-{record.subject}"
    folder = subject / f"ses-{record.session}" if record.session else subject
    files = [record.bold, record.mask, record.confounds, record.events]
    if record.confounds:
        files.append(str(bids.sidecar(Path(record.confounds))))
    content = {
        "decoder": _checksum(decoder),
        "options": [
            section.model_dump(mode="json")
            for section in (recipe.preprocess, recipe.parcellate, recipe.shard, recipe.task)
        ],
        "windows": [options.window_s, options.step_s],
        "allow": sorted(decoder.allow_mismatch),
        "run": dataclasses.asdict(record),
        "files": [_stamp(path) for path in files],
        "revisions": {name: REVISIONS[name] for name in ("index", "preprocess", "parcellate", "shard")},
    }
    signature = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return Job(record, folder / "func" / f"{stem}.tsv", subject / "figures" / f"{stem}.png", signature)


def _ending(decoder: Decoder) -> str:
    return f"desc-{re.sub('[^A-Za-z0-9]', '', decoder.about.name) or 'decoder'}_decoding"


def _remove(decoder: Decoder, output: Path, key: str) -> None:
    """Remove what an earlier call left of a run that is defective now: it would pass for the new result."""
    dataset, _, prefix = key.partition("_")
    if dataset == f"ds-{_DATASET}" and prefix:
        subject = prefix.partition("_")[0]
        for path in output.glob(f"{subject}/**/{prefix}_space-*_{_ending(decoder)}.*"):
            path.unlink(missing_ok=True)


def _stamp(path: str) -> list[Any]:
    """Return what changes with a file: its path, size and time."""
    if not path or not os.path.exists(path):
        return [path]
    about = os.stat(path)
    return [path, about.st_size, about.st_mtime_ns]


def _checksum(decoder: Decoder) -> str:
    return file_sha256(decoder.folder / CONFIG)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _decode_all(
    decoder: Decoder, recipe: Recipe, options: DecodeOptions, jobs: Sequence[Job], workers: int
) -> Iterator[tuple[Job, list[Problem]]]:
    """Yield each job when it is done, with what is wrong with its run."""
    bar = tqdm(total=len(jobs), desc=f"{decoder.about.name}: decode", unit="run", disable=None)
    workers = min(workers, len(jobs))
    with bar:
        if workers < 2:
            for job in jobs:
                yield job, _decode(decoder, recipe, options, job)
                bar.update()
            return
        about = (decoder.folder, decoder.allow_mismatch, decoder.image, decoder.cache, recipe, options)
        threads = max(1, _cores() // workers)
        # Not forked: threads of numerical libraries do not survive that.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, context, _start, (about, threads)) as pool:
            waiting = {pool.submit(_decode_in_worker, job): job for job in jobs}
            try:
                for done in as_completed(waiting):
                    yield waiting[done], done.result()
                    bar.update()
            except BrokenProcessPool:
                message = "a worker process was ended from outside, mostly for lack of memory"
                raise InputError(
                    Problem("--workers", "", message, "rerun with fewer workers; done runs stay")
                ) from None
            finally:
                pool.shutdown(cancel_futures=True)


# The decoder of a worker process, loaded once.
_LOADED: dict[str, tuple[Decoder, Recipe, DecodeOptions]] = {}


def _start(about: tuple[Any, ...], threads: int) -> None:
    folder, allow, image, cache, recipe, options = about
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")
    # For torch, which is not imported yet; the limit is for libraries that are.
    os.environ["OMP_NUM_THREADS"] = str(threads)
    threadpool_limits(threads)
    decoder = Decoder.from_pretrained(folder, atlas=image, cache=cache, allow_mismatch=allow, check=False)
    _LOADED["decoder"] = decoder, recipe, options


def _decode_in_worker(job: Job) -> list[Problem]:
    return _decode(*_LOADED["decoder"], job)


def _decode(decoder: Decoder, recipe: Recipe, options: DecodeOptions, job: Job) -> list[Problem]:
    """Decode a run and write its files; return what is wrong with it."""
    record = job.record
    # A decoder that cannot be read is no fault of a run.
    _ = decoder.fit
    try:
        table = decoder.decode_run(record, recipe, window_s=options.window_s, step_s=options.step_s)
    except InputError as error:
        return [_translated(replace(problem, entity=record.key)) for problem in error.problems]
    job.table.parent.mkdir(parents=True, exist_ok=True)
    bids.sidecar(job.table).unlink(missing_ok=True)
    write_tsv(job.table, _rounded(table))
    draw_timeline(table, decoder.about.labels, job.table.name.partition("_space-")[0], job.picture)
    write_json(bids.sidecar(job.table), _sidecar(decoder, options, record, table, job.signature))
    return []


def _rounded(table: pd.DataFrame) -> pd.DataFrame:
    numbers = table.select_dtypes("number").columns
    return table.assign(**{name: table[name].astype(np.float64).round(_DECIMALS) for name in numbers})


def _sidecar(
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
        "Decoder": {"Name": decoder.about.name, "ConfigSha256": _checksum(decoder)},
        "AllowedMismatch": sorted(decoder.allow_mismatch),
        "SeenInTraining": table.attrs["seen"],
        "Signature": signature,
    }


def _description(decoder: Decoder, options: DecodeOptions) -> dict[str, Any]:
    made_by = {
        "Name": "boldly",
        "Version": boldly.__version__,
        "Description": f"boldly decode with {decoder.about.name} (SHA-256 of its config {_checksum(decoder)})",
    }
    sources = [Path(folder) for folder in (options.derivatives, options.events) if folder is not None]
    return {
        "Name": f"Mental states decoded by {decoder.about.name}",
        "BIDSVersion": _BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [made_by],
        "SourceDatasets": [{"URL": path.resolve().as_uri()} for path in sources],
    }


def summarise(decoder: Decoder, output: Path) -> None:
    """Write scores of all decoded trials in a folder, with intervals over people (over trials for a single one).

    Where some of the runs were in the training, those of the others alone are written too.

    Parameters
    ----------
    decoder : Decoder
        Tables of others do not count.
    output : Path
        Folder that `run` wrote.
    """
    tables, seen = _decoded_trials(decoder, output)
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


def _decoded_trials(decoder: Decoder, output: Path) -> tuple[dict[str, pd.DataFrame], set[str]]:
    """Return the decoded trials by run, and the runs that were in the training."""
    checksum = _checksum(decoder)
    tables: dict[str, pd.DataFrame] = {}
    seen: set[str] = set()
    for path in sorted(output.glob(f"sub-*/**/func/*_{_ending(decoder)}.tsv")):
        try:
            about = read_json(bids.sidecar(path))
        except (OSError, ValueError):
            continue
        if about.get("Decoder", {}).get("ConfigSha256") != checksum or "trial_type" not in about:
            continue
        table = read_tsv(path, ("trial_type", "state"))
        table = table[table["state"].notna()]
        if len(table):
            name = path.name.partition("_space-")[0]
            tables[name] = table
            if about.get("SeenInTraining"):
                seen.add(name)
    return tables, seen
