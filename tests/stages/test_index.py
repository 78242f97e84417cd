"""Stage index: run tables and labels."""

from __future__ import annotations

import gzip
import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from boldly import bids
from boldly.config import (
    AtlasOptions,
    DatasetOptions,
    DownstreamSplitOptions,
    IndexOptions,
    PreprocessOptions,
    TaskOptions,
)
from boldly.files import read_json
from boldly.provenance import Contract
from boldly.records import Event, InputError, Run, read_runs, read_trials
from boldly.samples.lfb_shards import write_lfb_shards
from boldly.samples.sample import Sample
from boldly.samples.shards import write_shard
from boldly.stages import index

Index = Callable[..., list[Run]]


@pytest.fixture
def run_index(tmp_path: Path) -> Index:
    """Return a function that indexes with defaults and returns the rows of the table."""

    def call(
        dataset_options: DatasetOptions, atlas: AtlasOptions | None = None, said: bool = False, **changes: Any
    ) -> Any:
        arguments: dict[str, Any] = {
            "options": IndexOptions(),
            "preprocess": PreprocessOptions(),
            "window_frames": 10,
            "atlas": atlas or AtlasOptions(path=str(next(tmp_path.rglob("atlas-*_dseg.nii.gz")))),
        }
        runs, labels = tmp_path / "index" / "x_runs.tsv", tmp_path / "index" / "x_labels.json"
        outputs: dict[str, Any] = {"runs": runs, "labels": labels}
        text = index.run(dataset="x", dataset_options=dataset_options, **outputs, **(arguments | changes))
        return text if said else read_runs(runs)

    return call


def labels(tmp_path: Path) -> list[str]:
    return read_json(tmp_path / "index" / "x_labels.json")["labels"]


class TestRows:
    def test_every_run_has_one_row_with_its_files(self, study, run_index):
        rows = run_index(study.dataset_options())
        assert [row.key for row in rows] == [
            f"ds-x_sub-{subject}_task-blocks_run-{number}" for subject in ("01", "02") for number in (1, 2)
        ]
        files = study.run("02", run="2")
        row = rows[-1]
        assert (row.bold, row.mask, row.confounds, row.events) == tuple(
            map(str, (files.bold, files.mask, files.confounds, files.events))
        )
        assert (row.t_r, row.n_volumes, row.status, row.reason) == (2.0, 40, "ok", "")
        assert (row.subject, row.task, row.run, row.session) == ("02", "blocks", "2", "")

    def test_upstream_runs_have_neither_events_nor_labels(self, study, run_index, tmp_path):
        rows = run_index(study.dataset_options("upstream"))
        assert {row.events for row in rows} == {""}
        assert labels(tmp_path) == []

    def test_labels_of_downstream_are_written_in_alphabetical_order(self, study, run_index, tmp_path):
        run_index(study.dataset_options())
        assert labels(tmp_path) == ["faces", "house", "rest"]

    def test_fixed_labels_keep_their_order(self, study, run_index, tmp_path):
        run_index(study.dataset_options(task=TaskOptions(labels=["rest", "house", "faces"])))
        assert labels(tmp_path) == ["rest", "house", "faces"]

    def test_sessions_are_found(self, write_study, run_index):
        rows = run_index(write_study(sessions=("pre", "post"), runs=("",)).dataset_options())
        assert rows[0].key == "ds-x_sub-01_ses-post_task-blocks"
        assert len(rows) == 4

    def test_one_person_is_split_by_run_or_an_error_before_any_long_job(self, write_study, run_index):
        study = write_study(subjects=("01",))
        message = "one person, sub-01 with 2 runs, and the split is by subject.*\n.*\n.*by: run"
        with pytest.raises(InputError, match=message):
            run_index(study.dataset_options(split=DownstreamSplitOptions()))
        assert len(run_index(study.dataset_options(split=DownstreamSplitOptions(by="run")))) == 2
        with pytest.raises(InputError, match="one run alone"):
            run_index(write_study("y", subjects=("01",), runs=("1",)).dataset_options(split={"by": "run"}))

    def test_a_split_that_the_people_do_not_allow_is_said_before_anything_is_prepared(
        self, write_study, run_index
    ):
        study = write_study(subjects=("01", "02", "03", "04"))
        sizes = {"train": [1, 3], "validation": 1, "test": 2}
        message = (
            "4 subjects are usable; 2 for test and 1 for validation leave 1 for training, but train asks for 3"
        )
        with pytest.raises(InputError, match=message):
            run_index(study.dataset_options(split=sizes))
        assert run_index(study.dataset_options(split={**sizes, "train": [1]}))
        assert run_index(study.dataset_options(split={"train": [1, 3], "test": "leave_one_out"}))

    def test_uncompressed_images_are_read(self, write_study, run_index):
        rows = run_index(write_study(extension=".nii").dataset_options())
        assert {row.n_volumes for row in rows} == {40}

    def test_subjects_and_tasks_can_be_chosen(self, write_study, run_index):
        study = write_study(subjects=("01", "02", "03"), tasks=("blocks", "other"), runs=("",))
        rows = run_index(study.dataset_options(subjects=["sub-01", "03"], tasks=["other"]))
        assert [(row.subject, row.task) for row in rows] == [("01", "other"), ("03", "other")]

    def test_an_earlier_table_of_problems_is_removed(self, study, run_index, tmp_path):
        problems = tmp_path / "index" / "x_problems.tsv"
        problems.parent.mkdir()
        problems.write_text("file\n")
        run_index(study.dataset_options())
        assert not problems.exists()


