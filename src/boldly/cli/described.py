"""The options of a stage as `boldly <stage> --help` shows them: from the models of the config."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator

from boldly.cli.study import models_of
from boldly.config import Section
from boldly.config.described import REQUIRED, DescribedOption, own_options, shared_options

_LONGEST_LINE = 110


def options_text(stage: str) -> str:
    """Return the options of a stage in groups, each with its values, its default and its meaning.

    Parameters
    ----------
    stage : str
        The stage.

    Returns
    -------
    str
        Lines no longer than the terminal is wide.
    """
    groups = []
    for kind, model in models_of(stage).items():
        for title, prefix, options in _groups(model):
            about = f"options {kind}".strip() if not prefix else f"options of {prefix}"
            lines = [f"{about} (--set {prefix + '.' if prefix else ''}NAME=VALUE): {title}"]
            lines += [line for option in options for line in _lines(option, prefix)]
            groups.append("\n".join(lines))
    return "\n\n".join(groups) + "\n"


def _groups(model: type[Section], prefix: str = "") -> Iterator[tuple[str, str, list[DescribedOption]]]:
    """Yield title, what stands before their names, and options: own ones, shared ones, those of inner sections."""
    yield _first_line(model), prefix, own_options(model)
    if shared := shared_options(model):
        yield _first_line(model.__mro__[1]), prefix, shared
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, Section):
            yield from _groups(inner, f"{prefix}.{name}".lstrip("."))


def _first_line(model: type[Section]) -> str:
    return (model.__doc__ or "").splitlines()[0]


def _lines(option: DescribedOption, prefix: str) -> list[str]:
    default = "required" if option.default == REQUIRED else f"default: {option.default}"
    width = min(_LONGEST_LINE, shutil.get_terminal_size().columns)
    head = f"{prefix + '.' if prefix else ''}{option.name}: {option.kind.replace('`', '')} ({default})"
    texts = ((head, 2), (option.meaning.replace("`", ""), 6))
    return [line for text, indent in texts for line in _wrapped(text, width, indent)]


def _wrapped(text: str, width: int, indent: int) -> list[str]:
    return textwrap.wrap(
        text, width, initial_indent=" " * indent, subsequent_indent=" " * (indent + 2 * (indent < 4))
    )
