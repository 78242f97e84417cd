"""What Thomas, Ré & Poldrack (2022) published of their upstream models: validation losses at two steps.

Their data were z-scored, and predicting zero costs 0.798 on unit-normal values. The losses of the BERT frameworks
hold the cross-entropy of telling whether one window follows another as well: their L1 is lower, so that the skill
that follows from the loss is the least that it can be.
"""

from __future__ import annotations

from typing import NamedTuple

LOSS_OF_ZERO = 0.798


class Published(NamedTuple):
    """Validation loss of a released model.

    Attributes
    ----------
    step : int
        Optimiser step.
    loss : float
        Validation loss.
    at_least : bool
        Whether the skill that follows is a lower bound.
    """

    step: int
    loss: float
    at_least: bool

    @property
    def skill(self) -> float:
        """``1 - loss / L1 of predicting zero``."""
        return 1 - self.loss / LOSS_OF_ZERO


PUBLISHED: dict[str, tuple[Published, Published]] = {
    "autoencoding": (Published(10_000, 0.742, False), Published(300_000, 0.689, False)),
    "csm": (Published(10_000, 0.742, False), Published(300_000, 0.725, False)),
    "sequence_bert": (Published(10_000, 0.863, True), Published(300_000, 0.706, True)),
    "network_bert": (Published(10_000, 0.693, True), Published(300_000, 0.637, True)),
}
