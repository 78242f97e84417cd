"""What the workflow would pass to each stage, from the config: the arguments of `boldly <stage>`, job by job."""

from __future__ import annotations

import argparse
import logging
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boldly.cli.study import choice, unknown
from boldly.records import InputError, Problem

if TYPE_CHECKING:
    from boldly.layout import Layout

logger = logging.getLogger("boldly")


@dataclass(frozen=True)
class Job:
    """One call of a stage.

    Attributes
    ----------
    stage : str
        The stage.
    name : str
        What it is about, for the log.
    values : dict
        Value of each argument of the sub-command.
    needs : dict of str to str
        Files that must be there, and the stage that writes each.
    """

    stage: str
    name: str
    values: dict[str, Any]
    needs: dict[str, str] = field(default_factory=dict)


def jobs(stage: str, study: Layout, args: argparse.Namespace) -> Iterator[Job]:
    """Yield the jobs of a stage in their order.

    Parameters
    ----------
    stage : str
        The stage.
    study : Layout
        Of the config.
    args : Namespace
        `dataset`, `subject`, `experiment`, `figure`, `key` as the stage has them; None: all.

    Raises
    ------
    InputError
        For a name that is not known, or where one has to be given.
    """
    return _JOBS[stage](study, args)


def check_needs(job: Job, config: Path, directory: Path) -> None:
    """Refuse a job whose input is not there, and say which stage writes it, in the folder of the study."""
    problems = []
    for path, stage in job.needs.items():
        if not Path(path).exists():
            folder = f" --directory {shlex.quote(str(directory))}" if directory != Path() else ""
            command = f"boldly {stage} --config {config}{folder}"
            if dataset := job.values.get("dataset"):
                command += f" --dataset {dataset}"
            whole = f"snakemake --cores 1{folder} --configfile {config} -- {stage}"
            remedy = f"run it first: {command} (or everything up to it: {whole})"
            problems.append(Problem(path, job.name, f"missing; stage {stage} writes it", remedy))
    if problems:
        raise InputError(problems)


def _index(study: Layout, args: argparse.Namespace) -> Iterator[Job]:
    for dataset in choice(args.dataset, study.config.datasets, "dataset"):
        yield index_job(study, dataset)


def index_job(study: Layout, dataset: str) -> Job:
    """Return the job that indexes a dataset."""
    from boldly import layout

    config = study.config
    values = {
        "dataset": dataset,
        "dataset_options": study.dataset_options(dataset),
        "atlas": "null" if config.atlas is None else config.atlas.model_dump_json(),
        "options": config.index.model_dump_json(),
        "preprocess": config.preprocess_of(dataset).model_dump_json(),
        "window_frames": study.shortest_window,
        "runs": Path(layout.RUNS.format(dataset=dataset)),
        "labels": Path(layout.LABELS.format(dataset=dataset)),
        "trials": Path(layout.TRIALS.format(dataset=dataset)),
        "t_r_s": config.shard.t_r_s,
    }
    return Job("index", dataset, values)


def _subjects(study: Layout, args: argparse.Namespace, stage: str) -> Iterator[tuple[str, str, Path]]:
    """Yield dataset, subject and run table of those that are asked for; their datasets must be indexed."""
    from boldly import layout
    from boldly.records import read_runs

    for dataset in choice(args.dataset, study.prepared, "dataset"):
        table = Path(layout.RUNS.format(dataset=dataset))
        check_needs(Job(stage, dataset, {"dataset": dataset}, {str(table): "index"}), args.config, args.directory)
        there = dict.fromkeys(run.subject for run in read_runs(table, usable=True))
        wanted = None if args.subject is None else args.subject.removeprefix("sub-")
        for subject in choice(wanted, there, "subject"):
            yield dataset, subject, table


