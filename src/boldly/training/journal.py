"""What happens beside the steps of a training: losses, validation, the best weights, checkpoints, stops."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from boldly.files import atomic_path
from boldly.records import InputError, Problem
from boldly.training.checkpoints import CheckpointFolder
from boldly.training.trackers import Tracker

logger = logging.getLogger(__name__)

# A loss of unit-variance data that is this large will not come back.
_EXPLODED = 1e4
_SECONDS_BETWEEN_LINES = 10.0
# With several processes a stop has to be agreed on, which costs a round trip.
_STEPS_BETWEEN_AGREEMENTS = 10

Row = dict[str, float]


@dataclass(frozen=True)
class Processes:
    """The processes of a training, as one of them sees them.

    Attributes
    ----------
    rank, count : int
        Number of this process, and how many there are.
    total : callable
        Tensor to its sum over all processes; all of them must call it.
    """

    rank: int = 0
    count: int = 1
    total: Callable[[Tensor], Tensor] = lambda tensor: tensor


Weights = dict[str, Tensor]
Validate = Callable[[nn.Module, Processes], Row]
# Weights and the row of their validation to the weights that the row belongs to.
Settle = Callable[[Weights, Row], Weights]


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


class Journal(TrainerCallback):
    """Keeps the histories, validates, remembers the best weights, and stops when the loss is no number.

    Parameters
    ----------
    name : str
        Experiment, for log lines.
    validate : callable, optional
        Network and processes to a row of numbers with `loss` and `criterion` (smaller is better); None: no
        validation, the last weights are kept.
    validate_first : bool
        Validate before the first step as well; its weights are never the best ones.
    settle : callable
        What makes the weights of a validated network those to keep; default: they are as they are.
    log_every, evaluate_every, checkpoint_every : int
        Steps between rows, validations, checkpoints.
    keys : callable
        Step to the keys of the samples of its batch, for the error of a diverged training.
    checkpoints : CheckpointFolder, optional
        Where checkpoints lie; None: none are written.
    last_step : int, optional
        Step behind which the training ends before its time.
    history : Path, optional
        Folder of train_history.csv and eval_history.csv, kept up to date while training.
    """

    def __init__(
        self,
        name: str,
        *,
        validate: Validate | None,
        validate_first: bool = False,
        settle: Settle = lambda weights, row: weights,
        log_every: int,
        evaluate_every: int,
        checkpoint_every: int,
        keys: Callable[[int], list[str]],
        checkpoints: CheckpointFolder | None = None,
        last_step: int | None = None,
        history: Path | None = None,
    ) -> None:
        self.name = name
        self.validate = validate
        self.validate_first = validate_first
        self.settle = settle
        self.log_every = log_every
        self.evaluate_every = evaluate_every
        self.checkpoint_every = checkpoint_every
        self.keys = keys
        self.checkpoints = checkpoints
        self.last_step = last_step
        self.history = history
        self.progress = Progress()
        # Asked of this process, and agreed on by all: one may be asked alone, or before the others.
        self.stop_signal = 0
        self.stopped = False
        self.collect_weights: Callable[[], dict[str, Tensor]]
        self.processes = Processes()
        self.barrier: Callable[[], None] = lambda: None
        self.trackers: list[Tracker] = []
        self.best_weights: dict[str, Tensor] = {}
        self._sum: Tensor | None = None
        self._diverged_at: Tensor | None = None
        self._learning_rate = 0.0
        self._spoken = self._started = time.monotonic()
        self._first_step = self._step = 0

    def add_loss(self, loss: Tensor, step: int) -> None:
        """Take note of a step's loss, without waiting for the device."""
        if self._sum is None or self._diverged_at is None:
            self._sum = torch.tensor(self.progress.loss_sum, dtype=torch.float64, device=loss.device)
            self._diverged_at = torch.tensor(-1, device=loss.device)
        self._step = step
        self._sum += loss
        self.progress.loss_count += 1
        bad = ~(loss.abs() < _EXPLODED) & (self._diverged_at < 0)
        self._diverged_at = torch.where(bad, step, self._diverged_at)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the clock; validate what the training starts from."""
        self._spoken = self._started = time.monotonic()
        self._first_step = state.global_step
        if self.validate is not None and self.validate_first and not self.progress.eval_rows:
            self._validate(0, kwargs["model"])

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Note the learning rate that was used: the schedule is a step ahead when the step ends."""
        self._learning_rate = kwargs["optimizer"].param_groups[0]["lr"]

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Write a row, validate, ask for a checkpoint or stop, where it is time."""
        step, last = state.global_step, state.global_step >= (self.last_step or state.max_steps)
        if step % self.log_every == 0 or last:
            self._write_loss(step)
        if self.validate is not None and (step % self.evaluate_every == 0 or last):
            self._validate(step, kwargs["model"])
        stop = bool(self.stop_signal)
        if args.world_size > 1:
            stop = step % _STEPS_BETWEEN_AGREEMENTS == 0 and self._any_process(stop, args)
        self.stopped |= stop
        # A training that made nothing better is refused; with a checkpoint of its end that can be overruled.
        due = not self.progress.improved if last else stop or step % self.checkpoint_every == 0
        if self.checkpoints is not None and due:
            self._check_divergence()
            control.should_save = True
        control.should_training_stop |= stop or step == self.last_step
        self._speak(step, state.max_steps, args.process_index)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Add what is known here to a checkpoint and declare it complete."""
        if self.checkpoints is None:
            return
        if self._sum is not None:
            self._sum = self._mean(self._sum)
            self.progress.loss_sum = self._sum.item()
        self.barrier()
        if args.should_save:
            self.checkpoints.complete(state.global_step, self.progress)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Close the trackers."""
        for tracker in self.trackers:
            tracker.close()

    def restore(self, progress: Progress, best_weights: dict[str, Tensor]) -> None:
        """Go on from a checkpoint."""
        self.progress = progress
        self.best_weights = best_weights

    def _write_loss(self, step: int) -> None:
        self._check_divergence()
        if self._sum is None:
            return
        mean = self._mean(self._sum).item() / self.progress.loss_count
        row = {"step": step, "loss": mean, "learning_rate": self._learning_rate}
        self.progress.train_rows.append(row)
        self.progress.loss_sum, self.progress.loss_count = 0.0, 0
        self._sum.zero_()
        self._publish("train", self.progress.train_rows)

    def _validate(self, step: int, network: nn.Module) -> None:
        assert self.validate is not None
        training = network.training
        network.eval()
        with torch.inference_mode():
            row = self.validate(network, self.processes)
        network.train(training)
        criterion = row.pop("criterion")
        self.progress.eval_rows.append({"step": step, **row})
        self._publish("eval", self.progress.eval_rows)
        if step == 0:
            self.progress.first_value = criterion
        elif self.progress.best_value is None or criterion < self.progress.best_value:
            self.progress.best_step, self.progress.best_value = step, criterion
            self.best_weights = self.settle(self.collect_weights(), row)
            if self.checkpoints is not None and self.history is not None:
                self.checkpoints.save_best(step, self.best_weights)

    def _publish(self, part: str, rows: list[Row]) -> None:
        """Write the history, and show its last row to the trackers."""
        if self.history is not None:
            write_history(self.history / f"{part}_history.csv", rows)
        for tracker in self.trackers:
            for name, value in rows[-1].items():
                if name != "step":
                    tracker.add_scalar(f"{part}/{name}", value, int(rows[-1]["step"]))

    def _mean(self, tensor: Tensor) -> Tensor:
        return self.processes.total(tensor) / self.processes.count

    def _any_process(self, flag: bool, args: TrainingArguments) -> bool:
        return bool(self.processes.total(torch.tensor(float(flag), device=args.device)) > 0)

    def _check_divergence(self) -> None:
        if self._diverged_at is None:
            return
        step = int(self._diverged_at)
        if not self.processes.total((self._diverged_at >= 0).float()):
            return
        # It may be another process that saw it; the weights are lost for all from then on.
        step = self._step if step < 0 else step
        raise InputError(
            Problem(
                "batch of " + ", ".join(self.keys(step)),
                self.name,
                f"training diverged: the loss of step {step + 1} is not a number or above {_EXPLODED:g}",
                "look at these samples (boldly inspect); if they are sound, lower learning_rate",
            )
        )

    def _speak(self, step: int, steps: int, rank: int) -> None:
        now = time.monotonic()
        if rank or now - self._spoken < _SECONDS_BETWEEN_LINES:
            return
        self._spoken = now
        left = (now - self._started) / (step - self._first_step) * (steps - step)
        parts = [f"{self.name}: step {step}/{steps}"]
        for word, rows in (("loss", self.progress.train_rows), ("validation", self.progress.eval_rows)):
            if rows:
                parts.append(f"{word} {rows[-1]['loss']:.4f}")
        logger.info("%s, %.0f s left", ", ".join(parts), left)


def write_history(path: Path, rows: list[Row]) -> None:
    """Write rows of numbers as CSV, atomically; without rows just the names of the columns."""
    table = pd.DataFrame(rows) if rows else pd.DataFrame(columns=["step", "loss"])
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")
