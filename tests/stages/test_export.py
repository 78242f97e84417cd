"""Tool export: what other tools read is what the shards and time series hold."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from boldly.config import AtlasOptions
from boldly.files import read_json, read_tsv
from boldly.provenance import file_sha256
from boldly.records import InputError
from boldly.samples.shards import read_shard, write_shard
from boldly.samples.timeseries import RunSeries, write_timeseries
from boldly.stages import export
from tests.samples.examples import N_PARCELS, contract, run_sample, run_series, trial_sample

KEY = "ds-toy_sub-01_ses-b_task-blocks_run-2"
NAME = "sub-01/ses-b/func/sub-01_ses-b_task-blocks_run-02_space-MNI152NLin2009cAsym_atlas-slabs_timeseries"
META: dict[str, Any] = {
    "t_r": 0.72,
    "subject": "01",
    "entities": {"session": "b", "task": "blocks", "acquisition": "", "direction": "", "run": "02"},
    "n_volumes": 40,
    "start_time": 0.35,
    "marked": [5],
}


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def atlas(tmp_path: Path) -> AtlasOptions:
    """Return an atlas of six slabs; two have the same name."""
    image = np.broadcast_to(np.arange(1, N_PARCELS + 1, dtype=np.int16), (2, 2, N_PARCELS))
    path = tmp_path / "slabs_dseg.nii.gz"
    nib.save(nib.Nifti1Image(image, np.eye(4)), path)
    names = ["V1", "V2", "M1", "M1", "hippocampus left", "Ünsal"]
    rows = "".join(f"{number}\t{name}\n" for number, name in enumerate(names, start=1))
    path.with_name("slabs_dseg.tsv").write_text(f"index\tname\n{rows}", encoding="utf-8")
    return AtlasOptions(path=str(path))


def export_bids(folder: Path, atlas: AtlasOptions, *series: RunSeries, **changes: Any) -> Path:
    about = contract(atlas_sha256=file_sha256(atlas.image), **changes)
    write_timeseries(folder / "sub-01_timeseries.safetensors", list(series), about)
    export.bids_timeseries(
        timeseries=folder / "sub-01_timeseries.safetensors",
        atlas=atlas,
        dataset="toy",
        folder=folder / "out",
        output=folder / "sub-01_bids.json",
    )
    return folder / "out"


def test_a_table_reads_back_as_the_time_series(tmp_path: Path, atlas: AtlasOptions) -> None:
    frames = np.setdiff1d(np.arange(40), [0, 7, 8, 39])
    series = run_series(KEY, frames, meta=META)
    table = read_tsv(export_bids(tmp_path, atlas, series) / f"{NAME}.tsv")
    assert list(table) == ["V1", "V2", "M1 3", "M1 4", "hippocampus left", "Ünsal"]
    assert len(table) == 40
    np.testing.assert_array_equal(table.to_numpy(np.float32)[frames], series.data)
    assert table.drop(index=frames.tolist()).isna().all(axis=None)


def test_a_table_agrees_with_the_shard(tmp_path: Path, atlas: AtlasOptions) -> None:
    series = run_series(KEY, 12, meta=META | {"n_volumes": 12})
    sample = dataclasses.replace(run_sample(dtype="float32"), bold=series.data)
    write_shard(tmp_path / "a.tar", [sample])
    table = read_tsv(export_bids(tmp_path, atlas, series) / f"{NAME}.tsv")
    np.testing.assert_allclose(table.to_numpy(), next(read_shard(tmp_path / "a.tar")).bold, rtol=0, atol=1e-6)


def test_the_sidecar_tells_what_the_rows_and_columns_are(tmp_path: Path, atlas: AtlasOptions) -> None:
    folder = export_bids(tmp_path, atlas, run_series(KEY, np.arange(1, 40), meta=META))
    about = read_json(folder / f"{NAME}.json")
    assert about["SamplingFrequency"] == pytest.approx(1 / 0.72)
    assert (about["RepetitionTime"], about["StartTime"]) == (0.72, 0.35)
    assert (about["ScrubbedFrames"], about["ZeroParcels"]) == ([0], ["Ünsal"])
    assert about["Units"] == "standard deviations"
    assert (about["Atlas"], about["Contract"]["high_pass_hz"]) == ("slabs", 0.008)
    description = read_json(folder / "dataset_description.json")
    assert (description["DatasetType"], description["GeneratedBy"][0]["Name"]) == ("derivative", "boldly")


def test_a_time_of_frame_0_that_is_not_known_is_not_claimed(tmp_path: Path, atlas: AtlasOptions) -> None:
    # As in time series written before boldly knew it.
    meta = {name: value for name, value in META.items() if name != "start_time"}
    assert "StartTime" not in read_json(export_bids(tmp_path, atlas, run_series(KEY, meta=meta)) / f"{NAME}.json")


def test_the_list_holds_every_file_and_its_checksum(tmp_path: Path, atlas: AtlasOptions) -> None:
    folder = export_bids(tmp_path, atlas, run_series(KEY, meta=META))
    listed = read_json(tmp_path / "sub-01_bids.json")["sha256"]
    assert files(folder) == {*listed, "dataset_description.json"} == {
        f"{NAME}.tsv", f"{NAME}.json", "dataset_description.json",
    }  # fmt: skip
    assert all(hashlib.sha256((folder / name).read_bytes()).hexdigest() == listed[name] for name in listed)


def test_a_run_that_is_gone_leaves_no_file_behind(tmp_path: Path, atlas: AtlasOptions) -> None:
    other = META | {"entities": META["entities"] | {"run": "03"}}
    export_bids(tmp_path, atlas, run_series(KEY, meta=META), run_series(f"{KEY[:-1]}3", meta=other))
    before = files(tmp_path / "out")
    folder = export_bids(tmp_path, atlas, run_series(KEY, meta=META))
    assert before - files(folder) == {
        f"{NAME.replace('run-02', 'run-03')}{suffix}" for suffix in (".tsv", ".json")
    }


def test_a_person_whose_runs_are_all_gone_leaves_no_folder_behind(tmp_path: Path, atlas: AtlasOptions) -> None:
    other = tmp_path / "out" / "sub-011" / "func" / "a.tsv"
    other.parent.mkdir(parents=True)
    other.touch()
    export_bids(tmp_path, atlas, run_series(KEY, meta=META))
    folder = export_bids(tmp_path, atlas)
    assert files(folder) == {"dataset_description.json", "sub-011/func/a.tsv"}
    assert not (folder / "sub-01").exists()
    assert read_json(tmp_path / "sub-01_bids.json")["sha256"] == {}


def test_time_series_of_another_atlas_are_refused(tmp_path: Path, atlas: AtlasOptions) -> None:
    export_bids(tmp_path, atlas, run_series(KEY, meta=META))
    image: Any = nib.load(atlas.image)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj)[::-1], 2 * np.eye(4)), atlas.image)
    with pytest.raises(InputError, match="another image than"):
        export.bids_timeseries(
            timeseries=tmp_path / "sub-01_timeseries.safetensors",
            atlas=atlas,
            dataset="toy",
            folder=tmp_path / "other",
            output=tmp_path / "other.json",
        )
    assert not (tmp_path / "other").exists()


def export_lfb(folder: Path, *samples: Any) -> Path:
    write_shard(folder / "ds-toy_sub-01.tar", samples)
    export.lfb_shards(shard=folder / "ds-toy_sub-01.tar", folder=folder / "lfb", output=folder / "lfb.json")
    return folder / "lfb"


def test_lfb_has_one_tar_for_each_run_with_the_values_of_the_shard(tmp_path: Path) -> None:
    samples = [run_sample(run=1), run_sample(run=2)]
    folder = export_lfb(tmp_path, *samples)
    assert files(folder) == {"ds-toy_sub-01_task-blocks_run-1.tar", "ds-toy_sub-01_task-blocks_run-2.tar"}
    assert set(read_json(tmp_path / "lfb.json")["sha256"]) == files(folder)
    for sample in samples:
        (back,) = read_shard(folder / f"{sample.key}.tar")
        assert (back.key, back.bold.dtype, back.meta["t_r"]) == (sample.key, np.float32, 2.0)
        np.testing.assert_allclose(back.bold, sample.bold, rtol=0, atol=1e-6)


def test_lfb_trials_keep_their_labels(tmp_path: Path) -> None:
    folder = export_lfb(tmp_path, trial_sample(number=0, label=2), trial_sample(number=1, label=0))
    back = list(read_shard(folder / "ds-toy_sub-01_task-blocks_run-1.tar"))
    assert [(sample.meta["label"], sample.meta["label_name"]) for sample in back] == [(2, "rest"), (0, "faces")]


def test_lfb_tars_of_runs_that_are_gone_are_removed_and_other_subjects_stay(tmp_path: Path) -> None:
    export_lfb(tmp_path, run_sample(run=1), run_sample(run=2))
    (tmp_path / "lfb" / "ds-toy_sub-011_task-blocks_run-2.tar").write_bytes(b"another subject's")
    folder = export_lfb(tmp_path, run_sample(run=1))
    assert files(folder) == {"ds-toy_sub-01_task-blocks_run-1.tar", "ds-toy_sub-011_task-blocks_run-2.tar"}


def test_a_subject_without_samples_exports_nothing(tmp_path: Path) -> None:
    export_lfb(tmp_path)
    assert json.loads((tmp_path / "lfb.json").read_text())["sha256"] == {}


def test_a_damaged_shard_exports_nothing(tmp_path: Path) -> None:
    write_shard(tmp_path / "a.tar", [run_sample(run=1), run_sample(run=2)])
    (tmp_path / "a.tar").write_bytes((tmp_path / "a.tar").read_bytes()[:4000])
    with pytest.raises(InputError, match="cut"):
        export.lfb_shards(shard=tmp_path / "a.tar", folder=tmp_path / "lfb", output=tmp_path / "lfb.json")
    assert not (tmp_path / "lfb").exists()
    assert not (tmp_path / "lfb.json").exists()
