"""Tool atlas: what nilearn's fetchers give becomes image, names and record; later stages compare the checksums."""

from __future__ import annotations

import gzip
import hashlib
import json
import logging
import os
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from nilearn import datasets
from sklearn.utils import Bunch

from boldly.config import ATLASES, AtlasOptions
from boldly.files import read_tsv
from boldly.records import InputError
from boldly.signals.atlas import load_atlas, open_atlas
from boldly.stages import atlas as tool

AFFINE = np.diag([2.0, 2, 2, 1])
FETCHERS = {
    "difumo": "fetch_atlas_difumo",
    "schaefer": "fetch_atlas_schaefer_2018",
    "aal": "fetch_atlas_aal",
    "harvard-oxford": "fetch_atlas_harvard_oxford",
}


def labels(*values: int) -> nib.Nifti1Image:
    image = np.zeros((5, 4, 3), np.uint8)
    for number, value in enumerate(values):
        image[number] = value
    return nib.Nifti1Image(image, AFFINE)


def lut(**names: int) -> pd.DataFrame:
    return pd.DataFrame({"index": [0, *names.values()], "name": ["Background", *names]})


def maps(count: int) -> nib.Nifti1Image:
    return nib.Nifti1Image(np.random.default_rng(0).uniform(size=(5, 4, 3, count)).astype(np.float32), AFFINE)


