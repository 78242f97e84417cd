"""Folders of networks and decoders, from and to other people: by a folder, or by a hub (huggingface_hub).

A hub is never needed. What comes from one is pinned to a revision, holds no pickles, and is checked against the
checksums that were pushed with it.
"""

from __future__ import annotations

import fnmatch
import logging
import os
import re
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boldly.files import atomic_path, read_json, write_json
from boldly.provenance import file_sha256
from boldly.records import InputError, Problem

if TYPE_CHECKING:
    from huggingface_hub import HfApi

logger = logging.getLogger(__name__)

CHECKSUMS = "checksums.json"
# Where a pulled folder is from, in that folder.
SOURCE = "source.json"
# Weights as safetensors, tables, atlases, texts; never a pickle, and no logs of trackers.
SHARED = ("*.safetensors", "*.json", "*.tsv", "*.csv", "*.md", "*.nii.gz", "*.nii", "*.gii", "LICENSE*", "NOTICE*")
_PREFIX = "hf://"
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def is_repository(source: Path | str) -> bool:
    """Tell whether a source is a repository: ``hf://owner/name``, or ``owner/name`` that is no folder here."""
    text = str(source)
    if text.startswith(_PREFIX):
        return True
    return isinstance(source, str) and bool(_REPOSITORY.fullmatch(text)) and not Path(text).exists()


def folder_of(source: Path | str, revision: str | None = None) -> Path:
    """Return the folder of a network or decoder; that of a repository is fetched into the cache of the hub.

    Parameters
    ----------
    source : Path or str
        A folder, or ``owner/name`` of a repository.
    revision : str, optional
        Commit, tag or branch of the repository; default: the newest, whose commit the log names.

    Raises
    ------
    InputError
        For a folder or repository that is not there, or files that are damaged.
    """
    if not is_repository(source):
        if revision is not None:
            remedy = "leave the revision out, or name a repository as owner/name"
            raise InputError(Problem(str(source), "", "a folder has no revisions", remedy))
        folder = Path(source)
        if not folder.is_dir():
            remedy = "correct the path; a repository of a hub is owner/name"
            raise InputError(Problem(str(folder), "", "no such folder", remedy))
    else:
        folder, _ = _fetched(str(source).removeprefix(_PREFIX), revision)
    verify(folder)
    return folder


def pull(source: Path | str, output: Path, revision: str | None = None) -> str:
    """Copy a network or decoder to a folder.

    Parameters
    ----------
    source, revision
        As those of `folder_of`.
    output : Path
        Folder to write; an earlier copy is replaced as a whole. ``source.json`` there says what it is.

    Returns
    -------
    str
        The commit of a repository, or the path of a folder.

    Raises
    ------
    InputError
        As `folder_of`, and for an output that holds something else.
    """
    check_replaced(output, (SOURCE, CHECKSUMS))
    if is_repository(source):
        repository = str(source).removeprefix(_PREFIX)
        folder, commit = _fetched(repository, revision)
        verify(folder)
        about = {"repository": repository, "revision": commit}
    else:
        folder = folder_of(source, revision)
        commit = str(folder)
        about = {"folder": str(folder.resolve())}
    with atomic_path(output) as temporary:
        _copy(folder, temporary)
        write_json(temporary / SOURCE, about)
    return commit


def push(folder: Path, target: Path | str, *, private: bool = True, revision: str | None = None) -> str:
    """Copy a network or decoder to another folder or to a repository, with checksums of all its files.

    Parameters
    ----------
    folder : Path
        Of a network (``results/models/upstream/<name>``) or a decoder (``boldly package``).
    target : Path or str
        A folder, in which an earlier copy is replaced as a whole, or ``owner/name`` of a repository, which is made
        if there is none.
    private : bool, default=True
        Whether a repository that is made is seen by its owner alone.
    revision : str, optional
        Branch of the repository; default: main.

    Returns
    -------
    str
        Path of the folder, or the commit of the repository.

    Raises
    ------
    InputError
        For a folder that is no model, a target that holds something else, or a hub that refuses.
    """
    missing = [name for name in ("config.json",) if not (folder / name).is_file()]
    if missing or not list(folder.rglob("*.safetensors")):
        message = "no network or decoder: config.json and weights (.safetensors) belong to it"
        raise InputError(Problem(str(folder), "", message, "give a folder of pretrain, import-weights or package"))
    if not is_repository(target):
        check_replaced(Path(target), (SOURCE, CHECKSUMS))
        with atomic_path(Path(target)) as temporary:
            _write_shared(folder, temporary)
        return str(target)
    repository = str(target).removeprefix(_PREFIX)
    # Beside the folder, not in it: the folder stays as it is.
    staged = folder.with_name(f".{folder.name}.push")
    # A push that was killed may have left it, with files that are no longer of the model.
    shutil.rmtree(staged, ignore_errors=True)
    try:
        _write_shared(folder, staged)
        with _Hub(repository):
            _api().create_repo(repository, private=private, exist_ok=True)
            done = _api().upload_folder(
                repo_id=repository, folder_path=staged, revision=revision, commit_message="boldly push"
            )
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    commit: str = done.oid
    return commit


