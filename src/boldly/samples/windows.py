"""Windows cut from a corpus: the i-th window of an experiment is a pure function of (seed, i).

Whole batches are cut at once, without a loop over samples: numbers are drawn by hashing (seed, i), frames are
gathered with one index. Workers, ranks and restarts therefore see the same windows.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from boldly.records import InputError, Problem
from boldly.samples.corpus import Corpus
from boldly.samples.cuts import Batch, Bools, Cut, Floats, Frames, Numbers, Stream, as_batch, below, uniform
from boldly.samples.hiding import group_of_parcels, hide

__all__ = [
    "TRIALS_PER_BATCH",
    "Batch",
    "Trials",
    "WindowOptions",
    "Windows",
    "group_of_parcels",
    "number_of",
    "to_device",
]

# Trials are short; so many fit any machine.
TRIALS_PER_BATCH = 256


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Move the tensors of a batch."""
    return {name: value.to(device) if isinstance(value, torch.Tensor) else value for name, value in batch.items()}


@dataclass(frozen=True)
class WindowOptions:
    """What an objective wants to see.

    Attributes
    ----------
    shortest, longest : int
        Range of window lengths, frames, both included.
    batch_size : int
        Consecutive windows that share a length, so that batches need no padding.
    pairs : bool
        Two windows A and B per item, B the continuation of A or from another run.
    masking : {"none", "frames", "parcels", "blocks", "one_frame", "coin"}
        What is hidden: spans of frames, parcels over all time, blocks of groups of parcels and frames, one frame
        but the first, or all frames of a batch by the toss of a coin.
    mask_fraction : float
        Share that is hidden.
    mask_span : int
        Length of the hidden spans, frames.
    parcel_groups : int
        Groups of parcels that blocks are made of (see `group_of_parcels`).
    largest_gap : int
        Most frames left out between A and a B that follows it (fewest: 1).
    stepped_onsets : bool
        Windows start at multiples of their length.
    restart_clock : bool
        B starts at 0 s as A does, instead of at the time that it would have as the continuation of A.
    tell_dataset : bool
        A batch says of which dataset each window is (single windows).
    """

    shortest: int
    longest: int
    batch_size: int
    pairs: bool = False
    masking: Literal["none", "frames", "parcels", "blocks", "one_frame", "coin"] = "none"
    mask_fraction: float = 0.2
    mask_span: int = 4
    parcel_groups: int = 8
    largest_gap: int = 4
    stepped_onsets: bool = False
    restart_clock: bool = False
    tell_dataset: bool = False


def number_of(dataset: str) -> int:
    """Return the number that stands for a dataset in a batch: the CRC-32 of its name."""
    return zlib.crc32(dataset.encode())