class TestNames:
    def test_padded_run_numbers_find_their_files(self, write_study, run_index):
        # Defect 8.3 of the reference system: run-01 never matched its confounds.
        rows = run_index(write_study(runs=("01", "02")).dataset_options())
        assert rows[0].key.endswith("run-1")
        assert rows[0].run == "01"
        assert "run-01" in rows[0].confounds

    @pytest.mark.parametrize(("version", "status"), [("20.2.0", "error"), ("20.2.1", "ok")])
    def test_a_sheared_source_excludes_the_runs_of_the_version_that_mangles_it(
        self, write_study, run_index, version, status
    ):
        options = write_study(runs=("01", "02")).dataset_options()
        about = {"Name": "x", "BIDSVersion": "1.6.0", "GeneratedBy": [{"Name": "fMRIPrep", "Version": version}]}
        (Path(options.derivatives) / "dataset_description.json").write_text(json.dumps(about))
        affine = np.diag([2.0, 2, 2, 1])
        affine[0, 2] = 0.3
        row = run_index(options)[0]
        source = Path(row.events.replace("_events.tsv", "_bold.nii.gz"))
        nib.save(nib.Nifti1Image(np.zeros((2, 2, 2, 2), np.int16), affine), source)
        rows = run_index(options, options=IndexOptions(on_error="exclude"))
        assert [row.status for row in rows if row.run == "02"] == ["ok"] * sum(row.run == "02" for row in rows)
        found = next(other for other in rows if other.key == row.key)
        assert found.status == status
        assert ("sheared" in found.reason) == (status != "ok")

    def test_run_1_does_not_take_the_files_of_run_10(self, write_study, run_index):
        # Defect 8.3: names were compared as substrings.
        study = write_study(subjects=("01", "011"), runs=("1", "10", "11"))
        for row in run_index(study.dataset_options()):
            for path in (row.bold, row.mask, row.confounds, row.events):
                found = bids.entities(Path(path).name)
                assert (found["sub"], found["run"]) == (row.subject, row.run)

    def test_events_and_confounds_may_spell_the_run_differently(self, study, run_index):
        files = study.run()
        for path in (files.events, files.confounds):
            path.rename(path.with_name(path.name.replace("run-1", "run-01")))
        rows = run_index(study.dataset_options())
        assert "run-01_events" in rows[0].events
        assert "run-01_desc-confounds" in rows[0].confounds

    def test_old_names_of_confounds_are_found_and_new_ones_preferred(self, write_study, run_index):
        study = write_study(old_confounds=True)
        old = study.run().confounds
        new = old.with_name(old.name.replace("_regressors", "_timeseries"))
        shutil.copy(old, new)
        rows = run_index(study.dataset_options())
        assert (rows[0].confounds, rows[1].confounds) == (str(new), str(study.run(run="2").confounds))

    def test_products_of_other_kinds_beside_are_ignored(self, study, run_index):
        files = study.run()
        prefix = files.bold.name.split("_space-")[0]
        for name in (
            "space-fsLR_den-91k_bold.dtseries.nii",
            "hemi-L_space-fsaverage_bold.func.gii",
            "space-MNI152NLin2009cAsym_desc-smoothAROMAnonaggr_bold.nii.gz",
            "space-MNI152NLin6Asym_desc-preproc_bold.nii.gz",
            "space-MNI152NLin6Asym_desc-brain_mask.nii.gz",
            "space-T1w_desc-preproc_bold.nii.gz",
            "desc-preproc_bold.nii.gz",
            "echo-1_desc-preproc_bold.nii.gz",
            "space-MNI152NLin2009cAsym_boldref.nii.gz",
            "desc-confounds_timeseries.html",
        ):
            files.bold.with_name(f"{prefix}_{name}").write_bytes(b"not looked at")
        rows = run_index(study.dataset_options())
        assert [row.status for row in rows] == ["ok"] * 4
        assert rows[0].bold == str(files.bold)

    def test_aroma_images_are_taken_where_the_strategy_says_so(self, write_study, run_index):
        study = write_study(space="MNI152NLin6Asym", resolution="2")
        options = study.dataset_options(space="MNI152NLin6Asym")
        aroma = PreprocessOptions(strategy=["wm_csf", "ica_aroma"], ica_aroma="full")
        with pytest.raises(InputError, match=r"no ICA-AROMA image(?s:.*)23\.1 and newer no longer run it"):
            run_index(options, preprocess=aroma)
        for files in study.files.values():
            # As fMRIPrep 20.2 spells it: no resolution in the image's name, but in that of the mask.
            name = files.bold.name.replace("_res-2_desc-preproc", "_desc-smoothAROMAnonaggr")
            shutil.copy(files.bold, files.bold.with_name(name))
        rows = run_index(options, preprocess=aroma)
        assert all("_desc-smoothAROMAnonaggr_bold" in row.bold and row.status == "ok" for row in rows)
        assert [row.mask for row in rows] == [str(files.mask) for files in study.files.values()]
        assert all("_desc-preproc_bold" in row.bold for row in run_index(options))

    def test_a_run_without_its_aroma_image_is_named(self, study, run_index):
        first, *others = study.files.values()
        for files in others:
            files.bold.rename(files.bold.with_name(files.bold.name.replace("preproc", "smoothAROMAnonaggr")))
        aroma = PreprocessOptions(strategy=["ica_aroma"], ica_aroma="full")
        rows = run_index(study.dataset_options(), options=IndexOptions(on_error="exclude"), preprocess=aroma)
        assert [row.status for row in rows] == ["error", "ok", "ok", "ok"]
        assert "no ICA-AROMA image" in rows[0].reason
        assert first.bold.exists()

    def test_the_resolution_chooses_between_images_and_masks(self, write_study, run_index):
        study = write_study(resolution="2")
        for path in list(study.derivatives.rglob("*_res-2_*")):
            shutil.copy(path, path.with_name(path.name.replace("res-2", "res-1")))
        rows = run_index(study.dataset_options(resolution="2"))
        assert all("_res-2_" in row.bold and "_res-2_" in row.mask for row in rows)

    def test_an_empty_resolution_chooses_the_image_without_the_entity(self, study, run_index):
        bold = study.run().bold
        shutil.copy(bold, bold.with_name(bold.name.replace("_desc", "_res-2_desc")))
        assert run_index(study.dataset_options(resolution=""))[0].bold == str(bold)


