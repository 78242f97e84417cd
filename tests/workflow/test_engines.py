"""Other schedulers than Slurm, by the generic plugin: commands of docs/cluster.md with programs in their place."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.workflow.conftest import CHECKOUT, TINY, command

# As the command that submits: it notes how it was called, and starts the job.
QSUB = """#!/bin/sh
echo "$@" >> {calls}
for script in "$@"; do :; done
sh "$script" > /dev/null 2>&1 &
echo $!
"""


def documented(engine: str) -> list[str]:
    """Return the words of the command for an engine in docs/cluster.md, on the tiny study."""
    text = (CHECKOUT / "docs/cluster.md").read_text()
    blocks = re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL)
    (block,) = (block for block in blocks if f"--executor {engine}" in block)
    words = shlex.split(block.replace("\\\n", " "))
    return [command("snakemake"), *(str(TINY) if word == "config/mine.yaml" else word for word in words[1:])]


def call(words: list[str], folder: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    path = f"{folder / 'bin'}:{Path(command('boldly')).parent}:{os.environ['PATH']}"
    return subprocess.run(
        [words[0], "--directory", str(folder), *words[1:]],
        cwd=CHECKOUT,
        env={**os.environ, "PATH": path, **settings},
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )


def test_the_documented_command_of_other_schedulers_plans_all_jobs(study: Path) -> None:
    done = call([*documented("cluster-generic"), "--dry-run"], study)
    assert done.returncode == 0, done.stderr[-3000:]
    assert re.search(r"^index_dataset +2$", done.stdout, flags=re.MULTILINE)


def test_the_documented_command_of_lsf_is_read_by_snakemake(study: Path) -> None:
    # The plugin of LSF is not a dependency; its arguments here are resources, which any executor takes.
    words = ["cluster-generic" if word == "lsf" else word for word in documented("lsf")]
    done = call([*words, "--cluster-generic-submit-cmd", "bsub", "--dry-run"], study)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
def test_jobs_are_submitted_with_what_they_need(study: Path, tmp_path: Path) -> None:
    (tmp_path / "study").symlink_to(study / "study")
    calls, program = tmp_path / "calls", tmp_path / "bin/qsub"
    program.parent.mkdir()
    program.write_text(QSUB.format(calls=calls))
    program.chmod(0o755)
    words = ["5" if word == "60" else word for word in documented("cluster-generic")]
    done = call([*words, "--", "split"], tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "results/split/demo01.json").exists()
    # What a --config of one's own takes from the profile is told before trainings are submitted.
    words.remove("devices={default: {gpus: 1}}")
    told = call([*words, "--until", "split_dataset", "--", "pretrain"], tmp_path)
    assert "trainings ask for no GPU" in told.stderr, told.stderr[-3000:]
    asked = calls.read_text()
    assert asked.count("select=1:ncpus=1:mem=2000mb -l walltime=3600") == 2, asked


def test_jobs_ask_for_more_memory_where_they_took_more(study: Path, tmp_path: Path) -> None:
    (tmp_path / "study").symlink_to(study / "study")
    usage = tmp_path / "results/usage/index"
    usage.mkdir(parents=True)
    words = [*documented("cluster-generic"), "--dry-run", "index"]
    (usage / "other.tsv").write_text("s\th:m:s\tmax_rss\n60\t0:01:00\t800\n")
    assert "mem_mb=9000," not in call(words, tmp_path).stdout
    (usage / "large.tsv").write_text("s\th:m:s\tmax_rss\n60\t0:01:00\t6000\n")
    assert call(words, tmp_path).stdout.count("mem_mb=9000,") == 2
