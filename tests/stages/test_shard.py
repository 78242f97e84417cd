"""Stage shard: time series and events become samples."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from boldly.config import ShardOptions, TaskOptions
from boldly.files import read_tsv
from boldly.records import InputError, Run, write_runs, write_trials
from boldly.samples.corpus import load_corpus
from boldly.samples.sample import Sample
from boldly.samples.shards import read_shard
from boldly.samples.timeseries import RunSeries, write_timeseries
from boldly.signals import resampling
from boldly.signals.confounds import Nuisance, write_nuisance
from boldly.signals.events import read_events
from boldly.signals.trials import RunEvents, place
from boldly.stages import shard
from tests.samples.examples import LABELS, N_PARCELS, contract, run_series

T_R = 2.0
KEYS = [f"ds-toy_sub-01_task-blocks_run-{number}" for number in (1, 2)]


@pytest.fixture
def events(tmp_path: Path) -> Path:
    """Return an events table: blocks of 10 s (5 frames) every 12 s from 4 s."""
    table = pd.DataFrame({"onset": [4.0, 16.0, 28.0], "duration": 10.0, "trial_type": LABELS})
    table.to_csv(tmp_path / "events.tsv", sep="\t", index=False)
    return tmp_path / "events.tsv"


def record(key: str, events: Path | str = "", start_time: float = 0.0) -> Run:
    number = key.rpartition("-")[2]
    return Run(
        dataset="toy",
        subject="01",
        session="",
        task="blocks",
        acquisition="",
        direction="",
        run=f"0{number}",
        space="T1w",
        key=key,
        bold="bold.nii.gz",
        mask="",
        confounds="",
        events=str(events),
        t_r=T_R,
        n_volumes=40,
        start_time=start_time,
    )


def moving(displacement_mm: np.ndarray) -> Nuisance:
    """Return what stage preprocess writes of a run that moves."""
    kept = np.ones(len(displacement_mm), bool)
    return Nuisance(kept, np.zeros((len(kept), 1)), ("csf",), displacement_mm=displacement_mm)


def run_stage(
    folder: Path,
    series: list[RunSeries],
    events: Path | str = "",
    *,
    name: str = "a.tar",
    start_time: float = 0.0,
    **changes: Any,
) -> list[Sample]:
    write_timeseries(folder / "sub-01_timeseries.safetensors", series, contract())
    write_runs(folder / "runs.tsv", [record(key, events, start_time) for key in KEYS])
    (folder / "labels.json").write_text(json.dumps({"labels": LABELS if events else []}))
    task = changes.get("task") or TaskOptions()
    t_r = changes.get("options", ShardOptions()).t_r_s or T_R
    n_volumes = len(resampling.positions(40, T_R, t_r))
    found = [
        place(RunEvents(read_events(Path(events)), key, "blocks", t_r, n_volumes, start_time), task)
        for key in KEYS
        if events
    ]
    write_trials(folder / "trials.tsv", [event for rows in found for event in rows])
    options: dict[str, Any] = {
        "timeseries": folder / "sub-01_timeseries.safetensors",
        "runs": folder / "runs.tsv",
        "subject": "01",
        "role": "downstream" if events else "upstream",
        "task": task if events else None,
        "trials": folder / "trials.tsv",
        "labels": folder / "labels.json",
        "options": ShardOptions(),
        "window_frames": 10,
        "output": folder / name,
    }
    shard.run(**(options | changes))
    return list(read_shard(folder / name))


def test_upstream_has_one_sample_for_each_run(tmp_path: Path) -> None:
    series = [run_series(key, seed=number, meta={"t_r": T_R, "marked": [3]}) for number, key in enumerate(KEYS)]
    samples = run_stage(tmp_path, series)
    assert [sample.key for sample in samples] == KEYS
    for sample, item in zip(samples, series, strict=True):
        assert sample.bold.dtype == np.float16
        # float16 has 11 significant bits.
        assert np.allclose(sample.bold, item.data, rtol=2**-11, atol=1e-6)
        assert np.array_equal(sample.mean, item.mean)
        assert sample.meta["marked"] == [3]
        assert sample.meta["entities"] == {"sub": "01", "task": "blocks", "run": f"0{sample.key[-1]}"}
        assert "label" not in sample.meta
        assert sample.contract == contract()


def test_runs_that_scrubbing_made_too_short_are_left_out_and_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        samples = run_stage(tmp_path, [run_series(KEYS[0], np.arange(9)), run_series(KEYS[1], np.arange(10))])
    assert [sample.key for sample in samples] == KEYS[1:]
    assert samples[0].meta["missing"] == 30
    assert f"{KEYS[0]}: left out, 9 frames without a gap where windows need 10" in caplog.text


def test_shards_number_their_frames_and_the_corpus_knows_the_gaps(tmp_path: Path) -> None:
    kept = [np.setdiff1d(np.arange(40), [0, 1, 17, 18]), np.arange(40)]
    samples = run_stage(tmp_path, [run_series(key, frames) for key, frames in zip(KEYS, kept, strict=True)])
    assert [sample.meta["frames"] for sample in samples] == [[[2, 17], [19, 40]], [[0, 40]]]
    corpus = load_corpus([tmp_path / "a.tar"])
    # Parcel 0 holds the number of the frame.
    assert corpus.numbers is not None
    assert np.array_equal(corpus.numbers, corpus.frames[:, 0])
    stretches = [part.tolist() for part in corpus.stretches]
    assert stretches == [[0, 15, 36], [15, 36, 76], [0, 0, 1]]
    # A choice of samples stays on the frames of all.
    assert [part.tolist() for part in corpus.select([1]).stretches] == [[36], [76], [0]]


def test_a_run_of_many_short_stretches_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        samples = run_stage(tmp_path, [run_series(KEYS[0], np.setdiff1d(np.arange(40), range(9, 40, 10)))])
    assert samples == []
    assert f"{KEYS[0]}: left out, 9 frames without a gap where windows need 10" in caplog.text


def test_downstream_has_one_sample_for_each_trial(tmp_path: Path, events: Path) -> None:
    samples = run_stage(tmp_path, [run_series(key) for key in KEYS], events)
    assert [sample.key for sample in samples] == [f"{key}_sample_{n:03d}" for key in KEYS for n in range(3)]
    assert [sample.meta["label_name"] for sample in samples] == LABELS * 2
    # Parcel 0 holds the number of the frame: 4 s to 14 s are frames 2 to 6.
    assert samples[0].bold[:, 0].tolist() == [2, 3, 4, 5, 6]
    expected = {
        "dataset": "toy",
        "subject": "01",
        "run_key": KEYS[0],
        "t_r": T_R,
        "n_volumes": 5,
        "missing": 0,
        "number": 1,
        "count": 3,
        "first": 8,
        "stop": 13,
        "label": 1,
        "labels": LABELS,
        "onset": 16.0,
        "duration": 10.0,
    }
    assert expected.items() <= samples[1].meta.items()


def test_the_delay_of_the_task_moves_the_frames(tmp_path: Path, events: Path) -> None:
    samples = run_stage(tmp_path, [run_series(KEYS[0])], events, task=TaskOptions(delay_s=4.0))
    assert samples[0].bold[:, 0].tolist() == [4, 5, 6, 7, 8]


def test_the_time_of_frame_0_moves_the_frames(tmp_path: Path, events: Path) -> None:
    samples = run_stage(tmp_path, [run_series(KEYS[0])], events, start_time=1.0)
    # Frames at 1, 3, 5 s: 4 <= t < 14 holds for frames 2 to 6, at 5 to 13 s; 16 to 26 for frames 8 to 12.
    assert [sample.bold[:, 0].tolist() for sample in samples[:2]] == [[2, 3, 4, 5, 6], [8, 9, 10, 11, 12]]
    samples = run_stage(tmp_path, [run_series(KEYS[0])], events, start_time=1.0, task=TaskOptions(delay_s=1.5))
    # From 5.5 s: frame 3 at 7 s, not frame 3 at 6 s.
    assert samples[0].bold[:, 0].tolist() == [3, 4, 5, 6, 7]


def test_scrubbed_frames_are_missing_from_trials_and_others_stay_in_place(tmp_path: Path, events: Path) -> None:
    kept = np.setdiff1d(np.arange(40), [0, 3, 9])
    samples = run_stage(tmp_path, [run_series(KEYS[0], kept)], events)
    assert [sample.bold[:, 0].tolist() for sample in samples] == [
        [2, 4, 5, 6],
        [8, 10, 11, 12],
        [14, 15, 16, 17, 18],
    ]
    assert [sample.meta["missing"] for sample in samples] == [1, 1, 0]
    assert [sample.meta["frames"] for sample in samples] == [[[2, 3], [4, 7]], [[8, 9], [10, 13]], [[14, 19]]]


def test_a_trial_with_fewer_than_two_frames_left_is_dropped_and_counted(
    tmp_path: Path, events: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept = np.setdiff1d(np.arange(40), [2, 3, 4, 5])
    with caplog.at_level(logging.INFO):
        samples = run_stage(tmp_path, [run_series(KEYS[0], kept)], events)
    # The others keep their numbers.
    assert [sample.key[-3:] for sample in samples] == ["001", "002"]
    assert "1 of 3 trials left out" in caplog.text


def test_frames_that_scrubbing_takes_do_not_count_for_the_minimum(tmp_path: Path, events: Path) -> None:
    kept = np.setdiff1d(np.arange(40), [2])
    task = TaskOptions(minimum_frames=5)
    samples = run_stage(tmp_path, [run_series(KEYS[0], kept)], events, task=task)
    # Each trial has 5 frames; the first lost one.
    assert [sample.meta["number"] for sample in samples] == [1, 2]


def test_the_number_of_trials_that_scrubbing_took_comes_back(tmp_path: Path, events: Path) -> None:
    series = [run_series(KEYS[0], np.setdiff1d(np.arange(40), [2, 3, 4, 5, 8, 9, 10, 11])), run_series(KEYS[1])]
    run_stage(tmp_path, series, events)
    names = ("timeseries", "trials", "labels", "runs", "output")
    files = ("sub-01_timeseries.safetensors", "trials.tsv", "labels.json", "runs.tsv", "b.tar")
    paths: dict[str, Any] = {name: tmp_path / file for name, file in zip(names, files, strict=True)}
    lost = shard.run(
        subject="01", role="downstream", task=TaskOptions(), options=ShardOptions(), window_frames=2, **paths
    )
    # Of the first run frames 2 to 6 and 8 to 12 keep one each.
    assert lost == 2


def test_a_trial_can_be_the_mean_of_its_frames(tmp_path: Path, events: Path) -> None:
    kept = np.setdiff1d(np.arange(40), [3, 4, 5, 6])
    samples = run_stage(tmp_path, [run_series(KEYS[0], kept)], events, task=TaskOptions(average=True))
    # Frames 2 (3 to 6 are scrubbed), 8 to 12 and 14 to 18; the first parcel of a frame holds its number.
    assert [sample.bold[:, 0].tolist() for sample in samples] == [[2], [10], [16]]
    assert [(s.meta["n_volumes"], s.meta["averaged"], s.meta["missing"]) for s in samples] == [
        (1, 1, 4), (1, 5, 0), (1, 5, 0),
    ]  # fmt: skip
    assert load_corpus([tmp_path / "a.tar"]).frames.shape == (3, N_PARCELS)


def test_trials_placed_in_other_frames_are_refused(tmp_path: Path, events: Path) -> None:
    run_stage(tmp_path, [run_series(KEYS[0])], events)
    table = tmp_path / "other.tsv"
    table.write_text((tmp_path / "trials.tsv").read_text().replace("\t2.0\tok", "\t1.5\tok"))
    with pytest.raises(InputError, match=r"frames of 1\.5 s, signals in frames of 2 s"):
        run_stage(tmp_path, [run_series(KEYS[0])], events, trials=table)


def test_a_state_that_the_labels_do_not_know_is_refused(tmp_path: Path, events: Path) -> None:
    (tmp_path / "other.json").write_text(json.dumps({"labels": ["house", "rest"]}))
    with pytest.raises(InputError, match=r"states that are not in .*other\.json: faces"):
        run_stage(tmp_path, [run_series(KEYS[0])], events, labels=tmp_path / "other.json")


def test_a_subject_without_samples_gets_an_empty_tar(tmp_path: Path) -> None:
    assert run_stage(tmp_path, []) == []
    assert run_stage(tmp_path, [run_series(KEYS[0], 5)], name="b.tar") == []
    with pytest.raises(InputError, match="not a single sample"):
        load_corpus([tmp_path / "a.tar"])


def test_the_tar_opens_with_webdataset(tmp_path: Path, events: Path) -> None:
    from webdataset import WebDataset

    expected = run_stage(tmp_path, [run_series(key) for key in KEYS], events)
    found = list(WebDataset(str(tmp_path / "a.tar"), shardshuffle=False, empty_check=False).decode())
    assert [item["__key__"] for item in found] == [sample.key for sample in expected]
    assert all(np.array_equal(item["bold.npy"], s.bold) for item, s in zip(found, expected, strict=True))
    assert [item["json"]["label"] for item in found] == [0, 1, 2] * 2


def test_a_rerun_gives_the_same_bytes(tmp_path: Path, events: Path) -> None:
    for name in ("a.tar", "b.tar"):
        # The order of the runs in the file does not matter.
        series = [run_series(key) for key in (KEYS if name == "a.tar" else KEYS[::-1])]
        run_stage(tmp_path, series, events, name=name)
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


def test_trials_carry_what_a_decoder_could_use_in_place_of_the_brain(tmp_path: Path, events: Path) -> None:
    # Displacement of frame i is i/10 mm, not known for the first and the second trial (8 to 12); 3 is scrubbed.
    movement = np.arange(40) / 10
    movement[[0, *range(8, 13)]] = np.nan
    write_nuisance(tmp_path / "nuisance.tsv", {KEYS[0]: moving(movement)})
    series = [run_series(KEYS[0], np.delete(np.arange(40), 3)), run_series(KEYS[1])]
    samples = run_stage(tmp_path, series, events, nuisance=tmp_path / "nuisance.tsv")
    facts = [(s.meta["position"], s.meta["mean_fd_mm"], s.meta["number"], s.meta["count"]) for s in samples]
    # Trials from 4, 16 and 28 s at 2 s are frames 2, 4, 5, 6; 8 to 12; 14 to 18 of 40.
    assert facts[:3] == [(0.05, 0.425, 0, 3), (0.2, None, 1, 3), (0.35, 1.6, 2, 3)]
    assert [mean for _, mean, _, _ in facts[3:]] == [None, None, None]
    assert "mean_fd_mm" not in run_stage(tmp_path, series)[0].meta


def test_float32_keeps_every_bit(tmp_path: Path) -> None:
    item = run_series(KEYS[0])
    (sample,) = run_stage(tmp_path, [item], options=ShardOptions(dtype="float32"))
    assert sample.bold.dtype == np.float32
    assert np.array_equal(sample.bold, item.data)


def test_scaling_is_reversible(tmp_path: Path) -> None:
    item = run_series(KEYS[0])
    (sample,) = run_stage(tmp_path, [item])
    restored = sample.bold.astype(np.float32) * sample.std + sample.mean
    # Half a unit in the last of 11 bits of values up to 40, times a standard deviation of 2.
    assert np.abs(restored - (item.data * item.std + item.mean)).max() <= 2 * 2**-6


def test_signals_beyond_float16_are_refused_not_written_as_infinity(tmp_path: Path) -> None:
    item = run_series(KEYS[0])
    item.data[3, 2] = -70000
    with pytest.raises(InputError, match="beyond the range of float16") as caught:
        run_stage(tmp_path, [item])
    assert caught.value.problems[0].entity == KEYS[0]
    assert "float32" in caught.value.problems[0].remedy
    assert not (tmp_path / "a.tar").exists()
    (sample,) = run_stage(tmp_path, [item], options=ShardOptions(dtype="float32"))
    assert sample.bold[3, 2] == -70000


def test_all_bad_runs_are_reported_at_once(tmp_path: Path) -> None:
    series = [run_series(key) for key in KEYS]
    for item in series:
        item.data[0, 1] = np.nan
    with pytest.raises(InputError) as caught:
        run_stage(tmp_path, series)
    assert [problem.entity for problem in caught.value.problems] == KEYS


def test_a_defective_run_is_left_out_with_its_reason_where_the_config_says_so(
    tmp_path: Path, events: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = tmp_path / "problems.tsv"
    series = [run_series(key) for key in KEYS]
    series[1].data[3, 2] = np.inf
    with caplog.at_level(logging.WARNING):
        samples = run_stage(tmp_path, series, events, on_error="exclude", problems_table=table)
    assert {sample.meta["run_key"] for sample in samples} == {KEYS[0]}
    assert f"excluded: {KEYS[1]}" in caplog.text
    (row,) = read_tsv(table).to_dict("records")
    assert (row["entity"], row["message"]) == (KEYS[1], "signals that are not finite numbers")
    # Once it is mended there is nothing left to tell.
    run_stage(tmp_path, [run_series(key) for key in KEYS], events, on_error="exclude", problems_table=table)
    assert not table.exists()


def test_a_run_that_is_not_in_the_run_table_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not in the run table"):
        run_stage(tmp_path, [run_series("ds-toy_sub-01_task-other")])


def test_a_run_without_trials_has_no_samples(tmp_path: Path) -> None:
    assert run_stage(tmp_path, [run_series(KEYS[0])], role="downstream", task=TaskOptions()) == []


@pytest.mark.parametrize("missing", ["task", "trials"])
def test_downstream_without_a_task_or_trials_is_an_error(tmp_path: Path, events: Path, missing: str) -> None:
    changes: dict[str, Any] = {missing: None}
    with pytest.raises(InputError, match="give --trials and --task on the command line"):
        run_stage(tmp_path, [run_series(KEYS[0])], events, **changes)


def test_marked_parcels_reach_the_corpus(tmp_path: Path, events: Path) -> None:
    run_stage(tmp_path, [run_series(KEYS[0], meta={"t_r": T_R, "marked": [1, 4]})], events)
    corpus = load_corpus([tmp_path / "a.tar"])
    assert corpus.marked.sum(axis=0).tolist() == [0, 3, 0, 0, 3, 0]
    assert corpus.frames.shape == (15, N_PARCELS)
