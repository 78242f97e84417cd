"""Which files belong to which run: one walk over the derivatives, one over the raw data of the subjects found."""

from __future__ import annotations

import dataclasses
import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from boldly import bids, hcp
from boldly.config import DatasetOptions, TaskOptions
from boldly.records import InputError, Problem

# Entities that name a product, not the recording it was made from.
_OF_PRODUCT = {"space", "cohort", "res", "den", "hemi", "desc", "label"}
_NO_AROMA = "no ICA-AROMA image (*_desc-smoothAROMAnonaggr_bold.nii.gz)"
_AROMA_REMEDY = (
    "run fMRIPrep 20.2 to 23.0 with --use-aroma (23.1 and newer no longer run it), or drop ica_aroma from "
    "preprocess.strategy"
)
# The version of fMRIPrep that resamples runs wrongly whose raw affine is sheared.
_SHEARS = "20.2.0"
_LOG = logging.getLogger(__name__)
_EXCLUDE = "or exclude the run (index.on_error: exclude)"


@dataclasses.dataclass
class RunFiles:
    """The files of one run.

    Attributes
    ----------
    found : dict of str to str
        BIDS entities, values as spelled in the image's name.
    key : str
        Run key.
    image, mask, confounds, events : Path or None
        None where there is none, or more than one.
    source : Path or None
        The raw image, where fMRIPrep 20.2.0 made the run and its mistakes have to be looked for there.
    problems : list of Problem
        What is wrong with them.
    """

    found: dict[str, str]
    key: str
    image: Path | None = None
    mask: Path | None = None
    confounds: Path | None = None
    events: Path | None = None
    source: Path | None = None
    problems: list[Problem] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class _Candidates:
    images: list[Path] = dataclasses.field(default_factory=list)
    not_aroma: list[Path] = dataclasses.field(default_factory=list)
    masks: list[Path] = dataclasses.field(default_factory=list)
    confounds: list[Path] = dataclasses.field(default_factory=list)
    events: list[Path] = dataclasses.field(default_factory=list)


def survey(dataset: str, options: DatasetOptions, *, aroma: bool = False) -> tuple[list[RunFiles], list[Problem]]:
    """Find the runs of a dataset and their files, with the images that ICA-AROMA cleaned where `aroma` says so.

    Returns
    -------
    runs : list of RunFiles
        One for each run with a preprocessed image in any space, sorted by key; runs of subjects and tasks that the
        options leave out are absent.
    problems : list of Problem
        What is wrong with the dataset as a whole: subjects and tasks that are asked for and absent.

    Raises
    ------
    InputError
        Without derivatives, raw data, or a single image in the space.
    """
    derivatives = Path(str(options.derivatives))
    folders = _subject_folders(derivatives, dataset)
    wanted = None if options.subjects is None else {name.removeprefix("sub-") for name in options.subjects}
    chosen = [folder for folder in folders if wanted is None or folder.name.removeprefix("sub-") in wanted]
    candidates: dict[tuple[str, ...], _Candidates] = defaultdict(_Candidates)
    tasks: set[str] = set()
    for folder in chosen:
        tasks |= _collect(bids.functional_files(folder), options.tasks, candidates, aroma=aroma)
    lacking = [files for files in candidates.values() if files.not_aroma and not files.images]
    candidates = {identity: files for identity, files in candidates.items() if files.images}
    if lacking and not candidates:
        raise InputError(Problem(str(derivatives), dataset, _NO_AROMA, _AROMA_REMEDY))
    if options.role == "downstream":
        _collect_events(Path(str(options.bids)), dataset, candidates)
    problems = _absent(dataset, options, candidates, tasks, derivatives)
    problems += _wrong_space(dataset, options, candidates, derivatives)
    if problems and not any(_in_space(files, options.space) for files in candidates.values()):
        raise InputError(problems)
    runs = [_resolve(dataset, options, files) for files in candidates.values()]
    if bids.fmriprep_version(derivatives) == _SHEARS:
        _add_sources(dataset, options, runs)
    runs += [_without_aroma(dataset, files.not_aroma[0]) for files in lacking]
    return sorted(runs, key=lambda run: run.key), problems


def _without_aroma(dataset: str, image: Path) -> RunFiles:
    found = bids.entities(image.name)
    key = bids.run_key(dataset, found)
    return RunFiles(
        found, key, problems=[Problem(str(image.parent), key, _NO_AROMA, f"{_AROMA_REMEDY}, {_EXCLUDE}")]
    )


def _add_sources(dataset: str, options: DatasetOptions, runs: list[RunFiles]) -> None:
    if options.bids is None:
        _LOG.warning(
            "%s: fMRIPrep %s shears runs whose raw affine is sheared; give datasets.%s.bids to find them",
            *(dataset, _SHEARS, dataset),
        )
        return
    for run in runs:
        run.source = bids.source_image(Path(options.bids), run.found)