def check_replaced(folder: Path, marks: Collection[str]) -> None:
    """Refuse to replace a folder that is no earlier copy: all that is in it would be lost.

    Parameters
    ----------
    folder : Path
        To write; it need not be there.
    marks : collection of str
        Names of what lies in a copy and nowhere else.

    Raises
    ------
    InputError
        With some of what the folder holds.
    """
    found = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    if found and not set(marks) & set(found):
        message = f"it holds {', '.join(found[:3])}: no copy of a network or decoder, and it would be replaced"
        raise InputError(Problem(str(folder), "", message, "name a folder that is not there yet"))


def verify(folder: Path) -> None:
    """Compare the files of a folder with the checksums that were written when it was shared, if any were.

    Raises
    ------
    InputError
        With every file that is missing or damaged.
    """
    if not (folder / CHECKSUMS).is_file():
        return
    problems = []
    for name, checksum in read_json(folder / CHECKSUMS).items():
        path = folder / name
        if not path.is_file() or file_sha256(path) != checksum:
            message = "not the file that was shared (checksum)" if path.is_file() else "missing"
            problems.append(Problem(str(path), "", message, "fetch it again: boldly pull"))
    if problems:
        raise InputError(problems)


def _write_shared(folder: Path, output: Path) -> None:
    _copy(folder, output)
    if not (output / "README.md").exists():
        (output / "README.md").write_text(_card(output), encoding="utf-8")
    files = sorted(path for path in output.rglob("*") if path.is_file() and path.name != CHECKSUMS)
    write_json(output / CHECKSUMS, {str(path.relative_to(output)): file_sha256(path) for path in files})


def _copy(folder: Path, output: Path) -> None:
    """Copy the files that are shared; links of a cache become files."""
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        inside_hidden = any(
            part.startswith(".") or part in ("checkpoints", "tensorboard") for part in relative.parts
        )
        if path.is_file() and not inside_hidden and _is_shared(path.name):
            (output / relative).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, output / relative)


def _is_shared(name: str) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in SHARED)


def _card(folder: Path) -> str:
    """Return a short card of a network, for a folder without one."""
    config = read_json(folder / "config.json")
    sizes = "\n".join(
        f"- {name}: {value}" for name, value in config.items() if isinstance(value, int | float | str)
    )
    head = "---\nlibrary_name: boldly\ntags: [fmri]\n---\n"
    use = 'from boldly import Network\n\nnetwork = Network.from_pretrained("owner/name", revision="...")'
    return f"{head}\n# Network of boldly\n\n{sizes}\n\n```python\n{use}\n```\n"


def _fetched(repository: str, revision: str | None) -> tuple[Path, str]:
    """Return the folder of a repository in the cache of the hub, and the commit."""
    with _Hub(repository):
        commit = _api().model_info(repository, revision=revision).sha
        if revision != commit:
            logger.info("%s: revision %s; name it to get the same files again", repository, commit)
        folder = Path(_api().snapshot_download(repository, revision=commit, allow_patterns=list(SHARED)))
    if not list(folder.rglob("*.safetensors")):
        message = "no weights as safetensors; pickles are not read"
        raise InputError(
            Problem(repository, "", message, "ask its owner for safetensors, or: boldly import-weights")
        )
    return folder, str(commit)


def _api() -> HfApi:
    try:
        from huggingface_hub import HfApi
    except ImportError:
        remedy = "pip install 'boldly[train]', or copy the folder"
        raise InputError(Problem("huggingface_hub", "", "not installed; a hub needs it", remedy)) from None
    # Read here: huggingface_hub itself reads the variable when it is imported.
    return HfApi(endpoint=os.environ.get("HF_ENDPOINT"))


class _Hub:
    """What goes wrong between here and a hub, in words."""

    def __init__(self, repository: str) -> None:
        self.repository = repository

    def __enter__(self) -> None:
        """Do nothing."""

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        # Libraries for HTTP change their names with their versions: httpx, httpx2.
        module = "" if kind is None else kind.__module__.partition(".")[0].rstrip("0123456789")
        if error is None or isinstance(error, InputError) or module not in _HUB_MODULES:
            return
        lines = str(error).strip().splitlines()
        remedy = (
            "check name, revision, network and login (hf auth login); HF_ENDPOINT names another hub; "
            "if a folder is meant, there is none of this name"
        )
        text = f"{kind.__name__}: {lines[0] if lines else 'no answer'}"
        raise InputError(Problem(self.repository, "", text, remedy)) from None


_HUB_MODULES = ("huggingface_hub", "httpx", "httpcore", "requests")
