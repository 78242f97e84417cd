"""Stage parcellate: what it writes for a subject, equal to nilearn's masker, and how it reports bad runs."""

from __future__ import annotations

import dataclasses
import gzip
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from nilearn.maskers import NiftiLabelsMasker

from boldly.config import AtlasOptions, ParcellateOptions, PreprocessOptions
from boldly.files import read_tsv, write_tsv
from boldly.records import InputError, Run, write_runs
from boldly.samples.timeseries import RunSeries, read_timeseries
from boldly.signals.atlas import load_atlas
from boldly.signals.cleaning import clean
from boldly.signals.confounds import Nuisance, write_nuisance
from boldly.signals.images import open_volumes
from boldly.signals.projection import load_projection
from boldly.stages import parcellate

SHAPE = (10, 9, 8)
T, T_R = 60, 2.0
AFFINE = np.diag([3.0, 3, 3, 1])
SCRUBBED = [0, 25, 26]
N_PARCELS = 4


@dataclasses.dataclass
class Subject:
    """A subject with two runs on disk and what the stage before wrote about them."""

    folder: Path
    runs: list[Run]
    nuisance: dict[str, Nuisance]
    status: dict[str, str]
    atlas: AtlasOptions

    def parcellate(
        self,
        on_error: Literal["stop", "exclude"] = "stop",
        preprocess: dict[str, Any] | None = None,
        **options: Any,
    ) -> list[RunSeries]:
        """Run the stage; return what it wrote."""
        path = self.folder
        write_runs(path / "runs.tsv", self.runs)
        write_nuisance(path / "nuisance.tsv", {k: v for k, v in self.nuisance.items() if self.status[k] == "ok"})
        write_tsv(path / "qc.tsv", pd.DataFrame({"key": list(self.status), "status": list(self.status.values())}))
        parcellate.run(
            runs=path / "runs.tsv",
            subject="01",
            nuisance=path / "nuisance.tsv",
            qc=path / "qc.tsv",
            atlas=self.atlas,
            options=ParcellateOptions.model_validate(options),
            preprocess=PreprocessOptions.model_validate(preprocess or {}),
            cache=path / "cache",
            output=path / "out" / "sub-01_timeseries.safetensors",
            quality=path / "out" / "sub-01_quality.tsv",
            on_error=on_error,
        )
        return read_timeseries(path / "out" / "sub-01_timeseries.safetensors")[0]


def quality(subject: Subject) -> pd.DataFrame:
    return read_tsv(subject.folder / "out" / "sub-01_quality.tsv")


def labels() -> np.ndarray:
    """Return four slabs along x."""
    image = np.zeros(SHAPE, np.int16)
    for number in range(N_PARCELS):
        image[1 + 2 * number : 3 + 2 * number, 1:8, 1:7] = number + 1
    return image


def save(path: Path, data: np.ndarray) -> str:
    nib.save(nib.Nifti1Image(data, AFFINE), path)
    return str(path)


@pytest.fixture
def subject(tmp_path: Path) -> Subject:
    rng = np.random.default_rng(4)
    runs, nuisance = [], {}
    for number in ("01", "02"):
        key = f"ds-toy_sub-01_task-rest_run-{int(number)}"
        bold = rng.uniform(500, 1500, SHAPE)[..., None] * (1 + 0.02 * rng.normal(size=(*SHAPE, T)))
        runs.append(
            Run(
                dataset="toy",
                subject="01",
                session="",
                task="rest",
                acquisition="",
                direction="",
                run=number,
                space="MNI152NLin2009cAsym",
                key=key,
                bold=save(tmp_path / f"run-{number}_bold.nii.gz", bold.astype(np.float32)),
                mask=save(tmp_path / f"run-{number}_mask.nii.gz", np.ones(SHAPE, np.uint8)),
                confounds="",
                events="",
                t_r=T_R,
                n_volumes=T,
            )
        )
        regressors = np.cumsum(rng.normal(size=(T, 3)), axis=0)
        kept = ~np.isin(np.arange(T), SCRUBBED)
        nuisance[key] = Nuisance(kept, regressors - regressors[kept].mean(axis=0), ("csf", "trans_x", "trans_y"))
    atlas = AtlasOptions(path=save(tmp_path / "atlas-slabs_dseg.nii.gz", labels()))
    return Subject(tmp_path, runs, nuisance, {run.key: "ok" for run in runs}, atlas)


