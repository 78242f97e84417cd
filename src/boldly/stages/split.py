"""Stage split: who trains, validates and tests. No signal is read."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import pandas as pd

from boldly import bids
from boldly.config import DownstreamSplitOptions, UpstreamSplitOptions
from boldly.files import read_foreign_table
from boldly.records import InputError, Problem, Run, read_runs, read_table
from boldly.samples.draws import split_downstream, split_upstream
from boldly.samples.shards import sample_keys, subject_shards
from boldly.samples.splits import Units, read_split, write_split
from boldly.words import counted, listed

logger = logging.getLogger(__name__)


def run(
    *,
    dataset: str,
    runs: Path,
    qc: list[Path],
    signals: list[Path],
    role: Literal["upstream", "downstream"],
    upstream: UpstreamSplitOptions,
    downstream: DownstreamSplitOptions,
    seed: int,
    output: Path,
    shards: Path | None = None,
    participants: Path | None = None,
    same_source: Sequence[Path] = (),
    source: str | None = None,
) -> None:
    """Draw the units of a dataset and write the split.

    Parameters
    ----------
    dataset : str
        Name of the dataset.
    runs : Path
        Run table.
    qc : list of Path
        Quality tables of the subjects from preprocess, in any order; empty for ready-made shards, all of whose
        runs count.
    signals : list of Path
        Those from parcellate; empty: no run is excluded by its signals.
    role : {"upstream", "downstream"}
        Which of the options hold.
    upstream, downstream : UpstreamSplitOptions, DownstreamSplitOptions
        Sizes of the parts.
    seed : int
        Seed of all splits.
    output : Path
        The split, JSON.
    shards : Path, optional
        Folder of the subjects' shards: units without a sample, all of whose trials scrubbing took, are left out.
        Default: every usable run counts.
    participants : Path, optional
        participants.tsv, which has the columns of the options `group` and `stratify`.
    same_source : sequence of Path
        Splits of the downstream datasets that have people in common with an upstream dataset: subjects of the same
        label are the same people.
    source : str, optional
        Name of the source of the people, where other upstream datasets have the same (`split_upstream`).

    Raises
    ------
    InputError
        For a dataset without usable runs or with fewer units than the options ask for, several reconstructions of
        one recording where runs are split, a run that the quality tables do not know, shards that are not there,
        people without a group or stratum, and people whom a downstream dataset tests.
    """
    usable = read_runs(runs, usable=True)
    for stage, tables in (("preprocess", qc), ("parcellate", signals)):
        usable = _passed(usable, runs, tables, stage)
    if not usable:
        remedy = "see the reasons in the run and quality tables"
        raise InputError(Problem(str(runs), dataset, "no usable run", remedy))
    if shards is not None:
        usable = _with_samples(usable, dataset, shards, by_run=role == "downstream" and downstream.by == "run")
    subjects = sorted({record.subject for record in usable})
    if role == "upstream":
        shared = _shared_people(dataset, subjects, same_source, upstream)
        if upstream.shared_people == "exclude":
            subjects = _without(dataset, subjects, shared, str(runs))
        groups, strata = _columns(participants, dataset, upstream, subjects)
        found = split_upstream(
            dataset,
            subjects,
            upstream,
            seed,
            groups=groups,
            strata=strata,
            shared=shared if upstream.shared_people == "allow" else None,
            source=source,
        )
        write_split(output, found)
        return
    owners = {subject: subject for subject in subjects}
    if downstream.by == "run":
        _check_recordings(dataset, [record.key for record in usable], str(runs))
        owners = {record.key: record.subject for record in usable}
        if len(subjects) > 1:
            logger.warning("%s: split by run: the same %d people train and test", dataset, len(subjects))
    groups, strata = (
        values and {unit: values[owner] for unit, owner in owners.items()}
        for values in _columns(participants, dataset, downstream, subjects)
    )
    where = str(runs)
    write_split(
        output,
        split_downstream(dataset, sorted(owners), downstream, seed, where=where, groups=groups, strata=strata),
    )


def _check_recordings(dataset: str, keys: Sequence[str], where: str) -> None:
    """Refuse several reconstructions of one recording: one would train, and the other test."""
    of_recording: dict[str, list[str]] = {}
    for key in keys:
        parts = [part for part in key.split("_") if part.partition("-")[0] not in bids.OF_VARIANT]
        of_recording.setdefault("_".join(parts), []).append(key)
    if twice := [found for found in of_recording.values() if len(found) > 1]:
        message = (
            f"split by run: {len(twice)} recordings are there in several reconstructions, of which one could "
            f"train and another test: {' and '.join(twice[0])}"
        )
        remedy = f"choose one of them with datasets.{dataset}.filters (reconstruction: ...)"
        raise InputError(Problem(where, dataset, message, remedy))


def _passed(usable: list[Run], runs: Path, tables: list[Path], stage: str) -> list[Run]:
    """Return the runs that a stage lets pass by its quality tables; all where there are none."""
    if not tables:
        return usable
    status: dict[str, str] = {}
    for path in tables:
        table = read_table(path, ("key", "status"), ("key", "status"), stage=stage)
        status.update(zip(table["key"], table["status"], strict=True))
    problems = [
        Problem(str(runs), record.key, "stands in no quality table", f"rerun {stage}")
        for record in usable
        if record.key not in status
    ]
    if problems:
        raise InputError(problems)
    return [record for record in usable if status[record.key] == "ok"]


def _with_samples(usable: list[Run], dataset: str, shards: Path, *, by_run: bool) -> list[Run]:
    """Return the runs of which the shards hold a sample; units that have none are named on the terminal."""
    subjects = sorted({record.subject for record in usable})
    paths = [path for subject in subjects for path in subject_shards(shards, dataset, subject)]
    filled = {bids.run_of_sample(key) for path in paths for key in sample_keys(path)}
    kept = [record for record in usable if record.key in filled]
    why = "no trial, or too few frames after scrubbing; see results/logs/prepare"
    if not kept:
        remedy = "scrub less, ask for fewer frames, or see whether the events are those of the runs"
        raise InputError(Problem(str(shards), dataset, f"not a single sample ({why})", remedy))
    if by_run:
        lost = [record.key for record in usable if record.key not in filled]
    else:
        lost = [f"sub-{subject}" for subject in subjects if subject not in {record.subject for record in kept}]
    if lost:
        # Printed, so that the terminal shows it.
        units = counted(len(lost), "run" if by_run else "subject")
        print(f"{dataset}: {units} left out of the split ({why}): {listed(lost)}", flush=True)
    return kept


def _shared_people(
    dataset: str, subjects: Sequence[str], splits: Sequence[Path], options: UpstreamSplitOptions
) -> dict[str, Units]:
    """Return the subjects that downstream datasets of the same source test, by dataset."""
    shared: dict[str, Units] = {}
    problems = []
    for path in splits:
        split = read_split(path, "downstream")
        units = {unit for draw in split.draws for unit in draw.test}
        tested = {bids.entities(unit)["sub"] for unit in units} if split.by == "run" else units
        people = tuple(sorted(tested & set(subjects)))
        if not people:
            continue
        shared[split.dataset] = people
        message = (
            f"{len(people)} of its people would be pretrained on and are test people of {split.dataset}, which "
            f"has the same source: {', '.join(f'sub-{label}' for label in people)}"
        )
        remedy = (
            "set split.upstream.shared_people to exclude (they are not pretrained on) or to allow (they are, and "
            f"the split records it), or, if they are other people, give datasets.{dataset}.source a name"
        )
        problems.append(Problem(str(path), dataset, message, remedy))
    if problems and options.shared_people == "error":
        raise InputError(problems)
    return shared


def _without(dataset: str, subjects: Sequence[str], shared: Mapping[str, Units], where: str) -> list[str]:
    """Leave people out whom downstream datasets test."""
    tested = {subject for people in shared.values() for subject in people}
    left = [subject for subject in subjects if subject not in tested]
    if not left:
        message = f"all of its {len(subjects)} people are test people of {', '.join(shared)}: nobody is left"
        remedy = "test fewer people there (split.downstream.test), or leave the dataset out"
        raise InputError(Problem(where, dataset, message, remedy))
    if tested:
        logger.info("%s: %d people are not pretrained on: %s test them", dataset, len(tested), ", ".join(shared))
    return left


def _columns(
    participants: Path | None,
    dataset: str,
    options: UpstreamSplitOptions | DownstreamSplitOptions,
    subjects: Sequence[str],
) -> tuple[dict[str, str] | None, dict[str, str] | None]:
    """Return group and stratum of each subject; None where the options name no column.

    Raises
    ------
    InputError
        With a problem for each column that is missing, and each subject without a value, or with several.
    """
    columns = {"group": options.group, "stratify": options.stratify}
    if not any(columns.values()):
        return None, None
    table = _participants(
        participants, dataset, ", ".join(f"split.{name}" for name, column in columns.items() if column)
    )
    problems, found = [], []
    for option, column in columns.items():
        values: dict[str, str] | None = None
        if column is not None and column not in table:
            message = f"no column '{column}' (found: {', '.join(map(str, table.columns))})"
            remedy = f"correct split.{option}, or add the column"
            problems.append(Problem(str(participants), dataset, message, remedy))
        elif column is not None:
            values = {}
            for subject in subjects:
                given = table.loc[table["participant_id"] == subject, column].unique().tolist()
                if len(given) == 1 and not pd.isna(given[0]):
                    values[subject] = str(given[0])
                else:
                    problems.append(_no_value(participants, subject, column, given, dataset))
        found.append(values)
    if problems:
        raise InputError(problems)
    return found[0], found[1]


def _no_value(participants: Path | None, subject: str, column: str, given: list[str], dataset: str) -> Problem:
    if not given:
        message, remedy = "has no row in the table of participants", "add it"
    elif len(given) == 1:
        message, remedy = f"{column} is n/a", "give everyone a value, people without relatives one of their own"
    else:
        message, remedy = f"has several values of {column}: {', '.join(map(str, given))}", "leave one"
    leave = f"{remedy}; or leave the subject out (datasets.{dataset}.subjects)"
    return Problem(str(participants), f"sub-{subject}", message, leave)


def _participants(path: Path | None, dataset: str, options: str) -> pd.DataFrame:
    """Read participants.tsv, all as text; labels without ``sub-``."""
    field = f"datasets.{dataset}.participants"
    if path is None:
        message = f"{options}: no table of participants is known"
        raise InputError(Problem("config", dataset, message, f"give its path in {field}"))
    try:
        table = read_foreign_table(path, dtype="str", na_values=["n/a"], keep_default_na=False)
    except FileNotFoundError:
        message, remedy = f"{options}: no such table of participants", f"add it, or give its path in {field}"
        raise InputError(Problem(str(path), dataset, message, remedy)) from None
    except (OSError, ValueError) as error:
        message = f"{options}: not a readable table of participants: {error}"
        raise InputError(Problem(str(path), dataset, message, "correct the file")) from None
    if "participant_id" not in table:
        message = f"no column 'participant_id' (found: {', '.join(map(str, table.columns))})"
        raise InputError(Problem(str(path), dataset, message, "correct the file, which BIDS says how to write"))
    return table.assign(participant_id=table["participant_id"].str.removeprefix("sub-"))
