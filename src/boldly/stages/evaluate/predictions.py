"""Predictions of experiments: asked of the decoders once, kept while the job runs, and written as a table."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from boldly.files import atomic_path
from boldly.metrics import Integers
from boldly.provenance import file_sha256
from boldly.records import InputError, Problem
from boldly.samples.corpus import Corpus
from boldly.samples.splits import By
from boldly.stages.evaluate.manifests import MANIFEST, Decoder

logger = logging.getLogger(__name__)

Probabilities = NDArray[np.float32]

_HEAD = ("experiment", "n", "draw", "seed", "key", "run", "subject", "label", "label_name", "predicted")
# gzip: twice as fast as the default level, and the table is 5 % larger.
_LEVEL = 4


@dataclass(frozen=True)
class Trials:
    """What there is to know of the R test trials of all draws.

    Attributes
    ----------
    keys, runs, subjects : tuple of str, length R
        Sample key, run key and subject.
    labels : ndarray of int64, shape (R,)
        Their states.
    label_names : tuple of str
        Names of the states by label.
    by : {"subject", "run"}
        What a unit of the split is.
    """

    keys: tuple[str, ...]
    runs: tuple[str, ...]
    subjects: tuple[str, ...]
    labels: Integers
    label_names: tuple[str, ...]
    by: By

    @cached_property
    def units(self) -> NDArray[np.str_]:
        """Unit of each trial, shape (R,)."""
        return np.array(self.runs if self.by == "run" else self.subjects)

    @cached_property
    def unit_numbers(self) -> Integers:
        """Number of the unit of each trial in sorted order, shape (R,)."""
        return np.unique(self.units, return_inverse=True)[1]

    @cached_property
    def run_numbers(self) -> Integers:
        """Number of the run of each trial, shape (R,)."""
        return np.unique(self.runs, return_inverse=True)[1]

    def of(self, units: Iterable[str]) -> Integers:
        """Return the numbers of the trials of these units."""
        return np.flatnonzero(np.isin(self.units, list(units)))


def trials_of(corpus: Corpus, by: By) -> Trials:
    """Return the trials of a corpus without their signals."""
    return Trials(corpus.keys, corpus.runs, corpus.subjects, corpus.labels, corpus.label_names, by)


@dataclass(frozen=True)
class FitPredictions:
    """What one fit says of the test trials of its draw.

    Attributes
    ----------
    n : int
        Number of labelled units.
    draw, seed : str
        Draw, and seed of the whole training.
    trials : ndarray of int64, shape (T,)
        Numbers of the trials.
    predicted : ndarray of int64, shape (T,)
        The label given to each.
    probabilities : ndarray of float32, shape (T, L), or None
        Of each label; None for what names a label and nothing else.
    """

    n: int
    draw: str
    seed: str
    trials: Integers
    predicted: Integers
    probabilities: Probabilities | None


@dataclass(frozen=True)
class Experiment:
    """What is scored under one name: the predictions of all its fits."""

    name: str
    kind: str
    start: str
    fits: tuple[FitPredictions, ...]

    @property
    def sizes(self) -> list[int]:
        """All n, sorted."""
        return sorted({fit.n for fit in self.fits})

    def at(self, n: int) -> list[FitPredictions]:
        """Return the fits with n labelled units."""
        return [fit for fit in self.fits if fit.n == n]


class Parts:
    """Predictions of experiments in files of their own, so that a killed job goes on where it was.

    Parameters
    ----------
    folder : Path
        Folder of the files.
    shards : list of Path
        Shards of the test trials: predictions of others than these do not count.
    trials : Trials
        The test trials.
    """

    def __init__(self, folder: Path, shards: list[Path], trials: Trials) -> None:
        self.folder = folder
        self._inputs = "\n".join([*(f"{path.name} {file_sha256(path)}" for path in shards), *trials.keys])

    def read(self, decoder: Decoder) -> Probabilities | None:
        """Return the probabilities of all fits of an experiment, one behind the other; None if there are none."""
        try:
            with np.load(self._path(decoder), allow_pickle=False) as content:
                probabilities: Probabilities = content["probabilities"]
                return probabilities if str(content["signature"]) == self._signature(decoder) else None
        except FileNotFoundError:
            return None

    def write(self, decoder: Decoder, probabilities: Probabilities) -> None:
        """Keep the probabilities of all fits of an experiment, one behind the other."""
        with atomic_path(self._path(decoder)) as temporary:
            np.savez(temporary, probabilities=probabilities, signature=np.array(self._signature(decoder)))

    def _path(self, decoder: Decoder) -> Path:
        return self.folder / f"{decoder.name}.npz"

    def _signature(self, decoder: Decoder) -> str:
        manifest = file_sha256(decoder.folder / MANIFEST)
        return hashlib.sha256(f"{manifest}\n{self._inputs}".encode()).hexdigest()


def predict(decoder: Decoder, corpus: Corpus, trials: Trials, parts: Parts) -> Experiment:
    """Return the predictions of an experiment: each fit's of the test trials of its draw.

    Parameters
    ----------
    decoder : Decoder
        The experiment.
    corpus : Corpus
        The test trials of all draws, R of them.
    trials : Trials
        The same without their signals.
    parts : Parts
        Where predictions are kept, and taken from if the experiment was predicted before the job was killed.

    Raises
    ------
    InputError
        For predictions of another shape, or that are not probabilities.
    """
    chosen = [trials.of(fit.draw.test) for fit in decoder.fits]
    probabilities = parts.read(decoder)
    if probabilities is None:
        probabilities = _ask(decoder, corpus, chosen)
        parts.write(decoder, probabilities)
    logger.info("%s: %d fits predicted", decoder.name, len(decoder.fits))
    blocks = np.split(probabilities, np.cumsum([len(numbers) for numbers in chosen])[:-1])
    return Experiment(
        decoder.name,
        decoder.kind,
        decoder.start,
        tuple(
            FitPredictions(fit.draw.n, str(fit.draw.draw), str(fit.seed), numbers, block.argmax(axis=1), block)
            for fit, numbers, block in zip(decoder.fits, chosen, blocks, strict=True)
        ),
    )


def _ask(decoder: Decoder, corpus: Corpus, chosen: list[Integers]) -> Probabilities:
    """Let all fits of an experiment predict; return the probabilities of the trials chosen for each fit."""
    from boldly.decoders.apply import predict_fits  # torch: not before the inputs are known to be good

    blocks: list[Probabilities | None] = [None] * len(decoder.fits)
    places = {fit.folder: place for place, fit in enumerate(decoder.fits)}
    for name, probabilities in predict_fits(decoder.folder, list(places), corpus):
        _check(probabilities, corpus, decoder.folder / name)
        # The rows of this draw alone: those of all trials, of all fits, would fill the memory.
        blocks[places[name]] = np.asarray(probabilities, np.float32)[chosen[places[name]]]
    there = [block for block in blocks if block is not None]
    assert len(there) == len(blocks), "predict_fits yields every fit that it is asked for"
    return np.concatenate(there)


def _check(probabilities: np.ndarray, corpus: Corpus, folder: Path) -> None:
    expected = (len(corpus), len(corpus.label_names))
    # nan is not close to 1.
    if probabilities.shape != expected or not np.allclose(probabilities.sum(axis=1), 1, atol=1e-3):
        message = f"predicts shape {probabilities.shape} (expected {expected}), or rows that do not sum to 1"
        raise InputError(Problem(str(folder), "", message, "rerun adapt: labels changed or training diverged"))


def write_predictions(path: Path, experiments: list[Experiment], trials: Trials) -> None:
    """Write one row per fit and test trial: the label given, and the probability of each label (`p_<label name>`).

    A study of 26 states, 4,900 test trials, 12 experiments and 20 fits has 1.2 million rows and half a gigabyte of
    text; so the table is compressed, and its digits are written as arrays (``benchmarks/evaluate.py``). The same
    predictions give the same bytes.

    Parameters
    ----------
    path : Path
        File to write, .tsv.gz.
    experiments : list of Experiment
        With probabilities.
    trials : Trials
        The test trials.
    """
    columns = [*_HEAD, *(f"p_{name}" for name in trials.label_names)]
    of_trial = [
        _line(key, run, subject, label, trials.label_names[label])
        for key, run, subject, label in zip(
            trials.keys, trials.runs, trials.subjects, trials.labels.tolist(), strict=True
        )
    ]
    with (
        atomic_path(path) as temporary,
        temporary.open("wb") as file,
        # Neither the time nor the temporary name of the file: they would differ between runs.
        gzip.GzipFile("", "wb", _LEVEL, file, mtime=0) as stream,
    ):
        stream.write(_line(*columns) + b"\n")
        for experiment in experiments:
            for fit in experiment.fits:
                stream.write(_rows(experiment.name, fit, of_trial))


def _line(*cells: object) -> bytes:
    """Return cells between tabs, quoted as pandas reads them."""
    text = io.StringIO()
    csv.writer(text, delimiter="\t", lineterminator="").writerow(cells)
    return text.getvalue().encode()


def _rows(name: str, fit: FitPredictions, of_trial: list[bytes]) -> bytes:
    assert fit.probabilities is not None
    head = _line(name, fit.n, fit.draw, fit.seed)
    digits = _digits(fit.probabilities)
    width = digits.shape[1]
    block = digits.tobytes()
    return b"".join(
        b"%b\t%b\t%d\t%b" % (head, of_trial[trial], predicted, block[width * row : width * (row + 1)])
        for row, (trial, predicted) in enumerate(zip(fit.trials.tolist(), fit.predicted.tolist(), strict=True))
    )


def _digits(probabilities: Probabilities) -> NDArray[np.uint8]:
    """Return probabilities (T, L) as text, shape (T, 9 L): ``0.123456`` and a tab each, the last a line's end."""
    millionths = np.rint(probabilities.astype(np.float64) * 1e6).astype(np.int32)
    text = np.empty((*probabilities.shape, 9), np.uint8)
    for place in (7, 6, 5, 4, 3, 2, 0):
        text[..., place] = millionths % 10 + ord("0")
        millionths //= 10
    text[..., 1] = ord(".")
    text[..., 8] = ord("\t")
    text[:, -1, 8] = ord("\n")
    return text.reshape(len(text), -1)
