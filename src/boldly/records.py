"""The records that travel between stages, and the error that reports what is wrong with an input."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from boldly.files import read_tsv, write_tsv

# Imported where it is used: every command, `boldly --help` too, imports this module.
if TYPE_CHECKING:
    import pandas as pd

Status = Literal["ok", "excluded", "error"]


# Environment variable: a file that the first of several processes writes which says what is wrong with the input.
SPEAKER = "BOLDLY_SPEAKER"
# So many problems that differ in nothing but the run are told as one, with so many runs by name.
_FEWEST_ALIKE = 3
_MOST_NAMED = 20


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with an input.

    Attributes
    ----------
    where : str
        File or config field.
    entity : str
        What it belongs to: a run key, a subject, a dataset; empty where there is none.
    message : str
        What is wrong, with the values found.
    remedy : str
        The way out.
    """

    where: str
    entity: str
    message: str
    remedy: str

    def __str__(self) -> str:
        head = f"{self.entity}: " if self.entity else ""
        return f"{head}{self.message}\n    file: {self.where}\n    way out: {self.remedy}"


class InputError(ValueError):
    """Bad input. Carries every problem found, so that all of them can be mended at once.

    Parameters
    ----------
    problems : Problem or iterable of Problem
        What is wrong.
    table : Path, optional
        Table in which all of them stand (`write_problems`).
    """

    def __init__(self, problems: Problem | Iterable[Problem], table: Path | None = None) -> None:
        self.problems = [problems] if isinstance(problems, Problem) else list(problems)
        self.table = table
        super().__init__("\n".join(str(problem) for problem in self.problems))

    def __reduce__(self) -> tuple[type[InputError], tuple[list[Problem], Path | None]]:
        """Come back from another process with all problems."""
        return InputError, (self.problems, self.table)

    def for_terminal(self) -> str:
        """Return text for the terminal: runs with the same problem together, and how runs are excluded."""
        alike: dict[tuple[str, str], list[Problem]] = {}
        for problem in self.problems:
            alike.setdefault((problem.message, problem.remedy), []).append(problem)
        count = len(self.problems)
        lines = [f"{count} problem{'s' if count != 1 else ''} with the input"]
        for problems in alike.values():
            if len(problems) < _FEWEST_ALIKE:
                lines += [f"- {problem}" for problem in problems]
                continue
            names = [f"    {problem.entity or problem.where}" for problem in problems[:_MOST_NAMED]]
            if more := len(problems) - len(names):
                names.append(f"    and {more} more")
            first = problems[0]
            lines += [f"- {len(problems)} times: {first.message}", *names]
            lines += [f"    first file: {first.where}", f"    way out: {first.remedy}"]
        if any("exclude" in problem.remedy for problem in self.problems):
            lines.append(
                "To exclude a run, name it in the config: datasets.<name>.exclude_runs: {sub-01_task-rest_run-2: "
                "the reason}; index.on_error: exclude leaves out all defective runs."
            )
        if self.table is not None and count > 1:
            lines.append(f"All problems stand in {self.table}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Run:
    """One BIDS run and where its files are.

    Entities that a run does not have are empty strings. `run` keeps its spelling ("01"). `status` is "ok",
    "excluded" (by a rule of the config) or "error"; `reason` says why it is not "ok".

    Attributes
    ----------
    key : str
        ``ds-<dataset>_sub-<s>[_ses-..]_task-<t>[_acq-..][_dir-..][_run-<int>]``, unique in a dataset
        (`boldly.bids.run_key`).
    bold, mask, confounds, events : str
        Paths; empty where there is none.
    t_r : float
        Repetition time in seconds, rounded to 5 decimals; nan when unknown.
    n_volumes : int
        Number of frames; 0 when unknown.
    start_time : float
        Time of frame 0 on the clock of the events, s: frame i lies at ``start_time + i * t_r``.
    """

    dataset: str
    subject: str
    session: str
    task: str
    acquisition: str
    direction: str
    run: str
    space: str
    key: str
    bold: str
    mask: str
    confounds: str
    events: str
    t_r: float
    n_volumes: int
    status: Status = "ok"
    reason: str = ""
    start_time: float = 0.0
    ceagent: str = ""
    reconstruction: str = ""
    echo: str = ""
    part: str = ""
    chunk: str = ""


@dataclass(frozen=True)
class Event:
    """A row of a run's events and what became of it.

    Attributes
    ----------
    key, subject : str
        Run key and subject.
    event, label : str
        Name of the state in the events table, and as it is used; the label is empty for rows that are left out by
        their name.
    onset, duration : float
        Seconds, as in the events table; the duration may be nan.
    trial : int or None
        Number of the trial among those of the run, from 0; consecutive rows that make one trial share it. None for
        a row that is left out.
    first, stop : int or None
        The frames ``first <= frame < stop`` of the trial, delay included, inside the run; None without any.
    n_frames : int
        Their number, before scrubbing.
    t_r : float
        Repetition time that frames are counted with, s.
    status : str
        "ok", "excluded" or "error", as for runs.
    reason : str
        Why it is left out, or that the run cuts the trial: a kind, a colon, and the numbers.
    """

    key: str
    subject: str
    event: str
    label: str
    onset: float
    duration: float
    trial: int | None
    first: int | None
    stop: int | None
    n_frames: int
    t_r: float
    status: Status = "ok"
    reason: str = ""


@dataclass(frozen=True)
class Trial:
    """A labelled window of a run.

    Attributes
    ----------
    run_key : str
        Key of the run.
    number : int
        Position among the trials of the run, from 0.
    onset, duration : float
        Seconds from the first frame, before the haemodynamic delay.
    label : int
        Number of the state.
    label_name : str
        Name of the state.
    first, stop : int
        The frames ``first <= frame < stop``, delay included.
    """

    run_key: str
    number: int
    onset: float
    duration: float
    label: int
    label_name: str
    first: int
    stop: int


@dataclass(frozen=True)
class Score:
    """One tidy row of an evaluation: a number with its interval and what it belongs to.

    `draw`, `seed` and `subject` are "all" where the number covers all of them.

    Attributes
    ----------
    n : int
        Number of labelled units that were used to fit or to choose; 0 where none were.
    seed : str
        Seed of the whole training, upstream and downstream.
    kind : str
        pretrained, scratch, untrained, baseline, control, chance or ceiling.
    start : str
        Upstream experiment that the network is that of, or which baseline; empty where there is neither.
    label : str
        State that the number is of (metric recall), else "all".
    flag : str
        What makes the number suspicious; empty: nothing.
    """

    dataset: str
    experiment: str
    n: int
    draw: str
    seed: str
    subject: str
    metric: str
    value: float
    ci_low: float
    ci_high: float
    n_trials: int
    kind: str = ""
    start: str = ""
    label: str = "all"
    flag: str = ""


@dataclass(frozen=True)
class Comparison:
    """How much more accurate an experiment is than another, paired over test units, draws and seeds.

    Attributes
    ----------
    n : int
        Number of labelled units of both.
    experiment, kind : str
        The one.
    baseline, other_kind : str
        The name of the other, and its kind.
    difference, ci_low, ci_high : float
        Accuracy of the one minus that of the other, and its interval.
    p : float
        Two-sided p-value of no difference.
    p_holm : float
        The same, corrected for all comparisons of the dataset at this n.
    n_units, n_draws, n_seeds : int
        Levels of the factors that the interval is over; `n_units` counts trials where there is one test unit.
    """

    dataset: str
    n: int
    experiment: str
    kind: str
    baseline: str
    other_kind: str
    difference: float
    ci_low: float
    ci_high: float
    p: float
    p_holm: float
    n_units: int
    n_draws: int
    n_seeds: int


@dataclass(frozen=True)
class Choice:
    """What validation chose for one fit, and what came of it.

    Attributes
    ----------
    n : int
        Number of labelled units.
    draw, seed : str
        Which of the fits of the experiment.
    choice : str
        Read-outs, layers, classifier and penalty of a probe, or the step of a training, in words.
    validation_loss, validation_accuracy : float
        Of trials left out of the fit, by which the choice was made; nan where unknown.
    test_accuracy : float
        Share of the test trials that are named correctly.
    """

    dataset: str
    experiment: str
    kind: str
    n: int
    draw: str
    seed: str
    choice: str
    validation_loss: float
    validation_accuracy: float
    test_accuracy: float


def read_table(
    path: Path | str, columns: Sequence[str], text_columns: tuple[str, ...] | Literal["all"] = (), *, stage: str
) -> pd.DataFrame:
    """Read a table that another stage wrote.

    Parameters
    ----------
    path : Path or str
        The table.
    columns : sequence of str
        Columns that it must have.
    text_columns : tuple of str or "all"
        Columns that stay text.
    stage : str
        The stage that writes it, for the way out.

    Raises
    ------
    InputError
        For a file that is missing, cut, or not such a table.
    """
    import pandas as pd

    problem = None
    try:
        # Every line that boldly writes has an end.
        if not Path(path).read_bytes().endswith(b"\n"):
            problem = "the table is cut: its last line has no end"
        table = read_tsv(path, text_columns)
        if missing := [name for name in columns if name not in table]:
            problem = f"the table has no column {', '.join(missing)}"
    except FileNotFoundError:
        problem = "no such table"
    except (UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        problem = f"not a readable table: {error}"
    if problem is not None:
        raise InputError(Problem(str(path), "", problem, f"delete it and rerun {stage}"))
    return table


_TEXT_COLUMNS = tuple(field.name for field in dataclasses.fields(Run) if field.type == "str")
# Run tables that stand beside shards at a web address may have been written before there were these columns.
_LATER_COLUMNS: dict[str, str | float] = {
    "start_time": 0.0,
    **dict.fromkeys(("ceagent", "reconstruction", "echo", "part", "chunk"), ""),
}


def write_runs(path: Path | str, runs: Sequence[Run]) -> None:
    """Write the run table of a dataset, sorted by key."""
    import pandas as pd

    columns = [field.name for field in dataclasses.fields(Run)]
    rows = [dataclasses.astuple(run) for run in sorted(runs, key=lambda run: run.key)]
    table = pd.DataFrame(rows, columns=columns)
    table[list(_TEXT_COLUMNS)] = table[list(_TEXT_COLUMNS)].replace("", None)
    write_tsv(path, table)


def read_runs(path: Path | str, *, subject: str | None = None, usable: bool = False) -> list[Run]:
    """Read a run table.

    Parameters
    ----------
    path : Path or str
        A table written by `write_runs`.
    subject : str, optional
        Only the runs of this subject.
    usable : bool, default=False
        Only runs with status "ok".
    """
    names = tuple(field.name for field in dataclasses.fields(Run) if field.name not in _LATER_COLUMNS)
    table = read_table(path, names, (*_TEXT_COLUMNS, "status"), stage="index")
    table = table.assign(**{name: value for name, value in _LATER_COLUMNS.items() if name not in table})
    table[list(_TEXT_COLUMNS)] = table[list(_TEXT_COLUMNS)].fillna("")
    if subject is not None:
        table = table[table["subject"] == subject]
    if usable:
        table = table[table["status"] == "ok"]
    return [Run(**{str(k): v for k, v in row.items()}) for row in table.to_dict("records")]


_EVENT_TEXT = ("key", "subject", "event", "label", "status", "reason")
_EVENT_NUMBERS = ("trial", "first", "stop")


def events_table(events: Iterable[Event]) -> pd.DataFrame:
    """Return events as a table, a row each; ``first``, ``stop`` and ``trial`` are missing where there are none."""
    import pandas as pd

    rows = [dataclasses.astuple(event) for event in events]
    table = pd.DataFrame(rows, columns=[field.name for field in dataclasses.fields(Event)])
    return table.astype(dict.fromkeys(_EVENT_NUMBERS, "Int64"))


def write_problems(path: Path, problems: Sequence[Problem]) -> None:
    """Write a table of problems (file, entity, message, way_out); without any, remove an earlier one."""
    if not problems:
        path.unlink(missing_ok=True)
        return
    import pandas as pd

    rows = [dataclasses.astuple(problem) for problem in problems]
    write_tsv(path, pd.DataFrame(rows, columns=["file", "entity", "message", "way_out"]))


def write_trials(path: Path | str, events: Iterable[Event]) -> None:
    """Write the table of trials of a dataset: all events, by run and onset."""
    table = events_table(sorted(events, key=lambda event: (event.key, event.onset)))
    table[list(_EVENT_TEXT)] = table[list(_EVENT_TEXT)].replace("", None)
    write_tsv(path, table)


def read_trials(path: Path | str, *, subject: str | None = None) -> list[Event]:
    """Read a table of trials.

    Parameters
    ----------
    path : Path or str
        A table written by `write_trials`.
    subject : str, optional
        Only the events of this subject.
    """
    table = read_table(path, [field.name for field in dataclasses.fields(Event)], _EVENT_TEXT, stage="index")
    if subject is not None:
        table = table[table["subject"] == subject].copy()
    table[list(_EVENT_TEXT)] = table[list(_EVENT_TEXT)].fillna("")
    # Decimal numbers are read with an error in the last binary digit.
    table[["onset", "duration"]] = table[["onset", "duration"]].astype("float64").round(6)
    rows = table.astype(dict.fromkeys(_EVENT_NUMBERS, "Int64")).to_dict("records")
    return [
        Event(**{str(k): v for k, v in row.items()} | {name: _whole(row[name]) for name in _EVENT_NUMBERS})
        for row in rows
    ]


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) else None


def write_scores(path: Path | str, scores: Sequence[Score]) -> None:
    """Write tidy scores in their order."""
    _write_records(path, Score, scores)


def read_scores(path: Path | str) -> pd.DataFrame:
    """Read tidy scores: one row per `Score`, names, draws and seeds as text."""
    return read_tsv(path, _text_of(Score))


def write_comparisons(path: Path | str, comparisons: Sequence[Comparison]) -> None:
    """Write comparisons in their order."""
    _write_records(path, Comparison, comparisons)


def read_comparisons(path: Path | str) -> pd.DataFrame:
    """Read comparisons: one row per `Comparison`, names as text."""
    return read_tsv(path, _text_of(Comparison))


def write_choices(path: Path | str, choices: Sequence[Choice]) -> None:
    """Write choices in their order."""
    _write_records(path, Choice, choices)


def read_choices(path: Path | str) -> pd.DataFrame:
    """Read choices: one row per `Choice`, names, draws and seeds as text."""
    return read_tsv(path, _text_of(Choice))


def _write_records(path: Path | str, kind: type[Any], records: Sequence[Any]) -> None:
    import pandas as pd

    columns = [field.name for field in dataclasses.fields(kind)]
    write_tsv(path, pd.DataFrame([dataclasses.astuple(record) for record in records], columns=columns))


def _text_of(kind: type[Any]) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(kind) if field.type == "str")
