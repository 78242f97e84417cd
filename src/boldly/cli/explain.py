"""The stage explain: which parcels made decoders say so."""

from __future__ import annotations

import argparse

from boldly.cli.arguments import Commands, flag, json_options, parsed, path
from boldly.cli.stages import stage_command
from boldly.records import InputError, Problem


def add(commands: Commands) -> None:
    """Register the stage."""
    sub = stage_command(commands, "explain", _explain, "show which parcels made decoders say so, and test it")
    sub.choose("dataset", "name of the dataset; beside --config by default all", metavar="NAME")
    sub.choose("experiment", "decoders to explain; default: those of the config", metavar="NAME", nargs="+")
    path(sub, "models", "folders of adapted experiments", nargs="+", default=[])
    path(sub, "model", "in their place: folder of a decoder that `boldly package` wrote", default=None)
    text = "folder of the dataset's shards; with --model also tars of labelled trials"
    path(sub, "shards", text, nargs="+")
    text = "config section atlas as JSON, for names and images; default: that of the packaged decoder"
    flag(sub, "atlas", text, default="null", metavar="JSON")
    path(sub, "series", "folder of the dataset's time series, for a general linear model", default=None)
    path(sub, "trials", "its table of trials, from index", default=None)
    path(sub, "truth", "how parcels respond to states (simulated data)", default=None)
    json_options(sub)
    text = "fields of the contract in which a packaged decoder and the trials may differ"
    flag(sub, "allow-mismatch", text, nargs="+", default=[], metavar="FIELD")
    path(sub, "output", "folder to write; with --models it gets a folder for each experiment")


def _explain(args: argparse.Namespace) -> None:
    from boldly.config import AtlasOptions, ExplainOptions
    from boldly.stages import explain

    if bool(args.models) == (args.model is not None):
        raise InputError(Problem("--models", "", "give either --models or --model", "see boldly explain --help"))
    options = parsed(ExplainOptions, args.options)
    # "null" is what the workflow passes where no atlas is given.
    atlas = None if args.atlas == "null" else parsed(AtlasOptions, args.atlas, "--atlas")
    known = explain.Known(series=args.series, trials=args.trials, truth=args.truth, atlas=atlas)
    if args.model is not None:
        explain.run_decoder(
            model=args.model,
            shards=explain.tars(args.shards),
            options=options,
            output=args.output,
            known=known,
            allow_mismatch=args.allow_mismatch,
        )
        return
    if args.dataset is None:
        raise InputError(Problem("--dataset", "", "missing", "name the dataset that the experiments decode"))
    if len(args.shards) > 1:
        raise InputError(Problem("--shards", args.dataset, "several folders", "give that of the dataset"))
    explain.run(
        dataset=args.dataset,
        shards=args.shards[0],
        models=args.models,
        options=options,
        output=args.output,
        known=known,
    )
