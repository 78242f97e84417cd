"""Tool fetch: bring the files of a dataset here, with DataLad or from an S3 bucket, where there is network.

Only files that boldly reads come. Those that are here are not fetched again.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from boldly import fingerprints
from boldly.config import DatasetOptions
from boldly.files import write_json
from boldly.records import InputError, Problem
from boldly.samples import s3

logger = logging.getLogger(__name__)

# Paths that a single command line names.
_PATHS_AT_ONCE = 500
# Downloads wait for the network, not for the processor.
_THREADS = 8


def run(*, options: DatasetOptions, output: Path | None) -> None:
    """Fetch the folders of a dataset that its option `fetch` names.

    Parameters
    ----------
    options : DatasetOptions
        Of the dataset.
    output : Path or None
        JSON file to write: for each folder how many files boldly reads there.

    Raises
    ------
    InputError
        Where DataLad is not installed or fails, or a bucket cannot be read, or holds nothing that boldly reads.
    """
    counts = {}
    for folder, place in options.fetch.items():
        root = Path(getattr(options, folder))
        if place == "datalad":
            _get(options, folder, root)
        else:
            _download(options, folder, root, place)
        counts[folder] = sum(1 for _ in _read_below(options, folder, root))
        if not counts[folder]:
            message = f"holds no file that boldly reads after a fetch from {place}"
            raise InputError(
                Problem(str(root), "", message, "name the folder that has the people's folders in it")
            )
        logger.info("%s: %d files that boldly reads", root, counts[folder])
    if output is not None:
        write_json(output, counts)


def _read_below(options: DatasetOptions, folder: str, root: Path) -> Iterator[Path]:
    """Yield the files that boldly reads below a folder, links without content among them."""
    for where, _, names in os.walk(root, followlinks=True):
        for name in sorted(names):
            path = Path(where, name)
            if fingerprints.is_read(options, folder, path.relative_to(root).as_posix()):
                yield path


def _get(options: DatasetOptions, folder: str, root: Path) -> None:
    """Have DataLad fetch the content of a folder that is part of one of its datasets."""
    if shutil.which("datalad") is None:
        message = "there is no command datalad, which the option fetch asks for"
        raise InputError(Problem(str(root), "", message, "pip install datalad, with git-annex (docs/cluster.md)"))
    if not root.is_dir() or not any(root.iterdir()):
        # A subdataset that was not installed with the one above it.
        _datalad(root.parent, ["--no-data", root.name])
    # Subjects may be subdatasets, which are empty as long as nobody asked for them.
    empty = [path.name for path in sorted(root.iterdir()) if path.is_dir() and not any(path.iterdir())]
    subjects = options.subjects or [name.removeprefix("sub-") for name in empty]
    _datalad(root, ["--no-data"], [name for name in empty if name.removeprefix("sub-") in subjects])
    missing = [path for path in _read_below(options, folder, root) if path.is_symlink() and not path.exists()]
    logger.info("%s: %d files to fetch", root, len(missing))
    _datalad(root, [], [str(path.relative_to(root)) for path in missing])


def _datalad(where: Path, arguments: Sequence[str], paths: Sequence[str] | None = None) -> None:
    """Run `datalad get` in a folder, for some paths if there are any."""
    for part in [[]] if paths is None else _parts(paths):
        command = ["datalad", "get", *arguments, *part]
        done = subprocess.run(command, cwd=where, capture_output=True, text=True, check=False)
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines() or ["it says nothing"]
            remedy = f"call it by hand: cd {where}; datalad get {(part or arguments)[-1]}"
            raise InputError(Problem(str(where), "", f"datalad get failed: {'; '.join(said[-3:])}", remedy))


def _parts(paths: Sequence[str]) -> Iterable[Sequence[str]]:
    return (paths[start : start + _PATHS_AT_ONCE] for start in range(0, len(paths), _PATHS_AT_ONCE))


def _download(options: DatasetOptions, folder: str, root: Path, url: str) -> None:
    """Copy what boldly reads below a folder of a bucket to a folder here."""
    listed = s3.listed(url)
    wanted = {name: size for name, size in listed.items() if fingerprints.is_read(options, folder, name)}
    if not wanted:
        message = f"none of its {len(listed)} files is one that boldly reads"
        raise InputError(Problem(url, "", message, f"name the folder whose content belongs into {root}"))
    missing = [name for name, size in wanted.items() if _size(root / name) != size]
    logger.info("%s: %d of %d files to fetch", url, len(missing), len(wanted))
    with ThreadPoolExecutor(_THREADS) as pool:
        # A list: errors of the threads are raised here.
        list(pool.map(lambda name: s3.download(url, name, root / name), missing))


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
