"""Atlases: labels and maps, tables of names, and what does not fit together."""

from __future__ import annotations

import hashlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from boldly.config import AtlasOptions
from boldly.records import InputError
from boldly.signals.atlas import load_atlas

SHAPE = (4, 3, 2)


def write(path: Path, data: np.ndarray) -> AtlasOptions:
    nib.save(nib.Nifti1Image(data, np.diag([2.0, 2, 2, 1])), path)
    return AtlasOptions(path=str(path))


def labels(dtype: type = np.int16) -> np.ndarray:
    """Return an image with labels 2, 7 and 300."""
    image: np.ndarray = np.zeros(SHAPE, dtype)
    image[0], image[1, 0], image[2, 1, 1] = 7, 300, 2
    return image


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.float32, np.float64])
def test_labels_are_parcels_in_ascending_order(tmp_path: Path, dtype: type) -> None:
    atlas = load_atlas(write(tmp_path / "toy_dseg.nii.gz", labels(dtype)))
    assert (atlas.kind, atlas.values, atlas.n_parcels) == ("labels", (2, 7, 300), 3)
    assert atlas.names == ("parcel-2", "parcel-7", "parcel-300")
    np.testing.assert_array_equal(atlas.labels(), labels())


def test_a_label_image_with_one_volume_has_labels(tmp_path: Path) -> None:
    atlas = load_atlas(write(tmp_path / "toy_dseg.nii.gz", labels()[..., None]))
    assert (atlas.kind, atlas.n_parcels) == ("labels", 3)


def test_maps_are_parcels_in_their_order(tmp_path: Path) -> None:
    maps = np.random.default_rng(0).normal(size=(*SHAPE, 5)).astype(np.float32)
    maps[0, 0, 0, 0] = np.nan
    atlas = load_atlas(write(tmp_path / "toy_probseg.nii.gz", maps))
    assert (atlas.kind, atlas.values) == ("maps", (0, 1, 2, 3, 4))
    read = np.stack([image.copy() for image in atlas.maps()], axis=-1)
    np.testing.assert_array_equal(read, np.nan_to_num(maps))
    assert read.dtype == np.float32


def test_maps_with_a_scaled_header_are_scaled(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.random.default_rng(0).uniform(size=(*SHAPE, 3)), np.eye(4))
    image.header.set_data_dtype(np.int16)
    nib.save(image, tmp_path / "toy_probseg.nii.gz")
    atlas = load_atlas(AtlasOptions(path=str(tmp_path / "toy_probseg.nii.gz")))
    read = np.stack(list(atlas.maps()), axis=-1)
    np.testing.assert_array_equal(read, np.asarray(nib.nifti1.load(tmp_path / "toy_probseg.nii.gz").dataobj))


def test_name_and_checksum(tmp_path: Path) -> None:
    options = write(tmp_path / "toy_dseg.nii.gz", labels())
    atlas = load_atlas(options)
    assert atlas.name == "toy_dseg"
    assert atlas.sha256 == hashlib.sha256((tmp_path / "toy_dseg.nii.gz").read_bytes()).hexdigest()
    assert load_atlas(options.model_copy(update={"name": "toy"})).name == "toy"


def test_names_come_from_the_table_beside_the_image(tmp_path: Path) -> None:
    options = write(tmp_path / "toy_dseg.nii.gz", labels())
    (tmp_path / "toy_dseg.tsv").write_text("index\tname\n300\tc\n0\tBackground\n2\ta\n7\tb\n99\tnowhere\n")
    assert load_atlas(options).names == ("a", "b", "c")


def test_names_of_maps_are_in_the_order_of_their_index(tmp_path: Path) -> None:
    options = write(tmp_path / "toy.nii", np.ones((*SHAPE, 3)))
    (tmp_path / "names.tsv").write_text("index\tname\n2\tb\n1\ta\n3\tc\n")
    assert load_atlas(options.model_copy(update={"labels": str(tmp_path / "names.tsv")})).names == ("a", "b", "c")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("index\tname\n2\ta\n", "no row for the labels 7, 300"),
        ("number\tlabel\n2\ta\n", r"no columns index and name \(found: number, label\)"),
        ("index\tname\n2\ta\n2\tb\n", "twice"),
        ("index\tname\nx\ta\n", "no numbers"),
        ("", "not a table"),
    ],
)
def test_a_table_that_does_not_fit_is_named(tmp_path: Path, table: str, message: str) -> None:
    options = write(tmp_path / "toy_dseg.nii.gz", labels())
    (tmp_path / "toy_dseg.tsv").write_text(table)
    with pytest.raises(InputError, match=message) as caught:
        load_atlas(options)
    assert caught.value.problems[0].where == str(tmp_path / "toy_dseg.tsv")


def test_a_table_for_other_maps_is_refused(tmp_path: Path) -> None:
    options = write(tmp_path / "toy.nii", np.ones((*SHAPE, 3)))
    (tmp_path / "toy.tsv").write_text("index\tname\n1\ta\n")
    with pytest.raises(InputError, match="1 names for 3 maps"):
        load_atlas(options)


def test_a_table_that_is_named_must_be_there(tmp_path: Path) -> None:
    options = write(tmp_path / "toy.nii", labels())
    with pytest.raises(InputError, match="no such file"):
        load_atlas(options.model_copy(update={"labels": str(tmp_path / "names.tsv")}))


def test_a_3d_image_of_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="must have whole numbers"):
        load_atlas(write(tmp_path / "toy.nii", labels() * 0.5))


def test_an_empty_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no label but 0"):
        load_atlas(write(tmp_path / "toy.nii", np.zeros(SHAPE, np.int16)))


@pytest.mark.parametrize(
    "table",
    [
        "index,name\n2,a\n7,b\n300,c\n",
        '\ufeffIndex,Name\n2,a\n7,"b"\n300, c\n',
        "component\tlabel\n2\ta\n7\tb\n300\tc\n",
    ],
)
@pytest.mark.parametrize("name", ["toy_dseg.tsv", "toy_dseg.csv"])
def test_tables_may_have_commas_and_other_spellings(tmp_path: Path, table: str, name: str) -> None:
    options = write(tmp_path / "toy_dseg.nii.gz", labels())
    (tmp_path / name).write_text(table, encoding="utf-8")
    assert load_atlas(options).names == ("a", "b", "c")


def test_a_table_with_fewer_entities_is_found_as_in_templateflow(tmp_path: Path) -> None:
    options = write(tmp_path / "tpl-X_res-02_atlas-Y_desc-3Parcels_dseg.nii.gz", labels())
    tables = {
        "tpl-X_atlas-Y_dseg.tsv": "fewer",
        "tpl-X_atlas-Y_desc-3Parcels_dseg.tsv": "right",
        "tpl-X_atlas-Y_desc-7Parcels_dseg.tsv": "another",
        "tpl-X_atlas-Y_desc-3Parcels_probseg.tsv": "maps",
        "tpl-X_res-01_atlas-Y_desc-3Parcels_dseg.tsv": "resolution",
    }
    for name, text in tables.items():
        (tmp_path / name).write_text("index\tname\n" + "".join(f"{n}\t{text}{n}\n" for n in (2, 7, 300)))
    assert load_atlas(options).names == ("right2", "right7", "right300")
