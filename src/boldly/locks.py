"""One process after the other, where several may want to write the same files."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

logger = logging.getLogger(__name__)

# Longer than most waits: who waits longer is told what for.
_TELL_AFTER_S = 60.0


@contextmanager
def one_at_a_time(lock: Path) -> Iterator[None]:
    """Keep other processes out of the block until it ends, on this machine and others.

    Parameters
    ----------
    lock : Path
        File that stands for the block; its folder exists.

    Notes
    -----
    The lock of a process that was killed is free, except on file systems without locks (some mounts of Lustre):
    there it is the file that counts, and one that a killed job of another node left has to be deleted by hand. The
    message after a minute says so.
    """
    turn = FileLock(lock)
    try:
        turn.acquire(timeout=_TELL_AFTER_S)
    except Timeout:
        message = "waits for another process that holds %s; if none is running any more, delete this file"
        logger.warning(message, lock)
        turn.acquire()
    try:
        yield
    finally:
        turn.release()