class TestEntities:
    """Files belong together by all entities of BIDS, and by its inheritance."""

    def variants(self, study: Any, *spellings: str) -> None:
        """Give the files of run 1 of the first subject other names, one copy for each spelling."""
        files = study.run()
        for spelling in spellings:
            for path in (files.bold, files.mask, files.sidecar, files.confounds, files.confounds_json):
                shutil.copy(path, path.with_name(path.name.replace("_run-1", spelling)))
        for path in (files.bold, files.mask, files.sidecar, files.confounds, files.confounds_json):
            path.unlink()

    def test_two_reconstructions_are_two_runs_with_files_of_their_own(self, study, run_index, caplog):
        self.variants(study, "_rec-dis_run-1", "_rec-norm_run-1")
        rows = run_index(study.dataset_options())
        assert [row.key for row in rows[:2]] == [
            "ds-x_sub-01_task-blocks_rec-dis_run-1", "ds-x_sub-01_task-blocks_rec-norm_run-1",
        ]  # fmt: skip
        for row, rec in zip(rows, ("dis", "norm"), strict=False):
            assert row.reconstruction == rec
            assert all(f"_rec-{rec}_" in path for path in (row.bold, row.mask, row.confounds))
            # The events were recorded once.
            assert row.events == str(study.run().events)
        assert "1 recordings are there in several reconstructions" in caplog.text

    def test_one_of_them_can_be_chosen(self, study, run_index, caplog):
        self.variants(study, "_rec-dis_run-1", "_rec-norm_run-1")
        rows = run_index(study.dataset_options(filters={"reconstruction": ["norm", None]}))
        assert [row.reconstruction for row in rows] == ["norm", "", "", ""]
        assert "several reconstructions" not in caplog.text

    def test_the_magnitude_and_contrast_agents_are_part_of_the_key(self, study, run_index):
        self.variants(study, "_ce-gd_run-1_part-mag")
        row = run_index(study.dataset_options())[0]
        assert (row.key, row.status) == ("ds-x_sub-01_task-blocks_ce-gd_run-1_part-mag", "ok")

    def test_single_echoes_without_the_combined_image_are_no_runs_but_one_can_be_chosen(self, study, run_index):
        self.variants(study, "_run-1_echo-1", "_run-1_echo-2")
        with pytest.raises(InputError, match=r"single echoes of one recording \(echo-1, echo-2\)") as caught:
            run_index(study.dataset_options())
        assert len(caught.value.problems) == 2
        rows = run_index(study.dataset_options(filters={"echo": [2, None]}))
        assert rows[0].key == "ds-x_sub-01_task-blocks_run-1_echo-2"
        assert [row.status for row in rows] == ["ok"] * 4

    def test_a_folder_without_any_events_is_perhaps_the_wrong_one(self, study, run_index):
        one = study.run("01", run="1").events
        one.unlink()
        with pytest.raises(InputError) as caught:
            run_index(study.dataset_options())
        assert "bids right" not in caught.value.problems[0].remedy
        for path in study.bids.rglob("*_events.tsv"):
            path.unlink()
        with pytest.raises(InputError, match=r"is datasets\.x\.bids right\? No run has one there"):
            run_index(study.dataset_options())

    @pytest.mark.parametrize(
        "name", ["task-blocks_events.tsv", "sub-01/sub-01_task-blocks_events.tsv", "task-blocks_run-01_events.tsv"]
    )
    def test_events_are_inherited_from_above(self, study, run_index, name):
        files = study.run()
        shutil.move(files.events, study.bids / name)
        rows = run_index(study.dataset_options())
        assert [row.events for row in rows[:2]] == [str(study.bids / name), str(study.run(run="2").events)]

    def test_events_of_a_subject_go_before_those_of_all(self, study, run_index):
        shutil.copy(study.run().events, study.bids / "task-blocks_events.tsv")
        study.run(run="2").events.unlink()
        rows = run_index(study.dataset_options())
        assert [Path(row.events).parent.name for row in rows] == ["func", study.bids.name, "func", "func"]

    def test_a_run_does_not_take_the_table_of_another_recording(self, study, run_index):
        # task-blocks and task-blocks_run-2: the confounds of the first are not those of the second.
        self.variants(study, "")
        study.run(run="2").confounds.unlink()
        rows = run_index(study.dataset_options("upstream"), options=IndexOptions(on_error="exclude"))
        assert [(row.key[-6:], row.status) for row in rows[:2]] == [("blocks", "ok"), ("_run-2", "error")]
        assert "no confounds table" in rows[1].reason


