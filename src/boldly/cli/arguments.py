"""How sub-commands declare their arguments, and how options become the models of the config."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeVar

if TYPE_CHECKING:
    from boldly.config import PreprocessOptions, Section

S = TypeVar("S", bound="Section")
Handler = Callable[[argparse.Namespace], None]
# What argparse returns from `add_subparsers`; each module of sub-commands has `add(commands)`.
Commands = Any


class Arguments(Protocol):
    """What takes arguments: a parser, or those of a stage."""

    def add_argument(self, *names: str, **settings: Any) -> argparse.Action:
        """Add one argument, as that of argparse."""


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line and the way to the help.

    Attributes
    ----------
    more_help : callable or None
        Returns what stands below the arguments in the help.
    """

    more_help: Callable[[], str] | None = None

    def format_help(self) -> str:
        """Return the help."""
        text = super().format_help()
        return text if self.more_help is None else f"{text}\n{self.more_help()}"

    def error(self, message: str) -> NoReturn:
        """Exit with the message."""
        self.exit(2, f"{self.prog}: {message}\ntry: {self.prog} --help\n")


def command(commands: Commands, name: str, handler: Handler, text: str) -> Parser:
    """Add a sub-command.

    Parameters
    ----------
    commands : object
        What `add` of a module of this package is given.
    name : str
        What users type.
    handler : callable
        Takes the parsed arguments; imports what takes long when it is called, not before.
    text : str
        What it does, as the line of `boldly --help`: starts with a verb, without full stop.

    Returns
    -------
    Parser
        For its arguments.
    """
    description = f"{text[0].upper()}{text[1:]}."
    sub: Parser = commands.add_parser(name, help=text, description=description)
    sub.set_defaults(command=handler)
    return sub


def flag(sub: Arguments, name: str, text: str, **settings: Any) -> None:
    """Add `--name`, which is required unless it has a default or `required=False`."""
    settings = {"required": "default" not in settings, "help": text, **settings}
    sub.add_argument(f"--{name}", **several(settings))


def several(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings of an argument; one of several values that is given twice takes the values of both."""
    return {**settings, "action": "extend"} if settings.get("nargs") == "+" else settings


def path(sub: Arguments, name: str, text: str, **settings: Any) -> None:
    """Add `--name PATH`, as `flag`."""
    flag(sub, name, text, type=Path, metavar="PATH", **settings)


def json_options(sub: Arguments, name: str = "options", section: str = "the stage") -> None:
    """Add `--name JSON`: a section of the config, as the workflow passes it."""
    text = f"options of {section} as JSON (config/README.md); default: {{}}"
    flag(sub, name, text, default="{}", metavar="JSON")


def parsed(model: type[S], text: str, where: str = "--options") -> S:
    """Return options that were passed as JSON.

    Raises
    ------
    InputError
        With every wrong key and value.
    """
    from boldly.config import parse

    return parse(model, text, where)


def preprocess_options(text: str, where: str = "--options") -> PreprocessOptions:
    """Return options of preprocess that were passed as JSON, their preset replaced by what it stands for."""
    from boldly.config import PreprocessOptions, apply_preset

    return apply_preset(parsed(PreprocessOptions, text, where), Path())
