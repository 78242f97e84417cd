"""The stages from derivatives to shards and splits: index, preprocess, parcellate, shard, prepare, split."""

from __future__ import annotations

import argparse
import contextlib
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from boldly.cli.arguments import Arguments, Commands, command, flag, json_options, parsed, path, preprocess_options
from boldly.cli.stages import Stage, stage_command

if TYPE_CHECKING:
    from boldly.config import TaskOptions


def add(commands: Commands) -> None:
    """Register the stages index to split."""

    def defective(sub: Arguments) -> None:
        choices = ["stop", "exclude"]
        flag(sub, "on-error", "what a defective run does; default: stop", default="stop", choices=choices)

    sub = stage_command(commands, "index", _index, "list the runs of a dataset and all that is wrong with them")
    _choose_dataset(sub, required=True)
    flag(sub, "dataset-options", "its config section as JSON", metavar="JSON")
    flag(sub, "atlas", "config section atlas as JSON", metavar="JSON")
    json_options(sub)
    json_options(sub, "preprocess", "preprocess, whose columns are looked for,")
    flag(sub, "window-frames", "shortest window of any experiment, frames", type=int, default=10)
    path(sub, "runs", "run table to write")
    path(sub, "labels", "label names to write (JSON)")
    path(sub, "trials", "table of events and trials to write")
    flag(sub, "t-r-s", "repetition time of all shards, s (shard.t_r_s)", type=float, default=None, metavar="S")

    sub = stage_command(
        commands, "preprocess", _preprocess, "write the nuisance regressors and motion quality of a subject's runs"
    )
    path(sub, "runs", "run table")
    _choose_dataset(sub, required=False)
    _choose_subject(sub)
    json_options(sub)
    defective(sub)
    path(sub, "nuisance", "table of regressors per frame to write")
    path(sub, "qc", "table of quality per run to write")

    sub = stage_command(
        commands, "parcellate", _parcellate, "write the cleaned parcel time series of a subject's runs"
    )
    path(sub, "runs", "run table")
    _choose_dataset(sub, required=False)
    _choose_subject(sub)
    path(sub, "nuisance", "regressors per frame")
    path(sub, "qc", "quality per run")
    flag(sub, "atlas", "config section atlas as JSON", metavar="JSON")
    json_options(sub)
    json_options(sub, "preprocess", "preprocess, for the contract,")
    defective(sub)
    path(sub, "cache", "folder of projection matrices, shared by all jobs")
    path(sub, "output", "safetensors file to write")
    path(sub, "quality", "table of signal quality per run to write")

    sub = stage_command(commands, "shard", _shard, "write a subject's samples as a WebDataset tar")
    path(sub, "timeseries", "time series of the subject")
    path(sub, "runs", "run table")
    _choose_dataset(sub, required=False)
    _choose_subject(sub)
    flag(sub, "role", "what the dataset is for", choices=["upstream", "downstream"])
    flag(sub, "task", "how events become trials, as JSON (downstream)", default=None, metavar="JSON")
    path(sub, "labels", "label names (JSON)")
    path(sub, "trials", "table of trials, from index (downstream)", default=None)
    path(sub, "nuisance", "regressors per frame, whose framewise displacement trials keep", default=None)
    flag(sub, "window-frames", "runs with fewer frames are left out", type=int, default=10)
    json_options(sub)
    defective(sub)
    path(sub, "output", "tar to write")
    path(sub, "problems", "table to write of the runs that are left out, if any", default=None)

    _add_prepare(commands)

    sub = stage_command(commands, "split", _split, "choose subjects for training, validation and test")
    _choose_dataset(sub, required=True)
    path(sub, "runs", "run table")
    path(sub, "qc", "folder of the quality tables of its subjects, from preprocess", default=None)
    path(sub, "signals", "folder of the quality tables of its subjects, from parcellate", default=None)
    flag(sub, "role", "what the dataset is for", choices=["upstream", "downstream"])
    json_options(sub, "upstream", "split.upstream")
    json_options(sub, "downstream", "split.downstream")
    flag(sub, "seed", "seed of the draws", type=int, default=1234)
    path(sub, "shards", "folder of its shards: units without a sample are left out", default=None)
    path(sub, "participants", "participants.tsv, for the options group and stratify", default=None)
    path(sub, "same-source", "splits of downstream datasets of the same people (upstream)", nargs="*", default=[])
    flag(sub, "source", "name of the source of the people, if other upstream datasets have it", default=None)
    path(sub, "output", "split to write (JSON)")


