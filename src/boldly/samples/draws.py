"""Who stands on which side of a split: pure functions of seed, dataset and units."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from boldly.config import DownstreamSplitOptions, UpstreamSplitOptions
from boldly.records import InputError, Problem
from boldly.samples.splits import DownstreamSplit, Draw, Units, UpstreamSplit

logger = logging.getLogger(__name__)

# Numbers of training and test units where the config names none, those of the preprint.
_TRAIN, _TEST = (1, 3, 6, 11), 9
# The way out where there is a single person, who cannot both train and test.
ONE_PERSON = (
    "with one person split by run, `split: {downstream: {by: run}}` (nothing is said about other people then), or "
    "add people"
)
# Draws in a row that bring nothing new before a stratified choice counts as exhausted.
_REPEATS = 1000


def split_upstream(
    dataset: str,
    subjects: Sequence[str],
    options: UpstreamSplitOptions,
    seed: int,
    *,
    groups: Mapping[str, str] | None = None,
    strata: Mapping[str, str] | None = None,
    shared: Mapping[str, Units] | None = None,
    source: str | None = None,
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
    groups, strata : mapping of str to str, optional
        Group and stratum of each subject. Groups are held out as a whole: as few subjects as groups can make up
        that are not fewer than the share (where that would be all of them, as many as they can make up below).
    shared : mapping of str to tuple of str, optional
        Subjects that downstream datasets test, by dataset, to be recorded.
    source : str, optional
        Name of the source of the people, where other upstream datasets have the same. The draw is the same in all
        of them then: subjects, or groups, are held out in an order that does not depend on the dataset nor on who
        else is in it.

    Returns
    -------
    UpstreamSplit
        Without validation subjects if there is one subject, or one group, only.
    """
    count = max(1, round(options.validation_fraction * len(subjects)))
    blocks = _together(subjects, groups)
    if source is None:
        order = _drawn(blocks, _generator(seed, dataset, "upstream"), strata)
    else:
        order = _by_itself(blocks, seed, groups, strata)
    validation = _whole(order, min(count, len(subjects) - 1), most=len(subjects) - 1)
    if not validation:
        only = "group" if groups else "subject"
        logger.warning("%s: one %s only, none is left for validation", dataset, only)
    train = _sorted(set(subjects) - set(validation))
    return UpstreamSplit(
        dataset, seed, train, validation, groups=_known(groups), shared=shared or None, source=source
    )