class Windows(Dataset[Batch]):
    """The windows of a pretraining, cut a batch at a time.

    A batch holds `inputs` (B, L, P) float32, `seconds` (B, L) float32 since the first frame, `t_r` (B,) float32 s
    and `marked` (B, P) bool; `valid` (B, L) bool if some windows are shorter than others (absent: all frames are
    real); `dataset` (B,) int64 (see `number_of`), `masked` (B, L) or (B, P) bool, and for pairs `split` (int,
    number of frames of A) and `follows` (B,) float32, if the options ask for them.

    No window bridges a gap that scrubbing left: each is cut from frames that follow one another, of which a run
    may have several stretches (`Corpus.stretches`).

    Parameters
    ----------
    corpus : Corpus
        Runs.
    options : WindowOptions
        What to cut.
    seed : int
        Seed of the experiment.
    count : int
        Number of windows.

    Raises
    ------
    InputError
        If no run is long enough, and for more groups of parcels than parcels.
    """

    def __init__(self, corpus: Corpus, options: WindowOptions, seed: int, count: int) -> None:
        self.corpus = corpus
        self._frames = Frames(corpus)
        self.options = options
        self.seed = seed
        self.count = count
        needed = 2 * options.shortest + options.largest_gap if options.pairs else options.shortest
        first, end, sample = corpus.stretches
        usable = np.flatnonzero(end - first >= needed)
        if not len(usable):
            longest = int((end - first).max(initial=0))
            raise InputError(
                Problem(
                    f"{len(corpus)} runs, the longest of {longest} frames without a gap",
                    ", ".join(sorted(set(corpus.datasets))),
                    f"no run has the {needed} frames that the shortest windows need",
                    "lower pretrain.experiments.<name>.window_frames",
                )
            )
        n_parcels = corpus.frames.shape[1]
        if options.masking == "blocks" and options.parcel_groups > n_parcels:
            message = f"{n_parcels} parcels cannot be parted into {options.parcel_groups} groups"
            where = "pretrain.experiments.<name>.parcel_groups"
            raise InputError(Problem(where, ", ".join(sorted(set(corpus.datasets))), message, "lower it"))
        # In the order of datasets, so that "another run of the same dataset" is a number in a range.
        names = np.array(corpus.datasets)[sample[usable]]
        usable = usable[np.argsort(names, kind="stable")]
        self._first: Numbers = first[usable]
        self._length: Numbers = (end - first)[usable]
        self._run: Numbers = sample[usable]
        self._group_first, self._group_size = _groups(np.sort(names))
        # Those of one run, which are no "other run", stand side by side.
        self._run_first, self._run_size = _groups(self._run)
        self._ends = np.cumsum(self._length)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Batch:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Cut the windows with these numbers."""
        index: Numbers = np.asarray(indices, np.int64)
        batch = self._pairs(index) if self.options.pairs else self._singles(index)
        if self.options.tell_dataset:
            numbers = [number_of(self.corpus.datasets[run]) for run in self.runs(indices)]
            batch["dataset"] = torch.tensor(numbers)
        batch |= hide(self.options, self.seed, index, batch)
        return batch

    def runs(self, indices: Sequence[int]) -> Numbers:
        """Return the run that each window is cut from (of a pair: its A), as numbers in the corpus."""
        return self._run[self._draw_stretch(np.asarray(indices, np.int64))]

    def keys(self, indices: Sequence[int]) -> list[str]:
        """Return the keys of the samples that windows are cut from, sorted as in the corpus."""
        return [self.corpus.keys[run] for run in sorted(set(self.runs(indices)))]

    def _draw(self, index: Numbers, *streams: int) -> Floats:
        """Draw numbers in [0, 1) for several streams at once, shape (S, B)."""
        return uniform(self.seed, index, np.array(streams)[:, None])

    def _draw_stretch(self, index: Numbers) -> Numbers:
        """Draw places in the list of usable stretches, in proportion to their frames."""
        return np.searchsorted(self._ends, below(self._draw(index, Stream.RUN)[0], self._ends[-1]), side="right")

    def _draw_lengths(self, index: Numbers, *streams: int) -> Numbers:
        options = self.options
        drawn = self._draw(index // options.batch_size, *streams)
        return options.shortest + below(drawn, options.longest - options.shortest + 1)

    def _onset(self, drawn: Floats, last: Numbers, length: Numbers) -> Numbers:
        """Turn numbers in [0, 1) into first frames from 0 to `last`."""
        step = length if self.options.stepped_onsets else 1
        return step * below(drawn, last // step + 1)

    def _singles(self, index: Numbers) -> Batch:
        place = self._draw_stretch(index)
        run, available = self._run[place], self._length[place]
        length = np.minimum(self._draw_lengths(index, Stream.LENGTH)[0], available)
        onset = self._onset(self._draw(index, Stream.ONSET)[0], available - length, length)
        cut = Cut(run, self._first[place] + onset, length)
        frames, (valid,) = self._frames(cut)
        t_r = self.corpus.t_r[run]
        seconds = np.arange(frames.shape[1]) * t_r[:, None]
        return as_batch(frames, valid, seconds, t_r, self.corpus.marked[run])

    def _pairs(self, index: Numbers) -> Batch:
        first, second, gap, follows = self._draw_pairs(index)
        frames, (valid_a, valid_b) = self._frames(first, second)
        t_r = self.corpus.t_r[first.run]
        # The clock of A goes on in B, as if B followed: elapsed time does not give the answer away.
        seconds_a = np.arange(valid_a.shape[1]) * t_r[:, None]
        start_b = (first.length + gap) * t_r * (not self.options.restart_clock)
        seconds_b = start_b[:, None] + np.arange(valid_b.shape[1]) * self.corpus.t_r[second.run][:, None]
        batch = as_batch(
            frames,
            np.concatenate([valid_a, valid_b], axis=1),
            np.concatenate([seconds_a, seconds_b], axis=1),
            t_r,
            self.corpus.marked[first.run] | self.corpus.marked[second.run],
        )
        return {**batch, "split": valid_a.shape[1], "follows": torch.from_numpy(follows).float()}

    def _draw_pairs(self, index: Numbers) -> tuple[Cut, Cut, Numbers, Bools]:
        options = self.options
        streams = (Stream.ONSET, Stream.FOLLOWS, Stream.GAP, Stream.OTHER_RUN, Stream.OTHER_ONSET)
        onset, coin, drawn_gap, other_run, other_onset = self._draw(index, *streams)
        place = self._draw_stretch(index)
        gap = 1 + below(drawn_gap, options.largest_gap)
        # Where a stretch is too short for both, they share what there is.
        room = self._length[place] - gap
        wanted_a, wanted_b = self._draw_lengths(index, Stream.LENGTH, Stream.SECOND_LENGTH)
        shared = np.clip(room * wanted_a // (wanted_a + wanted_b), options.shortest, room - options.shortest)
        length_a = np.where(wanted_a + wanted_b > room, shared, wanted_a)
        length_b = np.minimum(wanted_b, room - length_a)
        onset_a = self._onset(onset, room - length_a - length_b, length_a)

        follows = coin < 0.5
        # Another run of the dataset; a dataset with one run gives another place of that run.
        own = self._run_size[place]
        step = own + below(other_run, np.maximum(self._group_size[place] - own, 1))
        place_in_group = (self._run_first[place] - self._group_first[place] + step) % self._group_size[place]
        place_b = np.where(follows, place, self._group_first[place] + place_in_group)
        length_b = np.minimum(length_b, self._length[place_b])
        anywhere = self._onset(other_onset, self._length[place_b] - length_b, length_b)
        onset_b = np.where(follows, onset_a + length_a + gap, anywhere)
        cut_a, cut_b = (
            Cut(self._run[where], self._first[where] + onset, length)
            for where, onset, length in ((place, onset_a, length_a), (place_b, onset_b, length_b))
        )
        return cut_a, cut_b, gap, follows


def _groups(names: NDArray[Any]) -> tuple[Numbers, Numbers]:
    """Return for each item of a list, in which equal ones stand together, the first like it and their number."""
    first = np.flatnonzero(np.append(True, names[1:] != names[:-1]))
    size = np.diff(np.append(first, len(names)))
    return np.repeat(first, size), np.repeat(size, size)


class Trials(Dataset[Batch]):
    """The trials of a decoder's training, in a new order each epoch, or in their own order for scoring.

    A trial keeps the clock of its run: where scrubbing left a gap, `seconds` leap over it. Batches are as those
    of `Windows` with `labels` (B,) int64 and, where there are some, `offsets` (B, labels).

    Parameters
    ----------
    corpus : Corpus
        Trials.
    longest : int
        Longer trials are cut behind this many frames.
    seed : int, optional
        Seed of order and crops; default: the order of the corpus, nothing cropped.
    count : int, optional
        Number of items; default: one epoch.
    shortest_crop : float, default=1
        Random crops keep at least this share of a trial; 1: no crops.
    offsets : ndarray, shape (R, labels), optional
        Logits that something else gives to each trial of the corpus.
    """

    def __init__(
        self,
        corpus: Corpus,
        longest: int,
        seed: int | None = None,
        count: int | None = None,
        shortest_crop: float = 1.0,
        offsets: Floats | None = None,
    ) -> None:
        self.corpus = corpus
        self._frames = Frames(corpus)
        self.longest = longest
        self.seed = seed
        self.count = len(corpus) if count is None else count
        self.shortest_crop = shortest_crop
        self._offsets = None if offsets is None else torch.from_numpy(offsets).float()

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Batch:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Cut the items with these numbers."""
        index: Numbers = np.asarray(indices, np.int64)
        trial = self.runs(indices)
        available = self.corpus.lengths[trial]
        length = np.minimum(available, self.longest)
        onset = np.zeros_like(length)
        if self.seed is not None and self.shortest_crop < 1:
            share = self.shortest_crop + (1 - self.shortest_crop) * uniform(self.seed, index, Stream.LENGTH)
            length = np.maximum(np.rint(length * share).astype(np.int64), 1)
            onset = (uniform(self.seed, index, Stream.ONSET) * (available - length + 1)).astype(np.int64)
        cut = Cut(trial, self.corpus.starts[trial] + onset, length)
        frames, (valid,) = self._frames(cut)
        t_r = self.corpus.t_r[trial]
        seconds = self._elapsed(cut, frames.shape[1]) * t_r[:, None]
        batch = as_batch(frames, valid, seconds, t_r, self.corpus.marked[trial])
        batch["labels"] = torch.from_numpy(self.corpus.labels[trial])
        if self._offsets is not None:
            batch["offsets"] = self._offsets[torch.from_numpy(trial)]
        return batch

    def keys(self, indices: Sequence[int]) -> list[str]:
        """Return the keys of the trials of some items, sorted as in the corpus."""
        return [self.corpus.keys[trial] for trial in sorted(set(self.runs(indices)))]

    def _elapsed(self, cut: Cut, longest: int) -> Numbers:
        """Return the frames of the run that have passed since the first of each trial, shape (B, longest)."""
        offset = np.arange(longest)
        if self.corpus.numbers is None:
            return offset[None]
        last = cut.length[:, None] - 1
        number = self.corpus.numbers[cut.first[:, None] + np.minimum(offset, last)]
        # Behind its end a trial goes on frame by frame.
        return number - number[:, :1] + np.maximum(offset - last, 0)

    def runs(self, indices: Sequence[int]) -> Numbers:
        """Return the trial of each item, as numbers in the corpus."""
        index: Numbers = np.asarray(indices, np.int64)
        place = index % len(self.corpus)
        if self.seed is None:
            return place
        # The order of an epoch is that of numbers drawn for its trials; all epochs of a batch are sorted at once.
        epochs, which = np.unique(index // len(self.corpus), return_inverse=True)
        numbers = epochs[:, None] * len(self.corpus) + np.arange(len(self.corpus))
        return np.argsort(uniform(self.seed, numbers, Stream.ORDER), axis=1)[which, place]
