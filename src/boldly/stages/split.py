"""Stage split: who trains, validates and tests. A pure function of seed, dataset and units; no signal is read."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from boldly.config import DownstreamSplitOptions, UpstreamSplitOptions
from boldly.records import InputError, Problem, Run, read_runs, read_table
from boldly.samples.splits import DownstreamSplit, Draw, Units, UpstreamSplit, write_split

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

    Raises
    ------
    InputError
        For a dataset without usable runs or with fewer units than the options ask for, and for a run that the
        quality tables do not know.
    """
    usable = read_runs(runs, usable=True)
    for stage, tables in (("preprocess", qc), ("parcellate", signals)):
        usable = _passed(usable, runs, tables, stage)
    subjects = sorted({record.subject for record in usable})
    if not usable:
        remedy = "see the reasons in the run and quality tables"
        raise InputError(Problem(str(runs), dataset, "no usable run", remedy))
    if role == "upstream":
        write_split(output, split_upstream(dataset, subjects, upstream, seed))
        return
    units = subjects
    if downstream.by == "run":
        units = sorted(record.key for record in usable)
        if len(subjects) > 1:
            logger.warning("%s: split by run: the same %d people train and test", dataset, len(subjects))
    write_split(output, split_downstream(dataset, units, downstream, seed, where=str(runs)))


def split_upstream(
    dataset: str, subjects: Sequence[str], options: UpstreamSplitOptions, seed: int
) -> UpstreamSplit:
    """Hold out subjects for validation: the share asked for, at least one, never all.

    Parameters
    ----------
    dataset : str
        Name of the dataset.
    subjects : sequence of str
        Labels, in any order.
    options : UpstreamSplitOptions
        Share of the validation subjects.
    seed : int
        Seed of all splits.

    Returns
    -------
    UpstreamSplit
        Without validation subjects if there is one subject only.
    """
    units = sorted(subjects)
    count = min(max(1, round(options.validation_fraction * len(units))), len(units) - 1)
    if count == 0:
        logger.warning("%s: one subject only, none is left for validation", dataset)
    order = _shuffled(units, _generator(seed, dataset, "upstream"))
    return UpstreamSplit(dataset, seed, train=_sorted(order[count:]), validation=_sorted(order[:count]))


def split_downstream(
    dataset: str, units: Sequence[str], options: DownstreamSplitOptions, seed: int, *, where: str
) -> DownstreamSplit:
    """Draw training, validation and test units.

    The test units are the same in all draws. The training units of each draw are drawn anew, for each number by
    itself (not nested), and differ between the draws of a number; where there are fewer different choices than
    draws, there are fewer draws. With ``test: leave_one_out``, draw d of each number tests the d-th unit in
    alphabetical order. The n of a draw counts all units whose labels are used: training and validation units.

    Parameters
    ----------
    dataset : str
        Name of the dataset.
    units : sequence of str
        Subject labels or run keys, in any order.
    options : DownstreamSplitOptions
        Sizes of the parts.
    seed : int
        Seed of all splits.
    where : str
        File that the units come from, for errors.

    Returns
    -------
    DownstreamSplit
        Draws in the order of n and number.

    Raises
    ------
    InputError
        If sizes are not positive, or larger than the units allow.
    """
    units = sorted(units)
    _check_sizes(dataset, units, options, where)
    if options.test == "leave_one_out":
        draws = list(_leave_one_out(dataset, units, options, seed))
    else:
        order = _shuffled(units, _generator(seed, dataset, "test"))
        test, pool = _sorted(order[: options.test]), sorted(order[options.test :])
        sizes = sorted(set(options.train))
        draws = [draw for size in sizes for draw in _random_draws(dataset, pool, test, size, options, seed)]
    return DownstreamSplit(dataset, options.by, seed, tuple(draws))


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


def _check_sizes(dataset: str, units: Sequence[str], options: DownstreamSplitOptions, where: str) -> None:
    problems: list[Problem] = []
    test = 1 if options.test == "leave_one_out" else options.test
    if test < 1 or not options.train or min(options.train) < 1:
        message = f"split sizes train {options.train}, test {test}"
        problems.append(Problem(where, dataset, message, "give whole numbers from 1 in split.downstream"))
    pool = len(units) - test - options.validation
    too_large = [size for size in sorted(set(options.train)) if size > pool]
    if too_large:
        word = "runs" if options.by == "run" else "subjects"
        validation = f" and {options.validation} for validation" if options.validation else ""
        message = (
            f"{len(units)} {word} are usable; {test} for test{validation} leave {max(pool, 0)} for training, "
            f"but train asks for {', '.join(map(str, too_large))}"
        )
        remedy = "lower train, validation or test in split.downstream or in datasets.<name>.split"
        problems.append(Problem(where, dataset, message, remedy))
    if problems:
        raise InputError(problems)


def _random_draws(
    dataset: str, pool: Sequence[str], test: Units, size: int, options: DownstreamSplitOptions, seed: int
) -> Iterator[Draw]:
    generator = _generator(seed, dataset, f"train {size}")
    count = min(options.draws, math.comb(len(pool), size))
    if count < options.draws:
        logger.warning(
            "%s: %d units of %d can be chosen in %d ways: so many draws", dataset, size, len(pool), count
        )
    n = size + options.validation
    seen: set[Units] = set()
    while len(seen) < count:
        order = _shuffled(pool, generator)
        train = _sorted(order[:size])
        if train not in seen:
            yield Draw(n, len(seen), train, _sorted(order[size:n]), test)
            seen.add(train)


def _leave_one_out(
    dataset: str, units: Sequence[str], options: DownstreamSplitOptions, seed: int
) -> Iterator[Draw]:
    for size in sorted(set(options.train)):
        generator = _generator(seed, dataset, f"leave one out {size}")
        n = size + options.validation
        for number, unit in enumerate(units):
            order = _shuffled([other for other in units if other != unit], generator)
            yield Draw(n, number, _sorted(order[:size]), _sorted(order[size:n]), (unit,))


def _generator(seed: int, dataset: str, purpose: str) -> np.random.Generator:
    """Return a generator of its own for each purpose, so that one choice never moves another."""
    digest = hashlib.sha256(f"{seed}\n{dataset}\n{purpose}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def _shuffled(units: Sequence[str], generator: np.random.Generator) -> list[str]:
    return [units[i] for i in generator.permutation(len(units))]


def _sorted(units: Sequence[str]) -> Units:
    return tuple(sorted(units))
