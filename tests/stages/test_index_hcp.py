"""Stage index on layout hcp, and the way from there to samples."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from boldly.config import (
    HCP_SPACE,
    AtlasOptions,
    DatasetOptions,
    IndexOptions,
    ParcellateOptions,
    PreprocessOptions,
    ShardOptions,
)
from boldly.files import read_json, read_tsv
from boldly.records import InputError, Run, read_runs, read_trials
from boldly.samples.sample import Sample
from boldly.samples.shards import read_shard
from boldly.stages import index, parcellate, preprocess, shard
from tests.conftest import Study
from tests.hcp_tree import FRAMES, LABELS, REST_FRAMES, STATES, T_R, preset, task_events, write_tree

MOTION = PreprocessOptions(strategy=["motion"])


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a tree of two subjects that no test changes."""
    return write_tree(tmp_path_factory.mktemp("hcp"))


@pytest.fixture
def tree(written: Path, tmp_path: Path) -> Path:
    """Return a tree of one subject for a test to change."""
    shutil.copytree(written, tmp_path / "tree", ignore=shutil.ignore_patterns("100408"))
    return tmp_path / "tree"


def options(root: Path, role: str = "downstream", **changes: Any) -> DatasetOptions:
    content: dict[str, Any] = {"role": role, "layout": "hcp", "derivatives": str(root)}
    if role == "downstream":
        content["task"] = preset("hcp")
    return DatasetOptions.model_validate(content | changes)


def run_index(folder: Path, dataset: DatasetOptions, atlas: Path, **changes: Any) -> list[Run]:
    arguments: dict[str, Any] = {"options": IndexOptions(), "preprocess": MOTION, "window_frames": 10}
    runs, labels = folder / "hcp_runs.tsv", folder / "hcp_labels.json"
    index.run(
        dataset="hcp",
        dataset_options=dataset,
        atlas=AtlasOptions(path=str(next(atlas.glob("atlas-*_dseg.nii.gz")))),
        runs=runs,
        labels=labels,
        **(arguments | changes),
    )
    return read_runs(runs)


def results(root: Path, name: str = "tfMRI_MOTOR_LR") -> Path:
    return root / "100307" / "MNINonLinear" / "Results" / name


def found_states(folder: Path, rows: list[Run]) -> set[str]:
    """Return the states that have trials; each run has some."""
    trials = [event for event in read_trials(folder / "hcp_trials.tsv") if event.trial is not None]
    assert {event.key for event in trials} == {row.key for row in rows}
    return {event.label for event in trials}


class TestRows:
    def test_every_run_has_one_row_with_its_files(self, written, tmp_path):
        rows = run_index(tmp_path, options(written), written)
        assert [row.key for row in rows] == [
            key
            for subject in ("100307", "100408")
            for key in (
                *(f"ds-hcp_sub-{subject}_task-{task}_dir-LR" for task in list(STATES)[:5]),
                f"ds-hcp_sub-{subject}_task-REST_dir-LR_run-1",
                *(f"ds-hcp_sub-{subject}_task-{task}_dir-LR" for task in list(STATES)[5:]),
            )
        ]
        row = rows[3]
        folder = results(written)
        assert (row.task, row.direction, row.run, row.space) == ("MOTOR", "LR", "", HCP_SPACE)
        assert (row.t_r, row.n_volumes, row.status) == (T_R, FRAMES, "ok")
        files = [Path(path) for path in (row.bold, row.mask, row.confounds, row.events)]
        assert [str(path.relative_to(folder)) for path in files] == [
            "tfMRI_MOTOR_LR.nii.gz", "brainmask_fs.2.nii.gz", "Movement_Regressors.txt", "EVs",
        ]  # fmt: skip
        assert (rows[5].events, rows[5].n_volumes) == ("", REST_FRAMES)

    def test_upstream_needs_neither_events_nor_task(self, tree, tmp_path):
        shutil.rmtree(results(tree) / "EVs")
        rows = run_index(tmp_path, options(tree, "upstream"), tree)
        assert {row.events for row in rows} == {""}
        assert len(rows) == len(STATES) + 1

    def test_subjects_and_tasks_can_be_chosen(self, written, tmp_path):
        rows = run_index(tmp_path, options(written, subjects=["sub-100408"], tasks=["WM", "REST"]), written)
        assert [(row.subject, row.task) for row in rows] == [("100408", "REST"), ("100408", "WM")]

    def test_a_variant_of_the_images_can_be_taken(self, tree, tmp_path):
        for image in tree.rglob("?fMRI_*.nii.gz"):
            image.rename(image.with_name(image.name.replace(".nii", "_hp2000_clean.nii")))
        with pytest.raises(InputError, match=r"no image tfMRI_MOTOR_LR.nii.gz \(found: .*_hp2000_clean") as caught:
            run_index(tmp_path, options(tree), tree)
        assert "image_suffix" in caught.value.problems[0].remedy
        rows = run_index(tmp_path, options(tree, image_suffix="_hp2000_clean"), tree)
        assert {row.status for row in rows} == {"ok"}


