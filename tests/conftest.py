"""Fixtures shared by all tests: a small fMRIPrep-like study, and the real one where it is at hand."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from boldly.config import AtlasOptions, DatasetOptions, TaskOptions

SPACE = "MNI152NLin2009cAsym"
SHAPE = (8, 9, 8)
VOXEL_MM = 4.0
N_PARCELS = 6
STATES = ("faces", "house", "rest")
_REPOSITORY = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class RunFiles:
    """The files of one run."""

    bold: Path
    mask: Path
    sidecar: Path
    confounds: Path
    confounds_json: Path
    events: Path


@dataclass(frozen=True)
class Study:
    """A small study on disk: raw BIDS with events, fMRIPrep-like derivatives, and an atlas."""

    bids: Path
    derivatives: Path
    atlas: Path
    files: dict[tuple[str, str, str, str], RunFiles]

    def run(self, subject: str = "01", session: str = "", task: str = "blocks", run: str = "1") -> RunFiles:
        """Return the files of a run, entities spelled as when it was written."""
        return self.files[subject, session, task, run]

    def dataset_options(self, role: str = "downstream", **changes: Any) -> DatasetOptions:
        """Return options that use the study, with changes."""
        options: dict[str, Any] = {"role": role, "derivatives": str(self.derivatives)}
        if role == "downstream":
            options |= {"bids": str(self.bids), "task": TaskOptions()}
        return DatasetOptions.model_validate(options | changes)

    def atlas_options(self) -> AtlasOptions:
        """Return options that use the atlas of the study."""
        return AtlasOptions(path=str(self.atlas))


def affine() -> np.ndarray:
    """Return the affine of the study's grid: 4 mm voxels, world origin in the middle."""
    matrix = np.diag([VOXEL_MM, VOXEL_MM, VOXEL_MM, 1.0])
    matrix[:3, 3] = -VOXEL_MM * (np.array(SHAPE) - 1) / 2
    return matrix


def brain() -> np.ndarray:
    """Return the brain mask of the study: everything but the outermost voxels."""
    mask = np.zeros(SHAPE, np.uint8)
    mask[1:-1, 1:-1, 1:-1] = 1
    return mask


def parcels() -> np.ndarray:
    """Return the label image of the study: N_PARCELS slabs along y inside the brain, 0 outside."""
    slab = np.minimum(np.arange(SHAPE[1]) - 1, N_PARCELS - 1) + 1
    return (np.broadcast_to(slab[None, :, None], SHAPE) * brain()).astype(np.int16)


def confounds_table(n_volumes: int, rng: np.random.Generator, non_steady: int = 0) -> pd.DataFrame:
    """Return a table with the columns fMRIPrep writes; derivatives miss their first value."""
    columns: dict[str, np.ndarray] = {}
    bases = ["trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z"]
    for name in ["csf", "white_matter", "global_signal", *bases]:
        walk = np.cumsum(rng.normal(0, 0.01, n_volumes))
        values = walk if name in bases else 800 + 20 * rng.normal(size=n_volumes)
        difference = np.diff(values, prepend=np.nan)
        columns[name] = values
        columns[f"{name}_derivative1"] = difference
        columns[f"{name}_power2"] = values**2
        columns[f"{name}_derivative1_power2"] = difference**2
    first_missing = np.where(np.arange(n_volumes) == 0, np.nan, 1.0)
    columns["framewise_displacement"] = first_missing * rng.uniform(0.02, 0.12, n_volumes)
    columns["std_dvars"] = first_missing * rng.uniform(0.8, 1.2, n_volumes)
    time = (np.arange(n_volumes) + 0.5) / n_volumes
    for number in range(2):
        columns[f"cosine{number:02d}"] = np.cos(np.pi * (number + 1) * time)
    for prefix in ("a", "c", "w", "t"):
        for number in range(3):
            columns[f"{prefix}_comp_cor_{number:02d}"] = rng.normal(size=n_volumes)
    for number in range(non_steady):
        columns[f"non_steady_state_outlier{number:02d}"] = (np.arange(n_volumes) == number).astype(float)
    return pd.DataFrame(columns)


def block_events(duration_s: float) -> pd.DataFrame:
    """Return 10 s blocks of the states in turn, from 4 s, with 2 s between them."""
    onsets = np.arange(4.0, duration_s - 10, 12.0)
    names = [STATES[number % len(STATES)] for number in range(len(onsets))]
    return pd.DataFrame({"onset": onsets, "duration": 10.0, "trial_type": names})


def write_image(path: Path, data: np.ndarray, t_r: float | None = None, units: str = "sec") -> None:
    """Write a NIfTI image on the study's grid; `t_r` goes into the header in the unit named."""
    image = nib.Nifti1Image(data, affine())
    if t_r is not None:
        image.header.set_zooms((VOXEL_MM,) * 3 + (t_r * {"sec": 1, "msec": 1000}[units],))
        image.header.set_xyzt_units("mm", units)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)