def applies(found: dict[str, str], image: dict[str, str]) -> bool:
    """Tell whether a file with these entities is about an image: it has no entity that the image contradicts."""
    return all(_same(key, value, image.get(key, "")) for key, value in found.items())


def _subject_folders(derivatives: Path, dataset: str) -> list[Path]:
    field = f"datasets.{dataset}.derivatives"
    if not derivatives.is_dir():
        raise InputError(Problem(str(derivatives), dataset, "no such folder", f"correct {field}"))
    folders = bids.subject_folders(derivatives)
    if not folders:
        below = sorted({path.parent for pattern in ("*/sub-*", "*/*/sub-*") for path in derivatives.glob(pattern)})
        hint = f" (there are some in {', '.join(map(str, below[:5]))})" if below else ""
        remedy = f"correct {field}"
        if hcp.subject_folders(derivatives):
            hint, remedy = " but folders of HCP subjects", f"set datasets.{dataset}.layout to hcp"
        message = f"no derivatives: not a single sub-* folder{hint}"
        raise InputError(Problem(str(derivatives), dataset, message, remedy))
    return folders


def _collect(
    paths: Iterable[Path],
    tasks: Sequence[str] | None,
    into: dict[tuple[str, ...], _Candidates],
    *,
    aroma: bool,
) -> set[str]:
    """Sort a subject's files into the runs; return all tasks that have an image."""
    seen = set()
    for path in paths:
        found = bids.entities(path.name)
        # Single echoes and phase images stand beside the combined magnitude image that is meant.
        if "echo" in found or found.get("part", "mag") != "mag":
            continue
        is_plain = bids.is_preproc_bold(path.name)
        is_image = bids.is_aroma_bold(path.name) if aroma else is_plain
        if is_image:
            seen.add(found.get("task", ""))
        if tasks is not None and found.get("task") not in tasks:
            continue
        files = into[bids.run_identity(found)]
        if is_image:
            files.images.append(path)
        elif is_plain:
            files.not_aroma.append(path)
        elif bids.is_brain_mask(path.name):
            files.masks.append(path)
        elif bids.is_confounds_table(path.name):
            files.confounds.append(path)
    return seen


def _collect_events(raw: Path, dataset: str, candidates: dict[tuple[str, ...], _Candidates]) -> None:
    if not raw.is_dir():
        raise InputError(
            Problem(
                str(raw), dataset, "no such folder, so there are no events", f"correct datasets.{dataset}.bids"
            )
        )
    for subject in sorted({identity[0] for identity in candidates}):
        for path in bids.functional_files(raw / f"sub-{subject}"):
            if not bids.is_events_table(path.name):
                continue
            files = candidates.get(bids.run_identity(bids.entities(path.name)))
            if files is not None:
                files.events.append(path)


def _absent(
    dataset: str,
    options: DatasetOptions,
    candidates: dict[tuple[str, ...], _Candidates],
    tasks: set[str],
    derivatives: Path,
) -> list[Problem]:
    """Name the subjects and tasks that were asked for and have no image."""
    where, problems = str(derivatives), []
    there = {identity[0] for identity in candidates}
    for subject in sorted({name.removeprefix("sub-") for name in options.subjects or []} - there):
        problems.append(
            Problem(
                where,
                f"sub-{subject}",
                "asked for, but has no preprocessed BOLD image",
                f"correct datasets.{dataset}.subjects, or preprocess the subject",
            )
        )
    for task in sorted(set(options.tasks or []) - tasks):
        problems.append(
            Problem(
                where,
                f"task-{task}",
                f"asked for, but no image has it (found: {', '.join(sorted(tasks)) or 'none'})",
                f"correct datasets.{dataset}.tasks",
            )
        )
    if not candidates and not problems:
        problems.append(
            Problem(
                where,
                dataset,
                "no derivatives: not a single *_desc-preproc_bold.nii.gz in sub-*/[ses-*/]func",
                f"correct datasets.{dataset}.derivatives (images of fMRIPrep 1.2 or newer are read)",
            )
        )
    return problems


def _wrong_space(
    dataset: str, options: DatasetOptions, candidates: dict[tuple[str, ...], _Candidates], derivatives: Path
) -> list[Problem]:
    """Say once that no image at all is in the space, rather than for each run."""
    if not candidates or any(_in_space(files, options.space) for files in candidates.values()):
        return []
    found = _spaces([bids.entities(path.name) for files in candidates.values() for path in files.images])
    message = f"not a single image in space {options.space} (found: {found})"
    remedy = f"set datasets.{dataset}.space to one of these, or run fMRIPrep with --output-spaces {options.space}"
    return [Problem(str(derivatives), dataset, message, remedy)]


