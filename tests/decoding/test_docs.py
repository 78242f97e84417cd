"""docs/decoding.md: its commands and its Python code do what they say."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from boldly.cli import main
from tests.conftest import _write_study
from tests.decoding import studies

PAGE = Path(__file__).parents[2] / "docs" / "decoding.md"
BLOCK = re.compile(r"```(?P<language>bash|python)\n(?P<code>.*?)```", re.DOTALL)


def test_the_page_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = _write_study(tmp_path / "images", subjects=("01", "02", "03"), n_volumes=50)
    studies.image_study(tmp_path, study)
    (tmp_path / "fmriprep").symlink_to(study.derivatives)
    (tmp_path / "bids").symlink_to(study.bids)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BOLDLY_CACHE", str(tmp_path / "user_cache"))
    names: dict[str, Any] = {}
    for block in BLOCK.finditer(PAGE.read_text(encoding="utf-8")):
        if block["language"] == "python":
            exec(compile(block["code"], str(PAGE), "exec"), names)
            continue
        for line in block["code"].splitlines():
            assert main(shlex.split(line)[1:]) == 0, line
    assert len(names["table"]) > 1
    assert 0 <= names["share_correct"] <= 1
    # 40 frames of 2 s, windows of 10 frames, one each 2 frames.
    assert len(names["over_time"]) == 16
    assert (tmp_path / "decoded" / "scores.tsv").exists()
