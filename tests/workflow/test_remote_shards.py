"""The workflow with shards at a web address."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from boldly.records import write_runs
from boldly.samples.shards import write_shard
from tests.s3 import bucket_of
from tests.samples.examples import run_sample
from tests.stages.test_index_remote import record
from tests.web import serving
from tests.workflow.conftest import TINY, Snakemake

MODEL = "results/models/upstream/csm/model.safetensors"


STEPS = {"steps": 6, "batch_size": 4, "validation_windows": 4, "stream_shards": 2, "stream_steps": 2}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four subjects, as another computer would publish them."""
    folder = tmp_path / "web"
    subjects = [f"{number:02d}" for number in range(1, 5)]
    for subject in subjects:
        write_shard(folder / f"ds-toy_sub-{subject}.tar", [run_sample(subject, n_volumes=40)])
    write_runs(folder / "toy_runs.tsv", [record(subject) for subject in subjects])
    return folder


def write_config(path: Path, address: str) -> Path:
    csm = {"framework": "csm", "layers": 1, "width": 16, "heads": 2, **STEPS}
    datasets = {"toy": {"role": "upstream", "shards": address}}
    path.write_text(yaml.safe_dump({"datasets": datasets, "pretrain": {"experiments": {"csm": csm}}}))
    return path


def test_an_address_is_trained_on_without_local_shards(snakemake: Snakemake, folder: Path, tmp_path: Path) -> None:
    with serving(folder) as server:
        config = write_config(tmp_path / "config.yaml", server.url)
        arguments = (tmp_path, "--cores", "1")
        dry = snakemake(*arguments, "--dry-run", config=config)
        assert dry.returncode == 0, dry.stderr
        assert server.requests == []
        run = snakemake(*arguments, config=config)
        assert run.returncode == 0, run.stderr
        again = snakemake(*arguments, "--dry-run", config=config)
        assert "Nothing to be done" in again.stdout + again.stderr
    assert (tmp_path / MODEL).is_file()
    assert not list(tmp_path.glob("data/**/*.tar"))


def test_a_bucket_is_trained_on_without_local_shards(snakemake: Snakemake, folder: Path, tmp_path: Path) -> None:
    with bucket_of(folder) as address:
        config = write_config(tmp_path / "config.yaml", address)
        run = snakemake(tmp_path, "--cores", "1", config=config)
        assert run.returncode == 0, run.stderr
    assert (tmp_path / MODEL).is_file()


def test_images_in_a_bucket_are_fetched_before_index_and_once(
    snakemake: Snakemake, study: Path, tmp_path: Path
) -> None:
    content = yaml.safe_load(TINY.read_text())
    content["atlas"]["path"] = str(study / content["atlas"]["path"])
    with bucket_of(study / "study/demo01/derivatives/fmriprep") as address:
        content["datasets"] = {
            "demo01": {"role": "upstream", "derivatives": "here", "fetch": {"derivatives": address}}
        }
        del content["split"], content["adapt"], content["explain"]
        config = tmp_path / "config.yaml"
        config.write_text(yaml.safe_dump(content))
        dry = snakemake(tmp_path, "--cores", "1", "--dry-run", "split", config=config)
        assert dry.returncode == 0, dry.stderr
        run = snakemake(tmp_path, "--cores", "1", "split", config=config)
        assert run.returncode == 0, run.stderr
    runs = (tmp_path / "results/index/demo01_runs.tsv").read_text()
    assert len(runs.splitlines()) - 1 == len(list((study / "study/demo01").rglob("*_desc-preproc_bold.nii.gz")))
    # Without the server: what is here is not asked for again, and index has seen the files that came.
    again = snakemake(tmp_path, "--cores", "1", "split", config=config)
    assert "Nothing to be done" in again.stdout + again.stderr
