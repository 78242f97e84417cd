"""How sub-commands declare their arguments, and how options become the models of the config."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

if TYPE_CHECKING:
    from boldly.config import PreprocessOptions, Section

S = TypeVar("S", bound="Section")
Handler = Callable[[argparse.Namespace], None]
# What argparse returns from `add_subparsers`; each module of sub-commands has `add(commands)`.
Commands = Any


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line and the way to the help."""

    def error(self, message: str) -> NoReturn:
        """Exit with the message."""
        self.exit(2, f"{self.prog}: {message}\ntry: {self.prog} --help\n")


def command(commands: Commands, name: str, handler: Handler, text: str) -> argparse.ArgumentParser:
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
    ArgumentParser
        For its arguments.
    """
    sub: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=f"{text[0].upper()}{text[1:]}."
    )
    sub.set_defaults(command=handler)
    return sub


def flag(sub: argparse.ArgumentParser, name: str, text: str, **settings: Any) -> None:
    """Add `--name`, which is required unless it has a default or `required=False`."""
    settings = {"required": "default" not in settings, "help": text, **settings}
    sub.add_argument(f"--{name}", **settings)


def path(sub: argparse.ArgumentParser, name: str, text: str, **settings: Any) -> None:
    """Add `--name PATH`, as `flag`."""
    flag(sub, name, text, type=Path, metavar="PATH", **settings)


def json_options(sub: argparse.ArgumentParser, name: str = "options", section: str = "the stage") -> None:
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
