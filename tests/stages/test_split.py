"""Stage split: by people, seeded, the same whatever the order of the tables."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from boldly import bids
from boldly.config import DownstreamSplitOptions, UpstreamSplitOptions
from boldly.files import read_json, write_tsv
from boldly.records import InputError, Run, write_runs
from boldly.samples.draws import split_downstream, split_upstream
from boldly.samples.shards import write_shard
from boldly.samples.splits import DownstreamSplit, Draw, UpstreamSplit, read_split, write_split
from boldly.stages import split
from tests.training import synthetic

KNOWN = Draw(n=3, draw=0, train=("b", "d"), validation=("c",), test=("a", "e"))
KNOWN_UPSTREAM = ("08", "24")
SUBJECTS = [f"{number:02d}" for number in range(1, 25)]


def draw(
    units: Sequence[str] = SUBJECTS,
    seed: int = 1234,
    dataset: str = "toy",
    groups: Mapping[str, str] | None = None,
    strata: Mapping[str, str] | None = None,
    **options: Any,
) -> DownstreamSplit:
    chosen = DownstreamSplitOptions(**options)
    return split_downstream(dataset, units, chosen, seed, where="runs.tsv", groups=groups, strata=strata)


def test_the_sizes_are_those_asked_for() -> None:
    found = draw()
    assert [(d.n, d.draw) for d in found.draws] == [(n, d) for n in (1, 3, 6, 11) for d in range(5)]
    assert {(d.n, len(d.train), len(d.validation), len(d.test)) for d in found.draws} == {
        (n, n, 0, 9) for n in (1, 3, 6, 11)
    }


def test_units_that_validate_count_as_labelled() -> None:
    # The preprint: 1, 3, 6 and 11 people train, 3 more with labels choose the step.
    found = draw(validation=3)
    assert {(d.n, len(d.train), len(d.validation)) for d in found.draws} == {
        (4, 1, 3), (6, 3, 3), (9, 6, 3), (14, 11, 3)
    }  # fmt: skip
    # Who trains does not depend on who validates.
    assert [d.train for d in found.draws] == [d.train for d in draw().draws]


def test_nobody_stands_on_two_sides_and_all_are_real() -> None:
    for d in draw().draws:
        units = [*d.train, *d.validation, *d.test]
        assert len(set(units)) == len(units)
        assert set(units) <= set(SUBJECTS)


def test_the_test_units_are_the_same_in_all_draws() -> None:
    assert len({d.test for d in draw().draws}) == 1
    # And do not depend on how the rest is used.
    assert draw().draws[0].test == draw(train=[2], validation=1, draws=1).draws[0].test


def test_the_draws_of_a_number_differ() -> None:
    found = draw(draws=10)
    for n in (1, 3, 6, 11):
        assert len({d.train for d in found.draws if d.n == n}) == 10


def test_draws_are_not_nested() -> None:
    found = {(d.n, d.draw): set(d.train) for d in draw(draws=10).draws}
    nested = sum(found[1, d] <= found[3, d] for d in range(10))
    # Of independent draws from 15 people, 3 in 15 hold the single one by chance: all ten would be nesting.
    assert nested < 8


def test_people_are_drawn_evenly() -> None:
    counts = Counter(unit for d in draw(train=[5], validation=0, draws=400).draws for unit in d.train)
    # 400 draws of 5 in 15: 133 expected, standard deviation 9.4.
    assert len(counts) == 15
    assert all(abs(count - 133) < 45 for count in counts.values())


def test_the_order_of_the_units_does_not_matter() -> None:
    assert draw(SUBJECTS[::-1]) == draw(SUBJECTS)
    options = UpstreamSplitOptions()
    assert split_upstream("toy", SUBJECTS[::-1], options, 1) == split_upstream("toy", SUBJECTS, options, 1)


def test_seed_and_dataset_change_the_split() -> None:
    assert draw(seed=1) != draw(seed=2)
    assert draw(dataset="toy").draws[0].test != draw(dataset="other").draws[0].test


def test_one_number_of_training_units_does_not_move_another() -> None:
    alone = list(draw(train=[3]).draws)
    together = [d for d in draw(train=[1, 3]).draws if d.n == 3]
    assert alone == together


def test_more_draws_leave_the_first_as_they_are() -> None:
    assert draw(draws=2).draws == tuple(d for d in draw(draws=9).draws if d.draw < 2)


def test_a_known_split_stays_as_it_is_on_every_platform() -> None:
    found = draw(["a", "b", "c", "d", "e", "f"], seed=0, train=[2], validation=1, test=2, draws=1)
    assert found.draws[0] == KNOWN


def test_fewer_choices_than_draws_give_fewer_draws(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        found = draw(["a", "b", "c"], train=[1, 2], validation=0, test=1, draws=5)
    assert Counter(d.n for d in found.draws) == {1: 2, 2: 1}
    assert "in 2 ways" in caplog.text


def test_leave_one_out_tests_each_unit_once_for_each_number() -> None:
    units = ["r1", "r2", "r3", "r4", "r5"]
    found = draw(units, by="run", train=[1, 3], validation=1, test="leave_one_out", draws=7)
    assert [(d.n, d.draw, d.test) for d in found.draws] == [
        (n, number, (unit,)) for n in (2, 4) for number, unit in enumerate(units)
    ]
    for d in found.draws:
        assert len({*d.train, *d.validation, *d.test}) == d.n + 1


@pytest.mark.parametrize(
    ("count", "options", "test", "train"),
    [
        # What the preprint has, where there are people enough: 9 for test and 11 for training.
        (20, {}, 9, [1, 3, 6, 11]),
        (40, {}, 9, [1, 3, 6, 11]),
        # Fewer are tested each in turn, and all the others train.
        (19, {}, 1, [1, 3, 6, 11, 18]),
        (8, {}, 1, [1, 3, 6, 7]),
        (8, {"validation": 2}, 1, [1, 3, 5]),
        (2, {}, 1, [1]),
        (8, {"test": 2}, 2, [1, 3, 6]),
        (8, {"test": "leave_one_out"}, 1, [1, 3, 6, 7]),
        (12, {"train": [2]}, 9, [2]),
        (10, {"train": [2]}, 1, [2]),
    ],
)
def test_sizes_that_are_not_given_follow_from_the_number_of_units(
    count: int, options: dict[str, Any], test: int, train: list[int]
) -> None:
    units = [f"{number:02d}" for number in range(count)]
    found = split_downstream("x", units, DownstreamSplitOptions.model_validate(options), 1, where="runs")
    assert {len(found_draw.test) for found_draw in found.draws} == {test}
    assert sorted({len(found_draw.train) for found_draw in found.draws}) == train


def test_sizes_that_are_not_given_leave_families_together() -> None:
    # Of two families of four, the relatives of whoever is tested do not train.
    families = {f"{number}": "ab"[number % 2] for number in range(8)}
    found = split_downstream("x", list(families), DownstreamSplitOptions(), 1, where="runs", groups=families)
    assert sorted({len(found_draw.train) for found_draw in found.draws}) == [1, 3, 4]


def test_leave_one_out_may_train_on_all_others() -> None:
    found = draw(["a", "b", "c"], train=[2], validation=0, test="leave_one_out")
    assert [d.train for d in found.draws] == [("b", "c"), ("a", "c"), ("a", "b")]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"train": [13], "validation": 3, "test": 9},
            "24 subjects are usable; 9 for test and 3 for validation leave 12 .* asks for 13",
        ),
        (
            {"train": [16], "test": 9},
            "24 subjects are usable; 9 for test leave 15 for training, but train asks for 16",
        ),
        ({"train": [1, 24], "validation": 0, "test": "leave_one_out"}, "leave 23 .* asks for 24"),
        ({"test": 30}, "leave 0 for training, but train asks for 1"),
        ({"train": [0]}, r"train \[0\]"),
        ({"train": []}, r"train \[\]"),
        ({"test": 0}, "test 0"),
        ({"by": "run", "train": [99]}, "24 runs are usable"),
    ],
)
def test_impossible_sizes_are_an_error_with_the_number_of_units(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        draw(**options)


@pytest.mark.parametrize(
    ("count", "fraction", "expected"),
    [(2, 0.05, 1), (2, 1.0, 1), (40, 0.05, 2), (100, 0.0, 1), (1, 0.5, 0)],
)
def test_upstream_holds_out_at_least_one_and_never_all(count: int, fraction: float, expected: int) -> None:
    subjects = [f"{number:03d}" for number in range(count)]
    found = split_upstream("toy", subjects, UpstreamSplitOptions(validation_fraction=fraction), 1)
    assert len(found.validation) == expected
    assert sorted([*found.train, *found.validation]) == subjects


# Families of 3, 3, 2, 2 and 1; 11 people.
FAMILIES = dict(zip("abcdefghijk", "11122233445", strict=True))
# Two thirds are of one site.
SITES = {subject: "small" if int(subject) % 3 == 0 else "large" for subject in SUBJECTS}


def relatives(units: Sequence[str], groups: Mapping[str, str] = FAMILIES) -> set[str]:
    return {groups[unit] for unit in units}


@pytest.mark.parametrize("seed", range(20))
def test_no_relative_of_a_test_person_is_looked_at_before(seed: int) -> None:
    found = draw(list(FAMILIES), seed, groups=FAMILIES, train=[1, 3], validation=1, test=4, draws=5)
    for d in found.draws:
        assert not relatives(d.test) & relatives([*d.train, *d.validation])
        assert {unit for unit, family in FAMILIES.items() if family in relatives(d.test)} == set(d.test)
        # 4 can be made up: 3 and 1, or 2 and 2.
        assert len(d.test) == 4
    assert found.groups == FAMILIES


def test_all_ways_to_make_up_the_number_come_up() -> None:
    tests = {
        frozenset(relatives(draw(list(FAMILIES), seed, groups=FAMILIES, train=[1], test=4).draws[0].test))
        for seed in range(100)
    }
    assert tests == {frozenset("15"), frozenset("25"), frozenset("34")}


def test_where_whole_groups_cannot_make_up_the_number_the_next_higher_is_taken() -> None:
    families = dict(zip("abcdefgh", "11122233", strict=True))
    for seed in range(10):
        # 3, 3 and 2 make up 2, 3, 5, 6 and 8.
        found = draw(list(families), seed, groups=families, train=[1], test=4, draws=1)
        assert len(found.draws[0].test) == 5


def test_groups_of_one_change_nothing() -> None:
    own = {subject: f"family of {subject}" for subject in SUBJECTS}
    assert draw(groups=own).draws == draw().draws
    options = UpstreamSplitOptions(validation_fraction=0.3)
    alone, grouped = (split_upstream("toy", SUBJECTS, options, 1, groups=groups) for groups in (None, own))
    assert (alone.train, alone.validation) == (grouped.train, grouped.validation)


def test_leave_one_out_leaves_the_relatives_of_the_tested_out() -> None:
    found = draw(list(FAMILIES), groups=FAMILIES, train=[8], test="leave_one_out")
    for d in found.draws:
        assert not relatives(d.test) & relatives(d.train)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train": [5], "test": 7}, "11 subjects are usable; 7 for test leave 4 for training, .* asks for 5"),
        (
            {"train": [9], "test": "leave_one_out"},
            r"1 for test \(3 with the whole of each family\) leave 8 .* asks for 9",
        ),
        ({"train": [1], "test": 12}, "12 for test leave 0"),
    ],
)
def test_sizes_that_groups_do_not_allow_are_an_error(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        draw(list(FAMILIES), groups=FAMILIES, group="family", **options)


@pytest.mark.parametrize("fraction", [0.0, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("seed", range(5))
def test_families_validate_a_pretraining_as_a_whole(fraction: float, seed: int) -> None:
    options = UpstreamSplitOptions(validation_fraction=fraction)
    found = split_upstream("toy", list(FAMILIES), options, seed, groups=FAMILIES)
    assert not relatives(found.train) & relatives(found.validation)
    # Of 11 people; 1 is a family, 2 is one, 6 (5.5 rounded to even) are two of three; 10 leave the single one.
    assert len(found.validation) == {0.0: 1, 0.2: 2, 0.5: 6, 1.0: 10}[fraction]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("apart", [{}, {"groups": FAMILIES}])
def test_datasets_of_one_source_hold_the_same_people_out(seed: int, apart: dict[str, Any]) -> None:
    options = UpstreamSplitOptions(validation_fraction=0.3)
    rest, task = (
        split_upstream(name, list(FAMILIES), options, seed, source="us", **apart) for name in ("rest", "task")
    )
    assert (rest.train, rest.validation, rest.source) == (task.train, task.validation, "us")


def test_who_is_held_out_does_not_depend_on_who_trains() -> None:
    options = UpstreamSplitOptions(validation_fraction=0.3)
    rest = split_upstream("rest", list(FAMILIES), options, 1, source="us")
    # Three of 11 people, and of 10.
    others = [subject for subject in FAMILIES if subject != rest.train[0]]
    assert split_upstream("task", others, options, 1, source="us").validation == rest.validation


def test_datasets_of_one_source_hold_the_same_strata_out() -> None:
    options = UpstreamSplitOptions(validation_fraction=0.25)
    found = [split_upstream(name, SUBJECTS, options, 1, strata=SITES, source="us") for name in ("a", "b")]
    assert found[0].validation == found[1].validation
    assert Counter(SITES[subject] for subject in found[0].validation) == {"large": 4, "small": 2}
    # Everyone has their turn.
    drawn = {
        split_upstream("a", SUBJECTS, UpstreamSplitOptions(), seed, source="us").validation for seed in range(300)
    }
    assert len(drawn) == len(SUBJECTS)


def test_people_of_a_single_dataset_are_drawn_as_ever() -> None:
    # The known draw of a dataset whose people are in no other.
    found = split_upstream("toy", SUBJECTS, UpstreamSplitOptions(validation_fraction=0.1), 1234)
    assert (found.validation, found.source) == (KNOWN_UPSTREAM, None)


def test_where_all_are_related_nobody_validates_a_pretraining(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        found = split_upstream("toy", ["a", "b"], UpstreamSplitOptions(), 1, groups={"a": "1", "b": "1"})
    assert (found.train, found.validation) == (("a", "b"), ())
    assert "one group only" in caplog.text


@pytest.mark.parametrize("seed", range(10))
def test_each_part_has_its_share_of_each_stratum(seed: int) -> None:
    found = draw(seed=seed, strata=SITES, train=[3, 6], validation=3, test=9, draws=5)
    for d in found.draws:
        # 8 of 24 people are of the small site: 3 of 9 in the test, and then 5 of 15.
        assert Counter(SITES[unit] for unit in d.test) == {"large": 6, "small": 3}
        small = sum(SITES[unit] == "small" for unit in d.train)
        assert abs(small - len(d.train) / 3) < 1


def test_everyone_can_be_drawn_from_a_stratum() -> None:
    found = draw(strata=SITES, train=[1], test=9, draws=400)
    # As many different people as there are beside the test.
    assert len(found.draws) == 15
    upstream = {
        split_upstream("toy", SUBJECTS, UpstreamSplitOptions(), seed, strata=SITES).validation
        for seed in range(300)
    }
    assert len(upstream) == len(SUBJECTS)


def test_families_within_sites_stay_together() -> None:
    families = {subject: str(number // 6) + str(number % 3) for number, subject in enumerate(SUBJECTS)}
    found = draw(groups=families, strata=SITES, train=[3], test=8)
    for d in found.draws:
        assert not relatives(d.test, families) & relatives(d.train, families)
        assert 2 <= sum(SITES[unit] == "small" for unit in d.test) <= 4


def record(subject: str, run: int, status: str = "ok") -> Run:
    fields: dict[str, Any] = dict.fromkeys(
        ("session", "acquisition", "direction", "bold", "mask", "confounds", "events"), ""
    )
    return Run(
        dataset="toy",
        subject=subject,
        task="a",
        run=str(run),
        space="T1w",
        key=f"ds-toy_sub-{subject}_task-a_run-{run}",
        t_r=2.0,
        n_volumes=40,
        status=status,  # type: ignore[arg-type]
        reason="" if status == "ok" else "short",
        **fields,
    )


def run_stage(
    folder: Path,
    runs: list[Run],
    qc: dict[str, str] | None = None,
    tables: list[Path] | None = None,
    **changes: Any,
) -> Path:
    """Run the stage; `qc` maps run keys to a status other than ok, `tables` are used instead of all tables."""
    write_runs(folder / "runs.tsv", runs)
    for subject in {item.subject for item in runs}:
        keys = [item.key for item in runs if item.subject == subject and item.status == "ok"]
        table = pd.DataFrame({"key": keys, "status": [(qc or {}).get(key, "ok") for key in keys]})
        write_tsv(folder / f"sub-{subject}_qc.tsv", table)
    options: dict[str, Any] = {
        "dataset": "toy",
        "runs": folder / "runs.tsv",
        "qc": sorted(folder.glob("sub-*_qc.tsv")) if tables is None else tables,
        "signals": [],
        "role": "downstream",
        "upstream": UpstreamSplitOptions(),
        "downstream": DownstreamSplitOptions(train=[1], validation=0, test=1, draws=2),
        "seed": 1,
        "output": folder / "split.json",
    }
    split.run(**(options | changes))
    return folder / "split.json"


def test_people_without_a_usable_run_are_not_drawn(tmp_path: Path) -> None:
    runs = [record("01", 1), record("01", 2), record("02", 1, "excluded"), record("03", 1), record("04", 1)]
    path = run_stage(tmp_path, runs, {"ds-toy_sub-04_task-a_run-1": "excluded"}, role="upstream")
    found = read_split(path)
    assert isinstance(found, UpstreamSplit)
    assert sorted([*found.train, *found.validation]) == ["01", "03"]


def test_the_order_of_rows_and_tables_does_not_matter(tmp_path: Path) -> None:
    runs = [record(f"{number:02d}", 1) for number in range(8)]
    first = run_stage(tmp_path, runs).read_bytes()
    tables = sorted(tmp_path.glob("sub-*_qc.tsv"), reverse=True)
    assert run_stage(tmp_path, runs[::-1], tables=tables).read_bytes() == first


def test_a_split_by_run_of_one_subject_draws_usable_runs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    options = DownstreamSplitOptions(by="run", train=[1], validation=0, test="leave_one_out")
    runs = [record("01", 1), record("01", 2), record("01", 3, "error"), record("01", 10)]
    found = read_split(run_stage(tmp_path, runs, downstream=options), "downstream")
    assert [d.test[0].rpartition("-")[2] for d in found.draws] == ["1", "10", "2"]
    assert found.by == "run"
    assert "same" not in caplog.text


def test_two_reconstructions_of_one_recording_cannot_be_two_units(tmp_path: Path) -> None:
    options = DownstreamSplitOptions(by="run", train=[1], validation=0, test=1)
    runs = [record("01", number) for number in (1, 2, 3)]
    runs += [replace(runs[0], reconstruction="raw", key="ds-toy_sub-01_task-a_rec-raw_run-1")]
    with pytest.raises(InputError, match="of which one could train and another test: ds-toy_sub-01_task-a_r"):
        run_stage(tmp_path, runs, downstream=options)
    # People are split as a whole.
    run_stage(tmp_path, [*runs, record("02", 1), record("03", 1)])


def test_a_split_by_run_of_several_people_is_warned_about(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = DownstreamSplitOptions(by="run", train=[1], validation=0, test=1)
    run_stage(tmp_path, [record("01", 1), record("02", 1), record("03", 1)], downstream=options)
    assert "the same 3 people train and test" in caplog.text


def test_people_whose_signals_are_excluded_are_not_drawn(tmp_path: Path) -> None:
    runs = [record("01", 1), record("02", 1), record("02", 2), record("03", 1)]
    status = {"01_task-a_run-1": "ok", "02_task-a_run-1": "excluded", "02_task-a_run-2": "excluded"}
    table = pd.DataFrame({"key": [f"ds-toy_sub-{key}" for key in status], "status": status.values()})
    write_tsv(tmp_path / "quality.tsv", table)
    # Run 1 of sub-03 was excluded before: parcellate does not know it.
    before = {"ds-toy_sub-03_task-a_run-1": "excluded"}
    runs.append(record("04", 1))
    with pytest.raises(InputError, match=r"(?s)sub-04_task-a_run-1: stands in no quality table.*rerun parcellate"):
        run_stage(tmp_path, runs, before, role="upstream", signals=[tmp_path / "quality.tsv"])
    path = run_stage(tmp_path, runs[:-1], before, role="upstream", signals=[tmp_path / "quality.tsv"])
    assert read_split(path, "upstream").train == ("01",)


def write_samples(folder: Path, runs: list[Run], lost: set[str], *, trials: bool = True) -> Path:
    """Write the shards of all subjects; of some runs nothing is left."""
    for subject in {item.subject for item in runs}:
        samples = []
        for item in runs:
            if item.subject == subject and item.key not in lost:
                meta = {"dataset": "toy", "subject": subject, "run_key": item.key, "t_r": 2.0, "n_volumes": 3}
                keys = [bids.sample_key(item.key, number) for number in (0, 1)] if trials else [item.key]
                samples += [synthetic.sample(key, np.zeros((3, 4)), meta) for key in keys]
        write_shard(folder / bids.shard_name("toy", subject), samples)
    return folder


@pytest.mark.parametrize("role", ["upstream", "downstream"])
def test_people_of_whom_scrubbing_left_nothing_are_not_drawn(
    role: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [record(label, number) for label in ("01", "02", "03", "04") for number in (1, 2)]
    # Of 02 nothing is left, of 03 one run.
    lost = {runs[2].key, runs[3].key, runs[4].key}
    shards = write_samples(tmp_path / "shards", runs, lost, trials=role == "downstream")
    found = read_split(run_stage(tmp_path, runs, role=role, shards=shards))
    if isinstance(found, DownstreamSplit):
        units = {unit for d in found.draws for unit in (*d.train, *d.validation, *d.test)}
    else:
        units = {*found.train, *found.validation}
    assert units == {"01", "03", "04"}
    said = capsys.readouterr().out
    assert said.startswith("toy: 1 subject left out of the split")
    assert said.endswith(": sub-02\n")


def test_runs_of_which_scrubbing_left_nothing_are_not_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = DownstreamSplitOptions(by="run", train=[1], validation=0, test="leave_one_out")
    runs = [record("01", number) for number in (1, 2, 3, 4)]
    shards = write_samples(tmp_path / "shards", runs, {runs[1].key})
    found = read_split(run_stage(tmp_path, runs, downstream=options, shards=shards), "downstream")
    assert [d.test for d in found.draws] == [(runs[number].key,) for number in (0, 2, 3)]
    assert runs[1].key in capsys.readouterr().out
    # Where all is there nothing is said, and the split is that of the run table.
    shards = write_samples(tmp_path / "shards", runs, set())
    whole = run_stage(tmp_path, runs, downstream=options, shards=shards).read_bytes()
    assert whole == run_stage(tmp_path, runs, downstream=options).read_bytes()
    assert capsys.readouterr().out == ""


def test_shards_without_any_sample_or_that_are_not_there_are_an_error(tmp_path: Path) -> None:
    runs = [record("01", 1), record("02", 1)]
    shards = write_samples(tmp_path / "shards", runs, {item.key for item in runs})
    with pytest.raises(InputError, match="toy: not a single sample"):
        run_stage(tmp_path, runs, shards=shards)
    (shards / bids.shard_name("toy", "02")).unlink()
    with pytest.raises(InputError, match=r"(?s)no such shard.*ds-toy_sub-02\.tar.*rerun shard"):
        run_stage(tmp_path, runs, shards=shards)


def test_ready_made_shards_have_no_quality_tables(tmp_path: Path) -> None:
    found = read_split(run_stage(tmp_path, [record("01", 1), record("02", 1)], tables=[]), "downstream")
    assert {unit for d in found.draws for unit in (*d.train, *d.test)} == {"01", "02"}


def test_a_run_without_a_quality_row_is_an_error(tmp_path: Path) -> None:
    runs = [record("01", 1), record("02", 1)]
    with pytest.raises(InputError, match="sub-02_task-a_run-1: stands in no quality table"):
        run_stage(tmp_path, runs, tables=[tmp_path / "sub-01_qc.tsv"])


def test_a_dataset_without_usable_runs_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no usable run"):
        run_stage(tmp_path, [record("01", 1, "error")], role="upstream")


def participants(folder: Path, text: str) -> Path:
    path = folder / "participants.tsv"
    path.write_text(text.replace(" ", "\t"))
    return path


FOUR = [record(label, 1) for label in ("01", "02", "03", "04")]
BY_FAMILY = DownstreamSplitOptions(train=[1], validation=0, test=2, draws=2, group="family_id")


def test_families_come_from_participants_tsv(tmp_path: Path) -> None:
    # With and without sub-, in any order, with people whom the dataset does not have.
    table = participants(tmp_path, "participant_id family_id\n04 7\nsub-03 8\nsub-02 8\nsub-01 7\nsub-99 n/a\n")
    path = run_stage(tmp_path, FOUR, downstream=BY_FAMILY, participants=table)
    found = read_split(path, "downstream")
    assert found.groups == {"01": "7", "02": "8", "03": "8", "04": "7"}
    assert found.draws[0].test in (("01", "04"), ("02", "03"))
    upstream = UpstreamSplitOptions(group="family_id", stratify="family_id")
    path = run_stage(tmp_path, FOUR, role="upstream", upstream=upstream, participants=table)
    assert read_split(path, "upstream").validation in (("01", "04"), ("02", "03"))


def test_without_groups_the_file_says_nothing_of_them(tmp_path: Path) -> None:
    for role in ("upstream", "downstream"):
        content = read_json(run_stage(tmp_path, FOUR, role=role))
        assert not {"groups", "shared", "strata"} & set(content)


def test_runs_have_the_group_of_their_person(tmp_path: Path) -> None:
    table = participants(tmp_path, "participant_id who\n01 a\n02 b\n03 c\n")
    runs = [record(label, number) for label in ("01", "02", "03") for number in (1, 2)]
    options = DownstreamSplitOptions(by="run", train=[1], test=2, draws=2, group="who")
    found = read_split(run_stage(tmp_path, runs, downstream=options, participants=table), "downstream")
    assert {key.split("_")[1] for key in found.draws[0].test} in ({"sub-01"}, {"sub-02"}, {"sub-03"})


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ("participant_id age\n01 5\n", ["no column 'family_id' (found: participant_id, age)"]),
        ("name family_id\n01 5\n", ["no column 'participant_id' (found: name, family_id)"]),
        (
            "participant_id family_id\n01 5\n02 n/a\n04 1\n04 2\n",
            ["sub-02: family_id is n/a", "sub-03: has no row", "sub-04: has several values of family_id: 1, 2"],
        ),
        ("", ["not a readable table of participants"]),
    ],
)
def test_people_without_a_group_are_all_named(tmp_path: Path, text: str, messages: list[str]) -> None:
    table = participants(tmp_path, text)
    for changes in (
        {"downstream": BY_FAMILY},
        {"role": "upstream", "upstream": UpstreamSplitOptions(group="family_id")},
    ):
        with pytest.raises(InputError) as caught:
            run_stage(tmp_path, FOUR, participants=table, **changes)
        assert len(caught.value.problems) == len(messages)
        assert all(message in str(caught.value) for message in messages)
        assert {problem.where for problem in caught.value.problems} == {str(table)}


@pytest.mark.parametrize("path", [None, Path("nowhere/participants.tsv")])
def test_a_missing_table_of_participants_is_named_with_the_option(tmp_path: Path, path: Path | None) -> None:
    with pytest.raises(InputError, match=r"(?s)split.group: no.*table of participants.*datasets.toy.participants"):
        run_stage(tmp_path, FOUR, downstream=BY_FAMILY, participants=path)


def task_split(folder: Path, test: list[str], by: str = "subject") -> Path:
    train = ["02"] if by == "subject" else [record("02", 1).key]
    found = DownstreamSplit("task", by, 1, (Draw(1, 0, tuple(train), (), tuple(test)),))  # type: ignore[arg-type]
    write_split(folder / "task.json", found)
    return folder / "task.json"


def test_people_who_test_are_not_pretrained_on(tmp_path: Path) -> None:
    other = [task_split(tmp_path, ["03", "04", "99"])]
    with pytest.raises(InputError) as caught:
        run_stage(tmp_path, FOUR, role="upstream", same_source=other)
    (problem,) = caught.value.problems
    assert problem.entity == "toy"
    assert "2 of its people" in problem.message
    assert "test people of task" in problem.message
    assert problem.message.endswith("sub-03, sub-04")
    assert all(way in problem.remedy for way in ("shared_people", "exclude", "allow", "datasets.toy.source"))


def test_people_who_test_can_be_left_out_or_allowed(tmp_path: Path) -> None:
    other = [task_split(tmp_path, ["03", "04", "99"])]
    plain = run_stage(tmp_path, FOUR, role="upstream").read_bytes()
    for way in ("exclude", "allow"):
        options = UpstreamSplitOptions(shared_people=way)
        path = run_stage(tmp_path, FOUR, role="upstream", upstream=options, same_source=other)
        found = read_split(path, "upstream")
        if way == "exclude":
            assert {*found.train, *found.validation} == {"01", "02"}
            assert found.shared is None
        else:
            assert {*found.train, *found.validation} == {"01", "02", "03", "04"}
            assert found.shared == {"task": ("03", "04")}
            content = {key: value for key, value in read_json(path).items() if key != "shared"}
            assert content == json.loads(plain)


def test_nobody_left_to_pretrain_on_is_an_error(tmp_path: Path) -> None:
    options = UpstreamSplitOptions(shared_people="exclude")
    other = [task_split(tmp_path, [record(label, 1).key for label in ("01", "03")], by="run")]
    with pytest.raises(InputError, match="all of its 2 people are test people of task"):
        run_stage(tmp_path, FOUR[::2], role="upstream", upstream=options, same_source=other)


def test_other_people_of_the_source_change_nothing(tmp_path: Path) -> None:
    plain = run_stage(tmp_path, FOUR, role="upstream").read_bytes()
    other = [task_split(tmp_path, ["98", "99"])]
    assert run_stage(tmp_path, FOUR, role="upstream", same_source=other).read_bytes() == plain