def _preprocess(study: Layout, args: argparse.Namespace) -> Iterator[Job]:
    from boldly import layout

    for dataset, subject, table in _subjects(study, args, "preprocess"):
        names = {"dataset": dataset, "subject": subject}
        values = {
            "runs": table,
            "subject": subject,
            "options": study.config.preprocess_of(dataset).model_dump_json(),
            "on_error": study.config.index.on_error,
            "nuisance": Path(layout.NUISANCE.format(**names)),
            "qc": Path(layout.QC.format(**names)),
        }
        yield Job("preprocess", f"{dataset} sub-{subject}", values)


def _parcellate(study: Layout, args: argparse.Namespace) -> Iterator[Job]:
    from boldly import layout

    config = study.config
    for dataset, subject, table in _subjects(study, args, "parcellate"):
        names = {"dataset": dataset, "subject": subject}
        nuisance, qc = layout.NUISANCE.format(**names), layout.QC.format(**names)
        values = {
            "runs": table,
            "subject": subject,
            "nuisance": Path(nuisance),
            "qc": Path(qc),
            "atlas": "null" if config.atlas is None else config.atlas.model_dump_json(),
            "options": config.parcellate_of(dataset).model_dump_json(),
            "preprocess": config.preprocess_of(dataset).model_dump_json(),
            "on_error": config.index.on_error,
            "cache": Path(layout.PROJECTIONS),
            "output": Path(layout.TIMESERIES.format(**names)),
            "quality": Path(layout.QUALITY.format(**names)),
        }
        needs = dict.fromkeys((nuisance, qc), "preprocess")
        yield Job("parcellate", f"{dataset} sub-{subject}", values, needs)


def _shard(study: Layout, args: argparse.Namespace) -> Iterator[Job]:
    from boldly import layout

    for dataset, subject, table in _subjects(study, args, "shard"):
        timeseries = layout.TIMESERIES.format(dataset=dataset, subject=subject)
        nuisance = layout.NUISANCE.format(dataset=dataset, subject=subject)
        values = {
            "timeseries": Path(timeseries),
            "runs": table,
            "subject": subject,
            "role": study.config.datasets[dataset].role,
            "task": study.task_options(dataset),
            "labels": Path(layout.LABELS.format(dataset=dataset)),
            "trials": Path(layout.TRIALS.format(dataset=dataset)),
            "nuisance": Path(nuisance),
            "window_frames": study.shortest_window,
            "options": study.config.shard.model_dump_json(),
            "on_error": study.config.index.on_error,
            "output": Path(study.shard(dataset, subject)),
            "problems": Path(layout.SHARD_PROBLEMS.format(dataset=dataset, subject=subject)),
        }
        yield Job("shard", f"{dataset} sub-{subject}", values, {nuisance: "preprocess", timeseries: "parcellate"})


def _split(study: Layout, args: argparse.Namespace) -> Iterator[Job]:
    wanted = choice(args.dataset, study.config.datasets, "dataset")
    # Those of upstream datasets leave out people whom downstream ones test.
    for dataset in sorted(wanted, key=lambda name: name in study.upstream):
        yield split_job(study, dataset)


def split_job(study: Layout, dataset: str) -> Job:
    """Return the job that splits a dataset."""
    from boldly import layout

    role = study.config.datasets[dataset].role
    runs = layout.RUNS.format(dataset=dataset)
    is_prepared = dataset in study.prepared
    participants = study.participants(dataset)
    same = study.splits_of_same_people(dataset)
    values = {
        "dataset": dataset,
        "runs": Path(runs),
        "qc": Path(layout.QC.format(dataset=dataset, subject="")).parent if is_prepared else None,
        "signals": Path(layout.QUALITY.format(dataset=dataset, subject="")).parent if is_prepared else None,
        "shards": Path(study.shard_folder(dataset)) if is_prepared else None,
        "role": role,
        role: study.split_options(dataset).model_dump_json(),
        "seed": study.config.split.seed,
        "participants": None if participants is None else Path(participants),
        "same_source": [Path(path) for path in same],
        "source": study.source_of_several(dataset),
        "output": Path(layout.SPLIT.format(dataset=dataset)),
    }
    stages = {"qc": "preprocess", "signals": "parcellate", "shards": "shard"}
    folders = {str(values[name]): stage for name, stage in stages.items()}
    needs = {runs: "index", **(folders if is_prepared else {}), **dict.fromkeys(same, "split")}
    return Job("split", dataset, values, needs)


