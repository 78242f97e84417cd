"""The stages from shards to figures: pretrain, adapt, evaluate, figures."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boldly.cli.arguments import Commands, flag, json_options, parsed, path
from boldly.cli.stages import stage_command
from boldly.records import InputError, Problem

if TYPE_CHECKING:
    from boldly.config import AdaptOptions

_EXPERIMENT = "the experiment, or a new one: --set says then what it starts from"


def add(commands: Commands) -> None:
    """Register the stages pretrain to figures."""
    sub = stage_command(commands, "pretrain", _pretrain, "train an upstream experiment on unlabelled runs")
    sub.choose("experiment", _EXPERIMENT, metavar="NAME")
    flag(sub, "name", "name of the experiment")
    json_options(sub)
    flag(
        sub,
        "data",
        "split and shard folder of a dataset, or the folder's web address; once for each",
        nargs=2,
        action="append",
        metavar=("SPLIT", "FOLDER"),
    )
    path(sub, "initial", "folder of the weights to start from", default=None)
    path(sub, "corpus", "folder that `boldly corpus` wrote; default: shards are read into memory", default=None)
    path(sub, "output", "folder of the experiment to write")

    sub = stage_command(
        commands, "adapt", _adapt, "train a downstream experiment for all sizes, draws and seeds of a split"
    )
    sub.choose("experiment", _EXPERIMENT, metavar="NAME")
    flag(sub, "name", "name of the experiment", default="experiment")
    flag(
        sub,
        "experiments",
        "several experiments at once: name to options and models (name, seed, folder) as JSON; "
        "--output is the folder of their folders then",
        default=None,
        metavar="JSON",
    )
    sub.choose("dataset", "name of the dataset; beside --config by default all", required=True, metavar="NAME")
    json_options(sub)
    path(sub, "split", "split of the dataset")
    path(sub, "shards", "folder of its shards")
    flag(
        sub,
        "model",
        "name, seed and folder of an upstream model; once for each (not for most baselines)",
        nargs=3,
        action="append",
        metavar=("NAME", "SEED", "FOLDER"),
        required=False,
    )
    path(sub, "members", "folders of the adapted experiments that an ensemble is made of", nargs="+", default=None)
    path(sub, "output", "folder of the experiment to write")

    sub = stage_command(commands, "evaluate", _evaluate, "score all decoders of a dataset on its test trials")
    sub.choose("dataset", "name of the dataset; beside --config by default all", required=True, metavar="NAME")
    path(sub, "split", "split of the dataset")
    path(sub, "shards", "folder of its shards")
    sub.choose("experiment", "decoders to score; default: those of the config", metavar="NAME", nargs="+")
    path(sub, "models", "folders of the adapted experiments", nargs="+")
    path(sub, "ceilings", "best accuracies possible (simulated data)", default=None)
    json_options(sub)
    path(sub, "scores", "tidy table of scores to write")
    path(sub, "comparisons", "table of paired differences to write")
    path(sub, "choices", "table of what validation chose for each fit, to write")
    path(sub, "predictions", "table of predictions to write (.tsv.gz)")

    sub = stage_command(commands, "figures", _figures, "draw a figure from tables")
    sub.choose("figure", "name of the figure; beside --config by default all", required=True, metavar="NAME")
    sub.choose("key", "key of the one run to draw (carpet)", metavar="RUN")
    path(sub, "tables", "the tables it is drawn from, or folders that hold them", nargs="+")
    json_options(sub)
    path(sub, "output", "PNG file to write; PDF and TSV lie beside")


def _pretrain(args: argparse.Namespace) -> None:
    from boldly.config import PretrainOptions
    from boldly.files import location
    from boldly.stages import pretrain

    pretrain.run(
        name=args.name,
        options=parsed(PretrainOptions, args.options),
        data=[(Path(split), location(folder)) for split, folder in args.data],
        output=args.output,
        initial=args.initial,
        corpus=args.corpus,
    )


def _adapt(args: argparse.Namespace) -> None:
    from boldly.stages import adapt

    described = {args.name: {"options": args.options, "models": args.model or []}}
    if args.experiments is not None:
        described = _experiments(args.experiments)
    experiments = [
        adapt.Adaptation(
            name,
            _adapt_options(one["options"], name),
            args.output if args.experiments is None else args.output / name,
            tuple(adapt.UpstreamModel(model, int(seed), Path(folder)) for model, seed, folder in one["models"]),
            tuple(args.members or ()),
        )
        for name, one in described.items()
    ]
    adapt.run_several(experiments, args.dataset, args.split, args.shards)


def _adapt_options(content: object, name: str) -> AdaptOptions:
    from boldly.config import AdaptOptions, parse

    return parse(AdaptOptions, content, f"options of {name}")


def _experiments(text: str) -> dict[str, Any]:
    """Read what `boldly adapt --experiments` is given."""
    try:
        described: dict[str, Any] = json.loads(text)
        for one in described.values():
            if [len(model) for model in one["models"]] != [3] * len(one["models"]) or "options" not in one:
                raise ValueError("each needs options, and models as [name, seed, folder]")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        message = f"no experiments: {type(error).__name__} {error}"
        remedy = 'pass {"<name>": {"options": {...}, "models": [["<name>", <seed>, "<folder>"]]}}'
        raise InputError(Problem("--experiments", "", message, remedy)) from None
    return described


def _evaluate(args: argparse.Namespace) -> None:
    from boldly.config import EvaluateOptions
    from boldly.stages import evaluate

    evaluate.run(
        dataset=args.dataset,
        split=args.split,
        shards=args.shards,
        models=args.models,
        ceilings=args.ceilings,
        options=parsed(EvaluateOptions, args.options),
        scores=args.scores,
        comparisons=args.comparisons,
        choices=args.choices,
        predictions=args.predictions,
    )


def _figures(args: argparse.Namespace) -> None:
    from boldly.config import FiguresOptions
    from boldly.stages import figures

    options = parsed(FiguresOptions, args.options)
    figures.run(figure=args.figure, tables=args.tables, options=options, output=args.output, key=args.key)
