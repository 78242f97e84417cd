"""What all sections of the config share: the stages, the types of names, and how a section is checked."""

from __future__ import annotations

import difflib
import json
import re
from typing import Annotated, Any, TypeVar

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
    **{"index": 2, "preprocess": 2, "parcellate": 4, "shard": 3, "split": 2, "pretrain": 9},
    **{"adapt": 5, "evaluate": 5, "figures": 8},
}

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]+$")]

ExperimentName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]

Fraction = Annotated[float, Field(ge=0, le=1)]


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
        raise InputError(_problems(error, where)) from None


# How pydantic calls the alternatives of a field that may be several things.
_ALTERNATIVE = re.compile(r".*\[|(str|int|float|bool|[A-Z]\w*Options)$")


def _problems(error: ValidationError, where: str) -> list[Problem]:
    """Put what pydantic found into words; of a field that may be several things, what is wrong inside of it."""
    fields = [tuple(part for part in item["loc"] if not _is_alternative(part)) for item in error.errors()]
    problems = []
    for field, item in zip(fields, error.errors(), strict=True):
        if any(len(other) > len(field) and other[: len(field)] == field for other in fields):
            # It is no text where it is a table with a mistake.
            continue
        if item["type"] == "extra_forbidden":
            near = difflib.get_close_matches(str(field[-1]), _known_keys(), n=1)
            # A key of another section is spelled correctly.
            meant = f" (or is '{near[0]}' meant?)" if near and near[0] != field[-1] else ""
            message = f"unknown key{meant}"
            remedy = "remove it or correct its spelling (config/README.md lists all)"
        else:
            message, remedy = item["msg"].removeprefix("Value error, "), "see config/README.md"
        problems.append(Problem(where, ".".join(map(str, field)) or "config", message, remedy))
    return problems


def _is_alternative(part: int | str) -> bool:
    return isinstance(part, str) and _ALTERNATIVE.match(part) is not None


def _known_keys() -> list[str]:
    """Return the names of all options of all sections."""
    sections, names = [Section], set()
    while sections:
        section = sections.pop()
        sections += section.__subclasses__()
        names |= set(section.model_fields)
    return sorted(names)
