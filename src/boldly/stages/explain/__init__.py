"""explain: which parcels made decoders say so, per state, and how far such maps can be trusted.

For each experiment are written

- ``maps.tsv``: a row for each state, method and parcel: value, its standard deviation over fits, and direction. The
  contrasts of a general linear model (method glm) and the truth of simulated data (method truth) stand beside.
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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from boldly.config import AtlasOptions, ExplainOptions
from boldly.files import atomic_path, write_json, write_tsv
from boldly.provenance import environment
from boldly.records import InputError, Problem
from boldly.samples.corpus import Corpus, load_corpus
from boldly.samples.shards import subject_shards
from boldly.signals.atlas import Atlas, load_parcels
from boldly.stages.explain.decoders import Experiment, Fit, read_experiment

logger = logging.getLogger(__name__)

Array = NDArray[np.float64]

MAPS, CURVES, SUMMARY, ABOUT = "maps.tsv", "curves.tsv", "summary.tsv", "about.json"
IMAGES, PICTURES, VIEWS = "images", "pictures", "views"
# The fit of a packaged decoder, in its folder.
_PACKAGED = "fit"
_GLM, _TRUTH = "glm", "truth"
_UNITS = {
    "integrated_gradients": "evidence that a parcel gave for the state (logits)",
    "occlusion": "evidence that is lost without the parcel (logits)",
    "patterns": "change of the signal per unit of evidence (SD)",
    "weights": "evidence per SD of the signal",
    "mean_difference": "mean signal less that of other states (SD)",
}


@dataclass(frozen=True)
class Known:
    """What maps are compared with and drawn on.

    Attributes
    ----------
    series : Path or None
        Folder of the time series of the dataset's subjects, for the general linear model.
    trials : Path or None
        Its table of events and trials.
    truth : Path or None
        Table of the truth of simulated data.
    atlas : AtlasOptions or None
        The atlas, for names and images.
    """

    series: Path | None = None
    trials: Path | None = None
    truth: Path | None = None
    atlas: AtlasOptions | None = None


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
    comparison = _Comparison(dataset, corpus, known or Known(), options)
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
    comparison = _Comparison(corpus.datasets[0], corpus, known, options)
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


class _Comparison:
    """What the maps of all experiments of a dataset are compared with, worked out once."""

    def __init__(self, dataset: str, corpus: Corpus, known: Known, options: ExplainOptions) -> None:
        states, n_parcels = corpus.label_names, corpus.frames.shape[1]
        self.named = None if known.atlas is None else load_parcels(known.atlas)
        # Only parcels of voxels are drawn, not those of surfaces.
        self.atlas = self.named if isinstance(self.named, Atlas) else None
        if known.atlas and self.named and self.named.sha256 != corpus.contract.atlas_sha256:
            message = f"the signals are those of another atlas, {corpus.contract.atlas}"
            raise InputError(Problem(known.atlas.image, dataset, message, "give that atlas"))
        self.glm: Array | None = None
        if options.glm and known.series is not None and known.trials is not None:
            from boldly.stages.explain.contrasts import state_contrasts

            series = {
                subject: known.series / f"sub-{subject}_timeseries.safetensors"
                for subject in sorted(set(corpus.subjects))
            }
            self.glm = state_contrasts(series, known.trials, states, set(corpus.runs))
        self.truth: dict[str, Array] | None = None
        if known.truth is not None:
            from boldly.stages.explain.agreement import read_truth

            self.truth = read_truth(known.truth, dataset, states, n_parcels)

    def parcels(self, n_parcels: int) -> pd.DataFrame:
        """Return number and name of each parcel: the label in the image, or the number of the map from 1."""
        if self.named is None:
            return pd.DataFrame(
                {"index": range(1, n_parcels + 1), "name": [f"parcel-{k + 1}" for k in range(n_parcels)]}
            )
        first = 1 if self.atlas is not None and self.atlas.kind == "maps" else 0
        return pd.DataFrame({"index": [value + first for value in self.named.values], "name": self.named.names})


def _explain(
    experiment: Experiment,
    dataset: str,
    corpus: Corpus,
    options: ExplainOptions,
    output: Path,
    known: _Comparison,
    allow_mismatch: Sequence[str] = (),
) -> None:
    """Explain an experiment and write its folder."""
    # torch and captum: not before the inputs are known to be good.
    from boldly.stages.explain import faithfulness
    from boldly.stages.explain.explanation import explain_fits, map_of, measure_faithfulness, methods_of

    started = time.monotonic()
    states = corpus.label_names
    progress = f"explain {experiment.name} on {dataset}"
    explained, reference = explain_fits(experiment, corpus, options, progress, allow_mismatch)
    if explained[0].decoder.labels != states:
        message = (
            f"its states are {', '.join(explained[0].decoder.labels)}, those of the trials {', '.join(states)}"
        )
        raise InputError(Problem(str(experiment.folder), experiment.name, message, "give trials of its task"))
    methods = methods_of(explained, options)
    maps = {method: map_of(explained, method) for method in methods}
    hits = measure_faithfulness(explained, methods, options)
    curves = faithfulness.curves(hits, states)
    first = {"dataset": dataset, "experiment": experiment.name}
    counts = np.bincount(np.concatenate([one.labels for one in explained]), minlength=len(states))
    present = [state for state in range(len(states)) if counts[state]]
    n_parcels = corpus.frames.shape[1]
    write_tsv(output / MAPS, _maps_table(maps, known, states, present, n_parcels).assign(**first))
    write_tsv(output / CURVES, curves.assign(share=curves["removed"] / n_parcels, **first))
    summary = _summary(maps, hits, curves, known, states, present)
    write_tsv(output / SUMMARY, summary.assign(n_fits=len(explained), **first))
    _draw(output, maps, known.atlas, states, present, options, f"{experiment.name} on {dataset}", corpus)
    about: dict[str, Any] = {
        **first,
        "n": experiment.n,
        "fits": [fit.name for fit in experiment.fits],
        "trials": {states[state]: int(counts[state]) for state in present},
        "accuracy": float(hits.loc[hits["removed"] == 0, "hit"].mean()),
        "methods": {method: _UNITS[method] for method in methods},
        "reference": reference,
        "options": options.model_dump(mode="json"),
        "seconds": round(time.monotonic() - started, 1),
        "environment": environment(),
    }
    write_json(output / ABOUT, about)
    logger.info("%s: %d decoders, %s, %.0f s", progress, len(explained), ", ".join(methods), about["seconds"])


def _maps_table(
    maps: dict[str, Any], known: _Comparison, states: Sequence[str], present: Sequence[int], n_parcels: int
) -> pd.DataFrame:
    """Return a row for each state, method and parcel."""
    parcels = known.parcels(n_parcels)
    nothing = np.full((n_parcels, len(states)), np.nan)
    columns = {method: (one.value, one.sd, one.direction) for method, one in maps.items()}
    if known.glm is not None:
        columns[_GLM] = (known.glm, nothing, known.glm)
    if known.truth is not None:
        columns[_TRUTH] = (known.truth["mean"], nothing, known.truth["mean"])
    tables = [
        parcels.assign(
            state=states[state], method=method, value=value[:, state], sd=sd[:, state], direction=sign[:, state]
        )
        for method, (value, sd, sign) in columns.items()
        for state in present
    ]
    order = ["state", "method", "index", "name", "value", "sd", "direction"]
    return pd.concat(tables, ignore_index=True)[order]


def _summary(
    maps: dict[str, Any],
    hits: pd.DataFrame,
    curves: pd.DataFrame,
    known: _Comparison,
    states: Sequence[str],
    present: Sequence[int],
) -> pd.DataFrame:
    """Return a row for each state and method, and one for each method over all states."""
    from boldly.stages.explain import agreement, faithfulness

    rows = []
    lines = {key: part for key, part in curves.groupby(["method", "state"], sort=False)}
    for method, one in maps.items():
        for state in present:
            name = states[state]
            row = {"method": method, "state": name, "reliability": one.reliability[state], "gap": one.gap}
            row["area"] = faithfulness.area(lines[method, name], lines[faithfulness.RANDOM, name])
            direction = one.direction[:, state]
            row["glm_r"] = np.nan if known.glm is None else agreement.correlation(direction, known.glm[:, state])
            if known.truth is not None:
                row |= agreement.recovery(direction, one.value[:, state], known.truth, state)
            rows.append(row)
    table = agreement.summary_of_states(pd.DataFrame(rows))
    # Over all states: of the curve of all trials, not the mean of those of the states.
    for method in maps:
        whole = (table["method"] == method) & (table["state"] == faithfulness.ALL)
        table.loc[whole, "area"] = faithfulness.area(
            lines[method, faithfulness.ALL], lines[faithfulness.RANDOM, faithfulness.ALL]
        )
    return table.assign(area_of_chance=_area_of_chance(hits, curves))


def _area_of_chance(hits: pd.DataFrame, curves: pd.DataFrame) -> float:
    """Return the largest area that a single random order has against their mean: what a worthless map may reach."""
    from boldly.stages.explain import faithfulness

    random = hits[hits["order"] == faithfulness.RANDOM]
    mean = curves[(curves["method"] == faithfulness.RANDOM) & (curves["state"] == faithfulness.ALL)]
    areas = []
    for _, own in random.groupby("number"):
        curve = own.groupby("removed")["hit"].mean().rename("accuracy").reset_index()
        areas.append(abs(faithfulness.area(curve, mean)))
    return max(areas)


def _draw(
    output: Path,
    maps: dict[str, Any],
    atlas: Atlas | None,
    states: Sequence[str],
    present: Sequence[int],
    options: ExplainOptions,
    title: str,
    corpus: Corpus,
) -> None:
    """Write maps as images, pictures and pages; their folders are there also where nothing is drawn."""
    folders = {IMAGES: options.drawn("images"), PICTURES: options.drawn("pictures"), VIEWS: options.drawn("views")}
    names = [states[state] for state in present]
    # What an earlier call with other options left would be taken for a part of this one.
    with (
        atomic_path(output / IMAGES) as images,
        atomic_path(output / PICTURES) as pictures,
        atomic_path(output / VIEWS) as views,
    ):
        for folder in (images, pictures, views):
            folder.mkdir()
        if atlas is None:
            logger.warning("%s: no atlas, so no images", title)
            return
        from boldly.stages.explain import maps as voxels
        from boldly.stages.explain import pictures as drawing

        files = voxels.file_names(names)
        in_mni = corpus.contract.space.startswith("MNI")
        for method, one in maps.items():
            if not any(method in chosen for chosen in folders.values()):
                continue
            found = voxels.volumes(atlas, one.value[:, list(present)])
            images_of = [
                voxels.image_of(atlas, found[..., k], f"boldly explain {method} {name}")
                for k, name in enumerate(names)
            ]
            if method in folders[IMAGES]:
                for name, image in zip(names, images_of, strict=True):
                    voxels.write_image(images / method / f"{files[name]}.nii.gz", image)
            scale = drawing.scale_of(found)
            about: dict[str, Any] = {
                "title": f"{title}: {method.replace('_', ' ')}",
                "scale": scale,
                "in_mni": in_mni,
            }
            if method in folders[PICTURES]:
                drawing.draw(pictures / f"{method}.png", images_of, names, unit=_UNITS[method], **about)
            if method in folders[VIEWS]:
                drawing.write_view(views / f"{method}.html", images_of, names, **about)
