"""How processes are started: by torchrun, on several nodes by way of what Slurm says of the allocation."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from boldly.records import InputError
from boldly.training.launch import launch_command, node_names

STAGE = ["pretrain", "--name", "toy"]
ALLOCATION = {"SLURM_JOB_ID": "4711", "SLURM_JOB_NODELIST": "gpu[07-08,11]"}
STEP = {**ALLOCATION, "SLURM_STEP_NUM_TASKS": "3", "SLURM_NODEID": "2"}


def value(command: list[str], flag: str) -> str:
    return command[command.index(flag) + 1]


@pytest.mark.parametrize("processes", [0, 1])
def test_one_process_runs_the_stage_itself(processes: int) -> None:
    command = launch_command(STAGE, nodes=1, processes=processes, environment=ALLOCATION)
    assert command == [sys.executable, "-m", "boldly", *STAGE]


def test_processes_of_one_node_meet_on_the_loopback_device() -> None:
    command = launch_command(STAGE, nodes=1, processes=4, environment={})
    assert value(command, "--nproc-per-node") == "4"
    assert value(command, "--nnodes") == "1"
    assert value(command, "--rdzv-endpoint") == "127.0.0.1:0"
    # The same command line, not one of its own.
    assert command[-5:] == ["-m", "boldly", *STAGE]


def test_an_allocation_of_several_nodes_starts_itself_on_each() -> None:
    command = launch_command(STAGE, nodes=3, processes=8, environment=ALLOCATION)
    assert command[0].endswith("srun")
    assert value(command, "--nodes") == value(command, "--ntasks") == "3"
    assert value(command, "--ntasks-per-node") == "1"
    own = ["-m", "boldly", "launch", "--nodes", "3", "--processes", "8", *STAGE]
    assert command[-len(own) :] == own


def test_nodes_meet_at_the_first_of_the_allocation() -> None:
    command = launch_command(STAGE, nodes=3, processes=8, environment=STEP)
    assert command[1:3] == ["-m", "boldly.training.torchrun"]
    assert value(command, "--nnodes") == "3"
    assert value(command, "--node-rank") == "2"
    assert value(command, "--nproc-per-node") == "8"
    assert value(command, "--master-addr") == "gpu07"
    assert value(command, "--master-port") == "24711"
    assert "127.0.0.1" not in " ".join(command)
    # Two jobs on the same node do not meet.
    other = launch_command(STAGE, nodes=3, processes=8, environment={**STEP, "SLURM_JOB_ID": "4712"})
    assert value(other, "--master-port") != value(command, "--master-port")


def test_several_nodes_without_an_allocation_are_refused() -> None:
    with pytest.raises(InputError, match="3 nodes, but this is no Slurm allocation"):
        launch_command(STAGE, nodes=3, processes=8, environment={})


def launched(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "boldly", "launch", "--processes", "2", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)


def test_what_is_wrong_with_the_input_is_said_once_and_nothing_else(tmp_path: Path) -> None:
    missing = tmp_path / "split.json"
    options = '{"framework": "csm"}'
    done = launched(
        "pretrain",
        "--name",
        "toy",
        "--options",
        options,
        "--output",
        str(tmp_path / "out"),
        "--data",
        str(missing),
        "shards",
    )
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "boldly: 1 problem with the input",
        "- no such file",
        f"    file: {missing}",
        "    way out: run split first",
    ]


def test_a_process_that_was_killed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dies.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    command = [
        sys.executable,
        "-m",
        "boldly.training.torchrun",
        "--nproc-per-node",
        "1",
        str(tmp_path / "dies.py"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 137
    assert (
        done.stderr.strip() == "boldly: process 0 was ended by SIGKILL, as the system does where memory is used up"
    )


@pytest.mark.parametrize(
    ("written", "names"),
    [
        ("node1", ["node1"]),
        ("a,b-2.site", ["a", "b-2.site"]),
        ("c[1-3,7]", ["c1", "c2", "c3", "c7"]),
        ("c[08-10]", ["c08", "c09", "c10"]),
        ("gpu-[1,03]-ib,login", ["gpu-1-ib", "gpu-03-ib", "login"]),
        ("a[1-2],b[9,11-12]x", ["a1", "a2", "b9x", "b11x", "b12x"]),
    ],
)
def test_lists_of_nodes_as_slurm_writes_them(written: str, names: list[str]) -> None:
    assert list(node_names(written)) == names
