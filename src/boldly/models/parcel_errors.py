"""The error of each parcel: what the means of `window_l1` and its like are made of, for those who listen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor

_heard: ContextVar[list[tuple[Tensor, Tensor]] | None] = ContextVar("heard", default=None)


@contextmanager
def listening() -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Collect what errors within the block are made of.

    Yields
    ------
    list of (Tensor, Tensor)
        For each error in turn the sum of absolute errors of each parcel (P,), and the number of values (P,).
    """
    sums: list[tuple[Tensor, Tensor]] = []
    token = _heard.set(sums)
    try:
        yield sums
    finally:
        _heard.reset(token)


def tell(error: Tensor, counted: Tensor) -> None:
    """Pass on absolute errors (B, L, P), of which `counted` (the same shape, bool) count, if somebody listens."""
    heard = _heard.get()
    if heard is not None:
        heard.append(((error * counted).sum(dim=(0, 1)).double(), counted.sum(dim=(0, 1))))
