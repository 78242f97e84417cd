"""The spelling of BIDS names."""

from __future__ import annotations

from pathlib import Path

import pytest

from boldly import bids

BOLD = "sub-01_ses-a_task-rest_acq-hi_dir-AP_run-02_space-MNI152NLin2009cAsym_res-2_desc-preproc_bold.nii.gz"


def test_entities_are_found_as_spelled() -> None:
    assert bids.entities(BOLD) == {
        "sub": "01",
        "ses": "a",
        "task": "rest",
        "acq": "hi",
        "dir": "AP",
        "run": "02",
        "space": "MNI152NLin2009cAsym",
        "res": "2",
        "desc": "preproc",
    }
    assert bids.entities("README") == {}


def test_a_run_key_has_its_entities_in_order_and_an_unpadded_run() -> None:
    assert bids.run_key("toy", bids.entities(BOLD)) == "ds-toy_sub-01_ses-a_task-rest_acq-hi_dir-AP_run-2"
    assert bids.run_key("toy", {"sub": "01", "task": "rest"}) == "ds-toy_sub-01_task-rest"
    # Some studies spell runs in letters.
    assert bids.run_key("toy", {"sub": "01", "task": "rest", "run": "A"}) == "ds-toy_sub-01_task-rest_run-A"


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("sub-01_task-a_run-01_bold.nii.gz", "sub-01_task-a_run-1_events.tsv", True),
        ("sub-01_task-a_run-1_bold.nii.gz", "sub-01_task-a_run-10_events.tsv", False),
        ("sub-01_task-a_run-1_bold.nii.gz", "sub-1_task-a_run-1_events.tsv", False),
        ("sub-01_task-a_bold.nii.gz", "sub-01_task-a_run-1_events.tsv", False),
        ("sub-01_task-a_space-T1w_desc-preproc_bold.nii.gz", "sub-01_task-a_desc-confounds_timeseries.tsv", True),
    ],
)
def test_files_belong_together_by_their_entities_runs_as_numbers(one: str, other: str, is_same: bool) -> None:
    identities = [bids.run_identity(bids.entities(name)) for name in (one, other)]
    assert (identities[0] == identities[1]) is is_same


def test_a_run_prefix_keeps_the_spelling() -> None:
    assert bids.run_prefix(bids.entities(BOLD)) == "sub-01_ses-a_task-rest_acq-hi_dir-AP_run-02"


def test_the_names_of_shards_lead_back_to_dataset_subject_and_run() -> None:
    key = bids.run_key("toy", bids.entities(BOLD))
    assert bids.shard_name("toy", "01") == "ds-toy_sub-01.tar"
    assert bids.sample_key(key, 7) == f"{key}_sample_007"
    assert bids.entities(key)["ds"] == "toy"
    assert bids.entities(bids.sample_key(key, 7))["run"] == "2"


def test_every_entity_of_a_recording_stands_in_the_run_key() -> None:
    name = (
        "sub-01_task-a_acq-b_ce-c_rec-d_dir-e_run-03_echo-02_part-mag_chunk-1_space-T1w_desc-preproc_bold.nii.gz"
    )
    key = "ds-toy_sub-01_task-a_acq-b_ce-c_rec-d_dir-e_run-3_echo-2_part-mag_chunk-1"
    assert bids.run_key("toy", bids.entities(name)) == key


IMAGE = bids.entities("sub-01_ses-a_task-rest_rec-norm_run-01_space-T1w_desc-preproc_bold.nii.gz")