class TestRepetitionTime:
    def set_sidecars(self, study: Any, content: dict[str, Any] | None) -> None:
        for files in study.files.values():
            files.sidecar.unlink() if content is None else files.sidecar.write_text(json.dumps(content))

    def test_each_run_has_its_own(self, study, run_index):
        # Defect 8.2 of the reference system: the first run's t_r served for the whole dataset.
        files = study.run("02", run="1")
        image: Any = nib.load(files.bold)
        image.header.set_zooms((4.0, 4.0, 4.0, 1.5))
        nib.save(image, files.bold)
        files.sidecar.write_text('{"RepetitionTime": 1.5}')
        assert [row.t_r for row in run_index(study.dataset_options())] == [2.0, 2.0, 1.5, 2.0]

    def test_without_a_sidecar_it_is_that_of_the_header(self, write_study, run_index):
        study = write_study(t_r=0.8)
        self.set_sidecars(study, None)
        assert {row.t_r for row in run_index(study.dataset_options())} == {0.8}

    def test_a_header_in_milliseconds_is_understood(self, study, run_index):
        for files in study.files.values():
            image: Any = nib.load(files.bold)
            image.header.set_zooms((4.0, 4.0, 4.0, 2000.0))
            image.header.set_xyzt_units("mm", "msec")
            nib.save(image, files.bold)
        assert {row.t_r for row in run_index(study.dataset_options())} == {2.0}

    def test_a_placeholder_alone_is_no_repetition_time(self, study, run_index):
        self.set_sidecars(study, None)
        for files in study.files.values():
            image: Any = nib.load(files.bold)
            nib.save(nib.Nifti1Image(np.asarray(image.dataobj), image.affine), files.bold)
        with pytest.raises(
            InputError, match="no repetition time, neither in a JSON sidecar nor in the image header"
        ):
            run_index(study.dataset_options())

    @pytest.mark.parametrize("placeholder", [0.0, 1.0])
    def test_a_header_with_a_placeholder_yields_to_the_sidecar(self, study, run_index, placeholder):
        for files in study.files.values():
            image: Any = nib.load(files.bold)
            image.header["pixdim"][4] = placeholder
            nib.save(image, files.bold)
        assert {row.t_r for row in run_index(study.dataset_options())} == {2.0}

    def test_it_is_rounded_to_five_decimals(self, study, run_index):
        self.set_sidecars(study, {"RepetitionTime": 2.000000001})
        assert {row.t_r for row in run_index(study.dataset_options())} == {2.0}

    def test_a_sidecar_of_the_raw_dataset_is_inherited(self, study, run_index):
        self.set_sidecars(study, {"TaskName": "blocks"})
        (study.bids / "task-blocks_bold.json").write_text('{"RepetitionTime": 2.0}')
        (study.bids / "task-other_bold.json").write_text('{"RepetitionTime": 9.0}')
        func = study.run("02").events.parent
        (func / "sub-02_task-blocks_run-02_bold.json").write_text('{"RepetitionTime": 2.0004}')
        rows = run_index(study.dataset_options())
        assert [row.t_r for row in rows] == [2.0, 2.0, 2.0, 2.0004]