@pytest.mark.parametrize("standardize", ["zscore", "psc", "none"])
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
def test_equals_nilearns_masker(subject: Subject, standardize: str) -> None:
    series = subject.parcellate(smoothing_fwhm_mm=5, standardize=standardize, low_pass_hz=0.2)
    assert [run.key for run in series] == [run.key for run in subject.runs]
    for record, run in zip(subject.runs, series, strict=True):
        masker = NiftiLabelsMasker(
            subject.atlas.path,
            smoothing_fwhm=5,
            standardize={"zscore": "zscore_sample", "psc": "psc", "none": None}[standardize],
            detrend=True,
            high_pass=0.008,
            low_pass=0.2,
            t_r=T_R,
            reports=False,
        )
        nuisance = subject.nuisance[record.key]
        expected = masker.fit_transform(
            record.bold, confounds=nuisance.regressors, sample_mask=np.flatnonzero(nuisance.kept)
        )
        np.testing.assert_array_equal(run.frames, np.flatnonzero(nuisance.kept))
        assert run.data.dtype == np.float32
        # nilearn computes in single precision here: it keeps the images' type.
        assert np.abs((run.data - expected) / expected.std(axis=0)).max() < 1e-3


def half_covered(subject: Subject) -> None:
    """Take the first two slabs out of the mask of the second run."""
    mask = np.ones(SHAPE, np.uint8)
    mask[:5] = 0
    save(Path(subject.runs[1].mask), mask)


def test_quality_of_signals_is_that_of_the_parcels_before_cleaning(subject: Subject) -> None:
    half_covered(subject)
    subject.parcellate(smoothing_fwhm_mm=None)
    table = quality(subject).set_index("key")
    slabs = labels()
    for record, used in zip(subject.runs, (range(1, 5), range(3, 5)), strict=True):
        data = np.asarray(nib.load(record.bold).dataobj)[..., subject.nuisance[record.key].kept]  # type: ignore[attr-defined]
        signals = np.stack([data[slabs == number].mean(axis=0) for number in used])
        tsnr = signals.mean(axis=1) / signals.std(axis=1, ddof=1)
        row = table.loc[record.key]
        assert row["status"] == "ok"
        assert row["median_tsnr"] == pytest.approx(np.median(tsnr), rel=0.02)
        assert row["lowest_tsnr"] == pytest.approx(tsnr.min(), rel=0.02)
    assert table["median_coverage"].tolist() == [1, 0.5]
    assert table["n_marked"].tolist() == [0, 2]


@pytest.mark.parametrize(
    ("exclude", "reason"),
    [
        ({"median_coverage": 0.6}, "median coverage 0.5 is under 0.6"),
        ({"median_tsnr": 1e6}, "median tSNR .* is under 1e+06"),
    ],
)
def test_runs_with_poor_signals_are_excluded_by_rule(
    subject: Subject, exclude: dict[str, float], reason: str
) -> None:
    half_covered(subject)
    series = subject.parcellate(exclude=exclude)
    table = quality(subject)
    assert [run.key for run in series] == table.loc[table["status"] == "ok", "key"].tolist()
    excluded = table[table["status"] == "excluded"]
    assert subject.runs[1].key in set(excluded["key"])
    assert len(excluded) == (1 if "median_coverage" in exclude else 2)
    assert excluded["reason"].str.fullmatch(reason.replace("+", "[+]")).all()


