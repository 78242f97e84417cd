"""Which files belong to which run: one walk over the derivatives, one over the raw data of the subjects found."""

from __future__ import annotations

import dataclasses
import logging
from collections import defaultdict
from collections.abc import Container, Iterable, Sequence
from pathlib import Path

from boldly import bids, hcp
from boldly.config import DatasetOptions, TaskOptions
from boldly.records import InputError, Problem

_OF_GRID = ("space", "cohort", "res")
_NO_AROMA = "no ICA-AROMA image (*_desc-smoothAROMAnonaggr_bold.nii.gz)"
_AROMA_REMEDY = (
    "run fMRIPrep 20.2 to 23.0 with --use-aroma (23.1 and newer no longer run it), or drop ica_aroma from "
    "preprocess.strategy"
)
# The version of fMRIPrep that resamples runs wrongly whose raw affine is sheared.
_SHEARS = "20.2.0"
_LOG = logging.getLogger(__name__)
_NO_EVENTS = "no events table"
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
class _Beside:
    """Files of a subject that may be about any of its images."""

    masks: list[Path] = dataclasses.field(default_factory=list)
    confounds: list[Path] = dataclasses.field(default_factory=list)
    events: list[Path] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class _Candidates:
    """Images of one run."""

    beside: _Beside
    images: list[Path] = dataclasses.field(default_factory=list)
    not_aroma: list[Path] = dataclasses.field(default_factory=list)


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
    if options.fmriprep is not None and not Path(options.fmriprep).is_dir():
        raise InputError(
            Problem(options.fmriprep, dataset, "no such folder", f"correct datasets.{dataset}.fmriprep")
        )
    wanted = None if options.subjects is None else {name.removeprefix("sub-") for name in options.subjects}
    chosen = [folder for folder in folders if wanted is None or folder.name.removeprefix("sub-") in wanted]
    candidates: dict[tuple[str, ...], _Candidates] = {}
    tasks: set[str] = set()
    for folder in chosen:
        paths = bids.functional_files(folder)
        if options.fmriprep is not None:
            paths += bids.functional_files(Path(options.fmriprep) / folder.name)
        tasks |= _collect(paths, options, candidates, aroma=aroma)
    candidates = _without_echoes(candidates)
    lacking = [files for files in candidates.values() if files.not_aroma and not files.images]
    candidates = {identity: files for identity, files in candidates.items() if files.images}
    if lacking and not candidates:
        raise InputError(Problem(str(derivatives), dataset, _NO_AROMA, _AROMA_REMEDY))
    if options.role == "downstream":
        events = events_tables(Path(str(options.bids)), dataset, {identity[0] for identity in candidates})
        for identity, files in candidates.items():
            files.beside.events = events[identity[0]]
    problems = _absent(dataset, options, candidates, tasks, derivatives)
    problems += _wrong_space(dataset, options, candidates, derivatives)
    if problems and not any(_in_space(files, options.space) for files in candidates.values()):
        raise InputError(problems)
    runs = [_resolve(dataset, options, files, candidates) for files in candidates.values()]
    if options.role == "downstream" and not any(events.values()):
        _doubt_folder(dataset, runs)
    if bids.fmriprep_version(derivatives) == _SHEARS:
        _add_sources(dataset, options, runs)
    runs += [_without_aroma(dataset, files.not_aroma[0]) for files in lacking]
    return sorted(runs, key=lambda run: run.key), problems


def _doubt_folder(dataset: str, runs: list[RunFiles]) -> None:
    """Ask, where nobody has events, whether the folder is the right one."""
    ask = f"is datasets.{dataset}.bids right? No run has one there; else "
    for run in runs:
        run.problems = [
            dataclasses.replace(one, remedy=ask + one.remedy) if one.message.startswith(_NO_EVENTS) else one
            for one in run.problems
        ]


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
    options: DatasetOptions,
    into: dict[tuple[str, ...], _Candidates],
    *,
    aroma: bool,
) -> set[str]:
    """Sort a subject's files into the runs; return all tasks that have an image."""
    seen = set()
    beside = _Beside()
    for path in paths:
        found = bids.entities(path.name)
        # Phase images stand beside the magnitude image that is meant.
        if found.get("part", "mag") != "mag":
            continue
        is_plain = _is_plain(path.name, options)
        is_image = bids.is_aroma_bold(path.name) if aroma else is_plain
        if is_image:
            seen.add(found.get("task", ""))
        if options.tasks is not None and found.get("task") not in options.tasks:
            continue
        if is_image or is_plain:
            files = into.setdefault(bids.run_identity(found), _Candidates(beside))
            (files.images if is_image else files.not_aroma).append(path)
        elif bids.is_brain_mask(path.name):
            beside.masks.append(path)
        elif bids.is_confounds_table(path.name):
            beside.confounds.append(path)
    return seen


def _is_plain(name: str, options: DatasetOptions) -> bool:
    """Tell whether a file is an image of the kind that the options name."""
    if options.image_suffix:
        return bids.is_cifti(name) == options.is_cifti and bids.is_denoised_bold(name, options.image_suffix)
    return bids.is_cifti_bold(name) if options.is_cifti else bids.is_preproc_bold(name)


def _without_echoes(candidates: dict[tuple[str, ...], _Candidates]) -> dict[tuple[str, ...], _Candidates]:
    """Leave out single echoes that stand beside the image that was combined from them."""
    place = list(bids.RUN_ENTITIES).index("echo")
    return {
        identity: files
        for identity, files in candidates.items()
        if not identity[place] or (*identity[:place], "", *identity[place + 1 :]) not in candidates
    }


