"""The demo study on disk: names, headers, tables, ceilings; complete or not; the same bytes each time."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from nilearn.interfaces.fmriprep import load_confounds
from nilearn.maskers import NiftiMapsMasker

from boldly.config import DownstreamSplitOptions, TaskOptions, read_config
from boldly.records import InputError
from boldly.signals.events import read_events
from boldly.signals.trials import RunEvents, place, trials_of
from boldly.simulation.study import DATASETS
from boldly.stages import simulate

SPACE = "space-MNI152NLin2009cAsym"
T_R = {"demo01": 2.0, "demo02": 1.5, "demo03": 0.8, "demohcp": 0.72, "demomdtb": 1.0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("simulate") / "study"
    simulate.run(folder, size="tiny", seed=1234, workers=2)
    return folder


def func(folder: Path, dataset: str, subject: str = "sub-01", session: str = "") -> Path:
    return folder / dataset / "derivatives/fmriprep" / subject / session / "func"


def images(folder: Path, dataset: str) -> list[Path]:
    return sorted((folder / dataset).rglob("*_desc-preproc_bold.nii.gz"))


def read_image(path: Path) -> nib.Nifti1Image:
    image = nib.load(path)
    assert isinstance(image, nib.Nifti1Image)
    return image


def read_table(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, sep="\t", na_values="n/a", keep_default_na=False)


def of_image(image: Path, ending: str) -> Path:
    return image.with_name(image.name.split(f"_{SPACE}")[0] + ending)


def checksums(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize(
    ("dataset", "session", "name"),
    [
        ("demo01", "", "sub-01_task-rest_run-1"),
        ("demo02", "ses-2", "sub-01_ses-2_task-puzzle"),
        ("demo03", "", "sub-01_task-movie_run-02"),
        ("demohcp", "", "sub-01_task-MOTOR_dir-LR"),
        ("demomdtb", "ses-1", "sub-01_ses-1_task-battery_run-1"),
    ],
)
def test_files_are_named_as_those_of_fmriprep(folder, dataset, session, name):
    for ending in (
        f"_{SPACE}_desc-preproc_bold.nii.gz",
        f"_{SPACE}_desc-preproc_bold.json",
        f"_{SPACE}_desc-brain_mask.nii.gz",
        "_desc-confounds_timeseries.tsv",
        "_desc-confounds_timeseries.json",
    ):
        assert (func(folder, dataset, session=session) / f"{name}{ending}").is_file()
    raw = folder / dataset / "sub-01" / session / "func"
    assert json.loads((raw / f"{name}_bold.json").read_text())["RepetitionTime"] == T_R[dataset]
    assert (raw / f"{name}_events.tsv").is_file() == (dataset in ("demohcp", "demomdtb"))
    for path in (folder / dataset, folder / dataset / "derivatives/fmriprep"):
        description = json.loads((path / "dataset_description.json").read_text())
        assert "simulated" in description["Name"]


@pytest.mark.parametrize("dataset", list(T_R))
def test_headers_say_time_space_and_scale(folder, dataset):
    path = images(folder, dataset)[0]
    image, mask = read_image(path), read_image(of_image(path, f"_{SPACE}_desc-brain_mask.nii.gz"))
    header = image.header
    assert header.get_zooms()[3] == pytest.approx(T_R[dataset])
    assert header.get_xyzt_units() == ("mm", "sec")
    assert (int(header["sform_code"]), int(header["qform_code"])) == (4, 4)
    np.testing.assert_allclose(image.get_sform(), image.get_qform())
    np.testing.assert_allclose(image.affine, mask.affine)
    assert header.get_data_dtype() == np.dtype("float32" if dataset == "demo01" else "int16")
    inside = np.asarray(mask.dataobj) == 1
    data = np.asarray(image.dataobj)
    assert not data[~inside].any()
    # Intensities, not counts: the slope is applied.
    assert 7000 < data[inside].mean() < 12000


def test_confounds_are_of_the_stored_image(folder):
    path = images(folder, "demomdtb")[0]
    data = np.asarray(read_image(path).dataobj)
    inside = np.asarray(read_image(of_image(path, f"_{SPACE}_desc-brain_mask.nii.gz")).dataobj) == 1
    table = read_table(of_image(path, "_desc-confounds_timeseries.tsv"))
    # Tables keep seven digits.
    np.testing.assert_allclose(table["global_signal"], data[inside].mean(axis=0), rtol=1e-6)
    changes = np.sqrt((np.diff(data[inside].astype(float), axis=1) ** 2).mean(axis=0))
    np.testing.assert_allclose(table["dvars"][1:], changes, rtol=1e-5)


def test_missing_values_are_spelled_as_bids_does(folder):
    path = of_image(images(folder, "demo03")[0], "_desc-confounds_timeseries.tsv")
    header, first, second = path.read_text().splitlines()[:3]
    cells = dict(zip(header.split("\t"), first.split("\t"), strict=True))
    undefined = {name for name, cell in cells.items() if cell == "n/a"}
    assert {"framewise_displacement", "dvars", "std_dvars", "trans_x_derivative1"} <= undefined
    assert not {"trans_x", "csf", "white_matter", "global_signal", "a_comp_cor_00"} & undefined
    assert "n/a" not in second
    assert "" not in second.split("\t")


@pytest.mark.parametrize("dataset", list(T_R))
def test_nilearn_reads_the_confounds(folder, dataset):
    path = str(images(folder, dataset)[0])
    basic, _ = load_confounds(path, ("motion", "wm_csf", "global_signal"), motion="full")
    assert basic.shape[1] == 24 + 2 + 1
    compcor, _ = load_confounds(path, ("high_pass", "compcor"), compcor="anat_combined", n_compcor=5)
    assert [name for name in compcor if name.startswith("a_comp_cor")] == [f"a_comp_cor_{k:02d}" for k in range(5)]
    separated, _ = load_confounds(path, ("high_pass", "compcor"), compcor="anat_separated", n_compcor=3)
    assert {"c_comp_cor_00", "w_comp_cor_00"} <= set(separated)


def test_nilearn_reads_the_cosines(folder):
    high_pass, _ = load_confounds(str(images(folder, "demomdtb")[0]), ("high_pass",))
    assert list(high_pass) == ["cosine00", "cosine01"]


def test_atlas_recovers_signals_and_names_its_parcels(folder):
    atlas = folder / simulate.ATLAS
    names = read_table(Path(str(atlas).replace(".nii.gz", ".tsv")))
    assert list(names) == ["index", "name", "network"]
    assert len(names) == read_image(atlas).shape[3] == 48
    assert names.groupby("network").size().tolist() == [6] * 8
    path = images(folder, "demomdtb")[0]
    confounds, _ = load_confounds(str(path), ("motion", "wm_csf", "global_signal"), motion="basic")
    masker = NiftiMapsMasker(atlas, detrend=True, standardize="zscore_sample")
    signals = masker.fit_transform(path, confounds=confounds)
    assert signals.shape == (read_image(path).shape[3], 48)
    # Parcels of a network share its signal: they correlate more than parcels of two networks.
    correlation = np.corrcoef(signals.T)
    network = names["network"].to_numpy()
    same = (network[:, None] == network) & ~np.eye(48, dtype=bool)
    assert correlation[same].mean() > correlation[network[:, None] != network].mean() + 0.02


def test_one_run_is_too_short_and_one_moves_too_much(folder):
    lengths, motion = {}, {}
    for dataset in ("demo01", "demo02", "demo03"):
        for path in images(folder, dataset):
            table = read_table(of_image(path, "_desc-confounds_timeseries.tsv"))
            lengths[path.name] = len(table)
            motion[path.name] = table["framewise_displacement"].mean()
    short = [name.split(f"_{SPACE}")[0] for name, length in lengths.items() if length < 20]
    moving = [name.split(f"_{SPACE}")[0] for name, mean in motion.items() if mean > 0.5]
    assert short == ["sub-03_task-rest_run-2"]
    assert moving == ["sub-03_ses-2_task-puzzle"]
    assert np.median(list(motion.values())) < 0.25


def test_hcp_events_give_the_states_and_no_cues(folder):
    task = TaskOptions(
        column="trial_type", delay_s=3.0, drop=["cue"], rename={"^(0bk|2bk)_": ""}, prefix_task=True
    )
    labels = list(next(dataset for dataset in DATASETS if dataset.name == "demohcp").states)
    found = []
    for path in sorted((folder / "demohcp/sub-01").rglob("*_events.tsv")):
        events = read_events(path)
        assert "cue" in set(events["trial_type"])
        bids_task = path.name.split("task-")[1].split("_")[0]
        trials = trials_of(place(RunEvents(events, "", bids_task, 0.72, 10**4), task), labels)
        found += [trial.label_name for trial in trials]
    assert sorted(found) == sorted(labels)


def test_mdtb_blocks_merge_and_their_second_version_is_the_same_task(folder):
    task = TaskOptions(
        column="taskName", delay_s=3.0, merge_blocks=True, drop=["instruct"], rename={"2$": ""}, minimum_s=15.0
    )
    labels = list(next(dataset for dataset in DATASETS if dataset.name == "demomdtb").states)
    spelled = set()
    for path in sorted((folder / "demomdtb/sub-01").rglob("*_events.tsv")):
        events = read_events(path)
        spelled |= set(events["taskName"])
        trials = trials_of(place(RunEvents(events, "", "battery", 1.0, 10**4), task), labels)
        assert sorted(trial.label_name for trial in trials) == sorted(labels)
        assert {trial.duration for trial in trials} == {16.0, 18.0, 20.0, 22.0}
    assert "instruct" in spelled
    assert any(name.endswith("2") for name in spelled)


def test_ceilings_have_a_row_for_each_observer(folder):
    table = read_table(folder / simulate.CEILINGS)
    assert list(zip(table["dataset"], table["decoder"], table["n_labels"], strict=True)) == [
        ("demohcp", "any", 8),
        ("demohcp", "mean_signal", 8),
        ("demomdtb", "any", 10),
        ("demomdtb", "mean_signal", 10),
    ]
    assert (table["ci_low"] < table["accuracy"]).all()
    assert (table["accuracy"] < table["ci_high"]).all()
    np.testing.assert_allclose(table["chance"], 1 / table["n_labels"])
    best = table.pivot(index="dataset", columns="decoder", values="accuracy")
    assert (best["any"] - best["mean_signal"] > 0.15).all()


def test_readme_says_what_it_is_and_how_to_read_the_events(folder):
    text = (folder / "README.md").read_text()
    assert "No brain data" in text
    assert "delay of **3 s**" in text
    for dataset in DATASETS:
        for state in dataset.states:
            assert f"| {dataset.name} | {state} |" in text


def test_the_same_seed_gives_the_same_bytes_whatever_the_workers(folder, tmp_path):
    simulate.run(tmp_path / "again", size="tiny", seed=1234, workers=1)
    assert checksums(tmp_path / "again") == checksums(folder)


def test_a_complete_study_is_left_as_it_is(folder):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    simulate.run(folder, size="tiny", seed=1234)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_an_interrupted_study_is_not_complete_and_is_written_anew(tmp_path, monkeypatch):
    def interrupted(pool, output, size, seed):
        (output / "demo01/left_over.tsv").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(simulate, "_write_with", interrupted)
    with pytest.raises(KeyboardInterrupt):
        simulate.run(tmp_path / "study", size="tiny")
    assert not (tmp_path / "study" / simulate.STUDY).exists()
    (tmp_path / "study/notes.txt").write_text("mine")
    monkeypatch.setattr(simulate, "_write_with", lambda *_: None)
    simulate.run(tmp_path / "study", size="tiny")
    assert (tmp_path / "study" / simulate.STUDY).exists()
    assert not (tmp_path / "study/demo01/left_over.tsv").exists()
    assert (tmp_path / "study/notes.txt").read_text() == "mine"
    assert sorted(path.name for path in (tmp_path / "study").glob(".*")) == []


def test_another_seed_replaces_the_study(tmp_path, monkeypatch):
    monkeypatch.setattr(simulate, "_write_with", lambda *_: None)
    simulate.run(tmp_path, size="tiny", seed=1)
    simulate.run(tmp_path, size="tiny", seed=2)
    assert json.loads((tmp_path / simulate.STUDY).read_text())["seed"] == 2


def test_files_of_others_are_not_touched(tmp_path):
    other = tmp_path / "study/demo01/data.txt"
    other.parent.mkdir(parents=True)
    other.write_text("mine")
    with pytest.raises(InputError, match=r"demo01.*\n.*\n.*--output"):
        simulate.run(tmp_path / "study", size="tiny")
    assert other.read_text() == "mine"


def test_folders_made_beforehand_are_no_obstacle(tmp_path, monkeypatch):
    (tmp_path / "study/demo01/derivatives").mkdir(parents=True)
    monkeypatch.setattr(simulate, "_write_with", lambda *_: None)
    simulate.run(tmp_path / "study", size="tiny")
    assert (tmp_path / "study" / simulate.STUDY).exists()


def test_numbers_out_of_range_are_reported_together(tmp_path):
    with pytest.raises(InputError) as error:
        simulate.run(tmp_path / "study", seed=-1, workers=0)
    assert [problem.where for problem in error.value.problems] == ["--seed", "--workers"]


@pytest.fixture(scope="module")
def events_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("events") / "study"
    simulate.run(folder, size="events", seed=1234, workers=2)
    return folder


def of_image_name(folder: Path, image: Path) -> pd.DataFrame:
    name = image.name.split("_space")[0]
    return read_events(folder / "demoevents" / name.split("_")[0] / "func" / f"{name}_events.tsv")


def nearest(means: np.ndarray, names: np.ndarray, of_image: np.ndarray, number: int) -> str:
    """Name the state whose mean over the trials of other images is most like a trial."""
    others = of_image != of_image[number]
    states = sorted(set(names))
    centres = [means[others & (names == state)].mean(axis=0) for state in states]
    return states[int(np.argmax([np.corrcoef(means[number], centre)[0, 1] for centre in centres]))]


class TestEvents:
    def run_events(self, events_folder: Path) -> RunEvents:
        events = read_events(events_folder / "demoevents/sub-01/func/sub-01_task-brief_run-1_events.tsv")
        image = read_image(images(events_folder, "demoevents")[0])
        return RunEvents(events, "ds-demoevents_sub-01_task-brief_run-1", "brief", 1.5, image.shape[3], 0.75)

    def test_brief_events_need_a_window_and_presses_are_no_trials(self, events_folder):
        run = self.run_events(events_folder)
        without = place(run, TaskOptions(delay_s=5))
        assert not [event for event in without if event.status == "ok"]
        window = place(run, TaskOptions(window_s=(3, 9), drop=["press"]))
        kept = [event for event in window if event.status == "ok"]
        assert {event.label for event in kept} == {"animal", "tool", "scene"}
        # 6 s hold 4 frames of 1.5 s.
        assert (len(kept), {event.n_frames for event in kept}) == (24, {4})

    def test_sidecars_say_when_slices_are(self, events_folder):
        sidecar = json.loads(next((events_folder / "demoevents").rglob("*_desc-preproc_bold.json")).read_text())
        assert (sidecar["StartTime"], sidecar["SliceTimingCorrected"]) == (0.75, True)

    def test_families_have_two_members(self, events_folder):
        people = read_table(events_folder / "demoevents/participants.tsv")
        assert people["family"].value_counts().tolist() == [2] * 6

    def test_the_window_of_an_event_tells_its_state(self, events_folder):
        masker = NiftiMapsMasker(
            str(events_folder / simulate.ATLAS), standardize="zscore_sample", high_pass=0.008, t_r=1.5
        )
        means, names, of_image = [], [], []
        for number, image in enumerate(images(events_folder, "demoevents")[:6]):
            confounds, _ = load_confounds(str(image), strategy=("motion", "wm_csf", "global_signal"))
            signals = masker.fit_transform(str(image), confounds=confounds)
            events = of_image_name(events_folder, image)
            task = TaskOptions(window_s=(3, 9), drop=["press"])
            for event in place(RunEvents(events, "x", "brief", 1.5, len(signals), 0.75), task):
                if event.status == "ok":
                    means.append(signals[event.first : event.stop].mean(axis=0))
                    names.append(event.label)
                    of_image.append(number)
        found = np.array(means), np.array(names), np.array(of_image)
        right = [name == nearest(*found, number) for number, name in enumerate(names)]
        # 144 events of three states: by chance a third, at most 0.45 in 998 of 1,000 studies.
        assert len(right) == 144
        assert np.mean(right) > 0.45

    def test_the_readme_has_a_config_that_is_valid(self, events_folder, tmp_path):
        text = (events_folder / "README.md").read_text().partition("```yaml\n")[2].partition("```")[0]
        (tmp_path / "config.yaml").write_text(text)
        config = read_config(tmp_path / "config.yaml", {})
        assert config.datasets["demoevents"].split == DownstreamSplitOptions(group="family")
        assert not (events_folder / simulate.CEILINGS).exists()
