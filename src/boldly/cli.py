"""The command line: one sub-command per stage, and the tools beside them. Heavy imports stay inside."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from boldly import __version__
from boldly.records import InputError, Problem

if TYPE_CHECKING:
    from boldly.config import AdaptOptions, PreprocessOptions, Section, TaskOptions

S = TypeVar("S", bound="Section")
Command = Callable[[argparse.Namespace], None]


def main(arguments: list[str] | None = None) -> int:
    """Run one sub-command.

    Parameters
    ----------
    arguments : list of str, optional
        Default: those of the process.

    Returns
    -------
    int
        Exit status: 0, or 1 for bad input, which is printed with file, entity and way out, and for files that
        cannot be read or written.
    """
    args = _parser().parse_args(arguments)
    # Processes that train together would all say the same.
    level = logging.INFO if os.environ.get("RANK", "0") == "0" else logging.WARNING
    logging.basicConfig(
        level=level, format="%(asctime)s %(name)s: %(message)s", datefmt="%H:%M:%S", stream=sys.stderr
    )
    try:
        args.command(args)
    except InputError as error:
        count = len(error.problems)
        print(f"boldly: {count} problem{'s' if count != 1 else ''} with the input", file=sys.stderr)
        for problem in error.problems:
            print(f"- {problem}", file=sys.stderr)
        return 1
    except OSError as error:
        # A full disk, a file that may not be read: no fault of the program, so no traceback.
        where = f"\n    file: {error.filename}" if error.filename else ""
        print(f"boldly: {error.strerror or error}{where}", file=sys.stderr)
        return 1
    return 0


def _index(args: argparse.Namespace) -> None:
    from boldly.config import AtlasOptions, DatasetOptions, IndexOptions
    from boldly.stages import index

    trials = index.run(
        dataset=args.dataset,
        dataset_options=_options(DatasetOptions, args.dataset_options, "--dataset-options"),
        options=_options(IndexOptions, args.options),
        preprocess=_preprocess_options(args.preprocess, "--preprocess"),
        window_frames=args.window_frames,
        # What the workflow passes on where no dataset needs one.
        atlas=_options(AtlasOptions, args.atlas, "--atlas") if args.atlas != "null" else None,
        runs=args.runs,
        labels=args.labels,
        trials=args.trials,
        t_r_s=args.t_r_s,
    )
    # In the workflow the log takes what is logged, the terminal shows what is printed.
    if trials:
        print(trials, flush=True)


def _preprocess(args: argparse.Namespace) -> None:
    from boldly.stages import preprocess

    options = _preprocess_options(args.options)
    preprocess.run(
        runs=args.runs,
        subject=args.subject,
        options=options,
        nuisance=args.nuisance,
        qc=args.qc,
        on_error=args.on_error,
    )


def _parcellate(args: argparse.Namespace) -> None:
    from boldly.config import AtlasOptions, ParcellateOptions
    from boldly.stages import parcellate

    parcellate.run(
        runs=args.runs,
        subject=args.subject,
        nuisance=args.nuisance,
        qc=args.qc,
        atlas=_options(AtlasOptions, args.atlas, "--atlas"),
        options=_options(ParcellateOptions, args.options),
        preprocess=_preprocess_options(args.preprocess, "--preprocess"),
        cache=args.cache,
        output=args.output,
        quality=args.quality,
        on_error=args.on_error,
    )


def _shard(args: argparse.Namespace) -> None:
    from boldly.config import ShardOptions
    from boldly.stages import shard

    shard.run(
        timeseries=args.timeseries,
        runs=args.runs,
        subject=args.subject,
        role=args.role,
        task=_task(args.task),
        labels=args.labels,
        trials=args.trials,
        options=_options(ShardOptions, args.options),
        window_frames=args.window_frames,
        output=args.output,
    )


def _split(args: argparse.Namespace) -> None:
    from boldly.config import DownstreamSplitOptions, UpstreamSplitOptions
    from boldly.stages import split

    split.run(
        dataset=args.dataset,
        runs=args.runs,
        qc=sorted(args.qc.glob("sub-*_qc.tsv")) if args.qc else [],
        signals=sorted(args.signals.glob("sub-*_quality.tsv")) if args.signals else [],
        role=args.role,
        upstream=_options(UpstreamSplitOptions, args.upstream, "--upstream"),
        downstream=_options(DownstreamSplitOptions, args.downstream, "--downstream"),
        seed=args.seed,
        output=args.output,
        participants=args.participants,
        same_source=args.same_source,
    )


def _corpus(args: argparse.Namespace) -> None:
    from boldly.files import location
    from boldly.stages import corpus

    data = [(Path(split), location(folder)) for split, folder in args.data]
    corpus.run(data=data, output=args.output, share=args.share, threads=args.threads)


def _pretrain(args: argparse.Namespace) -> None:
    from boldly.config import PretrainOptions
    from boldly.files import location
    from boldly.stages import pretrain

    pretrain.run(
        name=args.name,
        options=_options(PretrainOptions, args.options),
        data=[(Path(split), location(folder)) for split, folder in args.data],
        output=args.output,
        initial=args.initial,
        corpus=args.corpus,
    )


def _launch(args: argparse.Namespace) -> None:
    from boldly.training.launch import launch

    launch(args.arguments, nodes=args.nodes, processes=args.processes)


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
        options=_options(EvaluateOptions, args.options),
        scores=args.scores,
        comparisons=args.comparisons,
        choices=args.choices,
        predictions=args.predictions,
    )


def _figures(args: argparse.Namespace) -> None:
    from boldly.config import FiguresOptions
    from boldly.stages import figures

    options = _options(FiguresOptions, args.options)
    figures.run(figure=args.figure, tables=args.tables, options=options, output=args.output, key=args.key)


def _simulate(args: argparse.Namespace) -> None:
    from boldly.stages import simulate

    if args.headers_only:
        simulate.run_headers(args.output, subjects=args.subjects)
    else:
        simulate.run(args.output, size=args.size, seed=args.seed, workers=args.workers)


def _atlas(args: argparse.Namespace) -> None:
    from boldly.config import AtlasOptions
    from boldly.stages import atlas

    atlas.run(atlas=_options(AtlasOptions, args.atlas, "--atlas"))


def _export(args: argparse.Namespace) -> None:
    from boldly.config import AtlasOptions
    from boldly.stages import export

    if args.layout == "bids":
        atlas = _options(AtlasOptions, args.atlas, "--atlas")
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

    print(inspect.run(args.paths))


def _options(model: type[S], text: str, where: str = "--options") -> S:
    from boldly.config import parse

    return parse(model, text, where)


def _preprocess_options(text: str, where: str = "--options") -> PreprocessOptions:
    from boldly.config import PreprocessOptions, apply_preset

    return apply_preset(_options(PreprocessOptions, text, where), Path())


def _task(text: str | None) -> TaskOptions | None:
    from boldly.config import TaskOptions

    return None if text is None else _options(TaskOptions, text, "--task")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\ntry: {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="boldly", description="From fMRIPrep derivatives to trained decoders of mental states.")
    parser.add_argument("--version", action="version", version=f"boldly {__version__}")
    commands = parser.add_subparsers(title="stages, in order, and tools", metavar="COMMAND", required=True)

    def add(name: str, command: Command, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        sub.set_defaults(command=command)
        return sub

    def flag(sub: argparse.ArgumentParser, name: str, text: str, **settings: object) -> None:
        settings = {"required": "default" not in settings, "help": text, **settings}
        sub.add_argument(f"--{name}", **settings)  # type: ignore[arg-type]

    def path(sub: argparse.ArgumentParser, name: str, text: str, **settings: object) -> None:
        flag(sub, name, text, type=Path, metavar="PATH", **settings)

    def options(sub: argparse.ArgumentParser, name: str = "options", section: str = "the stage") -> None:
        flag(
            sub,
            name,
            f"options of {section} as JSON (config/README.md); default: {{}}",
            default="{}",
            metavar="JSON",
        )

    _add_preparation(add, flag, path, options)
    _add_learning(add, flag, path, options)
    _add_tools(add, flag, path)
    return parser


def _add_preparation(add: Callable, flag: Callable, path: Callable, options: Callable) -> None:
    def defective(sub: argparse.ArgumentParser) -> None:
        choices = ["stop", "exclude"]
        flag(sub, "on-error", "what a defective run does; default: stop", default="stop", choices=choices)

    sub = add("index", _index, "list the runs of a dataset and all that is wrong with them")
    flag(sub, "dataset", "name of the dataset")
    flag(sub, "dataset-options", "its config section as JSON", metavar="JSON")
    flag(sub, "atlas", "config section atlas as JSON", metavar="JSON")
    options(sub)
    options(sub, "preprocess", "preprocess, whose columns are looked for,")
    flag(sub, "window-frames", "shortest window of any experiment, frames", type=int, default=10)
    path(sub, "runs", "run table to write")
    path(sub, "labels", "label names to write (JSON)")
    path(sub, "trials", "table of events and trials to write")
    flag(sub, "t-r-s", "repetition time of all shards, s (shard.t_r_s)", type=float, default=None, metavar="S")

    sub = add("preprocess", _preprocess, "write the nuisance regressors and motion quality of a subject's runs")
    path(sub, "runs", "run table")
    flag(sub, "subject", "subject label, without sub-")
    options(sub)
    defective(sub)
    path(sub, "nuisance", "table of regressors per frame to write")
    path(sub, "qc", "table of quality per run to write")

    sub = add("parcellate", _parcellate, "write the cleaned parcel time series of a subject's runs")
    path(sub, "runs", "run table")
    flag(sub, "subject", "subject label, without sub-")
    path(sub, "nuisance", "regressors per frame")
    path(sub, "qc", "quality per run")
    flag(sub, "atlas", "config section atlas as JSON", metavar="JSON")
    options(sub)
    options(sub, "preprocess", "preprocess, for the contract,")
    defective(sub)
    path(sub, "cache", "folder of projection matrices, shared by all jobs")
    path(sub, "output", "safetensors file to write")
    path(sub, "quality", "table of signal quality per run to write")

    sub = add("shard", _shard, "write a subject's samples as a WebDataset tar")
    path(sub, "timeseries", "time series of the subject")
    path(sub, "runs", "run table")
    flag(sub, "subject", "subject label, without sub-")
    flag(sub, "role", "what the dataset is for", choices=["upstream", "downstream"])
    flag(sub, "task", "how events become trials, as JSON (downstream)", default=None, metavar="JSON")
    path(sub, "labels", "label names (JSON)")
    path(sub, "trials", "table of trials, from index (downstream)", default=None)
    flag(sub, "window-frames", "runs with fewer frames are left out", type=int, default=10)
    options(sub)
    path(sub, "output", "tar to write")

    sub = add("split", _split, "choose subjects for training, validation and test")
    flag(sub, "dataset", "name of the dataset")
    path(sub, "runs", "run table")
    path(sub, "qc", "folder of the quality tables of its subjects, from preprocess", default=None)
    path(sub, "signals", "folder of the quality tables of its subjects, from parcellate", default=None)
    flag(sub, "role", "what the dataset is for", choices=["upstream", "downstream"])
    options(sub, "upstream", "split.upstream")
    options(sub, "downstream", "split.downstream")
    flag(sub, "seed", "seed of the draws", type=int, default=1234)
    path(sub, "participants", "participants.tsv, for the options group and stratify", default=None)
    path(sub, "same-source", "splits of downstream datasets of the same people (upstream)", nargs="*", default=[])
    path(sub, "output", "split to write (JSON)")


def _add_learning(add: Callable, flag: Callable, path: Callable, options: Callable) -> None:
    sub = add("pretrain", _pretrain, "train an upstream experiment on unlabelled runs")
    flag(sub, "name", "name of the experiment")
    options(sub)
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

    sub = add("adapt", _adapt, "train a downstream experiment for all sizes, draws and seeds of a split")
    flag(sub, "name", "name of the experiment", default="experiment")
    flag(
        sub,
        "experiments",
        "several experiments at once: name to options and models (name, seed, folder) as JSON; "
        "--output is the folder of their folders then",
        default=None,
        metavar="JSON",
    )
    flag(sub, "dataset", "name of the dataset")
    options(sub)
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

    sub = add("evaluate", _evaluate, "score all decoders of a dataset on its test trials")
    flag(sub, "dataset", "name of the dataset")
    path(sub, "split", "split of the dataset")
    path(sub, "shards", "folder of its shards")
    path(sub, "models", "folders of the adapted experiments", nargs="+")
    path(sub, "ceilings", "best accuracies possible (simulated data)", default=None)
    options(sub)
    path(sub, "scores", "tidy table of scores to write")
    path(sub, "comparisons", "table of paired differences to write")
    path(sub, "choices", "table of what validation chose for each fit, to write")
    path(sub, "predictions", "table of predictions to write (.tsv.gz)")

    sub = add("figures", _figures, "draw a figure from tables")
    flag(sub, "figure", "name of the figure")
    path(sub, "tables", "the tables it is drawn from, or folders that hold them", nargs="+")
    flag(sub, "key", "key of the one run to draw (carpet)", required=False)
    options(sub)
    path(sub, "output", "PNG file to write; PDF and TSV lie beside")


def _add_tools(add: Callable, flag: Callable, path: Callable) -> None:
    sub = add("corpus", _corpus, "pack upstream runs into one file that trainings share, and fit linear forecasts")
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

    sub = add("simulate", _simulate, "write a simulated study as BIDS and fMRIPrep derivatives")
    path(sub, "output", "folder of the study to write")
    flag(sub, "size", "how large", choices=["demo", "tiny"], default="demo")
    flag(sub, "seed", "seed of everything random", type=int, default=1234)
    flag(sub, "workers", "processes", type=int, default=2)
    sub.add_argument(
        "--headers-only", action="store_true", help="a tree of 34 datasets and 11,980 runs without data, instead"
    )
    flag(sub, "subjects", "subjects of that tree", type=int, default=1726)

    sub = add("atlas", _atlas, "fetch a published atlas into its cache folder (needs network)")
    flag(sub, "atlas", "config section atlas as JSON", metavar="JSON")

    sub = add("export", _export, "write a subject's prepared data for other tools")
    flag(sub, "layout", "lfb: tars of Learning from Brains; bids: TSV and JSON", choices=["lfb", "bids"])
    path(sub, "input", "shard of the subject (lfb), or its time series (bids)")
    flag(sub, "atlas", "config section atlas as JSON (bids)", default="{}", metavar="JSON")
    flag(sub, "dataset", "name of the dataset (bids)", default="")
    path(sub, "folder", "folder to write to")
    path(sub, "output", "list of the files written and their checksums (JSON) to write")

    sub = add("launch", _launch, "run a stage in several processes that train together (torchrun, srun)")
    flag(sub, "nodes", "nodes, those of this Slurm allocation if there are several", type=int, default=1)
    flag(sub, "processes", "processes on each node, one per GPU", type=int, default=1)
    sub.add_argument("arguments", nargs=argparse.REMAINDER, help="pretrain and its arguments")

    sub = add("import-weights", _import_weights, "turn weights of Learning from Brains into a model, or back")
    sub.add_argument("source", type=Path, help="run directory or pytorch_model.bin; with --export a model folder")
    path(sub, "output", "model folder to write; with --export a run directory")
    sub.add_argument("--export", action="store_true", help="write a model of variant lfb as a run directory")
    flag(sub, "heads", "attention heads, where train_config.json is lost", type=int, default=None)
    path(sub, "labels", "names of a decoder's states (labels.json of its shards)", default=None)

    sub = add("inspect", _inspect, "print what shards, time series, models and tables hold")
    sub.add_argument("paths", nargs="+", type=Path, help="files or model folders")
