"""The captions of Snakemake's report: reStructuredText without a mistake, once the config stands in it."""

from __future__ import annotations

import io
import types
from pathlib import Path

import pytest
import yaml
from docutils.core import publish_parts
from jinja2 import Environment

from boldly.config import load_config
from tests.workflow.conftest import CHECKOUT

CAPTIONS = sorted((CHECKOUT / "workflow" / "report").glob("*.rst"))
# What Snakemake writes behind each caption: links to the other parts of the report.
LINKS = "\n\n.. _Workflow: javascript:show_panel('workflow')\n"


@pytest.mark.parametrize("name", ["config.yaml", "haxby.yaml", "song.yaml", "mdtb.yaml"])
def test_captions_are_free_of_mistakes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("HAXBY", "SONG", "MDTB"):
        monkeypatch.setenv(variable, "/data")
    path = CHECKOUT / "config" / name
    completed = load_config(path, CHECKOUT)
    config = yaml.safe_load(path.read_text())
    config |= {section: getattr(completed, section).model_dump(mode="json") for section in ("pretrain", "adapt")}
    for caption in CAPTIONS:
        for view in ("accuracy", "curves"):
            snakemake = types.SimpleNamespace(config=config, wildcards=types.SimpleNamespace(view=view))
            warnings = io.StringIO()
            text = rendered(caption, snakemake)
            publish_parts(text, writer="html", settings_overrides={"warning_stream": warnings})
            assert warnings.getvalue() == "", caption.name


def rendered(caption: Path, snakemake: types.SimpleNamespace) -> str:
    # As Snakemake 9 renders it.
    template = Environment(trim_blocks=True, lstrip_blocks=True).from_string(caption.read_text() + LINKS)
    return template.render(snakemake=snakemake)


def test_each_decoder_has_a_line_of_its_own() -> None:
    completed = load_config(CHECKOUT / "config" / "config.yaml", CHECKOUT)
    config = {name: getattr(completed, name).model_dump(mode="json") for name in ("pretrain", "adapt")}
    snakemake = types.SimpleNamespace(config={"datasets": {}, **config})
    lines = rendered(CHECKOUT / "workflow" / "report" / "workflow.rst", snakemake).splitlines()
    assert all(any(line.startswith(f"- {name}: ") for line in lines) for name in config["adapt"]["experiments"])


def test_the_split_says_what_is_done_and_no_more() -> None:
    """One dataset of one person, each run of whom is tested in turn, and no pretraining."""
    datasets = {"one": {"role": "downstream", "split": {"by": "run", "train": [3], "test": "leave_one_out"}}}
    snakemake = types.SimpleNamespace(config={"datasets": datasets, "adapt": {}})
    text = rendered(CHECKOUT / "workflow" / "report" / "workflow.rst", snakemake)
    assert "3 training runs, drawn at random for each that is tested, each run tested in turn" in text
    assert "random draws" not in text
    assert "Pretraining" not in text
