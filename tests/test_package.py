"""What goes out with boldly: the wheel, the archive of the source, and the files that describe it elsewhere."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

from boldly import __version__

CHECKOUT = Path(__file__).parents[1]
# Beside modules, the package reads these when it runs.
READ = ("py.typed", "page.html.jinja", "page.css", "page.js", "methods.md.jinja", "library.yaml", "workflow.rst")


def build(kind: str, folder: Path) -> Path:
    """Build with the tools of this environment, without network."""
    program = f"import setuptools.build_meta as build; build.build_{kind}({str(folder)!r})"
    # Setuptools builds beside the source: in a copy, so that the checkout stays as it is.
    copy = folder / "source"
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=CHECKOUT, capture_output=True, check=True)
    copy.mkdir()
    subprocess.run(["tar", "xf", "-", "-C", str(copy)], input=archive.stdout, check=True)
    subprocess.run([sys.executable, "-c", program], cwd=copy, check=True, capture_output=True)
    return next(path for path in folder.iterdir() if path.suffix in (".whl", ".gz"))


def test_the_wheel_works_outside_of_the_checkout(tmp_path: Path) -> None:
    if not (CHECKOUT / ".git").exists():
        pytest.skip("no git checkout: nothing says which files belong to boldly")
    wheel = build("wheel", tmp_path)
    with zipfile.ZipFile(wheel) as content:
        names = {Path(name).name for name in content.namelist()}
        assert set(READ) <= names
        content.extractall(tmp_path / "installed")
    command = [sys.executable, "-c", "import boldly.cli; boldly.cli.main(['report', '--help'])"]
    place = {"PYTHONPATH": str(tmp_path / "installed"), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, cwd=tmp_path, env=place, capture_output=True, text=True)
    assert "folder of results" in done.stdout, done.stderr
    where = "import boldly.stages.report as report; print(report.__file__, *report.CAPTIONS.glob('*.rst'))"
    done = subprocess.run([sys.executable, "-c", where], cwd=tmp_path, env=place, capture_output=True, text=True)
    assert str(CHECKOUT) not in done.stdout
    assert "workflow.rst" in done.stdout, done.stderr


def test_the_source_archive_holds_the_workflow(tmp_path: Path) -> None:
    if not (CHECKOUT / ".git").exists():
        pytest.skip("no git checkout: nothing says which files belong to boldly")
    with tarfile.open(build("sdist", tmp_path)) as content:
        names = {name.partition("/")[2] for name in content.getnames()}
    for path in ("Snakefile", "workflow/Snakefile", "workflow/rules/common.smk", "config/config.yaml", "NOTICE"):
        assert path in names, path
    assert {Path(name).name for name in names} >= set(READ)


def test_descriptions_name_the_same_version() -> None:
    citation = yaml.safe_load((CHECKOUT / "CITATION.cff").read_text())
    code = json.loads((CHECKOUT / "codemeta.json").read_text())
    assert citation["version"] == code["version"] == __version__
    assert code["license"].endswith(citation["license"])


def test_catalogues_find_what_they_look_for() -> None:
    catalogue = yaml.safe_load((CHECKOUT / ".snakemake-workflow-catalog.yml").read_text())
    assert catalogue["usage"]["report"] is True
    for path in ("workflow/Snakefile", "config/README.md", "config/config.yaml"):
        assert (CHECKOUT / path).is_file()
