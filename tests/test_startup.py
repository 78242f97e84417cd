"""The command line starts fast: what takes long to import is imported by those who need it."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("pandas", "numpy", "pydantic", "scipy.stats", "sklearn", "nibabel", "nilearn", "matplotlib", "torch")


@pytest.mark.parametrize(
    ("statement", "needed"),
    [
        ("boldly.cli.main(['--version'])", set()),
        ("boldly.cli.parser().format_help()", set()),
        ("import boldly.stages.split", {"pandas", "numpy", "pydantic"}),
        ("import boldly.stages.corpus", {"numpy", "pydantic"}),
        ("import boldly.stages.shard", {"pandas", "numpy", "pydantic"}),
        ("import boldly.stages.preprocess", {"pandas", "numpy", "pydantic"}),
        ("import boldly.stages.index", {"pandas", "numpy", "pydantic", "nibabel"}),
        ("import boldly.stages.explain", {"pandas", "numpy", "pydantic", "nibabel"}),
        # t-SNE (sklearn) and images of atlases (nibabel) are for one figure each.
        ("import boldly.stages.figures", {"pandas", "numpy", "pydantic", "matplotlib"}),
    ],
)
def test_nothing_heavy_is_imported_that_is_not_needed(statement: str, needed: set[str]) -> None:
    program = f"""
import atexit, sys
import boldly.cli
atexit.register(lambda: print("loaded:", *[name for name in {HEAVY} if name in sys.modules]))
{statement}
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.partition("loaded:")[2].split())
    assert loaded <= needed
