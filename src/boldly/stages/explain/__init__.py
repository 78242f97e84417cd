"""explain: which parcels made decoders say so, per state, and how far such maps can be trusted.

For each experiment are written

- ``maps.tsv``: a row for each state, method and parcel: value, its standard deviation over fits, and direction.
  The contrasts of a general linear model (method glm) and the truth of simulated data (method truth) stand beside.
- ``curves.tsv``: accuracy as parcels are removed, in the order of each map and at random.
- ``summary.tsv``: for each state and method how alike the maps of fits are, the area between the curves, and the
  correlation with the general linear model and the truth.
- ``about.json``: what was explained, with which options.
- ``images/<method>/<state>.nii.gz``, ``pictures/<method>.png``, ``views/<method>.html``.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from boldly.config import AtlasOptions, ExplainOptions
from boldly.files import write_json, write_tsv
from boldly.provenance import environment
from boldly.records import InputError, Problem
from boldly.samples.corpus import Corpus, load_corpus
from boldly.samples.shards import subject_shards
from boldly.stages.explain.comparison import Comparison, Known
from boldly.stages.explain.decoders import Experiment, Fit, owners_of, read_experiment

logger = logging.getLogger(__name__)

__all__ = ["Known", "run", "run_decoder", "tars"]

MAPS, CURVES, SUMMARY, ABOUT = "maps.tsv", "curves.tsv", "summary.tsv", "about.json"
# The fit of a packaged decoder, in its folder.
_PACKAGED = "fit"


def run(
    *,
    dataset: str,
    shards: Path,
    models: Sequence[Path],
    options: ExplainOptions,
    output: Path,
    known: Known | None = None,
) -> None:
    """Explain decoders of a dataset, each on test trials of its own draw.

    Parameters
    ----------
    dataset : str
        Name of the dataset.
    shards : Path
        Folder of its tars.
    models : sequence of Path
        Folders that adapt wrote, one per experiment.
    options : ExplainOptions
        Methods, and how many decoders and trials.
    output : Path
        Folder for a folder of each experiment.
    known : Known, optional
        What maps are compared with and drawn on; default: nothing.

    Raises
    ------
    InputError
        For manifests and decoders that are damaged or of another dataset, shards that lack the test units, and an
        atlas or a table of the truth that does not fit.
    """
    experiments = [read_experiment(folder, dataset, options) for folder in models]
    subjects = sorted(set().union(*(experiment.subjects for experiment in experiments)))
    corpus = load_corpus([path for subject in subjects for path in subject_shards(shards, dataset, subject)])
    units = tuple({unit for experiment in experiments for fit in experiment.fits for unit in fit.units})
    # A subject may have training runs beside its test runs.
    corpus = corpus.select(np.isin(owners_of(corpus, units), units))
    comparison = Comparison(dataset, corpus, known or Known(), options)
    for experiment in experiments:
        _explain(experiment, dataset, corpus, options, output / experiment.name, comparison)


def run_decoder(
    *,
    model: Path,
    shards: Sequence[Path],
    options: ExplainOptions,
    output: Path,
    known: Known | None = None,
    allow_mismatch: Sequence[str] = (),
) -> None:
    """Explain a packaged decoder (`boldly package`) on labelled trials, which it should not have been trained on.

    Parameters
    ----------
    model : Path
        Folder of the decoder.
    shards : sequence of Path
        Tars of trials.
    options : ExplainOptions
        Methods, and how many trials.
    output : Path
        Folder to write.
    known : Known, optional
        As for `run`.
    allow_mismatch : sequence of str, optional
        Fields of the contract in which decoder and trials may differ.

    Raises
    ------
    InputError
        For a folder that is no decoder, trials that it does not fit, and other label names than its own.
    """
    corpus = load_corpus(shards, allow_mismatch=allow_mismatch)
    experiment = Experiment(Path(model).name, Path(model), (Fit(_PACKAGED, tuple(sorted(set(corpus.subjects)))),))
    known = known or Known()
    if known.atlas is None and (image := _packaged_atlas(Path(model))):
        known = replace(known, atlas=AtlasOptions(path=str(image)))
    comparison = Comparison(corpus.datasets[0], corpus, known, options)
    _explain(experiment, corpus.datasets[0], corpus, options, output, comparison, allow_mismatch)


def _packaged_atlas(model: Path) -> Path | None:
    """Return the image of the atlas in the folder of a decoder; None where its licence keeps it out."""
    return next(iter(sorted((model / "atlas").glob("*.nii*"))), None)


def tars(paths: Sequence[Path]) -> list[Path]:
    """Return tars, those in folders among them.

    Raises
    ------
    InputError
        For a folder without any, and a file that is not there.
    """
    found, problems = [], []
    for path in paths:
        inside = sorted(path.glob("*.tar")) if path.is_dir() else [path] if path.is_file() else []
        found += inside
        if not inside:
            problems.append(Problem(str(path), "", "no tar of trials", "give tars that stage shard wrote"))
    if problems:
        raise InputError(problems)
    return found


def _explain(
    experiment: Experiment,
    dataset: str,
    corpus: Corpus,
    options: ExplainOptions,
    output: Path,
    known: Comparison,
    allow_mismatch: Sequence[str] = (),
) -> None:
    """Explain an experiment and write its folder."""
    # torch and captum: not before the inputs are known to be good.
    from boldly.stages.explain import faithfulness
    from boldly.stages.explain.explanation import explain_fits, map_of, measure_faithfulness, methods_of
    from boldly.stages.explain.images import UNITS, write_images
    from boldly.stages.explain.tables import maps_table, summary_table

    started = time.monotonic()
    states = corpus.label_names
    progress = f"explain {experiment.name} on {dataset}"
    explained, reference = explain_fits(experiment, corpus, options, progress, allow_mismatch)
    if (own := explained[0].decoder.labels) != states:
        message = f"its states are {', '.join(own)}, those of the trials {', '.join(states)}"
        raise InputError(Problem(str(experiment.folder), experiment.name, message, "give trials of its task"))
    methods = methods_of(explained, options)
    maps = {method: map_of(explained, method) for method in methods}
    hits = measure_faithfulness(explained, methods, options)
    curves = faithfulness.curves(hits, states)
    first = {"dataset": dataset, "experiment": experiment.name}
    counts = np.bincount(np.concatenate([one.labels for one in explained]), minlength=len(states))
    present = [state for state in range(len(states)) if counts[state]]
    n_parcels = corpus.frames.shape[1]
    write_tsv(output / MAPS, maps_table(maps, known, states, present, n_parcels).assign(**first))
    write_tsv(output / CURVES, curves.assign(share=curves["removed"] / n_parcels, **first))
    summary = summary_table(maps, hits, curves, known, states, present)
    write_tsv(output / SUMMARY, summary.assign(n_fits=len(explained), **first))
    in_mni = corpus.contract.space.startswith("MNI")
    title = f"{experiment.name} on {dataset}"
    write_images(output, maps, known.atlas, states, present, options, title, in_mni)
    about: dict[str, Any] = {
        **first,
        "n": experiment.n,
        "fits": [fit.name for fit in experiment.fits],
        "trials": {states[state]: int(counts[state]) for state in present},
        "accuracy": float(hits.loc[hits["removed"] == 0, "hit"].mean()),
        "methods": {method: UNITS[method] for method in methods},
        "reference": reference,
        "options": options.model_dump(mode="json"),
        "seconds": round(time.monotonic() - started, 1),
        "environment": environment(),
    }
    write_json(output / ABOUT, about)
    logger.info("%s: %d decoders, %s, %.0f s", progress, len(explained), ", ".join(methods), about["seconds"])
