"""Events to trials."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from boldly.config import RestOptions, TaskOptions
from boldly.records import Event, InputError, Trial
from boldly.signals.events import events_of_run, read_events, rest_blocks
from boldly.signals.trials import RunEvents, place, problems_of, resembling, trials_of
from tests.hcp_tree import preset

# Tasks of the two sets of the multi-domain task battery (King et al., 2019), as its events name them.
MDTB_SETS = (
    "GoNoGo ToM actionObservation affective arithmetic checkerBoard emotional intervalTiming motorImagery "
    "motorSequence nBack nBackPic spatialNavigation stroop verbGeneration visualSearch rest",
    "CPRO prediction verbGeneration2 spatialNavigation2 spatialMap natureMovie romanceMovie landscapeMovie "
    "motorSequence2 mentalRotation nBackPic2 emotionProcess respAlt visualSearch2 ToM2 actionObservation2 rest2",
)


def events(*rows: tuple[float, float, str | None], column: str = "trial_type") -> pd.DataFrame:
    return pd.DataFrame(list(rows), columns=["onset", "duration", column])


def trials(
    table: pd.DataFrame,
    *,
    t_r: float = 1.0,
    n_volumes: int = 1000,
    start_time: float = 0.0,
    labels: list[str] | None = None,
    **task: Any,
) -> list[Trial]:
    run = RunEvents(table, "ds-x_sub-1_task-t", "MOTOR", t_r, n_volumes, start_time)
    options = TaskOptions(labels=labels, **task)
    found = place(run, options)
    if problems := problems_of(run, found, options):
        raise InputError(problems)
    return trials_of(found, labels or sorted({event.label for event in found if event.status == "ok"}))


def rows(table: pd.DataFrame, *, t_r: float = 1.0, n_volumes: int = 100, **task: Any) -> list[Event]:
    return place(RunEvents(table, "ds-x_sub-1_task-t", "MOTOR", t_r, n_volumes), TaskOptions(**task))


def spans(found: list[Trial]) -> list[tuple[str, int, int]]:
    return [(trial.label_name, trial.first, trial.stop) for trial in found]


def test_blanks_around_a_name_are_no_part_of_it() -> None:
    table = events((0, 5, "rest "), (10, 5, " face"), (20, 5, "  "), (30, 5, "n/a "))
    found = rows(table, drop=["^rest$"])
    assert [event.status for event in found].count("ok") == 1
    assert [event.reason for event in found] == ["dropped: matches '^rest$'", "", "no state: n/a", "no state: n/a"]
    assert found[1].label == "face"


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

    def test_frames_lie_where_slice_timing_was_corrected_to(self):
        # Frames at 0.9, 2.9, 4.9, 6.9 s: 2.5 <= t < 6.5 holds for frames 1 and 2, not 2 and 3 as without.
        assert spans(trials(events((2.5, 4, "a")), t_r=2.0, start_time=0.9)) == [("a", 1, 3)]
        assert spans(trials(events((2.5, 4, "a")), t_r=2.0)) == [("a", 2, 4)]

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


class TestRows:
    """What the table of trials says of each event."""

    def test_every_row_stands_there_with_what_became_of_it(self):
        table = events(
            (0, 5, "a"), (10, 5, "cue"), (20, 5, None), (30, 0, "press"), (40, 1, "a"), (95, 10, "b"),
            (99, 9, "b"), (200, 5, "a"),
        )  # fmt: skip
        found = rows(table, drop=["cue"])
        assert [(row.event, row.label, row.trial, row.n_frames) for row in found] == [
            ("a", "a", 0, 5), ("cue", "", None, 0), ("", "", None, 0), ("press", "press", None, 0),
            ("a", "a", None, 1), ("b", "b", 1, 5), ("b", "b", None, 1), ("a", "a", None, 0),
        ]  # fmt: skip
        assert [row.status for row in found] == ["ok", *["excluded"] * 4, "ok", "excluded", "excluded"]
        assert [row.reason for row in found] == [
            "",
            "dropped: matches 'cue'",
            "no state: n/a",
            "no duration: 0 s, so no frame; give window_s for brief events",
            "too few frames: 1 of at least 2",
            "cut by the end of the run: 5 of 10 frames",
            "cut by the end of the run: 1 of 9 frames, at least 2 needed",
            "outside the run: frames from 200 to 205 s, the run lasts until 100 s",
        ]

    def test_brief_stimuli_between_frames_do_not_vanish(self):
        # 2 s at 1.5 s per frame: one or two frames, by where the onset falls.
        found = rows(events(*((7.0 * i, 2, "a") for i in range(9))), t_r=1.5)
        kept = [row for row in found if row.trial is not None]
        # Two frames where the onset lies less than 0.5 s before a frame: at 0, 21 and 42 s.
        assert (len(found), len(kept)) == (9, 3)
        assert {row.reason for row in found if row.trial is None} == {"too few frames: 1 of at least 2"}
        assert [row.n_frames for row in kept] == [2] * len(kept)

    def test_rows_of_one_block_share_its_trial_and_frames(self):
        found = rows(events((0, 5, "a"), (5, 5, "a"), (10, 5, "b")), merge_blocks=True)
        assert [(row.onset, row.duration, row.trial, row.first, row.stop) for row in found] == [
            (0, 5, 0, 0, 10), (5, 5, 0, 0, 10), (10, 5, 1, 10, 15),
        ]  # fmt: skip


class TestWindow:
    """Event-related designs: frames a fixed time after the onset."""

    def test_a_window_after_the_onset_gives_all_events_the_same_length(self):
        # Frames at 0, 2, 4 ... s; from 4 to 10 s after the onset there are three.
        found = trials(events((0, 0, "a"), (20, 1.5, "b"), (41, 30, "a")), t_r=2.0, window_s=(4, 10))
        assert spans(found) == [("a", 2, 5), ("b", 12, 15), ("a", 23, 26)]

    def test_a_duration_is_not_needed(self):
        table = events((0, float("nan"), "a"))
        assert spans(trials(table, window_s=(4, 10))) == [("a", 4, 10)]

    def test_a_minimum_of_frames_leaves_out_what_the_run_cuts(self):
        table = events((0, 1, "a"), (88, 1, "a"), (91, 1, "b"), (95, 1, "a"))
        # The run ends at 100 s: 4 to 10 s after 91 s are 5 frames, after 95 s one.
        found = rows(table, window_s=(4, 10), minimum_frames=6)
        assert [(row.n_frames, row.trial) for row in found] == [(6, 0), (6, 1), (5, None), (1, None)]

    def test_an_average_needs_a_single_frame(self):
        table = events((0, 1, "a"), (10, 1, "b"))
        assert trials(table, t_r=2.0) == []
        assert spans(trials(table, t_r=2.0, average=True)) == [("a", 0, 1), ("b", 5, 6)]


class TestOverlaps:
    table = events((0, 10, "a"), (8, 10, "b"), (30, 10, "a"), (35, 10, "a"))

    def test_trials_of_two_states_that_share_frames_need_a_decision(self):
        with pytest.raises(InputError, match=r"2 events share frames .* 'a' at 0 s shares frames with 'b' at 8 s"):
            trials(self.table)

    def test_both_can_be_left_out(self):
        found = rows(self.table, overlaps="drop")
        assert [row.trial for row in found] == [None, None, 0, 1]
        assert found[1].reason == "overlap: shares frames with 'a' at 0 s"

    def test_both_can_be_kept(self):
        assert [row.trial for row in rows(self.table, overlaps="allow")] == [0, 1, 2, 3]

    def test_events_that_touch_or_are_left_out_do_not_overlap(self):
        table = events((0, 10, "a"), (3, 0, "press"), (5, 3, "cue"), (10, 10, "b"))
        assert len(trials(table, drop=["cue"])) == 2

    def test_windows_overlap_by_their_frames_not_by_their_events(self):
        with pytest.raises(InputError, match="2 events share frames"):
            trials(events((0, 1, "a"), (5, 1, "b")), window_s=(4, 10))


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

    def test_an_unknown_state_that_resembles_a_label_is_told_so(self):
        with pytest.raises(InputError, match="'huose' resembles 'house'"):
            trials(events((0, 5, "huose")), labels=["face", "house"])
        assert resembling("Face_s", ["faces", "house"]) == ["faces"]
        assert resembling("a", ["b"]) == []

    def test_a_missing_column_is_an_error_that_names_those_found(self):
        with pytest.raises(InputError, match=r"no column 'state' \(found: onset, duration, trial_type\)"):
            trials(events((0, 5, "house")), column="state")

    def test_a_state_without_duration_is_an_error_unless_it_is_dropped(self):
        table = events((0, 5, "a"), (10, float("nan"), "cue"))
        with pytest.raises(InputError, match="'cue' at 10 s has no duration"):
            trials(table)
        assert spans(trials(table, drop=["cue"])) == [("a", 0, 5)]

    def test_labels_lend_their_upper_and_lower_case_to_states(self):
        names = ["motor lf", "Motor RH"]
        found = trials(events((0, 5, "LF"), (10, 5, "rh")), labels=names, prefix_task=True)
        assert [(trial.label, trial.label_name) for trial in found] == list(enumerate(names))

    def test_blanks_around_a_state_do_not_count(self):
        assert spans(trials(events((0, 5, "ToM2 ")), rename={"2$": ""})) == [("ToM", 0, 5)]


class TestPresets:
    def test_mdtb_gives_26_states_and_every_block_of_a_run(self):
        # As in the scanner: 5 s of instruction and 30 s of a task, in rows of 2 s; nothing after the last block.
        runs: list[RunEvents] = []
        for names in MDTB_SETS:
            rows: list[tuple[float, float, str | None]] = []
            for number, name in enumerate(names.split()):
                rows.append((35.0 * number, 5.0, "instruct"))
                rows += [(35.0 * number + 5 + 2 * i, 2.0, name) for i in range(15)]
            runs.append(RunEvents(events(*rows, column="taskName"), f"run-{len(runs)}", "a", 1.0, 601))
        task = preset("mdtb")
        labels = sorted({event.label for run in runs for event in place(run, task) if event.status == "ok"})
        assert len(labels) == 26
        assert labels == sorted({name.removesuffix("2") for names in MDTB_SETS for name in names.split()})
        for run, names in zip(runs, MDTB_SETS, strict=True):
            found = trials_of(place(run, task), labels)
            assert [trial.label_name for trial in found] == [name.removesuffix("2") for name in names.split()]
            assert {(trial.duration, trial.first - trial.onset) for trial in found} == {(30.0, 3.0)}
            # The last block goes from 565 + 3 s to the end of the run at 598 of 601 s.
            assert (found[-1].first, found[-1].stop) == (568, 598)

    def test_hcp_has_20_states_and_leaves_out_single_events(self):
        task = preset("hcp")
        assert task.labels is not None
        assert len(set(task.labels)) == 20
        rows = [(0.0, 27.0, "0bk_body"), (1.0, 2.0, "0bk_cor"), (30.0, 2.5, "cue"), (33.0, 27.0, "2bk_body")]
        found = trials_of(place(RunEvents(events(*rows), "r", "WM", 0.72, 405), task), task.labels)
        # 2.88 s are 4 frames; 33 + 2.88 s lie between frames 49 and 50.
        assert [(t.label_name, t.label, t.first) for t in found] == [("WM body", 15, 4), ("WM body", 15, 50)]


class TestRest:
    rest = RestOptions(state="REST rest", blocks=8, seed=7)

    def blocks(self, key: str = "run-1", duration_s: float = 864.0, **changes: Any) -> pd.DataFrame:
        rest = self.rest.model_copy(update=changes)
        return rest_blocks(rest, run_key=key, duration_s=duration_s, column="trial_type")

    def test_blocks_lie_apart_inside_the_run_and_have_the_lengths_asked_for(self):
        for number in range(50):
            # At most 8 x 50 s fit into 400 s.
            table = self.blocks(f"run-{number}", duration_s=400.0)
            ends = table["onset"] + table["duration"]
            assert len(table) == 8
            assert table["duration"].between(10, 50).all()
            assert table["onset"].iloc[0] >= 0
            assert ends.iloc[-1] <= 400 + 1e-9
            assert (table["onset"].iloc[1:].to_numpy() >= ends.iloc[:-1].to_numpy() - 1e-9).all()

    def test_blocks_depend_on_seed_and_run_alone(self):
        assert self.blocks().equals(self.blocks())
        assert not self.blocks().equals(self.blocks(seed=8))
        assert not self.blocks().equals(self.blocks("run-2"))

    def test_the_blocks_of_a_seed_stay_what_they_are(self):
        # Other blocks would be other data: a change needs a new revision of stage shard.
        table = self.blocks(blocks=2)
        assert table["onset"].tolist() == [214.922, 733.407]
        assert table["duration"].tolist() == [32.322, 12.086]

    def test_blocks_fall_anywhere_in_the_run(self):
        onsets = pd.concat([self.blocks(f"run-{n}", blocks=1)["onset"] for n in range(300)])
        # Uniform up to 864 less 30 s on average: the mean is 417 s, its standard error 14 s.
        assert onsets.mean() == pytest.approx(417, abs=60)
        assert onsets.min() < 30
        assert onsets.max() > 780

    def test_fewer_blocks_where_they_do_not_fit(self):
        assert 1 <= len(self.blocks(duration_s=80.0)) < 8
        assert self.blocks(duration_s=9.0).empty

    def test_rest_runs_need_no_events_and_their_blocks_are_never_merged_or_renamed(self):
        task = TaskOptions(
            rest=self.rest, merge_blocks=True, prefix_task=True, drop=["rest"], rename={"rest": "x"}, delay_s=3.0
        )
        known: dict[str, Any] = {"run_key": "r", "bids_task": "REST", "t_r": 0.72, "n_volumes": 1200}
        table = events_of_run(None, task, **known)
        found = trials_of(place(RunEvents(table, *known.values()), task), ["REST rest"])
        assert len(found) == 8
        # Whole blocks: the last one ends before the run does, delay included.
        assert all(trial.stop - trial.first >= trial.duration / 0.72 - 1 for trial in found)

    def test_task_runs_beside_rest_runs_need_their_events(self):
        with pytest.raises(InputError, match="no events table in the run table"):
            events_of_run(None, TaskOptions(rest=self.rest), run_key="r", bids_task="WM", t_r=1.0, n_volumes=9)


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

    def test_commas_and_other_columns_are_read(self, tmp_path):
        path = tmp_path / "sub-1_task-t_events.csv"
        path.write_text("start,stop,mental_state\n9,12,b\n2.5,4,a\n")
        table = read_events(path, TaskOptions(column="mental_state", onset_column="start", end_column="stop"))
        assert list(table["onset"]) == [2.5, 9.0]
        assert list(table["duration"]) == [1.5, 3.0]
        assert list(table["mental_state"]) == ["a", "b"]
        with pytest.raises(InputError, match=r"no column onset, duration \(found: start, stop, mental_state\)"):
            read_events(path)

    def test_an_end_before_its_onset_is_an_error(self, tmp_path):
        path = self.write(tmp_path, "onset\tend\n0\t1\n5\t4\n")
        with pytest.raises(InputError, match="row 2: end is '4'"):
            read_events(path, TaskOptions(end_column="end"))

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
