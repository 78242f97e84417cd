"""Checkpoints of an interrupted training: found by themselves, refused when the config changed."""

from __future__ import annotations

import dataclasses
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from safetensors.torch import load_file, save_file

from boldly.files import atomic_path, read_json, write_json
from boldly.models.objective import Weights
from boldly.records import InputError, Problem
from boldly.training.history import Progress

# Raised when files of checkpoints change, so that older ones are refused.
_FORMAT = 3
_KEPT = 2
_EXPERIMENT = "experiment.json"
# What no config can restore.
_BY_VERSION = dict.fromkeys(
    ("revision", "checkpoint_format"),
    "go on with the version of boldly that it was begun with, or delete this folder to start again",
)
# The last file of a checkpoint: without it the checkpoint is not complete.
_PROGRESS = "progress.json"


class CheckpointFolder:
    """The checkpoints of one experiment.

    Parameters
    ----------
    path : Path
        Folder; holds experiment.json, checkpoint-<step>/ and best-<step>.safetensors.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def claim(self, experiment: dict[str, Any]) -> None:
        """Declare which experiment the checkpoints belong to.

        Parameters
        ----------
        experiment : dict
            Everything that weights depend on (options, data); must be JSON.

        Raises
        ------
        InputError
            If there are checkpoints of another experiment, with every difference.
        """
        path, experiment = self.path / _EXPERIMENT, {**experiment, "checkpoint_format": _FORMAT}
        if not path.exists():
            # Nobody knows of which experiment checkpoints are that stand there without it.
            self.delete()
            write_json(path, experiment)
            return
        before = read_json(path)
        # Not told by earlier versions.
        before.setdefault("revision", experiment.get("revision"))
        changes = _changes(before, experiment)
        if changes and self.steps():
            raise InputError(
                [
                    Problem(
                        str(self.path),
                        field,
                        f"the interrupted training has {old!r}, this one {new!r}",
                        _BY_VERSION.get(field, "restore the value to go on, or delete this folder to start again"),
                    )
                    for field, (old, new) in changes.items()
                ]
            )
        if changes:
            self.delete()
        write_json(path, experiment)

    def steps(self) -> list[int]:
        """Return the steps of the complete checkpoints, in order."""
        return sorted(
            int(marker.parent.name.split("-")[1]) for marker in self.path.glob(f"checkpoint-*/{_PROGRESS}")
        )

    def clean(self) -> None:
        """Delete checkpoints that were cut while being written."""
        for folder in self.path.glob("checkpoint-*"):
            if not (folder / _PROGRESS).exists():
                shutil.rmtree(folder)

    def checkpoint(self, step: int) -> Path:
        """Return the folder of a checkpoint."""
        return self.path / f"checkpoint-{step}"

    def save(self, accelerator: Accelerator, step: int, progress: Progress) -> None:
        """Write a checkpoint of all processes, declare it complete, and delete what is no longer needed."""
        accelerator.save_state(str(self.checkpoint(step)))
        accelerator.wait_for_everyone()
        if not accelerator.is_main_process:
            return
        content = {**dataclasses.asdict(progress), "processes": accelerator.num_processes}
        write_json(self.checkpoint(step) / _PROGRESS, content)
        for old in self.steps()[:-_KEPT]:
            shutil.rmtree(self.checkpoint(old))
        needed = {read_json(self.checkpoint(s) / _PROGRESS)["best_step"] for s in self.steps()}
        for path in self.path.glob("best-*.safetensors"):
            if int(path.stem.split("-")[1]) not in needed:
                path.unlink()

    def read(self, step: int, processes: int) -> tuple[Progress, Weights]:
        """Return what a training knew at a checkpoint, and the best weights so far.

        Raises
        ------
        InputError
            If another number of processes wrote it: each has a part of the state.
        """
        content = read_json(self.checkpoint(step) / _PROGRESS)
        if (before := content.pop("processes")) != processes:
            message = f"the interrupted training had {before} processes, this one has {processes}"
            remedy = f"go on with {before} (`devices` in the config), or delete this folder to start again"
            raise InputError(Problem(str(self.path), "processes", message, remedy))
        progress = Progress(**content)
        best = self.path / f"best-{progress.best_step}.safetensors"
        return progress, load_file(best) if progress.best_value is not None else {}

    def save_best(self, step: int, weights: Weights) -> None:
        """Keep the weights of the best validation so far."""
        with atomic_path(self.path / f"best-{step}.safetensors") as temporary:
            save_file(weights, temporary)

    def delete(self) -> None:
        """Delete everything: the training is finished."""
        # Out of sight first, as a whole: what is left when this is cut off must not look like a checkpoint.
        aside = self.path.with_name(f".{self.path.name}")
        shutil.rmtree(aside, ignore_errors=True)
        with suppress(OSError):
            self.path.rename(aside)
        for folder in (aside, self.path):
            shutil.rmtree(folder, ignore_errors=True)


def _changes(old: Any, new: Any, prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """Return the leaves in which two JSON values differ, by dotted name."""
    if isinstance(old, dict) and isinstance(new, dict):
        found = {}
        for key in sorted(old.keys() | new.keys()):
            found.update(_changes(old.get(key), new.get(key), f"{prefix}.{key}" if prefix else key))
        return found
    return {} if old == new else {prefix: (old, new)}
