"""Windows cut from a corpus: the i-th window of an experiment is a pure function of (seed, i).

Whole batches are cut at once, without a loop over samples: numbers are drawn by hashing (seed, i), frames are
gathered with one index. Workers, ranks and restarts therefore see the same windows.
"""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from boldly.records import InputError, Problem
from boldly.samples.corpus import Corpus

Batch = dict[str, Any]
Numbers = NDArray[np.int64]
Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]

# What a number is drawn for: draws with different streams are independent.
_RUN, _ONSET, _LENGTH, _SECOND_LENGTH, _FOLLOWS, _GAP, _OTHER_RUN, _OTHER_ONSET, _MASK, _PHASE, _ORDER = range(11)

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)

# More spans than any window has: makes (window, span) one number.
_MOST_SPANS = 1 << 20


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


@dataclass(frozen=True)
class _Cut:
    """Where B windows lie: sample (number in the corpus), first row of the corpus, length; each of shape (B,)."""

    run: Numbers
    first: Numbers
    length: Numbers


def uniform(seed: int, index: int | Numbers, stream: int | Numbers) -> Floats:
    """Draw numbers in [0, 1) as a pure function of the arguments.

    Seed, stream and index go one after the other through the finalizer of SplitMix64 (Steele, Lea & Flood 2014).

    Parameters
    ----------
    seed : int
        Seed of the experiment.
    index : int or ndarray of int64
        Number of the window, any shape.
    stream : int or ndarray of int64
        What the number is for; of a shape that goes with that of `index`.

    Returns
    -------
    ndarray of float64, shape of `index` and `stream` together
    """
    state = np.zeros((), np.uint64)
    with np.errstate(over="ignore"):
        for part in (seed, stream, index):
            state = state + (np.asarray(part, np.int64).astype(np.uint64) + np.uint64(1)) * _GOLDEN
            state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            state = state ^ (state >> np.uint64(31))
    return np.asarray((state >> np.uint64(11)).astype(np.float64) * 2.0**-53)


def number_of(dataset: str) -> int:
    """Return the number that stands for a dataset in a batch: the CRC-32 of its name."""
    return zlib.crc32(dataset.encode())


