"""Reading the tables that figures are drawn from."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from boldly import bids
from boldly.files import read_tsv
from boldly.records import InputError, Problem, read_comparisons, read_scores
from boldly.stages.figures import style

_RUN_COLUMNS = ("dataset", "subject", "key", "t_r", "n_volumes", "status", "reason")
_QC_COLUMNS = ("key", "status", "reason", "mean_fd_mm", "mean_std_dvars", "degrees_of_freedom")
_SIGNAL_COLUMNS = ("key", "status", "reason", "median_tsnr", "median_coverage")
_MEASURES = (*_QC_COLUMNS[3:], *_SIGNAL_COLUMNS[3:])
_SCORE_COLUMNS = ("dataset", "experiment", "kind", "start", "n", "metric", "label", "value", "ci_low", "ci_high")
_COMPARISON_COLUMNS = (
    *("dataset", "n", "experiment", "kind", "baseline", "other_kind"),
    *("difference", "ci_low", "ci_high", "p_holm"),
)
DRAWN_SCORES = ["dataset", "experiment", "kind", "n", "value", "ci_low", "ci_high", "n_trials"]
REFERENCES = {"chance": "chance", "ceiling_mean_signal": "best possible on means", "ceiling_any": "best possible"}
_TEXT = ("dataset", "subject", "key", "status", "reason", "session", "run")
# Of tables of predictions: names of states and experiments may look like numbers ("01", "true").
PREDICTION_TEXT = ("experiment", "key", "label_name")


def read_all_runs(paths: list[Path]) -> pd.DataFrame:
    """Join run tables and quality tables.

    Parameters
    ----------
    paths : list of Path
        Run tables of index, and quality tables of preprocess and parcellate or folders that hold them, in any
        order. Quality of runs that are in no run table is left out.

    Returns
    -------
    DataFrame
        One row per run: dataset, subject, key, t_r, n_volumes, status and reason (of index, else of preprocess,
        else of parcellate), hours, and mean_fd_mm, mean_std_dvars, degrees_of_freedom, median_tsnr,
        median_coverage where known.
    """
    files = [file for path in paths for file in (_quality_tables(path) if path.is_dir() else [path])]
    runs, qualities, signals = [], [], []
    for file in files:
        table = _read(file)
        if set(_RUN_COLUMNS) <= set(table.columns):
            runs.append(table[list(_RUN_COLUMNS)])
        elif set(_QC_COLUMNS) <= set(table.columns):
            qualities.append(table[list(_QC_COLUMNS)])
        elif set(_SIGNAL_COLUMNS) <= set(table.columns):
            signals.append(table[list(_SIGNAL_COLUMNS)])
        else:
            raise unsuitable(file, "neither a run table nor a quality table", table)
    if not runs:
        raise InputError(Problem("tables", "", "no run table among them", "pass results/index/<dataset>_runs.tsv"))
    joined = pd.concat(runs, ignore_index=True)
    for columns, tables in ((_QC_COLUMNS, qualities), (_SIGNAL_COLUMNS, signals)):
        empty = pd.DataFrame(columns=list(columns))
        joined = _with_quality(joined, pd.concat([empty, *tables], ignore_index=True))
    joined["reason"] = joined["reason"].fillna("")
    joined["hours"] = (joined["n_volumes"] * joined["t_r"] / 3600).fillna(0.0)
    for measure in _MEASURES:
        joined[measure] = pd.to_numeric(joined[measure])
    return joined.sort_values("key", ignore_index=True)


def _with_quality(runs: pd.DataFrame, quality: pd.DataFrame) -> pd.DataFrame:
    """Add the measures of a stage to runs, and its status and reason to those that were ok so far."""
    joined = runs.merge(quality, on="key", how="left", suffixes=("", "_new"), validate="one_to_one")
    later = (joined["status"] == "ok") & joined["status_new"].notna() & (joined["status_new"] != "ok")
    for column in ("status", "reason"):
        joined[column] = joined[column].mask(later, joined[f"{column}_new"])
    return joined.drop(columns=["status_new", "reason_new"])


def _quality_tables(folder: Path) -> list[Path]:
    return sorted(path for pattern in ("sub-*_qc.tsv", "sub-*_quality.tsv") for path in folder.glob(pattern))


def read_all_scores(paths: list[Path]) -> pd.DataFrame:
    """Return the summary accuracies (over draws, seeds and subjects) of score tables, in the order given.

    Of several rows of chance, that of the highest accuracy is left, as the experiment "chance". Tables of
    comparisons may stand among the others and are left out.
    """
    tables = []
    for path in paths:
        table = read_scores(path)
        if set(_COMPARISON_COLUMNS) <= set(table.columns):
            continue
        check_scores(path, table)
        summary = table[(table[["draw", "seed", "subject"]] == "all").all(axis=1)]
        tables.append(_one_chance(summary[summary["metric"] == "accuracy"]))
    return pd.concat(tables, ignore_index=True)


def check_scores(path: Path, table: pd.DataFrame) -> None:
    """Raise an InputError if a table has not the columns of scores."""
    if not set(_SCORE_COLUMNS) <= set(table.columns):
        raise unsuitable(path, "not a score table", table)


def read_all_comparisons(paths: list[Path]) -> pd.DataFrame:
    """Return the rows of the tables of comparisons among tables of scores, in the order given."""
    tables = [read_comparisons(path) for path in paths]
    found = [table for table in tables if set(_COMPARISON_COLUMNS) <= set(table.columns)]
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=list(_COMPARISON_COLUMNS))


def highest_control(scores: pd.DataFrame) -> pd.Series:
    """Return the accuracy of the best control by n; empty without controls."""
    return scores[scores["kind"] == "control"].groupby("n")["value"].max()


def _one_chance(scores: pd.DataFrame) -> pd.DataFrame:
    is_chance = scores["kind"] == "chance"
    if not is_chance.any():
        return scores
    highest = scores.loc[[scores.loc[is_chance, "value"].idxmax()]].assign(experiment="chance")
    return pd.concat([highest, scores[~is_chance]])


def read_histories(paths: list[Path]) -> dict[str, dict[str, pd.DataFrame]]:
    """Return the histories of experiments: name, then "train" or "validation".

    Parameters
    ----------
    paths : list of Path
        ``<experiment>/train_history.csv`` and ``<experiment>/eval_history.csv``, in any order.
    """
    histories: dict[str, dict[str, pd.DataFrame]] = {}
    for path in paths:
        try:
            table = pd.read_csv(path)
        except pd.errors.EmptyDataError:  # a training without validation
            continue
        if not {"step", "loss"} <= set(table.columns):
            raise unsuitable(path, "not a training history", table)
        part = "validation" if path.name.startswith("eval") else "train"
        histories.setdefault(path.parent.name, {})[part] = table.dropna(subset=["loss"])
    return {
        name: {part: table for part, table in parts.items() if len(table)} for name, parts in histories.items()
    }


def kinds_of_reasons(reasons: pd.Series) -> pd.Series:
    """Return the first reason of each run in words that runs excluded by one rule share.

    Numbers in which such runs differ become "…"; details in brackets are left out.
    """
    first = (
        reasons.str.split("; ").str[0].str.replace(r"\s*\([^()]*\)", "", regex=True).replace("", "no reason given")
    )
    parts = first.map(lambda text: re.split(r"(\d+(?:\.\d+)?)", text))
    kinds = pd.Series("", index=reasons.index)
    for _, alike in parts.groupby(parts.map(lambda part: "#".join(part[::2]))):
        columns = list(zip(*alike, strict=True))
        kinds[alike.index] = "".join(column[0] if len(set(column)) == 1 else "…" for column in columns)
    return kinds


def probabilities(predictions: pd.DataFrame) -> pd.DataFrame:
    """Return the columns of a table of predictions that hold the probability of each state."""
    return predictions.filter(regex="^p_").dropna(axis=1, how="all")


def tasks_of(states: list[str]) -> list[str]:
    """Return the task of each state: its first word where several states share it, else the state itself."""
    first = [state.split(" ")[0] for state in states]
    counts = Counter(first)
    return [
        word if counts[word] > 1 and word != state else state for word, state in zip(first, states, strict=True)
    ]


@dataclass(frozen=True)
class DrawnDecoder:
    """The decoder that figures of single predictions show.

    Attributes
    ----------
    tables : list of DataFrame
        Its predictions at the largest n, one table per dataset.
    rule : str
        How it was chosen, for titles.
    """

    tables: list[pd.DataFrame]
    rule: str

    def title(self, table: pd.DataFrame) -> str:
        """Return dataset and n of a table, and in a second line the decoder."""
        first = table.iloc[0]
        return f"{dataset_of(str(first['key']))}, n = {first['n']}\n{self.rule}"


def drawn_decoder(tables: list[pd.DataFrame]) -> DrawnDecoder:
    """Choose the decoder to draw by one rule for all datasets.

    That is "chosen", for each fit the pretrained decoder with the lowest validation loss, where every dataset has
    it: test trials have no say in it. Else it is the one decoder with the highest accuracy on the test trials, on
    average over the datasets, of those that all datasets have.

    Parameters
    ----------
    tables : list of DataFrame
        Predictions of each dataset.
    """
    largest = [table[table["n"] == table["n"].max()] for table in tables]
    names = set.intersection(*(set(table["experiment"]) for table in largest))
    if "chosen" in names:
        experiment, rule = "chosen", "decoder chosen by validation"
    else:
        correct = [(table["label"] == table["predicted"]).groupby(table["experiment"]).mean() for table in largest]
        means = pd.concat(correct, axis=1).mean(axis=1)
        experiment = str(means[means.index.isin(names)].idxmax() if names else means.idxmax())
        rule = f"{style.spelled(experiment)}, highest test accuracy of all"
    own = [table[table["experiment"] == experiment] for table in largest]
    return DrawnDecoder([table for table in own if len(table)], rule)


def dataset_of(key: str) -> str:
    """Return the dataset of a run key."""
    return bids.entities(key)["ds"]


def _read(path: Path) -> pd.DataFrame:
    return read_tsv(path, _TEXT)


def unsuitable(path: Path, message: str, table: pd.DataFrame) -> InputError:
    """Return the error for a table that a figure cannot be drawn from."""
    found = f"{message} (columns found: {', '.join(map(str, table.columns))})"
    return InputError(Problem(str(path), "", found, "pass the tables that the figure is drawn from"))
