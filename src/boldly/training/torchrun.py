"""torchrun as `boldly launch` starts it: what the process says that fails first is the last word.

torchrun ends with a report on all processes, forty lines that hide why one of them failed. Here the first process
of a node that finds something wrong with the input says so, the others end without a word, and one that could
say nothing, because it was killed, is named.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
from pathlib import Path

from torch.distributed import run
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from boldly.records import SPEAKER


def main(arguments: list[str]) -> int:
    """Start the processes, and wait for them.

    Parameters
    ----------
    arguments : list of str
        Those of torchrun.

    Returns
    -------
    int
        Exit status: of the process that failed first, as a shell says it; 0 if none did.
    """
    logging.disable(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="boldly-") as folder:
        os.environ[SPEAKER] = str(Path(folder, "speaker"))
        try:
            run.run(run.parse_args(arguments))
        except ChildFailedError as error:
            rank, failure = error.get_first_failure()
            if failure.exitcode >= 0:
                return failure.exitcode
            killed = signal.Signals(-failure.exitcode)
            print(f"boldly: process {rank} was ended by {killed.name}{_REASONS.get(killed, '')}", file=sys.stderr)
            return 128 + killed
        except SignalException as asked:
            return 128 + asked.sigval
    return 0


# What a signal often means.
_REASONS = {signal.SIGKILL: ", as the system does where memory is used up"}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
