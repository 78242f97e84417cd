"""What the workflow passes to stages, and what the command line makes of the config: the two must be the same."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import Any

from boldly.cli import parser
from boldly.cli.jobs import jobs
from boldly.cli.stages import STAGES
from boldly.cli.study import study

# What only the workflow knows: the packed runs of an upstream experiment are read if they are newer than its data.
_OWN = ("corpus",)

# Values of the arguments of jobs, by stage and output.
Arguments = dict[tuple[str, str], dict[str, Any]]


def passed(output: str) -> Arguments:
    """Return the arguments of each stage by stage and output, from what a dry run with commands printed."""
    found = {}
    for line in output.splitlines():
        command = line.strip().removeprefix("Shell command: ").removeprefix("exec ").replace(" 2>> ", " 2> ")
        words = shlex.split(command) if command.startswith("boldly ") else []
        words = words[: words.index("2>")] if "2>" in words else words
        if words[1:2] == ["launch"]:
            words = ["boldly", *words[words.index("pretrain") :]]
        if words and words[1] in STAGES and "--experiments" not in words:
            values = vars(parser().parse_args(words[1:]))
            found[_name(words[1], values)] = values
    return found


def by_hand(config: Path, directory: Path, stage: str, **chosen: str | None) -> Arguments:
    """Return the arguments of a stage as the command line makes them; the directory becomes the current one."""
    nothing = dict.fromkeys(("dataset", "subject", "experiment", "figure", "key"))
    args = argparse.Namespace(**{**nothing, **chosen}, config=config, directory=directory, set=[])
    made = [job for job in jobs(stage, study(args, stage), args) if job.stage == stage]
    return {_name(stage, job.values): job.values for job in made}


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Return the arguments that differ; one that is left out is its default."""
    return [
        f"{name}: {_plain(one.get(name))} != {_plain(other[name])}"
        for name in other
        if name not in _OWN and _plain(one.get(name)) != _plain(other[name])
    ]


def _name(stage: str, values: dict[str, Any]) -> tuple[str, str]:
    return stage, str(values.get("output") or values.get("runs") or values.get("scores"))


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value] or None
    return str(value) if isinstance(value, Path) else value
