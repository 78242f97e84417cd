"""Options in words, from the models of the config: for config/README.md and `boldly <stage> --help`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from boldly.config.sections import Section

_WORDS = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false"}
_LIMITS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}

# Defaults that are words and no values.
REQUIRED, BELOW, NONE = IN_WORDS = ("required", "see below", "none")


@dataclass(frozen=True)
class DescribedOption:
    """An option of a section.

    Attributes
    ----------
    name : str
        As in a config.
    kind : str
        What its value is, with its limits, in words; choices stand in backticks.
    default : str
        JSON of the default, ``required``, ``none``, or ``see below`` for a section of its own.
    meaning : str
        The description, with unit.
    """

    name: str
    kind: str
    default: str
    meaning: str


def described(model: type[Section]) -> list[DescribedOption]:
    """Return the options of a section, its own before those that it shares with others."""
    return own_options(model) + shared_options(model)


def own_options(model: type[Section]) -> list[DescribedOption]:
    """Return the options that a section alone has."""
    return _described(model, [name for name in model.model_fields if name in model.__annotations__])


def shared_options(model: type[Section]) -> list[DescribedOption]:
    """Return the options that a section has from the one that it is derived from."""
    return _described(model, [name for name in model.model_fields if name not in model.__annotations__])


def _described(model: type[Section], names: list[str]) -> list[DescribedOption]:
    options = model.model_json_schema()["properties"]
    return [
        DescribedOption(name, _kind(options[name]), _default(model, name), options[name].get("description", ""))
        for name in names
    ]


def _default(model: type[Section], name: str) -> str:
    field = model.model_fields[name]
    if field.is_required():
        return REQUIRED
    default = field.get_default(call_default_factory=True)
    if isinstance(default, Section):
        return BELOW
    if default is None:
        return NONE
    return json.dumps(default, ensure_ascii=False)


def _kind(option: dict[str, Any]) -> str:
    """Put the schema of one option into words."""
    if "anyOf" in option:
        # That an option may be left out stands in its default.
        words = [_kind(choice) for choice in option["anyOf"] if choice.get("type") != "null"]
        return " or ".join(dict.fromkeys(words))
    if "$ref" in option:
        return "options"
    if "const" in option:
        return f"`{option['const']}`"
    if "enum" in option:
        return ", ".join(f"`{value}`" for value in option["enum"])
    if option.get("type") == "array":
        if "prefixItems" in option:
            return f"{len(option['prefixItems'])} x {_kind(option['prefixItems'][0])}"
        return f"list of {_kind(option['items']) if option.get('items') else 'values'}"
    if option.get("type") == "object":
        # Names that must have a form of their own stand under that form.
        values = option.get("additionalProperties") or next(iter(option["patternProperties"].values()))
        return f"names to {_kind(values) if isinstance(values, dict) else 'values'}"
    if "type" not in option:
        return "value"
    limits = ", ".join(f"{sign} {option[word]:g}" for word, sign in _LIMITS.items() if word in option)
    return f"{_WORDS[option['type']]} {limits}".rstrip()
