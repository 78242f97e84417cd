"""Tool decode: a decoder applied to a derivatives folder, as tables and pictures of a BIDS derivative."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import multiprocessing
import os
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

from boldly import bids
from boldly.config import DECODE_REVISIONS, DecodeOptions
from boldly.decoding.decoder import Decoder
from boldly.decoding.derivative import checksum, description, ending, sidecar_of, summarise
from boldly.decoding.finding import DATASET, find_runs, translated
from boldly.decoding.preparation import Recipe
from boldly.decoding.timeline import draw_timeline
from boldly.files import read_json, write_json, write_tsv
from boldly.records import InputError, Problem, Run, write_problems

logger = logging.getLogger(__name__)

PROBLEMS = "problems.tsv"

_DECIMALS = 6


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
        Whether scores of the cohort, the table of problems and the description of the dataset are written: left to
        a last call where several write to the same folder, each for some of the people.

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
    records, problems = find_runs(decoder, options, recipe, is_part=not summary)
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
        write_json(output / "dataset_description.json", description(decoder, options))
        write_problems(output / PROBLEMS, problems)
        summarise(decoder, output, [job.table for job in jobs])
    if problems and options.on_error == "stop":
        raise InputError(problems)


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
    stem = f"{bids.run_prefix(bids.run_entities(record))}_space-{record.space}_{ending(decoder)}"
    subject = output / f"sub-{record.subject}"
    folder = subject / f"ses-{record.session}" if record.session else subject
    files = [record.bold, record.mask, record.confounds, record.events]
    if record.confounds:
        files.append(str(bids.sidecar(Path(record.confounds))))
    content = {
        "decoder": checksum(decoder),
        "options": [
            section.model_dump(mode="json")
            for section in (recipe.preprocess, recipe.parcellate, recipe.shard, recipe.task)
        ],
        "windows": [options.window_s, options.step_s],
        "allow": sorted(decoder.allow_mismatch),
        "run": dataclasses.asdict(record),
        "files": [_stamp(path) for path in files],
        "revisions": DECODE_REVISIONS,
    }
    signature = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return Job(record, folder / "func" / f"{stem}.tsv", subject / "figures" / f"{stem}.png", signature)


def _remove(decoder: Decoder, output: Path, key: str) -> None:
    """Remove what an earlier call left of a run that is defective now: it would pass for the new result."""
    dataset, _, prefix = key.partition("_")
    if dataset == f"ds-{DATASET}" and prefix:
        # Names of files spell run numbers as the images do (run-01), keys do not.
        run = bids.identity_of(prefix)
        for path in output.glob(f"{prefix.partition('_')[0]}/**/*_space-*_{ending(decoder)}.*"):
            if bids.identity_of(path.name) == run:
                path.unlink(missing_ok=True)


def _stamp(path: str) -> list[Any]:
    """Return what changes with a file: its path, size and time."""
    if not path or not os.path.exists(path):
        return [path]
    about = os.stat(path)
    return [path, about.st_size, about.st_mtime_ns]


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
        return [translated(replace(problem, entity=record.key)) for problem in error.problems]
    job.table.parent.mkdir(parents=True, exist_ok=True)
    bids.sidecar(job.table).unlink(missing_ok=True)
    write_tsv(job.table, _rounded(table))
    draw_timeline(table, decoder.about.labels, job.table.name.partition("_space-")[0], job.picture)
    write_json(bids.sidecar(job.table), sidecar_of(decoder, options, record, table, job.signature))
    return []


def _rounded(table: pd.DataFrame) -> pd.DataFrame:
    numbers = table.select_dtypes("number").columns
    return table.assign(**{name: table[name].astype(np.float64).round(_DECIMALS) for name in numbers})
