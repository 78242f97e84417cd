"""Which decoders of an experiment are explained, and on which trials."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from boldly import bids
from boldly.config import ExplainOptions
from boldly.decoders.encoders import MANIFEST
from boldly.files import read_json
from boldly.records import InputError, Problem
from boldly.samples.corpus import Corpus


@dataclass(frozen=True)
class Fit:
    """A decoder of an experiment: its folder's name, and the units that it was not fitted to."""

    name: str
    units: tuple[str, ...]


@dataclass(frozen=True)
class Experiment:
    """An experiment whose decoders are explained.

    Attributes
    ----------
    name : str
        Name.
    folder : Path
        Folder of the fits and of ``encoders/``.
    fits : tuple of Fit
        Those that are explained.
    n : int or None
        Their number of labelled units; None where that is unknown.
    """

    name: str
    folder: Path
    fits: tuple[Fit, ...]
    n: int | None = None

    @property
    def subjects(self) -> set[str]:
        """Subjects whose shards are read; a unit that is a run names its subject."""
        return {bids.entities(unit).get("sub", unit) for fit in self.fits for unit in fit.units}


def read_experiment(folder: Path, dataset: str, options: ExplainOptions) -> Experiment:
    """Read which decoders adapt made, and choose some with the number of units that the options ask for.

    Raises
    ------
    InputError
        For a manifest that is none, is of another dataset, or has no decoder with this number of units.
    """
    path, remedy = folder / MANIFEST, "rerun adapt for this experiment"
    try:
        content = read_json(path)
        name, found = str(content["experiment"]), str(content["dataset"])
        fits = sorted(content["fits"], key=lambda fit: (fit["n"], fit["draw"], fit["seed"]))
        sizes = sorted({int(fit["n"]) for fit in fits})
        n = options.n or sizes[-1]
        chosen = [Fit(str(fit["folder"]), tuple(fit["test"])) for fit in fits if fit["n"] == n]
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        message = f"not a manifest of adapted models: {type(error).__name__} {error}"
        raise InputError(Problem(str(path), "", message, remedy)) from None
    if found != dataset:
        raise InputError(Problem(str(path), name, f"adapted on dataset {found}, not on {dataset}", remedy))
    if not chosen:
        message = f"no decoder of {n} labelled units (there are: {', '.join(map(str, sizes))})"
        raise InputError(Problem(str(path), name, message, "correct explain.n"))
    return Experiment(name, folder, tuple(_evenly(chosen, options.fits)), n)


def _evenly(fits: list[Fit], most: int) -> list[Fit]:
    """Choose some fits: draws and seeds change from one to the next."""
    places = np.unique(np.linspace(0, len(fits) - 1, min(most, len(fits))).round().astype(int))
    return [fits[place] for place in places]


def choose_trials(corpus: Corpus, units: tuple[str, ...], most: int, seed: int) -> NDArray[np.int64]:
    """Return the numbers of some trials of units: of each state as many as possible up to `most`, from all units.

    Parameters
    ----------
    corpus : Corpus
        Trials of these units and perhaps of others.
    units : tuple of str
        Subjects or run keys.
    most : int
        Most trials of a state.
    seed : int
        Seed of the choice within a unit.
    """
    owners = owners_of(corpus, units)
    rng = np.random.default_rng(seed)
    # In random order within units, then the first of each unit, the second of each, and so on.
    order = rng.permutation(np.flatnonzero(np.isin(owners, units)))
    chosen: list[int] = []
    for label in np.unique(corpus.labels[order]):
        own = order[corpus.labels[order] == label]
        turn = np.zeros(len(own), np.int64)
        for unit in np.unique(owners[own]):
            mine = owners[own] == unit
            turn[mine] = np.arange(mine.sum())
        chosen += own[np.lexsort((owners[own], turn))][:most].tolist()
    return np.sort(np.array(chosen, np.int64))


def owners_of(corpus: Corpus, units: tuple[str, ...]) -> NDArray[np.str_]:
    """Return the unit of each trial: its run where units are runs, else its subject."""
    by_run = not set(units).isdisjoint(corpus.runs)
    return np.array(corpus.runs if by_run else corpus.subjects)
