"""The split file: read as written, and checked against edits that would let a person train and test."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from boldly.records import InputError
from boldly.samples.splits import (
    DownstreamSplit,
    Draw,
    Split,
    UpstreamSplit,
    check_disjoint,
    kept_apart,
    read_split,
    write_split,
)

UPSTREAM = UpstreamSplit("rest", 1, train=("01", "02"), validation=("03",))
DOWNSTREAM = DownstreamSplit(
    "toy",
    "subject",
    1,
    (Draw(2, 0, ("01",), ("02",), ("03", "04")), Draw(2, 1, ("02",), ("01",), ("03", "04"))),
)


@pytest.mark.parametrize("split", [UPSTREAM, dataclasses.replace(UPSTREAM, source="us"), DOWNSTREAM])
def test_a_split_comes_back_as_it_was(tmp_path: Path, split: Split) -> None:
    write_split(tmp_path / "a.json", split)
    assert read_split(tmp_path / "a.json") == split


def test_the_file_has_the_fields_that_are_documented(tmp_path: Path) -> None:
    write_split(tmp_path / "a.json", DOWNSTREAM)
    content = json.loads((tmp_path / "a.json").read_text())
    assert list(content)[:4] == ["dataset", "role", "by", "seed"]
    assert content["draws"][1] == {"n": 2, "draw": 1, "train": ["02"], "validation": ["01"], "test": ["03", "04"]}


def test_the_role_can_be_asked_for(tmp_path: Path) -> None:
    write_split(tmp_path / "a.json", UPSTREAM)
    assert read_split(tmp_path / "a.json", "upstream").train == ("01", "02")
    with pytest.raises(InputError, match="downstream data is needed"):
        read_split(tmp_path / "a.json", "downstream")


def edit(path: Path, change: Callable[[Any], object]) -> Path:
    write_split(path, DOWNSTREAM)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(("part", "word"), [("train", "train and test"), ("validation", "validation and test")])
def test_a_subject_on_two_sides_is_named(tmp_path: Path, part: str, word: str) -> None:
    path = edit(tmp_path / "a.json", lambda content: content["draws"][1].update({part: ["04"]}))
    with pytest.raises(InputError, match=word) as caught:
        read_split(path)
    problem = caught.value.problems[0]
    assert (problem.where, problem.entity) == (str(path), "sub-04")
    assert "draw 1" in problem.message


def test_a_subject_in_train_and_validation_of_an_upstream_split_is_named() -> None:
    with pytest.raises(InputError, match="sub-02"):
        check_disjoint(dataclasses.replace(UPSTREAM, validation=("02",)))


def test_a_run_on_two_sides_is_named() -> None:
    draw = Draw(1, 0, ("ds-toy_sub-01_task-a_run-1",), (), ("ds-toy_sub-01_task-a_run-1",))
    with pytest.raises(InputError, match="ds-toy_sub-01_task-a_run-1: n 1, draw 0: this run stands in both"):
        check_disjoint(DownstreamSplit("toy", "run", 1, (draw,)))


def test_all_problems_are_reported_at_once(tmp_path: Path) -> None:
    path = edit(
        tmp_path / "a.json",
        lambda content: [draw.update(train=["03"], validation=["03"]) for draw in content["draws"]],
    )
    with pytest.raises(InputError) as caught:
        read_split(path)
    # In each of two draws: train and validation, train and test, validation and test.
    assert len(caught.value.problems) == 6


def test_a_split_with_a_person_on_two_sides_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        write_split(tmp_path / "a.json", dataclasses.replace(UPSTREAM, validation=("01",)))
    assert not (tmp_path / "a.json").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.pop("draws"), "'draws' is missing"),
        (lambda content: content.update(role="both"), "role is 'both'"),
        (lambda content: content.update(by="session"), "by is 'session'"),
        (lambda content: content["draws"][0].update(train=[1]), "labels in quotes"),
        (lambda content: content["draws"][0].update(train="01"), "labels in quotes"),
        (lambda content: content["draws"][0].update(test=[]), "nothing in test"),
        (lambda content: content["draws"][0].update(n=1), "n is 1, but 1 units train and 1 validate"),
        (lambda content: content["draws"][0].update(test=["03", "03"]), "more than once"),
        (lambda content: content["draws"][0].update(draw=1), "2 times"),
        (lambda content: content.update(draws=[]), "no draws"),
    ],
)
def test_what_is_no_split_is_an_input_error(tmp_path: Path, change: Callable[[Any], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_split(edit(tmp_path / "a.json", change))


def test_an_absent_or_broken_file_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_split(tmp_path / "a.json")
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(InputError, match="not a split"):
        read_split(tmp_path / "a.json")


FAMILIES = {"01": "a", "02": "a", "03": "b", "04": "c"}


def test_groups_and_shared_people_come_back(tmp_path: Path) -> None:
    for split in (
        dataclasses.replace(UPSTREAM, groups=FAMILIES, shared={"task": ("01",)}),
        dataclasses.replace(DOWNSTREAM, groups=FAMILIES),
    ):
        write_split(tmp_path / "a.json", split)
        assert read_split(tmp_path / "a.json") == split


def test_relatives_on_two_sides_are_named(tmp_path: Path) -> None:
    wrong = {**FAMILIES, "03": "a"}
    with pytest.raises(InputError) as caught:
        check_disjoint(dataclasses.replace(UPSTREAM, groups=wrong))
    (problem,) = caught.value.problems
    assert problem.entity == "group a"
    assert problem.message == "03 in validation and 01, 02 in train belong together"
    # 02 validates and trains, 03 tests, in both draws.
    with pytest.raises(InputError, match="n 2, draw 1: 03 in test and 01 in validation belong together") as caught:
        check_disjoint(dataclasses.replace(DOWNSTREAM, groups=wrong))
    assert len(caught.value.problems) == 4


def test_relatives_may_train_and_validate_a_decoder() -> None:
    check_disjoint(dataclasses.replace(DOWNSTREAM, groups=FAMILIES))


@pytest.mark.parametrize(
    ("groups", "message"),
    [({"01": "a"}, "02: n 2, draw 0: has no group"), ({"01": 1}, "in quotes"), (["01"], "not a split")],
)
def test_groups_that_are_none_are_an_input_error(tmp_path: Path, groups: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_split(edit(tmp_path / "a.json", lambda content: content.update(groups=groups)))


REST = dataclasses.replace(UPSTREAM, source="us")
TASK = UpstreamSplit("task", 1, train=("01", "03", "05"), validation=("02",), source="us")


def test_who_validates_in_one_dataset_trains_in_no_other_of_the_source(caplog: pytest.LogCaptureFixture) -> None:
    rest, task = kept_apart([REST, TASK])
    assert (rest.train, rest.validation) == (("01",), ("03",))
    assert (task.train, task.validation) == (("01", "05"), ("02",))
    assert kept_apart([TASK, REST]) == [task, rest]
    assert "rest: nothing is learned from 1 of its people" in caplog.text


@pytest.mark.parametrize("source", [None, "others"])
def test_people_of_other_sources_are_others(source: str | None) -> None:
    other = dataclasses.replace(TASK, source=source)
    assert kept_apart([REST, other]) == [REST, other]
    # Nothing is said about the source of either.
    assert kept_apart([UPSTREAM, dataclasses.replace(TASK, source=None)])[0] == UPSTREAM


def test_relatives_of_who_validates_elsewhere_do_not_train() -> None:
    # 02 validates the task; 01 is of the same family, and is there in rest alone.
    families = {"01": "a", "02": "a", "03": "b", "05": "c"}
    rest, task = kept_apart(
        [
            dataclasses.replace(REST, train=("01", "02", "05"), groups=families),
            dataclasses.replace(TASK, groups=families),
        ]
    )
    assert (rest.train, task.train) == (("05",), ("05",))
    task = kept_apart([REST, dataclasses.replace(TASK, groups=families)])[1]
    assert task.train == ("05",)


def test_a_dataset_may_only_validate_but_somebody_has_to_train() -> None:
    single = UpstreamSplit("task", 1, train=("03",), validation=(), source="us")
    assert [split.train for split in kept_apart([REST, single])] == [("01", "02"), ()]
    assert single.share(0.5) == ("03",)
    assert kept_apart([REST, single])[1].share(0.5) == ()
    swapped = [
        UpstreamSplit(name, 1, train=(one,), validation=(other,), source="us")
        for name, one, other in (("rest", "01", "02"), ("task", "02", "01"))
    ]
    with pytest.raises(InputError, match=r"(?s)nobody is left to train.*validation_fraction"):
        kept_apart(swapped)
