"""What all sections of the config share: the stages, the types of names, and how a section is checked."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Sequence
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
)

from boldly.records import InputError, Problem

STAGES = (
    "index",
    "preprocess",
    "parcellate",
    "shard",
    "split",
    "pretrain",
    "adapt",
    "evaluate",
    "explain",
    "figures",
)

# Raised by one when the results of a stage change for the same input and options: reruns it and what follows.
REVISIONS: dict[str, int] = {
    **dict.fromkeys(STAGES, 1),
    **{"index": 4, "preprocess": 4, "parcellate": 5, "shard": 3, "split": 3, "pretrain": 9},
    **{"adapt": 6, "evaluate": 6, "figures": 10},
}

# Of what happens to the runs of people that a finished decoder is applied to.
DECODE_REVISIONS = {name: REVISIONS[name] for name in ("index", "preprocess", "parcellate", "shard", "evaluate")}

_NAME, _EXPERIMENT = r"^[A-Za-z0-9]+$", r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"

Name = Annotated[str, StringConstraints(pattern=_NAME)]

ExperimentName = Annotated[str, StringConstraints(pattern=_EXPERIMENT)]

Fraction = Annotated[float, Field(ge=0, le=1)]

# NumPy takes no negative ones.
Seed = Annotated[int, Field(ge=0)]


class Section(BaseModel):
    """A section of the config: unknown keys are errors, values do not change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


S = TypeVar("S", bound=Section)


def parse(model: type[S], content: Any, where: str) -> S:
    """Check `content` against a model of the config.

    Parameters
    ----------
    model : type
        `Config` or one of its sections.
    content : dict or str
        The values, or JSON text of them (as rules pass them).
    where : str
        File or flag, for the error.

    Raises
    ------
    InputError
        With every wrong key and value.
    """
    if isinstance(content, str):
        try:
            content = json.loads(content)
        except json.JSONDecodeError as error:
            raise InputError(Problem(where, "", f"not JSON: {error}", "pass a JSON object")) from None
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise InputError(_problems(error, model, where)) from None


# How pydantic calls the alternatives of a field that may be several things.
_ALTERNATIVE = re.compile(r".*\[|(str|int|float|bool|[A-Z]\w*Options)$")


def _problems(error: ValidationError, model: type[Section], where: str) -> list[Problem]:
    """Put what pydantic found into words; of a field that may be several things, what is wrong inside of it."""
    fields = [tuple(part for part in item["loc"] if not _is_alternative(part)) for item in error.errors()]
    problems = []
    for field, item in zip(fields, error.errors(), strict=True):
        if any(len(other) > len(field) and other[: len(field)] == field for other in fields):
            # It is no text where it is a table with a mistake.
            continue
        if item["type"] == "extra_forbidden":
            near = similar(str(field[-1]), _keys_beside(model, field)) or similar(str(field[-1]), _known_keys())
            # A key of another section is spelled correctly.
            meant = f" (or is '{near}' meant?)" if near and near != field[-1] else ""
            message = f"unknown key{meant}"
            remedy = "remove it or correct its spelling (config/README.md lists all)"
        elif item["type"] == "literal_error":
            known = re.findall(r"'([^']*)'", item["ctx"]["expected"])
            near = similar(str(item["input"]), known)
            meant = f" (or is '{near}' meant?)" if near else ""
            message, remedy = f"'{item['input']}' is none of {', '.join(known)}{meant}", "take one of these"
        elif item["type"] == "string_pattern_mismatch" and item["ctx"]["pattern"] in _NAMES:
            allowed, unwanted = _NAMES[item["ctx"]["pattern"]]
            better = re.sub(unwanted, "", str(item["input"]))
            message = f"'{item['input']}' is no name: names have {allowed}"
            remedy = f"call it {better}, for example" if better else "choose another name"
        else:
            message, remedy = item["msg"].removeprefix("Value error, "), "see config/README.md"
        problems.append(Problem(where, ".".join(map(str, field)) or "config", message, remedy))
    return problems


def _is_alternative(part: int | str) -> bool:
    return isinstance(part, str) and _ALTERNATIVE.match(part) is not None


# What names may have, and what has to be taken out of one that has something else.
_NAMES = {
    _NAME: ("letters and digits only, since they are parts of file names", r"[^A-Za-z0-9]"),
    _EXPERIMENT: ("letters, digits and, behind the first, _ . -", r"^[^A-Za-z0-9]+|[^A-Za-z0-9_.-]"),
}


def similar(word: str, known: Sequence[str], cutoff: float = 0.7) -> str | None:
    """Return the word that is probably meant: one that differs by little, or that begins alike.

    Parameters
    ----------
    word : str
        What was written.
    known : sequence of str
        What there is; of several that are equally alike the first.
    cutoff : float, default=0.7
        Least likeness, from 0 to 1 (`difflib.get_close_matches`); for short names 0.6, with which "cms" is like
        "csm".
    """
    lower = {name.lower(): name for name in reversed(known)}
    near = difflib.get_close_matches(word.lower(), lower, n=1, cutoff=cutoff)
    begins = [name for name in lower if len(word) > 3 and name.startswith(word.lower())]
    found = [*near, *sorted(begins, key=len)]
    return lower[found[0]] if found else None


def _keys_beside(model: type[Section], field: tuple[int | str, ...]) -> list[str]:
    """Return the options of the section in which a key stands."""
    kind: Any = model
    for part in field[:-1]:
        section = _section(kind)
        if section is not None and part in section.model_fields:
            kind = section.model_fields[str(part)].annotation
        else:
            # The name of one of several, or its number.
            kind = get_args(kind)[-1] if get_args(kind) else kind
    section = _section(kind)
    return [] if section is None else sorted(section.model_fields)


def _section(kind: Any) -> type[Section] | None:
    """Return the section that a field may be; None where it is none, or names to sections."""
    choices = [kind, *(get_args(kind) if get_origin(kind) in (Union, UnionType) else ())]
    return next((one for one in choices if isinstance(one, type) and issubclass(one, Section)), None)


def _known_keys() -> list[str]:
    """Return the names of all options of all sections."""
    sections, names = [Section], set()
    while sections:
        section = sections.pop()
        sections += section.__subclasses__()
        names |= set(section.model_fields)
    return sorted(names)
