"""Commands in the documents are ones that the command line takes."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from boldly.cli import parser
from boldly.cli.study import _parted, models_of
from boldly.config.overrides import read_settings

CHECKOUT = Path(__file__).parents[2]
DOCUMENTS = [CHECKOUT / "README.md", CHECKOUT / "docs" / "command_line.md", CHECKOUT / "config" / "mdtb.yaml"]


def commands(path: Path) -> list[str]:
    text = path.read_text().replace("#   ", "").replace("\\\n", " ")
    lines = [line.partition("  #")[0].strip() for line in text.splitlines()]
    return [line for line in lines if line.startswith("boldly ")]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_documented_commands_are_understood(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = commands(path)
    assert found
    for line in found:
        arguments = shlex.split(line)[1:]
        if "--help" in arguments or "<" in line:
            continue
        args = parser().parse_args(arguments)
        for stage in [arguments[0]] if getattr(args, "set", None) else []:
            _, own = _parted(read_settings(args.set), stage)
            known = {name for model in models_of(stage).values() for name in model.model_fields}
            assert {name.partition(".")[0] for name in own} <= known, line


def test_documented_python_runs_on_a_network(tmp_path: Path) -> None:
    from tests.training import synthetic

    (model,) = synthetic.pretrained_models(tmp_path, [("csm", 1)])
    (block,) = [
        part.partition("```")[0]
        for part in (CHECKOUT / "docs" / "command_line.md").read_text().split("```python\n")[1:]
    ]
    # Of the hub's lines tests/test_sharing.py and tests/decoding speak.
    local = "\n".join(line for line in block.splitlines() if "lab/" not in line)
    local = local.replace("results/models/upstream/csm", str(model))
    program = f"import numpy as np\nsignals = np.zeros((20, 16))\n{local}\nprint(states.shape)"
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT / "src")}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == "(20, 16)", done.stderr


def test_arguments_of_several_values_add_up() -> None:
    decode = ["decode", "--output", "out", "--participant", "01", "02", "--participant", "03"]
    assert parser().parse_args(decode).participant == ["01", "02", "03"]
    evaluate = ["evaluate", "--config", "c.yaml", "--experiment", "csm", "--experiment", "linear"]
    assert parser().parse_args(evaluate).experiment == ["csm", "linear"]
