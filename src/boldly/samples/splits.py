"""The split of a dataset: who trains, validates and tests. One JSON file, checked whenever it is read."""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np

from boldly.files import read_json, write_json
from boldly.records import InputError, Problem

logger = logging.getLogger(__name__)

By = Literal["subject", "run"]
Units = tuple[str, ...]
# Of the order in which shares of the training subjects grow: the same for all experiments.
_SHARE_SEED = 1
_WHY_APART = "since they, or their groups, validate in a dataset of the same source"
_REMEDY = "rerun split, or correct the file if it was edited by hand"


@dataclass(frozen=True)
class UpstreamSplit:
    """The subjects that pretrain and those that validate.

    Attributes
    ----------
    dataset : str
        Name of the dataset.
    seed : int
        Seed of the config, `split.seed`.
    train, validation : tuple of str
        Subject labels, sorted. `validation` is empty for a dataset of one subject.
    groups : mapping of str to str, optional
        Group (family) of each subject, where groups stay on one side.
    shared : mapping of str to tuple of str, optional
        Subjects that downstream datasets of the same source test, by dataset, where the config allows it.
    source : str, optional
        Name of the source of the people, where other upstream datasets have the same source: in their splits the
        same label means the same person.
    """

    dataset: str
    seed: int
    train: Units
    validation: Units
    role: Literal["upstream"] = "upstream"
    by: By = "subject"
    groups: Mapping[str, str] | None = None
    shared: Mapping[str, Units] | None = None
    source: str | None = None

    def share(self, fraction: float) -> Units:
        """Choose training subjects, at least one if there are any; smaller shares lie in larger ones, in order."""
        order = np.random.default_rng(_SHARE_SEED).permutation(len(self.train))
        count = max(1, round(fraction * len(self.train)))
        return tuple(self.train[number] for number in sorted(order[:count]))


@dataclass(frozen=True)
class Draw:
    """One random choice of labelled units.

    Attributes
    ----------
    n : int
        Label budget: number of units whose labels fit or choose anything, in train and validation together.
    draw : int
        Number of the draw among those with this n, from 0.
    train, validation, test : tuple of str
        Units, sorted: subject labels, or run keys in a split by run.
    """

    n: int
    draw: int
    train: Units
    validation: Units
    test: Units


@dataclass(frozen=True)
class DownstreamSplit:
    """The draws of a dataset whose trials are decoded.

    Attributes
    ----------
    dataset : str
        Name of the dataset.
    by : {"subject", "run"}
        What a unit is.
    seed : int
        Seed of the config, `split.seed`.
    draws : tuple of Draw
        In the order of n and draw.
    groups : mapping of str to str, optional
        Group (family) of each unit, where no group of a test unit may train or validate.
    """

    dataset: str
    by: By
    seed: int
    draws: tuple[Draw, ...]
    role: Literal["downstream"] = "downstream"
    groups: Mapping[str, str] | None = None


Split = UpstreamSplit | DownstreamSplit


def kept_apart(splits: Sequence[UpstreamSplit]) -> list[UpstreamSplit]:
    """Leave people out of training who validate in another dataset of the same source, with their groups.

    What validates a model would otherwise be runs of people on whom it was trained.

    Parameters
    ----------
    splits : sequence of UpstreamSplit
        Those of all datasets that a model is trained on, in any order.

    Returns
    -------
    list of UpstreamSplit
        In the same order; one may have nobody left to train.

    Raises
    ------
    InputError
        If nobody is left to train in any of them.
    """
    found = [_without_validating(split, splits) for split in splits]
    for before, after in zip(splits, found, strict=True):
        if count := len(before.train) - len(after.train):
            logger.warning("%s: nothing is learned from %d of its people, %s", before.dataset, count, _WHY_APART)
    if splits and not any(split.train for split in found):
        message = f"nobody is left to train, {_WHY_APART}"
        remedy = "add people, or lower split.upstream.validation_fraction"
        raise InputError(Problem("split", ", ".join(split.dataset for split in splits), message, remedy))
    return found


def _without_validating(split: UpstreamSplit, splits: Sequence[UpstreamSplit]) -> UpstreamSplit:
    if split.source is None:
        return split
    same = [other for other in splits if other.source == split.source]
    held = {subject for other in same for subject in other.validation}
    members = [other.groups for other in same if other.groups]
    groups = {of[subject] for of in members for subject in held & set(of)}
    train = tuple(
        subject
        for subject in split.train
        if subject not in held and not any(of.get(subject) in groups for of in members)
    )
    return dataclasses.replace(split, train=train)


def write_split(path: Path | str, split: Split) -> None:
    """Check and write a split, atomically."""
    check_disjoint(split, str(path))
    first = {"dataset": split.dataset, "role": split.role, "by": split.by, "seed": split.seed}
    fields = {name: value for name, value in dataclasses.asdict(split).items() if value is not None}
    write_json(path, {**first, **fields})


@overload
def read_split(path: Path | str, role: Literal["upstream"]) -> UpstreamSplit: ...
@overload
def read_split(path: Path | str, role: Literal["downstream"]) -> DownstreamSplit: ...
@overload
def read_split(path: Path | str, role: None = None) -> Split: ...
def read_split(path: Path | str, role: str | None = None) -> Split:
    """Read a split and check it with `check_disjoint`.

    Parameters
    ----------
    path : Path or str
        A file of `write_split`, perhaps edited by hand.
    role : {"upstream", "downstream"}, optional
        The role that the split must have; default: any.

    Raises
    ------
    InputError
        For a file that is not such a split, one of another role, or one with a unit on two sides.
    """
    try:
        split = _decode(read_json(path))
    except FileNotFoundError:
        raise _problem(path, "no such file", "run split first") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        message = f"key {error} is missing" if isinstance(error, KeyError) else str(error)
        raise _problem(path, f"not a split: {message}", _REMEDY) from None
    if role is not None and split.role != role:
        message = f"the split of {split.role} data, where one of {role} data is needed"
        raise _problem(path, message, "pass the split of another dataset")
    check_disjoint(split, str(path))
    return split


