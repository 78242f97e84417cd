"""Nuisance regressors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from nilearn.interfaces.fmriprep import load_confounds, load_confounds_strategy

from boldly.config import PreprocessOptions, apply_preset
from boldly.files import read_tsv
from boldly.records import InputError
from boldly.signals.confounds import (
    Nuisance,
    missing_columns,
    missing_problem,
    needs_table,
    nuisance,
    read_confounds,
    read_meta,
    read_movement,
    read_nuisance,
    write_nuisance,
)

CHECKOUT = Path(__file__).resolve().parents[2]
# What each file of config/confounds is in nilearn's own words: one of its strategies, or its arguments.
PRESETS: dict[str, str | dict[str, Any]] = {
    "none": {"strategy": ()},
    "simple": "simple",
    "scrubbing": "scrubbing",
    "compcor": "compcor",
    "lfb": {
        "strategy": ("motion", "wm_csf", "global_signal"),
        "motion": "basic",
        "wm_csf": "basic",
        "global_signal": "basic",
    },
    "24p": {"strategy": ("motion",), "motion": "full"},
    "36p": {
        "strategy": ("motion", "wm_csf", "global_signal"),
        "motion": "full",
        "wm_csf": "full",
        "global_signal": "full",
    },
    "acompcor": {
        "strategy": ("high_pass", "motion", "compcor"),
        "motion": "derivatives",
        "compcor": "anat_separated",
        "n_compcor": 5,
    },
}
N_REGRESSORS = {"none": 0, "lfb": 9, "24p": 24, "36p": 36}


def with_movement(path: Path) -> None:
    """Have frames that each threshold of a preset scrubs, and a segment that is too short to be kept."""
    table = pd.read_csv(path, sep="\t")
    table.loc[[10, 13], "framewise_displacement"] = 0.9
    table.loc[30, "std_dvars"] = 2.5
    table.to_csv(path, sep="\t", index=False, na_rep="n/a")


def load(path: Path, **options: Any) -> Nuisance:
    return nuisance(read_confounds(path), read_meta(path), PreprocessOptions.model_validate(options))


class TestAgainstNilearn:
    @pytest.mark.parametrize(
        "options",
        [
            {"strategy": ["motion", "wm_csf", "global_signal"]},
            {"strategy": ["motion"], "motion": "full"},
            {"strategy": ["motion", "wm_csf"], "motion": "power2", "wm_csf": "derivatives"},
            {"strategy": ["global_signal", "high_pass"], "global_signal": "full"},
            {"strategy": ["high_pass", "compcor"], "compcor": "anat_combined", "n_compcor": 2},
            {"strategy": ["high_pass", "compcor"], "compcor": "anat_separated", "n_compcor": "all"},
            {"strategy": ["high_pass", "compcor"], "compcor": "temporal_anat_combined"},
        ],
        ids=lambda options: "-".join(map(str, [*options["strategy"], *list(options.values())[1:]])),
    )
    @pytest.mark.parametrize("non_steady", [0, 3])
    def test_regressors_and_frames_are_those_of_load_confounds(self, write_study, options, non_steady):
        files = write_study(non_steady=non_steady).run()
        expected, mask = load_confounds(str(files.bold), **{"n_compcor": 6, "motion": "basic", **options})
        found = load(files.confounds, **options)
        assert list(found.names) == list(expected.columns)
        np.testing.assert_array_equal(found.regressors, expected.to_numpy())
        np.testing.assert_array_equal(np.flatnonzero(found.kept), np.arange(40) if mask is None else mask)

    @pytest.mark.parametrize("preset", sorted(path.stem for path in (CHECKOUT / "config/confounds").iterdir()))
    @pytest.mark.parametrize("study_options", [{}, {"non_steady": 3}, {"old_confounds": True}], ids=str)
    def test_presets_are_what_nilearn_loads(self, write_study, preset, study_options):
        files = write_study(**study_options).run()
        with_movement(files.confounds)
        theirs = PRESETS[preset]
        if isinstance(theirs, str):
            expected, mask = load_confounds_strategy(str(files.bold), theirs)
        else:
            expected, mask = load_confounds(str(files.bold), **theirs)
        options = apply_preset(PreprocessOptions(preset=preset), CHECKOUT)
        table, meta = read_confounds(files.confounds), read_meta(files.confounds)
        assert missing_columns(table.columns, options, meta=meta, duration_s=600) == {}
        found = nuisance(table, meta, options)
        columns = [] if expected is None else list(expected.columns)
        assert list(found.names) == columns
        assert len(columns) == N_REGRESSORS.get(preset, len(columns))
        if columns:
            np.testing.assert_array_equal(found.regressors, expected.to_numpy())
        np.testing.assert_array_equal(np.flatnonzero(found.kept), np.arange(40) if mask is None else mask)

    @pytest.mark.parametrize("kind", ["basic", "full"])
    def test_ica_aroma_is_that_of_load_confounds(self, write_study, kind):
        files = write_study(non_steady=2).run()
        table = pd.read_csv(files.confounds, sep="\t")
        table["aroma_motion_02"] = np.random.default_rng(2).normal(size=len(table))
        table.to_csv(files.confounds, sep="\t", index=False, na_rep="n/a")
        image = files.bold
        if kind == "full":
            image = image.rename(image.with_name(image.name.replace("desc-preproc", "desc-smoothAROMAnonaggr")))
        strategy = ["high_pass", "wm_csf", "ica_aroma"]
        expected, mask = load_confounds(str(image), tuple(strategy), ica_aroma=kind)
        found = load(files.confounds, strategy=strategy, ica_aroma=kind)
        assert list(found.names) == list(expected.columns)
        assert ("aroma_motion_02" in found.names) == (kind == "basic")
        np.testing.assert_array_equal(found.regressors, expected.to_numpy())
        np.testing.assert_array_equal(np.flatnonzero(found.kept), mask)

    def test_scrubbed_frames_are_those_of_load_confounds(self, study):
        files = study.run()
        table = pd.read_csv(files.confounds, sep="\t")
        table.loc[[10, 13], "framewise_displacement"] = 0.9
        table.loc[30, "std_dvars"] = 2.5
        table.to_csv(files.confounds, sep="\t", index=False, na_rep="n/a")
        expected, mask = load_confounds(
            str(files.bold), ("motion", "scrub"), "basic", fd_threshold=0.5, std_dvars_threshold=1.5
        )
        found = load(files.confounds, strategy=["motion"], fd_threshold_mm=0.5, std_dvars_threshold=1.5)
        np.testing.assert_array_equal(np.flatnonzero(found.kept), mask)
        np.testing.assert_array_equal(found.regressors, expected.to_numpy())
        # The two frames between two outliers are too short a segment to be kept.
        assert np.flatnonzero(~found.kept).tolist() == [10, 11, 12, 13, 30]


class TestNuisance:
    def test_one_threshold_does_not_need_the_other_column(self, study):
        files = study.run()
        table = pd.read_csv(files.confounds, sep="\t").drop(columns="std_dvars")
        table.loc[20, "framewise_displacement"] = 0.9
        table.to_csv(files.confounds, sep="\t", index=False, na_rep="n/a")
        found = load(files.confounds, strategy=["motion"], fd_threshold_mm=0.5)
        assert np.flatnonzero(~found.kept).tolist() == [20]

    def test_regressors_have_zero_mean_over_the_kept_frames(self, write_study):
        found = load(write_study(non_steady=4).run().confounds, strategy=["wm_csf"])
        assert found.kept.sum() == 36
        np.testing.assert_allclose(found.regressors[found.kept].mean(axis=0), 0, atol=1e-10)

    def test_the_undefined_first_value_of_a_derivative_is_that_of_the_second_frame(self, study):
        found = load(study.run().confounds, strategy=["global_signal"], global_signal="derivatives")
        derivative = found.regressors[:, found.names.index("global_signal_derivative1")]
        assert derivative[0] == derivative[1]

    def test_compcor_brings_the_cosines(self, study):
        found = load(study.run().confounds, strategy=["compcor"])
        assert {name for name in found.names if name.startswith("cosine")} == {"cosine00", "cosine01"}

    def test_other_strategies_have_no_cosines(self, study):
        assert not [name for name in load(study.run().confounds).names if name.startswith("cosine")]

    def test_ica_aroma_is_its_noise_components(self, study):
        files = study.run()
        table = pd.read_csv(files.confounds, sep="\t").assign(aroma_motion_02=np.arange(40.0))
        found = nuisance(table, {}, PreprocessOptions(strategy=["ica_aroma"]))
        assert found.names == ("aroma_motion_02",)

    def test_an_empty_strategy_has_no_regressors_and_all_frames(self, study):
        found = load(study.run().confounds, strategy=[])
        assert found.regressors.shape == (40, 0)
        assert found.kept.all()
        assert found.degrees_of_freedom == 39

    def test_nothing_is_regressed_where_every_frame_is_scrubbed(self, study):
        found = load(study.run().confounds, strategy=["motion"], fd_threshold_mm=1e-6)
        assert not found.kept.any()
        assert found.degrees_of_freedom == 0
        assert np.isfinite(found.regressors).all()

    def test_degrees_of_freedom_count_independent_regressors_and_the_mean(self):
        rng = np.random.default_rng(0)
        one = rng.normal(size=30)
        regressors = np.column_stack([one, 1e6 * one, rng.normal(size=30)])
        kept = np.arange(30) >= 5
        assert Nuisance(kept, regressors, ("a", "b", "c")).degrees_of_freedom == 25 - 2 - 1


class TestMissingColumns:
    def test_nothing_is_missing_from_what_fmriprep_writes(self, study):
        files = study.run()
        every = ["motion", "wm_csf", "global_signal", "compcor", "high_pass"]
        options = PreprocessOptions.model_validate(
            {"strategy": every, "motion": "full", "fd_threshold_mm": 0.5, "std_dvars_threshold": 1.5}
        )
        columns = read_confounds(files.confounds).columns
        assert missing_columns(columns, options, meta=read_meta(files.confounds), duration_s=600) == {}

    def test_the_columns_missing_are_named_by_part(self):
        options = PreprocessOptions(strategy=["wm_csf", "global_signal"], wm_csf="derivatives")
        found = missing_columns(["csf", "csf_derivative1", "white_matter", "global_signal"], options)
        assert found == {"strategy wm_csf": ["white_matter_derivative1"]}

    def test_a_part_that_is_not_used_is_not_missed(self):
        options = PreprocessOptions(strategy=["global_signal"])
        assert missing_columns(["global_signal"], options) == {}

    @pytest.mark.parametrize(
        ("options", "column"),
        [
            ({"fd_threshold_mm": 0.5}, "framewise_displacement"),
            ({"std_dvars_threshold": 1.5}, "std_dvars"),
            ({"exclude": {"mean_fd_mm": 0.5}}, "framewise_displacement"),
            ({"exclude": {"maximum_fd_mm": 0.5}}, "framewise_displacement"),
        ],
    )
    def test_thresholds_need_their_column(self, options, column):
        model = PreprocessOptions.model_validate({"strategy": [], **options})
        assert list(missing_columns(["trans_x"], model).values()) == [[column]]
        assert needs_table(model)

    def test_components_without_their_json_are_missing(self):
        options = PreprocessOptions(strategy=["compcor"])
        found = missing_columns(["a_comp_cor_00", "cosine00"], options, meta={})
        assert found == {"strategy compcor": ["a_comp_cor_*"]}

    def test_components_of_the_json_without_their_column_are_missing(self):
        options = PreprocessOptions(strategy=["compcor"], n_compcor=2)
        meta = {f"a_comp_cor_0{i}": {"Mask": "combined"} for i in range(3)}
        assert missing_columns(["a_comp_cor_00"], options, meta=meta) == {"strategy compcor": ["a_comp_cor_01"]}

    def test_cosines_are_missed_only_in_long_runs(self):
        options = PreprocessOptions(strategy=["high_pass"])
        assert missing_columns(["csf"], options, duration_s=100) == {}
        assert missing_columns(["csf"], options, duration_s=300) == {"strategy high_pass": ["cosine*"]}

    def test_noise_components_are_missed_only_where_they_are_regressed_out(self):
        basic, full = (PreprocessOptions(strategy=["ica_aroma"], ica_aroma=kind) for kind in ("basic", "full"))
        assert missing_columns(["csf"], basic) == {"strategy ica_aroma": ["aroma_motion_*"]}
        assert missing_columns(["aroma_motion_01"], basic) == {}
        assert missing_columns(["csf"], full) == {}

    @pytest.mark.parametrize("preset", sorted(PRESETS))
    def test_only_presets_with_components_need_the_json(self, study, preset):
        files = study.run()
        files.confounds_json.unlink()
        options = apply_preset(PreprocessOptions(preset=preset), CHECKOUT)
        columns = read_confounds(files.confounds).columns
        missing = missing_columns(columns, options, meta=read_meta(files.confounds), duration_s=600)
        assert list(missing) == (["strategy compcor"] if "compcor" in preset else [])

    def test_an_empty_strategy_needs_no_table(self):
        assert not needs_table(PreprocessOptions(strategy=[]))

    def test_the_problem_names_what_was_found_and_the_way_out(self):
        missing = {"strategy wm_csf": ["csf", "white_matter"]}
        text = str(missing_problem(missing, ["trans_x", "global_signal"], "x.tsv", "sub-03 run-2"))
        assert "sub-03 run-2: confounds table has no columns 'csf', 'white_matter'" in text
        assert "(found: global_signal, trans_x)" in text
        assert "drop wm_csf from preprocess.strategy, or exclude the run" in text
        asked = ["motion", "wm_csf", "global_signal"]
        line = missing_problem({"strategy wm_csf": ["csf"]}, ["trans_x"], "x.tsv", "", asked).remedy
        assert (
            "drop wm_csf from preprocess.strategy (write `preprocess: {strategy: [motion, global_signal]}`)"
            in line
        )

    def test_the_problem_says_which_fmriprep_runs_ica_aroma(self):
        missing = missing_columns(["csf"], PreprocessOptions(strategy=["ica_aroma"]))
        assert "23.1 and newer no longer run it" in missing_problem(missing, ["csf"], "x.tsv", "").remedy

    def test_the_spelling_of_old_fmriprep_is_recognised(self):
        available = ["CSF", "WhiteMatter", "FramewiseDisplacement"]
        assert "fMRIPrep 1.2 or newer" in missing_problem({"strategy wm_csf": ["csf"]}, available, "", "").remedy


class TestFiles:
    def test_nuisance_reads_back_exactly(self, tmp_path):
        rng = np.random.default_rng(1)
        runs = {
            "ds-x_sub-1_task-b": Nuisance(np.arange(5) > 0, rng.normal(size=(5, 2)) * 1e-7, ("csf", "trans_x")),
            "ds-x_sub-1_task-a": Nuisance(np.ones(4, bool), rng.normal(size=(4, 1)) * 1e9, ("rot_z",)),
            "ds-x_sub-1_task-c": Nuisance(np.ones(3, bool), np.zeros((3, 0)), ()),
        }
        write_nuisance(tmp_path / "n.tsv", runs)
        found = read_nuisance(tmp_path / "n.tsv")
        assert list(found) == list(runs)
        for key, expected in runs.items():
            kept, regressors, names = found[key]
            np.testing.assert_array_equal(kept, expected.kept)
            np.testing.assert_array_equal(regressors, expected.regressors)
            assert names == expected.names

    def test_movement_may_be_a_regressor_too(self, tmp_path):
        moved, regressor = np.array([np.nan, 0.1, 0.2]), np.array([[-0.1], [0.0], [0.1]])
        run = Nuisance(np.ones(3, bool), regressor, ("framewise_displacement",), displacement_mm=moved)
        write_nuisance(tmp_path / "n.tsv", {"a": run})
        _, regressors, names = read_nuisance(tmp_path / "n.tsv")["a"]
        assert names == ("framewise_displacement",)
        np.testing.assert_array_equal(regressors, regressor)
        np.testing.assert_array_equal(read_movement(tmp_path / "n.tsv", "a")[1], moved)

    def test_columns_that_a_run_lacks_are_not_available_in_the_table(self, tmp_path):
        runs = {
            "a": Nuisance(np.ones(2, bool), np.ones((2, 1)), ("csf",)),
            "b": Nuisance(np.ones(2, bool), np.ones((2, 1)), ("rot_x",)),
        }
        write_nuisance(tmp_path / "n.tsv", runs)
        table = read_tsv(tmp_path / "n.tsv")
        assert list(table.columns) == ["key", "frame", "kept", "fd_mm", "csf", "rot_x"]
        assert table.loc[table["key"] == "a", "rot_x"].isna().all()

    def test_a_subject_without_runs_has_an_empty_table(self, tmp_path):
        write_nuisance(tmp_path / "n.tsv", {})
        assert (tmp_path / "n.tsv").read_text() == "key\tframe\tkept\tfd_mm\n"
        assert read_nuisance(tmp_path / "n.tsv") == {}

    def test_an_empty_table_or_broken_json_is_an_error(self, tmp_path):
        (tmp_path / "c.tsv").write_text("")
        with pytest.raises(InputError, match="not a readable confounds table"):
            read_confounds(tmp_path / "c.tsv")
        (tmp_path / "c.json").write_text('{"a_comp_cor_00": ')
        with pytest.raises(InputError, match="not readable JSON"):
            read_meta(tmp_path / "c.tsv")

    def test_no_json_is_an_empty_one(self, tmp_path):
        assert read_meta(tmp_path / "c.tsv") == {}
        (tmp_path / "c.json").write_text(json.dumps({"a": 1}))
        assert read_meta(tmp_path / "c.tsv") == {"a": 1}


def test_columns_are_taken_by_name_or_pattern() -> None:
    rng = np.random.default_rng(0)
    names = ["csf", "edge_comp_00", "edge_comp_01", "rmsd", "trans_x"]
    table = pd.DataFrame(rng.normal(size=(20, 5)), columns=names)
    options = PreprocessOptions(strategy=[], columns=["edge_comp_*", "rmsd", "edge_comp_01"])
    assert needs_table(options)
    assert missing_columns(names, options) == {}
    found = nuisance(table, {}, options)
    assert found.names == ("edge_comp_00", "edge_comp_01", "rmsd")
    np.testing.assert_allclose(found.regressors, (table - table.mean())[list(found.names)])


def test_a_column_or_pattern_that_nothing_fits_is_named() -> None:
    options = PreprocessOptions(strategy=["motion"], columns=["rmsd", "edge_comp_*"])
    missing = missing_columns(["csf"], options)
    assert missing["columns"] == ["edge_comp_*", "rmsd"]
    problem = missing_problem({"columns": missing["columns"]}, ["csf"], "table.tsv", "run")
    assert "'edge_comp_*', 'rmsd'" in problem.message
    assert "correct preprocess.columns" in problem.remedy


def test_the_first_frames_can_be_left_out_by_number() -> None:
    table = pd.DataFrame({"csf": np.arange(10.0), "non_steady_state_outlier00": np.eye(10)[0]})
    for number, first in ((0, 1), (1, 1), (4, 4), (10, 10)):
        found = nuisance(table, {}, PreprocessOptions(strategy=[], dummy_volumes=number))
        assert np.flatnonzero(found.kept).tolist() == list(range(first, 10))


def test_contracts_name_columns_and_dummy_volumes_only_where_there_are_some() -> None:
    assert not {"columns", "dummy_volumes"} & set(PreprocessOptions().regression())
    chosen = PreprocessOptions(columns=["rmsd"], dummy_volumes=4).regression()
    assert (chosen["columns"], chosen["dummy_volumes"]) == (["rmsd"], 4)