def events_tables(raw: Path, dataset: str, subjects: Iterable[str]) -> dict[str, list[Path]]:
    """Return the events tables that may be about runs of each subject, from all levels of a BIDS folder.

    Raises
    ------
    InputError
        Without the folder.
    """
    if not raw.is_dir():
        message, remedy = "no such folder, so there are no events", f"correct datasets.{dataset}.bids"
        raise InputError(Problem(str(raw), dataset, message, remedy))
    of_all = [path for path in bids.files_in(raw) if bids.is_events_table(path.name)]
    return {
        subject: [
            *of_all,
            *(path for path in bids.inherited_files(raw, subject) if bids.is_events_table(path.name)),
        ]
        for subject in subjects
    }


def check_variants(dataset: str, runs: Sequence[RunFiles]) -> None:
    """Note single echoes of one recording as problems; warn of several reconstructions of one."""
    variants: dict[tuple[str, ...], list[RunFiles]] = defaultdict(list)
    for run in runs:
        one = {key: value for key, value in run.found.items() if key not in bids.OF_VARIANT}
        variants[bids.run_identity(one)].append(run)
    several = [found for found in variants.values() if len(found) > 1]
    for found in several:
        names = ", ".join(sorted({f"echo-{run.found['echo']}" for run in found if "echo" in run.found}))
        for run in found if "," in names else ():
            message = f"single echoes of one recording ({names}), and no image combined from them"
            remedy = (
                f"choose one with datasets.{dataset}.filters (echo: 2), or run fMRIPrep on all echoes together"
            )
            run.problems.append(Problem(str(run.image), run.key, message, remedy))
    if twice := [
        found for found in several if len({(r.found.get("rec"), r.found.get("part")) for r in found}) > 1
    ]:
        keys = " and ".join(run.key for run in twice[0])
        _LOG.warning(
            "%s: %d recordings are there in several reconstructions, and each is used as a run of its own: %s; "
            "choose with datasets.%s.filters (reconstruction: ...)",
            *(dataset, len(twice), keys, dataset),
        )


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
        end = options.image_suffix or ("_bold" if options.is_cifti else "_desc-preproc_bold")
        end += ".dtseries.nii" if options.is_cifti else ".nii.gz"
        message = f"no derivatives: not a single *{end} in sub-*/[ses-*/]func"
        remedy = f"correct datasets.{dataset}.derivatives"
        remedy += ", or run fMRIPrep with --cifti-output" if options.is_cifti else ""
        remedy += " or .image_suffix" if options.image_suffix else " (images of fMRIPrep 1.2 or newer are read)"
        problems.append(Problem(where, dataset, message, remedy))
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


def _resolve(
    dataset: str, options: DatasetOptions, files: _Candidates, others: Container[tuple[str, ...]]
) -> RunFiles:
    run = RunFiles(bids.entities(files.images[0].name), "")
    run.key = bids.run_key(dataset, run.found)
    run.image = _image(dataset, options, files, run)
    if run.image is None:
        return run
    run.found = bids.entities(run.image.name)
    masks = [p for p in files.beside.masks if all(_entity(p, e) == _entity(run.image, e) for e in _OF_GRID)]
    if not masks and bids.is_aroma_bold(run.image.name):
        # fMRIPrep leaves the resolution, always 2 mm, out of the names of these images, not of their masks.
        masks = [p for p in files.beside.masks if (_entity(p, "space"), _entity(p, "res")) == (options.space, "2")]
    run.mask = only(masks, run, "brain masks", others)
    run.confounds = only(files.beside.confounds, run, "confounds tables", others)
    if options.role == "downstream":
        n_problems = len(run.problems)
        run.events = only(files.beside.events, run, "events tables", others)
        is_rest = isinstance(options.task, TaskOptions) and options.task.is_rest(run.found.get("task", ""))
        if run.events is None and len(run.problems) == n_problems and not is_rest:
            folder = Path(str(options.bids)) / f"sub-{run.found['sub']}"
            run.problems.append(
                Problem(
                    str(folder),
                    run.key,
                    f"{_NO_EVENTS} ({bids.run_prefix(run.found)}_events.tsv)",
                    f"add it (there, or at the top for all subjects), leave the task out with "
                    f"datasets.{dataset}.tasks, {_EXCLUDE}",
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
    key = "den" if options.is_cifti else "res"
    resolutions = sorted({_entity(path, key) for path in in_space})
    found = ", ".join(repr(name) if name else f"'' (no {key} entity)" for name in resolutions)
    field = f"datasets.{dataset}.resolution"
    if options.resolution is None:
        if len(resolutions) > 1:
            problem(in_space[0].parent, f"images of several resolutions: {found}", f"set {field} to one of them")
            return None
        chosen = in_space
    else:
        chosen = [path for path in in_space if bids.is_same(key, _entity(path, key), options.resolution)]
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


def only(
    paths: Iterable[Path], run: RunFiles, what: str, others: Container[tuple[str, ...]] = frozenset()
) -> Path | None:
    """Return the file that is about the image; where several are equally so, none, and note it.

    A file with the very entities of another run (`others`: identities) is about that one, even where this run has
    the same and more: the table of `task-rest` is not that of `task-rest_run-2`.
    """
    own = bids.run_identity(run.found)
    identities = ((path, bids.identity_of(path.name)) for path in paths)
    free = [path for path, identity in identities if identity == own or identity not in others]
    best = bids.best_match(free, run.found)
    if len(best) > 1:
        names = ", ".join(path.name for path in best)
        run.problems.append(Problem(str(best[0]), run.key, f"several {what}: {names}", "remove all but one"))
    return best[0] if len(best) == 1 else None


def _entity(path: Path, key: str) -> str:
    return bids.entities(path.name).get(key, "")


def _spaces(images: Iterable[dict[str, str]]) -> str:
    return ", ".join(sorted({found.get("space", "native (no space entity)") for found in images})) or "none"
