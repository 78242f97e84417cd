"""The target decode: one job for each person of a cohort, and one that scores them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from tests.workflow.conftest import TINY, Snakemake


@pytest.mark.parametrize("has_study", [True, False])
def test_each_person_is_a_job_and_a_last_one_scores_them(
    snakemake: Snakemake, tmp_path: Path, has_study: bool
) -> None:
    model, derivatives = tmp_path / "decoder", tmp_path / "fmriprep"
    model.mkdir()
    (model / "config.json").write_text(json.dumps({"layout": "fmriprep"}))
    (model / "contract.json").write_text(json.dumps({"space": "T1w"}))
    for subject in ("01", "02", "03"):
        (derivatives / f"sub-{subject}" / "func").mkdir(parents=True)
    content = yaml.safe_load(TINY.read_text(encoding="utf-8")) if has_study else {}
    content["decode"] = {"clinic": {"model": str(model), "derivatives": str(derivatives)}}
    config = tmp_path / "decode.yaml"
    config.write_text(yaml.safe_dump(content))
    done = snakemake(tmp_path, "--dry-run", "decode", config=config)
    assert done.returncode == 0, done.stdout + done.stderr
    counts = dict(re.findall(r"^(decode_\w+)\s+(\d+)$", done.stdout + done.stderr, re.MULTILINE))
    assert counts == {"decode_subject": "3", "decode_cohort": "1"}


def test_labels_of_hcp_people_are_letters_and_digits(snakemake: Snakemake, tmp_path: Path) -> None:
    model, derivatives = tmp_path / "decoder", tmp_path / "hcp"
    model.mkdir()
    (model / "config.json").write_text(json.dumps({"layout": "hcp"}))
    (model / "contract.json").write_text(json.dumps({"space": "MNI152NLin6Asym"}))
    for name in ("HCA01_V1_MR", "HCA02_V1_MR"):
        (derivatives / name / "MNINonLinear/Results/rfMRI_REST1_AP").mkdir(parents=True)
    config = tmp_path / "decode.yaml"
    content = {"decode": {"ageing": {"model": str(model), "derivatives": str(derivatives)}}}
    config.write_text(yaml.safe_dump(content))
    done = snakemake(tmp_path, "--dry-run", "decode", config=config)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {"sub-HCA01V1MR.done", "sub-HCA02V1MR.done"} <= set(re.findall(r"sub-\w+\.done", done.stdout))
