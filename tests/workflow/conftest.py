"""The tiny study in a folder of its own, and Snakemake run there as a user would."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
TINY = Path(__file__).with_name("tiny.yaml")

Snakemake = Callable[..., subprocess.CompletedProcess[str]]


def command(name: str) -> str:
    """Return the program of this environment, whatever PATH says."""
    return str(Path(sys.executable).with_name(name))


@pytest.fixture(scope="session")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the tiny study, for copies: no test changes it."""
    folder = tmp_path_factory.mktemp("simulated") / "study"
    subprocess.run([command("boldly"), "simulate", "--output", str(folder), "--size", "tiny"], check=True)
    return folder


@pytest.fixture(scope="module")
def study(simulated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a working directory with the tiny study in `study/`: tests of one module change files and run it."""
    folder = tmp_path_factory.mktemp("workflow")
    shutil.copytree(simulated, folder / "study")
    return folder


@pytest.fixture(scope="session")
def snakemake() -> Snakemake:
    """Return a function that runs Snakemake in a directory with a config."""

    def run(
        directory: Path, *arguments: str, config: Path = TINY, **settings: str
    ) -> subprocess.CompletedProcess[str]:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        return subprocess.run(
            [command("snakemake"), "--directory", str(directory), "--configfile", str(config), *arguments],
            cwd=CHECKOUT,
            env={**os.environ, "PATH": path, **settings},
            capture_output=True,
            text=True,
        )

    return run