class TestStartTime:
    """Where frame 0 lies: fMRIPrep says to which moment slice timing was corrected."""

    def rows(self, study: Any, run_index: Index, **content: Any) -> list[Run]:
        for files in study.files.values():
            files.sidecar.write_text(json.dumps({"RepetitionTime": 2.0, **content}))
        return run_index(study.dataset_options())

    def test_the_sidecar_of_the_image_says_it(self, study, run_index):
        rows = self.rows(study, run_index, SliceTimingCorrected=True, StartTime=0.955)
        assert {row.start_time for row in rows} == {0.955}

    @pytest.mark.parametrize("content", [{}, {"SliceTimingCorrected": False}])
    def test_without_a_correction_frame_0_lies_at_the_onset_of_its_volume(self, study, run_index, content):
        assert {row.start_time for row in self.rows(study, run_index, **content)} == {0.0}

    def test_older_fmriprep_corrects_to_the_middle_slice_without_saying_so(self, study, run_index, caplog):
        # Slices from 0 to 1.8 s: the middle is 0.9 s. The raw sidecar's own StartTime is about something else.
        raw = {"RepetitionTime": 2.0, "SliceTiming": [0, 0.6, 1.2, 1.8], "StartTime": 7}
        (study.bids / "sub-01" / "sub-01_task-blocks_bold.json").write_text(json.dumps(raw))
        rows = self.rows(study, run_index, SliceTimingCorrected=True)
        # Without the times of slices half a repetition time is as near as one can get.
        assert [row.start_time for row in rows] == [0.9, 0.9, 1.0, 1.0]
        assert "sub-01_task-blocks_run-1 and 3 more: slice timing was corrected, and no StartTime" in caplog.text

    @pytest.mark.parametrize("value", ["0.9", -0.5, True, 900])
    def test_a_time_that_cannot_be_is_refused(self, study, run_index, value):
        # 900 ms would be after the end of a run of 80 s.
        with pytest.raises(InputError, match=f"StartTime is {value!r}"):
            self.rows(study, run_index, StartTime=value)


class TestTrials:
    def events(self, tmp_path: Path) -> list[Event]:
        return read_trials(tmp_path / "index" / "x_trials.tsv")

    def test_the_table_has_every_event_of_every_run(self, study, run_index, tmp_path):
        rows = run_index(study.dataset_options())
        events = self.events(tmp_path)
        # Blocks of 10 s every 12 s from 4 s in 80 s: 6 in each of 4 runs.
        assert Counter(event.key for event in events) == {row.key: 6 for row in rows}
        assert [(e.onset, e.trial, e.first, e.stop) for e in events[:2]] == [(4, 0, 2, 7), (16, 1, 8, 13)]

    def test_the_terminal_tells_what_the_trials_are(self, study, run_index):
        study.run().events.write_text("onset\tduration\ttrial_type\n4\t10\tfaces\n20\t10\tfcaes\n40\t0\tpress\n")
        said = run_index(study.dataset_options(), said=True)
        assert "x: 20 trials of 4 states, in 4 runs of 2 people" in said
        assert "rare: 'fcaes', 1 trial of 1 person; misspelt for 'faces'?" in said
        assert "1 event is no trial, no duration: press (1)" in said
        assert "the task has no delay_s" in said
        assert run_index(study.dataset_options("upstream"), said=True) == ""

    def test_upstream_has_an_empty_table(self, study, run_index, tmp_path):
        run_index(study.dataset_options("upstream"))
        assert self.events(tmp_path) == []

    def test_events_of_runs_that_are_not_used_stand_there_with_the_reason(self, study, run_index, tmp_path):
        study.run().bold.write_bytes(b"")
        run_index(study.dataset_options(), options=IndexOptions(on_error="exclude"))
        events = self.events(tmp_path)[:6]
        assert {event.trial for event in events} == {None}
        # The reason is not that they lie outside a run whose length nobody knows.
        assert {event.reason for event in events} == {"run is not used: the image is empty (0 bytes)"}

    def test_events_of_a_run_that_is_excluded_by_hand_say_so(self, study, run_index, tmp_path):
        said = run_index(study.dataset_options(exclude_runs={"sub-01_run-1": "asleep"}), said=True)
        events = self.events(tmp_path)[:6]
        assert {event.reason for event in events} == {"run is not used: excluded in the config: asleep"}
        assert "6 events are no trials, run is not used: " in said

    def test_events_that_cannot_be_placed_do_not_vanish(self, study, run_index, tmp_path):
        study.run().events.write_text("onset\tduration\ttrial_type\n4\tn/a\tfaces\n20\t10\thouse\n")
        run_index(study.dataset_options(), options=IndexOptions(on_error="exclude"))
        found = [(e.event, e.onset, e.trial, e.status) for e in self.events(tmp_path)[:2]]
        assert found == [("faces", 4, None, "excluded"), ("house", 20, None, "excluded")]
        assert "the row of 'faces' at 4 s has no duration" in self.events(tmp_path)[1].reason

    def test_the_log_says_why_runs_are_not_used(self, study, run_index, caplog):
        caplog.set_level("INFO")
        run_index(study.dataset_options(exclude_runs={"sub-01_run-1": "asleep"}))
        assert "x: 3 runs of 2 people are used; 1 not: 1 x excluded in the config: asleep" in caplog.text

    def test_trials_are_placed_in_the_frames_that_shards_have(self, study, run_index, tmp_path):
        run_index(study.dataset_options(), t_r_s=4.0)
        # 4 <= t < 14 s: frames at 4, 8 and 12 s.
        assert [(e.first, e.stop, e.t_r) for e in self.events(tmp_path)[:1]] == [(1, 4, 4.0)]

    def test_frames_are_those_after_the_time_of_frame_0(self, study, run_index, tmp_path):
        for files in study.files.values():
            files.sidecar.write_text('{"RepetitionTime": 2.0, "StartTime": 1.0}')
        run_index(study.dataset_options(task=TaskOptions(delay_s=5.5)))
        # 9.5 <= 1 + 2 i < 19.5 s; without the time of frame 0 it would be frames 5 to 9.
        assert [(e.first, e.stop) for e in self.events(tmp_path)[:1]] == [(5, 10)]

    def test_trials_that_overlap_stop_the_dataset_until_something_is_decided(self, study, run_index, tmp_path):
        study.run().events.write_text("onset\tduration\ttrial_type\n4\t20\tfaces\n20\t10\thouse\n")
        with pytest.raises(InputError, match="2 events share frames with events of another state"):
            run_index(study.dataset_options())
        run_index(study.dataset_options(task=TaskOptions(overlaps="allow")))
        assert [event.trial for event in self.events(tmp_path)[:2]] == [0, 1]


