"""simulate: a study of made-up brains, laid out as BIDS and fMRIPrep derivatives, to try the workflow offline.

Inputs: none. Output: a folder with an atlas, three upstream and two downstream datasets, the best accuracies that
decoders of the downstream datasets can reach, and a README that tells how it was made.
"""

from __future__ import annotations

import logging
import multiprocessing
import shutil
import time
from collections.abc import Iterable
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits
from tqdm import tqdm

import boldly
from boldly import bids
from boldly.files import atomic_path, read_json, write_json, write_tsv
from boldly.records import InputError, Problem
from boldly.simulation import anatomy as brain_of_all
from boldly.simulation import corpus, study
from boldly.simulation.account import account
from boldly.simulation.ceilings import Decoder, observed_correct
from boldly.simulation.confounds import confounds_table
from boldly.simulation.files import write_nifti
from boldly.simulation.study import DATASETS, DatasetPlan, RunPlan, Size
from boldly.simulation.tree import Tree, write_config
from boldly.simulation.truth import true_maps

logger = logging.getLogger(__name__)

SPACE = "MNI152NLin2009cAsym"
ATLAS = "atlas/atlas-demo_probseg.nii.gz"
CEILINGS = "ceilings.tsv"
TRUTH = "truth.tsv"
# Written last: a folder without it holds no complete study.
STUDY = "study.json"
_UNFINISHED = ".unfinished"

# Stored numbers are multiples of this: finer than the noise, coarse enough to compress.
_INT16_STEP = 8.0
_FLOAT32_STEP = 2.0
_BIDS_VERSION = "1.8.0"
_LAYOUT = "simulated, not fMRIPrep's output; laid out as that of fMRIPrep 23.2"
_CEILING_SUBJECTS: dict[Size, int] = {"demo": 500, "tiny": 60, "events": 0}
_CEILING_TRIALS = 20


def run(output: Path, *, size: Size = "demo", seed: int = 1234, workers: int = 2) -> None:
    """Write the demo study.

    The same size, seed and version of boldly give the same bytes, whatever the number of workers. A folder that
    already holds this study is left as it is; an unfinished or other study of this tool is replaced.

    Parameters
    ----------
    output : Path
        Folder of the study.
    size : {"demo", "tiny", "events"}, default="demo"
        ``demo`` has enough subjects and trials to compare decoders; ``tiny`` has the same structure for tests;
        ``events`` is another study: one dataset of brief events, with slice timing and families, without ceilings.
    seed : int, default=1234
        Seed of subjects, trials and noise. Networks, states, anatomy and atlas are the same for all seeds.
    workers : int, default=2
        Number of processes.

    Raises
    ------
    InputError
        When the folder has files of the same names that this tool did not write, or a number is out of range.
    """
    output = Path(output)
    _check(seed, workers)
    settings = {"study": "boldly demo", "size": size, "seed": seed, "version": boldly.__version__}
    if _finished(output) == settings:
        if size != "events" and not (output / TRUTH).exists():
            # A study from before there was this table.
            _write_truth(output)
        logger.info("%s already holds this study (size %s, seed %d)", output, size, seed)
        return
    _clear(output)
    started = time.monotonic()
    output.mkdir(parents=True, exist_ok=True)
    (output / _UNFINISHED).touch()
    _write_atlas(output)
    if size != "events":
        _write_truth(output)
    for dataset in study.datasets(size):
        _write_dataset_files(output, dataset, size)
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), threadpool_limits, (1,)) as pool:
        try:
            _write_with(pool, output, size, seed)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    with atomic_path(output / "README.md") as temporary:
        temporary.write_text(account(size, seed, boldly.__version__), encoding="utf-8")
    write_json(output / STUDY, settings)
    (output / _UNFINISHED).unlink()
    logger.info("wrote %s (size %s, seed %d) in %.0f s", output, size, seed, time.monotonic() - started)


def run_headers(output: Path, *, subjects: int = corpus.SUBJECTS) -> None:
    """Write a tree of the preprint's size to try index and job graph on: real names, sidecars and tables, no data.

    34 datasets and by default 1,726 subjects with 11,980 runs: sessions or none, run numbers padded, plain or
    absent, several spaces and resolutions, CIFTI, surface and AROMA files beside, and some defective runs (empty,
    cut, links to absent files, no image in the space). ``config.yaml`` is the config; images are zeros; files of
    the same content are hard links, so that editing one edits all.

    Parameters
    ----------
    output : Path
        Folder of the tree.
    subjects : int, default=1726
        Number of subjects, runs in proportion.

    Raises
    ------
    InputError
        When the folder holds anything else, or subjects are fewer than datasets.
    """
    output = Path(output)
    settings = {"study": "boldly headers", "subjects": subjects, "version": boldly.__version__}
    if _finished(output) == settings:
        logger.info("%s already holds this tree (%d subjects)", output, subjects)
        return
    if subjects < corpus.N_DATASETS:
        message = f"{subjects} subjects for {corpus.N_DATASETS} datasets"
        raise InputError(Problem("--subjects", "simulate", message, f"give {corpus.N_DATASETS} or more"))
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise InputError(Problem(str(output), "simulate", "it holds other files", "choose another with --output"))
    started = time.monotonic()
    tree, datasets = Tree(output), corpus.plan(subjects)
    _write_atlas(output)
    for dataset in tqdm(datasets, desc="simulate", unit="dataset", disable=None):
        tree.write_dataset(dataset)
    write_config(output / "config.yaml", datasets, ATLAS)
    write_json(output / STUDY, settings)
    runs = sum(sum(dataset.runs.values()) for dataset in datasets)
    logger.info("wrote %s (%d runs) in %.0f s", output, runs, time.monotonic() - started)
    logger.info("next: snakemake --directory %s --configfile %s/config.yaml --cores 2 index", output, output)


