"""The commands of the tutorial, run as a reader runs them, in a copy of the checkout."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from tests.workflow.conftest import CHECKOUT

PAGE = CHECKOUT / "docs/tutorials/your_study.md"
STATES = ("bottle", "cat", "face")


def commands(page: Path) -> list[str]:
    """Return the lines of the blocks that a reader types into a shell."""
    blocks = re.findall(r"```bash\n(.*?)```", page.read_text(), re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line and not line.startswith("#")]


def write_stand_in(folder: Path) -> None:
    """Write twelve short runs of one person, laid out as the Haxby slice; each state lights parcels of its own."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(1, 17), 4).reshape(8, 8, 1)
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    folder.mkdir()
    nib.save(nib.Nifti1Image(labels.astype(np.int16), affine), folder / "atlas-slice64_dseg.nii.gz")
    for number in range(1, 13):
        name = f"sub-001_task-objects_run-{number:02d}"
        events = pd.DataFrame(
            {"onset": [10.0, 50.0, 90.0], "duration": 25.0, "trial_type": rng.permutation(STATES)}
        )
        image = 1000 + rng.normal(0, 5, (*labels.shape, 60))
        for onset, state in zip(events["onset"], events["trial_type"], strict=True):
            start = int((onset + 2.5) / 2.5)
            image[labels % len(STATES) == STATES.index(state), start : start + 10] += 8
        raw, func = folder / "sub-001/func", folder / "derivatives/fmriprep/sub-001/func"
        raw.mkdir(parents=True, exist_ok=True)
        func.mkdir(parents=True, exist_ok=True)
        events.to_csv(raw / f"{name}_events.tsv", sep="\t", index=False)
        header = nib.Nifti1Image(image.astype(np.float32), affine)
        header.header.set_zooms((3.0, 3.0, 3.0, 2.5))
        nib.save(header, func / f"{name}_space-T1w_desc-preproc_bold.nii.gz")
        mask = nib.Nifti1Image(np.ones(labels.shape, np.uint8), affine)
        nib.save(mask, func / f"{name}_space-T1w_desc-brain_mask.nii.gz")
        (func / f"{name}_space-T1w_desc-preproc_bold.json").write_text(json.dumps({"RepetitionTime": 2.5}))
        columns = [f"{kind}_{axis}" for kind in ("trans", "rot") for axis in "xyz"] + ["framewise_displacement"]
        confounds = pd.DataFrame(rng.normal(0, 0.01, (60, 7)), columns=columns)
        confounds["framewise_displacement"] = confounds["framewise_displacement"].abs()
        confounds["global_signal"] = image.mean(axis=(0, 1, 2))
        confounds.to_csv(func / f"{name}_desc-confounds_timeseries.tsv", sep="\t", index=False)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    if not (CHECKOUT / ".git").exists():
        pytest.skip("no git checkout: nothing says which files belong to boldly")
    files = subprocess.run(["git", "ls-files", "-z"], cwd=CHECKOUT, capture_output=True, check=True).stdout
    folder = tmp_path / "boldly"
    folder.mkdir()
    packed = ["tar", "cf", "-", "--null", "--files-from=-"]
    archive = subprocess.run(packed, cwd=CHECKOUT, input=files, capture_output=True, check=True).stdout
    subprocess.run(["tar", "xf", "-"], cwd=folder, input=archive, check=True)
    return folder


def follow(page: Path, checkout: Path, data: Path) -> str:
    """Run the commands of a page with the data in `data`; return what they say."""
    said = ""
    # As `source .venv/bin/activate` does; the package is that of the copy.
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    place = {**os.environ, "HAXBY": str(data), "PATH": path, "PYTHONPATH": str(checkout / "src")}
    for line in commands(page):
        if line.startswith("export HAXBY="):
            continue
        done = subprocess.run(["bash", "-c", line], cwd=checkout, env=place, capture_output=True, text=True)
        said += done.stdout
        assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return said


def accuracy(checkout: Path) -> float:
    scores = pd.read_csv(checkout / "haxby/results/evaluate/haxby_scores.tsv", sep="\t")
    whole = (scores[["draw", "seed", "subject"]] == "all").all(axis=1) & (scores["metric"] == "accuracy")
    return float(scores.loc[whole & (scores["kind"] == "baseline") & (scores["n"] == 11), "value"].max())


@pytest.mark.slow
def test_your_study_as_written(checkout: Path, haxby: Path) -> None:
    follow(PAGE, checkout, haxby)
    # Eight states, chance 0.125; runs of this config had 0.84.
    assert accuracy(checkout) > 0.7
    assert "the same person trains and tests" in (checkout / "haxby/results/report.html").read_text()


@pytest.mark.slow
def test_your_study_with_simulated_runs(checkout: Path, tmp_path: Path) -> None:
    write_stand_in(tmp_path / "haxby2001")
    said = follow(PAGE, checkout, tmp_path / "haxby2001")
    assert "face" in said
    assert accuracy(checkout) > 0.9  # each state lights parcels of its own, 8 over a noise of 5 in each voxel


def test_the_page_names_the_config_that_it_runs() -> None:
    lines = commands(PAGE)
    assert any("--configfile config/haxby.yaml" in line for line in lines)
    assert "config/haxby.yaml\n" in PAGE.read_text()