def _ready(study: Layout, datasets: list[str]) -> Iterator[Job]:
    """Yield index and split of ready-made shards, which take seconds; those of other datasets must be there."""
    for dataset in datasets:
        if dataset not in study.prepared:
            yield index_job(study, dataset)
            yield split_job(study, dataset)


def _one_experiment(study: Layout, args: argparse.Namespace, stage: str) -> str:
    experiments = list(getattr(study.config, stage).experiments)
    if args.experiment is None:
        message = f"which experiment? There are: {', '.join(experiments) or 'none'}"
        raise InputError(Problem("--experiment", stage, message, "name one"))
    return str(args.experiment)


def _pretrain(study: Layout, args: argparse.Namespace) -> Iterator[Job]:
    from boldly import layout

    name = _one_experiment(study, args, "pretrain")
    options = study.config.pretrain.experiments[name]
    datasets = study.pretrain_datasets(name)
    yield from _ready(study, datasets)
    data = study.data(datasets)
    initial = options.initialise
    needs = {split: "split" for split, _ in data}
    if initial in study.config.pretrain.experiments:
        needs[f"{study.model_folder(initial)}/{layout.WEIGHTS}"] = "pretrain"
    values = {
        "name": name,
        "options": options.model_dump_json(),
        "data": data,
        "corpus": _current_corpus(study, name, data),
        "initial": None if initial is None else Path(study.model_folder(initial)),
        "output": Path(layout.UPSTREAM_MODEL.format(experiment=name)),
    }
    yield Job("pretrain", name, values, needs)


def _current_corpus(study: Layout, experiment: str, data: list[tuple[str, str]]) -> Path | None:
    """Return the folder of the packed runs of an experiment, if one is there that is newer than the data."""
    packed = [Path(path) for path in study.corpus_files(experiment)]
    if not packed or not all(path.exists() for path in packed):
        return None
    inputs = [Path(split) for split, _ in data] + [path for _, tars in data for path in Path(tars).glob("*.tar")]
    newest = max((path.stat().st_mtime for path in inputs if path.exists()), default=0.0)
    return packed[0].parent if min(path.stat().st_mtime for path in packed) >= newest else None


def _adapt(study: Layout, args: argparse.Namespace) -> Iterator[Job]:
    from boldly import layout

    name = _one_experiment(study, args, "adapt")
    options = study.config.adapt.experiments[name]
    for dataset in choice(args.dataset, options.datasets or study.downstream, "dataset"):
        yield from _ready(study, [dataset])
        split = layout.SPLIT.format(dataset=dataset)
        models = study.upstream_models(options)
        members = study.members(dataset, options)
        needs = {split: "split"}
        needs |= {f"{folder}/{layout.WEIGHTS}": "pretrain" for *_, folder in models}
        needs |= {f"{folder}/{layout.ADAPTED}": "adapt" for folder in members}
        values = {
            "name": name,
            "experiments": None,
            "dataset": dataset,
            "options": options.model_dump_json(),
            "split": Path(split),
            "shards": Path(study.shard_folder(dataset)),
            "model": models,
            "members": [Path(folder) for folder in members],
            "output": Path(layout.DOWNSTREAM_MODEL.format(dataset=dataset, experiment=name)),
        }
        yield Job("adapt", f"{name} on {dataset}", values, needs)


