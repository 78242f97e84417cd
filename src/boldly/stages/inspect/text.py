"""How inspect writes what it found: aligned lines, lists, numbers with their nouns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from boldly.words import in_bytes, listed

Rows = list[tuple[str, str]]

# What can be described, for errors.
KINDS = (
    "a shard (.tar), a time series file (.safetensors), the folder of a model, experiment or decoder, "
    "or a table of runs, trials, scores, comparisons or choices (.tsv)"
)
MOST_LISTED = 12
_LABEL_WIDTH = 14
_LINE_WIDTH = 100


def block(title: str, rows: Rows) -> str:
    """Return a title and rows in two columns."""
    lines = [title]
    previous = ""
    for name, text in rows:
        # A name is written once where several lines belong to it.
        lines += _wrapped("" if name == previous else name, text)
        previous = name
    return "\n".join(lines)


def _wrapped(name: str, text: str) -> list[str]:
    """Break text at its commas so that lines stay short, and set it in the second column."""
    indent = f"  {'':<{_LABEL_WIDTH}}"
    lines = [f"  {name:<{_LABEL_WIDTH}}"]
    for number, word in enumerate(text.split(", ")):
        joined = word if number == 0 else f", {word}"
        if number and len(lines[-1]) + len(joined) > _LINE_WIDTH:
            lines[-1] += ","
            lines.append(indent + word)
        else:
            lines[-1] += joined
    return [line.rstrip() for line in lines]


def each_once(items: Iterable[str]) -> str:
    """Join different items in their order; the end of a long list is counted instead."""
    return listed(dict.fromkeys(items), MOST_LISTED)


def seconds(numbers: Iterable[float]) -> str:
    """List different times."""
    return f"{each_once(f'{number:g}' for number in numbers)} s"


def span(numbers: Sequence[int]) -> str:
    """Write the smallest and the largest number."""
    if not numbers:
        return "0"
    return f"{min(numbers)}" if min(numbers) == max(numbers) else f"{min(numbers)} to {max(numbers)}"


def size(path: Path) -> str:
    """Write how large a file is."""
    return in_bytes(path.stat().st_size)