class TestLabels:
    """All three kinds of events give the 20 labels, each with trials."""

    def test_of_evs(self, written, tmp_path):
        rows = run_index(tmp_path, options(written), written)
        assert read_json(tmp_path / "hcp_labels.json") == {"labels": LABELS}
        assert found_states(tmp_path, rows) == set(LABELS)

    @pytest.mark.parametrize("spelled", [str.upper, str.lower])
    def test_of_bids_events_beside_fmriprep_derivatives(
        self, write_study: Callable[..., Study], tmp_path, spelled
    ):
        tasks = [spelled(task) for task in (*STATES, "REST1")]
        study = write_study(subjects=("1",), tasks=tasks, runs=("",), n_volumes=REST_FRAMES, t_r=T_R)
        for task in STATES:
            events = task_events(task)
            events.to_csv(study.run("1", task=spelled(task), run="").events, sep="\t", index=False)
        study.run("1", task=spelled("REST1"), run="").events.unlink()
        rows = run_index(tmp_path, study.dataset_options(task=preset("hcp")), study.atlas.parent)
        assert read_json(tmp_path / "hcp_labels.json") == {"labels": LABELS}
        assert found_states(tmp_path, rows) == set(LABELS)

    def test_of_csv_files_with_columns_of_their_own(self, written, tmp_path):
        for task in STATES:
            path = tmp_path / f"bids/sub-100307/func/sub-100307_task-{task}_dir-LR_events.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            events = task_events(task)
            events["end"] = events["onset"] + events["duration"]
            events = events.rename(columns={"onset": "start", "trial_type": "mental_state"})
            events.drop(columns="duration").to_csv(path, index=False)
        columns = preset("hcp").model_copy(
            update={"column": "mental_state", "onset_column": "start", "end_column": "end"}
        )
        dataset = options(written, bids=str(tmp_path / "bids"), task=columns, subjects=["100307"])
        rows = run_index(tmp_path, dataset, written)
        assert {Path(row.events).suffix for row in rows} == {".csv", ""}
        assert found_states(tmp_path, rows) == set(LABELS)


class TestProblems:
    def problems(self, folder: Path, root: Path, dataset: DatasetOptions, **changes: Any) -> list[str]:
        with pytest.raises(InputError) as caught:
            run_index(folder, dataset, root, **changes)
        return [str(problem) for problem in caught.value.problems]

    def test_everything_that_is_wrong_is_reported_at_once(self, tree, tmp_path):
        (results(tree, "tfMRI_WM_LR") / "EVs" / "3bk_body.txt").write_text("1 4 1\n")
        (results(tree, "tfMRI_SOCIAL_LR") / "EVs" / "rnd.txt").write_text("1 4\n")
        shutil.rmtree(results(tree, "tfMRI_EMOTION_LR") / "EVs")
        (results(tree, "tfMRI_GAMBLING_LR") / "Movement_Regressors.txt").unlink()
        table = results(tree, "tfMRI_LANGUAGE_LR") / "Movement_Regressors.txt"
        table.write_text("".join(table.read_text().splitlines(keepends=True)[:-1]))
        (results(tree) / "tfMRI_MOTOR_LR.nii.gz").unlink()
        found = self.problems(tmp_path, tree, options(tree))
        for words in (
            "task-EMOTION_dir-LR: no folder of events",
            "task-GAMBLING_dir-LR: no confounds table (Movement_Regressors.txt)",
            f"the confounds table has {FRAMES - 1} rows, the image {FRAMES} volumes",
            "task-MOTOR_dir-LR: no image tfMRI_MOTOR_LR.nii.gz",
            "task-SOCIAL_dir-LR: not a readable file of events: row 1",
            "task-WM_dir-LR: states outside the labels: WM 3bk_body",
        ):
            assert sum(words in problem for problem in found) == 1, words
        assert len(found) == 6

    def test_signals_that_hcp_does_not_come_with_name_the_way_out(self, tree, tmp_path):
        found = self.problems(tmp_path, tree, options(tree, tasks=["MOTOR"]), preprocess=PreprocessOptions())
        assert "no columns 'csf', 'white_matter', 'global_signal' (found: framewise_displacement" in found[0]
        assert (
            "HCP comes with movement alone: drop wm_csf from preprocess.strategy, drop global_signal" in found[0]
        )

    def test_rest_runs_of_a_task_without_rest_blocks_are_a_problem(self, tree, tmp_path):
        task = preset("hcp").model_copy(update={"rest": None})
        (found,) = self.problems(tmp_path, tree, options(tree, task=task))
        assert "task-REST_dir-LR_run-1: no folder of events" in found
        assert "give the task's rest for rest runs" in found

    def test_absent_subjects_and_tasks_are_named(self, tree, tmp_path):
        found = self.problems(tmp_path, tree, options(tree, subjects=["100307", "7"], tasks=["MOTOR", "NBACK"]))
        assert found[0].startswith("7: asked for, but has no runs")
        assert "task-NBACK: asked for, but no run has it (found: EMOTION, GAMBLING" in found[1]

    def test_a_folder_of_another_layout_says_so(self, tree, tmp_path, study):
        (found,) = self.problems(tmp_path, tree, options(study.derivatives))
        assert "not a single <subject>/MNINonLinear/Results folder" in found
        (found,) = self.problems(tmp_path, tree, study.dataset_options("upstream", derivatives=str(tree)))
        assert "but folders of HCP subjects" in found
        assert "set datasets.hcp.layout to hcp" in found

    def test_another_space_than_that_of_the_images_is_refused(self, tree):
        with pytest.raises(ValueError, match=f"images of layout hcp are in {HCP_SPACE}"):
            options(tree, space="MNI152NLin2009cAsym")
        assert options(tree).space == options(tree, space=HCP_SPACE).space == HCP_SPACE


