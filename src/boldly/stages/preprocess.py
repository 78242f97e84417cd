"""Stage preprocess: nuisance regressors and quality of the runs of a subject."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from boldly.config import ExclusionOptions, PreprocessOptions
from boldly.files import atomic_path, write_tsv
from boldly.records import InputError, Problem, Run, Status, read_runs
from boldly.signals import confounds
from boldly.signals.confounds import Nuisance

_LOG = logging.getLogger(__name__)
_DECIMALS = 6


@dataclass(frozen=True)
class Quality:
    """A row of the quality table.

    Attributes
    ----------
    key : str
        Run key.
    status : str
        "ok", "excluded" or "error".
    reason : str
        The rules that exclude it, with numbers, or what is wrong with it.
    mean_fd_mm, max_fd_mm, mean_std_dvars : float
        Over all frames that have a value; nan without the column.
    scrubbed_fraction : float
        Share of frames that are not kept, those before the steady state included.
    n_volumes, n_regressors : int
        Numbers of frames and regressors.
    degrees_of_freedom : int
        Kept frames less the rank of the regressors and a constant.
    """

    key: str
    status: Status
    reason: str
    mean_fd_mm: float
    max_fd_mm: float
    mean_std_dvars: float
    scrubbed_fraction: float
    n_volumes: int
    n_regressors: int
    degrees_of_freedom: int


def run(
    *,
    runs: Path,
    subject: str,
    options: PreprocessOptions,
    nuisance: Path,
    qc: Path,
    on_error: Literal["stop", "exclude"] = "stop",
) -> None:
    """Write the nuisance regressors and the quality table of a subject.

    Parameters
    ----------
    runs : Path
        Run table of the dataset.
    subject : str
        Label of the subject.
    options : PreprocessOptions
        Strategy and thresholds.
    nuisance : Path
        Output (`boldly.signals.confounds.read_nuisance`): frames and regressors of the runs that are not excluded.
    qc : Path
        Output: one row for each usable run of the run table.
    on_error : {"stop", "exclude"}
        What a defective run does: stop the stage, or get a row with status "error" and the reason.

    Raises
    ------
    InputError
        With every problem of the subject's confounds tables, unless `on_error` is "exclude".
    """
    records = read_runs(runs, subject=subject, usable=True)
    problems: list[Problem] = []
    rows: list[Quality] = []
    kept: dict[str, Nuisance] = {}
    for record in records:
        try:
            row, regressors = nuisance_of_run(record, options)
        except InputError as error:
            problems += error.problems
            rows.append(_defective(record, error.problems))
            continue
        rows.append(row)
        if row.status == "ok":
            kept[record.key] = regressors
        else:
            _LOG.warning("%s: excluded: %s", record.key, row.reason)
    if problems and on_error == "stop":
        raise InputError(problems)
    for problem in problems:
        _LOG.warning("excluded: %s", problem)
    # Both or none: half a result would look like a whole one.
    with atomic_path(nuisance) as first, atomic_path(qc) as second:
        confounds.write_nuisance(first, kept)
        _write_quality(second, rows)


def nuisance_of_run(record: Run, options: PreprocessOptions) -> tuple[Quality, Nuisance]:
    """Return the quality of a run and its nuisance regressors, with the framewise displacement.

    Parameters
    ----------
    record : Run
        The run.
    options : PreprocessOptions
        Strategy and thresholds.

    Raises
    ------
    InputError
        With what is wrong with its confounds table.
    """
    try:
        table, regressors = _read(record, options)
    except InputError as error:
        raise InputError([dataclasses.replace(problem, entity=record.key) for problem in error.problems]) from None
    row = quality(record.key, table, regressors, options.exclude)
    movement = _column(table, "framewise_displacement")
    return row, dataclasses.replace(regressors, displacement_mm=movement)


def quality(key: str, table: pd.DataFrame, regressors: Nuisance, exclude: ExclusionOptions) -> Quality:
    """Measure a run and apply the thresholds for whole runs.

    Parameters
    ----------
    key : str
        Run key.
    table : DataFrame
        Confounds table, one row per frame.
    regressors : Nuisance
        Kept frames and regressors.
    exclude : ExclusionOptions
        Thresholds; values above exclude, for degrees of freedom values below.
    """
    movement = _column(table, "framewise_displacement")
    values = {
        "mean_fd_mm": _finite_mean(movement),
        "max_fd_mm": float(np.nanmax(movement)) if np.isfinite(movement).any() else math.nan,
        "mean_std_dvars": _finite_mean(_column(table, "std_dvars")),
        "scrubbed_fraction": float(np.mean(~regressors.kept)),
    }
    freedom = regressors.degrees_of_freedom
    limits = [
        ("mean FD", values["mean_fd_mm"], exclude.mean_fd_mm, " mm"),
        ("largest FD", values["max_fd_mm"], exclude.maximum_fd_mm, " mm"),
        ("scrubbed fraction", values["scrubbed_fraction"], exclude.scrubbed_fraction, ""),
    ]
    reasons = [
        f"{name} {value:.3g}{unit} is over {limit:g}{unit}"
        for name, value, limit, unit in limits
        if limit is not None and value > limit
    ]
    if freedom < exclude.degrees_of_freedom:
        reasons.append(
            f"{freedom} degrees of freedom are left, fewer than {exclude.degrees_of_freedom} "
            f"({regressors.kept.sum()} of {len(regressors.kept)} frames kept, {len(regressors.names)} regressors)"
        )
    return Quality(
        key=key,
        status="excluded" if reasons else "ok",
        reason="; ".join(reasons),
        **{name: round(value, _DECIMALS) for name, value in values.items()},
        n_volumes=len(regressors.kept),
        n_regressors=len(regressors.names),
        degrees_of_freedom=freedom,
    )


def _defective(record: Run, problems: Sequence[Problem]) -> Quality:
    """Return the row of a run of which nothing can be measured."""
    reason = " ".join("; ".join(problem.message for problem in problems).split())
    unknown = math.nan
    return Quality(record.key, "error", reason, unknown, unknown, unknown, unknown, record.n_volumes, 0, 0)


def _read(record: Run, options: PreprocessOptions) -> tuple[pd.DataFrame, Nuisance]:
    if not record.confounds:
        if confounds.needs_table(options):
            message, remedy = "no confounds table", "run index again with these preprocess options"
            raise InputError(Problem(record.bold, record.key, message, remedy))
        table = pd.DataFrame(index=range(record.n_volumes))
        return table, confounds.nuisance(table, {}, options)
    table = confounds.read_confounds(record.confounds)
    if len(table) != record.n_volumes:
        message = f"the confounds table has {len(table)} rows, the image {record.n_volumes} volumes"
        remedy = "run fMRIPrep again on the run, or exclude it"
        raise InputError(Problem(record.confounds, record.key, message, remedy))
    meta = confounds.read_meta(record.confounds) if "compcor" in options.strategy else {}
    missing = confounds.missing_columns(
        table.columns, options, meta=meta, duration_s=record.n_volumes * record.t_r
    )
    if missing:
        where = (record.confounds, record.key)
        raise InputError(confounds.missing_problem(missing, table.columns, *where, options.strategy))
    regressors = confounds.nuisance(table, meta, options)
    _check_finite(record, regressors)
    _check_thresholds(record, table, regressors.kept, options)
    still = [
        name
        for name, spread in zip(regressors.names, np.ptp(regressors.regressors, axis=0), strict=True)
        if not spread
    ]
    if still and regressors.kept.any():
        _LOG.warning("%s: confounds that do not vary in time: %s", record.key, ", ".join(still))
    return table, regressors


def _check_finite(record: Run, regressors: Nuisance) -> None:
    wrong = ~np.isfinite(regressors.regressors)
    if wrong.any():
        frames = np.flatnonzero(wrong.any(axis=1))
        names = [name for name, bad in zip(regressors.names, wrong.any(axis=0), strict=True) if bad]
        message = f"no number in column {', '.join(names)} at {len(frames)} frames, the first {frames[0]}"
        remedy = (
            "run fMRIPrep again on the run, drop the columns' part from preprocess.strategy, or exclude the run"
        )
        raise InputError(Problem(record.confounds, record.key, message, remedy))


def _check_thresholds(record: Run, table: pd.DataFrame, kept: np.ndarray, options: PreprocessOptions) -> None:
    """Refuse a run of which a threshold cannot be applied: what is no number is over no threshold.

    The first frame has no displacement and no DVARS. A threshold for whole runs needs one frame that has a value.
    """
    problems = []
    for option, column in confounds.quality_columns(options).items():
        unknown = ~np.isfinite(_column(table, column))
        of_frames = unknown & kept & (np.arange(len(table)) > 0)
        wrong = np.flatnonzero(unknown & unknown.all() if option.startswith("exclude.") else of_frames)
        if len(wrong):
            message = f"no number in column {column}, which {option} needs, at {len(wrong)} frames"
            remedy = f"run fMRIPrep again on the run, set preprocess.{option} to null, or exclude the run"
            where = (record.confounds, record.key)
            problems.append(Problem(*where, f"{message}, the first {wrong[0]}", remedy))
    if problems:
        raise InputError(problems)


def _column(table: pd.DataFrame, name: str) -> np.ndarray:
    return table[name].to_numpy(np.float64) if name in table else np.full(len(table), np.nan)


def _finite_mean(values: np.ndarray) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else math.nan


def _write_quality(path: Path, rows: Sequence[Quality]) -> None:
    columns = [field.name for field in dataclasses.fields(Quality)]
    table = pd.DataFrame([dataclasses.astuple(row) for row in rows], columns=columns)
    table["reason"] = table["reason"].replace("", None)
    write_tsv(path, table)
