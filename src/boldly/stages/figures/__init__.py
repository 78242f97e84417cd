"""figures: the pictures of the report, drawn from tables alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from boldly.config import FiguresOptions
from boldly.records import InputError, Problem
from boldly.stages.figures import style
from boldly.stages.figures.carpet import carpet
from boldly.stages.figures.downstream_accuracy import downstream_accuracy
from boldly.stages.figures.downstream_comparisons import downstream_comparisons
from boldly.stages.figures.downstream_confusion import downstream_confusion
from boldly.stages.figures.downstream_curves import downstream_curves
from boldly.stages.figures.downstream_embedding import downstream_embedding
from boldly.stages.figures.downstream_reliability import downstream_reliability
from boldly.stages.figures.downstream_replication import downstream_replication
from boldly.stages.figures.downstream_training import downstream_training
from boldly.stages.figures.downstream_trials import downstream_trials
from boldly.stages.figures.excluded import excluded
from boldly.stages.figures.explain import explain_agreement, explain_curves, explain_maps
from boldly.stages.figures.quality import quality
from boldly.stages.figures.upstream_data import upstream_data
from boldly.stages.figures.upstream_errors import upstream_errors
from boldly.stages.figures.upstream_frameworks import upstream_frameworks
from boldly.stages.figures.upstream_largest import upstream_largest, upstream_warm_start
from boldly.stages.figures.upstream_losses import upstream_losses
from boldly.stages.figures.upstream_scaling import upstream_scaling
from boldly.stages.figures.upstream_sizes import upstream_sizes
from boldly.stages.figures.upstream_skill import upstream_skill

FIGURES: dict[str, Callable[..., tuple[Figure, pd.DataFrame]]] = {
    "upstream_data": upstream_data,
    "quality": quality,
    "excluded": excluded,
    "carpet": carpet,
    "downstream_trials": downstream_trials,
    "upstream_frameworks": upstream_frameworks,
    "upstream_sizes": upstream_sizes,
    "upstream_losses": upstream_losses,
    "upstream_skill": upstream_skill,
    "upstream_errors": upstream_errors,
    "upstream_scaling": upstream_scaling,
    "upstream_largest": upstream_largest,
    "upstream_warm_start": upstream_warm_start,
    "downstream_accuracy": downstream_accuracy,
    "downstream_curves": downstream_curves,
    "downstream_comparisons": downstream_comparisons,
    "downstream_confusion": downstream_confusion,
    "downstream_reliability": downstream_reliability,
    "downstream_embedding": downstream_embedding,
    "downstream_training": downstream_training,
    "downstream_replication": downstream_replication,
    "explain_maps": explain_maps,
    "explain_curves": explain_curves,
    "explain_agreement": explain_agreement,
}


def run(*, figure: str, tables: list[Path], options: FiguresOptions, output: Path, key: str | None = None) -> None:
    """Draw a figure.

    Parameters
    ----------
    figure : str
        A name in `FIGURES`; the docstring of its function says which tables it takes.
    tables : list of Path
        The tables, in any order unless the figure says otherwise.
    options : FiguresOptions
        Resolution.
    output : Path
        PNG to write; the PDF and the drawn table (.tsv) get the same name beside it.
    key : str, optional
        The one run that figure carpet shows.

    Raises
    ------
    InputError
        For an unknown figure and for tables it cannot be drawn from.
    """
    if figure not in FIGURES:
        problem = Problem("--figure", figure, "no such figure", f"take one of {', '.join(FIGURES)}")
        raise InputError(problem)
    if key and figure != "carpet":
        raise InputError(Problem("--key", figure, "the figure is of many runs", "leave --key out, or draw carpet"))
    missing = [path for path in tables if not path.exists()]
    if missing:
        raise InputError(Problem(str(path), figure, "no such table", "run the stage before") for path in missing)
    with style.styled():
        extra: dict[str, Any] = {"key": key} if key else {}
        if figure == "upstream_losses":
            extra["published"] = options.published
        picture, drawn = FIGURES[figure](tables, **extra)
        style.save(picture, drawn, output, options.dpi)
