"""What all sections of the config share: the stages, the types of names, and how a section is checked."""

from __future__ import annotations

import json
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
    "figures",
)

# Raised by one when the results of a stage change for the same input and options: reruns it and what follows.
REVISIONS: dict[str, int] = {
    **dict.fromkeys(STAGES, 1),
    **{"index": 2, "preprocess": 2, "parcellate": 4, "shard": 3, "split": 2, "pretrain": 6},
    **{"adapt": 4, "evaluate": 3, "figures": 5},
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
        problems = []
        for item in error.errors():
            field = ".".join(str(part) for part in item["loc"]) or "config"
            if item["type"] == "extra_forbidden":
                message, remedy = "unknown key", "remove it or correct its spelling (config/README.md lists all)"
            else:
                message, remedy = item["msg"].removeprefix("Value error, "), "see config/README.md"
            problems.append(Problem(where, field, message, remedy))
        raise InputError(problems) from None
