"""Events to trials."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from boldly.config import TaskOptions
from boldly.records import InputError, Trial
from boldly.signals.trials import RunEvents, label_names, read_events, trials_of_run


def events(*rows: tuple[float, float, str | None], column: str = "trial_type") -> pd.DataFrame:
    return pd.DataFrame(list(rows), columns=["onset", "duration", column])


def trials(
    table: pd.DataFrame, *, t_r: float = 1.0, n_volumes: int = 1000, labels: list[str] | None = None, **task: Any
) -> list[Trial]:
    options = TaskOptions(**task)
    run = RunEvents(table, "ds-x_sub-1_task-t", "MOTOR", t_r, n_volumes)
    return trials_of_run(
        table,
        options,
        run_key=run.run_key,
        bids_task=run.bids_task,
        labels=label_names([run], options) if labels is None else labels,
        t_r=t_r,
        n_volumes=n_volumes,
    )


def spans(found: list[Trial]) -> list[tuple[str, int, int]]:
    return [(trial.label_name, trial.first, trial.stop) for trial in found]


class TestFrames:
    def test_frames_from_onset_up_to_but_not_at_the_end_belong_to_the_trial(self):
        # Frames at 0, 2, 4, 6, 8 s; 4 <= t < 8 holds for frames 2 and 3.
        assert spans(trials(events((4, 4, "a")), t_r=2.0)) == [("a", 2, 4)]

    def test_an_onset_between_frames_begins_with_the_next_frame(self):
        # 3.1 <= t < 8.1: frames at 4, 6, 8 s.
        assert spans(trials(events((3.1, 5, "a")), t_r=2.0)) == [("a", 2, 5)]

    def test_the_delay_moves_both_ends(self):
        # 3 TR of 1 s, as LfB used for MDTB: 13 <= t < 23.
        assert spans(trials(events((10, 10, "a")), delay_s=3.0)) == [("a", 13, 23)]

    @pytest.mark.parametrize("frame", [3, 7, 41, 250, 333])
    @pytest.mark.parametrize("t_r", [0.72, 0.1 + 0.2, 2.4])
    def test_float_rounding_does_not_move_an_onset_that_lies_on_a_frame(self, t_r, frame):
        # 0.72 * 41 / 0.72 is not 41 in floating point; nor are seconds rounded in a text file.
        onset = round(frame * t_r, 10)
        assert spans(trials(events((onset, 10 * t_r, "a")), t_r=t_r)) == [("a", frame, frame + 10)]

    def test_trials_are_clipped_to_the_run(self):
        found = trials(events((-3, 6, "a"), (95, 20, "b")), n_volumes=100)
        assert spans(found) == [("a", 0, 3), ("b", 95, 100)]

    def test_trials_with_fewer_than_two_frames_in_the_run_are_left_out(self):
        found = trials(events((0, 1, "one"), (10, 2, "two"), (99, 10, "late"), (200, 10, "after")), n_volumes=100)
        assert spans(found) == [("two", 10, 12)]

    def test_numbers_count_the_trials_that_are_kept(self):
        found = trials(events((0, 0, "a"), (10, 5, "b"), (20, 5, "a")))
        assert [(trial.number, trial.onset, trial.duration) for trial in found] == [(0, 10, 5), (1, 20, 5)]

    def test_short_trials_are_left_out_by_their_duration_in_the_table(self):
        # The last one is long enough although the run cuts it.
        found = trials(events((0, 4.9, "a"), (10, 5, "b"), (97, 8, "c")), n_volumes=100, minimum_s=5)
        assert [trial.label_name for trial in found] == ["b", "c"]


class TestBlocks:
    rows = (
        (0.0, 5.0, "instruct"),
        (5.0, 15.0, "nBack"),
        (20.0, 15.0, "nBack"),
        (35.0, 5.0, "instruct"),
        (40.0, 15.0, "nBack2"),
        (55.0, 10.0, "rest"),
        (65.0, 15.0, "theory2"),
        (80.0, 20.0, "theory"),
    )

    def test_without_merging_each_row_is_a_trial(self):
        assert len(trials(events(*self.rows), drop=["instruct"])) == 6

    def test_a_block_spans_from_its_first_onset_to_the_end_of_its_last_row(self):
        found = trials(events(*self.rows), drop=["instruct"], merge_blocks=True)
        assert (found[0].label_name, found[0].onset, found[0].duration) == ("nBack", 5, 30)

    def test_a_dropped_row_ends_a_block(self):
        found = trials(events(*self.rows), drop=["instruct"], rename={"2$": ""}, merge_blocks=True)
        assert spans(found)[:2] == [("nBack", 5, 35), ("nBack", 40, 55)]

    def test_a_row_without_a_state_ends_a_block(self):
        found = trials(events((0, 5, "a"), (5, 5, None), (10, 5, "a")), merge_blocks=True)
        assert spans(found) == [("a", 0, 5), ("a", 10, 15)]

    def test_the_last_block_of_a_run_is_kept(self):
        # Defect 8.7 of the reference system.
        found = trials(events(*self.rows), drop=["instruct"], rename={"2$": ""}, merge_blocks=True)
        assert spans(found)[-1] == ("theory", 65, 100)

    def test_a_block_whose_rows_differ_only_by_a_trailing_2_is_one(self):
        # Defect 8.7: names are cut before rows are compared, so the block is not split at the change of spelling.
        found = trials(events(*self.rows), drop=["instruct"], rename={"2$": ""}, merge_blocks=True)
        assert [trial.label_name for trial in found] == ["nBack", "nBack", "rest", "theory"]

    def test_a_row_inside_a_longer_one_does_not_shorten_the_block(self):
        assert spans(trials(events((0, 20, "a"), (5, 5, "a")), merge_blocks=True)) == [("a", 0, 20)]

    def test_a_run_without_rows_has_no_trials(self):
        assert trials(events()) == []


class TestNames:
    def test_labels_are_numbered_alphabetically(self):
        found = trials(events((0, 5, "house"), (10, 5, "face"), (20, 5, "shoe")))
        assert [trial.label for trial in found] == [1, 0, 2]

    def test_fixed_labels_give_the_order(self):
        found = trials(events((0, 5, "house"), (10, 5, "face")), labels=["shoe", "house", "face"])
        assert [trial.label for trial in found] == [1, 2]

    def test_label_names_are_those_of_all_runs(self):
        runs = [RunEvents(events((0, 5, name)), f"run-{name}", "t", 1.0, 100) for name in "cab"]
        assert label_names(runs, TaskOptions()) == ["a", "b", "c"]

    def test_a_state_without_any_trial_is_no_label(self):
        run = RunEvents(events((0, 5, "a"), (3, 0, "button press")), "r", "t", 1.0, 100)
        assert label_names([run], TaskOptions()) == ["a"]

    def test_names_are_dropped_by_search_and_before_renaming(self):
        found = trials(events((0, 5, "cue_lf"), (10, 5, "lf")), drop=["cue"], rename={"^cue_": ""})
        assert spans(found) == [("lf", 10, 15)]

    def test_renames_are_applied_in_order(self):
        found = trials(events((0, 5, "0bk_body"), (10, 5, "2bk_body")), rename={"^[02]bk_": "WM_", "^WM_": ""})
        assert {trial.label_name for trial in found} == {"body"}

    def test_the_bids_task_may_stand_before_the_name(self):
        assert trials(events((0, 5, "lf")), prefix_task=True)[0].label_name == "MOTOR lf"

    def test_another_column_may_name_the_states(self):
        assert spans(trials(events((0, 5, "a"), column="taskName"), column="taskName")) == [("a", 0, 5)]

    def test_a_state_outside_the_labels_is_an_error_that_names_both(self):
        with pytest.raises(InputError, match=r"states outside the labels: house \(labels: face\)"):
            trials(events((0, 5, "house")), labels=["face"])

    def test_a_missing_column_is_an_error_that_names_those_found(self):
        with pytest.raises(InputError, match=r"no column 'state' \(found: onset, duration, trial_type\)"):
            trials(events((0, 5, "house")), column="state")

    def test_a_state_without_duration_is_an_error_unless_it_is_dropped(self):
        table = events((0, 5, "a"), (10, float("nan"), "cue"))
        with pytest.raises(InputError, match="'cue' at 10 s has no duration"):
            trials(table)
        assert spans(trials(table, drop=["cue"])) == [("a", 0, 5)]


class TestReadEvents:
    def write(self, folder: Path, text: str) -> Path:
        path = folder / "sub-1_task-t_events.tsv"
        path.write_text(text)
        return path

    def test_rows_come_sorted_by_onset(self, tmp_path):
        table = read_events(self.write(tmp_path, "onset\tduration\ttrial_type\n9\t1\tb\n2.5\t1\ta\n"))
        assert list(table["onset"]) == [2.5, 9.0]
        assert list(table["trial_type"]) == ["a", "b"]

    def test_numbers_that_name_states_stay_text(self, tmp_path):
        table = read_events(self.write(tmp_path, "onset\tduration\ttrial_type\n0\t1\t01\n5\tn/a\tn/a\n"))
        assert table["trial_type"][0] == "01"
        assert pd.isna(table["trial_type"][1])
        assert pd.isna(table["duration"][1])

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "empty"),
            ("onset\ttrial_type\n0\ta\n", r"no column duration \(found: onset, trial_type\)"),
            ("onset,duration,trial_type\n0,1,a\n", "no column onset, duration"),
            ("onset\tduration\nsoon\t1\n", "row 1: onset is 'soon'"),
            ("onset\tduration\n0\t1\nn/a\t1\n", "row 2: onset is n/a"),
            ("onset\tduration\n0\t-1\n", "row 1: duration is '-1'"),
            ("onset\tduration\n0\tinf\n", "row 1: duration is 'inf'"),
            ("onset\tduration\n0\t1\t2\t3\n\t\t\t\t\t1\n", "not a readable events table"),
        ],
    )
    def test_a_defective_table_is_an_error_that_names_the_file(self, tmp_path, text, message):
        path = self.write(tmp_path, text)
        with pytest.raises(InputError, match=message) as caught:
            read_events(path)
        assert caught.value.problems[0].where == str(path)

    def test_a_missing_or_binary_file_is_an_error(self, tmp_path):
        with pytest.raises(InputError, match="no such file"):
            read_events(tmp_path / "absent_events.tsv")
        path = tmp_path / "binary_events.tsv"
        path.write_bytes(b"\x1f\x8b\xff\xfe\x00")
        with pytest.raises(InputError):
            read_events(path)
