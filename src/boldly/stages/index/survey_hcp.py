"""Which runs a folder of subjects of the Human Connectome Project has, and which files belong to them.

The layout is an option, not a guess, so that a mistyped folder is reported as what it was meant to be.
"""

from __future__ import annotations

import os
from pathlib import Path

from boldly import bids, hcp
from boldly.config import DatasetOptions, TaskOptions
from boldly.records import InputError, Problem
from boldly.stages.index.survey import RunFiles, events_tables, only

_EXCLUDE = "or exclude the run (index.on_error: exclude)"


def survey_hcp(dataset: str, options: DatasetOptions) -> tuple[list[RunFiles], list[Problem]]:
    """Find the runs of a dataset of layout hcp and their files.

    Events come from the runs' ``EVs``; with `options.bids` from the events tables there, which must have the
    entities of the run (``sub-100307_task-MOTOR_dir-LR_events.tsv``).

    Returns
    -------
    runs : list of RunFiles
        One for each run folder, sorted by key; runs of subjects and tasks that the options leave out are absent.
    problems : list of Problem
        What is wrong with the dataset as a whole: subjects and tasks that are asked for and absent.

    Raises
    ------
    InputError
        Without a single run.
    """
    root = Path(str(options.derivatives))
    folders = hcp.subject_folders(root)
    if not folders:
        message = "not a single <subject>/MNINonLinear/Results folder" if root.is_dir() else "no such folder"
        remedy = f"correct datasets.{dataset}.derivatives (the folder of the subjects' folders), or .layout"
        raise InputError(Problem(str(root), dataset, message, remedy))
    wanted = None if options.subjects is None else {hcp.subject_label(name) for name in options.subjects}
    chosen = [folder for folder in folders if wanted is None or hcp.subject_label(folder.name) in wanted]
    run_folders = [(run, hcp.entities(run)) for folder in chosen for run in hcp.run_folders(folder)]
    tasks = {found["task"] for _, found in run_folders}
    subjects = {found["sub"] for _, found in run_folders}
    problems = _absent(dataset, options, subjects, tasks)
    has_tables = options.bids is not None and options.role == "downstream"
    tables = events_tables(Path(str(options.bids)), dataset, subjects) if has_tables else None
    runs = [
        _files(run, found, dataset, options, tables)
        for run, found in run_folders
        if options.tasks is None or found["task"] in options.tasks
    ]
    if not runs:
        found_tasks = ", ".join(sorted(tasks)) or "none"
        remedy = f"correct datasets.{dataset}.subjects and .tasks"
        raise InputError(problems or Problem(str(root), dataset, f"no runs (tasks found: {found_tasks})", remedy))
    return sorted(runs, key=lambda run: run.key), problems


def _absent(dataset: str, options: DatasetOptions, subjects: set[str], tasks: set[str]) -> list[Problem]:
    """Name the subjects and tasks that were asked for and have no run."""
    where, field = str(options.derivatives), f"correct datasets.{dataset}"
    gone = [name for name in sorted(set(options.subjects or [])) if hcp.subject_label(name) not in subjects]
    problems = [Problem(where, name, "asked for, but has no runs", f"{field}.subjects") for name in gone]
    found = ", ".join(sorted(tasks)) or "none"
    return problems + [
        Problem(where, f"task-{task}", f"asked for, but no run has it (found: {found})", f"{field}.tasks")
        for task in sorted(set(options.tasks or []) - tasks)
    ]


def _files(
    folder: Path,
    found: dict[str, str],
    dataset: str,
    options: DatasetOptions,
    tables: dict[str, list[Path]] | None,
) -> RunFiles:
    run = RunFiles(found, bids.run_key(dataset, found))
    image = hcp.image(folder, options.image_suffix, cifti=options.is_cifti)
    if not os.path.lexists(image):
        ending = "*.dtseries.nii" if options.is_cifti else "*.nii.gz"
        images = ", ".join(path.name for path in sorted(folder.glob(f"{folder.name}{ending}"))) or "none"
        message = f"no image {image.name} (found: {images})"
        remedy = f"download it, set datasets.{dataset}.image_suffix, {_EXCLUDE}"
        run.problems.append(Problem(str(folder), run.key, message, remedy))
        return run
    run.image = image
    run.mask = None if options.is_cifti else hcp.brain_mask(folder)
    movement = hcp.movement(folder)
    run.confounds = movement if os.path.lexists(movement) else None
    is_rest = isinstance(options.task, TaskOptions) and options.task.is_rest(found["task"])
    if options.role == "downstream" and not is_rest:
        run.events = _events(folder, run, dataset, tables)
    return run


def _events(folder: Path, run: RunFiles, dataset: str, tables: dict[str, list[Path]] | None) -> Path | None:
    """Return where the events of a run are, or note why there is not exactly one place."""

    def problem(where: Path, message: str) -> None:
        ways = f"add it, leave the task out with datasets.{dataset}.tasks, give the task's rest for rest runs"
        run.problems.append(Problem(str(where), run.key, message, f"{ways}, {_EXCLUDE}"))

    if tables is None:
        events = hcp.events_folder(folder)
        if events.is_dir():
            return events
        problem(events, "no folder of events")
        return None
    found = only(tables[run.found["sub"]], run, "events tables")
    if found is None and not run.problems:
        problem(folder, f"no events table ({bids.run_prefix(run.found)}_events.tsv)")
    return found