def _check(seed: int, workers: int) -> None:
    problems = []
    if seed < 0:
        problems.append(Problem("--seed", "simulate", f"{seed} is negative", "give 0 or a positive number"))
    if workers < 1:
        problems.append(Problem("--workers", "simulate", f"{workers} processes", "give 1 or more"))
    if problems:
        raise InputError(problems)


def _finished(output: Path) -> Any:
    try:
        return read_json(output / STUDY)
    except (OSError, ValueError):
        return None


def _clear(output: Path) -> None:
    """Remove what an earlier call has written, and nothing else."""
    names = [dataset.name for dataset in (*DATASETS, study.EVENT_RELATED)] + [
        "atlas",
        "README.md",
        CEILINGS,
        TRUTH,
        STUDY,
    ]
    present = [output / name for name in names if (output / name).exists()]
    if (output / STUDY).is_file() or (output / _UNFINISHED).is_file():
        for path in present:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        return
    # Empty folders are no one's work: Snakemake makes those of its outputs beforehand.
    foreign = [path for path in present if path.is_file() or any(p.is_file() for p in path.rglob("*"))]
    if foreign or (output.exists() and not output.is_dir()):
        message = "it holds files that are no demo study: " + ", ".join(path.name for path in foreign or [output])
        raise InputError(Problem(str(output), "simulate", message, "choose another folder with --output"))


def _write_with(pool: ProcessPoolExecutor, output: Path, size: Size, seed: int) -> None:
    """Let the processes write all subjects and compute the ceilings; write the ceilings' table."""
    ceilings: list[Future[tuple[str, Decoder, int, int]]] = [
        pool.submit(_ceiling, dataset.name, decoder, size, seed)
        for dataset in study.datasets(size)
        if dataset.states and size != "events"
        for decoder in ("any", "mean_signal")
    ]
    subjects = [
        pool.submit(_write_subject, output, dataset.name, number, size, seed)
        for dataset in study.datasets(size)
        for number in range(1, dataset.subjects[size] + 1)
    ]
    for done in tqdm(as_completed(subjects), total=len(subjects), desc="simulate", unit="subject"):
        done.result()
    if ceilings:
        write_tsv(output / CEILINGS, _ceilings_table([ceiling.result() for ceiling in ceilings]))


def _ceiling(dataset_name: str, decoder: Decoder, size: Size, seed: int) -> tuple[str, Decoder, int, int]:
    """Count what an ideal observer of a dataset names correctly, and of how many trials."""
    dataset = _dataset(dataset_name)
    correct, total = observed_correct(
        decoder,
        list(dataset.states.values()),
        study.TRIAL_DURATIONS_S,
        dataset.t_r,
        n_subjects=_CEILING_SUBJECTS[size],
        n_trials=_CEILING_TRIALS,
        seed=seed,
    )
    return dataset_name, decoder, correct, total


def _ceilings_table(counts: Iterable[tuple[str, Decoder, int, int]]) -> pd.DataFrame:
    """Turn counts into accuracies with 95 % intervals."""
    # Its import takes longer than a tiny subject; the workers do without.
    from boldly.intervals import wilson

    rows = []
    for name, decoder, correct, total in counts:
        n_labels = len(_dataset(name).states)
        low, high = wilson(correct / total, total, 0.95)
        numbers = {"chance": 1 / n_labels, "accuracy": correct / total, "ci_low": low, "ci_high": high}
        rounded = {column: round(number, 4) for column, number in numbers.items()}
        rows.append({"dataset": name, "decoder": decoder, "n_labels": n_labels, **rounded, "n_trials": total})
    return pd.DataFrame(rows)


def _dataset(name: str) -> DatasetPlan:
    return next(dataset for dataset in (*DATASETS, study.EVENT_RELATED) if dataset.name == name)


def _derivatives(output: Path, dataset: DatasetPlan) -> Path:
    return output / dataset.name / "derivatives" / "fmriprep"


def _write_atlas(output: Path) -> None:
    anatomy = brain_of_all.anatomy()
    image = np.zeros((*anatomy.brain.shape, anatomy.maps.shape[1]), dtype=np.float32, order="F")
    image[anatomy.brain] = anatomy.maps
    write_nifti(output / ATLAS, image)
    names = brain_of_all.parcel_names()
    rows = [{"index": k, "name": name, "network": network} for k, (name, network) in enumerate(names, start=1)]
    write_tsv(output / ATLAS.replace(".nii.gz", ".tsv"), pd.DataFrame(rows))


