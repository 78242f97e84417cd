"""Tool corpus: the runs of upstream datasets in one file that trainings map, and the linear fits to them."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from boldly.files import is_url
from boldly.records import InputError, Problem
from boldly.samples.packed import FRAMES, TABLE, is_current, open_packed, pack
from boldly.samples.remote import shown
from boldly.samples.shards import subject_shards
from boldly.samples.splits import UpstreamSplit, kept_apart, read_split
from boldly.training.linear import fit_linear, linear_name, made_of, write_linear

logger = logging.getLogger(__name__)


def run(*, data: list[tuple[Path, Path | str]], output: Path, share: float = 1.0, threads: int = 1) -> None:
    """Pack the runs of the training and validation subjects of datasets, and fit linear forecasts to them.

    Parameters
    ----------
    data : list of (Path, Path or str)
        Split JSON and shard folder of each dataset.
    output : Path
        Folder to write (see `boldly.samples.packed`); one that is up to date stays as it is.
    share : float, default=1.0
        Share of the training subjects of each dataset that the fits are for (`subjects_fraction` of an
        experiment); they are written into `output`, to a file of `boldly.training.linear.linear_name`.
    threads : int, default=1
        Shards that are read at the same time.

    Raises
    ------
    InputError
        For shards at web addresses, damaged ones, and those whose contracts differ.
    """
    problems = [
        Problem(shown(shards), "", "shards at a web address are not packed", "name a folder, or train without")
        for _, shards in data
        if is_url(shards)
    ]
    if problems:
        raise InputError(problems)
    splits = sorted(
        ((read_split(split, "upstream"), Path(shards)) for split, shards in data), key=lambda item: item[0].dataset
    )
    apart = kept_apart([split for split, _ in splits])
    splits = [(split, shards) for split, (_, shards) in zip(apart, splits, strict=True)]
    training = [path for split, shards in splits for path in _paths(split, split.share(share), shards)]
    validation = [path for split, shards in splits for path in _paths(split, split.validation, shards)]
    everything = [
        path for split, shards in splits for path in _paths(split, (*split.train, *split.validation), shards)
    ]
    _check_folder(output)
    started = time.monotonic()
    if not is_current(output, everything):
        pack(everything, output, threads=threads)
    packed = open_packed(output)
    corpus = packed.corpus(training)
    logger.info("%d runs to train on, %.1f s", len(corpus), time.monotonic() - started)
    fits = fit_linear(corpus, packed.corpus(validation) if validation else None)
    known = made_of(packed.identities(training), packed.identities(validation))
    write_linear(output / linear_name(share), fits, known)
    logger.info("linear forecasts, %.1f s", time.monotonic() - started)


def _check_folder(output: Path) -> None:
    """Refuse to replace a folder that holds anything but a corpus."""
    # What begins with a dot was left by a killed process, and goes with the folder.
    known = (FRAMES, TABLE, linear_name("*"), ".*")
    others = sorted(item.name for item in output.glob("*") if not any(map(item.match, known)))
    if others:
        message = f"it holds {', '.join(others[:3])}: not a folder of packed runs, which would be replaced"
        raise InputError(Problem(str(output), "", message, "name a folder of its own (--output)"))


def _paths(split: UpstreamSplit, subjects: tuple[str, ...], shards: Path) -> list[Path]:
    return [path for subject in subjects for path in subject_shards(shards, split.dataset, subject)]
