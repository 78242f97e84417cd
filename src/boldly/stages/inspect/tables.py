"""What inspect says of tables: runs, trials, scores, comparisons, choices."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pandas as pd

from boldly.files import read_tsv
from boldly.records import InputError, Problem, read_choices, read_comparisons, read_runs, read_scores, read_trials
from boldly.signals.states import summary
from boldly.stages.inspect.text import KINDS, MOST_LISTED, Rows, each_once, seconds, span
from boldly.words import counted

# Columns of a table of choices, and what they are called in short.
_MEASURED = {"loss": "validation_loss", "validation": "validation_accuracy", "test": "test_accuracy"}
_MOST_CHOICES = 3


def describe_table(path: Path) -> Rows:
    """Describe a table by what its columns say that it is.

    Raises
    ------
    InputError
        If it is none of those known, or cannot be read.
    """
    try:
        columns = set(read_tsv(path).columns)
        if {"key", "bold", "t_r", "status"} <= columns:
            return _runs(path)
        if {"experiment", "metric", "value", "ci_low"} <= columns:
            return _scores(path)
        if {"experiment", "baseline", "difference", "p_holm"} <= columns:
            return _comparisons(path)
        if {"event", "label", "trial", "n_frames"} <= columns:
            return _trials(path)
        if {"experiment", "choice", "validation_loss", "test_accuracy"} <= columns:
            return _choices(path)
    except (UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError, TypeError) as error:
        raise InputError(Problem(str(path), "", f"not a readable table: {error}", f"give {KINDS}")) from None
    found = ", ".join(sorted(columns)[:MOST_LISTED])
    message = f"a table neither of runs or trials nor of scores, comparisons or choices (columns: {found})"
    raise InputError(Problem(str(path), "", message, f"give {KINDS}"))


def _runs(path: Path) -> Rows:
    runs = read_runs(path)
    usable = [item for item in runs if item.status == "ok"]
    states = Counter(item.status for item in runs)
    tasks = Counter(item.task for item in usable)
    rows = [
        (
            "run table",
            f"{counted(len(runs), 'run')} of {counted(len({item.subject for item in runs}), 'subject')}",
        ),
        ("dataset", each_once(item.dataset for item in runs)),
        ("status", each_once(f"{status} {count}" for status, count in sorted(states.items()))),
        ("tasks", each_once(f"{task} ({count})" for task, count in sorted(tasks.items()))),
        ("t_r", seconds(item.t_r for item in usable)),
        ("volumes", f"{span([item.n_volumes for item in usable])} each"),
        ("events", f"for {sum(bool(item.events) for item in usable)} of {counted(len(usable), 'usable run')}"),
    ]
    reasons = Counter(item.reason for item in runs if item.reason)
    return rows + [("reason", f"{count} x {reason}") for reason, count in reasons.most_common()]


def _trials(path: Path) -> Rows:
    events = read_trials(path)
    if not events:
        return [("trials table", "no events")]
    dataset = path.name.removesuffix("_trials.tsv")
    return [
        ("trials table", counted(len(events), "event")),
        *(("", line) for line in summary(dataset, events, None)),
    ]


def _scores(path: Path) -> Rows:
    table = read_scores(path)
    rows = [
        ("scores table", f"{len(table):,} scores"),
        ("dataset", each_once(table["dataset"])),
        ("metrics", each_once(table["metric"])),
    ]
    overall = table[(table[["draw", "seed", "subject"]] == "all").all(axis=1)]
    shown = overall[overall["metric"] == "accuracy"]
    width = max((len(name) for name in shown["experiment"]), default=0)
    for score in shown.sort_values(["n", "value"], ascending=[True, False], kind="stable").to_dict("records"):
        interval = f"  [{score['ci_low']:.3f}; {score['ci_high']:.3f}]" if pd.notna(score["ci_low"]) else ""
        rows.append(
            ("accuracy", f"n {score['n']:>3}  {score['experiment']:<{width}}  {score['value']:.3f}{interval}")
        )
    flagged = shown[shown["flag"].fillna("") != ""] if "flag" in shown else shown.iloc[:0]
    rows += [("flagged", f"n {row.n:>3}  {row.experiment}: {row.flag}") for row in flagged.itertuples()]
    return rows


def _comparisons(path: Path) -> Rows:
    table = read_comparisons(path)
    rows = [("comparisons", f"{len(table):,} paired differences"), ("dataset", each_once(table["dataset"]))]
    table = table.sort_values(["n", "difference"], ascending=[True, False], kind="stable")
    pairs = [f"{row.experiment} - {row.baseline}" for row in table.itertuples()]
    if len(table):
        rows.append(("p", "first as it is, then corrected (Holm) for all comparisons of the dataset at this n"))
    width = max(map(len, pairs), default=0)
    for pair, row in zip(pairs, table.to_dict("records"), strict=True):
        interval = f"  [{row['ci_low']:+.3f}; {row['ci_high']:+.3f}]" if pd.notna(row["ci_low"]) else ""
        p = f"  p {row['p']:.3g} (corrected {row['p_holm']:.3g})" if pd.notna(row["p_holm"]) else ""
        rows.append(("difference", f"n {row['n']:>3}  {pair:<{width}}  {row['difference']:+.3f}{interval}{p}"))
    return rows


def _choices(path: Path) -> Rows:
    """Say for each experiment and n how the fits did on average, and which choices were made how often."""
    table = read_choices(path)
    rows = [("choices", f"of {counted(len(table), 'fit')}"), ("dataset", each_once(table["dataset"]))]
    width = max(map(len, table["experiment"]), default=0)
    for (n, name), fits in table.groupby(["n", "experiment"], sort=False):
        means = {word: fits[column].mean() for word, column in _MEASURED.items()}
        said = "  ".join(f"{word} {mean:.3f}" for word, mean in means.items() if pd.notna(mean))
        rows.append(("fits", f"n {n:>3}  {name:<{width}}  {said}"))
        choices = Counter(filter(None, fits["choice"])).most_common()
        rows += [("", f"{'':>7}{count} x {choice}") for choice, count in choices[:_MOST_CHOICES]]
        if len(choices) > _MOST_CHOICES:
            rows.append(("", f"{'':>7}and {counted(len(choices) - _MOST_CHOICES, 'other choice')}"))
    return rows
