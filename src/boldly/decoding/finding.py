"""The runs of a cohort that a decoder is applied to: those of a derivatives folder that stage index finds."""

from __future__ import annotations

import logging
import re
import tempfile
from collections.abc import Container, Sequence
from dataclasses import replace
from pathlib import Path

from boldly import bids, hcp
from boldly.config import DatasetOptions, DecodeOptions, IndexOptions
from boldly.decoding.decoder import Decoder
from boldly.decoding.folder import atlas_options
from boldly.decoding.preparation import Recipe
from boldly.files import read_tsv
from boldly.provenance import check_same
from boldly.records import InputError, Problem, Run, read_runs
from boldly.stages import index
from boldly.stages.index.survey import RunFiles, events_tables, only
from boldly.words import listed

logger = logging.getLogger(__name__)

# What runs are called in messages: decoded data have no name in a config.
DATASET = "new"
_MOST_LISTED = 5
# Ways out of index name options of a config; here they are options of the command line.
_OF_DATASET = re.compile(rf"datasets\.(?:{DATASET}|<name>)\.(\w+)(: whole_image)?")
_FLAGS = {
    "bids": "--events",
    "subjects": "--participant",
    "tasks": "--bids-task",
    "filters": "--filter",
    "exclude_runs": "--filter",
}
_OF_TASK = {
    "add them to the task's labels, or leave them out with drop, or map them with rename": (
        "leave them out, or map them to states of the decoder: drop and rename in a YAML file for --task"
    ),
    "the task's ": "in a YAML file for --task the option ",
    "(index.on_error: exclude)": "",
}
_OF_EXPERIMENT = re.compile(r"allow_mismatch: \[([^]]*)\] in the experiment")
_OTHER_REGRESSION = (
    "the decoder was trained with this regression: compute the confounds again, or change it with --preprocess "
    "and accept that with --allow-mismatch confounds"
)


def find_runs(
    decoder: Decoder, options: DecodeOptions, recipe: Recipe, *, is_part: bool = False
) -> tuple[list[Run], list[Problem]]:
    """Find the runs of a cohort with their files.

    Parameters
    ----------
    decoder, options, recipe : Decoder, DecodeOptions, Recipe
        What is decoded, and how.
    is_part : bool, default=False
        Whether these people are some of a cohort: that they have no run, or none of the tasks, is no problem then.

    Returns
    -------
    runs : list of Run
        Those that can be decoded, as far as their headers tell; with the path of their events, if there are any.
    problems : list of Problem
        What is wrong with the others.

    Raises
    ------
    InputError
        Where the cohort as a whole cannot be used.
    """
    space = options.space or decoder.contract.space
    contract = replace(recipe.contract_of(space, decoder.contract.images), t_r_s=decoder.contract.t_r_s)
    try:
        check_same(decoder.contract, contract, options.derivatives, decoder.about.name, decoder.allow_mismatch)
    except InputError as error:
        raise InputError([translated(problem) for problem in error.problems]) from None
    dataset = DatasetOptions(
        role="upstream",
        derivatives=options.derivatives,
        # Its sidecars say what those of the derivatives may not: repetition times, slice times.
        bids=options.events,
        layout=options.layout or decoder.about.layout,
        image_suffix=decoder.about.image_suffix,
        fmriprep=options.fmriprep,
        subjects=options.participants,
        tasks=options.tasks,
        filters=options.filters,
        space=space,
        resolution=options.resolution,
        without_mask=options.without_mask,
    )
    atlas = atlas_options(decoder.folder, decoder.about, decoder.image, decoder.cache / "atlas")
    with tempfile.TemporaryDirectory(prefix="boldly-") as temporary:
        runs, labels = Path(temporary, "runs.tsv"), Path(temporary, "labels.json")
        try:
            index.run(
                dataset=DATASET,
                dataset_options=dataset,
                options=IndexOptions(on_error="exclude", minimum_volumes=2),
                preprocess=recipe.preprocess,
                window_frames=2,
                atlas=atlas,
                runs=runs,
                labels=labels,
            )
        except InputError as error:
            found = [translated(problem) for problem in error.problems]
            # Runs that are defective one and all are still the fault of each.
            if found[0].message.startswith("not one of"):
                return [], found[1:] or found
            if is_part:
                logger.warning("nothing to decode: %s", "; ".join(problem.message for problem in found))
                return [], []
            raise InputError(found) from None
        records = read_runs(runs)
        problems = _read_problems(runs.with_name(f"{DATASET}_problems.tsv"))
    usable = [record for record in records if record.status == "ok"]
    problems += [
        Problem(record.bold, record.key, record.reason, "leave the run out")
        for record in records
        if record.status == "excluded"
    ]
    if options.events is not None:
        identities = {bids.run_identity(bids.run_entities(record)) for record in records}
        folder, is_hcp = Path(options.events), dataset.layout == "hcp"
        usable, several = with_events(usable, folder, is_hcp=is_hcp, identities=identities)
        problems += several
    return usable, problems


def with_events(
    records: Sequence[Run], folder: Path, *, is_hcp: bool, identities: Container[tuple[str, ...]] = frozenset()
) -> tuple[list[Run], list[Problem]]:
    """Find the events of runs: tables of a BIDS folder, of HCP also folders beside images.

    Parameters
    ----------
    records : sequence of Run
        Runs that can be decoded.
    folder : Path
        BIDS folder.
    is_hcp : bool
        Whether images lie as the Human Connectome Project distributes them.
    identities : container of tuple
        Of all runs of these people (`boldly.bids.run_identity`): a table named as one of them is that one's.

    Returns
    -------
    runs : list of Run
        Runs with the path of their events, or without any.
    problems : list of Problem
        Runs for which several tables are equally good; they are not among the runs.
    """
    try:
        tables = events_tables(folder, DATASET, {record.subject for record in records})
    except InputError as error:
        raise InputError([translated(problem) for problem in error.problems]) from None
    found, problems = [], []
    for record in records:
        run = RunFiles(bids.run_entities(record), record.key)
        events = only(tables[record.subject], run, "events tables", identities)
        beside = hcp.events_folder(Path(record.bold).parent)
        if is_hcp and events is None and beside.is_dir():
            events, run.problems = beside, []
        problems += run.problems
        if not run.problems:
            found.append(replace(record, events="" if events is None else str(events)))
    without = [record.key for record in found if not record.events]
    if without:
        message = "%d of %d runs have no events table in %s, so that sliding windows are decoded: %s"
        logger.warning(message, len(without), len(found), folder, listed(without, _MOST_LISTED))
    return found, problems


def translated(problem: Problem) -> Problem:
    """Put a way out into the terms of the command line."""
    remedy = _OF_DATASET.sub(
        lambda found: _FLAGS.get(found[1], f"--{found[1].replace('_', '-')}") + (found[2] or "").replace(":", ""),
        problem.remedy,
    )
    for words, others in _OF_TASK.items():
        remedy = remedy.replace(words, others)
    remedy = _OF_EXPERIMENT.sub(lambda found: f"--allow-mismatch {found[1].replace(', ', ' ')}", remedy)
    if "preprocess." in remedy:
        remedy = _OTHER_REGRESSION
    return replace(problem, remedy=remedy.strip())


def _read_problems(path: Path) -> list[Problem]:
    if not path.exists():
        return []
    rows = read_tsv(path, "all").fillna("").to_dict("records")
    return [
        translated(Problem(str(row["file"]), str(row["entity"]), str(row["message"]), str(row["way_out"])))
        for row in rows
    ]
