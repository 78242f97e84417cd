"""Decoders that other people use: package, decode."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from boldly.cli.arguments import Commands, command, flag, path, preprocess_options

if TYPE_CHECKING:
    from boldly.config import TaskOptions


def add(commands: Commands) -> None:
    """Register package and decode."""
    sub = command(commands, "package", _package, "make a trained decoder a folder that works anywhere")
    sub.add_argument(
        "source",
        type=Path,
        help="results, or results/models/downstream/<dataset>[/<experiment>[/<fit>]]; of several decoders the one "
        "with the most training units and the lowest loss in validation is taken",
    )
    path(sub, "output", "folder to write")
    flag(sub, "dataset", "dataset, where there are several", default=None)
    path(sub, "config", "config of the study; default: config/config.yaml beside the results", default=None)
    flag(sub, "name", "name of the decoder; default: <dataset>-<experiment>", default=None)
    flag(
        sub,
        "licence",
        "terms of the decoder, as hubs spell them: cc0-1.0; default: not stated",
        default="not stated",
    )
    flag(
        sub,
        "atlas-file",
        "copy the image of the atlas into the folder; default: your own, and those whose licence allows it",
        choices=["include", "leave-out"],
        default=None,
    )

    sub = command(commands, "decode", _decode, "apply a decoder to the people of a derivatives folder")
    path(sub, "model", "folder of the decoder, from boldly package")
    path(sub, "derivatives", "folder of fMRIPrep")
    path(sub, "output", "folder to write: a BIDS derivative of tables and pictures")
    path(sub, "events", "BIDS folder with events: trials are decoded; default: sliding windows", default=None)
    flag(sub, "participant", "labels of the people; default: all", nargs="+", default=None, metavar="LABEL")
    flag(sub, "bids-task", "BIDS tasks; default: all", nargs="+", default=None, metavar="TASK")
    flag(sub, "window-s", "length of sliding windows, s; default: a training trial", type=float, default=None)
    flag(sub, "step-s", "distance of sliding windows, s; default: a quarter of one", type=float, default=None)
    flag(
        sub,
        "allow-mismatch",
        "fields of the contract in which the data may differ from the training (space, confounds, ...); also t_r "
        "and coverage",
        nargs="+",
        default=[],
        metavar="FIELD",
    )
    path(sub, "atlas", "image of the atlas, where it does not lie in the folder of the decoder", default=None)
    flag(sub, "space", "space of the images; needs --allow-mismatch space where it is another one", default=None)
    path(sub, "task", "YAML file that says how events become trials; default: as in the training", default=None)
    flag(
        sub,
        "preprocess",
        "other options of preprocess as JSON (needs --allow-mismatch confounds)",
        default=None,
        metavar="JSON",
    )
    sub.add_argument(
        "--without-mask", action="store_true", help="where a run has no mask, all of the image is brain"
    )
    flag(sub, "workers", "runs decoded at the same time; default: one per core", type=int, default=None)
    path(sub, "cache", "folder of projections and fetched atlases; default: the user's cache", default=None)
    sub.add_argument("--no-summary", action="store_true", help="leave scores.tsv to a later call (parallel jobs)")


def _package(args: argparse.Namespace) -> None:
    from boldly.decoding import package

    include = None if args.atlas_file is None else args.atlas_file == "include"
    package.run(
        source=args.source,
        output=args.output,
        dataset=args.dataset,
        config=args.config,
        name=args.name,
        licence=args.licence,
        include_atlas=include,
    )


def _decode(args: argparse.Namespace) -> None:
    from boldly.decoding import cohort

    people = args.participant and tuple(label.removeprefix("sub-") for label in args.participant)
    cohort.run(
        model=args.model,
        cohort=cohort.Cohort(
            derivatives=args.derivatives,
            events=args.events,
            participants=people,
            tasks=args.bids_task and tuple(args.bids_task),
            space=args.space,
            task=_task(args.task),
            preprocess=None if args.preprocess is None else preprocess_options(args.preprocess, "--preprocess"),
            window_s=args.window_s,
            step_s=args.step_s,
            without_mask=args.without_mask,
        ),
        output=args.output,
        allow_mismatch=args.allow_mismatch,
        atlas=args.atlas,
        cache=args.cache,
        workers=args.workers,
        summary=not args.no_summary,
    )


def _task(file: Path | None) -> TaskOptions | None:
    from boldly.config import TaskOptions, parse, read_yaml

    return None if file is None else parse(TaskOptions, read_yaml(str(file), "--task"), str(file))
