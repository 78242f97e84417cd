"""Sub-command report: the page about a study."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from boldly.cli.arguments import Commands, command, path

if TYPE_CHECKING:
    from boldly.config import Config


def add(commands: Commands) -> None:
    """Register the sub-command."""
    sub = command(commands, "report", _report, "write one page about a study: data, training, scores, methods")
    sub.add_argument(
        "results", type=Path, nargs="?", default=Path("results"), help="folder of results; default: results"
    )
    path(sub, "output", "the page; default: report.html in the folder of results", default=None)
    text = "config file of the study, or - for JSON on standard input; default: what an earlier report recorded"
    sub.add_argument("--config", metavar="PATH", help=text)


def _report(args: argparse.Namespace) -> None:
    from boldly.stages import report

    output = args.output or args.results / "report.html"
    lines = report.run(results=args.results, output=output, config=_config(args.config))
    print(*lines, output, sep="\n")


def _config(source: str | None) -> Config | None:
    """Read a config file, or the complete config as the workflow passes it."""
    from boldly.config import Config, load_config, parse

    if source is None:
        return None
    if source == "-":
        return parse(Config, sys.stdin.read(), "--config -")
    # Files that a config names beside itself: .../config/mine.yaml names config/tasks/mdtb.yaml.
    return load_config(source, Path(source).resolve().parents[1])
