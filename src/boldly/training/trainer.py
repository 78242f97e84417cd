"""The training loop: the Hugging Face Trainer with an optimiser, a data order and a journal of our own."""

from __future__ import annotations

import logging
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import PrinterCallback, TrainingArguments

from boldly.config import OptimiserOptions
from boldly.files import read_json
from boldly.samples.windows import Batch
from boldly.training.checkpoints import CheckpointFolder
from boldly.training.journal import Journal, Processes, Progress, Row, Settle, Validate
from boldly.training.trackers import open_trackers

logger = logging.getLogger(__name__)

# Rows of train_history.csv in a training of default length.
_ROWS = 200
# The batch system's word that a job has to end, and the warning before it (Slurm: --signal=USR1@300).
STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
# Between the seeds of two processes: further apart than any two seeds of experiments.
_SEEDS_APART = 1 << 32
# Of AdamW. Gradients that are zero but for rounding (bias of attention keys) must not become steps of full size.
_EPSILON = 1e-6


@dataclass(frozen=True)
class Fit:
    """The outcome of a training.

    Attributes
    ----------
    weights : dict
        Weights of the step with the best validation, the one before the first step left aside; of the last step
        without validation.
    step : int
        That step.
    improved : bool
        False if that validation is no better than the one before the first step.
    train_rows, eval_rows : list of dict
        Histories.
    seconds : float
        Wall time of this process, not of those before an interruption.
    """

    weights: dict[str, Tensor]
    step: int
    improved: bool
    train_rows: list[Row]
    eval_rows: list[Row]
    seconds: float


class Interrupted(SystemExit):
    """The training was asked to stop, and saved first."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)


# Name of a parameter to its share of the learning rate.
Rate = Callable[[str], float]


class StepTrainer(transformers.Trainer):
    """Sequential order, AdamW with decay of matrices only, losses handed to a journal."""

    def __init__(
        self,
        network: nn.Module,
        arguments: TrainingArguments,
        windows: Dataset[Batch],
        journal: Journal,
        rate: Rate,
    ) -> None:
        super().__init__(
            model=network, args=arguments, train_dataset=windows, data_collator=_whole_batch, callbacks=[journal]
        )
        # Losses are means over windows already: no rescaling by numbers of labels.
        self.model_accepts_loss_kwargs = False
        self.network = network
        self.rate = rate
        self.journal = journal
        self.remove_callback(PrinterCallback)
        journal.collect_weights = self.collect_weights
        journal.barrier = self.accelerator.wait_for_everyone
        journal.processes = Processes(
            arguments.process_index, arguments.world_size, lambda tensor: self.accelerator.reduce(tensor, "sum")
        )

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Build AdamW; biases, norms and vectors do not decay."""
        if self.optimizer is None:
            self.optimizer = torch.optim.AdamW(
                self._groups(),
                lr=self.args.learning_rate,
                betas=(self.args.adam_beta1, self.args.adam_beta2),
                eps=_EPSILON,
                fused=not self.is_deepspeed_enabled,
            )
        return self.optimizer

    def _groups(self) -> list[dict[str, Any]]:
        """Return parameters that share learning rate and decay, those with the largest rate first."""
        trained = [(self.rate(name), p) for name, p in self.network.named_parameters() if p.requires_grad]
        groups = []
        for rate in sorted({rate for rate, _ in trained}, reverse=True):
            for is_matrix in (True, False):
                chosen = [p for own, p in trained if own == rate and (p.ndim > 1) == is_matrix]
                decay = self.args.weight_decay if is_matrix else 0.0
                groups.append({"params": chosen, "weight_decay": decay, "lr": rate * self.args.learning_rate})
        return [group for group in groups if group["params"]]

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """Compute gradients of one batch."""
        loss = super().training_step(model, inputs, num_items_in_batch)
        self.journal.add_loss(loss, self.state.global_step)
        return loss

    def collect_weights(self) -> dict[str, Tensor]:
        """Copy the weights to the CPU, from all processes where they are spread."""
        if self.is_deepspeed_enabled:
            # With ZeRO-3 only the first process gets them.
            weights = self.accelerator.get_state_dict(self.model_wrapped) or {}
        else:
            weights = self.network.state_dict()
        return {name: tensor.detach().cpu().clone() for name, tensor in weights.items()}


