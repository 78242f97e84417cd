"""Windows of a corpus that is never in memory as a whole: groups of shards follow one another.

The order of the shards is drawn anew for each pass over them; a group is the next few in that order. Each group is
cut for a fixed number of windows while the next one is read in the background. So the i-th window is still a pure
function of (seed, i), and a training that goes on reads the group that it stopped in, not those before.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from torch.utils.data import Dataset

from boldly.provenance import Contract, check_same
from boldly.samples.corpus import Corpus, load_corpus
from boldly.samples.remote import shown
from boldly.samples.windows import Batch, WindowOptions, Windows

# Shards that are read at the same time.
_THREADS = 4


class StreamedWindows(Dataset[Batch]):
    """The windows of a pretraining (see `Windows`), cut from a few shards at a time.

    Parameters
    ----------
    shards : sequence of Path or str
        Tars or their web addresses, in a fixed order.
    options : WindowOptions
        What to cut.
    seed : int
        Seed of the experiment: of the windows and of the order of shards.
    count : int
        Number of windows.
    group_shards : int
        Shards per group; two groups are in memory. With all shards in a group, windows are those of `Windows`.
    group_windows : int
        Windows cut from a group, a multiple of the batch size.
    load : callable, optional
        Shards to corpus; default: `load_corpus`.
    allow_mismatch : collection of str
        Contract fields in which shards may differ.
    contract : Contract, optional
        Of the shards that were read before an interruption; default: none were.
    on_contract : callable, optional
        Called with the contract of all shards read so far, whenever a group was read.

    Notes
    -----
    Within a group, runs are drawn in proportion to their frames; groups count alike.
    """

    def __init__(
        self,
        shards: Sequence[Path | str],
        options: WindowOptions,
        seed: int,
        count: int,
        *,
        group_shards: int,
        group_windows: int,
        load: Callable[[Sequence[Path | str]], Corpus] | None = None,
        allow_mismatch: Collection[str] = (),
        contract: Contract | None = None,
        on_contract: Callable[[Contract], None] | None = None,
    ) -> None:
        self.shards = tuple(shards)
        self.options = options
        self.seed = seed
        self.count = count
        self.group_shards = min(group_shards, len(self.shards))
        self.group_windows = group_windows
        self._load = load or partial(load_corpus, allow_mismatch=allow_mismatch, threads=_THREADS)
        self._allow_mismatch = allow_mismatch
        self._contract = contract
        self._on_contract = on_contract
        self._reader = ThreadPoolExecutor(1, "shards")
        self._groups: dict[tuple[int, ...], Future[Windows]] = {}

    @property
    def contract(self) -> Contract:
        """Contract of all shards that were read, those before an interruption included."""
        assert self._contract is not None
        return self._contract

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Batch:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Cut the windows with these numbers, all of one group."""
        return self.at(indices).__getitems__(indices)

    def keys(self, indices: Sequence[int]) -> list[str]:
        """Return the keys of the samples that windows of one group are cut from, sorted."""
        return self.at(indices).keys(indices)

    def at(self, indices: Sequence[int]) -> Windows:
        """Return the windows of the group that holds these numbers, and let the next group be read.

        Raises
        ------
        ValueError
            For numbers of several groups.
        InputError
            For shards that cannot be read, and those whose contract is not that of the shards before.
        """
        number, *others = sorted({index // self.group_windows for index in indices})
        if others:
            raise ValueError(f"windows {min(indices)} to {max(indices)} are not of one group")
        last = (self.count - 1) // self.group_windows
        wanted = [self.group(n) for n in range(number, min(number + 1, last) + 1)]
        # The order of insertion is the order of reading.
        self._groups = {group: self._groups.get(group) or self._submit(group) for group in wanted}
        return self._groups[wanted[0]].result()

    def group(self, number: int) -> tuple[int, ...]:
        """Return the numbers of the shards of a group, sorted; fewer where two passes over the shards meet."""
        n_shards, size = len(self.shards), self.group_shards
        places = range(number * size, (number + 1) * size)
        orders = {
            turn: np.random.default_rng([self.seed, turn]).permutation(n_shards)
            for turn in {place // n_shards for place in places}
        }
        return tuple(sorted({int(orders[place // n_shards][place % n_shards]) for place in places}))

    def close(self) -> None:
        """Read no more groups."""
        self._reader.shutdown(wait=False, cancel_futures=True)

    def _submit(self, group: tuple[int, ...]) -> Future[Windows]:
        return self._reader.submit(self._read, group)

    def _read(self, group: tuple[int, ...]) -> Windows:
        shards = [self.shards[number] for number in group]
        corpus = self._load(shards)
        known = self._contract or corpus.contract
        check_same(known, corpus.contract, shown(shards[0]), corpus.keys[0], self._allow_mismatch)
        self._contract = known.with_another(corpus.contract)
        if self._on_contract is not None:
            self._on_contract(self._contract)
        return Windows(corpus, self.options, self.seed, self.count)
