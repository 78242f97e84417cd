"""Which fit of a study becomes a decoder: the one that is named, or the best in validation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boldly import layout
from boldly.decoders.encoders import MANIFEST
from boldly.files import read_json
from boldly.records import InputError, Problem

_REMEDY = "give results/models/downstream/<dataset>[/<experiment>[/<fit>]], or results with --dataset"


@dataclass(frozen=True)
class Picked:
    """A fit, and why it is this one.

    Attributes
    ----------
    root : Path
        Folder of the study.
    experiment : Path
        Folder of the experiment.
    manifest : dict
        What adapt says of it.
    fit : dict
        What it says of the fit.
    why : str
        How it was picked, in words; empty where the user named it.
    """

    root: Path
    experiment: Path
    manifest: dict[str, Any]
    fit: dict[str, Any]
    why: str

    @property
    def folder(self) -> Path:
        """Folder of the fit."""
        return self.experiment / str(self.fit["folder"])

    @property
    def dataset(self) -> str:
        """Dataset that it was trained on."""
        return str(self.manifest["dataset"])

    def result(self, pattern: str) -> Path:
        """Return the path of a result of the study on the dataset (a pattern of `boldly.layout`)."""
        return self.root / pattern.format(dataset=self.dataset, subject="*")


def pick(source: Path, dataset: str | None = None) -> Picked:
    """Find the fit that is packaged; parameters as those of `boldly.decoding.package.run`.

    Raises
    ------
    InputError
        Where there is no fit, or nothing to choose by.
    """
    folder = source.resolve()
    models = folder.parent / Path(layout.DOWNSTREAM_MODELS).parent
    if folder.name == models.parts[-3] and models.is_dir():
        datasets = sorted(path.name for path in models.iterdir() if path.is_dir())
        if dataset is None and len(datasets) == 1:
            dataset = datasets[0]
        if dataset not in datasets:
            message = f"decoders of the datasets {', '.join(datasets) or 'none'}"
            message += f"; there is no {dataset}" if dataset else ""
            raise InputError(Problem(str(source), "", message, "name one with --dataset"))
        folder = models / dataset
    if (folder.parent / MANIFEST).is_file():
        manifest = _manifest(folder.parent)
        fit = next((fit for fit in manifest["fits"] if fit["folder"] == folder.name), None)
        if fit is None:
            message = f"no fit of this name in {folder.parent / MANIFEST}"
            raise InputError(Problem(str(source), "", message, _REMEDY))
        return Picked(_root(folder.parent), folder.parent, manifest, fit, "")
    experiments = [folder] if (folder / MANIFEST).is_file() else _experiments(folder)
    if not experiments:
        raise InputError(Problem(str(source), "", "no trained decoder", _REMEDY))
    return _best(source, experiments)


def _experiments(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.glob(f"*/{MANIFEST}")) if folder.is_dir() else []


def _root(experiment: Path) -> Path:
    depth = len(Path(layout.DOWNSTREAM_MODEL).parts)
    return experiment.parents[min(depth, len(experiment.parents)) - 1]


def _manifest(experiment: Path) -> dict[str, Any]:
    path = experiment / MANIFEST
    try:
        content: dict[str, Any] = read_json(path)
        for fit in content["fits"]:
            if absent := {"folder", "n", "draw", "seed", "train", "validation", "test"} - set(fit):
                raise KeyError(*sorted(absent))
        return content
    except (OSError, ValueError, KeyError, TypeError) as error:
        message = f"not a manifest of adapted models: {type(error).__name__} {error}"
        raise InputError(Problem(str(path), "", message, "rerun adapt for this experiment")) from None


def _best(source: Path, experiments: list[Path]) -> Picked:
    """Pick by validation: of the largest n the experiment with the lowest mean loss, of this the fit."""
    manifests = {folder: _manifest(folder) for folder in experiments}
    n = max(fit["n"] for manifest in manifests.values() for fit in manifest["fits"])
    losses: dict[Path, list[tuple[float, dict[str, Any]]]] = {}
    for folder, manifest in manifests.items():
        fits = [fit for fit in manifest["fits"] if fit["n"] == n]
        known = [(float(fit.get("validation_loss", math.nan)), fit) for fit in fits]
        if known and not any(math.isnan(loss) for loss, _ in known):
            losses[folder] = known
    if not losses and len(experiments) == 1:
        folder, manifest = next(iter(manifests.items()))
        fit = min((fit for fit in manifest["fits"] if fit["n"] == n), key=lambda fit: (fit["draw"], fit["seed"]))
        why = f"{folder.name}, {fit['folder']}: the first fit of the largest n; none has a validation"
        return Picked(_root(folder), folder, manifest, fit, why)
    if not losses:
        message = f"no experiment has a loss in validation for all fits of n {n}, so there is nothing to choose by"
        raise InputError(Problem(str(source), "", message, "name an experiment or a fit"))
    means = {folder: sum(loss for loss, _ in known) / len(known) for folder, known in losses.items()}
    best = min(means, key=lambda folder: (means[folder], folder.name))
    loss, fit = min(losses[best], key=lambda item: (item[0], item[1]["draw"], item[1]["seed"]))
    others = len(experiments) - len(losses)
    left_out = f" ({others} without a validation left out)" if others else ""
    of = f"of {len(losses)} experiments" if len(losses) > 1 else "of the only experiment"
    why = (
        f"{best.name}, {fit['folder']}: of n {n}, the largest, the lowest mean validation loss "
        f"({means[best]:.3f}) {of}{left_out}, and the lowest of its {len(losses[best])} fits ({loss:.3f}); "
        "test scores were not looked at"
    )
    return Picked(_root(best), best, manifests[best], fit, why)