class TestExclusion:
    def test_short_runs_stand_in_the_table_with_the_reason(self, write_study, run_index):
        long, short = write_study(), write_study("short", subjects=("03",), runs=("1",), n_volumes=12)
        shutil.copytree(short.derivatives / "sub-03", long.derivatives / "sub-03")
        shutil.copytree(short.bids / "sub-03", long.bids / "sub-03")
        rows = run_index(long.dataset_options(), long.atlas_options(), window_frames=20)
        assert [row.status for row in rows] == ["ok"] * 4 + ["excluded"]
        assert rows[-1].reason == "12 volumes, fewer than 20"

    def test_a_run_without_any_trial_is_excluded(self, study, run_index):
        study.run().events.write_text("onset\tduration\ttrial_type\n500\t10\tfaces\n")
        rows = run_index(study.dataset_options())
        assert (rows[0].status, rows[0].reason) == ("excluded", "no trial (1 x outside the run)")

    def test_defective_runs_can_be_excluded_instead_of_stopping(self, study, run_index, tmp_path):
        study.run().bold.write_bytes(b"")
        study.run("02").events.unlink()
        rows = run_index(study.dataset_options(), options=IndexOptions(on_error="exclude"))
        assert [row.status for row in rows] == ["error", "ok", "error", "ok"]
        assert "empty" in rows[0].reason
        assert rows[0].bold == str(study.run().bold)
        table = pd.read_csv(tmp_path / "index" / "x_problems.tsv", sep="\t")
        assert list(table["entity"]) == [rows[0].key, rows[2].key]

    def test_a_dataset_of_excluded_runs_only_is_an_error(self, study, run_index):
        with pytest.raises(InputError, match=r"not one of 4 runs is usable: 4 x 40 volumes, fewer than 50"):
            run_index(study.dataset_options(), window_frames=50)

    def test_a_table_without_confounds_will_do_where_none_are_used(self, study, run_index):
        for files in study.files.values():
            files.confounds.unlink()
        rows = run_index(study.dataset_options(), preprocess=PreprocessOptions(strategy=[]))
        assert {(row.status, row.confounds) for row in rows} == {("ok", "")}


class TestImages:
    def test_a_file_of_several_gzip_members_is_sound(self, study, run_index):
        bold = study.run().bold
        content = gzip.decompress(bold.read_bytes())
        bold.write_bytes(gzip.compress(content[:1000]) + gzip.compress(content[1000:]))
        assert run_index(study.dataset_options())[0].status == "ok"

    def test_an_atlas_on_another_grid_overlaps_by_its_affine(self, study, run_index, tmp_path):
        # 3 mm voxels, axes flipped: the same region of space in other numbers.
        near = np.diag([-3.0, 3.0, 3.0, 1.0])
        near[:3, 3] = [6.0, -6.0, -6.0]
        nib.save(nib.Nifti1Image(np.ones((5, 5, 5), np.int16), near), tmp_path / "near_dseg.nii.gz")
        rows = run_index(study.dataset_options(), AtlasOptions(path=str(tmp_path / "near_dseg.nii.gz")))
        assert {row.status for row in rows} == {"ok"}

    def test_maps_overlap_if_one_of_them_does(self, study, run_index, tmp_path):
        atlas: Any = nib.load(study.atlas)
        maps = np.zeros((8, 9, 8, 20), np.float32)
        maps[4, 4, 4, 17] = 0.5
        nib.save(nib.Nifti1Image(maps, atlas.affine), tmp_path / "far_probseg.nii.gz")
        rows = run_index(study.dataset_options(), AtlasOptions(path=str(tmp_path / "far_probseg.nii.gz")))
        assert {row.status for row in rows} == {"ok"}


