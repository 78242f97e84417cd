"""What can be wrong with a run: its image, repetition time, confounds table and overlap with the atlas."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boldly import bids, hcp
from boldly.config import AtlasOptions, PreprocessOptions
from boldly.records import InputError, Problem
from boldly.signals import confounds
from boldly.signals.atlas import load_atlas, load_parcellation
from boldly.signals.grayordinates import Parcellation, is_series, open_series
from boldly.signals.headers import Header, HeaderError, check_source, is_sound_on, read_header
from boldly.signals.images import Grid, open_volumes, read_mask
from boldly.stages.index.survey import RunFiles
from boldly.stages.index.times import Times

_MAPS_PER_BLOCK = 8
_UNKNOWN = Problem("", "", "", "")
_CENSORED = (
    "run XCP-D in a mode that interpolates frames and keeps them all (abcd, hbcd), and scrub here with "
    "preprocess.fd_threshold_mm; or exclude the run"
)


@dataclasses.dataclass(frozen=True)
class Checked:
    """A run with what its files tell.

    Attributes
    ----------
    files : RunFiles
        The run and its files.
    header : Header or None
        Of the image; None when it is defective.
    t_r : float
        Repetition time, s, 5 decimals; nan when unknown.
    start_time : float
        Time of frame 0, s, 5 decimals.
    excluded : str
        The rule that excludes it, with numbers; empty for none.
    problems : tuple of Problem
        What is wrong with it.
    """

    files: RunFiles
    header: Header | None
    t_r: float
    excluded: str
    problems: tuple[Problem, ...]
    start_time: float = 0.0


def check_run(
    files: RunFiles,
    times: Times,
    preprocess: PreprocessOptions,
    fewest_volumes: int,
    *,
    needs_mask: bool = True,
    excluded: Mapping[str, str] = MappingProxyType({}),
) -> Checked:
    """Check the image, the repetition time, the mask's grid and the confounds table of a run.

    A run that a rule excludes, or the config by name (`excluded`: from key to reason), is not checked further. A
    run without a brain mask is defective where `needs_mask` says so. Nothing but headers is read, and the
    confounds table is counted, not parsed, so that 12,000 runs take minutes.
    """
    if files.key in excluded:
        return Checked(files, None, math.nan, f"excluded in the config: {excluded[files.key]}", ())
    problems = list(files.problems)
    if files.image is None:
        return Checked(files, None, math.nan, "", tuple(problems))
    try:
        header = header_of(files.image)
    except HeaderError as error:
        problems.append(Problem(str(files.image), files.key, str(error), error.remedy))
        return Checked(files, None, math.nan, "", tuple(problems))
    try:
        if files.source is not None:
            check_source(files.source)
    except HeaderError as error:
        problems.append(Problem(str(files.source), files.key, str(error), error.remedy))
    t_r, wrong = times.of(files, files.image, header)
    start_time, misplaced = times.start(files, files.image, t_r, header.n_volumes)
    if header.n_volumes < fewest_volumes:
        too_few = f"{header.n_volumes} volumes, fewer than {fewest_volumes}"
        return Checked(files, header, t_r, too_few, ())
    problems += wrong + misplaced
    if header.grid is not None:
        problems += _check_mask(files, header.grid, needs_mask=needs_mask)
    problems += _check_confounds(files, header.n_volumes, t_r, preprocess) or _check_censored(files, header)
    return Checked(files, header, t_r, "", tuple(problems), start_time)


def check_atlas(atlas: AtlasOptions, runs: Sequence[Checked]) -> dict[str, Problem]:
    """Find the runs whose images do not overlap with the atlas, looking once at each distinct grid.

    Overlap means that the centre of a voxel of one lies in a voxel of the other, inside the brain mask of the
    first sound run with the grid (the whole grid where there is none). Maps are read until every grid overlaps.

    Returns
    -------
    dict of str to Problem
        By run key.

    Raises
    ------
    InputError
        For an atlas, or a table of names, that cannot be read.
    """
    if atlas.is_parcellation:
        return _check_parcellation(load_parcellation(atlas), runs)
    groups: dict[tuple[Any, ...], list[tuple[Checked, Grid]]] = {}
    for run in runs:
        if run.header is not None and run.header.grid is not None:
            grid = run.header.grid
            groups.setdefault((grid.shape, np.round(grid.affine, 3).tobytes()), []).append((run, grid))
    problems: dict[str, Problem] = {}
    volumes = load_atlas(atlas).volumes
    blocks = volumes.blocks(_MAPS_PER_BLOCK)
    support = np.zeros(volumes.grid.n_voxels, bool)
    for group in groups.values():
        sound = next((run for run, _ in group if not run.problems), None)
        grid = group[0][1]
        inside = _inside(sound, grid, problems)
        while not _overlaps(volumes.grid, support, grid, inside):
            _, block = next(blocks, (0, None))
            if block is None:
                message = f"no overlap with the atlas {atlas.image}: no parcel lies inside the brain"
                remedy = "use an atlas in the space of the images, or correct the affine of one of them"
                for run, _ in group:
                    problems[run.files.key] = Problem(str(run.files.image), run.files.key, message, remedy)
                break
            support |= (np.nan_to_num(block) * volumes.slope + volumes.inter != 0).any(axis=0)
    return problems


def _check_parcellation(parcellation: Parcellation, runs: Sequence[Checked]) -> dict[str, Problem]:
    """Find the runs on surfaces that the parcellation does not fit, looking once at each set of grayordinates."""
    problems: dict[str, Problem] = {}
    known: list[tuple[Any, Problem | None]] = []
    for run in runs:
        if run.header is None or run.header.axis is None:
            continue
        axis, key = run.header.axis, run.files.key
        problem = next((found for other, found in known if other == axis), _UNKNOWN)
        if problem is _UNKNOWN:
            try:
                parcellation.on(axis)
                problem = None
            except InputError as error:
                problem = error.problems[0]
            known.append((axis, problem))
        if problem is not None:
            problems[key] = dataclasses.replace(problem, entity=key)
    return problems


def header_of(image: Path) -> Header:
    """Read the header of a run's image, of volumes or of surfaces (`boldly.signals.headers.read_header`)."""
    if not is_series(image):
        return read_header(image)
    series = open_series(image)
    return Header(None, series.n_volumes, series.t_r, series.axis)


