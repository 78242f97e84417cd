"""`boldly prepare`: preprocess, parcellate and shard for many subjects of a dataset, one after the other.

It calls the stages as the command line does: one process does what would be three for each subject. A subject that
is done is not repeated; one that fails does not keep others from being done.
"""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from boldly import batches, fingerprints, layout
from boldly.batches import STAGES, Marker, Tables
from boldly.config import REVISIONS, PrepareOptions
from boldly.files import read_json, write_json
from boldly.locks import one_at_a_time
from boldly.provenance import file_sha256
from boldly.records import InputError, Problem
from boldly.stages import parcellate, preprocess, shard

logger = logging.getLogger(__name__)

# After these no other subject can be written either.
_NOTHING_CAN_BE_WRITTEN = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


@dataclass(frozen=True)
class Dataset:
    """What is prepared, and how; files lie where `boldly.layout` says, relative to the working directory.

    Attributes
    ----------
    name, role : str
        Name of the dataset, and what it is for: upstream or downstream.
    options : PrepareOptions
        Of all three stages.
    """

    name: str
    role: Literal["upstream", "downstream"]
    options: PrepareOptions

    def path(self, pattern: str, subject: str = "") -> Path:
        """Return a file of the dataset or of one of its subjects."""
        return Path(pattern.format(dataset=self.name, role=self.role, subject=subject))


def run(dataset: Dataset, *, batch: str, until: str) -> None:
    """Prepare the subjects of a batch.

    Parameters
    ----------
    dataset : Dataset
        The dataset; it is indexed.
    batch : str
        Which of its subjects (`boldly.batches.names`): ``1of1`` are all.
    until : {"preprocess", "parcellate", "shard"}
        The last stage.

    Raises
    ------
    InputError
        With every problem of every subject; the others are done.
    OSError
        For a disk that is full or may not be written.
    """
    folder = Path(layout.PREPARED.format(dataset=dataset.name))
    folder.mkdir(parents=True, exist_ok=True)
    # Two jobs may be asked for different last stages of the same subjects: `snakemake parcellate shard`.
    with one_at_a_time(folder / f"{batch}.lock"):
        _prepare_batch(dataset, batch, until)


def _prepare_batch(dataset: Dataset, batch: str, until: str) -> None:
    tables = batches.read_tables(dataset.path(layout.RUNS), dataset.path(layout.TRIALS))
    subjects = batches.members(batch, tables.runs)
    options = _stage_options(dataset)
    stages = STAGES[: STAGES.index(until) + 1]
    problems: list[Problem] = []
    failed: list[str] = []
    for number, subject in enumerate(subjects, start=1):
        place = f"sub-{subject} ({number} of {len(subjects)})"
        keys = batches.keys(tables.inputs(subject), options)
        try:
            with _own_log(dataset.path(layout.PREPARE_LOG, subject)):
                seconds = _prepare(dataset, subject, stages, keys, tables)
        except InputError as error:
            problems += error.problems
            failed.append(subject)
            logger.error("%s: %d problems, see the end", place, len(error.problems))
        except OSError as error:
            if error.errno in _NOTHING_CAN_BE_WRITTEN:
                raise
            problems.append(_of_file(error, subject))
            failed.append(subject)
            logger.error("%s: %s", place, error)
        else:
            logger.info("%s: %s", place, f"{seconds:.1f} s" if seconds else "was done before")
    if failed:
        logger.error("%d of %d subjects failed: %s", len(failed), len(subjects), ", ".join(failed))
        raise InputError(problems)
    batches.keep_count(dataset.name, batch, len(tables.runs))
    stamps = {subject: read_json(dataset.path(layout.STAMP, subject)) for subject in subjects}
    if lost := sum(stamp.get("shard", {}).get("lost_trials", 0) for stamp in stamps.values()):
        # Printed, so that the terminal shows it; the log of each subject says which.
        are = "trials are" if lost > 1 else "trial is"
        logs = Path(layout.PREPARE_LOG.format(dataset=dataset.name, subject="")).parent
        print(
            f"{dataset.name}: {lost} {are} left out, of which scrubbing left too few frames (see {logs})",
            flush=True,
        )
    Marker(dataset.name, dataset.role, until, batch).write(stamps)


