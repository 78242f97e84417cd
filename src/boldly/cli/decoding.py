"""Decoders that other people use: package, decode."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from boldly.cli.arguments import Commands, command, flag, json_options, path, preprocess_options
from boldly.records import InputError, Problem


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
    path(sub, "model", "folder of the decoder, from boldly package", default=None)
    path(sub, "derivatives", "folder of fMRIPrep", default=None)
    path(sub, "fmriprep", "folder of fMRIPrep, where the derivatives are denoised images alone", default=None)
    path(sub, "output", "folder to write: a BIDS derivative of tables and pictures")
    path(sub, "events", "BIDS folder with events: trials are decoded; default: sliding windows", default=None)
    flag(sub, "participant", "labels of the people; default: all", nargs="+", default=None, metavar="LABEL")
    flag(sub, "bids-task", "BIDS tasks; default: all", nargs="+", default=None, metavar="TASK")
    flag(
        sub,
        "filter",
        "use only runs with these values of BIDS entities: session=pre run=2",
        nargs="+",
        default=[],
        metavar="ENTITY=VALUE",
    )
    flag(sub, "window-s", "length of sliding windows, s; default: a training trial", type=float, default=None)
    flag(sub, "step-s", "distance of sliding windows, s; default: a quarter of one", type=float, default=None)
    flag(
        sub,
        "allow-mismatch",
        "in what the data may differ from the training: space, atlas_sha256, confounds, t_r, coverage, ...",
        nargs="+",
        default=None,
        metavar="FIELD",
    )
    path(sub, "atlas", "image of the atlas, where it does not lie in the folder of the decoder", default=None)
    flag(sub, "space", "space of the images, where it is another one than in the training", default=None)
    flag(sub, "resolution", "entity res of the images, where there are several", default=None)
    flag(
        sub,
        "layout",
        "how the derivatives are laid out; default: as in the training",
        choices=["fmriprep", "hcp"],
        default=None,
    )
    path(sub, "task", "YAML file that says how events become trials; default: as in the training", default=None)
    flag(sub, "preprocess", "other options of preprocess, as JSON", default=None, metavar="JSON")
    flag(
        sub,
        "without-mask",
        "a run without a brain mask is defective, or its whole image is brain",
        choices=["error", "whole_image"],
        default=None,
    )
    flag(
        sub,
        "on-error",
        "defective runs make the command fail in the end, or are only listed in problems.tsv; default: stop",
        choices=["stop", "exclude"],
        default=None,
    )
    flag(sub, "workers", "runs decoded at the same time; default: one per core", type=int, default=None)
    path(sub, "cache", "folder of projections and fetched atlases; default: the user's cache", default=None)
    sub.add_argument(
        "--no-summary",
        action="store_true",
        help="leave scores.tsv, problems.tsv and dataset_description.json to a last call",
    )
    json_options(sub, section="decode.<name>, for all that is not given otherwise,")


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
    import json

    from boldly.config import DecodeOptions, parse
    from boldly.decoding import cohort

    given = {
        "model": args.model and str(args.model),
        "derivatives": args.derivatives and str(args.derivatives),
        "fmriprep": args.fmriprep and str(args.fmriprep),
        "events": args.events and str(args.events),
        "participants": args.participant and [label.removeprefix("sub-") for label in args.participant],
        "tasks": args.bids_task,
        "filters": _filters(args.filter) or None,
        "space": args.space,
        "resolution": args.resolution,
        "layout": args.layout,
        "task": _yaml(args.task),
        "preprocess": args.preprocess and _preprocess(args.preprocess),
        "window_s": args.window_s,
        "step_s": args.step_s,
        "without_mask": args.without_mask,
        "atlas": args.atlas and str(args.atlas),
        "allow_mismatch": args.allow_mismatch,
        "on_error": args.on_error,
    }
    options = _json(args.options) | {name: value for name, value in given.items() if value is not None}
    cohort.run(
        options=parse(DecodeOptions, json.dumps(options), "the command line"),
        output=args.output,
        cache=args.cache,
        workers=args.workers,
        summary=not args.no_summary,
    )


def _json(text: str) -> dict[str, Any]:
    import json

    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(Problem("--options", "", f"not JSON: {error}", "pass a JSON object")) from None
    if not isinstance(content, dict):
        raise InputError(Problem("--options", "", "no JSON object", "pass a JSON object"))
    return content


def _filters(words: list[str]) -> dict[str, list[str | int]]:
    """Return values by entity; numbers also mean their padded spelling."""
    filters: dict[str, list[str | int]] = {}
    for word in words:
        entity, equals, value = word.partition("=")
        if not (entity and equals and value):
            raise InputError(Problem("--filter", "", f"'{word}' is not ENTITY=VALUE", "write it as run=2"))
        filters.setdefault(entity, []).append(int(value) if value.isdigit() else value)
    return filters


def _preprocess(text: str) -> dict[str, Any]:
    return preprocess_options(text, "--preprocess").model_dump(mode="json", exclude_unset=True)


def _yaml(file: Path | None) -> Any:
    from boldly.config import read_yaml

    return None if file is None else read_yaml(str(file), "--task")
