"""Stage split: by people, seeded, the same whatever the order of the tables."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from boldly.config import DownstreamSplitOptions, UpstreamSplitOptions
from boldly.files import write_tsv
from boldly.records import InputError, Run, write_runs
from boldly.samples.splits import DownstreamSplit, Draw, UpstreamSplit, read_split
from boldly.stages import split
from boldly.stages.split import split_downstream, split_upstream

KNOWN = Draw(n=3, draw=0, train=("b", "d"), validation=("c",), test=("a", "e"))
SUBJECTS = [f"{number:02d}" for number in range(1, 25)]


def draw(
    units: Sequence[str] = SUBJECTS, seed: int = 1234, dataset: str = "toy", **options: Any
) -> DownstreamSplit:
    return split_downstream(dataset, units, DownstreamSplitOptions(**options), seed, where="runs.tsv")


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


def test_leave_one_out_may_train_on_all_others() -> None:
    found = draw(["a", "b", "c"], train=[2], validation=0, test="leave_one_out")
    assert [d.train for d in found.draws] == [("b", "c"), ("a", "c"), ("a", "b")]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"train": [13], "validation": 3},
            "24 subjects are usable; 9 for test and 3 for validation leave 12 .* asks for 13",
        ),
        ({"train": [16]}, "24 subjects are usable; 9 for test leave 15 for training, but train asks for 16"),
        ({"train": [1, 24], "validation": 0, "test": "leave_one_out"}, "leave 23 .* asks for 24"),
        ({"test": 30}, "leave 0 for training, but train asks for 1, 3, 6, 11"),
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
