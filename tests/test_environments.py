"""Environments by pip, conda, Docker and Apptainer have one list of versions."""

from __future__ import annotations

import contextlib
import re
import tomllib
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from tests.workflow.conftest import CHECKOUT

ENVS = CHECKOUT / "envs"


def pins() -> dict[str, str]:
    lines = (ENVS / "constraints.txt").read_text().split()
    return dict(line.lower().replace("_", "-").split("==") for line in lines)


@pytest.mark.parametrize("path", sorted(ENVS.glob("*.yaml")), ids=lambda path: path.name)
def test_conda_environments_take_the_versions_of_constraints(path: Path) -> None:
    content = yaml.safe_load(path.read_text())
    python, _, inside = content["dependencies"]
    # Everything but Python comes by pip, so that nothing can differ.
    assert [python, content["dependencies"][1]] == ["python=3.11", "pip"]
    assert inside["pip"][0] == "-c constraints.txt"
    assert all(line.startswith("-e ..") for line in inside["pip"][1:])


def test_no_pinned_version_wants_a_newer_python_than_we_do() -> None:
    # Else pip looks for ever for versions that go together.
    oldest = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["requires-python"].lstrip(">=")
    oldest += ".0" if oldest.count(".") == 1 else ""
    wrong = []
    for name in pins():
        with contextlib.suppress(PackageNotFoundError):
            wanted = metadata(name).json.get("requires_python")
            if wanted and oldest not in SpecifierSet(str(wanted)):
                wrong.append(f"{name}: {wanted}")
    assert wrong == []


def test_containers_install_as_everybody_does() -> None:
    for name in ("Dockerfile", "boldly.def"):
        text = (ENVS / name).read_text()
        assert "make -C /opt/boldly install" in text
        assert "python:3.11-slim" in text
        assert not re.search(r"pip install", text)


def test_each_dependency_is_pinned_within_its_range() -> None:
    import tomllib

    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    known = pins()
    for line in [*project["dependencies"], *(line for extra in extras.values() for line in extra)]:
        wanted = Requirement(line)
        name = wanted.name.lower().replace("_", "-")
        assert name in known, f"{name} is not in constraints.txt"
        assert wanted.specifier.contains(known[name], prereleases=True), (
            f"{line}, but {known[name]} in constraints.txt"
        )
