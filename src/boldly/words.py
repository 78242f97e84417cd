"""Words of messages and pages: numbers with their nouns, lists, sizes of files."""

from __future__ import annotations

from collections.abc import Iterable


def noun(number: int, one: str, many: str = "") -> str:
    """Return a noun as it stands behind a number; `many` is its plural where that is not formed with s."""
    return one if number == 1 else many or f"{one}s"


def counted(number: int, word: str) -> str:
    """Write a number with its noun."""
    return f"{number:,} {noun(number, word)}"


def listed(items: Iterable[object], most: int = 10) -> str:
    """Join the first items with commas; the others are counted. Without any it is "none"."""
    texts = [str(item) for item in items]
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more or "none"


def in_bytes(number: int) -> str:
    """Write a number of bytes with the unit that fits."""
    scaled = float(number)
    for unit in ("B", "kB", "MB"):
        if scaled < 1000:
            return f"{scaled:.3g} {unit}"
        scaled /= 1000
    return f"{scaled:.3g} GB"
