"""The sub-command of a stage: run by the workflow, file by file, or by hand, from the config."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boldly.cli.arguments import Commands, Handler, Parser, command, several
from boldly.records import InputError

if TYPE_CHECKING:
    from boldly.cli.jobs import Job

logger = logging.getLogger("boldly")


@dataclass
class Stage:
    """A stage on the command line; it takes the arguments that the workflow passes.

    Attributes
    ----------
    name : str
        Of the stage.
    handler : callable
        What runs it, given those arguments.
    parser : Parser
        Of the sub-command.
    group : object
        Argparse's group of those arguments.
    selectors : object
        That of the arguments that choose a part of a study.
    needed : list of str
        Flags without which the stage cannot be run file by file.
    passed : list of str
        Names of the arguments that the workflow passes.
    """

    name: str
    handler: Handler
    parser: Parser
    group: Any
    selectors: Any
    needed: list[str] = field(default_factory=list)
    passed: list[str] = field(default_factory=list)

    def add_argument(self, *names: str, required: bool = False, **settings: Any) -> argparse.Action:
        """Add an argument that the workflow passes: beside a config nothing is required."""
        if required:
            self.needed.extend(names)
        action: argparse.Action = self.group.add_argument(*names, **settings)
        self.passed.append(action.dest)
        return action

    def choose(self, name: str, text: str, *, required: bool = False, **settings: Any) -> None:
        """Add an argument that chooses a part of the study; `required` where there is no config."""
        if required:
            self.needed.append(f"--{name}")
        self.selectors.add_argument(f"--{name}", help=text, **several(settings))

    def run(self, args: argparse.Namespace) -> None:
        """Run the stage, or exit with the names of the arguments that lack."""
        if args.config is not None:
            _by_hand(self, args)
            return
        missing = [name for name in self.needed if getattr(args, name.lstrip("-").replace("-", "_")) is None]
        if missing:
            self.parser.error(f"give --config, or all of the files; missing are {', '.join(missing)}")
        self.handler(args)


# By name: a stage may need another one first.
STAGES: dict[str, Stage] = {}


def stage_command(commands: Commands, name: str, handler: Handler, text: str) -> Stage:
    """Add the sub-command of a stage.

    Parameters
    ----------
    commands, name, handler, text
        As those of `arguments.command`; the handler takes what the workflow passes.

    Returns
    -------
    Stage
        For the arguments that the workflow passes.
    """
    sub = command(commands, name, lambda args: STAGES[name].run(args), text)

    def more_help() -> str:
        from boldly.cli.described import options_text

        return options_text(name)

    sub.more_help = more_help
    sub.usage = "%(prog)s --config FILE [--set NAME=VALUE ...] [...]\n       %(prog)s <file by file>"
    hand = sub.add_argument_group("by hand, from a config", "Paths in and out are those of the workflow.")
    hand.add_argument("--config", type=Path, metavar="FILE", help="config of the study (YAML)")
    hand.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="another value of an option below, or of any other by its full name: split.downstream.draws=1",
    )
    hand.add_argument(
        "--directory", type=Path, default=Path(), metavar="PATH", help="folder of the study; default: this one"
    )
    title = "file by file, as the workflow runs it"
    group = sub.add_argument_group(title, "Beside --config each of them replaces what the config says.")
    STAGES[name] = Stage(name, handler, sub, group, hand)
    return STAGES[name]


def _by_hand(stage: Stage, args: argparse.Namespace) -> None:
    """Run all jobs of a stage that are asked for; what is wrong with one does not keep the others from running."""
    from boldly.cli.jobs import check_needs, jobs
    from boldly.cli.study import known_experiments, study

    config = args.config.resolve()
    layout = study(args, stage.name)
    passed = {name: getattr(args, name) for name in stage.passed}
    given = {name: value for name, value in passed.items() if value != stage.parser.get_default(name)}
    by_name = bool(args.set) and stage.name in ("pretrain", "adapt")
    known = known_experiments(config, args.set, stage.name) if by_name else set()
    problems, repeated = [], set[str]()
    for job in list(jobs(stage.name, layout, args)):
        own = given if job.stage == stage.name else {}
        other = STAGES[job.stage]
        values = {name: other.parser.get_default(name) for name in other.passed} | job.values | own
        logger.info("%s: %s", job.stage, job.name)
        try:
            check_needs(job, config, args.directory)
            other.handler(argparse.Namespace(**values))
        except InputError as error:
            problems += error.problems
        else:
            if args.set and own is given and "output" not in given:
                repeated |= _made_again(job, known)
    for what in sorted(repeated):
        # Snakemake knows the options of its own jobs alone.
        message = "the workflow will not notice the options of --set, which are not those of %s; to repeat it: %s"
        logger.warning(message, config, f"snakemake ... -R {what}")
    if problems:
        raise InputError(problems)


def _made_again(job: Job, known: Collection[str]) -> set[str]:
    """Return what Snakemake has to be told (-R) to make again what a job wrote; empty where it is not its own."""
    from boldly import layout

    last = {"pretrain": layout.WEIGHTS, "adapt": layout.ADAPTED}.get(job.stage)
    if last is None:
        return {job.stage}
    return {str(job.values["output"] / last)} if job.values["name"] in known else set()
