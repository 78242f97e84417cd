"""Tables of the report: what a column is called, how its values are written, and what they are sorted by."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes
    ----------
    key : str
        Where a record has the value.
    title : str
        Heading, with the unit.
    digits : int or None
        Decimals of numbers; None where the values are text.
    interval : tuple of str, optional
        Keys of the ends of an interval that is written behind the value.
    """

    key: str
    title: str
    digits: int | None = None
    interval: tuple[str, str] | None = None


@dataclass(frozen=True)
class Cell:
    """What stands in a cell, and the number that the column is sorted by; None for text."""

    text: str
    number: float | None = None


@dataclass(frozen=True)
class Table:
    """A table as the page shows it.

    Attributes
    ----------
    caption : str
        What the rows are.
    columns : tuple of Column
        Its columns.
    rows : tuple of tuple of Cell
        Its rows.
    """

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]


def table(caption: str, records: Iterable[Mapping[str, Any]], columns: Iterable[Column]) -> Table:
    """Make a table of records; a column without any value is left out."""
    records = list(records)
    kept = tuple(column for column in columns if any(_is_there(record.get(column.key)) for record in records))
    rows = tuple(tuple(_cell(record, column) for column in kept) for record in records)
    return Table(caption, kept, rows)


def _is_there(value: Any) -> bool:
    return value is not None and value != "" and not (isinstance(value, float) and math.isnan(value))


def _cell(record: Mapping[str, Any], column: Column) -> Cell:
    value = record.get(column.key)
    if not _is_there(value):
        return Cell("")
    if column.digits is None:
        return Cell(str(value))
    number = float(value)  # type: ignore[arg-type]
    text = _spelled(number, column.digits)
    if column.interval is not None:
        low, high = (record.get(key) for key in column.interval)
        if _is_there(low) and _is_there(high):
            text += f" [{_spelled(float(low), column.digits)}, {_spelled(float(high), column.digits)}]"  # type: ignore[arg-type]
    return Cell(text, number)


def _spelled(number: float, digits: int) -> str:
    """Write a number; one that is not zero never looks like zero."""
    smallest = 10.0**-digits
    if digits and 0 < abs(number) < smallest / 2:
        return f"< {smallest:g}" if number > 0 else f"{number:.1e}"
    # "-0.00" is no number that a reader expects.
    return f"{number:,.{digits}f}" if round(number, digits) else f"{0:.{digits}f}"
