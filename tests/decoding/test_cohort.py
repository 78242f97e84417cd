"""boldly decode: new people of a derivatives folder."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import yaml

from boldly import Decoder, bids, layout
from boldly.cli import main
from boldly.config import DecodeOptions, PreprocessOptions, SignalExclusionOptions
from boldly.decoding import package
from boldly.decoding.cohort import run as run_cohort
from boldly.decoding.derivative import SCORES, UNSEEN
from boldly.decoding.finding import with_events
from boldly.decoding.folder import read_about, write_about
from boldly.files import read_tsv, write_tsv
from boldly.provenance import file_sha256
from boldly.records import InputError, Run, read_runs, read_scores, write_runs
from boldly.samples.shards import read_shard, write_shard
from tests.conftest import SPACE, Study, write_image
from tests.decoding import studies

LABEL = "blocksmeanlda"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Study]:
    """Return the folder of a study with a packaged decoder, and its images."""
    from tests.conftest import _write_study

    root = tmp_path_factory.mktemp("study")
    study = _write_study(root / "images", subjects=("01", "02", "03"), n_volumes=50)
    studies.image_study(root, study)
    package.run(source=root / "results", output=root / "decoder")
    return root, study


@pytest.fixture
def model(made: tuple[Path, Study], monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BOLDLY_CACHE", str(made[0] / "user_cache"))
    return made[0] / "decoder"


@pytest.fixture
def people(write_study: Callable[..., Study]) -> Study:
    """Return new people with events."""
    return write_study("new", subjects=("21", "22"), runs=("1",), n_volumes=50, seed=5)


def decode(model: Path, study: Study, output: Path, **options: Any) -> None:
    of_run = {name: options.pop(name) for name in ("workers", "summary") if name in options}
    given = {"model": str(model), "derivatives": str(study.derivatives), "events": str(study.bids), **options}
    run_cohort(options=DecodeOptions.model_validate(given), output=output, **{"workers": 1, **of_run})


def table_path(output: Path, subject: str, ending: str = ".tsv", run: str = "1", folder: str = "func") -> Path:
    name = f"sub-{subject}_task-blocks_run-{run}_space-{SPACE}_desc-{LABEL}_decoding{ending}"
    return output / f"sub-{subject}" / folder / name


def stamps(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("sub-*_decoding.*")}


def test_raw_images_give_the_probabilities_of_the_evaluation(
    made: tuple[Path, Study], model: Path, tmp_path: Path
) -> None:
    root, study = made
    decode(model, study, tmp_path / "out", participants=["03"])
    expected = read_tsv(root / layout.PREDICTIONS.format(dataset="blocks"), ("subject",))
    expected = expected[expected["experiment"] == "mean_lda"].sort_values("key")
    found = pd.concat([read_tsv(table_path(tmp_path / "out", "03", run=run)) for run in ("1", "2")])
    columns = [name for name in expected if str(name).startswith("p_")]
    # Both tables have six digits.
    np.testing.assert_allclose(found[columns], expected[columns], rtol=0, atol=1.01e-6)
    assert list(found["trial_type"]) == list(expected["label_name"])


def test_the_output_is_a_bids_derivative(model: Path, people: Study, tmp_path: Path) -> None:
    out = tmp_path / "out"
    decode(model, people, out)
    about = json.loads((out / "dataset_description.json").read_text())
    assert about["DatasetType"] == "derivative"
    assert about["GeneratedBy"][0]["Name"] == "boldly"
    for subject in ("21", "22"):
        table = read_tsv(table_path(out, subject))
        assert list(table.columns[:5]) == ["onset", "duration", "trial_type", "state", "probability"]
        sidecar = json.loads(bids.sidecar(table_path(out, subject)).read_text())
        assert set(table.columns) <= set(sidecar), "the sidecar describes each column"
        assert table_path(out, subject, ".png", folder="figures").stat().st_size > 1000
    scores = read_scores(out / SCORES)
    summary = scores[
        (scores["subject"] == "all") & (scores["metric"] == "accuracy") & (scores["kind"] == "baseline")
    ]
    assert len(summary) == 1
    assert summary["n_trials"].item() == 2 * len(table)


def test_runs_of_the_training_are_noticed_and_flag_the_scores(
    made: tuple[Path, Study], model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _, study = made
    caplog.set_level(logging.INFO)
    decode(model, study, tmp_path / "out")
    scores = read_scores(tmp_path / "out" / SCORES)
    # Two of three people trained it, two runs each.
    of_decoder = scores[scores["kind"] != "chance"]
    assert set(of_decoder["flag"]) == {"4 of 6 runs were in the training"}
    # The two runs of the third person have scores of their own, in a table and at the end of what is said.
    unseen = read_scores(tmp_path / "out" / UNSEEN)
    assert set(unseen["flag"].fillna("")) == {""}
    whole, own = (
        table[(table["subject"] == "all") & (table["metric"] == "accuracy") & (table["kind"] == "baseline")]
        for table in (scores, unseen)
    )
    assert 3 * own["n_trials"].item() == whole["n_trials"].item()
    assert "of 1 person in the 2 runs that were not: " in caplog.messages[-1]
    assert f"{own['value'].item():.3f}" in caplog.messages[-1]
    sidecars = [bids.sidecar(table_path(tmp_path / "out", subject)) for subject in ("01", "03")]
    assert [json.loads(path.read_text())["SeenInTraining"] for path in sidecars] == [True, False]


def test_runs_are_chosen_by_their_entities(made: tuple[Path, Study], model: Path, tmp_path: Path) -> None:
    _, study = made
    arguments = ["--model", str(model), "--derivatives", str(study.derivatives), "--output", str(tmp_path / "out")]
    assert main(["decode", *arguments, "--workers", "1", "--participant", "sub-03", "--filter", "run=2"]) == 0
    assert sorted((tmp_path / "out").rglob("*.tsv")) == [table_path(tmp_path / "out", "03", run="2")]


def test_without_events_there_are_sliding_windows(model: Path, people: Study, tmp_path: Path) -> None:
    decode(model, people, tmp_path / "out", events=None, window_s=10.0, step_s=4.0)
    table = read_tsv(table_path(tmp_path / "out", "21"))
    # The delay of 2 s lies between a window's onset and its first frame, at 0 s.
    assert table["onset"].iloc[0] == -2.0
    assert set(table["onset"].diff().dropna()) == {4.0}
    assert "trial_type" not in table
    assert not (tmp_path / "out" / SCORES).exists()


def test_a_second_call_repeats_only_what_changed(model: Path, people: Study, tmp_path: Path) -> None:
    out = tmp_path / "out"
    decode(model, people, out)
    before = stamps(out)
    decode(model, people, out)
    assert stamps(out) == before
    confounds = people.run("22").confounds
    table = pd.read_csv(confounds, sep="\t")
    table["csf"] += np.arange(len(table))
    table.to_csv(confounds, sep="\t", index=False, na_rep="n/a")
    decode(model, people, out)
    changed = {path for path, stamp in stamps(out).items() if stamp != before[path]}
    assert changed == {path for path in before if "sub-22" in path}


def test_defective_runs_are_named_together_and_the_others_are_decoded(
    model: Path,
    people: Study,
    tmp_path: Path,
    write_study: Callable[..., Study],
    capsys: pytest.CaptureFixture[str],
) -> None:
    more = write_study("more", subjects=("31", "32", "33"), runs=("1",), n_volumes=50, seed=6)
    first, second = more.run("31"), more.run("32")
    first.confounds.unlink()
    image = nib.nifti1.load(second.bold)
    data = np.asarray(image.dataobj)
    data[..., 20] = 0
    write_image(second.bold, data, 2.0)
    arguments = ["--model", str(model), "--derivatives", str(more.derivatives), "--events", str(more.bids)]
    status = main(["decode", *arguments, "--output", str(tmp_path / "out"), "--workers", "1"])
    assert status == 1
    said = capsys.readouterr().err
    assert "2 problems" in said
    assert "no confounds table" in said
    assert "1 of 50 volumes hold nothing but zeros" in said
    assert "--allow-mismatch confounds" in said
    assert table_path(tmp_path / "out", "33").exists()
    assert not table_path(tmp_path / "out", "32").exists()
    assert len(read_tsv(tmp_path / "out" / "problems.tsv")) == 2


@pytest.mark.parametrize("workers", [1, 2])
def test_a_decoder_that_cannot_be_read_is_said_once(
    model: Path, people: Study, tmp_path: Path, workers: int
) -> None:
    shutil.copytree(model, tmp_path / "copy")
    path = tmp_path / "copy" / "fit" / "decoder.json"
    path.write_text(path.read_text().replace('"members"', '"others"'))
    about = tmp_path / "copy" / "config.json"
    content = json.loads(about.read_text())
    content["files"]["fit/decoder.json"] = file_sha256(path)
    about.write_text(json.dumps(content))
    with pytest.raises(InputError) as error:
        decode(tmp_path / "copy", people, tmp_path / "out", workers=workers)
    assert len(error.value.problems) == 1


def test_workers_give_the_same_as_one_process(model: Path, people: Study, tmp_path: Path) -> None:
    decode(model, people, tmp_path / "one")
    decode(model, people, tmp_path / "two", workers=2)
    for subject in ("21", "22"):
        one, two = (table_path(tmp_path / name, subject).read_bytes() for name in ("one", "two"))
        assert one == two


def test_parallel_jobs_leave_the_scores_to_the_last(model: Path, people: Study, tmp_path: Path) -> None:
    for subject in ("21", "22"):
        decode(model, people, tmp_path / "out", participants=[subject], summary=False)
    assert not (tmp_path / "out" / SCORES).exists()
    before = stamps(tmp_path / "out")
    decode(model, people, tmp_path / "out")
    assert stamps(tmp_path / "out") == before
    scores = read_scores(tmp_path / "out" / SCORES)
    assert {"21", "22"} < set(scores["subject"])


def refused(model: Path, study: Study, output: Path, **options: Any) -> str:
    with pytest.raises(InputError) as error:
        decode(model, study, output, **options)
    return str(error.value)


def test_another_repetition_time_is_refused_unless_it_is_allowed(
    model: Path, write_study: Callable[..., Study], tmp_path: Path
) -> None:
    slow = write_study("slow", subjects=("41",), runs=("1",), t_r=2.5)
    said = refused(model, slow, tmp_path / "out")
    assert "t_r: 2.5 s, the decoder blocks-mean_lda was trained at 2 s" in said
    assert "--allow-mismatch t_r" in said
    decode(model, slow, tmp_path / "out", allow_mismatch=["t_r"])
    assert table_path(tmp_path / "out", "41").exists()


def test_another_space_is_refused_unless_it_is_allowed(
    model: Path, write_study: Callable[..., Study], tmp_path: Path
) -> None:
    other = write_study("other", subjects=("41",), runs=("1",), space="T1w")
    assert "--space" in refused(model, other, tmp_path / "out")
    said = refused(model, other, tmp_path / "out", space="T1w")
    assert f"space: '{SPACE}' != 'T1w'" in said
    decode(model, other, tmp_path / "out", space="T1w", allow_mismatch=["space"])
    assert list((tmp_path / "out" / "sub-41" / "func").glob("*space-T1w*.tsv"))


def test_the_way_out_of_another_space_is_an_option_of_this_command(
    model: Path, people: Study, tmp_path: Path
) -> None:
    said = refused(model, people, tmp_path / "out", space="T1w")
    assert "--allow-mismatch space" in said
    assert "in the experiment" not in said


def test_another_atlas_is_refused(model: Path, people: Study, tmp_path: Path) -> None:
    atlas = tmp_path / "atlas_dseg.nii.gz"
    image = nib.nifti1.load(people.atlas)
    data = np.asarray(image.dataobj).copy()
    write_image(atlas, data[:, ::-1], None)
    assert "atlas_sha256" in refused(model, people, tmp_path / "out", atlas=str(atlas))
    data[data == data.max()] = 0
    write_image(atlas, data, None)
    said = refused(model, people, tmp_path / "out", atlas=str(atlas), allow_mismatch=["atlas_sha256"])
    assert "the atlas has 5 parcels, the decoder takes 6" in said


def test_other_confounds_are_refused_unless_they_are_allowed(model: Path, people: Study, tmp_path: Path) -> None:
    own = PreprocessOptions(strategy=["motion"])
    assert "confounds" in refused(model, people, tmp_path / "out", preprocess=own)
    decode(model, people, tmp_path / "out", preprocess=own, allow_mismatch=["confounds"])
    assert table_path(tmp_path / "out", "21").exists()


def test_a_run_that_covers_few_parcels_is_refused_unless_it_is_allowed(
    model: Path, people: Study, tmp_path: Path
) -> None:
    mask = people.run("21").mask
    inside = np.asarray(nib.nifti1.load(mask).dataobj).copy()
    inside[:, :5] = 0
    write_image(mask, inside)
    said = refused(model, people, tmp_path / "out", participants=["21"])
    assert "parcels are covered by the brain mask, the decoder wants 80%" in said
    decode(model, people, tmp_path / "out", participants=["21"], allow_mismatch=["coverage"])
    assert table_path(tmp_path / "out", "21").exists()


def test_people_who_are_not_there_are_named(model: Path, people: Study, tmp_path: Path) -> None:
    assert "99" in refused(model, people, tmp_path / "out", participants=["99"])


def test_an_image_a_path_and_the_command_line_say_the_same(model: Path, people: Study, tmp_path: Path) -> None:
    decode(model, people, tmp_path / "out")
    files = people.run("21")
    decoder = Decoder.from_pretrained(model)
    of_path = decoder.decode(files.bold, events=files.events)
    of_image = decoder.decode(
        nib.nifti1.load(files.bold), events=files.events, confounds=files.confounds, mask=files.mask
    )
    pd.testing.assert_frame_equal(of_path, of_image)
    written = read_tsv(table_path(tmp_path / "out", "21"))
    columns = [f"p_{name}" for name in decoder.classes_]
    np.testing.assert_allclose(of_path[columns], written[columns], atol=0.51e-6)
    assert list(decoder.predict(str(files.bold), events=files.events)) == list(written["state"])


def test_an_image_without_its_confounds_is_refused(model: Path, people: Study) -> None:
    files = people.run("21")
    files.confounds.unlink()
    with pytest.raises(InputError, match="no confounds table"):
        Decoder.from_pretrained(model).decode(files.bold)


def test_sidecars_of_the_raw_data_time_the_frames(model: Path, people: Study, tmp_path: Path) -> None:
    files = people.run("21")
    table = read_tsv(files.events)
    table["onset"] += 1
    table.to_csv(files.events, sep="\t", index=False)
    sidecar = json.loads(files.sidecar.read_text())
    files.sidecar.write_text(json.dumps({**sidecar, "SliceTimingCorrected": True}))
    # Without slice times frame 0 is taken for that of half a repetition time, 1 s: one frame more lies before 7 s.
    decode(model, people, tmp_path / "before", participants=["21"])
    raw = files.events.with_name(files.events.name.replace("_events.tsv", "_bold.json"))
    raw.write_text(json.dumps({"SliceTiming": [0.1, 0.2, 0.3]}))
    decode(model, people, tmp_path / "after", participants=["21"])
    before, after = (read_tsv(table_path(tmp_path / name, "21")) for name in ("before", "after"))
    columns = [name for name in before if str(name).startswith("p_")]
    assert not np.allclose(before[columns], after[columns])
    found = Decoder.from_pretrained(model).decode(files.bold, events=files.events)
    np.testing.assert_allclose(found[columns], after[columns], atol=0.51e-6)


def test_an_image_without_its_mask_is_refused_unless_it_is_allowed(model: Path, people: Study) -> None:
    files = people.run("21")
    files.mask.unlink()
    with pytest.raises(InputError, match="no brain mask"):
        Decoder.from_pretrained(model).decode(files.bold)
    # In memory there is nothing beside it.
    with pytest.raises(InputError, match="no brain mask"):
        Decoder.from_pretrained(model).decode(nib.nifti1.load(files.bold), confounds=files.confounds)
    assert len(Decoder.from_pretrained(model, allow_mismatch=["mask"]).decode(files.bold))


def test_a_folder_without_any_events_is_said(
    model: Path, people: Study, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for path in people.bids.glob("sub-*/func/*_events.tsv"):
        path.unlink()
    decode(model, people, tmp_path / "out")
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warning.startswith("2 of 2 runs have no events table in ")


def test_events_of_hcp_lie_beside_the_images(tmp_path: Path) -> None:
    folder = tmp_path / "100307" / "MNINonLinear" / "Results" / "tfMRI_WM_LR"
    (folder / "EVs").mkdir(parents=True)
    names = ("session", "acquisition", "direction", "run", "mask", "confounds", "events")
    fields: dict[str, Any] = {**dict.fromkeys(names, ""), "t_r": 0.72, "n_volumes": 405}
    image = str(folder / "tfMRI_WM_LR.nii.gz")
    run = Run(dataset="new", subject="100307", task="WM", space=SPACE, key="k", bold=image, **fields)
    (found,), _ = with_events([run], tmp_path, is_hcp=True)
    assert found.events == str(folder / "EVs")
    (found,), _ = with_events([run], tmp_path, is_hcp=False)
    assert not found.events


def test_a_run_does_not_get_the_events_of_another_one(model: Path, people: Study, tmp_path: Path) -> None:
    # A second run without events of its own, beside a first one whose table has no run number.
    events = people.run("21").events
    assert events is not None
    without_number = events.name.replace("_run-1", "")
    events.rename(events.with_name(without_number))
    folder = people.run("21").bold.parent
    for path in sorted(folder.glob("sub-21_task-blocks_run-1_*")):
        shutil.copy(path, path.with_name(path.name.replace("_run-1", "_run-2")))
        path.rename(path.with_name(path.name.replace("_run-1", "")))
    decode(model, people, tmp_path / "out")
    plain = read_tsv(tmp_path / "out/sub-21/func" / f"sub-21_task-blocks_space-{SPACE}_desc-{LABEL}_decoding.tsv")
    assert "trial_type" in plain
    assert "trial_type" not in read_tsv(table_path(tmp_path / "out", "21", run="2"))


def test_a_run_with_several_equally_good_tables_of_events_is_named(
    model: Path, people: Study, tmp_path: Path
) -> None:
    events = people.run("21").events
    assert events is not None
    shutil.copy(events, events.with_name(events.name.replace("_task-blocks", "")))
    events.rename(events.with_name(events.name.replace("_run-1", "")))
    said = refused(model, people, tmp_path / "out")
    assert "ds-new_sub-21_task-blocks_run-1: several events tables" in said
    assert "remove all but one" in said
    assert not table_path(tmp_path / "out", "21").exists()
    assert table_path(tmp_path / "out", "22").exists()


def test_a_run_that_became_defective_leaves_no_results(model: Path, people: Study, tmp_path: Path) -> None:
    out = tmp_path / "out"
    decode(model, people, out)
    people.run("22").mask.unlink()
    decode(model, people, out, on_error="exclude")
    assert not table_path(out, "22").exists()
    assert "22" not in set(read_scores(out / SCORES)["subject"])


def test_a_run_with_a_padded_number_that_became_defective_leaves_no_results(
    model: Path, people: Study, tmp_path: Path
) -> None:
    for path in sorted(people.bids.rglob("sub-22_*run-1_*")):
        path.rename(path.with_name(path.name.replace("_run-1_", "_run-01_")))
    out = tmp_path / "out"
    decode(model, people, out)
    assert table_path(out, "22", run="01").exists()
    next(people.derivatives.rglob("sub-22_*run-01_*desc-brain_mask.nii.gz")).unlink()
    decode(model, people, out, on_error="exclude")
    assert not list(out.rglob("sub-22_*_decoding.*"))
    assert "22" not in set(read_scores(out / SCORES)["subject"])


def test_people_who_left_the_cohort_have_no_part_in_its_scores(model: Path, people: Study, tmp_path: Path) -> None:
    decode(model, people, tmp_path / "out")
    decode(model, people, tmp_path / "out", participants=["21"])
    assert table_path(tmp_path / "out", "22").exists()
    assert "22" not in set(read_scores(tmp_path / "out" / SCORES)["subject"])


def test_a_person_without_the_task_keeps_nobody_else_from_being_decoded(
    model: Path, people: Study, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for path in sorted(people.bids.rglob("sub-22_task-blocks_*")):
        path.rename(path.with_name(path.name.replace("task-blocks", "task-other")))
    for subject in ("21", "22"):
        decode(model, people, tmp_path / "out", participants=[subject], tasks=["blocks"], summary=False)
    assert "nothing to decode: " in caplog.text
    assert "asked for, but no image has it (found: other)" in caplog.text
    decode(model, people, tmp_path / "out", tasks=["blocks"])
    assert set(read_scores(tmp_path / "out" / SCORES)["subject"]) == {"all", "21"}
    # Asked for by name, in a call of its own, it is an error.
    assert "no image has it" in refused(model, people, tmp_path / "other", participants=["22"], tasks=["blocks"])


def test_thresholds_for_signals_hold_for_new_people_too(
    made: tuple[Path, Study], model: Path, people: Study, tmp_path: Path
) -> None:
    strict = tmp_path / "strict"
    shutil.copytree(model, strict)
    about, contract = read_about(strict)
    parcellate = about.parcellate.model_copy(update={"exclude": SignalExclusionOptions(median_tsnr=1e6)})
    write_about(strict, about.model_copy(update={"parcellate": parcellate}), contract)
    said = refused(strict, people, tmp_path / "out")
    assert "median tSNR" in said
    assert "is under 1e+06" in said


def test_states_that_the_decoder_does_not_know_are_named_whatever_labels_a_task_has(
    model: Path, people: Study, tmp_path: Path
) -> None:
    task = {"delay_s": 2.0, "labels": ["faces", "house", "rest", "tools"]}
    events = people.run("21").events
    assert events is not None
    table = pd.read_csv(events, sep="\t")
    table.loc[0, "trial_type"] = "tools"
    table.to_csv(events, sep="\t", index=False)
    assert "states outside the labels: tools" in refused(model, people, tmp_path / "out", task=task)


def test_ways_out_are_those_of_this_command(model: Path, people: Study, tmp_path: Path) -> None:
    events = people.run("21").events
    assert events is not None
    table = pd.read_csv(events, sep="\t")
    table.loc[0, "trial_type"] = "fcaes"
    table.to_csv(events, sep="\t", index=False)
    people.run("22").mask.unlink()
    said = refused(model, people, tmp_path / "out")
    assert "drop and rename in a YAML file for --task" in said
    assert "'fcaes' resembles 'faces'" in said
    assert "--without-mask whole_image" in said
    assert "datasets." not in said
    with pytest.raises(InputError, match="step_s 200 is longer than a window of"):
        decode(model, people, tmp_path / "other", events=None, step_s=200.0)


def test_an_atlas_that_is_left_out_has_to_be_given(
    made: tuple[Path, Study], model: Path, people: Study, tmp_path: Path
) -> None:
    package.run(source=made[0] / "results", output=tmp_path / "bare", include_atlas=False)
    assert not (tmp_path / "bare" / "atlas").exists()
    assert "--atlas" in refused(tmp_path / "bare", people, tmp_path / "out")
    decode(tmp_path / "bare", people, tmp_path / "out", atlas=str(people.atlas))
    assert table_path(tmp_path / "out", "21").exists()


def test_a_config_that_changed_since_the_training_is_refused(made: tuple[Path, Study], tmp_path: Path) -> None:
    root, _ = made
    config = tmp_path / "changed.yaml"
    text = (root / "config" / "config.yaml").read_text().replace("smoothing_fwhm_mm: null", "smoothing_fwhm_mm: 6")
    config.write_text(text)
    with pytest.raises(InputError, match=r"smoothing_fwhm_mm: None != 6\.0"):
        package.run(source=root / "results", output=tmp_path / "decoder", config=config)


def study_with_task(made: tuple[Path, Study], root: Path, **task: Any) -> Path:
    """Copy a study without its images, with another task in its config."""
    shutil.copytree(made[0], root, ignore=shutil.ignore_patterns("images", "cache", "decoder", "user_cache"))
    path = root / "config" / "config.yaml"
    content = yaml.safe_load(path.read_text())
    content["datasets"]["blocks"]["task"] = task
    path.write_text(yaml.safe_dump(content))
    return root


@pytest.mark.parametrize(
    ("task", "words"),
    [
        (
            {"delay_s": 4.0},
            r"in 4 of 4 runs, the first: ds-blocks_sub-01_task-blocks_run-1, trial 0: .* of frames",
        ),
        ({"window_s": [2.0, 8.0]}, "trial 0: .* of frames"),
        ({"delay_s": 2.0, "average": True}, "average: true, in training false"),
        ({"delay_s": 2.0, "rename": {"^": "new "}}, "trial 0: 'new "),
        ({"delay_s": 2.0, "minimum_frames": 6}, r"0 trials where training had \d+"),
        ({"delay_s": 2.0, "onset_column": "later"}, "has no column later"),
    ],
)
def test_a_task_that_changed_since_the_training_is_refused(
    made: tuple[Path, Study], tmp_path: Path, task: dict[str, Any], words: str
) -> None:
    root = study_with_task(made, tmp_path / "study", **task)
    with pytest.raises(InputError, match=words) as error:
        package.run(source=root / "results", output=tmp_path / "decoder")
    assert "--config" in error.value.problems[0].remedy
    assert not (tmp_path / "decoder").exists()
    package.run(source=root / "results", output=tmp_path / "decoder", config=made[0] / "config" / "config.yaml")


@pytest.mark.parametrize("absent", ["events", "shards", "both"])
def test_a_task_is_compared_with_what_is_left_of_the_training(
    made: tuple[Path, Study], tmp_path: Path, absent: str
) -> None:
    root = study_with_task(made, tmp_path / "study", delay_s=4.0)
    if absent != "shards":
        path = root / layout.RUNS.format(dataset="blocks")
        write_runs(path, [replace(run, events=f"{run.events}.gone") for run in read_runs(path)])
    if absent != "events":
        shutil.rmtree(root / "data")
    with pytest.raises(InputError, match="its task makes other trials"):
        package.run(source=root / "results", output=tmp_path / "decoder")
    package.run(source=root / "results", output=tmp_path / "decoder", config=made[0] / "config" / "config.yaml")


def test_blocks_that_were_merged_are_compared_as_one_trial(
    write_study: Callable[..., Study], tmp_path: Path
) -> None:
    study = write_study("merged", subjects=("01", "02", "03"), runs=("1",), n_volumes=50)
    for path in study.bids.rglob("*_events.tsv"):
        events = read_tsv(path)
        states = sorted(set(events["trial_type"]))
        # Rows of a state follow each other: A A B B A A ...
        write_tsv(path, events.assign(trial_type=[states[row // 2 % 2] for row in range(len(events))]))
    options = {"role": "downstream", "bids": str(study.bids), "derivatives": str(study.derivatives)}
    task = {"delay_s": 2.0, "merge_blocks": True}
    studies.image_study(tmp_path, study, datasets={"blocks": {**options, "task": task}})
    about = package.run(source=tmp_path / "results", output=tmp_path / "decoder")
    assert about.task is not None
    assert about.task.merge_blocks
    path = tmp_path / "config" / "config.yaml"
    path.write_text(path.read_text().replace("merge_blocks: true", "merge_blocks: false"))
    with pytest.raises(InputError, match=r"\d+ trials where training had \d+"):
        package.run(source=tmp_path / "results", output=tmp_path / "decoder")


def test_shards_that_were_written_anew_since_the_training_are_refused(
    made: tuple[Path, Study], tmp_path: Path
) -> None:
    root = study_with_task(made, tmp_path / "study", delay_s=2.0)
    path = root / "data" / "downstream" / "ds-blocks_sub-01.tar"
    write_shard(path, list(read_shard(path))[1:])
    with pytest.raises(InputError, match="not the trials that the decoder was trained with") as error:
        package.run(source=root / "results", output=tmp_path / "decoder")
    assert [problem.where for problem in error.value.problems] == [str(path)]
    # Those of a person who tests alone are of no importance here.
    shutil.copy(made[0] / "data" / "downstream" / path.name, path)
    other = path.with_name("ds-blocks_sub-03.tar")
    write_shard(other, list(read_shard(other))[1:])
    package.run(source=root / "results", output=tmp_path / "decoder")