def _tensor(frames: NDArray[Any]) -> Tensor:
    """Return frames as a tensor without copying them; frames of a mapped file must not be written to."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writ", UserWarning)
        return torch.from_numpy(frames)


class _Frames:
    """Copies windows out of a corpus, by way of memory used again: fresh memory costs more than the copy."""

    def __init__(self, corpus: Corpus) -> None:
        self._source = _tensor(corpus.frames)
        self._room = self._source.new_empty(0)

    def __call__(self, *cuts: _Cut) -> tuple[Tensor, list[Bools]]:
        """Return windows, the cuts side by side.

        Returns
        -------
        frames : Tensor of float32, shape (B, L, P)
            L is the sum of the longest lengths of each cut; behind the end of shorter windows stand zeros.
        valid : list of ndarray of bool, shape (B, length)
            Real frames of each cut.
        """
        longest = [int(cut.length.max()) for cut in cuts]
        frames = torch.empty(len(cuts[0].run), sum(longest), self._source.shape[1])
        parts = frames.split(longest, dim=1)
        return frames, [self._copy(cut, part) for cut, part in zip(cuts, parts, strict=True)]

    def _copy(self, cut: _Cut, frames: Tensor) -> Bools:
        longest, n_parcels = frames.shape[1:]
        offset = np.arange(longest)
        valid = offset < cut.length[:, None]
        if valid.all():
            # Each window is one stretch of memory: all windows there could be, as rows that overlap.
            shape = (len(self._source) - longest + 1, longest * n_parcels)
            rows, index = self._source.as_strided(shape, (n_parcels, 1)), cut.first
        else:
            rows, index = self._source, (cut.first[:, None] + np.minimum(offset, cut.length[:, None] - 1)).ravel()
        if self._room.numel() < frames.numel():
            self._room = self._source.new_empty(frames.numel())
        room = self._room[: frames.numel()].view(len(index), -1)
        torch.index_select(rows, 0, torch.from_numpy(index), out=room)
        frames.copy_(room.view(frames.shape))
        if not valid.all():
            frames[torch.from_numpy(~valid)] = 0
        return valid


def _batch(frames: Tensor, valid: Bools, seconds: Floats, t_r: Floats, marked: Bools) -> Batch:
    batch: Batch = {
        "inputs": frames,
        "seconds": torch.from_numpy(seconds).float(),
        "t_r": torch.from_numpy(t_r).float(),
        "marked": torch.from_numpy(marked),
    }
    # Its absence tells the network, without a look at the values, that there is no padding.
    if not valid.all():
        batch["valid"] = torch.from_numpy(valid)
    return batch


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
        self._frames = _Frames(corpus)
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
        if self.options.masking == "frames":
            batch["masked"] = torch.from_numpy(self._mask_frames(index, batch))
        elif self.options.masking == "parcels":
            batch["masked"] = torch.from_numpy(self._mask_parcels(index, batch["marked"].numpy()))
        elif self.options.masking == "blocks":
            masked, batch["n_visible"] = self._mask_blocks(index, batch)
            batch["masked"] = torch.from_numpy(masked)
        elif self.options.masking == "one_frame":
            batch["masked"] = torch.from_numpy(self._mask_one_frame(index, batch))
        elif self.options.masking == "coin":
            coin = float(uniform(self.seed, index[0], _MASK))
            batch["masked"] = torch.full(batch["inputs"].shape[:2], coin < 0.5)
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
        return np.searchsorted(self._ends, _below(self._draw(index, _RUN)[0], self._ends[-1]), side="right")

    def _draw_lengths(self, index: Numbers, *streams: int) -> Numbers:
        options = self.options
        drawn = self._draw(index // options.batch_size, *streams)
        return options.shortest + _below(drawn, options.longest - options.shortest + 1)

    def _onset(self, drawn: Floats, last: Numbers, length: Numbers) -> Numbers:
        """Turn numbers in [0, 1) into first frames from 0 to `last`."""
        step = length if self.options.stepped_onsets else 1
        return step * _below(drawn, last // step + 1)

    def _singles(self, index: Numbers) -> Batch:
        place = self._draw_stretch(index)
        run, available = self._run[place], self._length[place]
        length = np.minimum(self._draw_lengths(index, _LENGTH)[0], available)
        onset = self._onset(self._draw(index, _ONSET)[0], available - length, length)
        cut = _Cut(run, self._first[place] + onset, length)
        frames, (valid,) = self._frames(cut)
        t_r = self.corpus.t_r[run]
        seconds = np.arange(frames.shape[1]) * t_r[:, None]
        return _batch(frames, valid, seconds, t_r, self.corpus.marked[run])

    def _pairs(self, index: Numbers) -> Batch:
        first, second, gap, follows = self._draw_pairs(index)
        frames, (valid_a, valid_b) = self._frames(first, second)
        t_r = self.corpus.t_r[first.run]
        # The clock of A goes on in B, as if B followed: elapsed time does not give the answer away.
        seconds_a = np.arange(valid_a.shape[1]) * t_r[:, None]
        start_b = (first.length + gap) * t_r * (not self.options.restart_clock)
        seconds_b = start_b[:, None] + np.arange(valid_b.shape[1]) * self.corpus.t_r[second.run][:, None]
        batch = _batch(
            frames,
            np.concatenate([valid_a, valid_b], axis=1),
            np.concatenate([seconds_a, seconds_b], axis=1),
            t_r,
            self.corpus.marked[first.run] | self.corpus.marked[second.run],
        )
        return {**batch, "split": valid_a.shape[1], "follows": torch.from_numpy(follows).float()}

    def _draw_pairs(self, index: Numbers) -> tuple[_Cut, _Cut, Numbers, Bools]:
        options = self.options
        streams = (_ONSET, _FOLLOWS, _GAP, _OTHER_RUN, _OTHER_ONSET)
        onset, coin, drawn_gap, other_run, other_onset = self._draw(index, *streams)
        place = self._draw_stretch(index)
        gap = 1 + _below(drawn_gap, options.largest_gap)
        # Where a stretch is too short for both, they share what there is.
        room = self._length[place] - gap
        wanted_a, wanted_b = self._draw_lengths(index, _LENGTH, _SECOND_LENGTH)
        shared = np.clip(room * wanted_a // (wanted_a + wanted_b), options.shortest, room - options.shortest)
        length_a = np.where(wanted_a + wanted_b > room, shared, wanted_a)
        length_b = np.minimum(wanted_b, room - length_a)
        onset_a = self._onset(onset, room - length_a - length_b, length_a)

        follows = coin < 0.5
        # Another run of the dataset; a dataset with one run gives another place of that run.
        own = self._run_size[place]
        step = own + _below(other_run, np.maximum(self._group_size[place] - own, 1))
        place_in_group = (self._run_first[place] - self._group_first[place] + step) % self._group_size[place]
        place_b = np.where(follows, place, self._group_first[place] + place_in_group)
        length_b = np.minimum(length_b, self._length[place_b])
        anywhere = self._onset(other_onset, self._length[place_b] - length_b, length_b)
        onset_b = np.where(follows, onset_a + length_a + gap, anywhere)
        cut_a, cut_b = (
            _Cut(self._run[where], self._first[where] + onset, length)
            for where, onset, length in ((place, onset_a, length_a), (place_b, onset_b, length_b))
        )
        return cut_a, cut_b, gap, follows

    def _mask_frames(self, index: Numbers, batch: Batch) -> Bools:
        """Hide the wanted number of frames in spans of `mask_span`, at least one and never all."""
        options = self.options
        n_frames = batch["inputs"].shape[1]
        valid = batch["valid"].numpy() if "valid" in batch else np.ones((len(index), n_frames), bool)
        phase = _below(self._draw(index, _PHASE)[0], options.mask_span)
        # Counted over real frames, so that the padding that the rest of the batch brings has no say.
        span = (valid.cumsum(axis=1) - 1 + phase[:, None]) // options.mask_span
        score = uniform(self.seed, index[:, None] * _MOST_SPANS + span, _MASK)
        chosen = _share(valid.sum(axis=1), options.mask_fraction)
        # A stable order keeps the items of one span, whose scores are equal, together.
        order = np.argsort(np.where(valid, score, np.inf), axis=1, kind="stable")
        hidden = np.zeros(score.shape, bool)
        np.put_along_axis(hidden, order, np.arange(n_frames) < chosen[:, None], axis=1)
        return hidden

    def _mask_parcels(self, index: Numbers, marked: Bools) -> Bools:
        """Hide the wanted number of unmarked parcels, at least one and never all."""
        n_parcels = marked.shape[1]
        score = uniform(self.seed, index[:, None] * n_parcels + np.arange(n_parcels), _MASK)
        score[marked] = np.inf
        chosen = _share((~marked).sum(axis=1), self.options.mask_fraction)
        # No two scores are equal: the highest of those chosen says which they are, without an order of all.
        return score <= np.take_along_axis(np.sort(score, axis=1), chosen[:, None] - 1, axis=1)

    def _mask_blocks(self, index: Numbers, batch: Batch) -> tuple[Bools, int]:
        """Hide the wanted number of tokens, each a group of parcels in a frame; return the most that stay visible.

        In every other window groups are hidden at all times, in the others blocks of one group and `mask_span`
        frames: the first asks for what parcels have in common, the second for how it goes on.
        """
        options = self.options
        n_frames, n_groups = batch["inputs"].shape[1], options.parcel_groups
        valid = batch["valid"].numpy() if "valid" in batch else np.ones((len(index), n_frames), bool)
        numbers = index[:, None] * n_groups + np.arange(n_groups)  # (B, G)
        phase = _below(uniform(self.seed, numbers, _PHASE), options.mask_span)
        span = (valid.cumsum(axis=1)[..., None] - 1 + phase[:, None]) // options.mask_span  # (B, L, G)
        span[index % 2 == 0] = 0
        score = uniform(self.seed, numbers[:, None] * _MOST_SPANS + span, _MASK)
        score = np.where(valid[..., None], score, np.inf).reshape(len(index), -1)
        there = valid.sum(axis=1) * n_groups
        chosen = _share(there, options.mask_fraction)
        order = np.argsort(score, axis=1, kind="stable")
        hidden = np.zeros(score.shape, bool)
        np.put_along_axis(hidden, order, np.arange(score.shape[1]) < chosen[:, None], axis=1)
        return hidden.reshape(-1, n_frames, n_groups), int((there - chosen).max())

    def _mask_one_frame(self, index: Numbers, batch: Batch) -> Bools:
        """Hide one real frame, not the first."""
        n_frames = batch["inputs"].shape[1]
        length = batch["valid"].numpy().sum(axis=1) if "valid" in batch else np.full(len(index), n_frames)
        return np.arange(n_frames) == 1 + _below(self._draw(index, _MASK)[0], length - 1)[:, None]


def group_of_parcels(n_parcels: int, n_groups: int) -> Numbers:
    """Return the group of each parcel (P,): every `n_groups`-th parcel is in the same one.

    Atlases list the parcels of a network one after the other. Each group therefore has some of most networks, and
    what is hidden of a network is said by its other parcels as well as by other networks.
    """
    return np.arange(n_parcels) % n_groups


def _groups(names: NDArray[Any]) -> tuple[Numbers, Numbers]:
    """Return for each item of a list, in which equal ones stand together, the first like it and their number."""
    first = np.flatnonzero(np.append(True, names[1:] != names[:-1]))
    size = np.diff(np.append(first, len(names)))
    return np.repeat(first, size), np.repeat(size, size)


def _below(drawn: Floats, limit: int | Numbers) -> Numbers:
    """Turn numbers in [0, 1) into whole numbers in [0, limit)."""
    return (drawn * limit).astype(np.int64)


def _share(available: Numbers, fraction: float) -> Numbers:
    """Return how many items are hidden: the wanted share of those that are there, at least one and never all."""
    return np.clip(np.rint(fraction * available), 1, available - 1).astype(np.int64)


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
        self._frames = _Frames(corpus)
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
            share = self.shortest_crop + (1 - self.shortest_crop) * uniform(self.seed, index, _LENGTH)
            length = np.maximum(np.rint(length * share).astype(np.int64), 1)
            onset = (uniform(self.seed, index, _ONSET) * (available - length + 1)).astype(np.int64)
        cut = _Cut(trial, self.corpus.starts[trial] + onset, length)
        frames, (valid,) = self._frames(cut)
        t_r = self.corpus.t_r[trial]
        seconds = self._elapsed(cut, frames.shape[1]) * t_r[:, None]
        batch = _batch(frames, valid, seconds, t_r, self.corpus.marked[trial])
        batch["labels"] = torch.from_numpy(self.corpus.labels[trial])
        if self._offsets is not None:
            batch["offsets"] = self._offsets[torch.from_numpy(trial)]
        return batch

    def keys(self, indices: Sequence[int]) -> list[str]:
        """Return the keys of the trials of some items, sorted as in the corpus."""
        return [self.corpus.keys[trial] for trial in sorted(set(self.runs(indices)))]

    def _elapsed(self, cut: _Cut, longest: int) -> Numbers:
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
        return np.argsort(uniform(self.seed, numbers, _ORDER), axis=1)[which, place]
