"""Tools beside the stages: corpus, simulate, atlas, fetch, export, launch, import-weights, inspect."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from boldly.cli.arguments import Commands, command, flag, parsed, path
from boldly.records import InputError
from boldly.words import counted

if TYPE_CHECKING:
    from boldly.config import AdaptOptions, PretrainOptions


def add(commands: Commands) -> None:
    """Register the tools."""
    sub = command(
        commands,
        "corpus",
        _corpus,
        "pack upstream runs into one file that trainings share, and fit linear forecasts",
    )
    flag(
        sub,
        "data",
        "split and shard folder of a dataset; once for each",
        nargs=2,
        action="append",
        metavar=("SPLIT", "FOLDER"),
    )
    flag(sub, "share", "share of the training subjects that the forecasts are fitted to", type=float, default=1.0)
    flag(sub, "threads", "shards to read at the same time", type=int, default=1)
    path(sub, "output", "folder to write")

    sub = command(commands, "simulate", _simulate, "write a simulated study as BIDS and fMRIPrep derivatives")
    path(sub, "output", "folder of the study to write")
    flag(
        sub,
        "size",
        "how large, or events: a study of brief events instead",
        choices=["demo", "tiny", "events"],
        default="demo",
    )
    flag(sub, "seed", "seed of everything random", type=int, default=1234)
    flag(sub, "workers", "processes", type=int, default=2)
    sub.add_argument(
        "--headers-only", action="store_true", help="a tree of 34 datasets and 11,980 runs without data, instead"
    )
    flag(sub, "subjects", "subjects of that tree", type=int, default=1726)

    sub = command(commands, "atlas", _atlas, "fetch a published atlas into its cache folder (needs network)")
    flag(sub, "atlas", "config section atlas as JSON", metavar="JSON")

    sub = command(commands, "fetch", _fetch, "bring files of a dataset here, with DataLad or from an S3 bucket")
    flag(sub, "dataset-options", "the dataset's config section as JSON, with fetch", metavar="JSON")
    path(sub, "output", "what was fetched (JSON) to write", default=None)

    sub = command(commands, "export", _export, "write a subject's prepared data for other tools")
    flag(sub, "layout", "lfb: tars of Learning from Brains; bids: TSV and JSON", choices=["lfb", "bids"])
    path(sub, "input", "shard of the subject (lfb), or its time series (bids)")
    flag(sub, "atlas", "config section atlas as JSON (bids)", default="{}", metavar="JSON")
    flag(sub, "dataset", "name of the dataset (bids)", default="")
    path(sub, "folder", "folder to write to")
    path(sub, "output", "list of the files written and their checksums (JSON) to write")

    sub = command(
        commands, "launch", _launch, "run a stage in several processes that train together (torchrun, srun)"
    )
    flag(sub, "nodes", "nodes, those of this Slurm allocation if there are several", type=int, default=1)
    flag(sub, "processes", "processes on each node, one per GPU", type=int, default=1)
    sub.add_argument("arguments", nargs=argparse.REMAINDER, help="pretrain and its arguments")

    sub = command(
        commands, "import-weights", _import_weights, "turn weights of Learning from Brains into a model, or back"
    )
    sub.add_argument("source", type=Path, help="run directory or pytorch_model.bin; with --export a model folder")
    path(sub, "output", "model folder to write; with --export a run directory")
    sub.add_argument("--export", action="store_true", help="write a model of variant lfb as a run directory")
    flag(sub, "heads", "attention heads, where train_config.json is lost", type=int, default=None)
    path(sub, "labels", "names of a decoder's states (labels.json of its shards)", default=None)

    _add_check(commands)
    _add_status(commands)
    sub = command(commands, "inspect", _inspect, "print what shards, time series, models and tables hold")
    sub.add_argument("paths", nargs="+", type=Path, help="files or model folders")
    sub.add_argument("--all", action="store_true", help="each of many files of a folder, not their summary")


def _add_check(commands: Commands) -> None:
    sub = command(commands, "check", _check, "check a config without running anything, and say what it makes")
    sub.add_argument("config", type=Path, help="config of a study (YAML)")
    sub.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="as of the stages")
    path(sub, "directory", "folder of the study; default: this one", default=Path())


def _check(args: argparse.Namespace) -> None:
    from boldly.cli.study import study
    from boldly.config import advise

    layout = study(args, "index")
    config = layout.config
    print(f"{args.config}: nothing is wrong with it")
    made = {
        "datasets": [f"{name} ({options.role})" for name, options in config.datasets.items()],
        "pretrain": [_with_steps(*item) for item in config.pretrain.experiments.items()],
        "adapt": [_with_steps(*item) for item in config.adapt.experiments.items()],
        "figures": layout.figures(),
        "decode": [f"{name} ({options.model})" for name, options in config.decode.items()],
    }
    for name, parts in made.items():
        print(f"  {name}: {', '.join(parts) or 'nothing'}")
    for warning in advise(config):
        print(f"  warning: {warning}")


def _with_steps(name: str, options: PretrainOptions | AdaptOptions) -> str:
    """Return the name of an experiment, with the number of gradient steps if it is trained by any."""
    from boldly.config import AdaptOptions

    if not options.has_steps:
        return name
    each = " for each fit" if isinstance(options, AdaptOptions) else ""
    return f"{name} ({counted(options.steps, 'step')}{each})"


def _add_status(commands: Commands) -> None:
    sub = command(commands, "status", _status, "say what is done, running and failed in a results folder")
    text = "results of a study, or its folder; default: results"
    sub.add_argument("results", nargs="?", type=Path, default=Path("results"), help=text)


def _status(args: argparse.Namespace) -> None:
    from boldly.stages import status

    print(status.run(args.results))


def _corpus(args: argparse.Namespace) -> None:
    from boldly.files import location
    from boldly.stages import corpus

    data = [(Path(split), location(folder)) for split, folder in args.data]
    corpus.run(data=data, output=args.output, share=args.share, threads=args.threads)


def _launch(args: argparse.Namespace) -> None:
    from boldly.training.launch import launch

    launch(args.arguments, nodes=args.nodes, processes=args.processes)


def _simulate(args: argparse.Namespace) -> None:
    from boldly.stages import simulate

    if args.headers_only:
        simulate.run_headers(args.output, subjects=args.subjects)
    else:
        simulate.run(args.output, size=args.size, seed=args.seed, workers=args.workers)


def _atlas(args: argparse.Namespace) -> None:
    from boldly.config import AtlasOptions
    from boldly.stages import atlas

    atlas.run(atlas=parsed(AtlasOptions, args.atlas, "--atlas"))


def _fetch(args: argparse.Namespace) -> None:
    from boldly.config import DatasetOptions
    from boldly.stages import fetch

    options = parsed(DatasetOptions, args.dataset_options, "--dataset-options")
    fetch.run(options=options, output=args.output)


def _export(args: argparse.Namespace) -> None:
    from boldly.config import AtlasOptions
    from boldly.stages import export

    if args.layout == "bids":
        atlas = parsed(AtlasOptions, args.atlas, "--atlas")
        export.bids_timeseries(
            timeseries=args.input, atlas=atlas, dataset=args.dataset, folder=args.folder, output=args.output
        )
    else:
        export.lfb_shards(shard=args.input, folder=args.folder, output=args.output)


def _import_weights(args: argparse.Namespace) -> None:
    from boldly.stages import import_weights

    if args.export:
        import_weights.export(source=args.source, output=args.output)
    else:
        import_weights.run(source=args.source, output=args.output, heads=args.heads, labels=args.labels)


def _inspect(args: argparse.Namespace) -> None:
    from boldly.stages import inspect

    text, problems = inspect.describe(args.paths, every=args.all)
    if text:
        print(text, flush=True)
    if problems:
        raise InputError(problems)
