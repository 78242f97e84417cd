"""What users read when something is wrong: failed jobs, swallowed targets, stages that are to be repeated."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from snakemake_logger_plugin_boldly import swallowed
from tests.workflow.conftest import CHECKOUT, command

RULES = CHECKOUT / "workflow" / "rules"

SNAKEFILE = f"""
include: "{RULES / "messages.smk"}"

rule all:
    input: expand("evaluate/{{name}}.tsv", name=["one", "two"])

rule evaluate:
    input: "evaluate/one.tsv"

rule evaluate_dataset:
    output: "evaluate/{{name}}.tsv"
    log: "logs/{{name}}.log"
    params: options='{{"a": "wall of JSON"}}'
    shell: "test ! -e {{wildcards.name}}.bad && touch {{output}} && echo {{params.options:q}} >> made.txt"
        " || {{{{ cat {{wildcards.name}}.bad > {{log}}; exit 1; }}}}"

include: "{RULES / "repeat.smk"}"
"""
PROBLEM = """12:00:00 boldly.stages.index: looks
boldly: 1 problem with the input
- sub-01: no events
    file: events.tsv
    way out: export them
"""


def snakemake(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        [command("snakemake"), "--cores", "1", *arguments],
        cwd=folder,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(CHECKOUT / "src")},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.parametrize("quiet", [(), ("--quiet", "rules")])
def test_the_message_of_a_failed_job_is_what_stands_last(tmp_path: Path, quiet: tuple[str, ...]) -> None:
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    (tmp_path / "one.bad").write_text(PROBLEM)
    # Not a word of boldly: a job that was killed.
    (tmp_path / "two.bad").write_text("\n".join(f"line {number}" for number in range(100)))
    done = snakemake(tmp_path, "--keep-going", *quiet)
    assert done.returncode == 1
    said = done.stderr.rstrip()
    assert "wall of JSON" not in said
    assert "RuleException" not in said
    last = said[said.index("boldly: 2 jobs failed") :]
    assert "evaluate_dataset, logs/one.log:\n  boldly: 1 problem with the input\n  - sub-01: no events" in last
    assert "    way out: export them" in last
    assert "looks" not in last
    assert "its log says no reason, as when a signal" in last
    assert "line 99" in last
    assert "line 50\n" not in last


def test_commands_are_shown_to_those_who_ask(tmp_path: Path) -> None:
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    (tmp_path / "one.bad").write_text(PROBLEM)
    assert "wall of JSON" in snakemake(tmp_path, "--printshellcmds", "evaluate").stderr


def test_a_stage_is_repeated_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    assert snakemake(tmp_path).returncode == 0
    made = (tmp_path / "made.txt").read_text().count("\n")
    assert made == 2
    assert snakemake(tmp_path, "-R", "evaluate").returncode == 0
    assert (tmp_path / "made.txt").read_text().count("\n") > made


@pytest.mark.parametrize(
    ("words", "files", "targets"),
    [
        ("--cores 2 --configfile mine.yaml parcellate", ["mine.yaml"], ["parcellate"]),
        ("--configfile mine.yaml results/a.png b -n", ["mine.yaml"], ["results/a.png", "b"]),
        ("--configfile mine -- parcellate", ["mine"], []),
        ("parcellate --configfile a.yaml b.json --cores 1", ["a.yaml", "b.json"], []),
        ("parcellate", [], []),
    ],
)
def test_targets_behind_config_files(words: str, files: list[str], targets: list[str]) -> None:
    assert swallowed(words.split()) == (files, targets)


def test_a_target_that_is_taken_for_a_config_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("{}")
    (tmp_path / "Snakefile").write_text("rule all:\n")
    done = snakemake(tmp_path, "--configfile", "mine.yaml", "parcellate")
    assert done.returncode == 2
    assert "takes 'parcellate' for a config file" in done.stderr
    assert "--configfile mine.yaml -- parcellate" in done.stderr
    assert "Traceback" not in done.stderr
