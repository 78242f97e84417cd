"""The reduced demo on a real Slurm with emulated nodes: `make test-cluster`."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file

from boldly.config import PretrainOptions
from tests.training import launcher, synthetic
from tests.workflow.conftest import CHECKOUT, Snakemake, command

KIT = Path(os.environ.get("SLURM_KIT", CHECKOUT.parent / "shared/slurm"))

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[dict[str, str]]:
    """Start a throw-away Slurm whose account is the one that the profile names; stop it afterwards."""
    if not (KIT / "start-local-slurm.sh").exists():
        pytest.skip("no folder that starts a local Slurm: set SLURM_KIT")
    if os.geteuid() != 0:
        pytest.skip("starting a local Slurm needs root")
    # Not below pytest's folders, which only their owner may enter: munge refuses to put its socket there.
    state = Path(tempfile.mkdtemp(prefix="slurm"))
    state.chmod(0o755)
    environment = {**os.environ, "LOCAL_SLURM_ACCOUNT": "default"}
    subprocess.run([KIT / "start-local-slurm.sh", state], env=environment, check=True)
    # The plugin adds 10 s to its polling interval each time nothing has finished: too slow for jobs of seconds.
    yield {"PYTHONPATH": str(KIT / "fastpoll"), "SNAKEMAKE_SLURM_POLL_SECONDS": "1"}
    subprocess.run([KIT / "stop-local-slurm.sh", "--purge", state], check=True)


def test_the_chain_runs_as_slurm_jobs(study: Path, snakemake: Snakemake, cluster: dict[str, str]) -> None:
    run = snakemake(
        study,
        "--profile",
        "slurm",
        "--jobs",
        "8",
        "--latency-wait",
        "15",
        "--slurm-init-seconds-before-status-checks",
        "2",
        "--slurm-status-command",
        "squeue",
        **cluster,
    )
    assert run.returncode == 0, run.stderr[-4000:]
    assert (study / "results/figures/downstream_accuracy.png").exists()

    jobs = accounting()
    for rule, ran in RULES.items():
        # The plugin names each job's log after its id, below a folder named after the rule.
        logs = list((study / "results/logs/slurm").glob(f"rule_{rule}/**/*.log"))
        assert len(logs) >= ran, f"{rule} ran {len(logs)} times as a Slurm job, not {ran}"
        for log in logs:
            partition, state, resources, seconds = jobs[log.stem]
            print(f"{rule:28}{log.stem:>6}  {partition:4}{state:10}{resources}  {seconds} s")
            assert state == "COMPLETED"
            trains = rule in ("pretrain_experiment", "adapt_probes", "adapt_experiment")
            assert partition == ("gpu" if trains else "cpu")
            assert ("gres/gpu=1" in resources) == trains


def test_two_nodes_of_two_processes_agree_with_one(cluster: dict[str, str], tmp_path: Path) -> None:
    data = synthetic.upstream_study(tmp_path / "data", n_subjects=4)
    options = PretrainOptions.model_validate(
        {"framework": "csm", "layers": 1, "width": 16, "heads": 2, "steps": 8, "batch_size": 8, "dropout": 0.0}
        | {"learning_rate": 1e-3, "evaluate_every": 4, "validation_windows": 16, "window_frames": (6, 12)}
    )
    for nodes in (1, 2):
        script = tmp_path / f"{nodes}.sh"
        launch = [command("boldly"), "launch", "--nodes", str(nodes), "--processes", str(nodes)]
        launch += launcher.pretrain(data, tmp_path / str(nodes), options)
        script.write_text(f"#!/bin/sh\nexec {shlex.join(launch)}\n")
        asked = ["--partition", "gpu", "--account", "default", "--mem", "4000", "--cpus-per-task", "2"]
        asked += ["--nodes", str(nodes), "--ntasks-per-node", "1", "--gpus-per-node", str(nodes)]
        log = tmp_path / f"{nodes}.log"
        done = subprocess.run(["sbatch", "--wait", "--parsable", *asked, "--output", log, script], check=False)
        assert done.returncode == 0, log.read_text()[-4000:]
    one, four = (load_file(tmp_path / name / "model.safetensors") for name in ("1", "2"))
    # The same global batch in another order of summation; AdamW enlarges rounding, hence not 1e-7.
    assert max(float((one[name] - four[name]).abs().max()) for name in one) < 1e-4


def test_an_experiment_trains_on_two_nodes(study: Path, snakemake: Snakemake, cluster: dict[str, str]) -> None:
    """After the test of the chain: nothing but the training is left to be done."""
    run = snakemake(
        study,
        "--profile",
        "slurm",
        "--config",
        "devices={csm: {nodes: 2, gpus: 2}}",
        "--slurm-init-seconds-before-status-checks",
        "2",
        "--slurm-status-command",
        "squeue",
        "--force",
        "results/models/upstream/csm/model.safetensors",
        **cluster,
    )
    assert run.returncode == 0, run.stderr[-4000:]
    (log, *_) = sorted(
        (study / "results/logs/slurm/rule_pretrain_experiment").glob("csm/*.log"),
        key=lambda path: int(path.stem),
        reverse=True,
    )
    _, state, resources, _ = accounting()[log.stem]
    assert state == "COMPLETED"
    assert {"node=2", "gres/gpu=4", "cpu=16"} <= set(resources.split(","))


# How often each rule runs at least: demo01 has 4 subjects, demomdtb 6.
RULES = {
    "index_dataset": 2,
    "preprocess_subject": 10,
    "parcellate_subject": 10,
    "shard_subject": 10,
    "split_dataset": 2,
    "pretrain_experiment": 1,
    "adapt_probes": 1,
    "adapt_experiment": 3,
    "evaluate_dataset": 1,
    "figure_upstream_losses": 1,
    "figure_downstream": 2,
}


def accounting() -> dict[str, list[str]]:
    """Return partition, state, allocated resources and seconds of each job, by its number."""
    columns = "JobID,Partition,State,AllocTRES%80,ElapsedRaw"
    command = ["sacct", "-X", "-n", "-P", "-o", columns]
    table = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rows = [line.split("|") for line in table.splitlines()]
    return {row[0]: row[1:] for row in rows}
