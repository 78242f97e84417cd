"""The plug-in for Brainmarks, tested against its interface as it was published: restated here, in few lines."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from boldly.provenance import Contract
from tests.training import synthetic

SOURCE = Path(__file__).parents[2] / "src"

# The suite's side: a registry, and modules found in a namespace package by their names.
REGISTRY = """
import importlib, pkgutil
import brainmarks.models

MODELS = {}

def register_model(function):
    MODELS[function.__name__] = function
    return function

def create_model(name, **settings):
    made = MODELS[name](**settings)
    return made if isinstance(made, tuple) else (None, made)

for _, name, _ in pkgutil.iter_modules(brainmarks.models.__path__):
    if name != "registry":
        importlib.import_module(f"brainmarks.models.{name}")
"""

# What the suite's own test of a model does, for 16 and for 160 frames.
USE = """
import sys, torch
from brainmarks.models.registry import create_model

transform, model = create_model("boldly_network", source=sys.argv[1], space=sys.argv[2] or None)
print("space", model.__space__, "transform", transform)
for frames in (16, 160):
    batch = {"bold": torch.randn(2, frames, 16), "tr": torch.tensor([1.0, 1.0], dtype=torch.float64)}
    batch |= {"mean": torch.randn(2, 1, 16), "std": torch.ones(2, 1, 16)}
    kinds = model(batch)
    print(frames, *[None if kind is None else tuple(kind.shape) for kind in kinds])
print("weights", sum(weight.numel() for weight in model.parameters()) > 0)
"""


def run(suite: Path, model: Path, space: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", USE, str(model), space]
    paths = f"{SOURCE}:{suite}"
    environment = {"PYTHONPATH": paths, "PATH": "/usr/bin:/bin", "HOME": str(suite), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """Return a folder with the suite's half of the namespace package."""
    folder = tmp_path / "suite" / "brainmarks" / "models"
    folder.mkdir(parents=True)
    (folder / "registry.py").write_text(REGISTRY)
    return tmp_path / "suite"


def test_a_network_is_found_by_the_suite_and_embeds_runs(suite: Path, tmp_path: Path) -> None:
    (model,) = synthetic.pretrained_models(tmp_path / "models", [("csm", 1)])
    done = run(suite, model, "sixteen")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    # Windows of 12 frames: 2 of 16 frames, 14 of 160; the width is 16.
    assert lines == [
        "space sixteen transform None",
        "16 (2, 1, 16) None (2, 2, 16)",
        "160 (2, 1, 16) None (2, 14, 16)",
        "weights True",
    ]
    assert Contract.from_json((model / "contract.json").read_text()).n_parcels == 16
    refused = run(suite, model, "")
    assert "the suite has no space of 16 parcels" in refused.stderr
