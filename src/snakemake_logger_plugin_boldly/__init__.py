"""What Snakemake reads as a config and is none: said in a sentence, before Snakemake stumbles over it.

``snakemake --configfile mine.yaml parcellate`` names two config files, since ``--configfile`` takes all words up
to the next option. The only code of a user's environment that Snakemake runs before it reads them is that of its
plugins; hence this one. It handles no log.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from logging import LogRecord

from snakemake_interface_logger_plugins.base import LogHandlerBase

_FLAGS = ("--configfile", "--configfiles")
_ENDINGS = (".yaml", ".yml", ".json")


class LogHandler(LogHandlerBase):
    """Snakemake asks each plugin for a handler; it is used only where someone names it, and writes nothing."""

    writes_to_stream = False
    writes_to_file = False
    has_filter = False
    has_formatter = False
    needs_rulegraph = False

    def emit(self, record: LogRecord) -> None:
        """Write nothing."""


def swallowed(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the config files of a command line of Snakemake, and the targets that it takes for further ones.

    Parameters
    ----------
    arguments : sequence of str
        Without the program.

    Returns
    -------
    tuple of (list of str, list of str)
        Files, and what has not the ending of one; the first word after the option is a file in any case.
    """
    files: list[str] = []
    targets: list[str] = []
    for number, word in enumerate(arguments):
        if word in _FLAGS:
            rest = list(arguments[number + 1 :])
            end = next((place for place, item in enumerate(rest) if item.startswith("-")), len(rest))
            for place, item in enumerate(rest[:end]):
                (files if place == 0 or item.endswith(_ENDINGS) else targets).append(item)
    return files, targets


def _check(arguments: Sequence[str]) -> None:
    files, targets = swallowed(arguments)
    if targets:
        words, is_are = " ".join(targets), "is" if len(targets) == 1 else "are"
        print(
            f"snakemake takes '{words}' for a config file: --configfile takes every word up to the next option.\n"
            f"If it {is_are} what you want to make, put two dashes between: "
            f"snakemake ... --configfile {' '.join(files)} -- {words}",
            file=sys.stderr,
        )
        sys.exit(2)


if sys.argv and sys.argv[0].endswith(("snakemake", "snakemake/__main__.py")):
    _check(sys.argv[1:])
