"""Atomic files: every result is written beside its final name and renamed when complete."""

from __future__ import annotations

import csv
import errno
import glob
import json
import os
import platform
import shutil
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from uuid import uuid4

# Imported where it is used: it takes longer than all the rest of the command line.
if TYPE_CHECKING:
    import pandas as pd

_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}
# A folder of that name stands there already.
_TAKEN = {errno.ENOTEMPTY, errno.EEXIST, errno.EISDIR}
_NODE = platform.node().replace(".", "_")
_STALE_S = 86_400
# Read once, while there is one thread: it cannot be read without being set.
_UMASK = os.umask(0o022)
os.umask(_UMASK)


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary sibling of `path` that takes its name when the block ends without an error.

    The sibling may be written as a file or created as a folder. After an error nothing is left behind. A process
    that is killed leaves its sibling, whose name begins with a dot so that no pattern for results matches it; the
    next one that writes the same path removes it.

    Parameters
    ----------
    path : Path or str
        Final name. Its folder is created when missing.

    Yields
    ------
    Path
        The name to write to, in the same folder and with the same suffixes.

    Raises
    ------
    OSError
        With the final name where the error has none or that of the sibling, as for a full disk.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(path)
    # The suffixes stay last: numpy, nibabel and pandas choose format and compression by them.
    temporary = _sibling(path)
    try:
        yield temporary
        if temporary.is_file():
            # safetensors and tempfile leave what they write to the owner alone, whatever the umask says.
            temporary.chmod(0o666 & ~_UMASK)
        _take_place(temporary, path)
    except OSError as error:
        name = str(error.filename or temporary)
        if error.errno in _DISK_ERRORS and name.startswith(str(temporary)):
            raise OSError(error.errno, error.strerror, name.replace(str(temporary), str(path), 1)) from error
        raise
    finally:
        _remove(temporary)


def _sibling(path: Path) -> Path:
    return path.with_name(f".{_NODE}-{os.getpid()}-{uuid4().hex[:8]}.{path.name}")


def _take_place(temporary: Path, path: Path) -> None:
    """Give a file or folder its name; a folder that has it goes aside first, whole, and is then removed.

    Another process may do the same for the same name at the same time: the last one stays.
    """
    while True:
        try:
            return os.replace(temporary, path)
        except OSError as error:
            if error.errno not in _TAKEN:
                raise
        aside = _sibling(path)
        with suppress(FileNotFoundError):
            os.rename(path, aside)
        _remove(aside)


def _remove_stale(path: Path) -> None:
    """Remove what killed processes left of `path`: at once where this node ran them, elsewhere after a day."""
    for sibling in path.parent.glob(f".*-*-*.{glob.escape(path.name)}"):
        node, number = sibling.name[1:].split(".", 1)[0].rsplit("-", 2)[:2]
        gone = node == _NODE and number.isdigit() and not _is_alive(int(number))
        if gone or _age_s(sibling) > _STALE_S:
            _remove(sibling)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _age_s(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def is_url(location: Path | str) -> bool:
    """Tell whether a location is an address (of the web, or of an S3 bucket), not a path."""
    return str(location).startswith(("http://", "https://", "s3://"))


def location(text: str) -> Path | str:
    """Return a path; a web address, which a path would change, as it is."""
    return text if is_url(text) else Path(text)


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


def read_tsv(
    path: Path | str,
    text_columns: tuple[str, ...] | Literal["all"] = (),
    *,
    columns: tuple[str, ...] | None = None,
) -> pd.DataFrame:
    """Read tab-separated values, compressed where the name ends in .gz; ``n/a`` is missing.

    Parameters
    ----------
    path : Path or str
        The table.
    text_columns : tuple of str or "all"
        Columns that stay text although they may look like numbers (``run`` "01").
    columns : tuple of str, optional
        Read no others than these, as far as they are there; default: all.
    """
    import pandas as pd

    chosen: Any = None if columns is None else columns.__contains__
    dtypes: Any = "str" if text_columns == "all" else dict.fromkeys(text_columns, "str")
    return pd.read_csv(path, sep="\t", na_values=["n/a"], keep_default_na=False, dtype=dtypes, usecols=chosen)


def read_foreign_table(path: Path | str, separator: str = "\t", **options: Any) -> pd.DataFrame:
    """Read a table that others wrote, such as events and confounds.

    Rows may end in one separator more than the header. A double quote that begins a cell and does not end it
    stands for itself: BIDS knows no quotes.

    Parameters
    ----------
    path : Path or str
        The table.
    separator : str
        Between the cells.
    **options
        Of `pandas.read_csv`.

    Raises
    ------
    pandas.errors.ParserError
        For a row of more cells than the header, and what else is no table.
    """
    import pandas as pd

    def read(quoting: int) -> pd.DataFrame:
        # Without this, the first column would be taken for the names of rows, and each cell for its neighbour.
        return pd.read_csv(path, sep=separator, index_col=False, quoting=quoting, **options)  # type: ignore[call-overload]

    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            try:
                table = read(csv.QUOTE_MINIMAL)
            except pd.errors.ParserError:
                table = read(csv.QUOTE_NONE)
            texts = table.select_dtypes(include=["object", "string"])
            if any(texts[name].astype(str).str.contains("\n", regex=False).any() for name in texts):
                # Rows between two quotes were taken for one cell.
                table = read(csv.QUOTE_NONE)
        except pd.errors.ParserWarning as warning:
            message = "a row has more cells than the header"
            raise pd.errors.ParserError(message) from warning
    return table