def check_disjoint(split: Split, where: str = "split") -> None:
    """Refuse a split in which a unit or a group stands on two sides, or a unit twice on one.

    Parameters
    ----------
    split : UpstreamSplit or DownstreamSplit
        What to check.
    where : str
        File, for the error.

    Raises
    ------
    InputError
        With one problem for each such unit or group, named; also for a unit without a group in a split that has
        groups, and for a part without any unit that must have one.
    """
    problems = _group_problems(split, where)
    for name, parts in _parts(split):
        for one, other in combinations(parts, 2):
            for unit in sorted(set(parts[one]) & set(parts[other])):
                entity = f"sub-{unit}" if split.by == "subject" else unit
                message = f"{name}this {split.by} stands in both {one} and {other}"
                problems.append(Problem(where, entity, message, f"leave it in one of them, or {_REMEDY}"))
        for part, units in parts.items():
            for unit in sorted(unit for unit, count in Counter(units).items() if count > 1):
                problems.append(Problem(where, unit, f"{name}stands in {part} more than once", _REMEDY))
            if not units and part != "validation":
                problems.append(Problem(where, split.dataset, f"{name}nothing in {part}", _REMEDY))
    if isinstance(split, DownstreamSplit):
        problems += _numbering_problems(split, where)
    if problems:
        raise InputError(problems)


def _group_problems(split: Split, where: str) -> list[Problem]:
    """Name groups with members on two sides: in test and elsewhere; upstream, in train and validation."""
    if split.groups is None:
        return []
    problems = []
    for name, parts in _parts(split):
        units = {unit for part in parts.values() for unit in part}
        problems += [
            Problem(where, unit, f"{name}has no group in groups", _REMEDY)
            for unit in sorted(units - set(split.groups))
        ]
        alone = "test" if "test" in parts else "validation"
        held = _by_group(parts.pop(alone), split.groups)
        for part, members in parts.items():
            there = _by_group(members, split.groups)
            for group in sorted(set(held) & set(there)):
                here, other = ", ".join(held[group]), ", ".join(there[group])
                message = f"{name}{here} in {alone} and {other} in {part} belong together"
                problems.append(Problem(where, f"group {group}", message, f"leave all on one side, or {_REMEDY}"))
    return problems


def _by_group(units: Units, groups: Mapping[str, str]) -> dict[str, list[str]]:
    members: dict[str, list[str]] = {}
    for unit in units:
        if unit in groups:
            members.setdefault(groups[unit], []).append(unit)
    return members


def _parts(split: Split) -> Iterator[tuple[str, dict[str, Units]]]:
    """Yield the parts that must have nothing in common, with words that name the draw."""
    if isinstance(split, UpstreamSplit):
        yield "", {"train": split.train, "validation": split.validation}
        return
    for draw in split.draws:
        parts = {"train": draw.train, "validation": draw.validation, "test": draw.test}
        yield f"n {draw.n}, draw {draw.draw}: ", parts


def _numbering_problems(split: DownstreamSplit, where: str) -> list[Problem]:
    problems = []
    if not split.draws:
        problems.append(Problem(where, split.dataset, "no draws", _REMEDY))
    counts = Counter((draw.n, draw.draw) for draw in split.draws)
    for (n, number), count in counts.items():
        if count > 1:
            problems.append(Problem(where, f"n {n}, draw {number}", f"stands there {count} times", _REMEDY))
    for draw in split.draws:
        if len(draw.train) + len(draw.validation) != draw.n:
            message = f"n is {draw.n}, but {len(draw.train)} units train and {len(draw.validation)} validate"
            problems.append(Problem(where, f"n {draw.n}, draw {draw.draw}", message, _REMEDY))
    return problems


def _decode(content: Any) -> Split:
    role, by = content["role"], content["by"]
    if by not in ("subject", "run"):
        raise ValueError(f"by is {by!r}, not subject or run")
    dataset, seed, groups = str(content["dataset"]), int(content["seed"]), _groups(content)
    if role == "upstream":
        train, validation = _units(content, "train"), _units(content, "validation")
        shared = content.get("shared")
        shared = shared and {str(name): _units(shared, name) for name in shared}
        source = content.get("source")
        return UpstreamSplit(
            dataset, seed, train, validation, by=by, groups=groups, shared=shared, source=source and str(source)
        )
    if role == "downstream":
        return DownstreamSplit(dataset, by, seed, tuple(_draw(item) for item in content["draws"]), groups=groups)
    raise ValueError(f"role is {role!r}, not upstream or downstream")


def _groups(content: Any) -> dict[str, str] | None:
    groups = content.get("groups")
    if groups is not None and not all(isinstance(group, str) for group in groups.values()):
        raise ValueError("groups do not name a group in quotes for each unit")
    return groups


def _draw(item: Any) -> Draw:
    train, validation, test = (_units(item, part) for part in ("train", "validation", "test"))
    return Draw(int(item["n"]), int(item["draw"]), train, validation, test)


def _units(content: Any, part: str) -> Units:
    units = content[part]
    # A number would be compared with labels and never match: 01 is not 1.
    if not isinstance(units, list) or not all(isinstance(unit, str) for unit in units):
        raise ValueError(f"{part} is not a list of labels in quotes")
    return tuple(units)


def _problem(path: Path | str, message: str, remedy: str) -> InputError:
    return InputError(Problem(str(path), "", message, remedy))
