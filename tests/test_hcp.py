"""Names and text files of the Human Connectome Project."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from boldly import hcp
from boldly.config import PreprocessOptions
from boldly.records import InputError
from boldly.signals.confounds import nuisance, read_confounds

RESULTS = Path("100307/MNINonLinear/Results")


class TestNames:
    @pytest.mark.parametrize(
        ("folder", "entities"),
        [
            ("tfMRI_MOTOR_LR", {"sub": "100307", "task": "MOTOR", "dir": "LR"}),
            ("rfMRI_REST2_RL", {"sub": "100307", "task": "REST", "dir": "RL", "run": "2"}),
            ("rfMRI_REST1_7T_PA", {"sub": "100307", "task": "REST", "acq": "7T", "dir": "PA", "run": "1"}),
        ],
    )
    def test_a_run_folder_has_the_entities_of_a_run(self, folder, entities):
        assert hcp.entities(RESULTS / folder) == entities

    def test_only_folders_of_single_runs_are_runs(self, tmp_path):
        for name in ("tfMRI_MOTOR_LR", "tfMRI_MOTOR", "fMRI_CONCAT_ALL", "rfMRI_REST1_LR"):
            (tmp_path / RESULTS / name).mkdir(parents=True)
        (subject,) = hcp.subject_folders(tmp_path)
        assert [run.name for run in hcp.run_folders(subject)] == ["rfMRI_REST1_LR", "tfMRI_MOTOR_LR"]

    def test_what_no_bids_label_may_have_is_taken_out_of_a_subject(self):
        assert hcp.subject_label("HCA6002236_V1_MR") == "HCA6002236V1MR"
        assert hcp.subject_label("sub-100307") == "100307"

    def test_the_mask_is_taken_from_the_run_or_else_from_the_subject(self, tmp_path):
        run = tmp_path / RESULTS / "tfMRI_MOTOR_LR"
        run.mkdir(parents=True)
        # Of 0.7 mm, not on the grid of the runs.
        (tmp_path / "100307/MNINonLinear/brainmask_fs.nii.gz").touch()
        assert hcp.brain_mask(run) is None
        (tmp_path / "100307/MNINonLinear/brainmask_fs.2.nii.gz").touch()
        assert hcp.brain_mask(run) == tmp_path / "100307/MNINonLinear/brainmask_fs.2.nii.gz"
        (run / "brainmask_fs.2.nii.gz").touch()
        assert hcp.brain_mask(run) == run / "brainmask_fs.2.nii.gz"


class TestMovement:
    def read(self, folder: Path, values: np.ndarray):
        path = folder / hcp.MOVEMENT
        np.savetxt(path, values, fmt="%.8f", delimiter="   ")
        return hcp.read_movement(path)

    def test_degrees_become_radians_and_framewise_displacement_is_that_of_power(self, tmp_path):
        values = np.zeros((3, 12))
        values[1:, 0] = -0.2  # mm
        values[1:, 4] = 0.9  # degrees
        values[2, 5] = 1.8
        table = self.read(tmp_path, values)
        assert table["trans_x"].tolist() == [0, -0.2, -0.2]
        assert table["rot_y"].to_numpy() == pytest.approx([0, 0.9 * np.pi / 180, 0.9 * np.pi / 180])
        # 50 mm x 0.9 degrees = 0.785398 mm on the sphere.
        expected = [np.nan, 0.2 + 0.785398, 2 * 0.785398]
        assert table["framewise_displacement"].to_numpy() == pytest.approx(expected, nan_ok=True, abs=1e-6)

    def test_the_full_expansion_of_motion_is_there(self, tmp_path):
        table = self.read(tmp_path, np.arange(36.0).reshape(3, 12) / 100)
        assert table.shape == (3, 25)
        assert np.isnan(table["rot_z_derivative1_power2"][0])
        assert table["trans_z_derivative1"].tolist()[1:] == pytest.approx([0.12, 0.12])
        assert table["trans_z_power2"].tolist() == pytest.approx([0.02**2, 0.14**2, 0.26**2])

    @pytest.mark.parametrize("text", ["", "1 2 3\n", "a b c d e f g h i j k l\n", "nan " * 12 + "\n"])
    def test_anything_but_a_table_of_12_numbers_is_an_error_that_names_the_file(self, tmp_path, text):
        path = tmp_path / hcp.MOVEMENT
        path.write_text(text)
        with pytest.raises(InputError) as caught:
            hcp.read_movement(path)
        assert caught.value.problems[0].where == str(path)


class TestEvents:
    def test_each_file_is_a_state(self, tmp_path):
        (tmp_path / "lf.txt").write_text("71.35\t12\t1\n162.5  12.0  1.0\n\n")
        (tmp_path / "t.txt").write_text("1.1e1 12 1\n")
        table = hcp.read_events(tmp_path, "state")
        assert table.to_dict("list") == {
            "onset": [71.35, 162.5, 11.0],
            "duration": [12.0, 12.0, 12.0],
            "state": ["lf", "lf", "t"],
        }

    def test_empty_files_and_rows_of_amplitude_zero_hold_no_events(self, tmp_path):
        (tmp_path / "error.txt").write_text("")
        (tmp_path / "match.txt").write_text("0 0 0\n")
        assert hcp.read_events(tmp_path, "state").empty

    def test_triggers_and_statistics_are_no_events(self, tmp_path):
        (tmp_path / "Sync.txt").write_text("12.3\n")
        (tmp_path / "Stats.txt").write_text("Median RT: 812\n")
        (tmp_path / "lf.txt").write_text("1 12 1\n")
        assert hcp.read_events(tmp_path, "state")["state"].tolist() == ["lf"]

    def test_all_defective_files_are_reported_at_once(self, tmp_path):
        (tmp_path / "lf.txt").write_text("1 12 1\n1 12\n")
        (tmp_path / "lh.txt").write_text("soon 12 1\n")
        (tmp_path / "rf.txt").write_text("1 -12 1\n")
        (tmp_path / "rh.txt").write_text("1 12 1\n")
        with pytest.raises(InputError, match="row 2 is not onset, duration and amplitude: '1 12'") as caught:
            hcp.read_events(tmp_path, "state")
        assert [Path(p.where).name for p in caught.value.problems] == ["lf.txt", "lh.txt", "rf.txt"]

    def test_a_folder_without_events_is_an_error(self, tmp_path):
        with pytest.raises(InputError, match="not a single file of events"):
            hcp.read_events(tmp_path, "state")


def test_movement_serves_every_expansion_of_motion(tmp_path):
    walk = np.cumsum(np.random.default_rng(0).normal(0, 0.1, (40, 12)), axis=0)
    np.savetxt(tmp_path / hcp.MOVEMENT, walk)
    table = read_confounds(tmp_path / hcp.MOVEMENT)
    for motion, number in (("basic", 6), ("derivatives", 12), ("power2", 12), ("full", 24)):
        found = nuisance(table, {}, PreprocessOptions.model_validate({"strategy": ["motion"], "motion": motion}))
        assert found.regressors.shape == (40, number)
        assert np.isfinite(found.regressors).all()
