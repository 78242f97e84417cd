"""Reading a config file: variables in paths, presets and task files written out."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from boldly.config.conflicts import aroma_conflicts
from boldly.config.datasets import TaskOptions
from boldly.config.overrides import FLAG, with_settings
from boldly.config.sections import S, parse
from boldly.config.signals import PreprocessOptions
from boldly.config.study import Config
from boldly.records import InputError, Problem


def resolve(config: Config, checkout: Path, where: str = "config") -> Config:
    """Complete a config: expand ``${VARIABLE}`` in paths, read presets and task files, find DeepSpeed files.

    Parameters
    ----------
    config : Config
        As read.
    checkout : Path
        Where the files lie that boldly comes with (config/confounds, config/tasks, config/deepspeed): relative
        paths count from the working directory first, then from there.
    where : str, default="config"
        File of the config, for errors.

    Raises
    ------
    InputError
        For an environment variable that is not set, or a preset or task file that is absent or wrong.
    """
    config = _expand_variables(config, where)
    datasets = dict(config.datasets)
    for name, options in datasets.items():
        if options.preprocess is not None and options.preprocess.preset is not None:
            # All options of a preset are the dataset's own, also those that it leaves as they are.
            own = PreprocessOptions.model_validate(apply_preset(options.preprocess, checkout).model_dump())
            options = datasets[name] = options.model_copy(update={"preprocess": own})
        if isinstance(options.task, str):
            path = _find(options.task, checkout)
            task = parse(TaskOptions, read_yaml(path, f"datasets.{name}.task"), path)
            datasets[name] = options.model_copy(update={"task": task})
    experiments = dict(config.pretrain.experiments)
    for name, experiment in experiments.items():
        if experiment.deepspeed is not None:
            path = _find(experiment.deepspeed, checkout)
            experiments[name] = experiment.model_copy(update={"deepspeed": path})
    pretrain = config.pretrain.model_copy(update={"experiments": experiments})
    preprocess = apply_preset(config.preprocess, checkout)
    resolved = config.model_copy(update={"datasets": datasets, "pretrain": pretrain, "preprocess": preprocess})
    if wrong := aroma_conflicts(resolved):
        where = str(config.preprocess.preset)
        raise InputError([Problem(where, "preprocess", text, "see config/README.md") for text in wrong])
    return resolved


def apply_preset(options: PreprocessOptions, checkout: Path) -> PreprocessOptions:
    """Write the preset out: the values of its file, then those given beside it; `preset` itself becomes None.

    Parameters
    ----------
    options : PreprocessOptions
        As read.
    checkout : Path
        Where config/confounds lies (see `resolve`).

    Raises
    ------
    InputError
        For an unknown name, or a file that is absent or wrong.
    """
    if options.preset is None:
        return options
    path = _preset_path(options.preset, checkout)
    base = parse(PreprocessOptions, read_yaml(path, "preprocess.preset"), path)
    if base.preset is not None:
        message, remedy = "a preset cannot start from another one", "write its options out"
        raise InputError(Problem(path, "preset", message, remedy))
    content, own = (section.model_dump(exclude_unset=True) for section in (base, options))
    exclude = {**content.get("exclude", {}), **own.get("exclude", {})}
    return parse(PreprocessOptions, {**content, **own, "exclude": exclude, "preset": None}, path)


def _preset_path(preset: str, checkout: Path) -> str:
    """Return the file of a preset: a name has neither a folder nor an ending."""
    if Path(preset).suffix or Path(preset).name != preset:
        return _find(preset, checkout)
    folder = Path("config", "confounds")
    path = _find(str(folder / f"{preset}.yaml"), checkout)
    if not Path(path).is_file():
        known = {file.stem for place in (folder, checkout / folder) for file in place.glob("*.yaml")}
        message = f"no preset '{preset}' (there are: {', '.join(sorted(known)) or 'none'})"
        raise InputError(Problem("config", "preprocess.preset", message, "correct it, or give the path of a file"))
    return path


def load_config(path: Path | str, checkout: Path) -> Config:
    """Read, check and complete a config file (see `resolve`)."""
    return resolve(read_config(path, {}), checkout, str(path))


def read_config(path: Path | str, settings: Mapping[str, Any]) -> Config:
    """Read and check a config file.

    Parameters
    ----------
    path : Path or str
        YAML.
    settings : mapping
        Values in place of those of the file, by names as ``split.downstream.draws``.

    Raises
    ------
    InputError
        With every wrong key and value, or for a file that is absent or no YAML.
    """
    content = read_yaml(str(path), "config")
    if settings and isinstance(content, dict):
        return parse(Config, with_settings(content, settings), f"{path} with {FLAG}")
    return parse(Config, content, str(path))


# Options of a dataset in which ${VARIABLE} is expanded.
_PATHS = ("derivatives", "fmriprep", "bids", "shards", "participants", "source", "ceilings", "truth")


def _expand_variables(config: Config, where: str) -> Config:
    problems = []

    def expand(section: S, fields: tuple[str, ...], entity: str) -> S:
        update = {}
        for field in fields:
            value = getattr(section, field)
            if isinstance(value, str) and "$" in value:
                update[field] = os.path.expandvars(value)
                if "$" in update[field]:
                    message = f"'{value}' names an environment variable that is not set"
                    problems.append(
                        Problem(where, f"{entity}.{field}", message, "export it, or write the path out")
                    )
        return section.model_copy(update=update)

    atlas = expand(config.atlas, ("path", "labels", "cache"), "atlas") if config.atlas else None
    datasets = {name: expand(options, _PATHS, f"datasets.{name}") for name, options in config.datasets.items()}
    preprocess = expand(config.preprocess, ("preset",), "preprocess")
    sections = {}
    for section, fields in (("pretrain", ("initialise",)), ("adapt", ("pretrained", "untrained", "scratch"))):
        own = getattr(config, section)
        experiments = {
            name: expand(options, fields, f"{section}.experiments.{name}")
            for name, options in own.experiments.items()
        }
        sections[section] = own.model_copy(update={"experiments": experiments})
    if problems:
        raise InputError(problems)
    return config.model_copy(update={"atlas": atlas, "datasets": datasets, "preprocess": preprocess, **sections})


def _find(path: str, checkout: Path) -> str:
    return path if Path(path).exists() or not (checkout / path).exists() else str(checkout / path)


def read_yaml(path: str, entity: str) -> Any:
    """Read a YAML file of the config.

    Raises
    ------
    InputError
        For a file that is absent or not YAML.
    """
    try:
        return yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(Problem(path, entity, "no such file", "correct the path in the config")) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(Problem(path, entity, f"not YAML: {error}", "correct the file")) from None
