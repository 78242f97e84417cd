"""Words of messages and pages: numbers with their nouns."""

from __future__ import annotations


def noun(number: int, one: str, many: str = "") -> str:
    """Return a noun as it stands behind a number; `many` is its plural where that is not formed with s."""
    return one if number == 1 else many or f"{one}s"


def counted(number: int, word: str) -> str:
    """Write a number with its noun."""
    return f"{number:,} {noun(number, word)}"
