"""Checkpoints of an interrupted training: found by themselves, refused when the config changed."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import load_file, save_file

from boldly.files import atomic_path, read_json, write_json
from boldly.records import InputError, Problem

if TYPE_CHECKING:
    from torch import Tensor

    from boldly.training.journal import Progress

_EXPERIMENT = "experiment.json"
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
        path = self.path / _EXPERIMENT
        if not path.exists():
            write_json(path, experiment)
            return
        changes = _changes(read_json(path), experiment)
        if changes and self.steps():
            raise InputError(
                [
                    Problem(
                        str(self.path),
                        field,
                        f"the interrupted training has {old!r}, the config now {new!r}",
                        "restore the value to go on, or delete this folder to start again",
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

    def complete(self, step: int, progress: Progress) -> None:
        """Declare a checkpoint complete and delete best weights that no checkpoint needs."""
        write_json(self.checkpoint(step) / _PROGRESS, dataclasses.asdict(progress))
        needed = {read_json(self.checkpoint(s) / _PROGRESS)["best_step"] for s in self.steps()}
        for path in self.path.glob("best-*.safetensors"):
            if int(path.stem.split("-")[1]) not in needed:
                path.unlink()

    def read(self, step: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return what `complete` wrote, and the best weights so far."""
        progress = read_json(self.checkpoint(step) / _PROGRESS)
        best = self.path / f"best-{progress['best_step']}.safetensors"
        return progress, load_file(best) if progress["best_value"] is not None else {}

    def save_best(self, step: int, weights: dict[str, Tensor]) -> None:
        """Keep the weights of the best validation so far."""
        with atomic_path(self.path / f"best-{step}.safetensors") as temporary:
            save_file(weights, temporary)

    def delete(self) -> None:
        """Delete everything: the training is finished."""
        shutil.rmtree(self.path, ignore_errors=True)


def _changes(old: Any, new: Any, prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """Return the leaves in which two JSON values differ, by dotted name."""
    if isinstance(old, dict) and isinstance(new, dict):
        found = {}
        for key in sorted(old.keys() | new.keys()):
            found.update(_changes(old.get(key), new.get(key), f"{prefix}.{key}" if prefix else key))
        return found
    return {} if old == new else {prefix: (old, new)}