def sample(subject: str, task: str, label: int | None = None, number: int = 0, frames: int = 30) -> Sample:
    run_key = f"ds-x_sub-{subject}_task-{task}_run-1"
    names = ["face", "house"]
    meta: dict[str, Any] = {
        "dataset": "x", "subject": subject, "run_key": run_key, "entities": {}, "t_r": 0.72, "n_volumes": frames,
        "marked": [],
    }  # fmt: skip
    if label is not None:
        meta |= {"number": number, "label": label, "label_name": names[label], "labels": names}
    contract = Contract("a", "0" * 64, 3, "MNI152NLin2009cAsym", {}, None, None, None, False, "zscore")
    key = run_key if label is None else bids.sample_key(run_key, number)
    return Sample(
        key, np.ones((frames, 3), np.float16), np.ones(3, np.float32), np.ones(3, np.float32), meta, contract
    )


class TestReadyMadeShards:
    def options(self, folder: Path, role: str = "upstream", **changes: Any) -> DatasetOptions:
        return DatasetOptions.model_validate({"role": role, "shards": str(folder), **changes})

    def test_runs_come_from_the_keys_of_the_tars(self, tmp_path, run_index):
        for subject in ("01", "02"):
            write_shard(tmp_path / bids.shard_name("x", subject), [sample(subject, "rest"), sample(subject, "wm")])
        rows = run_index(self.options(tmp_path), AtlasOptions(path="not looked at"))
        assert [row.key for row in rows][:2] == ["ds-x_sub-01_task-rest_run-1", "ds-x_sub-01_task-wm_run-1"]
        assert {(row.bold, row.t_r, row.n_volumes, row.space) for row in rows} == {
            ("", 0.72, 30, "MNI152NLin2009cAsym")
        }

    def test_trials_of_a_run_give_one_row_and_the_labels(self, tmp_path, run_index):
        trials = [sample("01", "wm", label=i, number=i, frames=8) for i in (0, 1)]
        write_shard(tmp_path / bids.shard_name("x", "01"), trials)
        rows = run_index(self.options(tmp_path, "downstream"), AtlasOptions(path="not looked at"))
        assert [(row.key, row.n_volumes, row.status) for row in rows] == [("ds-x_sub-01_task-wm_run-1", 16, "ok")]
        assert labels(tmp_path) == ["face", "house"]
        found = read_trials(tmp_path / "index" / "x_trials.tsv")
        assert [(event.label, event.trial, event.n_frames) for event in found] == [("face", 0, 8), ("house", 1, 8)]

    def test_tars_of_single_runs_are_read_as_well(self, tmp_path, run_index):
        # LfB writes one for each run, with pickled arrays.
        write_lfb_shards(tmp_path, [sample("01", "rest"), sample("01", "wm"), sample("02", "rest")])
        assert len(list(tmp_path.glob("*.tar"))) == 3
        rows = run_index(self.options(tmp_path, subjects=["01"]), AtlasOptions(path="not looked at"))
        assert [(row.subject, row.task, row.run, row.t_r) for row in rows] == [
            ("01", "rest", "1", 0.72),
            ("01", "wm", "1", 0.72),
        ]

    def test_short_runs_are_excluded(self, tmp_path, run_index):
        write_shard(tmp_path / bids.shard_name("x", "01"), [sample("01", "a"), sample("01", "b", frames=5)])
        rows = run_index(self.options(tmp_path), AtlasOptions(path="not looked at"))
        assert [row.status for row in rows] == ["ok", "excluded"]


class TestRealData:
    def test_the_haxby_slice_has_12_runs_of_8_trials(self, haxby, run_index, tmp_path):
        task = TaskOptions(delay_s=5)
        options = DatasetOptions(
            role="downstream",
            bids=str(haxby),
            derivatives=str(haxby / "derivatives/fmriprep"),
            space="T1w",
            task=task,
        )
        rows = run_index(
            options,
            AtlasOptions(path=str(haxby / "atlas-slice64_dseg.nii.gz")),
            preprocess=PreprocessOptions(strategy=["motion", "global_signal"]),
        )
        assert [row.status for row in rows] == ["ok"] * 12
        assert {(row.t_r, row.n_volumes) for row in rows} == {(2.5, 121)}
        names = labels(tmp_path)
        assert names == ["bottle", "cat", "chair", "face", "house", "scissors", "scrambledpix", "shoe"]
        events = read_trials(tmp_path / "index" / "x_trials.tsv")
        for row in rows:
            found = [event for event in events if event.key == row.key]
            assert sorted(event.label for event in found if event.trial is not None) == names
            # Blocks of 22.5 s at 2.5 s per frame.
            assert {event.n_frames for event in found} == {9}

    def test_without_white_matter_columns_the_default_strategy_is_refused(self, haxby, run_index):
        options = DatasetOptions(role="upstream", derivatives=str(haxby / "derivatives/fmriprep"), space="T1w")
        with pytest.raises(InputError, match=r"drop wm_csf from preprocess\.strategy") as caught:
            run_index(options, AtlasOptions(path=str(haxby / "atlas-slice64_dseg.nii.gz")))
        assert len(caught.value.problems) == 12


