"""Networks and decoders from and to other people: push, pull."""

from __future__ import annotations

import argparse
from pathlib import Path

from boldly.cli.arguments import Commands, command, flag, path


def add(commands: Commands) -> None:
    """Register push and pull."""
    sub = command(commands, "push", _push, "copy a network or decoder to a folder or a hub, with checksums")
    sub.add_argument("folder", type=Path, help="folder of pretrain, import-weights or package")
    flag(sub, "to", "another folder (./shared/csm), or owner/name of a repository", metavar="TARGET")
    flag(sub, "revision", "branch of the repository; default: main", required=False)
    sub.add_argument("--public", action="store_true", help="a repository that is made is for everyone to see")

    sub = command(commands, "pull", _pull, "copy a network or decoder from a folder or a hub, and check it")
    sub.add_argument("source", help="a folder, or owner/name of a repository")
    flag(sub, "revision", "commit, tag or branch of the repository; default: the newest", required=False)
    path(sub, "output", "folder to write")


def _push(args: argparse.Namespace) -> None:
    from boldly import sharing

    done = sharing.push(args.folder, args.to, private=not args.public, revision=args.revision)
    print(f"{args.folder} -> {args.to}" + (f", revision {done}" if done != args.to else ""))


def _pull(args: argparse.Namespace) -> None:
    from boldly import sharing

    done = sharing.pull(args.source, args.output, args.revision)
    print(
        f"{args.source} (revision {done}) -> {args.output}" if done != args.source else f"{done} -> {args.output}"
    )
