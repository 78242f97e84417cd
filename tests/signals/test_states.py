"""What index says of the trials of a dataset."""

from __future__ import annotations

from typing import Any

from boldly.config import TaskOptions
from boldly.records import Event
from boldly.signals.states import count_states, summary

PEOPLE = 8


def event(subject: int, label: str, trial: int | None, reason: str = "", **changes: Any) -> Event:
    fields: dict[str, Any] = {
        "key": f"ds-x_sub-{subject}_task-a",
        "subject": str(subject),
        "event": label,
        "label": label,
        "onset": 10.0 * (trial or 0),
        "duration": 5.0,
        "trial": trial,
        "first": 0,
        "stop": 5,
        "n_frames": 5,
        "t_r": 1.0,
        "status": "ok" if trial is not None else "excluded",
        "reason": reason,
    }
    return Event(**(fields | changes))


def dataset() -> list[Event]:
    """Return 10 trials of two states of 8 people each, one of whom misspells five of one state."""
    events = []
    for subject in range(PEOPLE):
        for trial in range(10):
            label = "house" if trial % 2 else "face"
            if subject == 3 and label == "house":
                label = "huose"
            events.append(event(subject, label, trial))
    return events


def test_trials_are_counted_by_state_run_and_person() -> None:
    face, house, wrong = count_states(dataset())
    assert (face.name, face.n_trials, face.per_run, face.per_person, face.n_people) == (
        "face",
        40,
        (5, 5),
        (5, 5),
        8,
    )
    assert (house.n_trials, house.per_person, house.n_people) == (35, (0, 5), 7)
    assert (wrong.n_trials, wrong.per_person, wrong.n_people) == (5, (0, 5), 1)


def test_a_rare_state_is_flagged_with_the_one_it_resembles() -> None:
    states = {state.name: (state.is_rare, state.resembles) for state in count_states(dataset())}
    assert states == {"face": (False, ""), "house": (False, ""), "huose": (True, "house")}
    text = "\n".join(summary("x", dataset(), TaskOptions(delay_s=5)))
    assert "rare: 'huose', 5 trials of 1 person; misspelt for 'house'?" in text
    assert 'labels: ["face", "house"]' in text
    assert "delay_s" not in text


def test_states_of_a_balanced_dataset_are_not_rare() -> None:
    # One person; states of which others have up to three times as many.
    events = [event(1, name, number) for number, name in enumerate("aabbbbcccccc")]
    assert [state.is_rare for state in count_states(events)] == [False] * 3


def test_names_that_differ_in_case_or_blanks_alone_are_named() -> None:
    events = [
        event(1, name, number) for number, name in enumerate(["Face A", "face_a", "face_a", "house", "house"])
    ]
    assert [(state.name, state.resembles) for state in count_states(events)] == [
        ("Face A", "face_a"), ("face_a", ""), ("house", ""),
    ]  # fmt: skip
    assert any(line.startswith("  alike: 'Face A'") for line in summary("x", events, TaskOptions()))


def test_rows_of_one_block_are_one_trial() -> None:
    events = [event(1, "a", 0), event(1, "a", 0, onset=5.0), event(1, "b", 1)]
    assert [state.n_trials for state in count_states(events)] == [1, 1]


def test_what_was_left_out_is_named_with_its_reason() -> None:
    events = [
        *dataset(),
        *(event(1, "press", None, "no duration: 0 s") for _ in range(466)),
        event(1, "face", None, "too few frames: 1 of at least 2"),
        event(1, "face", 11, "cut by the end of the run: 4 of 6 frames"),
    ]
    text = "\n".join(summary("x", events, TaskOptions(labels=["face", "house", "shoe"])))
    assert "466 events are no trials, no duration: press (466)" in text
    assert "1 event is no trial, too few frames: face (1)" in text
    assert "1 trial is cut by the end of the run" in text
    assert "window_s: [4, 10]" in text
    assert "no trial of shoe" in text
    assert "the task has no delay_s" in text


def test_trials_shorter_than_any_pretraining_window_are_told() -> None:
    def said(shortest: int, **task: Any) -> list[str]:
        lines = summary("x", dataset(), TaskOptions(delay_s=5, **task), shortest)
        return [line for line in lines if "shortest window" in line]

    (line,) = said(10)
    assert line.strip().startswith("80 of 80 trials have 5 frames, fewer than the shortest window")
    assert "window_frames to [5, ...]" in line
    # Trials of 5 frames are as long; the mean of a trial has no length.
    assert said(5) == said(10, average=True) == []


def test_an_interval_over_two_or_three_people_is_told_to_say_nothing() -> None:
    def said(n_people: int) -> list[str]:
        events = [event for event in dataset() if int(event.subject) < n_people]
        return [line for line in summary("x", events, TaskOptions(delay_s=5)) if "interval" in line]

    assert "3 people have trials: a 0.95 interval over 3 test people reaches 4.3" in said(3)[0]
    assert "12.7" in said(2)[0]
    assert said(1) == said(4) == []
