"""Stage parcellate: from BOLD images to cleaned time series of parcels and their quality, per subject."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from boldly import bids
from boldly.config import (
    AtlasOptions,
    ParcellateOptions,
    PreprocessOptions,
    SignalExclusionOptions,
    with_one_high_pass,
)
from boldly.files import atomic_path, write_tsv
from boldly.provenance import Contract
from boldly.records import InputError, Problem, Run, read_runs, read_table
from boldly.samples.timeseries import RunSeries, write_timeseries
from boldly.signals.atlas import Atlas, load_parcels
from boldly.signals.cleaning import Cleaned, CleaningError, clean
from boldly.signals.confounds import read_nuisance
from boldly.signals.grayordinates import Parcellation, open_series
from boldly.signals.headers import HeaderError
from boldly.signals.images import Extracted, open_volumes, read_mask
from boldly.signals.projection import Projection, load_projection
from boldly.words import listed

logger = logging.getLogger(__name__)
_DECIMALS = 4


def run(
    *,
    runs: Path,
    subject: str,
    nuisance: Path,
    qc: Path,
    atlas: AtlasOptions,
    options: ParcellateOptions,
    preprocess: PreprocessOptions,
    cache: Path,
    output: Path,
    quality: Path,
    on_error: Literal["stop", "exclude"] = "stop",
) -> None:
    """Extract and clean the parcels' signals of all usable runs of a subject.

    Per run: read the image in blocks, smooth and extract in one product (`boldly.signals.projection`), from voxels
    inside the run's brain mask (`options.mask`), detrend, filter, regress the nuisances out and scale
    (`boldly.signals.cleaning`). Of images on surfaces (CIFTI) the signal of a parcel is the mean of its vertices
    and voxels (`boldly.signals.grayordinates`). Parcels with less than `options.min_coverage` of their weight in
    the mask, and those that do not vary in time, are marked and written as zeros.

    Parameters
    ----------
    runs : Path
        Run table of the dataset.
    subject : str
        Label of the subject, without ``sub-``.
    nuisance, qc : Path
        Regressors and quality table of the subject, from stage preprocess. Runs with status ok there are taken.
    atlas : AtlasOptions
        The parcels.
    options : ParcellateOptions
        Smoothing, filters, scaling. There is no Butterworth high-pass where cosines are regressed out.
    preprocess : PreprocessOptions
        How the regressors came about; for the contract.
    cache : Path
        Folder of projections, shared by all jobs.
    output : Path
        The time series (`boldly.samples.timeseries`). A subject without usable runs gets a file without arrays.
    quality : Path
        Output: one row per run with its status and, where it is excluded, the reason; the median and the lowest
        temporal signal-to-noise ratio of its parcels before cleaning (those that are marked left out), the median
        coverage of all parcels, and the number marked. Excluded runs have no time series.
    on_error : {"stop", "exclude"}
        What a defective run does: stop the stage, or get a row with status "error" and the reason.

    Raises
    ------
    InputError
        With the problems of all runs, unless `on_error` is "exclude".
    """
    if with_one_high_pass(options, preprocess) != options:
        logger.warning("cosines are regressed out: no Butterworth high-pass filter beside them")
        options = with_one_high_pass(options, preprocess)
    table = read_runs(runs, subject=subject)
    if not table:
        message = f"no run of subject {subject}"
        raise InputError(Problem(str(runs), f"sub-{subject}", message, "rerun index"))
    motion = read_table(qc, ("key", "status"), ("key", "status"), stage="preprocess")
    taken = set(motion.loc[motion["status"] == "ok", "key"])
    usable = [record for record in table if record.key in taken]
    parcels = load_parcels(atlas)
    contract = _contract(usable or table, subject, runs, parcels, options, preprocess)
    regressors = read_nuisance(nuisance) if usable else {}

    series: list[RunSeries] = []
    problems: list[Problem] = []
    defective: dict[str, str] = {}
    for record in usable:
        logger.info("%s: %d volumes", record.key, record.n_volumes)
        try:
            if record.key not in regressors:
                raise InputError(Problem(str(nuisance), record.key, "no rows of this run", "rerun preprocess"))
            kept, confounds, _ = regressors[record.key]
            series.append(parcellate_run(record, kept, confounds, parcels, options, cache))
        except InputError as error:
            problems += error.problems
            defective[record.key] = " ".join("; ".join(problem.message for problem in error.problems).split())
    if problems and on_error == "stop":
        raise InputError(problems)
    for problem in problems:
        logger.warning("excluded: %s", problem)
    measured = quality_table(series, options.exclude)
    for key, reason in zip(measured["key"], measured["reason"], strict=True):
        if reason:
            logger.warning("%s: excluded: %s", key, reason)
    kept_series = [item for item, status in zip(series, measured["status"], strict=True) if status == "ok"]
    measured = _with_defective(measured, defective)
    measured["reason"] = measured["reason"].replace("", None)
    # Both or none: half a result would look like a whole one.
    with atomic_path(output) as first, atomic_path(quality) as second:
        write_timeseries(first, kept_series, contract)
        write_tsv(second, measured)


def quality_table(series: Sequence[RunSeries], exclude: SignalExclusionOptions) -> pd.DataFrame:
    """Measure the signals of runs and apply the thresholds for whole runs.

    Parameters
    ----------
    series : sequence of RunSeries
        Runs.
    exclude : SignalExclusionOptions
        Thresholds; values below exclude.

    Returns
    -------
    DataFrame
        A row per run: key, status, reason ("" for runs that are ok), median_tsnr, lowest_tsnr, median_coverage,
        n_marked.
    """
    rows = []
    for run in series:
        marked = run.meta["marked"]
        tsnr = np.delete(run.tsnr, marked)
        tsnr = tsnr[np.isfinite(tsnr)]
        measures = [np.median(tsnr), tsnr.min()] if len(tsnr) else [np.nan, np.nan]
        measures.append(np.median(run.coverage))
        values = [round(float(value), _DECIMALS) for value in measures]
        limits = (("tSNR", values[0], exclude.median_tsnr), ("coverage", values[2], exclude.median_coverage))
        # A run without any temporal SNR (nan) is below every threshold.
        reason = "; ".join(
            f"median {name} {value:.3g} is under {limit:g}"
            for name, value, limit in limits
            if limit is not None and not value >= limit
        )
        rows.append((run.key, "excluded" if reason else "ok", reason, *values, len(marked)))
    columns = ["key", "status", "reason", "median_tsnr", "lowest_tsnr", "median_coverage", "n_marked"]
    return pd.DataFrame(rows, columns=columns)


def _with_defective(measured: pd.DataFrame, reasons: dict[str, str]) -> pd.DataFrame:
    """Add a row for each run of which nothing can be measured; from its key to the reason."""
    if not reasons:
        return measured
    rows = pd.DataFrame({"key": list(reasons), "status": "error", "reason": list(reasons.values())})
    n_marked = measured["n_marked"].astype("Int64")
    whole = pd.concat([measured.assign(n_marked=n_marked), rows.astype({"key": "str"})])
    return whole.sort_values("key", ignore_index=True)


def parcellate_run(
    record: Run,
    kept: NDArray[np.bool_],
    regressors: NDArray[np.float64],
    atlas: Atlas | Parcellation,
    options: ParcellateOptions,
    cache: Path,
) -> RunSeries:
    """Extract and clean one run.

    Parameters
    ----------
    record : Run
        The run.
    kept : ndarray of bool, shape (T,)
        False for frames that are scrubbed.
    regressors : ndarray of float64, shape (T, R)
        What is regressed out.
    atlas : Atlas or Parcellation
        The parcels.
    options : ParcellateOptions
        Smoothing, filters, scaling; with one high-pass filter (`boldly.config.with_one_high_pass`).
    cache : Path
        Folder of projections.

    Raises
    ------
    InputError
        For an image that cannot be read, does not fit its regressors, or has no signal in the parcels.
    """
    if isinstance(atlas, Parcellation):
        extracted, coverage = _from_surfaces(record, atlas, options)
    else:
        extracted, coverage = _from_volumes(record, atlas, options, cache)
    if len(extracted.signals) != len(kept):
        message = f"the image has {len(extracted.signals)} volumes, its nuisance table {len(kept)} frames"
        raise InputError(Problem(record.bold, record.key, message, "exclude the run, or run fMRIPrep on it again"))
    uncovered = (coverage < options.min_coverage) | (coverage == 0)
    _check_empty(record, extracted.empty & kept)
    try:
        cleaned = clean(extracted.signals, kept=kept, regressors=regressors, t_r=record.t_r, options=options)
    except CleaningError as error:
        raise InputError(Problem(record.bold, record.key, str(error), error.remedy)) from None
    marked = uncovered | cleaned.constant
    _check_signal(record, cleaned, marked)
    cleaned.data[:, marked] = 0
    if extracted.nonfinite:
        logger.warning("%s: %d voxel values are not finite, taken as zero", record.key, extracted.nonfinite)
    if marked.any():
        names = listed(atlas.names[number] for number in np.flatnonzero(marked))
        counts = (marked.sum(), len(marked), uncovered.sum(), options.min_coverage, names)
        message = "%s: %d of %d parcels are zeros, %d of them covered by less than %g: %s"
        logger.warning(message, record.key, *counts)
    meta: dict[str, Any] = {
        "t_r": record.t_r,
        "start_time": record.start_time,
        "dataset": record.dataset,
        "subject": record.subject,
        "run_key": record.key,
        "entities": {
            name: getattr(record, name)
            for name in bids.RUN_ENTITIES
            if name != "subject" and getattr(record, name)
        },
        "n_volumes": len(kept),
        "marked": np.flatnonzero(marked).tolist(),
        "marked_names": [atlas.names[number] for number in np.flatnonzero(marked)],
        "uncovered": np.flatnonzero(uncovered).tolist(),
        "constant": np.flatnonzero(cleaned.constant).tolist(),
        "nonfinite_values": extracted.nonfinite,
    }
    return RunSeries(
        key=record.key,
        data=cleaned.data.astype(np.float32),
        frames=np.flatnonzero(kept).astype(np.int64),
        mean=cleaned.mean.astype(np.float32),
        std=cleaned.std.astype(np.float32),
        coverage=coverage,
        tsnr=cleaned.tsnr.astype(np.float32),
        meta=meta,
    )


def _from_volumes(
    record: Run, atlas: Atlas, options: ParcellateOptions, cache: Path
) -> tuple[Extracted, NDArray[np.float32]]:
    """Return the signals of parcels of voxels, and how much of each parcel the run covers."""
    volumes = open_volumes(record.bold, record.key)
    if not volumes.is_4d:
        remedy = "exclude the run, or run fMRIPrep on it again"
        raise InputError(Problem(record.bold, record.key, "the image has no time axis", remedy))
    projection = load_projection(atlas, volumes.grid, options.smoothing_fwhm_mm, cache)
    inside = read_mask(record.mask, projection.grid, record.key) if record.mask else None
    coverage = _coverage(record, projection, inside)
    if options.mask and inside is not None:
        projection = projection.within(inside, options.smoothing_fwhm_mm)
    return projection.extract(volumes), coverage


def _from_surfaces(
    record: Run, parcellation: Parcellation, options: ParcellateOptions
) -> tuple[Extracted, NDArray[np.float32]]:
    """Return the signals of parcels of vertices, and how much of each parcel the run has."""
    if options.smoothing_fwhm_mm is not None:
        message = "images on surfaces are not smoothed here"
        remedy = "set parcellate.smoothing_fwhm_mm to null; smooth before, with wb_command -cifti-smoothing"
        raise InputError(Problem(record.bold, record.key, message, remedy))
    try:
        series = open_series(Path(record.bold))
    except HeaderError as error:
        raise InputError(Problem(record.bold, record.key, str(error), error.remedy)) from None
    placed = parcellation.on(series.axis, record.key)
    return placed.extract(series), placed.coverage


def _check_empty(record: Run, empty: NDArray[np.bool_]) -> None:
    """Refuse a run with volumes in which nothing was recorded: as zeros they would look like a huge movement."""
    if empty.any():
        frames = np.flatnonzero(empty)
        message = f"{len(frames)} of {len(empty)} volumes hold nothing but zeros or NaN: {listed(frames)}"
        remedy = "compute the image again, scrub these frames, or exclude the run"
        raise InputError(Problem(record.bold, record.key, message, remedy))


def _check_signal(record: Run, cleaned: Cleaned, marked: NDArray[np.bool_]) -> None:
    """Refuse a run of which nothing is left, or whose scale single precision cannot hold."""
    if marked.all():
        message = f"not one of {len(marked)} parcels has a signal that varies in time and is covered by the mask"
        raise InputError(Problem(record.bold, record.key, message, "look at the image, and exclude the run"))
    largest = max(float(np.abs(part).max(initial=0)) for part in (cleaned.mean, cleaned.std, cleaned.data))
    if largest > float(np.finfo(np.float32).max):
        message = f"signals of {largest:.3g} are beyond single precision: a wrong scale factor in the header?"
        raise InputError(Problem(record.bold, record.key, message, "correct scl_slope, or exclude the run"))


def _coverage(record: Run, projection: Projection, inside: NDArray[np.bool_] | None) -> NDArray[np.float32]:
    """Return how much of each parcel lies in the run's brain mask; without a mask, in its grid."""
    coverage = projection.coverage(inside)
    if not coverage.any():
        message = "no parcel of the atlas lies within the brain mask"
        remedy = "give an atlas in the space of the images, or check the mask"
        raise InputError(Problem(record.mask or record.bold, record.key, message, remedy))
    return coverage


