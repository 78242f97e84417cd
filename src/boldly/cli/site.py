"""Sub-command site: the profile of a Slurm cluster, from a few questions."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from boldly.cli.arguments import Commands, command, flag, path
from boldly.records import InputError, Problem

# What is asked for where it is not given.
_QUESTIONS = {
    "account": "Slurm account that jobs are charged to (sacctmgr show associations user=$USER)",
    "partition": "partition of jobs without a GPU (sinfo)",
    "gpu-partition": "partition of jobs with a GPU",
}


def add(commands: Commands) -> None:
    """Register the sub-command."""
    sub = command(
        commands, "site", _site, "write the Snakemake profile of a Slurm cluster, and try it with short jobs"
    )
    for name, text in _QUESTIONS.items():
        flag(sub, name, f"{text}; default: you are asked", default=None)
    flag(sub, "gpu-model", "type of the GPUs, as in --gpus=<type>:1; default: any", default=None)
    text = "folder of the study, on a file system that all nodes see; default: where snakemake is called"
    flag(sub, "directory", text, default=None)
    path(sub, "template", "profile to start from", default=Path("workflow/profiles/slurm/config.yaml"))
    path(sub, "output", "profile to write", default=Path("workflow/profiles/site/config.yaml"))
    sub.add_argument("--no-check", action="store_true", help="do not ask Slurm, and run no test jobs")
    flag(sub, "wait", "how long a test job may wait in the queue, s", type=float, default=300.0)


def _site(args: argparse.Namespace) -> None:
    from boldly.stages import site

    answers = {
        name: getattr(args, name.replace("-", "_")) or _ask(name, text) for name, text in _QUESTIONS.items()
    }
    site.run(
        site=site.Site(
            account=answers["account"],
            partition=answers["partition"],
            gpu_partition=answers["gpu-partition"],
            gpu_model=args.gpu_model,
            directory=args.directory,
        ),
        template=args.template,
        output=args.output,
        check=not args.no_check,
        wait_s=args.wait,
    )


def _ask(name: str, text: str) -> str:
    answer = input(f"{text}: ").strip() if sys.stdin.isatty() else ""
    if not answer:
        raise InputError(Problem(f"--{name}", "", "is not given", f"give it: {text}"))
    return answer