def fit(
    network: nn.Module,
    windows: Dataset[Batch],
    options: OptimiserOptions,
    *,
    name: str,
    validate: Validate | None,
    keys: Callable[[list[int]], list[str]],
    seed: int,
    folder: Path | None = None,
    deepspeed: str | None = None,
    track: Sequence[str] = (),
    validate_first: bool = False,
    settle: Settle = lambda weights, row: weights,
    rate: Rate = lambda name: 1.0,
    last_step: int | None = None,
) -> Fit:
    """Train a network.

    Parameters
    ----------
    network : nn.Module
        Its forward returns a dict with `loss`. Its own weights end up as those of the last step.
    windows : Dataset
        ``steps * batch_size`` items, taken in their order, cut by `__getitems__`.
    options : OptimiserOptions
        Steps, batch, learning rate and so on.
    name : str
        Experiment, for messages.
    validate : callable, optional
        See `Journal`. Called in evaluation mode.
    keys : callable
        Numbers of windows to the keys of their samples.
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
    settle : callable, optional
        See `Journal`.
    rate : callable, optional
        Name of a parameter to its share of the learning rate; default: all have the whole.
    last_step : int, optional
        End behind this step, with the learning rates of a training of `steps`.

    Raises
    ------
    InputError
        If the loss is no longer a number, with the samples of the batch.
    Interrupted
        After SIGTERM or SIGUSR1 in any of the processes, when a checkpoint was written; in all of them.
    """
    started = time.monotonic()
    if not torch.cuda.is_available():
        # The Trainer imports DeepSpeed where it is installed, which else says that it found no GPU.
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    checkpoints = CheckpointFolder(folder / "checkpoints") if folder else None
    size = options.batch_size
    journal = Journal(
        name,
        validate=validate,
        validate_first=validate_first,
        settle=settle,
        log_every=max(1, options.steps // _ROWS),
        evaluate_every=options.evaluate_every,
        checkpoint_every=options.checkpoint_every,
        keys=lambda step: keys(list(range(step * size, (step + 1) * size))),
        checkpoints=checkpoints,
        last_step=last_step,
    )
    with tempfile.TemporaryDirectory() as nowhere:
        arguments = training_arguments(
            options, seed, checkpoints.path if checkpoints else Path(nowhere), deepspeed
        )
        if deepspeed:
            _autocast(network, arguments.device.type, precision_of(options))
        journal.history = folder if arguments.should_save else None
        if folder and arguments.should_save:
            journal.trackers = open_trackers(track, folder, name, options.model_dump(mode="json"))
        trainer = StepTrainer(network, arguments, windows, journal, rate)
        # The Trainer gives all processes one seed: the same units would drop out of all parts of a batch. A
        # checkpoint holds the state of each generator.
        torch.manual_seed(seed + arguments.process_index * _SEEDS_APART)
        resume = _resume(checkpoints, journal, trainer) if checkpoints else None
        with _stop_on_signals(journal if checkpoints else None):
            trainer.train(resume_from_checkpoint=resume)
    progress = journal.progress
    validated = progress.best_value is not None
    weights = journal.best_weights if validated else trainer.collect_weights()
    step = progress.best_step if validated else trainer.state.global_step
    if journal.stopped and trainer.state.global_step < options.steps:
        raise Interrupted(journal.stop_signal or signal.SIGTERM)
    seconds = time.monotonic() - started
    return Fit(weights, step, progress.improved, progress.train_rows, progress.eval_rows, seconds)


def training_arguments(
    options: OptimiserOptions, seed: int, folder: Path, deepspeed: str | None
) -> TrainingArguments:
    """Translate options into the Trainer's words. `options.batch_size` is divided among the processes."""
    on_gpu = torch.cuda.is_available()
    precision = precision_of(options)
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=options.steps,
        learning_rate=options.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=round(options.warmup_fraction * options.steps),
        weight_decay=options.weight_decay,
        adam_beta1=options.beta1,
        adam_beta2=options.beta2,
        max_grad_norm=options.gradient_clip,
        bf16=precision == "bfloat16" and deepspeed is None,
        fp16=precision == "float16" and deepspeed is None,
        seed=seed,
        use_cpu=not on_gpu,
        train_sampling_strategy="sequential",
        dataloader_pin_memory=on_gpu,
        ddp_find_unused_parameters=False,
        deepspeed=_deepspeed_config(deepspeed, precision) if deepspeed else None,
        remove_unused_columns=False,
        logging_strategy="no",
        eval_strategy="no",
        save_strategy="no",
        save_total_limit=2,
        logging_nan_inf_filter=False,
        disable_tqdm=True,
        report_to=[],
        per_device_train_batch_size=options.batch_size,
    )
    # One process drives one device; several devices mean several processes.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    arguments.per_device_train_batch_size = options.batch_size // arguments.world_size
    return arguments


def _deepspeed_config(path: str, precision: str) -> dict[str, Any]:
    """Read a DeepSpeed JSON, without a precision of its own (see `_autocast`)."""
    content: dict[str, Any] = read_json(Path(path))
    for section in ("bf16", "fp16"):
        content.pop(section, None)
    if precision == "float16":
        # Brings the scaling of the loss that float16 needs.
        content.setdefault("torch_autocast", {"enabled": True, "dtype": precision})
    return content


def _autocast(network: nn.Module, device: str, precision: str) -> None:
    """Let a network compute in a precision, as the Trainer does without DeepSpeed: casting what products read.

    DeepSpeed's own half precision casts all weights, buffers and inputs. The linear start of a forecast and the
    seconds would lose digits, and a validation, which does not go through its engine, would meet weights of
    another type.
    """
    if precision != "float32":
        cast = torch.autocast(device, getattr(torch, precision))
        network.forward = cast(network.forward)


def precision_of(options: OptimiserOptions) -> str:
    """Return the arithmetic of a training on this machine: float32, bfloat16 or float16."""
    if options.precision != "auto":
        return options.precision
    has_bfloat16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    return "bfloat16" if has_bfloat16 else "float32"


def _whole_batch(batch: Any) -> Any:
    """Pass on what `__getitems__` cut: it is a batch already."""
    return batch


def _resume(checkpoints: CheckpointFolder, journal: Journal, trainer: StepTrainer) -> str | None:
    """Return the newest complete checkpoint, with the journal set to it."""
    if trainer.args.should_save:
        checkpoints.clean()
    trainer.accelerator.wait_for_everyone()
    steps = checkpoints.steps()
    if not steps:
        return None
    progress, best = checkpoints.read(steps[-1])
    journal.restore(Progress(**progress), best)
    logger.info("%s: goes on from step %d", journal.name, steps[-1])
    return str(checkpoints.checkpoint(steps[-1]))


@contextmanager
def _stop_on_signals(journal: Journal | None) -> Iterator[None]:
    """Let SIGTERM and SIGUSR1 end the training after the running step, with a checkpoint."""
    if journal is None:
        yield
        return

    def ask(number: int, frame: Any) -> None:
        journal.stop_signal = number

    before = {number: signal.signal(number, ask) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