def _inside(run: Checked | None, grid: Grid, problems: dict[str, Problem]) -> NDArray[np.bool_]:
    if run is not None and run.files.mask is not None:
        try:
            return read_mask(run.files.mask, grid, run.files.key)
        except InputError as error:
            problems[run.files.key] = error.problems[0]
    return np.ones(grid.n_voxels, bool)


def _overlaps(atlas: Grid, support: NDArray[np.bool_], grid: Grid, inside: NDArray[np.bool_]) -> bool:
    return _hits(atlas, support, grid, inside) or _hits(grid, inside, atlas, support)


def _hits(one: Grid, chosen: NDArray[np.bool_], other: Grid, target: NDArray[np.bool_]) -> bool:
    """Tell whether the centre of a chosen voxel lies in a target voxel; flat arrays, first axis fastest."""
    centres = np.stack(np.unravel_index(np.flatnonzero(chosen), one.shape, order="F"))
    to_other = np.linalg.inv(other.affine) @ one.affine
    moved = np.rint(to_other[:3, :3] @ centres + to_other[:3, 3:]).astype(np.int64)
    within = ((moved >= 0) & (moved < np.array(other.shape)[:, None])).all(axis=0)
    return bool(target[np.ravel_multi_index(tuple(moved[:, within]), other.shape, order="F")].any())


