"""What is told of a training while it runs: rows of its histories, trackers, log lines, losses that diverge."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pandas as pd
import torch
from torch import Tensor

from boldly.files import atomic_path
from boldly.models.objective import Row
from boldly.records import InputError, Problem
from boldly.training.processes import Processes
from boldly.training.trackers import Tracker

logger = logging.getLogger(__name__)

# A loss of unit-variance data that is this large will not come back.
_EXPLODED = 1e4
_SECONDS_BETWEEN_LINES = 10.0


@dataclass
class Progress:
    """What a training knows beside weights and optimiser; part of every checkpoint.

    Attributes
    ----------
    train_rows, eval_rows : list of dict
        Histories so far.
    first_value : float, optional
        Criterion of the validation before the first step; None without one.
    best_step, best_value : int, float
        Step with the best validation, and its criterion (smaller is better); None before the first.
    loss_sum, loss_count : float, int
        Losses since the last row.
    """

    train_rows: list[Row] = field(default_factory=list)
    eval_rows: list[Row] = field(default_factory=list)
    first_value: float | None = None
    best_step: int = 0
    best_value: float | None = None
    loss_sum: float = 0.0
    loss_count: int = 0

    @property
    def improved(self) -> bool:
        """Whether the best validation is better than the one before the first step, if there was one."""
        if self.first_value is None:
            return True
        return self.best_value is not None and self.best_value < self.first_value

    def is_best(self, step: int, criterion: float) -> bool:
        """Take note of a validation; tell whether its weights are to be kept, which those of step 0 never are."""
        if step == 0:
            self.first_value = criterion
        elif self.best_value is None or criterion < self.best_value:
            self.best_step, self.best_value = step, criterion
            return True
        return False


class Losses:
    """The losses since the last row, summed on the device: no step waits for it.

    Parameters
    ----------
    name : str
        Experiment, for errors.
    progress : Progress
        Of a training that goes on.
    processes : Processes
        Which share each batch.
    device : torch.device
        Of the losses.
    keys : callable
        Step to the keys of the samples of its batch.
    """

    def __init__(
        self,
        name: str,
        progress: Progress,
        processes: Processes,
        device: torch.device,
        keys: Callable[[int], list[str]],
    ) -> None:
        self._name, self._progress, self._processes, self._keys = name, progress, processes, keys
        self._sum = torch.tensor(progress.loss_sum, dtype=torch.float64, device=device)
        self._diverged_at = torch.tensor(-1, device=device)
        self._step = 0

    def add(self, loss: Tensor, step: int) -> None:
        """Take note of the loss of a step."""
        self._step = step
        self._sum += loss
        self._progress.loss_count += 1
        bad = ~(loss.abs() < _EXPLODED) & (self._diverged_at < 0)
        self._diverged_at = torch.where(bad, step, self._diverged_at)

    def take_mean(self) -> float:
        """Return the mean over processes and steps, and start anew."""
        mean = self._mean() / self._progress.loss_count
        self._progress.loss_sum, self._progress.loss_count = 0.0, 0
        self._sum.zero_()
        return mean

    def share(self) -> None:
        """Let the sum be that over all processes, here and in the progress, as it is where a training goes on."""
        self._progress.loss_sum = self._mean()
        self._sum.fill_(self._progress.loss_sum)

    def check(self) -> None:
        """Stop a training that diverged.

        Raises
        ------
        InputError
            In all processes, with the samples of the batch.
        """
        step = int(self._diverged_at)
        if not self._processes.total((self._diverged_at >= 0).float()):
            return
        # It may be another process that saw it; the weights are lost for all from then on.
        step = self._step if step < 0 else step
        raise InputError(
            Problem(
                "batch of " + ", ".join(self._keys(step - 1)),
                self._name,
                f"training diverged: the loss of step {step} is not a number or above {_EXPLODED:g}",
                "look at these samples (boldly inspect); if they are sound, lower learning_rate",
            )
        )

    def _mean(self) -> float:
        return self._processes.total(self._sum).item() / self._processes.count


class History:
    """The rows of a training, and of its validations, kept up to date in files and trackers.

    Parameters
    ----------
    name : str
        Experiment, for log lines.
    progress : Progress
        Holds the rows.
    folder : Path, optional
        Of train_history.csv and eval_history.csv; None: nothing is written.
    trackers : list of Tracker
        Which show the rows as well.
    speaks : bool
        Whether lines are logged.
    """

    def __init__(
        self, name: str, progress: Progress, folder: Path | None, trackers: list[Tracker], *, speaks: bool
    ) -> None:
        self._name, self._progress, self._folder, self._trackers = name, progress, folder, trackers
        self._speaks = speaks
        self._spoken = self._started = time.monotonic()
        self._first_step: int | None = None

    def add(self, part: Literal["train", "eval"], row: Row) -> None:
        """Add a row, write the history, and show the row to the trackers."""
        rows = self._progress.train_rows if part == "train" else self._progress.eval_rows
        rows.append(row)
        if self._folder is not None:
            write_history(self._folder / f"{part}_history.csv", rows)
        for tracker in self._trackers:
            for name, value in row.items():
                if name != "step":
                    tracker.add_scalar(f"{part}/{name}", value, int(row["step"]))

    def speak(self, step: int, steps: int) -> None:
        """Log from time to time how far the training is."""
        now = time.monotonic()
        if self._first_step is None:
            self._first_step, self._started = step, now
        if not self._speaks or now - self._spoken < _SECONDS_BETWEEN_LINES or step == self._first_step:
            return
        self._spoken = now
        left = (now - self._started) / (step - self._first_step) * (steps - step)
        parts = [f"{self._name}: step {step}/{steps}"]
        for word, rows in (("loss", self._progress.train_rows), ("validation", self._progress.eval_rows)):
            if rows:
                parts.append(f"{word} {rows[-1]['loss']:.4f}")
        logger.info("%s, %.0f s left", ", ".join(parts), left)

    def close(self) -> None:
        """Close the trackers."""
        for tracker in self._trackers:
            tracker.close()


def write_history(path: Path, rows: list[Row]) -> None:
    """Write rows of numbers as CSV, atomically; without rows just the names of the columns."""
    table = pd.DataFrame(rows) if rows else pd.DataFrame(columns=["step", "loss"])
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")
