"""A stage by hand from the config: `boldly pretrain --config config/mine.yaml --experiment csm --set steps=1000`.

The config says what the workflow would pass to the stage, file by file; `--set` puts other values into it.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boldly.records import InputError, Problem

if TYPE_CHECKING:
    from boldly.config import Config, Section
    from boldly.layout import Layout

# Stages whose options may be others for each dataset.
_OF_DATASETS = ("preprocess", "parcellate")
_OF_EXPERIMENTS = ("pretrain", "adapt")


def study(args: argparse.Namespace, stage: str) -> Layout:
    """Read the config that the command line names, and go to the folder of the study.

    Parameters
    ----------
    args : Namespace
        `config`, `directory`, `set`, and `dataset` and `experiment` where the stage has them.
    stage : str
        The stage, whose own options `--set` names without their section.

    Returns
    -------
    Layout
        Of the config with the values of `--set`.

    Raises
    ------
    InputError
        For every wrong key and value, as the workflow says it, and for an experiment that does not exist.
    """
    from boldly.config import read_config, resolve
    from boldly.config.overrides import read_settings
    from boldly.layout import Layout

    whole, own = _parted(read_settings(args.set), stage)
    path = Path(args.config).resolve()
    if not args.directory.is_dir():
        args.directory.mkdir(parents=True)
    os.chdir(args.directory)
    config = read_config(path, whole)
    return Layout(resolve(_with_own(config, stage, args, own), checkout(), str(args.config)))


def checkout() -> Path:
    """Return the folder in which config/confounds, config/tasks and config/deepspeed lie."""
    import boldly

    folder = Path(boldly.__file__).parents[2]
    return folder if (folder / "Snakefile").is_file() else Path()


def models_of(stage: str) -> dict[str, type[Section]]:
    """Return the models whose options a stage has, by what stands before their names in `--set`."""
    from boldly import config

    if stage == "split":
        return {
            "of downstream datasets": config.DownstreamSplitOptions,
            "of upstream datasets": config.UpstreamSplitOptions,
        }
    models: dict[str, type[Section]] = {
        "index": config.IndexOptions,
        "preprocess": config.PreprocessOptions,
        "parcellate": config.ParcellateOptions,
        "shard": config.ShardOptions,
        "pretrain": config.PretrainOptions,
        "adapt": config.AdaptOptions,
        "evaluate": config.EvaluateOptions,
        "explain": config.ExplainOptions,
        "figures": config.FiguresOptions,
    }
    return {"": models[stage]}


def _parted(settings: Mapping[str, Any], stage: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the settings of the whole config (`split.downstream.draws`), and those of the stage (`steps`)."""
    from boldly.config import Config

    whole = {name: value for name, value in settings.items() if name.partition(".")[0] in Config.model_fields}
    # A stage may have an option of the name of a section: `datasets` of an experiment.
    own_names = {name for model in models_of(stage).values() for name in model.model_fields}
    whole = {name: value for name, value in whole.items() if "." in name or name not in own_names}
    own = {name: value for name, value in settings.items() if name not in whole}
    return whole, own


def _with_own(config: Config, stage: str, args: argparse.Namespace, own: Mapping[str, Any]) -> Config:
    """Return the config with other options of a stage."""
    from boldly.config import parse
    from boldly.config.overrides import FLAG, override

    if stage in _OF_EXPERIMENTS:
        experiments = dict(getattr(config, stage).experiments)
        for name in [args.experiment] if isinstance(args.experiment, str) else []:
            experiments[name] = _experiment(config, stage, name, own)
        changed: Any = getattr(config, stage).model_copy(update={"experiments": experiments})
    elif not own:
        return config
    elif stage in _OF_DATASETS or stage == "split":
        return _with_own_of_datasets(config, stage, args, own)
    else:
        changed = override(getattr(config, stage), own)
    return parse(type(config), {**dict(config), stage: changed}, FLAG)


def _with_own_of_datasets(config: Config, stage: str, args: argparse.Namespace, own: Mapping[str, Any]) -> Config:
    """Return the config with other options of a stage for the datasets that are asked for."""
    from boldly.config import parse
    from boldly.config.overrides import FLAG, override

    datasets = dict(config.datasets)
    seed = {name: value for name, value in own.items() if stage == "split" and name == "seed"}
    rest = {name: value for name, value in own.items() if name not in seed}
    for name in choice(args.dataset, datasets, "dataset"):
        base = getattr(datasets[name], stage)
        if stage == "split":
            base = base or getattr(config.split, datasets[name].role)
        else:
            base = base or type(getattr(config, stage))()
        section = override(base, rest if args.dataset else _of_role(rest, type(base), stage))
        datasets[name] = datasets[name].model_copy(update={stage: section})
    split = override(config.split, seed)
    return parse(type(config), {**dict(config), "datasets": datasets, "split": split}, FLAG)


def _of_role(own: Mapping[str, Any], model: type[Section], stage: str) -> dict[str, Any]:
    """Leave out the options that only the other model of a stage has; one that none has is wrong."""
    others = {name for other in models_of(stage).values() for name in other.model_fields} - set(model.model_fields)
    return {name: value for name, value in own.items() if name.partition(".")[0] not in others}


def _experiment(config: Config, stage: str, name: str, own: Mapping[str, Any]) -> Section:
    """Return an experiment with other options; a new one must say what it starts from."""
    from boldly.config import STARTS, AdaptOptions, PretrainOptions, parse
    from boldly.config.overrides import FLAG, override, with_settings

    section = getattr(config, stage)
    if name in section.experiments:
        return override(section.experiments[name], own)
    starts = ("framework",) if stage == "pretrain" else (*STARTS, "members")
    if not any(start in own for start in starts):
        hint = f"correct it, or describe a new one: {FLAG} {starts[0]}=..."
        raise InputError(unknown(name, section.experiments, f"{stage} experiment", hint))
    shared = section.shared if isinstance(section, type(config.adapt)) else {}
    model: Any = PretrainOptions if stage == "pretrain" else AdaptOptions
    described: Section = parse(model, with_settings(shared, own), FLAG)
    return described


def choice(names: str | Sequence[str] | None, known: Iterable[str], kind: str) -> list[str]:
    """Return the names that were asked for: all that are known where none is.

    Raises
    ------
    InputError
        For each name that is not known.
    """
    there = list(known)
    if names is None:
        return there
    wanted = [names] if isinstance(names, str) else list(names)
    if problems := [unknown(name, there, kind) for name in wanted if name not in there]:
        raise InputError(problems)
    return wanted


def known_experiments(config: Path, settings: Sequence[str], stage: str) -> set[str]:
    """Return the experiments of a stage that the workflow makes; `--set` may make others by hand.

    Parameters
    ----------
    config : Path
        The config.
    settings : sequence of str
        Those of `--set`; values of other sections may be what makes the config complete.
    stage : str
        pretrain or adapt.
    """
    from boldly.config import read_config
    from boldly.config.overrides import read_settings

    whole, _ = _parted(read_settings(settings), stage)
    others = {name: value for name, value in whole.items() if name.partition(".")[0] != stage}
    return set(getattr(read_config(config, others), stage).experiments)


def unknown(name: str, known: Iterable[str], kind: str, remedy: str = "correct its spelling") -> Problem:
    """Return the problem of a name that nothing has."""
    from boldly.config.sections import similar

    there = list(known)
    near = similar(name, there, cutoff=0.6)
    meant = f" (or is '{near}' meant?)" if near else ""
    return Problem(f"--{kind.split()[-1]}", name, f"no such {kind}{meant}; there are: {', '.join(there)}", remedy)