def samples_of(folder: Path, root: Path, subject: str) -> list[Sample]:
    """Go the way from the tree to the samples of a subject."""
    run_index(folder, options(root, subjects=[subject]), root)
    atlas = AtlasOptions(path=str(root / "atlas-slabs_dseg.nii.gz"))
    nuisance, qc = folder / "nuisance.tsv", folder / "qc.tsv"
    runs, series, tar = folder / "hcp_runs.tsv", folder / "timeseries.safetensors", folder / "a.tar"
    preprocess.run(runs=runs, subject=subject, options=MOTION, nuisance=nuisance, qc=qc)
    parcellate.run(
        runs=runs, subject=subject, nuisance=nuisance, qc=qc, atlas=atlas, options=ParcellateOptions(),
        preprocess=MOTION, cache=folder / "cache", output=series, quality=folder / "quality.tsv",
    )  # fmt: skip
    shard.run(
        timeseries=series, runs=runs, subject=subject, role="downstream", task=preset("hcp"),
        labels=folder / "hcp_labels.json", trials=folder / "hcp_trials.tsv", nuisance=nuisance,
        options=ShardOptions(), window_frames=10, output=tar,
    )  # fmt: skip
    return list(read_shard(tar))


def test_a_tree_becomes_samples_of_all_20_states_with_the_facts_that_could_leak(written, tmp_path):
    samples = samples_of(tmp_path, written, "100307")
    assert {sample.meta["label_name"] for sample in samples} == set(LABELS)
    # One trial of each state of a run, but 0-back and 2-back of a category, and two blocks of rest.
    assert len(samples) == sum(len(states) for states in STATES.values()) + 2
    assert samples[0].contract.space == HCP_SPACE
    quality = read_tsv(tmp_path / "qc.tsv").set_index("key")
    assert quality["mean_fd_mm"].between(0.01, 0.2).all()
    motor = [sample for sample in samples if sample.meta["entities"]["task"] == "MOTOR"]
    table = np.loadtxt(results(written) / "Movement_Regressors.txt")[:, :6]
    steps = np.abs(np.diff(np.hstack([table[:, :3], 50 * np.deg2rad(table[:, 3:])]), axis=0)).sum(axis=1)
    for number, sample in enumerate(motor):
        # 1 + 4.5 n + 2.88 <= 0.72 i < 4 s later; the displacement of frame i is that from frame i - 1.
        first = int(np.ceil((1 + 4.5 * number + 2.88) / T_R))
        stop = int(np.ceil((5 + 4.5 * number + 2.88) / T_R))
        meta = sample.meta
        assert (meta["number"], meta["count"], meta["first"], meta["stop"]) == (number, 5, first, stop)
        assert (meta["onset"], meta["duration"], meta["n_volumes"]) == (1 + 4.5 * number, 4.0, stop - first)
        assert meta["position"] == pytest.approx(first / FRAMES, abs=1e-6)
        assert meta["mean_fd_mm"] == pytest.approx(steps[first - 1 : stop - 1].mean(), abs=2e-6)


def test_blocks_of_rest_are_the_same_whatever_other_runs_there_are(tree, tmp_path):
    def blocks(folder: str) -> list[tuple[float, float]]:
        (tmp_path / folder).mkdir()
        rest = [
            s.meta for s in samples_of(tmp_path / folder, tree, "100307") if s.meta["label_name"] == "REST rest"
        ]
        return [(meta["onset"], meta["duration"]) for meta in rest]

    before = blocks("all")
    for task in list(STATES)[:5]:
        shutil.rmtree(results(tree, f"tfMRI_{task}_LR"))
    assert blocks("fewer") == before
    assert len(before) == 2