def _prepare(dataset: Dataset, subject: str, stages: Sequence[str], keys: dict[str, str], tables: Tables) -> float:
    """Bring a subject up to date and return the seconds that it took; what is done and unchanged is left alone."""
    stamp_path = dataset.path(layout.STAMP, subject)
    stamp: dict[str, Any] = _read_stamp(stamp_path)
    took, again = 0.0, False
    for stage in stages:
        outputs = batches.outputs(stage, dataset.name, dataset.role, subject)
        again = again or not _is_done(stamp.get(stage), keys[stage], outputs)
        if not again:
            continue
        # Forgotten before anything is written: a job that is killed here leaves files of which nobody knows what
        # they were made with, and those of the stages behind are stale.
        known = {name: content for name, content in stamp.items() if name not in STAGES[STAGES.index(stage) :]}
        if known != stamp:
            stamp = known
            write_json(stamp_path, stamp)
        started = time.monotonic()
        lost = _STEPS[stage](dataset, subject)
        seconds = time.monotonic() - started
        files = {str(path): {"bytes": path.stat().st_size, "sha256": file_sha256(path)} for path in outputs}
        runs = len(tables.runs[subject])
        stamp[stage] = {"key": keys[stage], "seconds": round(seconds, 3), "runs": runs, "files": files}
        if lost:
            stamp[stage]["lost_trials"] = lost
        write_json(stamp_path, stamp)
        took += seconds
    return took


@contextmanager
def _own_log(path: Path) -> Iterator[None]:
    """Write what is logged to a file as well, errors included; where nothing is logged there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path, mode="w", encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s", datefmt="%H:%M:%S"))
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    except (InputError, OSError) as error:
        problems = error.problems if isinstance(error, InputError) else [error]
        handler.emit(logging.makeLogRecord({"name": __name__, "msg": "\n".join(map(str, problems))}))
        raise
    finally:
        root.removeHandler(handler)
        handler.close()


def _read_stamp(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = read_json(path)
    except (OSError, ValueError):
        return {}
    return content


def _is_done(stamp: dict[str, Any] | None, key: str, outputs: Sequence[Path]) -> bool:
    if stamp is None or stamp["key"] != key:
        return False
    sizes = {str(path): path.stat().st_size if path.exists() else None for path in outputs}
    return sizes == {name: content["bytes"] for name, content in stamp["files"].items()}


def _of_file(error: OSError, subject: str) -> Problem:
    remedy = "see that the file is there and may be read, or exclude the run"
    return Problem(str(error.filename or ""), f"sub-{subject}", str(error.strerror or error), remedy)


def _stage_options(dataset: Dataset) -> dict[str, Sequence[object]]:
    """Return what the results of each stage depend on beside its input."""
    options = dataset.options
    atlas = [options.atlas.model_dump_json(), fingerprints.of_files([options.atlas.image])]
    task = None if options.task is None else options.task.model_dump_json()
    labels = dataset.path(layout.LABELS).read_text(encoding="utf-8")
    own: dict[str, list[object]] = {
        "preprocess": [options.preprocess.model_dump_json(), options.on_error],
        "parcellate": [options.parcellate.model_dump_json(), options.on_error, *atlas],
        "shard": [options.shard.model_dump_json(), task, options.window_frames, labels, options.on_error],
    }
    return {stage: [REVISIONS[stage], *parts] for stage, parts in own.items()}


def _preprocess(dataset: Dataset, subject: str) -> None:
    preprocess.run(
        runs=dataset.path(layout.RUNS),
        subject=subject,
        options=dataset.options.preprocess,
        nuisance=dataset.path(layout.NUISANCE, subject),
        qc=dataset.path(layout.QC, subject),
        on_error=dataset.options.on_error,
    )


def _parcellate(dataset: Dataset, subject: str) -> None:
    parcellate.run(
        runs=dataset.path(layout.RUNS),
        subject=subject,
        nuisance=dataset.path(layout.NUISANCE, subject),
        qc=dataset.path(layout.QC, subject),
        atlas=dataset.options.atlas,
        options=dataset.options.parcellate,
        preprocess=dataset.options.preprocess,
        cache=Path(layout.PROJECTIONS),
        output=dataset.path(layout.TIMESERIES, subject),
        quality=dataset.path(layout.QUALITY, subject),
        on_error=dataset.options.on_error,
    )


def _shard(dataset: Dataset, subject: str) -> int:
    return shard.run(
        timeseries=dataset.path(layout.TIMESERIES, subject),
        runs=dataset.path(layout.RUNS),
        subject=subject,
        role=dataset.role,
        task=dataset.options.task,
        labels=dataset.path(layout.LABELS),
        trials=dataset.path(layout.TRIALS) if dataset.role == "downstream" else None,
        nuisance=dataset.path(layout.NUISANCE, subject) if dataset.role == "downstream" else None,
        options=dataset.options.shard,
        window_frames=dataset.options.window_frames,
        output=dataset.path(layout.SHARD, subject),
        on_error=dataset.options.on_error,
        problems_table=dataset.path(layout.SHARD_PROBLEMS, subject),
    )


_STEPS: dict[str, Callable[[Dataset, str], int | None]] = {
    "preprocess": _preprocess,
    "parcellate": _parcellate,
    "shard": _shard,
}
