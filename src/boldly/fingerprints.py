"""Fingerprints of input files, by which a rerun notices what was changed: names, sizes and times, no content."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path, PurePosixPath

from boldly import bids, hcp
from boldly.config import DatasetOptions

# What index reads in folders of BIDS and of fMRIPrep: a figure or a surface beside them changes nothing.
_TEXTS = (
    *("bold.json", "bold.dtseries.json"),  # at the top of a dataset it may have no entity
    *("_events.tsv", "_events.csv", "_outliers.tsv", "dataset_description.json"),
)
_CONFOUNDS = "desc-confounds_"
_IMAGES = ("_bold.nii.gz", "_bold.nii", "_bold.dtseries.nii", "_mask.nii.gz", "_mask.nii")
_HCP_READ = (".nii.gz", ".dtseries.nii", hcp.MOVEMENT)


def of_dataset(dataset: str, options: DatasetOptions) -> str:
    """Return a checksum of all files that index reads of a dataset; it does not open a single one.

    Parameters
    ----------
    dataset : str
        Name, which that of ready-made shards begins with.
    options : DatasetOptions
        `derivatives`, `fmriprep`, `bids`, `layout`, `space` and `shards` are used. Of shards at a web address
        nothing is looked at.

    Returns
    -------
    str
        16 hexadecimal digits, of names, sizes and times of change, through links. Files may come, go or change.
    """
    if options.derivatives is None:
        return _checksum(() if options.is_remote else _ready_shards(Path(str(options.shards)), dataset))
    derivatives = Path(options.derivatives)
    if options.layout == "hcp":
        listed = _hcp_files(derivatives)
    else:
        listed = _bids_files(derivatives, f"_space-{options.space}_")
    if options.fmriprep is not None:
        listed = chain(listed, _bids_files(Path(options.fmriprep), f"_space-{options.space}_"))
    raw = _bids_files(Path(options.bids), None) if options.bids else ()
    return _checksum([*listed, *raw])


def of_subject(
    subject: str,
    *,
    derivatives: str,
    fmriprep: str | None = None,
    raw: str | None = None,
    space: str,
    layout: str = "fmriprep",
) -> str:
    """Return the same for one subject: its files, and those that all subjects share.

    Parameters
    ----------
    subject : str
        Label, without ``sub-``; of HCP the letters and digits of the folder's name (`boldly.hcp.subject_label`).
    derivatives, fmriprep, raw : str, optional
        Folders: of images, of masks and confounds where these lie elsewhere, and of BIDS with events.
    space : str
        The ``space`` entity of the images.
    layout : str
        How `derivatives` are laid out: ``fmriprep`` or ``hcp``.
    """
    of_space = f"_space-{space}_"
    listed: list[object] = []
    if layout == "hcp":
        folders = _hcp_folders_by_label(Path(derivatives)).get(subject, ())
        listed += (item for folder in folders for item in _hcp_subject_files(folder))
    roots = [(derivatives if layout != "hcp" else None, of_space), (fmriprep, of_space), (raw, None)]
    for root, images in roots:
        if root is not None:
            folder = Path(root)
            listed += (*_read_in(folder, images), *_subject_files(folder / f"sub-{subject}", images))
    return _checksum(listed)


def is_read(options: DatasetOptions, folder: str, path: str) -> bool:
    """Tell by its path whether boldly reads a file of a dataset.

    Parameters
    ----------
    options : DatasetOptions
        `layout`, `space`, `image_suffix`, `subjects` and `tasks` are used.
    folder : str
        Which of the dataset's folders the file is in: ``derivatives``, ``fmriprep`` or ``bids``.
    path : str
        Of the file below this folder, with slashes.
    """
    file = PurePosixPath(path)
    if options.layout == "hcp" and folder == "derivatives":
        return _is_read_of_hcp(options, file)
    folders, name = file.parts[:-1], file.name
    if not all(part.startswith(("sub-", "ses-")) or part == "func" for part in folders):
        return False
    is_chosen = _is_chosen(options, folders[0].removeprefix("sub-") if folders else "", bids.entities(name))
    if name.endswith(_TEXTS) or _CONFOUNDS in name or (not folders and name == "participants.tsv"):
        return is_chosen
    is_image = folder != "bids" and name.endswith(_IMAGES) and f"_space-{options.space}_" in name
    return is_chosen and is_image


def _is_read_of_hcp(options: DatasetOptions, file: PurePosixPath) -> bool:
    subject, *middle = file.parts[:-1] or ("",)
    if middle[:2] != ["MNINonLinear", "Results"]:
        return middle == ["MNINonLinear"] and hcp.is_brain_mask(file.name) and _is_chosen(options, subject, {})
    run = Path(*file.parts[:4])
    if len(file.parts) < 5 or not hcp.is_run(run.name) or not _is_chosen(options, subject, hcp.entities(run)):
        return False
    if middle[3:]:
        return middle[3:] == [hcp.events_folder(run).name]
    image = hcp.image(run, options.image_suffix, cifti=options.is_cifti)
    return file.name == image.name or hcp.is_brain_mask(file.name) or hcp.is_movement(Path(file.name))


def _is_chosen(options: DatasetOptions, subject: str, entities: dict[str, str]) -> bool:
    """Tell whether a file is of subjects and tasks that the options name; one of all of them is."""
    wanted = options.subjects is None or not subject or subject in options.subjects
    return wanted and (options.tasks is None or entities.get("task", options.tasks[0]) in options.tasks)


def of_files(paths: Iterable[Path | str]) -> str:
    """Return a checksum of names, sizes and times of change of files, as 16 hexadecimal digits."""
    return _checksum((str(path), _state(path)) for path in paths)


def _checksum(items: Iterable[object]) -> str:
    digest = hashlib.sha256()
    for item in items:
        digest.update(repr(item).encode())
    return digest.hexdigest()[:16]


def _state(path: Path | str | os.DirEntry[str]) -> tuple[int, int] | None:
    """Return size and time of change (ns) of a file, of the one that a link names; None where there is none."""
    try:
        found = path.stat() if isinstance(path, os.DirEntry) else os.stat(path)
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def _ready_shards(folder: Path, dataset: str) -> Iterator[object]:
    for entry in _entries(folder):
        is_shard = entry.name.startswith(f"ds-{dataset}_sub-") and entry.name.endswith(".tar")
        if is_shard or entry.name == "labels.json":
            yield entry.name, _state(entry)


def _bids_files(root: Path, space: str | None) -> Iterator[object]:
    """Yield the files that are read at each level of a BIDS folder, with images where a space is named."""
    yield from _read_in(root, space)
    for subject in bids.subject_folders(root):
        yield from _subject_files(subject, space)


def _subject_files(subject: Path, space: str | None) -> Iterator[object]:
    for folder in (subject, *sorted(subject.glob("ses-*"))):
        yield from _read_in(folder, space)
        yield from _read_in(folder / "func", space)


def _read_in(folder: Path, space: str | None) -> Iterator[object]:
    for entry in _entries(folder):
        name = entry.name
        if name.endswith(_TEXTS) or _CONFOUNDS in name:
            yield str(folder), name, _state(entry)
        elif space is not None and name.endswith(_IMAGES):
            # Of images in other spaces the names are told when a run has none in this one.
            yield str(folder), name, _state(entry) if space in name else None


def _hcp_files(root: Path) -> Iterator[object]:
    for subject in hcp.subject_folders(root):
        yield from _hcp_subject_files(subject)


@functools.lru_cache(maxsize=8)
def _hcp_folders_by_label(root: Path) -> dict[str, list[Path]]:
    """Return the folders of each subject; looked up once, for each of a thousand subjects asks."""
    found: dict[str, list[Path]] = {}
    for folder in hcp.subject_folders(root):
        found.setdefault(hcp.subject_label(folder.name), []).append(folder)
    return found


def _hcp_subject_files(subject: Path) -> Iterator[object]:
    for folder in (subject / "MNINonLinear", *hcp.run_folders(subject)):
        read = [entry for entry in _entries(folder) if entry.name.endswith(_HCP_READ)]
        for entry in (*read, *_entries(hcp.events_folder(folder))):
            yield str(folder), entry.name, _state(entry)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """Return what is in a folder, by name; nothing where there is no such folder."""
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: entry.name)
    except OSError:
        return []
