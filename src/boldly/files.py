"""Atomic files: every result is written beside its final name and renamed when complete."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pandas as pd


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary sibling of `path` that takes its name when the block ends without an error.

    The sibling may be written as a file or created as a folder. After an error nothing is left behind.

    Parameters
    ----------
    path : Path or str
        Final name. Its folder is created when missing.

    Yields
    ------
    Path
        The name to write to, in the same folder and with the same suffixes.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffixes stay last: numpy, nibabel and pandas choose format and compression by them.
    temporary = path.with_name(f".{uuid4().hex[:8]}.{path.name}")
    try:
        yield temporary
        if path.is_dir():
            shutil.rmtree(path)
        os.replace(temporary, path)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        else:
            temporary.unlink(missing_ok=True)


def write_json(path: Path | str, content: Any) -> None:
    """Write `content` as indented JSON, atomically; non-finite numbers are refused."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_json(path: Path | str) -> Any:
    """Read a JSON file."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def write_tsv(path: Path | str, table: pd.DataFrame) -> None:
    """Write a table as tab-separated values with ``n/a`` for missing ones, as BIDS does, atomically."""
    with atomic_path(path) as temporary:
        table.to_csv(temporary, sep="\t", index=False, na_rep="n/a", lineterminator="\n")


def read_tsv(path: Path | str, text_columns: tuple[str, ...] = ()) -> pd.DataFrame:
    """Read tab-separated values; ``n/a`` is missing.

    Parameters
    ----------
    path : Path or str
        The table.
    text_columns : tuple of str
        Columns that stay text although they may look like numbers (``run`` "01").
    """
    dtypes: Any = dict.fromkeys(text_columns, "str")
    return pd.read_csv(path, sep="\t", na_values=["n/a"], keep_default_na=False, dtype=dtypes)
