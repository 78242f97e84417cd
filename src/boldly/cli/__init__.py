"""The command line: one sub-command per stage, and the tools beside them.

Each module has `add(commands)`, which registers its sub-commands with their arguments and handlers. What takes
long to import is imported inside handlers.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path

from boldly import __version__
from boldly.cli import decoding, explain, learning, preparation, report, sharing, site, tools
from boldly.cli.arguments import Parser
from boldly.records import SPEAKER, InputError

# In the order of `boldly --help`.
MODULES = (preparation, learning, decoding, explain, sharing, tools, site, report)


def main(arguments: list[str] | None = None) -> int:
    """Run one sub-command.

    Parameters
    ----------
    arguments : list of str, optional
        Default: those of the process.

    Returns
    -------
    int
        Exit status: 0, or 1 for bad input, which is printed with file, entity and way out, and for files that
        cannot be read or written.
    """
    args = parser().parse_args(arguments)
    # Processes that train together would all say the same.
    level = logging.INFO if os.environ.get("RANK", "0") == "0" else logging.WARNING
    logging.basicConfig(
        level=level, format="%(asctime)s %(name)s: %(message)s", datefmt="%H:%M:%S", stream=sys.stderr
    )
    logging.getLogger("accelerate").setLevel(logging.WARNING)  # it tells of every file of a checkpoint
    try:
        args.command(args)
    except InputError as error:
        _say(error.for_terminal())
        return 1
    except BrokenPipeError:
        # Whoever reads has read enough: `boldly inspect ... | head`.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        # A full disk, a file that may not be read: no fault of the program, so no traceback.
        where = f"\n    file: {error.filename}" if error.filename else ""
        _say(f"{error.strerror or error}{where}")
        return 1
    return 0


def _say(message: str) -> None:
    """Print an error; of processes that train together (`boldly launch`) the first to fail speaks for all."""
    if speaker := os.environ.get(SPEAKER):
        try:
            Path(speaker).touch(exist_ok=False)
        except FileExistsError:
            return
    print(f"boldly: {message}", file=sys.stderr)


def parser() -> argparse.ArgumentParser:
    """Return the parser of all sub-commands."""
    whole = Parser(prog="boldly", description="From fMRIPrep derivatives to trained decoders of mental states.")
    whole.add_argument("--version", action="version", version=f"boldly {__version__}")
    commands = whole.add_subparsers(title="stages, in order, and tools", metavar="COMMAND", required=True)
    for module in MODULES:
        module.add(commands)
    return whole
