"""The mend of Snakemake's scheduler."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

RULES = Path(__file__).resolve().parents[2] / "workflow" / "rules"
JOBS = 40

SNAKEFILE = f"""
from snakemake.scheduling.job_scheduler import JobScheduler

include: "{RULES / "scheduler.smk"}"

looks = []
select = JobScheduler.job_selector


def counted(scheduler, jobs):
    looks.append(len(jobs))
    return select(scheduler, jobs)


JobScheduler.job_selector = counted


rule all:
    input: expand("{{n}}.txt", n=range({JOBS})), expand("slow-{{n}}.txt", n=range(3))

rule quick:
    output: "{{n,[0-9]+}}.txt"
    priority: 1
    shell: "touch {{output}}"

rule slow:
    output: "slow-{{n}}.txt"
    shell: "sleep 4; touch {{output}}"

onsuccess:
    print("looks:", len(looks))
"""


def test_the_scheduler_does_not_look_more_often_the_more_jobs_have_ended(tmp_path: Path) -> None:
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--scheduler", "greedy"]
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ}, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("looks:"))
    # One for each job, and one each second in which jobs wait; unmended 40 a second by the end, over 200 in all.
    assert int(line.split()[1]) < 3 * JOBS
