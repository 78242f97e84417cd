from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from boldly import __version__
from boldly.cli import main
from boldly.records import InputError
from boldly.stages import site
from boldly.stages.site import Site
from tests.workflow.conftest import CHECKOUT

TEMPLATE = CHECKOUT / site.TEMPLATE
SITE = Site("brains", "normal", "a100", gpu_model="a100", directory="/scratch/my study")
# What commands of Slurm say, as shell scripts.
SINFO = "printf 'normal*\\na100\\n'"
SACCTMGR = "printf 'brains\\nmemory\\n'"
SCONTROL = "echo PartitionName=$4 GraceTime=0 PreemptMode=REQUEUE"
SRUN = f'case "$*" in *--gpus=a100:1*) echo True ;; *) echo {__version__} ;; esac'


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Return a function that sets what Slurm's commands do."""

    def say(**scripts: str) -> None:
        for name, script in {
            "sinfo": SINFO,
            "sacctmgr": SACCTMGR,
            "srun": SRUN,
            "scontrol": SCONTROL,
            **scripts,
        }.items():
            path = tmp_path / "bin" / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"#!/bin/sh\n{script}\n")
            path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")

    return say


def write(output: Path, one: Site = SITE, check: bool = True) -> Path:
    site.run(site=one, template=TEMPLATE, output=output / "config.yaml", check=check, wait_s=20)
    return output / "config.yaml"


def problems(tmp_path: Path, one: Site = SITE) -> str:
    with pytest.raises(InputError) as caught:
        write(tmp_path / "profile", one)
    assert not (tmp_path / "profile").exists()
    return str(caught.value)


@pytest.mark.parametrize(
    ("given", "expected"), [(".", "{here}"), ("../study", "{above}/study"), ("$SCRATCH/a b", "$SCRATCH/a b")]
)
def test_a_relative_folder_is_that_of_the_call(tmp_path, monkeypatch, given: str, expected: str) -> None:
    """Snakemake takes "." in a profile for the folder of the profile, and finds no data there."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    written = write(tmp_path / "profile", replace(SITE, directory=given), check=False)
    profile = yaml.safe_load(written.read_text())
    assert profile["directory"] == expected.format(here=tmp_path / "here", above=tmp_path)


def test_answers_stand_in_the_marked_lines_and_nowhere_else(tmp_path: Path, slurm) -> None:
    slurm()
    written = write(tmp_path / "profile").read_text()
    profile, shipped = yaml.safe_load(written), yaml.safe_load(TEMPLATE.read_text())
    assert profile.pop("directory") == "/scratch/my study"
    assert profile["default-resources"].pop("slurm_account") == "brains"
    assert profile["default-resources"].pop("slurm_partition") == "normal"
    for resources in profile["set-resources"].values():
        assert (resources.pop("slurm_partition"), resources.pop("gpu_model")) == ("a100", "a100")
    for resources in (shipped["default-resources"], *shipped["set-resources"].values()):
        resources.pop("slurm_partition")
        resources.pop("slurm_account", None)
    assert profile == shipped
    ends = [number for number, line in enumerate(written.splitlines()) if line.startswith("# ---")]
    old = TEMPLATE.read_text().splitlines()
    assert (
        written.splitlines()[ends[1] :] == old[[n for n, line in enumerate(old) if line.startswith("# ---")][1] :]
    )


def test_the_shipped_profile_is_that_of_its_own_names(tmp_path: Path) -> None:
    own = Site("default", "cpu", "gpu")
    assert yaml.safe_load(write(tmp_path, own, check=False).read_text()) == yaml.safe_load(TEMPLATE.read_text())


def test_all_unknown_names_are_told_at_once(tmp_path: Path, slurm) -> None:
    slurm()
    text = problems(tmp_path, replace(SITE, account="brain", partition="norm", gpu_partition="h200"))
    assert "norm: no such partition (there are: a100, normal)" in text
    assert "h200: no such partition" in text
    assert "brain: " in text
    assert "has no such account (but: brains, memory)" in text


def test_a_cluster_without_accounts_takes_every_name(tmp_path: Path, slurm) -> None:
    slurm(sacctmgr="exit 1")
    assert write(tmp_path / "profile").exists()


def test_an_environment_that_nodes_do_not_see_is_named(tmp_path: Path, slurm) -> None:
    slurm(srun="echo 'execve(): python: No such file or directory' >&2; exit 2")
    text = problems(tmp_path)
    assert "execve(): python: No such file or directory" in text
    assert sys.prefix in text


def test_another_version_and_absent_gpus_are_told(tmp_path: Path, slurm) -> None:
    slurm(srun='case "$*" in *--gpus*) echo False ;; *) echo 0.0.1 ;; esac')
    text = problems(tmp_path)
    assert "nodes see boldly 0.0.1" in text
    assert "torch sees no GPU there" in text


def test_a_queue_that_is_full_is_told(tmp_path: Path, slurm, monkeypatch: pytest.MonkeyPatch) -> None:
    slurm(srun="exec sleep 20")
    with pytest.raises(InputError, match="did not run within 1 s"):
        site.run(site=SITE, template=TEMPLATE, output=tmp_path / "p/config.yaml", check=True, wait_s=1)


@pytest.mark.parametrize(
    ("said", "warned"),
    [("GraceTime=0 PreemptMode=CANCEL", True), ("GraceTime=120 PreemptMode=CANCEL", False), (SCONTROL, False)],
)
def test_a_partition_that_ends_jobs_without_notice_is_told(
    tmp_path: Path, slurm, caplog: pytest.LogCaptureFixture, said: str, warned: bool
) -> None:
    slurm(scontrol=f'case "$4" in a100) echo {said} ;; *) {SCONTROL} ;; esac')
    assert write(tmp_path / "profile").exists()
    assert ("partition a100 ends jobs that have to make way without notice" in caplog.text) == warned
    assert "partition normal" not in caplog.text


def test_a_template_without_marks_is_refused(tmp_path: Path) -> None:
    (tmp_path / "old.yaml").write_text("executor: slurm\n")
    with pytest.raises(InputError, match="no marked lines"):
        site.profile(tmp_path / "old.yaml", SITE)
    with pytest.raises(InputError, match="no such file"):
        site.profile(tmp_path / "none.yaml", SITE)


def test_without_a_terminal_missing_answers_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["site", "--account", "brains", "--no-check"]) != 0
    assert "--partition" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["no", "on", "null", "true", "1e5", "007", "a#b", "ä b"])
def test_names_stay_texts_in_yaml(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "profile", Site(name, name, name), check=False)
    content = yaml.safe_load(path.read_text())
    assert content["default-resources"]["slurm_account"] == name
    assert content["default-resources"]["slurm_partition"] == name
