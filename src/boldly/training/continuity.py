"""A check before the first step: frames that follow one another in the windows do so in the runs as well.

Signals from functional MRI change slowly, so that neighbouring frames are alike. Where frames get out of order
between the shards and the network, a training runs through without an error and learns nothing. The lag-1
autocorrelation of the windows shows it: here it is compared with that of the same runs, read again from their
shards sample by sample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from boldly.records import InputError, Problem
from boldly.samples.remote import shown
from boldly.samples.sample import frame_numbers
from boldly.samples.shards import read_shard
from boldly.samples.windows import Windows
from boldly.words import listed

Floats = NDArray[np.float32]

# Windows that are looked through for those of the chosen subjects, and how many of these are cut for each dataset.
_SEARCHED = 1 << 16
_WINDOWS = 256
# Datasets that are checked: each costs the reading of the shards of one subject or a few.
_MOST_DATASETS = 12
# Windows hold only a part of a run, so the two numbers may differ by this much, plus four standard errors.
# Scrambled frames differ by the whole autocorrelation, which is 0.5 or more in functional MRI.
_TOLERANCE = 0.15


@dataclass
class _Products:
    """For each window the sums over pairs of neighbouring values: of their products, and of their squares."""

    lagged: list[float] = field(default_factory=list)
    power: list[float] = field(default_factory=list)

    def add(self, frames: Floats) -> None:
        """Add frames (T, P) without their mean over time."""
        before, after = frames[:-1], frames[1:]
        self.lagged.append(float(np.vdot(before, after)))
        self.power.append(float(np.vdot(before, before) + np.vdot(after, after)) / 2)

    def autocorrelation(self) -> tuple[float, float]:
        """Return the pooled lag-1 autocorrelation, and its standard error over windows."""
        lagged, power = np.array(self.lagged), np.array(self.power)
        total = max(float(power.sum()), float(np.finfo(float).tiny))
        value = float(lagged.sum()) / total
        return value, float(np.sqrt(np.square(lagged - value * power).sum())) / total


def check_continuity(
    windows: Windows, shards: Callable[[str, str], Iterable[Path | str]], *, subjects: int = 4
) -> None:
    """Refuse windows whose lag-1 autocorrelation is not that of the runs that they are cut from.

    Of each dataset a few subjects are looked at: those of the first windows. Their runs are read again from the
    shards, and the means of these runs over time are taken from both sides. Autocorrelations are pooled over
    parcels and subjects.

    Parameters
    ----------
    windows : Windows
        As the training cuts them.
    shards : callable
        Dataset and subject to the shards of the subject.
    subjects : int, default=4
        Subjects that the datasets share; at least one of each, but of no more than twelve datasets.

    Raises
    ------
    InputError
        With dataset, shard and both numbers, for each dataset whose windows are out of order.
    """
    # Also those behind the end of a short training: a few windows alone would say little.
    searched = np.arange(_SEARCHED)
    runs = windows.runs(searched)  # type: ignore[arg-type]
    corpus, problems = windows.corpus, []
    people = np.unique(list(zip(corpus.datasets, corpus.subjects, strict=True)), axis=0, return_inverse=True)
    first_seen = dict.fromkeys(people[1].ravel()[runs].tolist())
    by_dataset: dict[str, list[int]] = {}
    for person in first_seen:
        by_dataset.setdefault(str(people[0][person][0]), []).append(person)
    share = max(1, subjects // len(by_dataset))
    for dataset, found in sorted(list(by_dataset.items())[:_MOST_DATASETS]):
        chosen = found[:share]
        numbers = searched[np.isin(people[1].ravel()[runs], chosen)][:_WINDOWS]
        paths = [path for person in chosen for path in shards(dataset, str(people[0][person][1]))]
        problem = _compare(windows, numbers, dataset, paths)
        problems += [problem] if problem else []
    if problems:
        raise InputError(problems)


def _compare(
    windows: Windows, numbers: NDArray[np.int64], dataset: str, paths: list[Path | str]
) -> Problem | None:
    """Compare windows with the runs that they are cut from."""
    keys = [windows.corpus.keys[run] for run in windows.runs(numbers)]  # type: ignore[arg-type]
    whole, cut = _Products(), _Products()
    means: dict[str, Floats] = {}
    for path in paths:
        for sample in read_shard(path):
            if sample.key in keys:
                frames = sample.bold.astype(np.float32)
                means[sample.key] = frames.mean(axis=0)
                gaps = np.flatnonzero(np.diff(frame_numbers(sample)) != 1) + 1
                for stretch in np.split(frames - means[sample.key], gaps):
                    whole.add(stretch)
    for key, frames in zip(keys, _cut(windows, numbers), strict=True):
        cut.add(frames - means[key])
    expected, (found, error) = whole.autocorrelation()[0], cut.autocorrelation()
    # Where a signal is not a number, so is the difference; the first steps of the training name such samples.
    if not abs(found - expected) > _TOLERANCE + 4 * error:
        return None
    return Problem(
        listed(map(shown, paths), 3),
        dataset,
        f"neighbouring frames of its training windows correlate with {found:.2f}, those of its runs with "
        f"{expected:.2f}: the order of the frames is lost between the shards and the network",
        "write the shards again (boldly shard); if the message stays, it is a defect of boldly: report it",
    )


def _cut(windows: Windows, numbers: NDArray[np.int64]) -> Iterator[Floats]:
    """Yield the real frames (T, P) of windows; of a pair those of its first window.

    Half of the windows are cut side by side, which pads them, the others one by one: two ways through memory.
    """
    together = numbers[: len(numbers) // 2].tolist()
    batches = [windows.__getitems__(together)] if together else []
    for batch in chain(batches, (windows[number] for number in numbers[len(together) :].tolist())):
        frames = batch["inputs"][:, : batch.get("split")].numpy()
        valid = batch["valid"].numpy() if "valid" in batch else np.ones(frames.shape[:2], bool)
        for window, real in zip(frames, valid[:, : frames.shape[1]], strict=True):
            yield window[real]
