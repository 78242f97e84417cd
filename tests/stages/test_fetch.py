"""Files of datasets that are elsewhere: in a bucket (a local server), or links without content (DataLad)."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from boldly import fingerprints
from boldly.config import DatasetOptions
from boldly.files import read_json
from boldly.records import InputError
from boldly.stages import fetch
from tests.conftest import Study
from tests.hcp_tree import write_tree
from tests.s3 import bucket_of

# As DataLad's command for the test: it makes the content of links, and says what it was asked for.
STAND_IN = """#!{python}
import pathlib, sys
with open({calls!r}, "a") as calls:
    print(*sys.argv[1:], file=calls)
for name in sys.argv[2:]:
    path = pathlib.Path(name)
    if path.is_symlink():
        content = pathlib.Path({content!r}, path.resolve().name).read_bytes()
        path.resolve().parent.mkdir(parents=True, exist_ok=True)
        path.resolve().write_bytes(content)
"""


def names_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def options_of(folder: Path, place: str, **more: object) -> DatasetOptions:
    fields = {"role": "upstream", "derivatives": str(folder), "fetch": {"derivatives": place}, **more}
    return DatasetOptions.model_validate(fields)


def test_what_boldly_reads_comes_from_a_bucket_once(study: Study, tmp_path: Path) -> None:
    folder = study.run().bold.parent
    (folder / "sub-01_task-blocks_run-1_space-T1w_desc-preproc_bold.nii.gz").write_text("another space")
    (study.derivatives / "sub-01/figures").mkdir()
    (study.derivatives / "sub-01/figures/sub-01_desc-confounds_bold.svg").write_text("a figure")
    here = tmp_path / "here"
    with bucket_of(study.derivatives) as address:
        options = options_of(here, address)
        fetch.run(options=options, output=tmp_path / "fetched.json")
        # All that index looks at, so that a fetched dataset has the same runs.
        there = options.model_copy(update={"derivatives": str(study.derivatives)})
        read = {
            name for name in names_below(study.derivatives) if fingerprints.is_read(there, "derivatives", name)
        }
        assert names_below(here) == read
        assert not any("T1w" in name or "figures" in name for name in read)
        assert (
            study.run().bold.read_bytes() == (here / study.run().bold.relative_to(study.derivatives)).read_bytes()
        )
        assert read_json(tmp_path / "fetched.json") == {"derivatives": len(read)}
        # What is there already stays as it is; a cut file comes again.
        (cut, *rest) = sorted(here.rglob("*_bold.nii.gz"))
        cut.write_bytes(b"cut")
        times = [path.stat().st_mtime_ns for path in rest]
        fetch.run(options=options, output=None)
        assert cut.stat().st_size > 3
        assert [path.stat().st_mtime_ns for path in rest] == times


def test_only_chosen_subjects_and_tasks_come(study: Study, tmp_path: Path) -> None:
    with bucket_of(study.derivatives) as address:
        fetch.run(options=options_of(tmp_path / "one", address, subjects=["02"]), output=None)
        with pytest.raises(InputError, match="none of its"):
            fetch.run(options=options_of(tmp_path / "no", address, subjects=["02"], tasks=["rest"]), output=None)
    assert {name.split("/")[0] for name in names_below(tmp_path / "one") if "/" in name} == {"sub-02"}


def test_hcp_comes_as_it_is_distributed(tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "tree", subjects=("100307",), tasks=("MOTOR",))
    extra = tree / "100307/MNINonLinear/Results/tfMRI_MOTOR_LR/tfMRI_MOTOR_LR_hp200_s4.dtseries.nii"
    extra.write_text("not read")
    with bucket_of(tree) as address:
        options = options_of(tmp_path / "here", address, layout="hcp", space="MNI152NLin6Asym")
        fetch.run(options=options, output=None)
    # The fingerprint is of all that index reads.
    there = options.model_copy(update={"derivatives": str(tree)})
    extra.unlink()
    kept = {name.split("Results/")[-1] for name in names_below(tmp_path / "here")}
    assert {"tfMRI_MOTOR_LR/tfMRI_MOTOR_LR.nii.gz", "tfMRI_MOTOR_LR/Movement_Regressors.txt"} <= kept
    assert any("/EVs/" in name for name in kept)
    assert extra.name not in "".join(kept)
    unread = {name for name in names_below(tree) if not fingerprints.is_read(there, "derivatives", name)}
    assert names_below(tree) - unread == names_below(tmp_path / "here")


def test_a_bucket_that_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with (
        bucket_of(tmp_path / "empty"),
        pytest.raises(InputError, match=r"NoSuchBucket[^\n]*\n    file: s3://nowhere/study"),
    ):
        fetch.run(options=options_of(tmp_path / "here", "s3://nowhere/study"), output=None)


@pytest.fixture
def annexed(study: Study, tmp_path: Path) -> Path:
    """Return derivatives whose images are links without content, and put the content elsewhere."""
    content = tmp_path / "content"
    content.mkdir()
    for path in sorted(study.derivatives.rglob("*.nii.gz")):
        path.rename(content / path.name)
        path.symlink_to(f"../../.git/annex/objects/{path.name}")
    return study.derivatives


def test_links_without_content_are_fetched_by_datalad(
    annexed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    calls, program = tmp_path / "calls", tmp_path / "bin/datalad"
    program.parent.mkdir()
    program.write_text(STAND_IN.format(python=sys.executable, calls=str(calls), content=str(tmp_path / "content")))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    fetch.run(options=options_of(annexed, "datalad"), output=None)
    images = list(annexed.rglob("*_space-MNI152NLin2009cAsym_desc-preproc_bold.nii.gz"))
    assert images
    assert all(path.exists() for path in images)
    asked = calls.read_text()
    fetch.run(options=options_of(annexed, "datalad"), output=None)
    assert calls.read_text() == asked, "what is here is not asked for again"


def test_without_datalad_the_way_out_is_named(annexed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(InputError, match="no command datalad"):
        fetch.run(options=options_of(annexed, "datalad"), output=None)


@pytest.mark.skipif(shutil.which("datalad") is None, reason="DataLad and git-annex are not installed")
def test_a_clone_of_a_real_dataset_is_filled(study: Study, tmp_path: Path) -> None:
    def datalad(*words: str, cwd: Path) -> None:
        subprocess.run(["datalad", *words], cwd=cwd, check=True, capture_output=True)

    datalad("create", "--force", ".", cwd=study.derivatives)
    datalad("save", "-m", "all", cwd=study.derivatives)
    datalad("clone", str(study.derivatives), str(tmp_path / "clone"), cwd=tmp_path)
    options = options_of(tmp_path / "clone", "datalad")
    image = tmp_path / "clone" / study.run().bold.relative_to(study.derivatives)
    assert image.is_symlink()
    assert not image.exists()
    fetch.run(options=options, output=tmp_path / "fetched.json")
    assert image.read_bytes() == study.run().bold.read_bytes()


@pytest.mark.parametrize(
    ("fetched", "message"),
    [
        ({"bids": "datalad"}, "has no folder bids"),
        ({"derivatives": "https://somewhere"}, "comes from 'datalad' or an address s3://"),
    ],
)
def test_what_cannot_be_fetched_is_refused(fetched: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DatasetOptions.model_validate({"role": "upstream", "derivatives": "d", "fetch": fetched})
