"""Ways to damage files."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd


def edit_header(path: Path, change: Callable[[Any], None]) -> None:
    image: Any = nib.load(path)
    change(image.header)
    nib.save(image, path)


def cut(path: Path, share: float = 0.5) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def cut_inside(path: Path) -> None:
    """Write a sound gzip stream of half the image."""
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(content[: len(content) // 2]))


def make_3d(path: Path) -> None:
    image: Any = nib.load(path)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj)[..., 0], image.affine), path)


def dangle(path: Path) -> None:
    path.unlink()
    path.symlink_to("../.git/annex/objects/MD5E-s1--0")


def without_columns(path: Path, *names: str) -> None:
    pd.read_csv(path, sep="\t").drop(columns=list(names)).to_csv(path, sep="\t", index=False, na_rep="n/a")


def no_time(files: Any) -> None:
    files.sidecar.unlink()
    edit_header(files.bold, lambda header: header["pixdim"].__setitem__(4, 0.0))


def time_of(files: Any, sidecar: Any, header: float) -> None:
    files.sidecar.write_text(json.dumps({"RepetitionTime": sidecar}))
    edit_header(files.bold, lambda h: h["pixdim"].__setitem__(4, header))


def rewrite(path: Path, change: Callable[[str], str]) -> None:
    path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")


def edit_table(path: Path, change: Callable[[pd.DataFrame], object]) -> None:
    table = pd.read_csv(path, sep="\t", dtype="str", keep_default_na=False)
    change(table)
    table.to_csv(path, sep="\t", index=False, lineterminator="\n")


def set_cells(path: Path, column: str, value: str, rows: slice = slice(None)) -> None:
    def change(table: pd.DataFrame) -> None:
        table.iloc[rows, list(table.columns).index(column)] = value

    edit_table(path, change)


def latin1(path: Path, text: str) -> None:
    path.write_bytes(text.encode("latin-1"))


def append(path: Path, content: bytes) -> None:
    path.write_bytes(path.read_bytes() + content)


def flip(path: Path, at: int | None = None) -> None:
    """Turn over all bits of a byte, of that in the middle if no other is named."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if at is None else at] ^= 0xFF
    path.write_bytes(bytes(content))


def edit_image(path: Path, change: Callable[[np.ndarray], object], dtype: type = np.float32) -> None:
    """Change the numbers of an image, in place."""
    image: Any = nib.load(path)
    data: np.ndarray = np.asarray(image.dataobj).astype(dtype)
    change(data)
    changed = nib.Nifti1Image(data, image.affine)
    changed.header.set_zooms(image.header.get_zooms())
    changed.header["xyzt_units"] = image.header["xyzt_units"]
    nib.save(changed, path)


def edit_bytes(path: Path, change: Callable[[bytearray], object]) -> None:
    """Change the bytes of a compressed file."""
    content = bytearray(gzip.decompress(path.read_bytes()))
    change(content)
    path.write_bytes(gzip.compress(bytes(content), mtime=0))


def fill(value: float, *where: Any) -> Callable[[np.ndarray], object]:
    return lambda data: data.__setitem__(where, value)


def keep_volumes(path: Path, count: int) -> None:
    image: Any = nib.load(path)
    changed = nib.Nifti1Image(np.asarray(image.dataobj)[..., :count], image.affine)
    changed.header.set_zooms(image.header.get_zooms())
    nib.save(changed, path)


def move_qform(path: Path) -> None:
    """Let the position of an image come from a qform that is 500 mm off."""
    image: Any = nib.load(path)
    moved = image.affine.copy()
    moved[:3, 3] += 500
    image.header.set_sform(None, code=0)
    image.header.set_qform(moved, code=1)
    image = nib.Nifti1Image(np.asarray(image.dataobj), None, image.header)
    nib.save(image, path)


def append_latin1(path: Path) -> None:
    path.write_bytes("größe\t".encode("latin-1") + path.read_bytes())


def no_rotation(content: bytearray) -> None:
    """Leave the position of an image to a quaternion that is none."""
    content[252:256] = b"\1\0\0\0"
    content[256:260] = np.float32(5).tobytes()


def as_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def link_to_itself(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)
