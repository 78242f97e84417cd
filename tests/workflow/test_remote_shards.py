"""The workflow with shards at a web address."""

from __future__ import annotations

from pathlib import Path

import yaml

from boldly.records import write_runs
from boldly.samples.shards import write_shard
from tests.samples.examples import run_sample
from tests.stages.test_index_remote import record
from tests.web import serving
from tests.workflow.conftest import Snakemake

MODEL = "results/models/upstream/csm/model.safetensors"


def test_a_training_from_an_address_needs_no_local_shard(snakemake: Snakemake, tmp_path: Path) -> None:
    folder = tmp_path / "web"
    subjects = [f"{number:02d}" for number in range(1, 5)]
    for subject in subjects:
        write_shard(folder / f"ds-toy_sub-{subject}.tar", [run_sample(subject, n_volumes=40)])
    write_runs(folder / "toy_runs.tsv", [record(subject) for subject in subjects])
    csm = {"framework": "csm", "layers": 1, "width": 16, "heads": 2, "steps": 6, "batch_size": 4}
    csm |= {"validation_windows": 4, "stream_shards": 2, "stream_steps": 2}
    with serving(folder) as server:
        config = {
            "datasets": {"toy": {"role": "upstream", "shards": server.url}},
            "pretrain": {"experiments": {"csm": csm}},
        }
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
        arguments = (tmp_path, "--cores", "1")
        dry = snakemake(*arguments, "--dry-run", config=tmp_path / "config.yaml")
        assert dry.returncode == 0, dry.stderr
        assert server.requests == []
        run = snakemake(*arguments, config=tmp_path / "config.yaml")
        assert run.returncode == 0, run.stderr
        again = snakemake(*arguments, "--dry-run", config=tmp_path / "config.yaml")
        assert "Nothing to be done" in again.stdout + again.stderr
    assert (tmp_path / MODEL).is_file()
    assert not list(tmp_path.glob("data/**/*.tar"))
