"""Run and score tables, and the error that carries all problems."""

from __future__ import annotations

import dataclasses
import math
import pickle
from pathlib import Path
from typing import Any

from boldly.records import (
    InputError,
    Problem,
    Run,
    Score,
    read_runs,
    read_scores,
    write_runs,
    write_scores,
)


def record(key: str = "ds-toy_sub-01_task-a_run-1", **changes: Any) -> Run:
    fields: dict[str, Any] = {
        "dataset": "toy",
        "subject": "01",
        "session": "",
        "task": "a",
        "acquisition": "",
        "direction": "",
        "run": "01",
        "space": "T1w",
        "key": key,
        "bold": "a b/bold.nii.gz",
        "mask": "",
        "confounds": "",
        "events": "",
        "t_r": 0.72,
        "n_volumes": 40,
    }
    return Run(**(fields | changes))


def test_runs_come_back_sorted_by_key_with_their_spelling(tmp_path: Path) -> None:
    runs = [
        record("ds-toy_sub-NA_task-a", subject="NA", task="1e5", run=""),
        record(),
        record("ds-toy_sub-01_task-b", status="excluded", reason="10 volumes,\tfewer than 20"),
        record("ds-toy_sub-01_task-c", t_r=math.nan, n_volumes=0, status="error", reason='"quoted"'),
    ]
    write_runs(tmp_path / "runs.tsv", runs)
    found = read_runs(tmp_path / "runs.tsv")
    assert [item.key for item in found] == sorted(item.key for item in runs)
    by_key = {item.key: item for item in found}
    for item in runs:
        if not math.isnan(item.t_r):
            assert by_key[item.key] == item
    assert math.isnan(by_key["ds-toy_sub-01_task-c"].t_r)
    assert by_key["ds-toy_sub-01_task-c"].reason == '"quoted"'


def test_runs_can_be_chosen_by_subject_and_use(tmp_path: Path) -> None:
    runs = [
        record("a"),
        record("b", subject="1"),
        record("c", status="excluded", reason="short"),
        record("d", status="error", reason="empty"),
    ]
    write_runs(tmp_path / "runs.tsv", runs)
    # "01" and "1" are two people.
    assert [item.key for item in read_runs(tmp_path / "runs.tsv", subject="01")] == ["a", "c", "d"]
    assert [item.key for item in read_runs(tmp_path / "runs.tsv", subject="1")] == ["b"]
    assert [item.key for item in read_runs(tmp_path / "runs.tsv", usable=True)] == ["a", "b"]


def test_an_empty_run_table_is_a_table(tmp_path: Path) -> None:
    write_runs(tmp_path / "runs.tsv", [])
    assert read_runs(tmp_path / "runs.tsv") == []


def test_the_order_of_runs_does_not_change_the_bytes(tmp_path: Path) -> None:
    runs = [record(key) for key in "cab"]
    write_runs(tmp_path / "a.tsv", runs)
    write_runs(tmp_path / "b.tsv", runs[::-1])
    assert (tmp_path / "a.tsv").read_bytes() == (tmp_path / "b.tsv").read_bytes()


def test_scores_come_back_with_names_as_text(tmp_path: Path) -> None:
    score = Score("toy", "01", 3, "0", "1234", "007", "accuracy", 0.5, 0.4, 0.6, 100, "scratch")
    overall = dataclasses.replace(score, draw="all", seed="all", subject="all", ci_low=math.nan, ci_high=math.nan)
    write_scores(tmp_path / "scores.tsv", [score, overall])
    table = read_scores(tmp_path / "scores.tsv")
    assert list(table.columns) == [field.name for field in dataclasses.fields(Score)]
    assert tuple(table.iloc[0]) == dataclasses.astuple(score)
    assert table["subject"].tolist() == ["007", "all"]
    assert table["ci_low"].isna().tolist() == [False, True]


def test_an_error_shows_every_problem_with_file_entity_and_way_out() -> None:
    problems = [
        Problem("a.tsv", "sub-01", "no column 'csf'", "drop wm_csf"),
        Problem("b.nii.gz", "", "is empty", "fetch it again"),
    ]
    error = InputError(problems)
    assert error.problems == problems
    for problem in problems:
        assert problem.where in str(error)
        assert problem.message in str(error)
        assert problem.remedy in str(error)
    assert str(error).startswith("sub-01: no column 'csf'")
    assert InputError(problems[0]).problems == problems[:1]


def test_an_error_comes_back_whole_from_another_process() -> None:
    error = InputError([Problem("a.tsv", "sub-01", "wrong", "right it"), Problem("b.tsv", "", "cut", "copy it")])
    found = pickle.loads(pickle.dumps(error))
    assert found.problems == error.problems
    assert str(found) == str(error)


class TestTerminal:
    def problem(self, entity: str, message: str = "no mask", remedy: str = "copy it") -> Problem:
        return Problem(f"{entity}.nii.gz", entity, message, remedy)

    def test_runs_with_the_same_problem_stand_together(self):
        error = InputError([*(self.problem(f"sub-{n:02d}") for n in range(25)), self.problem("sub-99", "cut")])
        lines = error.for_terminal().splitlines()
        assert lines[:3] == ["26 problems with the input", "- 25 times: no mask", "    sub-00"]
        # 20 of the 25 by name.
        assert lines[21:25] == [
            "    sub-19",
            "    and 5 more",
            "    first file: sub-00.nii.gz",
            "    way out: copy it",
        ]
        assert lines[25] == "- sub-99: cut"

    def test_two_are_told_one_by_one(self):
        assert InputError([self.problem("a"), self.problem("b")]).for_terminal().count("way out: copy it") == 2

    def test_how_runs_are_excluded_is_said_where_it_is_a_way_out(self):
        assert "exclude_runs" not in InputError(self.problem("a")).for_terminal()
        assert "exclude_runs" in InputError(self.problem("a", remedy="exclude the run")).for_terminal()

    def test_the_table_of_all_problems_is_named_also_after_another_process(self, tmp_path):
        error = pickle.loads(
            pickle.dumps(InputError([self.problem("a"), self.problem("b")], tmp_path / "x_problems.tsv"))
        )
        assert str(tmp_path / "x_problems.tsv") in error.for_terminal()
