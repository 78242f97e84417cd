"""Which of the runs that were found are used: filters by BIDS entities, and runs that are excluded by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from boldly import bids
from boldly.config import DatasetOptions, DownstreamSplitOptions
from boldly.records import InputError, Problem, Run
from boldly.samples.draws import ONE_PERSON, check_sizes, with_sizes
from boldly.stages.index.survey import RunFiles
from boldly.words import noun

# Names that BIDS writes out, beside those of a run's entities, to what stands in file names.
_NAMES = {**bids.RUN_ENTITIES, "resolution": "res"}


def choose(
    dataset: str, options: DatasetOptions, runs: Sequence[RunFiles]
) -> tuple[list[RunFiles], dict[str, str], list[Problem]]:
    """Apply the filters of a dataset, and find the runs that are excluded by hand.

    Parameters
    ----------
    dataset : str
        Name of the dataset.
    options : DatasetOptions
        `filters` and `exclude_runs` are used.
    runs : sequence of RunFiles
        All that were found.

    Returns
    -------
    chosen : list of RunFiles
        The runs that all filters let through, the excluded ones among them.
    excluded : dict of str to str
        From run key to the reason that the config gives.
    problems : list of Problem
        Values and runs that are named in the config and are nowhere.
    """
    where = str(options.derivatives)
    problems = []
    chosen = list(runs)
    for name, wanted in options.filters.items():
        key = _NAMES.get(name, name)
        there = {run.found.get(key) for run in runs}
        for value in wanted:
            if not any(_is(value, found) for found in there):
                found = ", ".join(sorted(value or "none at all" for value in there)) or "no run"
                message = f"filters.{name}: no run has {'no' if value is None else value!r} (found: {found})"
                problems.append(Problem(where, dataset, message, f"correct datasets.{dataset}.filters"))
        chosen = [run for run in chosen if any(_is(value, run.found.get(key)) for value in wanted)]
    if runs and not chosen and not problems:
        message = "no run has all that the filters ask for"
        problems.append(Problem(where, dataset, message, f"correct datasets.{dataset}.filters"))
    excluded: dict[str, str] = {}
    for key, reason in options.exclude_runs.items():
        meant = [run.key for run in runs if _is_meant(key, dataset, run)]
        if not meant:
            message = f"exclude_runs: no run '{key}' (the first is {runs[0].key if runs else 'none'})"
            problems.append(Problem(where, dataset, message, f"correct datasets.{dataset}.exclude_runs"))
        excluded.update(dict.fromkeys(meant, reason))
    return chosen, excluded, problems


def too_few_units(dataset: str, options: DatasetOptions, rows: Sequence[Run], where: Path) -> list[Problem]:
    """Find out whether a downstream dataset has fewer people, or runs, than its split parts.

    Parameters
    ----------
    dataset : str
        Name of the dataset.
    options : DatasetOptions
        Of `split` the unit and the sizes are used; without a split nothing is said.
    rows : sequence of Run
        The runs that may be used. Later stages may exclude some of them: stage split counts again.
    where : Path
        Run table, for the error.
    """
    split = options.split
    if not isinstance(split, DownstreamSplitOptions) or not rows:
        return []
    subjects = sorted({row.subject for row in rows})
    runs = f"{len(rows)} {noun(len(rows), 'run')}"
    if split.by == "subject" and len(subjects) == 1:
        message = f"there is one person, sub-{subjects[0]} with {runs}, and the split is by subject: none to test"
        return [Problem(str(where), dataset, message, ONE_PERSON)]
    if split.by == "run" and len(rows) == 1:
        message, remedy = "there is one run alone, and the split is by run: none to test", "add runs"
        return [Problem(str(where), dataset, message, remedy)]
    n_units = len(rows) if split.by == "run" else len(subjects)
    sizes = with_sizes(split, n_units)
    try:
        check_sizes(dataset, n_units, sizes, str(where), 1 if sizes.test == "leave_one_out" else sizes.test or 0)
    except InputError as error:
        return list(error.problems)
    return []


def _is_meant(key: str, dataset: str, run: RunFiles) -> bool:
    """Tell whether a run has all entities of a key, which may leave some out (``sub-03``: all of a subject)."""
    wanted = bids.entities(key.removeprefix(f"ds-{dataset}_"))
    return bool(wanted) and all(
        _is(int(value) if name == "run" and value.isdigit() else value, run.found.get(name))
        for name, value in wanted.items()
    )


def _is(wanted: str | int | None, found: str | None) -> bool:
    """Compare values of an entity; numbers as numbers, so that 1 is "01", text as it is spelled."""
    if isinstance(wanted, int) and found is not None:
        return found.isdigit() and int(found) == wanted
    return wanted == found
