"""The training loop, on Hugging Face Accelerate: `fit` reads from top to bottom."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader

from boldly.config import OptimiserOptions
from boldly.models.objective import Objective, Row, Weights
from boldly.samples.windows import Batch, to_device
from boldly.training import allocation
from boldly.training.checkpoints import CheckpointFolder
from boldly.training.history import History, Losses, Progress
from boldly.training.processes import (
    Processes,
    build_accelerator,
    compute_in,
    join_processes,
    precision_of,
    share_batch,
)
from boldly.training.trackers import open_trackers
from boldly.training.validation import Validate

logger = logging.getLogger(__name__)

# Rows of train_history.csv in a training of default length.
_ROWS = 200
# The batch system's word that a job has to end, and the warning before it (Slurm: --signal=USR1@300).
STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
# With several processes a stop has to be agreed on, which costs a round trip.
_STEPS_BETWEEN_AGREEMENTS = 10
# Between the seeds of two processes: further apart than any two seeds of experiments.
_SEEDS_APART = 1 << 32
# Of AdamW. Gradients that are zero but for rounding (bias of attention keys) must not become steps of full size.
_EPSILON = 1e-6
_NETWORK = "network."


class Source(Protocol):
    """Where batches come from: `boldly.samples.windows.Windows`, `Trials` or `StreamedWindows`."""

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Cut the windows with these numbers."""

    def keys(self, indices: Sequence[int]) -> list[str]:
        """Return the keys of the samples that windows are cut from."""


@dataclass(frozen=True)
class Fit:
    """The outcome of a training.

    Attributes
    ----------
    weights : dict
        Weights of the network at the step with the best validation, the one before the first step left aside; at
        the last step without validation.
    step : int
        That step.
    improved : bool
        False if that validation is no better than the one before the first step.
    train_rows, eval_rows : list of dict
        Histories.
    seconds : float
        Wall time of this process, not of those before an interruption.
    """

    weights: Weights
    step: int
    improved: bool
    train_rows: list[Row]
    eval_rows: list[Row]
    seconds: float


