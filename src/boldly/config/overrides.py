"""Values on the command line (`--set steps=1000`) in place of those of a config file."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from boldly.config.sections import S, parse
from boldly.records import InputError, Problem

FLAG = "--set"


def read_settings(texts: Iterable[str]) -> dict[str, Any]:
    """Read values of options.

    Parameters
    ----------
    texts : iterable of str
        ``name=value`` each; a name may have parts (``exclude.mean_fd_mm``), a value is YAML.

    Returns
    -------
    dict
        Value of each name; of a name that stands twice the last one.

    Raises
    ------
    InputError
        For each text that is no ``name=value``, or whose value is no YAML.
    """
    settings, problems = {}, []
    for text in texts:
        name, sign, value = text.partition("=")
        if not sign or not all(name.split(".")):
            problems.append(Problem(FLAG, text, "no option and value", f"write {FLAG} name=value"))
            continue
        try:
            settings[name] = _number(yaml.safe_load(value))
        except yaml.YAMLError as error:
            problems.append(Problem(FLAG, name, f"'{value}' is not YAML: {error}", "correct the value"))
    if problems:
        raise InputError(problems)
    return settings


def _number(value: Any) -> Any:
    """Return a number for what YAML takes for text: 1e-4 needs a point there."""
    if isinstance(value, list):
        return [_number(item) for item in value]
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            pass
    return value


def with_settings(content: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return a tree of options with other values; `settings` are values by names as ``section.option``.

    Raises
    ------
    InputError
        For a part of a name that is no table.
    """
    changed = copy.deepcopy(dict(content))
    for name, value in settings.items():
        *folders, last = name.split(".")
        place: Any = changed
        for folder in folders:
            if place.get(folder) is None:
                place[folder] = {}
            place = place[folder]
            if not isinstance(place, dict):
                message = f"'{folder}' is no table of options"
                raise InputError(Problem(FLAG, name, message, "see config/README.md for the names of options"))
        place[last] = value
    return changed


def override(section: S, settings: Mapping[str, Any]) -> S:
    """Return a section with other values, checked as if it stood in a config.

    Raises
    ------
    InputError
        With every wrong key and value.
    """
    content = with_settings(section.model_dump(exclude_unset=True), settings)
    return parse(type(section), content, FLAG) if settings else section
