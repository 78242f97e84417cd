"""Every fault ends in words that name the file, leaves nothing partial, and is gone once it is repaired."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
from pathlib import Path

import pytest
from nilearn import datasets

from tests.faults import chain
from tests.faults.chain import OUTPUTS, Chain
from tests.faults.kinds import FAULTS, Fault
from tests.faults.matrix import DOCUMENT, meet

_CHECKOUT = Path(__file__).parents[2]
WRITING = [stage for stage, outputs in OUTPUTS.items() if outputs]


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a sound study and all that the stages make of it."""
    folder = tmp_path_factory.mktemp("clean")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(datasets, "fetch_atlas_schaefer_2018", chain.local_fetcher)
        chain.write_clean()
    return folder


@pytest.fixture
def work(clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of it, which is the current directory."""
    folder = tmp_path / "work"
    shutil.copytree(clean, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(datasets, "fetch_atlas_schaefer_2018", chain.local_fetcher)
    return folder


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.stage}: {fault.kind}")
def test_a_fault_is_named_leaves_nothing_and_can_be_repaired(clean: Path, work: Path, fault: Fault) -> None:
    expected = chain.made(fault.stage)
    chain.forget(fault.stage)
    before = chain.files()
    said = meet(fault)
    if fault.outcome == "error":
        assert said.where
        assert said.remedy
        # The fault itself may take files away, or put a second image beside the first.
        assert {path for path in chain.files() - before if not path.startswith("study/")} == set()
    else:
        assert "ds-x_sub-01_task-blocks_run-1" in f"{said.entity} {said.message}" or "cache/" in said.message
    chain.restore(clean, fault.stage)
    chain.offer()
    Chain().stage(fault.stage)
    assert chain.made(fault.stage) == expected


def limited(work: Path, stage: str, *, killed: bool) -> tuple[int | None, str]:
    """Run a stage that cannot write more than half of its largest file; return exit status and what it said."""
    limit = max(len(content) for content in chain.made(stage).values()) // 2
    chain.forget(stage)
    errors = work.parent / "stderr.txt"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.faults.chain"])
    process = context.Process(
        target=chain.write_limited, args=(work, stage, limit), kwargs={"killed": killed, "errors": errors}
    )
    process.start()
    process.join(120)
    return process.exitcode, errors.read_text()


@pytest.fixture(autouse=True, scope="module")
def _path_of_processes() -> None:
    """Let processes find the tests."""
    os.environ["PYTHONPATH"] = os.pathsep.join([str(_CHECKOUT), os.environ.get("PYTHONPATH", "")])


@pytest.mark.parametrize("stage", WRITING)
def test_a_full_disk_is_named_and_leaves_nothing(work: Path, stage: str) -> None:
    expected = chain.made(stage)
    status, said = limited(work, stage, killed=False)
    assert status == 1
    assert "File too large" in said
    assert "Traceback" not in said
    assert any(f"file: {path}\n" in said for path in expected)
    assert not chain.made(stage)
    assert not [path for path in chain.files() if "/." in path]
    Chain().stage(stage)
    assert chain.made(stage) == expected


@pytest.mark.parametrize("stage", WRITING)
def test_a_job_killed_in_the_middle_of_a_write_can_be_run_again(work: Path, stage: str) -> None:
    expected = chain.made(stage)
    status, _ = limited(work, stage, killed=True)
    assert status == -signal.SIGXFSZ
    litter = [path for path in chain.files() if Path(path).name.startswith(".")]
    assert litter
    # What stands there under its own name is whole.
    assert all(expected[path] == content for path, content in chain.made(stage).items() if path not in litter)
    Chain().stage(stage)
    assert chain.made(stage) == expected
    assert not [path for path in chain.files() if Path(path).name.startswith(".")]


def test_the_document_has_every_kind_of_fault() -> None:
    lines = (_CHECKOUT / DOCUMENT).read_text(encoding="utf-8").splitlines()
    rows = [line.split(" | ") for line in lines if line.startswith("| ")][1:]
    assert [(cells[0].removeprefix("| "), cells[1].strip("`")) for cells in rows] == [
        (fault.kind, fault.stage) for fault in FAULTS
    ]
    assert len({(fault.stage, fault.kind) for fault in FAULTS}) == len(FAULTS) >= 100
    assert [fault.kind for fault, cells in zip(FAULTS, rows, strict=True) if fault.says not in cells[3]] == []
