"""The framework of docs/frameworks.md, as its reader would add it."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest

from boldly.config import PretrainOptions
from boldly.models import build
from boldly.samples.windows import Windows
from boldly.training.loop import fit
from boldly.training.validation import UpstreamValidation
from tests.training import synthetic

PAGE = Path(__file__).parents[2] / "docs" / "frameworks.md"


@pytest.fixture
def change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Do what the page says."""
    code, entry = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.S)
    name, *classes = re.findall(r'"([^"]+)"', entry)
    assert name == "change"
    path = tmp_path / "change.py"
    path.write_text(code)
    spec = importlib.util.spec_from_file_location(classes[0], path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setitem(sys.modules, classes[0], module)
    monkeypatch.setitem(build.FRAMEWORKS["boldly"], name, tuple(classes))


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")  # the word is not in the config's list
def test_the_framework_of_the_page_learns(change: None, tmp_path: Path) -> None:
    options = PretrainOptions(
        framework="csm",
        layers=1,
        width=16,
        heads=2,
        steps=60,
        batch_size=16,
        learning_rate=3e-3,
        evaluate_every=30,
    ).model_copy(update={"framework": "change"})
    corpus, held_out = (synthetic.corpus([80] * 4, seed=seed) for seed in (0, 1))
    windows = Windows(corpus, build.window_options(options, 16), 1, 60 * 16)
    validate = UpstreamValidation(Windows(held_out, build.window_options(options, 16), 2, 64), 16, training=corpus)
    network = build.build_network(build.pretraining_config(options, 16), 1)
    objective = build.build_objective(network)
    outcome = fit(
        objective, windows, options, name="own", validate=validate, seed=1, folder=tmp_path, validate_first=True
    )
    start, *_, end = outcome.eval_rows
    # The first changes are almost none: its start is the forecast that nothing changes.
    assert start["l1"] == pytest.approx(start["l1_last_frame"], rel=0.05)
    assert outcome.improved
    assert end["l1"] < 0.95 * end["l1_last_frame"]
    assert {"skill_ar1", "skill_var"} <= end.keys()