def _write_truth(output: Path) -> None:
    """Write how the parcels respond to the labelled states."""
    tables = [
        true_maps(dataset.states, study.TRIAL_DURATIONS_S).assign(dataset=dataset.name)
        for dataset in DATASETS
        if dataset.states
    ]
    table = pd.concat(tables, ignore_index=True).round(6)
    write_tsv(output / TRUTH, table[["dataset", *(name for name in table if name != "dataset")]])


def _write_dataset_files(output: Path, dataset: DatasetPlan, size: Size) -> None:
    """Write what BIDS wants at the top of a dataset and of its derivatives."""
    title = f"boldly {dataset.name}: simulated, no brain data; {dataset.about}"
    made_by = [{"Name": "boldly simulate", "Version": boldly.__version__, "Description": _LAYOUT}]
    about = {"BIDSVersion": _BIDS_VERSION, "License": "CC0", "GeneratedBy": made_by}
    raw = output / dataset.name
    write_json(raw / "dataset_description.json", {"Name": title, "DatasetType": "raw", **about})
    write_json(
        _derivatives(output, dataset) / "dataset_description.json",
        {"Name": title, "DatasetType": "derivative", **about},
    )
    subjects = [f"sub-{number:02d}" for number in range(1, dataset.subjects[size] + 1)]
    people = pd.DataFrame({"participant_id": subjects})
    if dataset.family_size:
        people["family"] = [f"F{number // dataset.family_size + 1}" for number in range(len(subjects))]
    write_tsv(raw / "participants.tsv", people)
    with atomic_path(raw / "README") as temporary:
        temporary.write_text(
            f"{title}.\n\nIt has no raw images; the preprocessed ones are in derivatives/fmriprep.\n"
            "How the study was made is told in the README.md of the folder above.\n",
            encoding="utf-8",
        )


def _write_subject(output: Path, dataset_name: str, subject: int, size: Size, seed: int) -> None:
    """Write all files of a subject."""
    dataset = _dataset(dataset_name)
    for number, plan in enumerate(study.plan_subject(dataset, subject, size, seed)):
        found = {
            "sub": f"{subject:02d}",
            "ses": plan.session,
            "task": plan.task,
            "dir": plan.direction,
            "run": plan.run,
        }
        folders = [f"sub-{subject:02d}", *([f"ses-{plan.session}"] if plan.session else []), "func"]
        prefix = "/".join([*folders, bids.run_prefix(found)])
        _write_raw(output / dataset.name, prefix, dataset, plan)
        _write_derivatives(_derivatives(output, dataset), prefix, dataset, plan, subject, number, seed)


def _write_raw(folder: Path, prefix: str, dataset: DatasetPlan, plan: RunPlan) -> None:
    write_json(folder / f"{prefix}_bold.json", {"RepetitionTime": dataset.t_r, "TaskName": plan.task})
    if dataset.event_column:
        rows = [{"onset": e.onset, "duration": e.duration, dataset.event_column: e.name} for e in plan.events]
        write_tsv(folder / f"{prefix}_events.tsv", pd.DataFrame(rows))


def _write_derivatives(
    folder: Path, prefix: str, dataset: DatasetPlan, plan: RunPlan, subject: int, number: int, seed: int
) -> None:
    """Write image, mask and confounds of a run; the confounds are computed from the numbers that are stored."""
    scan = study.scan_run(dataset, subject, number, plan, seed)
    brain = brain_of_all.anatomy().brain
    step = _INT16_STEP if dataset.dtype == "int16" else _FLOAT32_STEP
    counts = np.rint(scan.bold / np.float32(step))
    bold = counts * np.float32(step)
    stored = counts if dataset.dtype == "int16" else bold
    image = np.zeros((*brain.shape, plan.n_volumes), dtype=dataset.dtype, order="F")
    image[brain] = stored.T
    in_space = f"{prefix}_space-{SPACE}"
    slope = step if dataset.dtype == "int16" else None
    write_nifti(folder / f"{in_space}_desc-preproc_bold.nii.gz", image, t_r=dataset.t_r, slope=slope)
    sidecar = {
        "RepetitionTime": dataset.t_r,
        "SkullStripped": True,
        "SliceTimingCorrected": dataset.start_time > 0,
        "TaskName": plan.task,
    }
    if dataset.start_time:
        sidecar["StartTime"] = dataset.start_time
    write_json(folder / f"{in_space}_desc-preproc_bold.json", sidecar)
    write_nifti(folder / f"{in_space}_desc-brain_mask.nii.gz", brain.astype(np.uint8))
    columns, metadata = confounds_table(bold, scan.motion, dataset.t_r)
    # More digits than the images' precision would only make the tables larger.
    table = pd.DataFrame({name: np.char.mod("%.7g", column) for name, column in columns.items()})
    write_tsv(folder / f"{prefix}_desc-confounds_timeseries.tsv", table.replace("nan", None))
    write_json(folder / f"{prefix}_desc-confounds_timeseries.json", metadata)