def test_arrays_and_meta_describe_the_run(subject: Subject) -> None:
    run = subject.parcellate()[0]
    kept = T - len(SCRUBBED)
    shapes = {part: getattr(run, part).shape for part in ("data", "frames", "mean", "std", "coverage")}
    assert shapes == {
        "data": (kept, N_PARCELS),
        "frames": (kept,),
        "mean": (N_PARCELS,),
        "std": (N_PARCELS,),
        "coverage": (N_PARCELS,),
    }
    assert run.frames.dtype == np.int64
    assert run.meta["t_r"] == T_R
    assert (run.meta["dataset"], run.meta["subject"], run.meta["run_key"]) == ("toy", "01", run.key)
    assert {name: value for name, value in run.meta["entities"].items() if value} == {"task": "rest", "run": "01"}
    assert (run.meta["n_volumes"], run.meta["marked"], run.meta["nonfinite_values"]) == (T, [], 0)
    np.testing.assert_allclose(run.data.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(run.data.std(axis=0, ddof=1), 1, rtol=1e-6)
    # Levels of the image, 500 to 1500, are the baseline of its parcels.
    assert ((run.mean > 900) & (run.mean < 1100)).all()


def test_the_contract_tells_how_the_series_came_about(subject: Subject) -> None:
    subject.parcellate(smoothing_fwhm_mm=4, detrend=False)
    _, contract = read_timeseries(subject.folder / "out" / "sub-01_timeseries.safetensors")
    assert (contract.atlas, contract.n_parcels) == ("atlas-slabs_dseg", N_PARCELS)
    assert (contract.space, contract.smoothing_fwhm_mm) == ("MNI152NLin2009cAsym", 4)
    assert (contract.detrend, contract.high_pass_hz, contract.low_pass_hz) == (False, 0.008, None)
    assert contract.confounds["strategy"] == ["motion", "wm_csf", "global_signal"]
    assert "exclude" not in contract.confounds


def test_the_same_input_gives_the_same_bytes(subject: Subject) -> None:
    subject.parcellate()
    output = subject.folder / "out" / "sub-01_timeseries.safetensors"
    first = output.read_bytes()
    subject.parcellate()
    assert output.read_bytes() == first


def test_parcels_outside_the_brain_mask_are_zeros_and_marked(subject: Subject) -> None:
    mask = np.ones(SHAPE, np.uint8)
    mask[:2] = 0  # half of the first slab
    mask[5:, 2:] = 0  # six sevenths of the third and fourth
    save(Path(subject.runs[0].mask), mask)
    first, second = subject.parcellate(min_coverage=0.5)
    np.testing.assert_allclose(first.coverage, [0.5, 1, 1 / 7, 1 / 7], rtol=1e-6)
    assert first.meta["marked"] == first.meta["uncovered"] == [2, 3]
    assert first.meta["marked_names"] == ["parcel-3", "parcel-4"]
    assert not first.data[:, 2:].any()
    assert first.data[:, :2].any(axis=0).all()
    assert second.meta["marked"] == []
    # Without the option the mask decides about parcels, not about voxels: signals do not depend on it.
    (unmasked, _) = subject.parcellate(mask=False)
    assert np.array_equal(unmasked.coverage, first.coverage)
    subject.runs[0] = dataclasses.replace(subject.runs[0], mask="")
    without = subject.parcellate()[0]
    np.testing.assert_array_equal(without.coverage, 1)
    np.testing.assert_array_equal(without.data[:, :2], unmasked.data[:, :2])
    # The mask does not cut the second parcel.
    np.testing.assert_array_equal(first.data[:, 1], unmasked.data[:, 1])


@pytest.mark.parametrize("mask", [True, False])
def test_voxels_beside_the_brain_do_not_count(subject: Subject, mask: bool) -> None:
    record = subject.runs[0]
    inside = np.ones(SHAPE, np.uint8)
    inside[:2] = 0  # half of the first slab
    truth = np.sin(np.arange(T) / 3)
    data = np.full((*SHAPE, T), 1000.0) + 10 * truth
    # What is recorded beside the brain is five times as strong.
    data[:2] = 1000 + 50 * np.random.default_rng(0).normal(size=T)
    save(Path(record.mask), inside)
    save(Path(record.bold), data.astype(np.float32))
    (series, _) = subject.parcellate(mask=mask, smoothing_fwhm_mm=None, high_pass_hz=None, detrend=False)
    found = np.corrcoef(series.data[:, 0], truth[series.frames])[0, 1]
    assert (abs(found) > 0.9) == mask
    contract = read_timeseries(subject.folder / "out" / "sub-01_timeseries.safetensors")[1]
    assert contract.mask == mask


def test_parcels_that_do_not_vary_are_zeros_and_marked(subject: Subject) -> None:
    bold = nib.nifti1.load(subject.runs[0].bold).get_fdata(dtype=np.float32)
    bold[3:5] = 700
    save(Path(subject.runs[0].bold), bold)
    run = subject.parcellate(smoothing_fwhm_mm=None)[0]
    assert run.meta["marked"] == run.meta["constant"] == [1]
    assert not run.data[:, 1].any()


def test_values_that_are_not_finite_are_counted(subject: Subject, caplog: pytest.LogCaptureFixture) -> None:
    bold = nib.nifti1.load(subject.runs[0].bold).get_fdata(dtype=np.float32)
    bold[4, 4, 4, 7:12] = np.nan
    save(Path(subject.runs[0].bold), bold)
    run = subject.parcellate()[0]
    assert run.meta["nonfinite_values"] == 5
    assert np.isfinite(run.data).all()
    assert "5 voxel values are not finite" in caplog.text


def test_excluded_runs_are_left_out(subject: Subject) -> None:
    subject.status[subject.runs[0].key] = "excluded"
    assert [run.key for run in subject.parcellate()] == [subject.runs[1].key]


def test_a_subject_without_usable_runs_gets_a_file_without_arrays(subject: Subject) -> None:
    subject.status = dict.fromkeys(subject.status, "excluded")
    assert subject.parcellate() == []
    _, contract = read_timeseries(subject.folder / "out" / "sub-01_timeseries.safetensors")
    assert contract.n_parcels == N_PARCELS


def test_runs_without_regressors_are_taken(subject: Subject) -> None:
    empty = Nuisance(np.ones(T, dtype=bool), np.empty((T, 0)), ())
    subject.nuisance = dict.fromkeys(subject.nuisance, empty)
    assert [run.data.shape for run in subject.parcellate()] == [(T, N_PARCELS)] * 2


def test_all_bad_runs_are_reported_at_once_and_nothing_is_written(subject: Subject) -> None:
    bold = Path(subject.runs[0].bold)
    bold.write_bytes(bold.read_bytes()[:-5000])
    save(Path(subject.runs[1].mask), np.zeros(SHAPE, np.uint8))
    with pytest.raises(InputError) as caught:
        subject.parcellate()
    found = [(problem.where, problem.entity) for problem in caught.value.problems]
    assert found == [(str(bold), subject.runs[0].key), (subject.runs[1].mask, subject.runs[1].key)]
    assert not (subject.folder / "out").exists()


def test_a_defective_run_becomes_a_row_with_the_reason_where_the_config_says_so(subject: Subject) -> None:
    data = nib.Nifti1Image.from_filename(subject.runs[0].bold).get_fdata(dtype=np.float32)
    data[..., -1] = 0
    save(Path(subject.runs[0].bold), data)
    (series,) = subject.parcellate(on_error="exclude")
    assert series.key == subject.runs[1].key
    table = quality(subject)
    assert table["status"].tolist() == ["error", "ok"]
    assert table["reason"].tolist()[0] == f"1 of {T} volumes hold nothing but zeros or NaN: {T - 1}"
    assert table["n_marked"].isna().tolist() == [True, False]


def test_a_repaired_run_gives_the_bytes_of_a_clean_one(subject: Subject) -> None:
    subject.parcellate()
    output = subject.folder / "out" / "sub-01_timeseries.safetensors"
    before = output.read_bytes()
    bold = Path(subject.runs[0].bold)
    content = bold.read_bytes()
    bold.write_bytes(gzip.compress(gzip.decompress(content)[:-100]))
    with pytest.raises(InputError, match=f"data end in volume {T - 1} of {T}"):
        subject.parcellate()
    bold.write_bytes(content)
    subject.parcellate()
    assert output.read_bytes() == before


def test_a_run_of_another_length_than_its_nuisance_table_is_refused(subject: Subject) -> None:
    save(Path(subject.runs[0].bold), np.ones((*SHAPE, T - 1), np.float32))
    with pytest.raises(InputError, match=f"{T - 1} volumes, its nuisance table {T} frames"):
        subject.parcellate()


def test_a_run_without_nuisance_rows_is_refused(subject: Subject) -> None:
    del subject.nuisance[subject.runs[1].key]
    with pytest.raises(InputError, match="no rows of this run"):
        subject.parcellate()


def test_an_atlas_that_does_not_overlap_is_refused(subject: Subject) -> None:
    affine = AFFINE.copy()
    affine[:3, 3] = 400
    nib.save(nib.Nifti1Image(labels(), affine), str(subject.atlas.path))
    with pytest.raises(InputError, match="the atlas has no voxel within"):
        subject.parcellate()


def test_a_run_that_cannot_be_filtered_is_refused(subject: Subject) -> None:
    subject.runs[0] = dataclasses.replace(subject.runs[0], t_r=2000.0)
    with pytest.raises(InputError, match=r"high_pass_hz 0\.008 leaves nothing"):
        subject.parcellate()


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
def test_a_real_run_equals_nilearn(haxby: Path, tmp_path: Path) -> None:
    folder = haxby / "derivatives" / "fmriprep" / "sub-001" / "func"
    run = folder / "sub-001_task-objectviewing_run-01_space-T1w_desc-preproc_bold.nii.gz"
    path = str(haxby / "atlas-slice64_dseg.nii.gz")
    volumes = open_volumes(run)
    projection = load_projection(load_atlas(AtlasOptions(path=path)), volumes.grid, 6.0, tmp_path)
    signals = projection.extract(volumes).signals
    kept = np.ones(len(signals), dtype=bool)
    options = ParcellateOptions(smoothing_fwhm_mm=6.0)
    ours = clean(signals, kept=kept, regressors=np.empty((len(kept), 0)), t_r=2.5, options=options)
    masker = NiftiLabelsMasker(
        path,
        smoothing_fwhm=6.0,
        standardize="zscore_sample",
        detrend=True,
        high_pass=0.008,
        t_r=2.5,
        reports=False,
    )
    expected = masker.fit_transform(str(run))
    assert np.abs(ours.data - expected).max() < 1e-3


def test_there_is_no_butterworth_filter_beside_cosines(subject: Subject, caplog: pytest.LogCaptureFixture) -> None:
    subject.parcellate(preprocess={"strategy": ["motion", "high_pass"]})
    assert "no Butterworth high-pass filter" in caplog.text
    path = subject.folder / "out" / "sub-01_timeseries.safetensors"
    found, contract = read_timeseries(path)
    assert contract.high_pass_hz is None
    assert contract.confounds["strategy"] == ["motion", "high_pass"]
    for one, other in zip(found, subject.parcellate(high_pass_hz=None), strict=True):
        assert np.array_equal(one.data, other.data)
    assert read_timeseries(path)[1].high_pass_hz is None
