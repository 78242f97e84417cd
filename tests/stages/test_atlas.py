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


def maps(count: int) -> nib.Nifti1Image:
    return nib.Nifti1Image(np.random.default_rng(0).uniform(size=(5, 4, 3, count)).astype(np.float32), AFFINE)


def xml(entries: str) -> str:
    return f"<?xml version='1.0'?><atlas><data>{entries}</data></atlas>"


# The files that are downloaded, in small, by how their names end.
IMAGES = {
    "maps.nii.gz": maps(3),
    "2mm.nii.gz": labels(1, 3),
    # Values that do not count up, one without a name, uncompressed.
    "AAL3v1.nii": labels(95, 170, 7),
    "sub-prob-2mm.nii.gz": maps(2),
}
TEXTS = {
    "README.md": "DiFuMo",
    "dictionary.csv": "Component,Difumo_names,Yeo_networks7,GM\n1,a,x,0.1\n2,b,x,0.2\n3,b,y,0.3\n",
    "order.txt": "".join(f"{n}\t7Networks_LH_Vis_{n}\t120\t18\t131\t0\n" for n in (1, 2, 3)),
    "AAL3v1.xml": xml(
        "".join(
            f"<label><index>{n}</index><name>{name}</name></label>"
            for n, name in ((95, "Cerebellum_Crus1_L"), (170, "Raphe_M"), (35, "Absent"))
        )
    ),
    "HarvardOxford-Cortical.xml": xml(
        "".join(
            f"<label index='{n}'>{name}</label>" for n, name in enumerate(["Frontal Pole", "Insula", "Cuneus"])
        )
    ),
    "HarvardOxford-Subcortical.xml": xml("<label index='0'>left</label><label index='1'>right</label>"),
}


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Put local files in place of downloads, so that nilearn itself reads them; return the names asked for."""
    asked: list[str] = []

    def fetch_files(data_dir: str, files: list[tuple[Any, ...]], **_: Any) -> list[str]:
        paths = [Path(data_dir) / item[0] for item in files]
        for path in paths:
            asked.append(path.name)
            path.parent.mkdir(parents=True, exist_ok=True)
            for end, image in IMAGES.items():
                if path.name.endswith(end):
                    nib.save(image, path)
            for end, text in TEXTS.items():
                if path.name.endswith(end):
                    path.write_text(text)
        return [str(path) for path in paths]

    monkeypatch.setattr("nilearn.datasets.atlas.fetch_files", fetch_files)
    return asked


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
    ("name", "label", "image", "names"),
    [
        ("difumo", "difumo-1024-2mm", "maps.nii.gz", ("a", "b", "b")),
        (
            "schaefer",
            "schaefer-400-7networks-2mm",
            "Schaefer2018_400Parcels_7Networks_order_FSLMNI152_2mm.nii.gz",
            ("7Networks_LH_Vis_1", "7Networks_LH_Vis_3"),
        ),
        ("aal", "aal-3v2", "AAL3v1.nii", ("parcel-7", "Cerebellum_Crus1_L", "Raphe_M")),
        (
            "harvard-oxford",
            "harvard-oxford-cort-maxprob-thr25-2mm",
            "HarvardOxford-cort-maxprob-thr25-2mm.nii.gz",
            ("Frontal Pole", "Cuneus"),
        ),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_each_atlas_is_fetched_with_names_and_record(
    tmp_path: Path, offered: list[str], name: str, label: str, image: str, names: tuple[str, ...]
) -> None:
    chosen = options(tmp_path, name)
    tool.run(atlas=chosen)
    assert image in offered
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


def test_names_that_begin_with_a_background_fit_their_maps(tmp_path: Path, offered: list[str]) -> None:
    chosen = options(tmp_path, "harvard-oxford", variant="sub-prob")
    tool.run(atlas=chosen)
    assert load_atlas(chosen).names == ("left", "right")
    assert list(read_tsv(chosen.fetched[1])["index"]) == [1, 2]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_same_atlas_gives_the_same_bytes(tmp_path: Path, offered: list[str]) -> None:
    for name in FETCHERS:
        one, other = options(tmp_path, name), options(tmp_path, name, cache=str(tmp_path / "again"))
        tool.run(atlas=one)
        tool.run(atlas=other)
        for path, again in zip(one.fetched, other.fetched, strict=True):
            assert Path(path).read_bytes() == Path(again).read_bytes()


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_licence_is_shown(tmp_path: Path, offered: list[str], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        tool.run(atlas=options(tmp_path, "harvard-oxford"))
    assert "licence: that of FSL, which excludes commercial use" in caplog.text
    assert "please cite: Desikan et al. (2006)" in caplog.text


def test_files_that_are_there_are_not_fetched_again(tmp_path: Path, offered: list[str]) -> None:
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
    assert all("snakemake --cores 1 --directory" in problem.remedy for problem in caught.value.problems)


@pytest.mark.parametrize("part", [0, 1])
def test_stages_refuse_files_that_are_not_those_that_were_fetched(
    tmp_path: Path, offered: list[str], part: int
) -> None:
    chosen = options(tmp_path)
    tool.run(atlas=chosen)
    path = Path(chosen.fetched[part])
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match="its checksum is not the one in") as caught:
        open_atlas(chosen)
    assert [problem.where for problem in caught.value.problems] == [str(path)]


def test_the_config_can_name_the_checksum(tmp_path: Path, offered: list[str]) -> None:
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