def _contract(
    records: list[Run],
    subject: str,
    runs: Path,
    atlas: Atlas | Parcellation,
    options: ParcellateOptions,
    preprocess: PreprocessOptions,
) -> Contract:
    spaces = sorted({record.space for record in records})
    if len(spaces) > 1:
        message = f"runs in different spaces: {', '.join(spaces)}"
        raise InputError(
            Problem(str(runs), f"sub-{subject}", message, "set datasets.<name>.space and rerun index")
        )
    kinds = sorted({bids.kind_of_image(Path(record.bold)) for record in records if record.bold})
    if len(kinds) > 1:
        message = f"images of different kinds: {', '.join(kind or 'preprocessed' for kind in kinds)}"
        raise InputError(
            Problem(str(runs), f"sub-{subject}", message, "set datasets.<name>.image_suffix and rerun index")
        )
    return contract_of(spaces[0], atlas, options, preprocess, images=kinds[0] if kinds else "")


def contract_of(
    space: str,
    atlas: Atlas | Parcellation,
    options: ParcellateOptions,
    preprocess: PreprocessOptions,
    *,
    images: str = "",
) -> Contract:
    """Return the contract of runs in a space that are prepared with these options.

    Parameters
    ----------
    images : str, optional
        Kind of the images (`boldly.bids.kind_of_image`).
    """
    return Contract(
        atlas=atlas.name,
        atlas_sha256=atlas.sha256,
        n_parcels=atlas.n_parcels,
        space=space,
        confounds=preprocess.regression(),
        smoothing_fwhm_mm=options.smoothing_fwhm_mm,
        high_pass_hz=options.high_pass_hz,
        low_pass_hz=options.low_pass_hz,
        detrend=options.detrend,
        standardize=options.standardize,
        mask=options.mask and isinstance(atlas, Atlas),
        images=images,
    )
