"""A run that is given as an image, without a dataset around it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from boldly import bids
from boldly.records import InputError, Problem, Run
from boldly.signals.headers import HeaderError
from boldly.stages.index.checks import header_of
from boldly.stages.index.survey import RunFiles
from boldly.stages.index.times import Times


def image_record(
    path: Path,
    *,
    space: str,
    t_r: float | None = None,
    confounds: Path | str | None = None,
    mask: Path | str | None = None,
    events: Path | str | None = None,
) -> Run:
    """Return a run that is given as an image, with the files that fMRIPrep wrote beside it.

    Parameters
    ----------
    path : Path
        The image; its name may have BIDS entities or not.
    space : str
        The space that it is taken to be in where its name does not say it.
    t_r : float, optional
        Repetition time, s; default: that of its sidecar or its header.
    confounds, mask, events : Path or str, optional
        Its files; default for the first two: those beside it.

    Raises
    ------
    InputError
        For an image that cannot be read or does not tell its repetition time.
    """
    found = bids.entities(path.name)
    beside = bids.files_in(path.parent)

    def of_image(given: Path | str | None, is_kind: Any) -> str:
        if given is not None:
            return str(given)
        files = [file for file in beside if is_kind(file.name)]
        same = [file for file in files if bids.entities(file.name).get("space", "") == found.get("space", "")]
        best = bids.best_match(same or files, found) if found else []
        return str(best[0]) if len(best) == 1 else ""

    try:
        header = header_of(path)
    except HeaderError as error:
        raise InputError(Problem(str(path), path.name, str(error), error.remedy)) from None
    key = bids.run_key("run", found)
    files = RunFiles(found, key, image=path)
    # The folders that hold those of the subjects, of derivatives and of raw data.
    roots, raw = (
        [folder.parent for folder in file.parents if folder.name == f"sub-{found.get('sub', '')}"]
        for file in (path, Path(events or ""))
    )
    times = Times(roots, raw)
    step, wrong = (t_r, []) if t_r is not None else times.of(files, path, header)
    start, misplaced = times.start(files, path, step, header.n_volumes) if not wrong else (0.0, [])
    if wrong or misplaced:
        raise InputError([*wrong, *misplaced])
    return Run(
        dataset="run",
        **bids.run_fields(found),
        space=found.get("space", space),
        key=key,
        bold=str(path),
        mask=of_image(mask, bids.is_brain_mask),
        confounds=of_image(confounds, bids.is_confounds_table),
        events="" if events is None else str(events),
        t_r=round(step, 5),
        n_volumes=header.n_volumes,
        start_time=start,
    )