def split_downstream(
    dataset: str,
    units: Sequence[str],
    options: DownstreamSplitOptions,
    seed: int,
    *,
    where: str,
    groups: Mapping[str, str] | None = None,
    strata: Mapping[str, str] | None = None,
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
    groups : mapping of str to str, optional
        Group of each unit. Whole groups are tested: as many units as groups can make up that are at least
        `options.test`, and as few of them as possible. The groups are gone through in random order, and each is
        taken if the groups behind it can complete that number. With ``leave_one_out``, the others of the tested
        unit's group take no part in its draw.
    strata : mapping of str to str, optional
        Stratum of each unit (of a group, that of its first unit). Systematic sampling: each part takes from every
        stratum in proportion to its size, rounded up or down at random.

    Returns
    -------
    DownstreamSplit
        Draws in the order of n and number.

    Raises
    ------
    InputError
        If sizes are not positive, or larger than the units allow.
    """
    blocks = _together(units, groups)
    options = with_sizes(options, len(units), max(map(len, blocks)))
    if options.test == "leave_one_out":
        check_sizes(dataset, len(units), options, where, max(map(len, blocks)))
        draws = list(_leave_one_out(dataset, blocks, options, seed, strata))
    else:
        order = _drawn(blocks, _generator(seed, dataset, "test"), strata)
        number = options.test or 0
        test = _whole(order, number, most=len(units))
        check_sizes(dataset, len(units), options, where, max(len(test), number))
        pool = sorted(set(units) - set(test))
        sizes = sorted(set(options.train or ()))
        draws = [
            draw for size in sizes for draw in _random_draws(dataset, pool, test, size, options, seed, strata)
        ]
    return DownstreamSplit(dataset, options.by, seed, tuple(draws), groups=_known(groups))


def with_sizes(options: DownstreamSplitOptions, n_units: int, largest_group: int = 1) -> DownstreamSplitOptions:
    """Return the options with the numbers of training and test units that they leave open.

    Parameters
    ----------
    options : DownstreamSplitOptions
        As given.
    n_units : int
        Usable units.
    largest_group : int, default=1
        Units of the largest group: as many are left out of a draw that tests one of them.
    """
    test, train = options.test, options.train
    if test is None:
        wanted = max(train or _TRAIN)
        test = _TEST if n_units - max(_TEST, largest_group) - options.validation >= wanted else "leave_one_out"
    if train is None:
        is_each = test == "leave_one_out"
        pool = n_units - (largest_group if is_each else int(test)) - options.validation
        fitting = [size for size in _TRAIN if size <= pool]
        # With each unit tested, the rest is what there is to train on.
        train = sorted({*fitting, max(pool, 1)}) if is_each or not fitting else fitting
    return options.model_copy(update={"test": test, "train": train})


def check_sizes(dataset: str, n_units: int, options: DownstreamSplitOptions, where: str, taken: int) -> None:
    """Refuse sizes that the units do not allow.

    Parameters
    ----------
    dataset : str
        Name of the dataset.
    n_units : int
        Usable units.
    options : DownstreamSplitOptions
        With all sizes (`with_sizes`).
    where : str
        File that the units come from, for the error.
    taken : int
        Units that the test takes away: where groups are tested as a whole, more than `options.test`.

    Raises
    ------
    InputError
        For sizes that are not positive, or larger than the units allow.
    """
    problems: list[Problem] = []
    test = 1 if options.test == "leave_one_out" else options.test or 0
    if test < 1 or not options.train or min(options.train) < 1:
        message = f"split sizes train {options.train}, test {test}"
        problems.append(Problem(where, dataset, message, "give whole numbers from 1 in split.downstream"))
    pool = n_units - taken - options.validation
    too_large = [size for size in sorted(set(options.train or ())) if size > pool]
    if too_large:
        word = "run" if options.by == "run" else "subject"
        usable = f"1 {word} is" if n_units == 1 else f"{n_units} {word}s are"
        whole = f" ({taken} with the whole of each {options.group})" if taken > test else ""
        validation = f" and {options.validation} for validation" if options.validation else ""
        message = (
            f"{usable} usable; {test} for test{whole}{validation} leave {max(pool, 0)} for training, "
            f"but train asks for {', '.join(map(str, too_large))}"
        )
        remedy = "lower train, validation or test in split.downstream or in datasets.<name>.split"
        if n_units == 1:
            remedy = ONE_PERSON if options.by == "subject" else "a decoder needs at least two runs: add some"
        problems.append(Problem(where, dataset, message, remedy))
    if problems:
        raise InputError(problems)


def _random_draws(
    dataset: str,
    pool: Sequence[str],
    test: Units,
    size: int,
    options: DownstreamSplitOptions,
    seed: int,
    strata: Mapping[str, str] | None,
) -> Iterator[Draw]:
    generator = _generator(seed, dataset, f"train {size}")
    count = min(options.draws, math.comb(len(pool), size))
    n = size + options.validation
    seen: set[Units] = set()
    repeats = 0
    while len(seen) < count and repeats < _REPEATS:
        order = _flat(_drawn(_together(pool), generator, strata))
        train = _sorted(order[:size])
        if train not in seen:
            yield Draw(n, len(seen), train, _sorted(order[size:n]), test)
            seen.add(train)
            repeats = 0
        # Without strata every choice comes in time.
        elif strata:
            repeats += 1
    if len(seen) < options.draws:
        logger.warning(
            "%s: %d units of %d can be chosen in %d ways: so many draws", dataset, size, len(pool), len(seen)
        )


def _leave_one_out(
    dataset: str,
    blocks: Sequence[Units],
    options: DownstreamSplitOptions,
    seed: int,
    strata: Mapping[str, str] | None,
) -> Iterator[Draw]:
    relatives = {unit: block for block in blocks for unit in block}
    units = sorted(relatives)
    for size in sorted(set(options.train or ())):
        generator = _generator(seed, dataset, f"leave one out {size}")
        n = size + options.validation
        for number, unit in enumerate(units):
            pool = [other for other in units if other not in relatives[unit]]
            order = _flat(_drawn(_together(pool), generator, strata))
            yield Draw(n, number, _sorted(order[:size]), _sorted(order[size:n]), (unit,))


def _generator(seed: int, dataset: str, purpose: str) -> np.random.Generator:
    """Return a generator of its own for each purpose, so that one choice never moves another."""
    digest = hashlib.sha256(f"{seed}\n{dataset}\n{purpose}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def _together(units: Sequence[str], groups: Mapping[str, str] | None = None) -> list[Units]:
    """Return blocks of units that stay together, ordered by their first units; without groups of one unit each."""
    blocks: dict[str, list[str]] = {}
    for unit in sorted(units):
        blocks.setdefault(groups[unit] if groups else unit, []).append(unit)
    return [tuple(block) for block in blocks.values()]


def _drawn(
    blocks: Sequence[Units], generator: np.random.Generator, strata: Mapping[str, str] | None
) -> list[Units]:
    """Return blocks in random order; with strata so that any first few have a share of each stratum."""
    return _spread([blocks[i] for i in generator.permutation(len(blocks))], generator, strata)


def _by_itself(
    blocks: Sequence[Units], seed: int, groups: Mapping[str, str] | None, strata: Mapping[str, str] | None
) -> list[Units]:
    """Return blocks in a random order in which the place of each depends on its own name alone."""

    def place(block: Units) -> bytes:
        name = groups[block[0]] if groups else block[0]
        return hashlib.sha256(f"{seed}\n{name}\nupstream".encode()).digest()

    return _spread(sorted(blocks, key=place), _generator(seed, "", "upstream"), strata)


def _spread(order: list[Units], generator: np.random.Generator, strata: Mapping[str, str] | None) -> list[Units]:
    """Return blocks in their order; with strata so that any first few have a share of each stratum.

    Each stratum is spread evenly from 0 to 1, from a random start (systematic sampling), and the blocks are
    ordered by their places.
    """
    if not strata:
        return order
    names = sorted({strata[block[0]] for block in order})
    starts = dict(zip(names, generator.random(len(names)), strict=True))
    sizes = {name: sum(len(block) for block in order if strata[block[0]] == name) for name in names}
    before = dict.fromkeys(names, 0)
    places = []
    for block in order:
        name = strata[block[0]]
        places.append((before[name] + starts[name]) / sizes[name])
        before[name] += len(block)
    return [order[i] for i in np.argsort(places, kind="stable")]


def _whole(order: Sequence[Units], number: int, *, most: int) -> Units:
    """Choose whole blocks with as few units as they can make up from `number` to `most`, else as many as below.

    Each block is taken in its turn if those behind it can complete the number of units.
    """
    # Bit s of completions[i]: some of the blocks from the i-th on have s units together.
    completions = [1]
    for block in reversed(order):
        completions.append(completions[-1] | completions[-1] << len(block))
    completions.reverse()
    totals = [total for total in range(most + 1) if completions[0] >> total & 1]
    left = next((total for total in totals if total >= number), totals[-1])
    chosen = []
    for block, later in zip(order, completions[1:], strict=True):
        if len(block) <= left and later >> (left - len(block)) & 1:
            chosen.append(block)
            left -= len(block)
    return _sorted(_flat(chosen))


def _flat(blocks: Sequence[Units]) -> list[str]:
    return [unit for block in blocks for unit in block]


def _known(groups: Mapping[str, str] | None) -> dict[str, str] | None:
    return None if groups is None else dict(sorted(groups.items()))


def _sorted(units: Iterable[str]) -> Units:
    return tuple(sorted(units))