def _write_run(
    bids: Path,
    derivatives: Path,
    found: dict[str, str],
    *,
    space: str,
    resolution: str,
    n_volumes: int,
    t_r: float,
    extension: str,
    old_confounds: bool,
    non_steady: int,
    rng: np.random.Generator,
) -> RunFiles:
    folder = Path(f"sub-{found['sub']}", *([f"ses-{found['ses']}"] if found["ses"] else []), "func")
    prefix = "_".join(f"{key}-{value}" for key, value in found.items() if value)
    in_space = f"{prefix}_space-{space}" + (f"_res-{resolution}" if resolution else "")
    confounds = f"{prefix}_desc-confounds_{'regressors' if old_confounds else 'timeseries'}"
    files = RunFiles(
        bold=derivatives / folder / f"{in_space}_desc-preproc_bold{extension}",
        mask=derivatives / folder / f"{in_space}_desc-brain_mask{extension}",
        sidecar=derivatives / folder / f"{in_space}_desc-preproc_bold.json",
        confounds=derivatives / folder / f"{confounds}.tsv",
        confounds_json=derivatives / folder / f"{confounds}.json",
        events=bids / folder / f"{prefix}_events.tsv",
    )
    signals = rng.normal(size=(N_PARCELS + 1, n_volumes))
    noise = rng.normal(size=(*SHAPE, n_volumes))
    bold = brain()[..., None] * (1000 + 30 * signals[parcels()] + 10 * noise)
    write_image(files.bold, bold.astype(np.int16), t_r)
    write_image(files.mask, brain())
    files.sidecar.write_text(json.dumps({"RepetitionTime": t_r, "TaskName": found["task"]}))
    table = confounds_table(n_volumes, rng, non_steady)
    table.to_csv(files.confounds, sep="\t", index=False, na_rep="n/a")
    masks = {"a": "combined", "c": "CSF", "w": "WM"}
    meta = {
        name: {"Method": "aCompCor", "Mask": masks[name[0]]} if name[0] in masks else {"Method": "tCompCor"}
        for name in table.columns
        if "_comp_cor_" in name
    }
    files.confounds_json.write_text(json.dumps(meta))
    files.events.parent.mkdir(parents=True, exist_ok=True)
    block_events(n_volumes * t_r).to_csv(files.events, sep="\t", index=False, na_rep="n/a")
    return files


def _write_study(
    root: Path,
    *,
    subjects: Sequence[str] = ("01", "02"),
    sessions: Sequence[str] = ("",),
    tasks: Sequence[str] = ("blocks",),
    runs: Sequence[str] = ("1", "2"),
    space: str = SPACE,
    resolution: str = "",
    n_volumes: int = 40,
    t_r: float = 2.0,
    extension: str = ".nii.gz",
    old_confounds: bool = False,
    non_steady: int = 0,
    seed: int = 0,
) -> Study:
    rng = np.random.default_rng(seed)
    bids, derivatives = root / "bids", root / "bids" / "derivatives" / "fmriprep"
    files = {}
    for subject in subjects:
        for session in sessions:
            for task in tasks:
                for run in runs:
                    files[subject, session, task, run] = _write_run(
                        bids,
                        derivatives,
                        {"sub": subject, "ses": session, "task": task, "run": run},
                        space=space,
                        resolution=resolution,
                        n_volumes=n_volumes,
                        t_r=t_r,
                        extension=extension,
                        old_confounds=old_confounds,
                        non_steady=non_steady,
                        rng=rng,
                    )
    atlas = root / "atlas-slabs_dseg.nii.gz"
    write_image(atlas, parcels())
    names = pd.DataFrame({"index": range(1, N_PARCELS + 1), "name": [f"slab-{i + 1}" for i in range(N_PARCELS)]})
    names.to_csv(root / "atlas-slabs_dseg.tsv", sep="\t", index=False)
    return Study(bids, derivatives, atlas, files)


@pytest.fixture
def write_study(tmp_path: Path) -> Callable[..., Study]:
    """Return a function that writes a small study into tmp_path (see `_write_study` for its options)."""

    def write(folder: str = "study", **options: Any) -> Study:
        return _write_study(tmp_path / folder, **options)

    return write


@pytest.fixture
def study(write_study: Callable[..., Study]) -> Study:
    """Return a small study: 2 subjects, task ``blocks``, runs 1 and 2, 40 volumes at 2 s, with events."""
    return write_study()


@pytest.fixture(scope="session")
def haxby() -> Path:
    """Return the folder of the real data: variable BOLDLY_HAXBY, or ../shared/data/haxby2001; skip without."""
    folder = Path(os.environ.get("BOLDLY_HAXBY", _REPOSITORY.parent / "shared" / "data" / "haxby2001"))
    if not folder.is_dir():
        pytest.skip("no real data: set BOLDLY_HAXBY to the folder of the Haxby slice")
    return folder
