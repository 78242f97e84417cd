"""Stage preprocess: nuisance regressors and quality of runs."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from boldly.config import IndexOptions, PreprocessOptions
from boldly.files import read_tsv
from boldly.records import InputError
from boldly.signals.confounds import read_nuisance
from boldly.stages import index, preprocess

KEY = "ds-x_sub-01_task-blocks_run-1"


@pytest.fixture
def prepare(tmp_path: Path) -> Callable[..., tuple[pd.DataFrame, dict[str, Any]]]:
    """Return a function that indexes a study, preprocesses a subject and reads both outputs."""

    def call(study: Any, subject: str = "01", **options: Any) -> tuple[pd.DataFrame, dict[str, Any]]:
        model = PreprocessOptions.model_validate(options)
        runs = tmp_path / "x_runs.tsv"
        index.run(
            dataset="x",
            dataset_options=study.dataset_options(),
            options=IndexOptions(),
            preprocess=model,
            window_frames=10,
            atlas=study.atlas_options(),
            runs=runs,
            labels=tmp_path / "x_labels.json",
        )
        return again(runs, subject, model)

    def again(runs: Path, subject: str, model: PreprocessOptions) -> tuple[pd.DataFrame, dict[str, Any]]:
        nuisance, qc = tmp_path / "n.tsv", tmp_path / "qc.tsv"
        preprocess.run(runs=runs, subject=subject, options=model, nuisance=nuisance, qc=qc)
        return read_tsv(qc).set_index("key"), read_nuisance(nuisance)

    return call


def edit(path: Path, **columns: Any) -> None:
    """Set single values of a confounds table: column=(row or rows, value)."""
    table = pd.read_csv(path, sep="\t")
    for name, (rows, value) in columns.items():
        table.loc[rows, name] = value
    table.to_csv(path, sep="\t", index=False, na_rep="n/a")


def test_each_run_of_the_subject_has_regressors_and_a_row(study, prepare):
    qc, nuisance = prepare(study)
    assert list(qc.index) == list(nuisance) == [KEY, KEY.replace("run-1", "run-2")]
    kept, regressors, names = nuisance[KEY]
    assert kept.all()
    assert regressors.shape == (40, 9)
    assert {"csf", "white_matter", "global_signal", "rot_x", "trans_z"} < set(names)
    row = qc.loc[KEY]
    assert (row["status"], row["n_volumes"], row["n_regressors"]) == ("ok", 40, 9)
    # 40 frames less 9 regressors and the mean.
    assert row["degrees_of_freedom"] == 30


def test_quality_is_measured_over_the_frames_that_have_a_value(study, prepare):
    table = pd.read_csv(study.run().confounds, sep="\t")
    row = prepare(study)[0].loc[KEY]
    # The first frame has no displacement; it does not count as zero.
    assert row["mean_fd_mm"] == pytest.approx(table["framewise_displacement"][1:].mean(), abs=1e-6)
    assert row["max_fd_mm"] == pytest.approx(table["framewise_displacement"].max(), abs=1e-6)
    assert row["mean_std_dvars"] == pytest.approx(table["std_dvars"][1:].mean(), abs=1e-6)


def test_frames_over_a_threshold_and_before_the_steady_state_are_not_kept(write_study, prepare):
    study = write_study(non_steady=2)
    edit(study.run().confounds, framewise_displacement=(25, 0.8))
    qc, nuisance = prepare(study, fd_threshold_mm=0.5)
    assert np.flatnonzero(~nuisance[KEY][0]).tolist() == [0, 1, 25]
    assert qc.loc[KEY, "scrubbed_fraction"] == pytest.approx(3 / 40)
    assert qc.loc[KEY, "degrees_of_freedom"] == 37 - 9 - 1


def test_without_a_threshold_movement_scrubs_nothing(study, prepare):
    edit(study.run().confounds, framewise_displacement=(25, 8.0))
    assert prepare(study)[1][KEY][0].all()


@pytest.mark.parametrize(
    ("exclude", "reason"),
    [
        ({"mean_fd_mm": 0.2}, r"mean FD 0\.2\d\d mm is over 0\.2 mm"),
        ({"maximum_fd_mm": 5}, r"largest FD 7 mm is over 5 mm"),
        ({"scrubbed_fraction": 0.02}, r"scrubbed fraction 0\.025 is over 0\.02"),
        (
            {"degrees_of_freedom": 30},
            r"29 degrees of freedom are left, fewer than 30 \(39 of 40 frames kept, 9 regressors\)",
        ),
    ],
)
def test_a_run_over_a_threshold_is_excluded_with_the_numbers(study, prepare, exclude, reason):
    edit(study.run().confounds, framewise_displacement=(20, 7.0))
    qc, nuisance = prepare(study, fd_threshold_mm=0.5, exclude=exclude)
    assert list(qc["status"]) == ["excluded", "ok"]
    assert qc["reason"].str.fullmatch(reason).tolist()[0]
    assert list(nuisance) == [KEY.replace("run-1", "run-2")]


def test_a_value_at_the_threshold_does_not_exclude(study, prepare):
    edit(study.run().confounds, framewise_displacement=(20, 7.0))
    assert list(prepare(study, exclude={"maximum_fd_mm": 7.0})[0]["status"]) == ["ok", "ok"]


def test_a_scrubbed_fraction_at_the_threshold_does_not_exclude(study, prepare):
    # 1 - 28 / 40 is 0.30000000000000004.
    qc, _ = prepare(study, dummy_volumes=12, exclude={"scrubbed_fraction": 0.3})
    assert list(qc["status"]) == ["ok", "ok"]


def test_a_run_of_which_nothing_is_left_is_excluded(study, prepare):
    edit(study.run().confounds, framewise_displacement=(slice(None), 3.0))
    qc, nuisance = prepare(study, fd_threshold_mm=0.5, exclude={"degrees_of_freedom": 1})
    assert (qc.loc[KEY, "status"], qc.loc[KEY, "degrees_of_freedom"]) == ("excluded", 0)
    assert KEY not in nuisance


def test_a_run_with_more_regressors_than_frames_is_excluded(write_study, prepare):
    study = write_study(n_volumes=12)
    options = {"strategy": ["motion", "wm_csf"], "motion": "full", "wm_csf": "full"}
    qc, nuisance = prepare(study, **options, exclude={"degrees_of_freedom": 1})
    assert set(qc["status"]) == {"excluded"}
    assert qc.loc[KEY, "degrees_of_freedom"] == 0
    assert nuisance == {}


def test_without_a_confounds_table_an_empty_strategy_keeps_every_frame(study, prepare):
    for files in study.files.values():
        files.confounds.unlink()
    qc, nuisance = prepare(study, strategy=[])
    kept, regressors, names = nuisance[KEY]
    assert (kept.sum(), regressors.shape, names) == (40, (40, 0), ())
    assert np.isnan(qc.loc[KEY, "mean_fd_mm"])


def test_padded_run_numbers_and_old_names_are_read(write_study, prepare):
    qc, nuisance = prepare(write_study(runs=("01",), old_confounds=True))
    assert list(qc.index) == [KEY]
    assert nuisance[KEY][1].shape == (40, 9)


def test_the_same_input_gives_the_same_bytes(study, prepare, tmp_path):
    prepare(study, motion="full")
    first = (tmp_path / "n.tsv").read_bytes(), (tmp_path / "qc.tsv").read_bytes()
    prepare(study, motion="full")
    assert first == ((tmp_path / "n.tsv").read_bytes(), (tmp_path / "qc.tsv").read_bytes())


class TestFaults:
    def refused(self, study: Any, prepare: Any, tmp_path: Path, **options: Any) -> list[Any]:
        with pytest.raises(InputError) as caught:
            preprocess.run(
                runs=tmp_path / "x_runs.tsv",
                subject="01",
                options=PreprocessOptions.model_validate(options),
                nuisance=tmp_path / "late_n.tsv",
                qc=tmp_path / "late_qc.tsv",
            )
        assert not (tmp_path / "late_n.tsv").exists()
        assert not (tmp_path / "late_qc.tsv").exists()
        return caught.value.problems

    def test_holes_in_a_column_that_is_used_are_an_error(self, study, prepare, tmp_path):
        edit(study.run().confounds, csf=([7, 9], np.nan), tedana=(3, np.nan))
        with pytest.raises(InputError, match="no number in column csf at 2 frames, the first 7") as caught:
            prepare(study)
        assert caught.value.problems[0].where == str(study.run().confounds)
        assert caught.value.problems[0].entity == KEY

    @pytest.mark.parametrize(
        ("options", "frames", "message"),
        [
            ({"fd_threshold_mm": 0.5}, slice(None), r"framewise_displacement, .* at 39 frames, the first 1$"),
            ({"fd_threshold_mm": 0.5}, 7, r"framewise_displacement, .* at 1 frames, the first 7$"),
            ({"std_dvars_threshold": 1.5}, slice(None), r"std_dvars, .* at 39 frames, the first 1$"),
            ({"exclude": {"mean_fd_mm": 0.5}}, slice(None), r"exclude\.mean_fd_mm needs, at 40 frames"),
            ({"exclude": {"maximum_fd_mm": 5}}, slice(None), r"exclude\.maximum_fd_mm needs, at 40 frames"),
        ],
    )
    def test_a_threshold_needs_numbers(self, study, prepare, options, frames, message):
        edit(study.run().confounds, framewise_displacement=(frames, np.nan), std_dvars=(frames, np.nan))
        with pytest.raises(InputError) as caught:
            prepare(study, **options)
        (problem,) = caught.value.problems
        assert re.search(message, problem.message)
        assert (problem.where, problem.entity) == (str(study.run().confounds), KEY)
        assert "to null, or exclude the run" in problem.remedy

    def test_frames_that_do_not_count_need_no_movement(self, write_study, prepare):
        study = write_study(non_steady=3)
        edit(study.run().confounds, framewise_displacement=(slice(0, 2), np.nan))
        assert np.flatnonzero(~prepare(study, fd_threshold_mm=0.5)[1][KEY][0]).tolist() == [0, 1, 2]

    def test_tables_that_changed_since_the_index_are_reported_together(self, study, prepare, tmp_path):
        prepare(study)
        one, two = study.run().confounds, study.run(run="2").confounds
        pd.read_csv(one, sep="\t")[:-1].to_csv(one, sep="\t", index=False, na_rep="n/a")
        two.write_text("")
        problems = self.refused(study, prepare, tmp_path)
        assert "39 rows" in problems[0].message
        assert "not a readable confounds table" in problems[1].message
        assert problems[1].entity == KEY.replace("run-1", "run-2")

    def test_columns_that_other_options_need_are_reported_as_in_index(self, study, prepare, tmp_path):
        prepare(study)
        problems = self.refused(study, prepare, tmp_path, strategy=["ica_aroma"])
        assert "drop ica_aroma from preprocess.strategy" in problems[0].remedy


def test_the_haxby_slice_loses_7_degrees_of_freedom_per_run(haxby, tmp_path, prepare):
    from boldly.config import AtlasOptions, DatasetOptions

    class Haxby:
        def dataset_options(self) -> DatasetOptions:
            derivatives = str(haxby / "derivatives" / "fmriprep")
            return DatasetOptions(role="upstream", derivatives=derivatives, space="T1w")

        def atlas_options(self) -> AtlasOptions:
            return AtlasOptions(path=str(haxby / "atlas-slice64_dseg.nii.gz"))

    qc, nuisance = prepare(Haxby(), subject="001", strategy=["motion", "global_signal"])
    # 6 motion parameters and the global signal; the slice has no std_dvars column.
    assert set(qc["degrees_of_freedom"]) == {121 - 7 - 1}
    assert qc["mean_std_dvars"].isna().all()
    assert all(kept.all() and regressors.shape == (121, 7) for kept, regressors, _ in nuisance.values())


def test_a_defective_run_becomes_a_row_with_the_reason_where_the_config_says_so(study, prepare, tmp_path, caplog):
    edit(study.run().confounds, csf=(5, np.nan))
    with pytest.raises(InputError, match="no number in column csf at 1 frames, the first 5"):
        prepare(study)
    qc_path, nuisance_path = tmp_path / "qc.tsv", tmp_path / "n.tsv"
    preprocess.run(
        runs=tmp_path / "x_runs.tsv",
        subject="01",
        options=PreprocessOptions(),
        nuisance=nuisance_path,
        qc=qc_path,
        on_error="exclude",
    )
    qc = read_tsv(qc_path).set_index("key")
    assert qc["status"].tolist() == ["error", "ok"]
    assert qc.loc[KEY, "reason"] == "no number in column csf at 1 frames, the first 5"
    assert qc["mean_fd_mm"].isna().tolist() == [True, False]
    assert qc.loc[KEY, "n_volumes"] == 40
    assert list(read_nuisance(nuisance_path)) == [KEY.replace("run-1", "run-2")]
    assert "way out: run fMRIPrep again on the run" in caplog.text
