"""Scores and comparisons as the tables of the report, and the result of each dataset in short."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from boldly import records
from boldly.scope import EVERYTHING, Scope
from boldly.stages.report.tables import Column, Table, table
from boldly.words import counted

Record = dict[str, Any]

# The best accuracies that any decoder can reach on simulated data are no decoders.
_NO_DECODERS = ("chance", "ceiling", "control")


def read_scores(results: Path, scope: Scope = EVERYTHING) -> dict[str, pd.DataFrame]:
    """Return the summary of each dataset: a row for each experiment and n, metrics as columns."""
    found = {}
    for path in sorted((results / "evaluate").glob("*_scores.tsv")):
        name = path.name.removesuffix("_scores.tsv")
        if not scope.is_decoded(name):
            continue
        rows = records.read_scores(path)
        whole = rows[(rows[["draw", "seed", "subject", "label"]] == "all").all(axis=1)]
        found[name] = _of_scope(whole, scope, name, "experiment", "kind")
    return found


def _of_scope(rows: pd.DataFrame, scope: Scope, dataset: str, name: str, kind: str) -> pd.DataFrame:
    """Return the rows of decoders that the report is about; `name` and `kind` are columns."""
    pairs = zip(rows[name], rows[kind], strict=True)
    return rows[[scope.has_scores(dataset, *pair) for pair in pairs]]


def scores(dataset: str, rows: pd.DataFrame, confidence: float | None) -> Table:
    """Return the scores of all decoders of a dataset."""
    lines: list[Record] = []
    for (experiment, n), of_one in rows.groupby(["experiment", "n"], sort=False):
        record: Record = {"experiment": experiment, "n": n or None, "kind": of_one["kind"].iloc[0]}
        for row in of_one.to_dict("records"):
            record[row["metric"]] = row["value"]
            if row["metric"] == "accuracy":
                record |= {"low": row["ci_low"], "high": row["ci_high"]}
        record["flag"] = "; ".join(sorted({str(text) for text in of_one["flag"].dropna() if str(text)}))
        lines.append(record)
    columns = (
        Column("experiment", "Decoder"),
        Column("kind", "Kind"),
        Column("n", "n", 0),
        Column("accuracy", "Accuracy", 3, ("low", "high")),
        Column("balanced_accuracy", "Balanced accuracy", 3),
        Column("macro_f1", "Macro-F1", 3),
        Column("log_loss", "Log loss", 3),
        Column("calibration_error", "Calibration error", 3),
        Column("permutation_p", "p against chance", 4),
        Column("flag", "Flag"),
    )
    level = f"{100 * confidence:g} % intervals" if confidence else "intervals"
    caption = (
        f"{dataset}: scores on the test trials, with {level} over test units, draws and seeds. n counts the "
        "labelled people (or runs), those for validation too."
    )
    return table(caption, lines, columns)


def read_comparisons(results: Path, scope: Scope = EVERYTHING) -> dict[str, pd.DataFrame]:
    """Return the paired differences of each dataset."""
    found = {}
    for path in sorted((results / "evaluate").glob("*_comparisons.tsv")):
        name = path.name.removesuffix("_comparisons.tsv")
        if scope.is_decoded(name):
            rows = _of_scope(records.read_comparisons(path), scope, name, "experiment", "kind")
            found[name] = _of_scope(rows, scope, name, "baseline", "other_kind")
    return {name: rows for name, rows in found.items() if len(rows)}


def comparisons(dataset: str, rows: pd.DataFrame) -> Table:
    """Return the paired differences of a dataset."""
    columns = (
        Column("n", "n", 0),
        Column("experiment", "Decoder"),
        Column("baseline", "Compared with"),
        Column("other_kind", "Kind of the other"),
        Column("difference", "Difference of accuracy", 3, ("ci_low", "ci_high")),
        Column("p", "p", 4),
        Column("p_holm", "p, corrected", 4),
    )
    caption = (
        f"{dataset}: paired differences of accuracy. Intervals are not corrected; p-values are, by Holm's method, "
        "for all comparisons of the dataset at this n."
    )
    return table(caption, rows.to_dict("records"), columns)  # type: ignore[arg-type]


def read_choices(results: Path, dataset: str) -> pd.DataFrame:
    """Return what validation chose for each fit of a dataset; without rows where nothing is known."""
    path = results / "evaluate" / f"{dataset}_choices.tsv"
    return records.read_choices(path) if path.is_file() else pd.DataFrame(columns=["experiment", "n", "choice"])


def headline(
    dataset: str,
    rows: pd.DataFrame,
    differences: pd.DataFrame | None,
    choices: pd.DataFrame,
    members: Mapping[str, Sequence[str]],
) -> Record:
    """Return the result of a dataset at its largest n: a pretrained decoder, the best baseline, chance.

    The pretrained decoder is the one that validation chose (``chosen``) where there is such a row, so that the
    test trials did not choose it; the baseline is the best one on the test trials, which favours the baseline.

    Parameters
    ----------
    dataset : str
        Name of the dataset.
    rows, differences : DataFrame
        Its scores and, if there are any, comparisons.
    choices : DataFrame
        From `read_choices`.
    members : mapping of str to sequence of str
        Decoders that are combined, by the name of the combination.
    """
    accuracy = rows[rows["metric"] == "accuracy"]
    decoders = accuracy[~accuracy["kind"].isin(_NO_DECODERS)]
    if not len(decoders):
        return {}
    at_most = decoders[decoders["n"] == decoders["n"].max()]
    pretrained, baselines = (at_most[at_most["kind"] == kind] for kind in ("pretrained", "baseline"))
    chosen = pretrained[pretrained["experiment"] == "chosen"]
    first = _best(chosen if len(chosen) else pretrained)
    second = _best(baselines)
    chance = accuracy.loc[accuracy["kind"] == "chance", "value"]
    found: Record = {
        "dataset": dataset,
        "n": int(at_most["n"].iloc[0]),
        "decoder": first,
        "is_chosen": bool(len(chosen)),
        "is_best_of_several": len(chosen) == 0 and len(pretrained) > 1,
        "baseline": second,
        "chance": float(chance.max()) if len(chance) else None,
        "difference": None,
    }
    if first and second and differences is not None:
        same = (differences["experiment"] == first["experiment"]) & (
            differences["baseline"] == second["experiment"]
        )
        pair = differences[same & (differences["n"] == found["n"])]
        if len(pair):
            found["difference"] = pair.iloc[0].to_dict()
    return found | _taken(choices[choices["n"] == found["n"]], members, second)


def _taken(choices: pd.DataFrame, members: Mapping[str, Sequence[str]], baseline: Record | None) -> Record:
    """Say which decoders validation chose, and which of them have the best baseline as a member."""
    words = choices.loc[choices["experiment"] == "chosen", "choice"]
    names = [str(text).partition(":")[0] for text in words]
    counts = Counter(names)
    fits = [f"{name} in {count} of {counted(len(names), 'fit')}" for name, count in counts.most_common()]
    combined = [name for name in counts if baseline and baseline["experiment"] in members.get(name, ())]
    return {"taken": ", ".join(fits), "combined": ", ".join(combined)}


def _best(rows: pd.DataFrame) -> Record | None:
    return max(rows.to_dict("records"), key=lambda row: row["value"], default=None)  # type: ignore[return-value]
