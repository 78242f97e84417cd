"""Faults that are really produced on a Slurm: what becomes of jobs, and what the user sees (docs/cluster.md)."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cluster.conftest import QUICK
from tests.cluster.local_slurm import LocalSlurm
from tests.workflow.conftest import CHECKOUT, TINY, Snakemake, command

pytestmark = pytest.mark.cluster

FAULTS = Path(__file__).with_name("faults.smk")


def arguments(directory: Path, *more: str, status: str = "sacct") -> list[str]:
    """Return a call of Snakemake with the profile of the project and the rules that go wrong."""
    words = [command("snakemake"), "--profile", str(CHECKOUT / "slurm"), "-s", str(FAULTS), "--directory"]
    return [*words, str(directory), *QUICK, "--slurm-status-command", status, *more]


def call(words: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words, env={**os.environ, **environment}, capture_output=True, text=True, check=False, timeout=400
    )


def running(cluster: LocalSlurm) -> dict[str, str]:
    """Return the numbers of running jobs by what Snakemake calls them."""
    rows = cluster.ask("squeue", "-h", "-t", "R", "-O", "JobID:20,Comment:60").splitlines()
    return {row[20:].strip(): row[:20].strip() for row in rows}


def wait_for(cluster: LocalSlurm, comment: str) -> str:
    """Return the number of a job as soon as it runs."""
    end = time.monotonic() + 90
    while comment not in (found := running(cluster)):
        assert time.monotonic() < end, f"no job {comment}: {found}"
        time.sleep(0.2)
    return found[comment]


def test_jobs_that_want_memory_or_time_or_are_cancelled_or_meet_a_bad_node_are_submitted_again(
    tmp_path: Path, cluster: LocalSlurm, quickly: dict[str, str]
) -> None:
    def cancel() -> None:
        cluster.ask("scancel", wait_for(cluster, "rule_cancelled"))

    threading.Thread(target=cancel, daemon=True).start()
    done = call(arguments(tmp_path), quickly)
    assert done.returncode == 0, done.stderr[-4000:]
    # The second attempt asked for more memory, or time.
    assert (tmp_path / "memory.txt").read_text() == "1000\n"
    assert (tmp_path / "time.txt").read_text() == "2:00\n"
    # The second attempt was made on another node.
    assert sorted((tmp_path / "nodes").read_text().split()) == ["c1", "c2"]
    said = done.stdout + done.stderr
    assert "SLURM status is: 'TIMEOUT'" in said
    assert "SLURM status is: 'CANCELLED" in said
    # Without cgroups Slurm says FAILED, and the job's log says why.
    logs = (tmp_path / "results/logs/slurm/rule_memory").glob("*.log")
    assert any("exceeded memory limit" in log.read_text() for log in logs)


def test_a_workflow_that_was_killed_is_unlocked_and_run_again(
    tmp_path: Path, cluster: LocalSlurm, quickly: dict[str, str]
) -> None:
    words = arguments(tmp_path, "long.txt", "--config", "seconds=120")
    head = subprocess.Popen(words, env={**os.environ, **quickly}, stderr=subprocess.DEVNULL)
    job = wait_for(cluster, "rule_long")
    head.send_signal(signal.SIGKILL)
    head.wait()
    # Slurm knows nothing of it: the job goes on, and has to be cancelled by its user.
    assert job in running(cluster).values()
    again = arguments(tmp_path, "long.txt", "--config", "seconds=1")
    refused = call(again, quickly)
    assert refused.returncode != 0
    assert "--unlock" in refused.stdout + refused.stderr
    cluster.ask("scancel", job)
    assert call(arguments(tmp_path, "long.txt", "--unlock", "--config", "seconds=1"), quickly).returncode == 0
    done = call(again, quickly)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "long.txt").read_text() == "done\n"


def test_a_second_workflow_in_the_same_folder_is_refused(
    tmp_path: Path, cluster: LocalSlurm, quickly: dict[str, str]
) -> None:
    words = arguments(tmp_path, "long.txt", "--config", "seconds=20")
    first = subprocess.Popen(words, env={**os.environ, **quickly}, stderr=subprocess.DEVNULL)
    wait_for(cluster, "rule_long")
    second = call(words, quickly)
    assert second.returncode != 0
    assert "cannot be locked" in second.stdout + second.stderr
    assert first.wait(120) == 0
    assert (tmp_path / "long.txt").exists()


def test_jobs_go_on_without_the_database_of_accounting(
    tmp_path: Path, cluster: LocalSlurm, quickly: dict[str, str]
) -> None:
    more = ("long.txt", "--config", "seconds=1")
    cluster.stop_accounting()
    try:
        done = call(arguments(tmp_path, *more, status="squeue"), quickly)
        assert done.returncode == 0, done.stderr[-3000:]
        # The plugin's default, which asks the database, waits until it is back.
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(call, arguments(tmp_path / "other", *more), quickly)
            wait_for(cluster, "rule_long")
            while running(cluster):
                time.sleep(0.5)
            time.sleep(5)
            is_done = waiting.done()
            cluster.start_accounting()
            assert waiting.result().returncode == 0, waiting.result().stderr[-3000:]
            assert not is_done
            assert "does not answer" in waiting.result().stderr
    finally:
        if "slurmdbd" not in cluster.daemons:
            cluster.start_accounting()


@contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[None]:
    """Mount a disk of that size on a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def remount(folder: Path, option: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{option}", folder], check=True)


def test_a_full_disk_and_one_that_may_not_be_written_are_named_and_nothing_done_is_repeated(
    study: Path, tmp_path: Path, submit: Snakemake
) -> None:
    shutil.copytree(study / "study", tmp_path / "study")
    shards, target = tmp_path / "data/upstream", "results/prepare/demo01/shard_1of1.json"
    log = tmp_path / "results/logs/prepare/demo01/shard_1of1.log"
    # A shard has 30 kB.
    with small_disk(shards, 40):
        full = submit(tmp_path, "--retries", "0", target, config=TINY)
        assert full.returncode != 0
        assert "No space left on device" in log.read_text()
        assert "ds-demo01_sub-" in log.read_text()
        assert [path.name for path in shards.glob(".*")] == []
        remount(shards, "size=4m,ro")
        assert submit(tmp_path, "--retries", "0", target, config=TINY).returncode != 0
        assert "Read-only file system" in log.read_text()
        remount(shards, "rw")
        done = submit(tmp_path, target, config=TINY)
        assert done.returncode == 0, done.stderr[-3000:]
        assert "was done before" in log.read_text()
        assert len(list(shards.glob("*.tar"))) == 4