def _check_mask(files: RunFiles, grid: Grid, *, needs_mask: bool) -> list[Problem]:
    if files.mask is None:
        if not needs_mask or any("brain mask" in problem.message for problem in files.problems):
            return []
        message = "no brain mask beside the image"
        way = "copy the mask that fMRIPrep wrote beside it"
        if files.image is not None and bids.kind_of_image(files.image):
            way = "name the fMRIPrep folder that has it (datasets.<name>.fmriprep)"
        remedy = (
            f"{way}, exclude the run, or let the whole image count as brain "
            "(datasets.<name>.without_mask: whole_image)"
        )
        return [Problem(str(files.image), files.key, message, remedy)]
    if is_sound_on(files.mask, grid):
        return []
    try:
        mask = open_volumes(files.mask, files.key)
    except InputError as error:
        return error.problems
    if mask.n_volumes == 1 and mask.grid.is_near(grid):
        return []
    message = f"the brain mask has {mask.grid}, the run has {grid}, or their affines differ"
    return [Problem(str(files.mask), files.key, message, "give the run the mask that fMRIPrep wrote beside it")]


def _check_confounds(files: RunFiles, n_volumes: int, t_r: float, options: PreprocessOptions) -> list[Problem]:
    table = files.confounds
    if table is None:
        if not confounds.needs_table(options) or any("confounds" in p.message for p in files.problems):
            return []
        image = files.image.name if files.image else ""
        is_bids = image.startswith("sub-")
        name = f"{bids.run_prefix(files.found)}_desc-confounds_timeseries.tsv" if is_bids else hcp.MOVEMENT
        message = f"no confounds table ({name})"
        remedy = "copy it beside the image, or set preprocess.strategy to [], or exclude the run"
        return [Problem(str(files.image), files.key, message, remedy)]

    def problem(message: str, remedy: str) -> Problem:
        return Problem(str(table), files.key, message, remedy)

    try:
        columns, n_rows = _count_rows(table)
        meta = confounds.read_meta(table) if "compcor" in options.strategy else {}
    except FileNotFoundError:
        remedy = f"fetch its content (git-annex: `datalad get {table}`), or exclude the run"
        return [problem("the confounds table is a link to a file that is not there", remedy)]
    except (OSError, UnicodeDecodeError) as error:
        return [problem(f"the confounds table cannot be read: {error}", "copy it again, or exclude the run")]
    except InputError as error:
        return [dataclasses.replace(p, entity=files.key) for p in error.problems]
    if not columns:
        return [problem("the confounds table is empty", "run fMRIPrep again, or exclude the run")]
    problems = []
    if n_rows != n_volumes:
        message = f"the confounds table has {n_rows} rows, the image {n_volumes} volumes"
        is_cut = files.image is not None and bids.kind_of_image(files.image) and n_rows > n_volumes
        problems.append(problem(message, _CENSORED if is_cut else "run fMRIPrep again on the run, or exclude it"))
    duration_s = 0.0 if math.isnan(t_r) else n_volumes * t_r
    missing = confounds.missing_columns(columns, options, meta=meta, duration_s=duration_s)
    if missing:
        problems.append(confounds.missing_problem(missing, columns, str(table), files.key, options.strategy))
    return problems


def _check_censored(files: RunFiles, header: Header) -> list[Problem]:
    """Refuse an image that XCP-D left frames out of: nothing in it tells when the others were recorded."""
    if files.image is None or not bids.kind_of_image(files.image):
        return []
    try:
        _, recorded = _count_rows(bids.censored_frames(files.image))
    except (OSError, UnicodeDecodeError):
        return []
    if recorded == header.n_volumes:
        return []
    message = f"the image has {header.n_volumes} of {recorded} frames: XCP-D took the others out"
    return [Problem(str(files.image), files.key, message, _CENSORED)]


def _count_rows(path: Path) -> tuple[list[str], int]:
    """Return the columns of a table and its number of rows, from its bytes."""
    if hcp.is_movement(path):
        table = hcp.read_movement(path)
        return [str(name) for name in table.columns], len(table)
    with path.open("rb") as stream:
        columns = stream.readline().decode("utf-8-sig").rstrip("\r\n").split("\t")
        body = stream.read().rstrip()
    return [name for name in columns if name], body.count(b"\n") + 1 if body else 0
