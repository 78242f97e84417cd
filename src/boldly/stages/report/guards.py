"""What a reader should know before believing a score: flags, controls, exceptions that were allowed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pandas as pd

from boldly.stages.report.tables import Column, Table, table
from boldly.words import counted

Record = dict[str, Any]

# Mean framewise displacement over which runs are mostly excluded (Parkes et al. 2018, lenient: 0.55 mm).
MUCH_MOTION_MM = 0.55


def warnings(
    scores: dict[str, pd.DataFrame],
    splits: Iterable[Record],
    manifests: dict[str, Record],
    downstream: dict[tuple[str, str], Record],
    study: Record | None,
    moving: dict[str, tuple[int, int]],
) -> list[str]:
    """Return a sentence for each thing that the guards of the workflow flagged or that the config allowed.

    Parameters
    ----------
    scores : dict
        Summary of the scores of each dataset.
    splits : iterable of dict
        The splits.
    manifests : dict
        Of the upstream experiments.
    downstream : dict
        Manifests of the downstream experiments, by dataset and name.
    study : dict or None
        What `study.record` wrote.
    moving : dict
        Runs that move more than `MUCH_MOTION_MM`, and all runs, by dataset (`gather.moving`).
    """
    lines = []
    for dataset, rows in scores.items():
        flagged = rows[rows["flag"].fillna("") != ""].drop_duplicates(["experiment", "n", "flag"])
        for (experiment, text), of_one in flagged.groupby(["experiment", "flag"], sort=False):
            n = ", ".join(str(number) for number in sorted(set(of_one["n"])))
            lines.append(f"{dataset}: {experiment} (n = {n}) is flagged: {text}.")
    for split in splits:
        if split.get("by") == "run":
            lines.append(
                f"{split['dataset']}: the split is by run, so the same person trains and tests; nothing is said "
                "about other people."
            )
        if split.get("shared"):
            lines.append(f"{split['dataset']}: people whom another dataset tests were let into the pretraining.")
    decoders = {f"{name} ({dataset})": one for (dataset, name), one in downstream.items()}
    everyone = {**manifests, **decoders}
    for text, names in _by_value(everyone, lambda one: one.get("options", {}).get("allow_mismatch")).items():
        lines.append(f"{names}: data and model may differ in {text} (allow_mismatch).")
    for text, names in _by_value(decoders, _cut).items():
        lines.append(f"{names}: {text}.")
    for text, names in _by_value(manifests, lambda one: one.get("without_fingerprints")).items():
        lines.append(
            f"{names}: some runs of {text} that pretrained have no fingerprint, so nothing can tell whether they "
            "are among the runs that are tested under another name."
        )
    for dataset, (many, n_runs) in moving.items():
        lines.append(
            f"{dataset}: {many} of {counted(n_runs, 'run')} {'moves' if many == 1 else 'move'} more than "
            f"{MUCH_MOTION_MM:g} mm from volume to volume on average, and {'is' if many == 1 else 'are'} used: no "
            "threshold excludes such runs (preprocess.exclude.mean_fd_mm)."
        )
    if study is not None:
        lines += [f"{text}." if not text.endswith(".") else text for text in study["warnings"]]
        if study["config"]["evaluate"]["allow_pretrained_test_runs"]:
            lines.append(
                "Networks that were pretrained on test runs are scored (evaluate.allow_pretrained_test_runs)."
            )
    commits = {str(one.get("environment", {}).get("git_commit")) for one in everyone.values()}
    if any(commit.endswith("-dirty") for commit in commits):
        lines.append(
            "Some models were trained with code that differs from its commit (git_commit ends in -dirty)."
        )
    if len(commits) > 1:
        lines.append(f"The models were trained with {len(commits)} versions of the code (see the versions below).")
    return lines


def _by_value(manifests: dict[str, Record], value: Callable[[Record], list[str] | None]) -> dict[str, str]:
    """Return the names of experiments by the value that they share; those without one are left out."""
    found: dict[str, list[str]] = {}
    for name, manifest in manifests.items():
        if values := value(manifest):
            found.setdefault(", ".join(values), []).append(name)
    return {text: ", ".join(names) for text, names in found.items()}


def _cut(decoder: Record) -> list[str] | None:
    """Say how many trials a decoder does not see to their end; None where it sees them all."""
    about = decoder.get("cut_trials", {})
    if not about.get("cut"):
        return None
    frames = decoder["options"]["window_frames"]
    return [
        f"{about['cut']:,} of {counted(about['trials'], 'trial')} are longer than the first {frames} frames that "
        f"are looked at (window_frames); the longest has {about['longest_frames']:,}"
    ]


def controls(scores: dict[str, pd.DataFrame]) -> Table:
    """Return the accuracy of the controls that see no signal, beside chance."""
    records: list[Record] = []
    for dataset, rows in scores.items():
        accuracy = rows[rows["metric"] == "accuracy"]
        chance = accuracy.loc[accuracy["kind"] == "chance", "value"].max()
        for row in accuracy[accuracy["kind"] == "control"].to_dict("records"):
            seen = str(row["experiment"]).removeprefix("control_")
            records.append({**row, "dataset": dataset, "sees": seen, "chance": chance})  # type: ignore[dict-item]
    columns = (
        Column("dataset", "Dataset"),
        Column("sees", "The control sees only"),
        Column("n", "n", 0),
        Column("value", "Accuracy", 3, ("ci_low", "ci_high")),
        Column("chance", "Chance", 3),
        Column("flag", "Flag"),
    )
    caption = (
        "Controls: classifiers that see no signal, only the length of a trial, its position in the run, or its "
        "motion. Where one is above chance, the design of the experiment gives states away."
    )
    return table(caption, records, columns)