class Interrupted(SystemExit):
    """The training was asked to stop, and saved first."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)


def fit(
    objective: Objective,
    windows: Source,
    options: OptimiserOptions,
    *,
    name: str,
    validate: Validate | None,
    seed: int,
    folder: Path | None = None,
    deepspeed: str | None = None,
    track: Sequence[str] = (),
    validate_first: bool = False,
    last_step: int | None = None,
) -> Fit:
    """Train a network.

    Parameters
    ----------
    objective : Objective
        Network and loss. The network's own weights end up as those of the last step.
    windows : Source
        ``steps * batch_size`` windows, taken in their order.
    options : OptimiserOptions
        Steps, batch, learning rate and so on.
    name : str
        Experiment, for messages.
    validate : callable, optional
        Objective and processes to a row of numbers; called in evaluation mode. None: no validation, the last
        weights are kept.
    seed : int
        Seed of dropout; each process has a generator of its own.
    folder : Path, optional
        Where histories and checkpoints go; an interrupted training goes on from there. None: nothing is written.
    deepspeed : str, optional
        DeepSpeed JSON.
    track : sequence of str
        Trackers that show the histories as well (see `boldly.training.trackers`); they need `folder`.
    validate_first : bool, default=False
        Validate before the first step too, to tell whether the training made anything better.
    last_step : int, optional
        End behind this step, with the learning rates of a training of `steps`.

    Raises
    ------
    InputError
        If the loss is no longer a number, with the samples of the batch; if processes cannot share a batch.
    Interrupted
        After SIGTERM or SIGUSR1 in any of the processes, when a checkpoint was written; in all of them.
    """
    started, last = time.monotonic(), last_step or options.steps
    state = join_processes()
    shares = share_batch(options, state.num_processes, name)
    accelerator = build_accelerator(options, shares, deepspeed)
    device, first = accelerator.device, accelerator.is_main_process
    processes = Processes(state.process_index, state.num_processes, partial(accelerator.reduce, reduction="sum"))

    compute_in(precision_of(options), objective, device)
    optimiser = adamw(objective, options, fused=deepspeed is None)
    rates = [group["lr"] for group in optimiser.param_groups]
    model, optimiser = accelerator.prepare(objective, optimiser)

    # One seed for all processes would drop the same units out of all parts of a batch.
    torch.manual_seed(seed + processes.rank * _SEEDS_APART)
    checkpoints = CheckpointFolder(folder / "checkpoints") if folder else None
    done = _complete_checkpoints(checkpoints, accelerator)
    step = done[-1] if done else 0
    batches = iter(_loader(windows, shares.numbers(step, last, processes.rank), device))
    progress, best = Progress(), dict[str, torch.Tensor]()
    if checkpoints and done:
        progress, best = checkpoints.read(step, processes.count)
        accelerator.load_state(str(checkpoints.checkpoint(step)))
        logger.info("%s: goes on from step %d", name, step)

    losses = Losses(
        name,
        progress,
        processes,
        device,
        keys=lambda number: windows.keys(range(number * shares.batch, (number + 1) * shares.batch)),
    )
    trackers = open_trackers(track, folder, name, options.model_dump(mode="json")) if folder and first else []
    history = History(name, progress, folder if first else None, trackers, speaks=first)

    def evaluate(step: int) -> None:
        """Validate, and keep the weights if they are the best so far."""
        nonlocal best
        assert validate is not None
        objective.eval()
        with torch.inference_mode():
            row = validate(objective, processes)
        objective.train()
        criterion = row.pop("criterion")
        history.add("eval", {"step": step, **row})
        if progress.is_best(step, criterion):
            best = objective.settle(collect_weights(accelerator, model), row)
            if checkpoints and first:
                checkpoints.save_best(step, best)

    objective.train()
    if validate and validate_first and not progress.eval_rows:
        evaluate(0)
    end = allocation.deadline() if checkpoints and first else float("inf")
    with _stop_signals(asked_for=checkpoints is not None) as asked:
        stop = False
        while step < last and not stop:
            share = learning_rate_share(step, options)
            for group, rate in zip(optimiser.param_groups, rates, strict=True):
                group["lr"] = rate * share
            total = torch.zeros((), device=device)
            for _ in range(shares.turns):
                with accelerator.accumulate(model):
                    loss = model(**to_device(next(batches), device))["loss"]
                    accelerator.backward(loss)
                    if accelerator.sync_gradients and not deepspeed:  # which clips by itself
                        accelerator.clip_grad_norm_(objective.parameters(), options.gradient_clip)
                    optimiser.step()
                    optimiser.zero_grad()
                total += loss.detach() / shares.turns
            step += 1
            losses.add(total, step)

            if step % max(1, options.steps // _ROWS) == 0 or step == last:
                losses.check()
                history.add("train", {"step": step, "loss": losses.take_mean(), "learning_rate": rates[0] * share})
            if validate and (step % options.validation_steps == 0 or step == last):
                evaluate(step)
            stop = _agreed(bool(asked) or time.monotonic() > end, step, accelerator)
            # A training that made nothing better is refused; with a checkpoint of its end that can be overruled.
            due = not progress.improved if step == last else stop or step % options.checkpoint_every == 0
            if checkpoints and due:
                losses.check()
                losses.share()
                checkpoints.save(accelerator, step, progress)
            history.speak(step, options.steps)
    history.close()
    if stop and step < options.steps:
        if first:
            logger.info("%s: saved at step %d of %d, before it is ended", name, step, options.steps)
            allocation.queue_again()
        raise Interrupted(asked[0] if asked else signal.SIGTERM)
    validated = progress.best_value is not None
    return Fit(
        weights=best if validated else objective.settle(collect_weights(accelerator, model), None),
        step=progress.best_step if validated else step,
        improved=progress.improved,
        train_rows=progress.train_rows,
        eval_rows=progress.eval_rows,
        seconds=time.monotonic() - started,
    )


def adamw(objective: Objective, options: OptimiserOptions, *, fused: bool = True) -> torch.optim.Optimizer:
    """Build AdamW; biases, norms and vectors do not decay. The largest learning rate comes first."""
    named = [(name.removeprefix(_NETWORK), p) for name, p in objective.named_parameters() if p.requires_grad]
    trained = [(objective.rate(name), parameter) for name, parameter in named]
    groups: list[dict[str, Any]] = []
    for rate in sorted({rate for rate, _ in trained}, reverse=True):
        for is_matrix in (True, False):
            chosen = [p for own, p in trained if own == rate and (p.ndim > 1) == is_matrix]
            decay = options.weight_decay if is_matrix else 0.0
            groups.append({"params": chosen, "weight_decay": decay, "lr": rate * options.learning_rate})
    groups, betas = [group for group in groups if group["params"]], (options.beta1, options.beta2)
    return torch.optim.AdamW(groups, betas=betas, eps=_EPSILON, fused=fused)


def learning_rate_share(step: int, options: OptimiserOptions) -> float:
    """Return the share of the largest learning rate at a step, from 0: linear warm-up, then linear decay."""
    warmup = round(options.warmup_fraction * options.steps)
    if step < warmup:
        return step / warmup
    return (options.steps - step) / max(1, options.steps - warmup)


def collect_weights(accelerator: Accelerator, model: nn.Module) -> Weights:
    """Copy the weights of the network to the CPU; where they are spread (ZeRO-3), the first process gets them."""
    weights = accelerator.get_state_dict(model) or {}
    return {name.removeprefix(_NETWORK): tensor.detach().cpu().clone() for name, tensor in weights.items()}


def _loader(windows: Source, numbers: Iterator[range], device: torch.device) -> DataLoader[Batch]:
    """Return batches, each cut as a whole."""
    source: Any = windows
    return DataLoader(source, batch_sampler=numbers, collate_fn=_whole_batch, pin_memory=device.type == "cuda")  # type: ignore[arg-type]


def _whole_batch(batch: Any) -> Any:
    """Pass on what `__getitems__` cut: it is a batch already."""
    return batch


def _complete_checkpoints(checkpoints: CheckpointFolder | None, accelerator: Accelerator) -> list[int]:
    """Return the steps to go on from; what was cut while being written goes."""
    if checkpoints is None:
        return []
    if accelerator.is_main_process:
        checkpoints.clean()
    accelerator.wait_for_everyone()
    return checkpoints.steps()


def _agreed(stop: bool, step: int, accelerator: Accelerator) -> bool:
    """Tell whether all processes stop behind this step, since one of them was asked to."""
    if accelerator.num_processes == 1:
        return stop
    if step % _STEPS_BETWEEN_AGREEMENTS:
        return False
    asked = torch.tensor(float(stop), device=accelerator.device)
    return bool(accelerator.reduce(asked, "sum") > 0)


@contextmanager
def _stop_signals(*, asked_for: bool) -> Iterator[list[int]]:
    """Collect the signals that ask the training to stop, instead of dying of them."""
    asked: list[int] = []
    if not asked_for:
        yield asked
        return
    before = {number: signal.signal(number, lambda number, _: asked.append(number)) for number in STOP_SIGNALS}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