class TestChoice:
    def test_filters_choose_runs_by_any_entity(self, write_study, run_index):
        study = write_study(sessions=("pre", "post"), tasks=("blocks", "other"), runs=("01", "02"))
        options = study.dataset_options(filters={"session": "pre", "run": [2], "task": ["blocks", "rest"]})
        with pytest.raises(InputError, match=r"filters.task: no run has 'rest' \(found: blocks, other\)"):
            run_index(options)
        rows = run_index(study.dataset_options(filters={"ses": "pre", "run": 2, "task": "blocks"}))
        assert [(row.session, row.task, row.run) for row in rows] == [("pre", "blocks", "02")] * 2

    def test_null_stands_for_runs_without_the_entity(self, write_study, run_index):
        study = write_study(runs=("", "2"))
        assert {row.run for row in run_index(study.dataset_options(filters={"run": [None]}))} == {""}
        assert len(run_index(study.dataset_options(filters={"run": [None, 2]}))) == 4
        with pytest.raises(InputError, match=r"filters.session: no run has 'pre' \(found: none at all\)"):
            run_index(study.dataset_options(filters={"session": "pre"}))

    def test_filters_that_no_run_passes_together_are_an_error(self, write_study, run_index):
        study = write_study(tasks=("blocks",), runs=("1",))
        other = write_study("study", tasks=("other",), runs=("2",))
        assert study.derivatives == other.derivatives
        with pytest.raises(InputError, match="no run has all that the filters ask for"):
            run_index(study.dataset_options(filters={"task": "blocks", "run": 2}))

    def test_a_run_excluded_by_hand_has_a_row_with_the_reason_and_is_not_read(self, study, run_index):
        study.run("01", run="2").bold.write_bytes(b"")
        reasons = {"sub-01_task-blocks_run-02": "the scanner stopped"}
        rows = run_index(study.dataset_options(exclude_runs=reasons))
        assert [row.status for row in rows] == ["ok", "excluded", "ok", "ok"]
        assert rows[1].reason == "excluded in the config: the scanner stopped"

    def test_a_shorter_key_excludes_all_runs_that_have_its_entities(self, study, run_index):
        rows = run_index(study.dataset_options(exclude_runs={"ds-x_sub-02": "asleep"}))
        assert [row.status for row in rows] == ["ok", "ok", "excluded", "excluded"]

    def test_an_exclusion_that_no_run_has_is_an_error(self, study, run_index):
        with pytest.raises(InputError, match="exclude_runs: no run 'sub-01_run-7'") as caught:
            run_index(study.dataset_options(exclude_runs={"sub-01_run-7": "x", "nonsense": "x"}))
        assert len(caught.value.problems) == 2

    def test_runs_of_ready_made_shards_cannot_be_chosen(self):
        with pytest.raises(ValueError, match="ready-made shards are taken whole"):
            DatasetOptions(role="upstream", shards="tars", exclude_runs={"sub-01": "x"})


class TestMasks:
    def test_a_run_without_a_brain_mask_is_defective(self, study, run_index):
        study.run("01", run="2").mask.unlink()
        with pytest.raises(InputError, match="no brain mask beside the image") as caught:
            run_index(study.dataset_options())
        (problem,) = caught.value.problems
        assert problem.entity.endswith("sub-01_task-blocks_run-2")
        assert "without_mask" in problem.remedy
        rows = run_index(study.dataset_options(), options=IndexOptions(on_error="exclude"))
        assert [row.status for row in rows] == ["ok", "error", "ok", "ok"]

    def test_a_mask_whose_affine_is_stored_as_a_quaternion_fits_its_image(self, study, run_index):
        path = study.run("01", run="2").mask
        image = nib.nifti1.load(path)
        affine = np.array(image.affine)
        # What single precision of a quaternion leaves where the matrix has zeros.
        affine[0, 1] += 1e-6
        nib.save(nib.Nifti1Image(np.asanyarray(image.dataobj), affine), path)
        assert [row.status for row in run_index(study.dataset_options())] == ["ok"] * 4

    def test_the_whole_image_counts_as_brain_where_the_config_says_so(self, study, run_index, caplog):
        study.run("01", run="2").mask.unlink()
        rows = run_index(study.dataset_options(without_mask="whole_image"))
        assert [bool(row.mask) for row in rows] == [True, False, True, True]
        assert "1 runs, the first ds-x_sub-01_task-blocks_run-2: the whole image counts as brain" in caplog.text