def answers(name: str, folder: Path) -> Bunch:
    """Return what the fetcher of an atlas gives in nilearn 0.13, in small, with the files in `folder`."""
    folder.mkdir(exist_ok=True)
    if name == "difumo":
        nib.save(maps(3), folder / "maps.nii.gz")
        table = pd.DataFrame({"component": [1, 2, 3], "difumo_names": ["a", "b", "b"], "gm": [0.1, 0.2, 0.3]})
        return Bunch(maps=str(folder / "maps.nii.gz"), labels=table, template="MNI152NLin6Asym")
    if name == "schaefer":
        nib.save(labels(1, 2), folder / "s.nii.gz")
        return Bunch(maps=str(folder / "s.nii.gz"), lut=lut(Vis_1=1, Vis_2=2), template="MNI152NLin6Asym")
    if name == "aal":
        # Uncompressed, and values that do not count up; one of the look-up table's is not in the image.
        nib.save(labels(209, 53, 7), folder / "AAL.nii")
        found = lut(Precentral_L=209, Frontal=53, Absent=200)
        return Bunch(maps=str(folder / "AAL.nii"), lut=found, template="MNIColin27")
    return Bunch(maps=labels(1, 3), lut=lut(Pole=1, Gyrus=2, Lobe=3), template="MNI152NLin6Asym")


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    """Put local files in place of the network; return the arguments that each fetcher is called with."""
    called: dict[str, dict[str, Any]] = {}
    for name, fetcher in FETCHERS.items():

        def fetch(*, data_dir: str, name: str = name, **arguments: Any) -> Bunch:
            called[name] = arguments
            return answers(name, Path(data_dir) / "files")

        monkeypatch.setattr(datasets, fetcher, fetch)
    return called


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every fetcher fail after half a download."""

    def fetch(*, data_dir: str, **_: Any) -> Bunch:
        (Path(data_dir) / "maps.nii.gz.part").write_bytes(b"half")
        raise ConnectionError("Failed to resolve 'osf.io'")

    for fetcher in FETCHERS.values():
        monkeypatch.setattr(datasets, fetcher, fetch)


def options(tmp_path: Path, name: str = "difumo", **changes: Any) -> AtlasOptions:
    return AtlasOptions.model_validate({"name": name, "cache": str(tmp_path / "cache"), **changes})


@pytest.mark.parametrize(
    ("name", "label", "arguments", "names"),
    [
        ("difumo", "difumo-1024-2mm", {"dimension": 1024, "resolution_mm": 2}, ("a", "b", "b")),
        (
            "schaefer",
            "schaefer-400-7networks-2mm",
            {"n_rois": 400, "yeo_networks": 7, "resolution_mm": 2},
            ("Vis_1", "Vis_2"),
        ),
        ("aal", "aal-3v2", {"version": "3v2"}, ("parcel-7", "Frontal", "Precentral_L")),
        (
            "harvard-oxford",
            "harvard-oxford-cort-maxprob-thr25-2mm",
            {"atlas_name": "cort-maxprob-thr25-2mm"},
            ("Pole", "Lobe"),
        ),
    ],
)
def test_each_atlas_is_fetched_with_names_and_record(
    tmp_path: Path,
    offered: dict[str, Any],
    name: str,
    label: str,
    arguments: dict[str, Any],
    names: tuple[str, ...],
) -> None:
    chosen = options(tmp_path, name)
    tool.run(atlas=chosen)
    assert offered[name] == arguments
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == sorted(
        [f"{label}.nii.gz", f"{label}_labels.tsv", f"{label}_atlas.json"]
    )
    found = load_atlas(chosen)
    assert (found.name, found.names) == (label, names)
    record = json.loads((tmp_path / "cache" / f"{label}_atlas.json").read_text())
    assert record["sha256"] == {
        part: hashlib.sha256((tmp_path / "cache" / part).read_bytes()).hexdigest()
        for part in (f"{label}.nii.gz", f"{label}_labels.tsv")
    }
    assert all(record[field] for field in ("source", "citation", "licence", "template"))


def test_lists_of_names_that_begin_with_a_background_fit_their_maps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bunch = Bunch(maps=maps(2), labels=["Background", "left", "right"], template="MNI152NLin6Asym")
    monkeypatch.setattr(datasets, FETCHERS["harvard-oxford"], lambda **_: bunch)
    chosen = options(tmp_path, "harvard-oxford", variant="sub-prob")
    tool.run(atlas=chosen)
    assert load_atlas(chosen).names == ("left", "right")
    assert list(read_tsv(chosen.fetched[1])["index"]) == [1, 2]


def test_the_same_atlas_gives_the_same_bytes(tmp_path: Path, offered: dict[str, Any]) -> None:
    for name in FETCHERS:
        one, other = options(tmp_path, name), options(tmp_path, name, cache=str(tmp_path / "again"))
        tool.run(atlas=one)
        tool.run(atlas=other)
        for path, again in zip(one.fetched, other.fetched, strict=True):
            assert Path(path).read_bytes() == Path(again).read_bytes()


def test_the_licence_is_shown(tmp_path: Path, offered: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        tool.run(atlas=options(tmp_path, "harvard-oxford"))
    assert "licence: that of FSL, which excludes commercial use" in caplog.text
    assert "please cite: Desikan et al. (2006)" in caplog.text


def test_files_that_are_there_are_not_fetched_again(tmp_path: Path, offered: dict[str, Any]) -> None:
    tool.run(atlas=options(tmp_path))
    offered.clear()
    tool.run(atlas=options(tmp_path))
    assert not offered


@pytest.mark.usefixtures("offline")
def test_without_network_the_error_says_how_the_files_get_here_and_nothing_stays(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        tool.run(atlas=options(tmp_path, dimension=64))
    (problem,) = caught.value.problems
    assert problem.where == str(tmp_path / "cache" / "difumo-64-2mm.nii.gz")
    assert "Failed to resolve" in problem.message
    assert """boldly atlas --atlas '{"name":"difumo","dimension":64,"resolution_mm":2}'""" in problem.remedy
    assert "difumo-64-2mm.nii.gz, difumo-64-2mm_labels.tsv, difumo-64-2mm_atlas.json" in problem.remedy
    assert str(tmp_path / "cache") in problem.remedy
    assert not list((tmp_path / "cache").iterdir())


def test_an_archive_that_is_none_is_an_error_of_the_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(*, data_dir: str, **_: Any) -> Bunch:
        path = Path(data_dir) / "maps.nii.gz"
        path.write_bytes(gzip.compress(b"<html>moved</html>"))
        return Bunch(maps=str(path), labels=pd.DataFrame({"difumo_names": []}), template="")

    monkeypatch.setattr(datasets, FETCHERS["difumo"], fetch)
    with pytest.raises(InputError, match="could not be fetched"):
        tool.run(atlas=options(tmp_path))
    assert not list((tmp_path / "cache").iterdir())


def test_stages_name_what_is_missing_and_the_way_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        load_atlas(options(tmp_path))
    assert [Path(problem.where).name for problem in caught.value.problems] == [
        "difumo-1024-2mm.nii.gz", "difumo-1024-2mm_labels.tsv", "difumo-1024-2mm_atlas.json",
    ]  # fmt: skip
    assert all("snakemake atlas" in problem.remedy for problem in caught.value.problems)


@pytest.mark.parametrize("part", [0, 1])
def test_stages_refuse_files_that_are_not_those_that_were_fetched(
    tmp_path: Path, offered: dict[str, Any], part: int
) -> None:
    chosen = options(tmp_path)
    tool.run(atlas=chosen)
    path = Path(chosen.fetched[part])
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match="its checksum is not the one in") as caught:
        open_atlas(chosen)
    assert [problem.where for problem in caught.value.problems] == [str(path)]


def test_the_config_can_name_the_checksum(tmp_path: Path, offered: dict[str, Any]) -> None:
    chosen = options(tmp_path)
    tool.run(atlas=chosen)
    found = load_atlas(chosen)
    load_atlas(chosen.model_copy(update={"sha256": found.sha256}))
    with pytest.raises(
        InputError, match=f"the checksum of the image is {found.sha256}, not the one of the config"
    ):
        load_atlas(chosen.model_copy(update={"sha256": "0" * 64}))
    own = AtlasOptions(path=chosen.image, sha256="0" * 64)
    with pytest.raises(InputError, match="not the one of the config"):
        load_atlas(own)


def test_an_image_of_ones_own_needs_no_fetching(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing to fetch"):
        tool.run(atlas=AtlasOptions(path=str(tmp_path / "mine_dseg.nii.gz")))


def test_every_choice_of_the_config_is_one_that_nilearn_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch_files(*_: Any, **__: Any) -> None:
        raise ConnectionError("reached")

    # nilearn refuses an unknown choice, with another error, before it asks for files.
    monkeypatch.setattr("nilearn.datasets.atlas.fetch_files", fetch_files)
    seen = set()
    for name, choice in ATLASES.items():
        for dimension in choice.dimensions or (None,):
            for size in choice.resolutions_mm or (None,):
                for variant in choice.variants or (None,):
                    chosen = options(tmp_path, name, dimension=dimension, resolution_mm=size, variant=variant)
                    with pytest.raises(InputError, match="ConnectionError: reached"):
                        tool.run(atlas=chosen)
                    seen.add(chosen.label)
    assert len(seen) == 5 * 2 + 10 * 2 * 2 + 4 + 12 * 2


@pytest.mark.skipif("BOLDLY_NETWORK" not in os.environ, reason="needs network: set BOLDLY_NETWORK")
def test_a_small_atlas_is_fetched_from_where_it_is(tmp_path: Path) -> None:
    chosen = options(tmp_path, "schaefer", dimension=100)
    tool.run(atlas=chosen)
    assert load_atlas(chosen).n_parcels == 100
