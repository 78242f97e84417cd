"""The processes of a training: how they meet, share a batch, and compute; one process is the simplest case."""

from __future__ import annotations

import gc
import importlib.util
import os
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import DeepSpeedPlugin
from torch import Tensor

from boldly.config import OptimiserOptions
from boldly.files import read_json
from boldly.models.objective import Objective
from boldly.records import InputError, Problem

# Functions of these modules have a default that is the group of all processes when they are imported: imported
# after the processes met, they would keep the group for ever.
_KEEP_GROUP = ("torch.distributed.nn.functional", "deepspeed.comm.torch")
# Time for a thread that only has to delete a tensor.
_LETTING_GO = 0.1  # s


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


@dataclass(frozen=True)
class Shares:
    """How the windows of a step are shared: by processes, and by each of them in turns.

    Attributes
    ----------
    batch : int
        Windows of a step (`batch_size`).
    device_batch : int
        Windows that a process computes at once (`device_batch_size`).
    turns : int
        So often it does so in a step, adding up gradients.
    """

    batch: int
    device_batch: int
    turns: int

    def numbers(self, first_step: int, last_step: int, rank: int) -> Iterator[range]:
        """Yield the numbers of the windows of a process, turn by turn."""
        part = self.device_batch * self.turns
        for step in range(first_step, last_step):
            for turn in range(self.turns):
                start = step * self.batch + rank * part + turn * self.device_batch
                yield range(start, start + self.device_batch)


def join_processes() -> PartialState:
    """Meet the processes that torchrun started, over NCCL on GPUs, gloo on CPUs; without torchrun there is one."""
    if not torch.cuda.is_available():
        # DeepSpeed, which Accelerate imports where it is installed, else says that it found no GPU.
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    if "LOCAL_RANK" in os.environ:
        for name in _KEEP_GROUP:
            if importlib.util.find_spec(name.partition(".")[0]):
                importlib.import_module(name)
    return PartialState(cpu=not torch.cuda.is_available())


@contextmanager
def joined_processes() -> Iterator[PartialState]:
    """Meet the processes that torchrun started, and part from them when all goes on alone, or is given up.

    A process that ends while it is joined to others may be aborted, and all with it. Gloo's threads end with the
    last reference to the group of processes; one that still has to let go of the tensor of a sum when Python ends
    is aborted there (https://github.com/pytorch/pytorch/pull/179291).

    Yields
    ------
    PartialState
        Number of this process, and how many there are; also true after they parted.
    """
    state = join_processes()
    try:
        yield state
    except SystemExit as asked:
        _leave(state, asked.__traceback__)
        raise
    except InputError as error:
        # The others may know nothing of it; NCCL would wait for them.
        if state.backend != "nccl":
            _leave(state, error.__traceback__)
        raise
    # After any other error a sum may be pending that the others never join: leaving would wait for it.
    _leave(state)


def _leave(state: PartialState, failed: TracebackType | None = None) -> None:
    """Part from the other processes: drop the group, and what refers to it."""
    state.destroy_process_group()
    if state.num_processes > 1:
        # Functions that raised an error keep what they were working on.
        traceback.clear_frames(failed)
        # DDP and its network refer to each other.
        gc.collect()
        # Parameters that DeepSpeed shares out keep their groups: their threads get the time to let go.
        time.sleep(_LETTING_GO)


def share_batch(options: OptimiserOptions, processes: int, name: str) -> Shares:
    """Share the windows of a step.

    Raises
    ------
    InputError
        If the processes, or the turns of each, cannot have the same number of windows.
    """
    where, whole = f"pretrain.experiments.{name}", options.batch_size
    if whole % processes:
        message = f"{whole} windows cannot be shared evenly by {processes} processes"
        raise InputError(Problem(f"{where}.batch_size", name, message, f"choose a multiple of {processes}"))
    part = whole // processes
    device_batch = min(options.device_batch_size or part, part)
    if part % device_batch:
        message = f"the {part} windows of a process cannot be taken evenly by {device_batch}"
        remedy = f"choose a number that divides {part}"
        raise InputError(Problem(f"{where}.device_batch_size", name, message, remedy))
    return Shares(whole, device_batch, part // device_batch)


def build_accelerator(options: OptimiserOptions, shares: Shares, deepspeed: str | None) -> Accelerator:
    """Return what shares the training among processes: DDP, or DeepSpeed."""
    # Accelerate scales the loss of float16; casting is done by `compute_in`, alike for all ways to share.
    scales = precision_of(options) == "float16" and deepspeed is None and torch.cuda.is_available()
    plugin = None
    if deepspeed:
        if "LOCAL_RANK" not in os.environ:
            message, remedy = "one process has nobody to share with", "start it with torchrun (boldly launch)"
            raise InputError(Problem(deepspeed, "deepspeed", message, f"{remedy}, or set deepspeed to null"))
        _compile_nothing()
        plugin = DeepSpeedPlugin(hf_ds_config=_deepspeed_config(deepspeed, options, shares))
    return Accelerator(
        mixed_precision="fp16" if scales else "no",
        gradient_accumulation_steps=shares.turns,
        deepspeed_plugin=plugin,
    )


def _compile_nothing() -> None:
    """Keep DeepSpeed from compiling an operation of its own for CPUs when a training starts.

    It needs a compiler on each node, and a process that is killed while it compiles leaves a lock in the user's
    cache for which all later trainings wait for ever (`torch.utils.file_baton`). Gloo sums up in its place.
    """
    from deepspeed import ops

    ops.__compatible_ops__["deepspeed_shm_comm"] = False


def _deepspeed_config(path: str, options: OptimiserOptions, shares: Shares) -> dict[str, Any]:
    """Read a DeepSpeed JSON; batches and clipping are those of the experiment.

    It has no precision of its own: DeepSpeed's half precision casts all weights, buffers and inputs. The linear
    start of a forecast and the seconds would lose digits, and a validation, which does not go through its engine,
    would meet weights of another type.
    """
    content: dict[str, Any] = read_json(Path(path))
    for section in ("bf16", "fp16"):
        content.pop(section, None)
    content |= {
        "train_batch_size": shares.batch,
        "train_micro_batch_size_per_gpu": shares.device_batch,
        "gradient_accumulation_steps": shares.turns,
        "gradient_clipping": options.gradient_clip,
    }
    if precision_of(options) == "float16":
        # Brings the scaling of the loss that float16 needs.
        content.setdefault("torch_autocast", {"enabled": True, "dtype": "float16"})
    return content


def compute_in(precision: str, objective: Objective, device: torch.device) -> None:
    """Let an objective compute in a precision, training and validating: only what products read is cast."""
    if precision != "float32":
        cast = torch.autocast(device.type, getattr(torch, precision))
        objective.forward = cast(objective.forward)


def precision_of(options: OptimiserOptions) -> str:
    """Return the arithmetic of a training on this machine: float32, bfloat16 or float16."""
    if options.precision != "auto":
        return options.precision
    has_bfloat16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    return "bfloat16" if has_bfloat16 else "float32"
