"""Tool status: what is done, running and failed in a results folder, and how long the rest may take.

A job of the workflow writes a log while it runs, and its seconds and memory when it has succeeded; both have the
same name. Snakemake's own log says how many jobs there are and which have ended.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from boldly.config import STAGES
from boldly.files import read_json
from boldly.layout import STUDY
from boldly.records import InputError, Problem
from boldly.scope import Scope

State = Literal["done", "running", "failed"]

# What stands in the log of a job that failed by itself; of one that a signal ended nothing does.
_SAYS_WHY = re.compile(r"Traceback|\b\w*(?:Error|Exception)\b|usage: ")
_STOPPED = (
    "its log says no reason, as when a signal, the memory limit or the time limit stops a job; its last lines:"
)
# A line of a job that goes on, as `boldly` logs it.
_LOGGED = re.compile(r"\d\d:\d\d:\d\d [\w.]+: ")
# Lines of a log that are shown where boldly itself has not said what is wrong.
_LAST_LINES = 5
# A log that was written just before the seconds were is of the same job.
_TOLERANCE_S = 2.0
_PROGRESS = re.compile(r"^(\d+) of (\d+) steps", re.MULTILINE)
_FINISHED = re.compile(r"^Finished jobid: \d+ \(Rule: (\w+)\)", re.MULTILINE)
_COUNT = re.compile(r"^(\w+) +(\d+)$", re.MULTILINE)
_CORES = re.compile(r"^Provided cores: (\d+)", re.MULTILINE)
_OF_RULES = {
    "figure": "figures",
    "fetch_atlas": "atlas",
    "pretrain_corpus": "corpus",
    "pretrain_share": "corpus",
}


@dataclass(frozen=True)
class Job:
    """A job of the workflow.

    Attributes
    ----------
    stage, name : str
        Folder and name of its log.
    state : {"done", "running", "failed"}
        What became of it.
    log : Path
        Its log.
    seconds : float or None
        How long it took; None while it is not done.
    """

    stage: str
    name: str
    state: State
    log: Path
    seconds: float | None


@dataclass(frozen=True)
class Run:
    """A run of Snakemake, from its log.

    Attributes
    ----------
    started : float
        Time of the first line, s since 1970.
    is_running : bool
        Whether it holds the lock of the folder and has not said its last word.
    done, total : int
        Jobs, as far as they are known: the subjects of a dataset are, once it is indexed.
    cores : int
        Cores it uses.
    waiting : dict of str to int
        Jobs still to do, by stage, of those that were known at its start.
    """

    started: float
    is_running: bool
    done: int
    total: int
    cores: int
    waiting: dict[str, int]


def run(results: Path) -> str:
    """Summarise a results folder.

    Parameters
    ----------
    results : Path
        ``results`` of a study, or the folder that it lies in.

    Returns
    -------
    str
        A table of the stages, what failed with the messages of its log, and the time left.

    Raises
    ------
    InputError
        For a folder in which the workflow has not run.
    """
    folder = results if (results / "logs").is_dir() else results / "results"
    if not (folder / "logs").is_dir():
        remedy = "give the folder results of a study, or the folder of the study"
        raise InputError(Problem(str(results), "", "no logs of the workflow (results/logs)", remedy))
    last = last_run(folder.resolve().parent / ".snakemake")
    found = jobs(folder, is_running=last is not None and last.is_running)
    lines = [*_table(found), ""]
    for job in found:
        if job.state == "running":
            lines.append(f"running: {job.stage} {job.name}: {_last_line(job.log)}")
    for job in found:
        if job.state == "failed":
            lines += [f"failed: {job.stage} {job.name}, {job.log}", *(f"  {line}" for line in _message(job.log))]
    if last is not None:
        lines.append(_progress(last, found))
    return "\n".join(lines).rstrip()


def jobs(results: Path, *, is_running: bool) -> list[Job]:
    """Return the jobs that have a log, in the order of the stages.

    Parameters
    ----------
    results : Path
        Folder with ``logs`` and ``usage``.
    is_running : bool
        Whether the workflow is running: a job without its seconds is running then, unless its log ends with what
        is wrong with the input; else it has failed.

    Notes
    -----
    Jobs that wrote their logs before the last report, and are of experiments and datasets that its config no
    longer has, are left out.
    """
    order = {stage: number for number, stage in enumerate((*STAGES, "corpus"))}
    is_dropped = _dropped(results / STUDY)
    found = []
    for log in sorted((results / "logs").glob("**/*.log")):
        stage, *rest = log.relative_to(results / "logs").with_suffix("").parts
        # The report is a single job: results/logs/report.log.
        name = "/".join(rest) or stage
        if stage == "slurm" or (stage == "prepare" and log.name.startswith("sub-")):
            # Of a batch of subjects each has a log of its own; the job is the batch.
            continue
        if is_dropped(stage, name, log):
            continue
        usage = results / "usage" / stage / f"{name.replace('/', '_')}.tsv"
        seconds = _seconds(usage) if _is_current(usage, log) else None
        state: State = "done"
        if seconds is None:
            state = "running" if is_running and not _has_given_up(log) else "failed"
        found.append(Job(stage, name, state, log, seconds))
    return sorted(found, key=lambda job: (order.get(job.stage, len(order)), job.stage, job.name))


def _dropped(record: Path) -> Callable[[str, str, Path], bool]:
    """Return what tells whether a job, by its stage, name and log, is of what the config of the last report lacks.

    Of a job that is newer than the report nobody knows: its config may be another one.
    """
    if not record.is_file():
        return lambda stage, name, log: False
    scope, written = Scope(read_json(record)["config"]), record.stat().st_mtime
    return lambda stage, name, log: log.stat().st_mtime < written and not scope.has_job(stage, name)


def last_run(folder: Path) -> Run | None:
    """Return the newest run of Snakemake, from its folder ``.snakemake``; None where there is none.

    A run that was quiet about its progress tells nothing of its jobs. One that was killed leaves its lock, but it
    has not written for long.
    """
    logs = sorted((folder / "log").glob("*.snakemake.log"))
    if not logs:
        return None
    # A dry run and a report write a log too.
    newest = next((log for log in reversed(logs) if _PROGRESS.search(_text(log))), logs[-1])
    text = _text(newest)
    steps = _PROGRESS.findall(text)
    done, total = map(int, steps[-1]) if steps else (0, 0)
    table = text.partition("Job stats:")[2].partition("\ntotal")[0]
    waiting: dict[str, int] = {}
    for rule, count in _COUNT.findall(table):
        waiting[_stage(rule)] = waiting.get(_stage(rule), 0) + int(count)
    for rule in _FINISHED.findall(text):
        if waiting.get(_stage(rule), 0):
            waiting[_stage(rule)] -= 1
    locked = any((folder / "locks").glob("*.lock"))
    cores = _CORES.search(text)
    ended = "Complete log(s):" in text
    started = time.mktime(time.strptime(newest.name[:17], "%Y-%m-%dT%H%M%S"))
    return Run(started, locked and not ended, done, total, int(cores[1]) if cores else 1, waiting)


def seconds_left(last: Run, found: list[Job]) -> tuple[float, int]:
    """Estimate how long the rest of a run takes.

    Parameters
    ----------
    last : Run
        The run.
    found : list of Job
        All jobs: those that are done say how long those of their stage take.

    Returns
    -------
    tuple of (float, int)
        Seconds, all cores busy; and the number of jobs of stages of which none is done yet, which are not in it.
    """
    taken: dict[str, list[float]] = {}
    for job in found:
        if job.seconds is not None:
            taken.setdefault(job.stage, []).append(job.seconds)
    known = sum(len(taken[s]) and n * sum(taken[s]) / len(taken[s]) for s, n in last.waiting.items() if s in taken)
    unknown = sum(count for stage, count in last.waiting.items() if stage not in taken and stage != "all")
    return known / max(1, last.cores), unknown


def _progress(last: Run, found: list[Job]) -> str:
    started = time.strftime("%Y-%m-%d %H:%M", time.localtime(last.started))
    counts = f"{last.done} of {last.total} jobs done" if last.total else "no job was needed, or none is done yet"
    line = f"snakemake, started {started}: {counts}"
    if not last.is_running:
        return f"{line}; it is not running now"
    seconds, unknown = seconds_left(last, found)
    if not unknown:
        return f"{line}; about {_duration(seconds)} left, going by the jobs of each stage that are done"
    others = f"{unknown} job{'' if unknown == 1 else 's'} of stages of which none is done yet"
    if unknown > sum(last.waiting.values()) / 2:
        # What is known would be a small part of the rest, and taken for the whole.
        return f"{line}; how long the rest takes is not known yet: {others}"
    return f"{line}; at least {_duration(seconds)} left, and {others}"


def _table(found: list[Job]) -> list[str]:
    stages = list(dict.fromkeys(job.stage for job in found))
    states: tuple[State, ...] = ("done", "running", "failed")
    lines = [f"{'stage':<12}" + "".join(f"{state:>9}" for state in states) + f"{'time':>12}"]
    for stage in stages:
        own = [job for job in found if job.stage == stage]
        counts = "".join(f"{sum(job.state == state for job in own):>9}" for state in states)
        lines.append(f"{stage:<12}{counts}{_duration(sum(job.seconds or 0 for job in own)):>12}")
    return lines


def _stage(rule: str) -> str:
    word = rule.partition("_")[0]
    return _OF_RULES.get(rule) or _OF_RULES.get(word, word)


def _is_current(usage: Path, log: Path) -> bool:
    return usage.is_file() and usage.stat().st_mtime >= log.stat().st_mtime - _TOLERANCE_S


def _seconds(usage: Path) -> float | None:
    """Return what a benchmark file of Snakemake says of the seconds."""
    try:
        names, values = (line.split("\t") for line in usage.read_text(encoding="utf-8").splitlines()[:2])
        return float(values[names.index("s")])
    except ValueError:
        return None


def _message(log: Path) -> list[str]:
    lines = _lines(log)
    starts = [number for number, line in enumerate(lines) if line.startswith("boldly: ")]
    if starts:
        return lines[starts[-1] :]
    return [*(() if any(map(_SAYS_WHY.search, lines)) else (_STOPPED,)), *lines[-_LAST_LINES:]]


def _has_given_up(log: Path) -> bool:
    """Tell whether a log ends with what is wrong with the input.

    A training that is started again goes on in the log of the one before, behind what that one said.
    """
    message = _message(log)
    return message[0].startswith("boldly: ") and not any(map(_LOGGED.match, message))


def _last_line(log: Path) -> str:
    # A progress bar is one line that is written over and over.
    lines = [line for line in _lines(log) if line.strip()]
    return lines[-1].rpartition("\r")[2].strip() if lines else "nothing said yet"


def _lines(log: Path) -> list[str]:
    return _text(log).split("\n")


def _text(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