def _evaluate(study: Layout, args: argparse.Namespace) -> Iterator[Job]:
    from boldly import layout

    # What is asked for by name may be of any dataset.
    is_named = args.dataset is not None or args.experiment is not None
    known = study.downstream if is_named else study.scored or study.downstream
    for dataset in choice(args.dataset, known, "dataset"):
        split = layout.SPLIT.format(dataset=dataset)
        ceilings = study.config.datasets[dataset].ceilings
        values = {
            "dataset": dataset,
            "split": Path(split),
            "shards": Path(study.shard_folder(dataset)),
            "models": _adapted(study, dataset, args.experiment),
            "ceilings": None if ceilings is None else Path(ceilings),
            "options": study.config.evaluate.model_dump_json(),
            "scores": Path(layout.SCORES.format(dataset=dataset)),
            "comparisons": Path(layout.COMPARISONS.format(dataset=dataset)),
            "choices": Path(layout.CHOICES.format(dataset=dataset)),
            "predictions": Path(layout.PREDICTIONS.format(dataset=dataset)),
        }
        yield Job("evaluate", dataset, values, {split: "split"})


def _adapted(study: Layout, dataset: str, wanted: list[str] | None) -> list[Path]:
    """Return the folders of the decoders of a dataset that are there: those asked for, or those of the config."""
    from boldly import layout

    root = Path(layout.DOWNSTREAM_MODELS.format(dataset=dataset))
    there = sorted(path.parent.name for path in root.glob(f"*/{layout.ADAPTED}"))
    if wanted is not None:
        return [root / name for name in choice(wanted, there, "adapted experiment")]
    of_config = [Path(folder).name for folder in study.decoders(dataset)]
    names = [name for name in of_config if name in there]
    if not names:
        found = f"adapted are: {', '.join(there)}" if there else "nothing is adapted yet"
        remedy = "name experiments: --experiment ..." if there else "run boldly adapt first"
        raise InputError(Problem(str(root), dataset, f"no decoder of the config; {found}", remedy))
    if missing := [name for name in of_config if name not in there]:
        logger.warning("%s: not adapted yet, and left out: %s", dataset, ", ".join(missing))
    return [root / name for name in names]


def _explain(study: Layout, args: argparse.Namespace) -> Iterator[Job]:
    from boldly import layout

    config = study.config
    known = config.explain.datasets or study.downstream
    if args.dataset is None and args.experiment is None:
        known = study.explained_datasets or known
    for dataset in choice(args.dataset, known, "dataset"):
        truth, is_prepared = config.datasets[dataset].truth, dataset in study.prepared
        series = Path(layout.TIMESERIES.format(dataset=dataset, subject="")).parent
        values = {
            "dataset": dataset,
            "models": _adapted(study, dataset, args.experiment or study.explained),
            "shards": [Path(study.shard_folder(dataset))],
            "atlas": config.atlas.model_dump_json() if config.atlas is not None and is_prepared else "null",
            "series": series if is_prepared else None,
            "trials": Path(layout.TRIALS.format(dataset=dataset)) if is_prepared else None,
            "truth": None if truth is None else Path(truth),
            "options": config.explain.model_dump_json(),
            "output": Path(layout.EXPLANATION.format(dataset=dataset, experiment="")),
        }
        yield Job("explain", dataset, values)


def _figures(study: Layout, args: argparse.Namespace) -> Iterator[Job]:
    from boldly import layout

    known = study.figures()
    if args.figure is not None and args.figure not in known:
        raise InputError(unknown(args.figure, known, "figure"))
    for figure in known if args.figure is None else [args.figure]:
        tables = study.figure_tables(figure)
        output = layout.FIGURE.format(figure=figure)
        if args.key is not None:
            dataset = study.dataset_of(args.key)
            tables = [
                layout.RUNS.format(dataset=dataset),
                *study.quality_folders([dataset]),
                *study.networks_table(),
            ]
            output = layout.CARPET.format(dataset=dataset, key=args.key)
        values = {
            "figure": figure,
            "tables": [Path(table) for table in tables],
            "key": args.key,
            "options": study.config.figures.model_dump_json(),
            "output": Path(output),
        }
        yield Job("figures", figure, values)


_JOBS: dict[str, Callable[[Layout, argparse.Namespace], Iterator[Job]]] = {
    "index": _index,
    "preprocess": _preprocess,
    "parcellate": _parcellate,
    "shard": _shard,
    "split": _split,
    "pretrain": _pretrain,
    "adapt": _adapt,
    "evaluate": _evaluate,
    "explain": _explain,
    "figures": _figures,
}