def _in_space(files: _Candidates, space: str) -> list[Path]:
    return [path for path in files.images if _entity(path, "space") == space]


def _resolve(dataset: str, options: DatasetOptions, files: _Candidates) -> RunFiles:
    run = RunFiles(bids.entities(files.images[0].name), "")
    run.key = bids.run_key(dataset, run.found)
    run.image = _image(dataset, options, files, run)
    if run.image is None:
        return run
    run.found = bids.entities(run.image.name)
    same_grid = [p for p in files.masks if all(_entity(p, e) == _entity(run.image, e) for e in ("space", "res"))]
    if not same_grid and bids.is_aroma_bold(run.image.name):
        # fMRIPrep leaves the resolution, always 2 mm, out of the names of these images, not of their masks.
        same_grid = [p for p in files.masks if (_entity(p, "space"), _entity(p, "res")) == (options.space, "2")]
    run.mask = _only(same_grid, run, "brain masks")
    run.confounds = _only(files.confounds, run, "confounds tables")
    if options.role == "downstream":
        run.events = _only(files.events, run, "events tables")
        is_rest = isinstance(options.task, TaskOptions) and options.task.is_rest(run.found.get("task", ""))
        if run.events is None and not files.events and not is_rest:
            folder = Path(str(options.bids)) / f"sub-{run.found['sub']}"
            run.problems.append(
                Problem(
                    str(folder),
                    run.key,
                    f"no events table ({bids.run_prefix(run.found)}_events.tsv)",
                    f"add it, or leave the task out with datasets.{dataset}.tasks, {_EXCLUDE}",
                )
            )
    return run


def _image(dataset: str, options: DatasetOptions, files: _Candidates, run: RunFiles) -> Path | None:
    """Return the run's image in the space and resolution wanted, or note why there is not exactly one."""

    def problem(where: Path, message: str, remedy: str) -> None:
        run.problems.append(Problem(str(where), run.key, message, remedy))

    in_space = _in_space(files, options.space)
    if not in_space:
        spaces = _spaces([bids.entities(path.name) for path in files.images])
        problem(
            files.images[0].parent,
            f"no image in space {options.space} (found: {spaces})",
            f"run fMRIPrep with --output-spaces {options.space}, {_EXCLUDE}",
        )
        return None
    resolutions = sorted({_entity(path, "res") for path in in_space})
    found = ", ".join(repr(name) if name else "'' (no res entity)" for name in resolutions)
    field = f"datasets.{dataset}.resolution"
    if options.resolution is None:
        if len(resolutions) > 1:
            problem(in_space[0].parent, f"images of several resolutions: {found}", f"set {field} to one of them")
            return None
        chosen = in_space
    else:
        chosen = [path for path in in_space if _same("res", _entity(path, "res"), options.resolution)]
        if not chosen:
            problem(
                in_space[0].parent,
                f"no image of resolution '{options.resolution}' (found: {found})",
                f"correct {field}",
            )
            return None
    if len(chosen) > 1:
        problem(
            chosen[0],
            f"several images of one run: {', '.join(path.name for path in chosen)}",
            "remove all but one, or give them different run entities",
        )
        return None
    return chosen[0]


def _only(paths: list[Path], run: RunFiles, what: str) -> Path | None:
    """Return the file that is about the image; of several the one with most of its entities, spelled alike."""
    shared = {key: value for key, value in run.found.items() if key not in _OF_PRODUCT}
    fitting = [(path, _of_recording(path)) for path in paths]
    fitting = [(path, found) for path, found in fitting if applies(found, shared)]
    # fMRIPrep 20.0 renamed *_regressors.tsv to *_timeseries.tsv; a folder may hold both after an update.
    ranks = {path: (len(found), found == shared, "_regressors" not in path.name) for path, found in fitting}
    best = [path for path, rank in ranks.items() if rank == max(ranks.values())]
    if len(best) > 1:
        names = ", ".join(path.name for path in best)
        run.problems.append(Problem(str(best[0]), run.key, f"several {what}: {names}", "remove all but one"))
    return best[0] if len(best) == 1 else None


def _of_recording(path: Path) -> dict[str, str]:
    return {key: value for key, value in bids.entities(path.name).items() if key not in _OF_PRODUCT}


def _same(key: str, one: str, other: str) -> bool:
    if key in ("run", "res") and one.isdigit() and other.isdigit():
        return int(one) == int(other)
    return one == other


def _entity(path: Path, key: str) -> str:
    return bids.entities(path.name).get(key, "")


def _spaces(images: Iterable[dict[str, str]]) -> str:
    return ", ".join(sorted({found.get("space", "native (no space entity)") for found in images})) or "none"