def _choose_dataset(stage: Stage, *, required: bool) -> None:
    text = "name of the dataset; beside --config by default all that the stage takes"
    stage.choose("dataset", text, required=required, metavar="NAME")


def _choose_subject(stage: Stage) -> None:
    text = "subject label, without sub-; beside --config by default all usable ones"
    stage.choose("subject", text, required=True, metavar="LABEL")


def _add_prepare(commands: Commands) -> None:
    text = "preprocess, parcellate and shard many subjects in one job, in the folder of a study"
    sub = command(commands, "prepare", _prepare, text)
    flag(sub, "dataset", "name of the dataset, which is indexed")
    flag(sub, "role", "what the dataset is for", choices=["upstream", "downstream"])
    flag(sub, "batch", "which of its subjects, as 3of16; default: 1of1, all", default="1of1", metavar="NofM")
    flag(
        sub, "until", "last stage; default: shard", default="shard", choices=["preprocess", "parcellate", "shard"]
    )
    flag(
        sub,
        "options",
        "options as JSON: preprocess, parcellate, shard, atlas, task, window_frames, on_error",
        metavar="JSON",
    )


def _index(args: argparse.Namespace) -> None:
    from boldly.config import AtlasOptions, DatasetOptions, IndexOptions
    from boldly.stages import index

    # In the workflow the log takes what is logged, the terminal shows what is printed: what the runs are and what
    # looks wrong with them belongs on both.
    with _printed(index.__name__):
        trials = index.run(
            dataset=args.dataset,
            dataset_options=parsed(DatasetOptions, args.dataset_options, "--dataset-options"),
            options=parsed(IndexOptions, args.options),
            preprocess=preprocess_options(args.preprocess, "--preprocess"),
            window_frames=args.window_frames,
            # What the workflow passes on where no dataset needs one.
            atlas=parsed(AtlasOptions, args.atlas, "--atlas") if args.atlas != "null" else None,
            runs=args.runs,
            labels=args.labels,
            trials=args.trials,
            t_r_s=args.t_r_s,
        )
    if trials:
        print(trials, flush=True)


@contextlib.contextmanager
def _printed(name: str) -> Iterator[None]:
    """Print what a logger says as well, unless the terminal shows the log anyway."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setLevel(logging.INFO)
    if not sys.stderr.isatty():
        logging.getLogger(name).addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger(name).removeHandler(handler)


def _preprocess(args: argparse.Namespace) -> None:
    from boldly.stages import preprocess

    options = preprocess_options(args.options)
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
        atlas=parsed(AtlasOptions, args.atlas, "--atlas"),
        options=parsed(ParcellateOptions, args.options),
        preprocess=preprocess_options(args.preprocess, "--preprocess"),
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
        nuisance=args.nuisance,
        options=parsed(ShardOptions, args.options),
        window_frames=args.window_frames,
        output=args.output,
        on_error=args.on_error,
        problems_table=args.problems,
    )


def _prepare(args: argparse.Namespace) -> None:
    from boldly import preparing
    from boldly.config import PrepareOptions, apply_preset

    options = parsed(PrepareOptions, args.options)
    options = options.model_copy(update={"preprocess": apply_preset(options.preprocess, Path())})
    dataset = preparing.Dataset(args.dataset, args.role, options)
    preparing.run(dataset, batch=args.batch, until=args.until)


def _split(args: argparse.Namespace) -> None:
    from boldly.config import DownstreamSplitOptions, UpstreamSplitOptions
    from boldly.stages import split

    split.run(
        dataset=args.dataset,
        runs=args.runs,
        qc=sorted(args.qc.glob("sub-*_qc.tsv")) if args.qc else [],
        signals=sorted(args.signals.glob("sub-*_quality.tsv")) if args.signals else [],
        role=args.role,
        upstream=parsed(UpstreamSplitOptions, args.upstream, "--upstream"),
        downstream=parsed(DownstreamSplitOptions, args.downstream, "--downstream"),
        seed=args.seed,
        output=args.output,
        shards=args.shards,
        participants=args.participants,
        same_source=args.same_source,
        source=args.source,
    )


def _task(text: str | None) -> TaskOptions | None:
    from boldly.config import TaskOptions

    return None if text is None else parsed(TaskOptions, text, "--task")