@pytest.mark.parametrize(
    ("names", "best"),
    [
        # What stands at a lower level, then what has more of the image's entities.
        (["task-rest_events.tsv", "sub-01/sub-01_task-rest_events.tsv"], "sub-01/sub-01_task-rest_events.tsv"),
        (["task-rest_events.tsv", "ses-a_task-rest_events.tsv"], "ses-a_task-rest_events.tsv"),
        (["task-rest_rec-norm_events.tsv", "task-rest_events.tsv"], "task-rest_rec-norm_events.tsv"),
        (["sub-01_task-rest_run-1_events.tsv", "sub-01_task-rest_run-01_events.tsv"],
         "sub-01_task-rest_run-01_events.tsv"),
        # What one echo or the magnitude has, where there is nothing of the whole.
        (["task-rest_part-mag_events.tsv", "task-rest_part-phase_events.tsv"], "task-rest_part-mag_events.tsv"),
        (["task-rest_echo-1_events.tsv", "task-rest_events.tsv"], "task-rest_events.tsv"),
        # What the image contradicts, or what is of a recording that it is not.
        (["task-rest_rec-dis_events.tsv", "task-rest_run-2_events.tsv", "task-rest_acq-hi_events.tsv"], None),
    ],
)  # fmt: skip
def test_the_most_specific_file_that_applies_is_taken(names: list[str], best: str | None) -> None:
    found = bids.best_match([Path(name) for name in names], IMAGE)
    assert [str(path) for path in found] == ([] if best is None else [best])


def test_files_that_are_equally_specific_are_both_returned() -> None:
    names = ["task-rest_echo-1_events.tsv", "task-rest_echo-2_events.tsv"]
    assert bids.best_match(map(Path, names), IMAGE) == [Path(name) for name in names]


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        (BOLD, ["bold"]),
        (BOLD.removesuffix(".gz"), ["bold"]),
        (BOLD.replace(".nii.gz", ".json"), []),
        (BOLD.replace("desc-preproc", "desc-smoothAROMAnonaggr"), ["aroma"]),
        ("sub-01_task-rest_space-fsLR_den-91k_bold.dtseries.nii", []),
        ("sub-01_task-rest_space-T1w_desc-brain_mask.nii.gz", ["mask"]),
        ("sub-01_task-rest_space-T1w_desc-aseg_dseg.nii.gz", []),
        ("sub-01_task-rest_desc-confounds_timeseries.tsv", ["confounds"]),
        ("sub-01_task-rest_desc-confounds_regressors.tsv", ["confounds"]),
        ("sub-01_task-rest_desc-confounds_timeseries.json", []),
        ("sub-01_task-rest_events.tsv", ["events"]),
        ("sub-01_task-rest_events.csv", ["events"]),
    ],
)
def test_kinds_of_files_are_told_by_their_names(name: str, kinds: list[str]) -> None:
    tests = {
        "bold": bids.is_preproc_bold,
        "aroma": bids.is_aroma_bold,
        "mask": bids.is_brain_mask,
        "confounds": bids.is_confounds_table,
        "events": bids.is_events_table,
    }
    assert [kind for kind, is_kind in tests.items() if is_kind(name)] == kinds


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".tsv"])
def test_a_sidecar_stands_beside_its_file(suffix: str) -> None:
    assert bids.sidecar(Path(f"/a/sub-01_bold{suffix}")) == Path("/a/sub-01_bold.json")


def test_functional_files_are_found_with_and_without_sessions(tmp_path: Path) -> None:
    names = ["func/b", "ses-1/func/c", "ses-2/func/a", "anat/d", "ses-1/fmap/e"]
    for name in names:
        path = tmp_path / "sub-01" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "sub-02.html").touch()
    (tmp_path / "logs").mkdir()
    assert bids.subject_folders(tmp_path) == [tmp_path / "sub-01"]
    found = [str(path.relative_to(tmp_path / "sub-01")) for path in bids.functional_files(tmp_path / "sub-01")]
    assert found == ["func/b", "ses-1/func/c", "ses-2/func/a"]


@pytest.mark.parametrize(("atlas", "label"), [("atlas-demo_probseg", "demo"), ("difumo-64-2mm", "difumo642mm")])
def test_time_series_have_the_name_of_their_atlas(atlas: str, label: str) -> None:
    found = {"sub": "01", "ses": "b", "task": "rest", "acq": "", "dir": "", "run": "02"}
    assert bids.timeseries_path(found, "T1w", atlas) == Path(
        f"sub-01/ses-b/func/sub-01_ses-b_task-rest_run-02_space-T1w_atlas-{label}_timeseries.tsv"
    )
