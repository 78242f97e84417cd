"""The reduced demo on a real Slurm with emulated nodes: `make test-cluster`."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest
from safetensors.torch import load_file

from boldly.config import PretrainOptions
from tests.cluster.local_slurm import LocalSlurm
from tests.training import launcher, synthetic
from tests.workflow.conftest import CHECKOUT, Snakemake, command

pytestmark = pytest.mark.cluster


def test_the_chain_runs_as_slurm_jobs(study: Path, submit: Snakemake, cluster: LocalSlurm) -> None:
    run = submit(study, "--jobs", "8")
    assert run.returncode == 0, run.stderr[-4000:]
    assert (study / "results/figures/downstream_accuracy.png").exists()

    jobs = cluster.accounting()
    for rule, ran in RULES.items():
        # The plugin names each job's log after its id, below a folder named after the rule.
        logs = list((study / "results/logs/slurm").glob(f"rule_{rule}/**/*.log"))
        assert len(logs) >= ran, f"{rule} ran {len(logs)} times as a Slurm job, not {ran}"
        for log in logs:
            partition, state, resources, seconds, _ = jobs[log.stem]
            print(f"{rule:28}{log.stem:>6}  {partition:4}{state:10}{resources}  {seconds} s")
            assert state == "COMPLETED"
            trains = rule in ("pretrain_experiment", "adapt_probes", "adapt_experiment")
            assert partition == ("gpu" if trains else "cpu")
            assert ("gres/gpu=1" in resources) == trains


@pytest.mark.parametrize("deepspeed", [None, "zero2"])
def test_two_nodes_of_two_processes_agree_with_one(
    cluster: LocalSlurm, tmp_path: Path, deepspeed: str | None
) -> None:
    data = synthetic.upstream_study(tmp_path / "data", n_subjects=4)
    options = PretrainOptions.model_validate(
        {"framework": "csm", "layers": 1, "width": 16, "heads": 2, "steps": 8, "batch_size": 8, "dropout": 0.0}
        | {"learning_rate": 1e-3, "evaluate_every": 4, "validation_windows": 16, "window_frames": (6, 12)}
    )
    spread = str(CHECKOUT / f"config/deepspeed/{deepspeed}.json") if deepspeed else None
    # One process has nobody to share with.
    for nodes, shared in ((1, None), (2, spread)):
        script = tmp_path / f"{nodes}.sh"
        launch = [command("boldly"), "launch", "--nodes", str(nodes), "--processes", str(nodes)]
        chosen = options.model_copy(update={"deepspeed": shared})
        launch += launcher.pretrain(data, tmp_path / str(nodes), chosen)
        script.write_text(f"#!/bin/sh\nexec {shlex.join(launch)}\n")
        # Three processes with torch and DeepSpeed on a node: Slurm counts what they share for each.
        asked = ["--partition", "gpu", "--account", "default", "--mem", "8000", "--cpus-per-task", "2"]
        asked += ["--nodes", str(nodes), "--ntasks-per-node", "1", "--gpus-per-node", str(nodes)]
        log = tmp_path / f"{nodes}.log"
        done = subprocess.run(["sbatch", "--wait", "--parsable", *asked, "--output", log, script], check=False)
        assert done.returncode == 0, log.read_text()[-4000:]
    one, four = (load_file(tmp_path / name / "model.safetensors") for name in ("1", "2"))
    # The same global batch in another order of summation; AdamW enlarges rounding, hence not 1e-7.
    assert max(float((one[name] - four[name]).abs().max()) for name in one) < 1e-4


def test_an_experiment_trains_on_two_nodes(study: Path, submit: Snakemake, cluster: LocalSlurm) -> None:
    """After the test of the chain: nothing but the training is left to be done."""
    devices = "devices={csm: {nodes: 2, gpus: 2}}"
    # On a site whose GPUs have a model, as boldly site writes it.
    asked = [f"pretrain_experiment:{name}" for name in ("slurm_partition=gpu", "gpu_model=fake")]
    settings = ("--config", devices, "--set-resources", *asked)
    run = submit(study, *settings, "--force", "results/models/upstream/csm/model.safetensors")
    assert run.returncode == 0, run.stderr[-4000:]
    (log, *_) = sorted(
        (study / "results/logs/slurm/rule_pretrain_experiment").glob("csm/*.log"),
        key=lambda path: int(path.stem),
        reverse=True,
    )
    _, state, resources, *_ = cluster.accounting()[log.stem]
    assert state == "COMPLETED"
    assert {"node=2", "gres/gpu=4", "cpu=16"} <= set(resources.split(","))


# How often each rule runs at least: demo01 has 4 subjects, demomdtb 6, which are a batch each.
RULES = {
    "index_dataset": 2,
    "prepare_batch": 2,
    "split_dataset": 2,
    "pretrain_experiment": 1,
    "adapt_probes": 1,
    "adapt_experiment": 3,
    "evaluate_dataset": 1,
    "figure_upstream_losses": 1,
    "figure_downstream": 2,
}
