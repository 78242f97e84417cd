"""Where the histories of a training are shown beside its CSV files: TensorBoard, Weights & Biases, MLflow."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

from boldly.records import InputError, Problem

_PROJECT = "boldly"


class Tracker(Protocol):
    """Takes the numbers of a training."""

    def add_scalar(self, name: str, value: float, step: int) -> None:
        """Show a number."""

    def close(self) -> None:
        """Write what is not yet written."""


def open_trackers(words: Iterable[str], folder: Path, name: str, options: dict[str, Any]) -> list[Tracker]:
    """Open trackers; a resumed training goes on where it was.

    Parameters
    ----------
    words : iterable of str
        ``tensorboard``, ``wandb``, ``mlflow``. The last two obey their own environment variables
        (``WANDB_MODE=offline``, ``MLFLOW_TRACKING_URI``); without these MLflow writes into the folder.
    folder : Path
        Experiment folder.
    name : str
        Experiment.
    options : dict
        Its options, shown beside the numbers.

    Raises
    ------
    InputError
        If a package is not installed.
    """
    missing = [word for word in words if word != "tensorboard" and importlib.util.find_spec(word) is None]
    if missing:
        raise InputError(
            [
                Problem(
                    f"pretrain.experiments.{name}.track", name, f"{word} is not installed", f"pip install {word}"
                )
                for word in missing
            ]
        )
    kinds = {"tensorboard": _tensorboard, "wandb": _WeightsAndBiases, "mlflow": _MlFlow}
    return [kinds[word](folder, name, options) for word in words]


def _tensorboard(folder: Path, name: str, options: dict[str, Any]) -> Tracker:
    from torch.utils.tensorboard import SummaryWriter

    writer: Tracker = SummaryWriter(folder / "tensorboard")
    return writer


class _WeightsAndBiases:
    def __init__(self, folder: Path, name: str, options: dict[str, Any]) -> None:
        import wandb

        # The folder is the identity of an experiment: the resumed training is the same run.
        number = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", _PROJECT),
            name=name,
            id=number,
            resume="allow",
            dir=folder,
            config=options,
        )

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self._run.log({name: value, "step": step})

    def close(self) -> None:
        self._run.finish()


class _MlFlow:
    def __init__(self, folder: Path, name: str, options: dict[str, Any]) -> None:
        from mlflow import MlflowClient

        # Without a server of the user's: a file that `mlflow ui --backend-store-uri` shows.
        uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder.resolve() / 'mlflow.db'}"
        self._client = MlflowClient(uri)
        known = self._client.get_experiment_by_name(_PROJECT)
        experiment = known.experiment_id if known else self._client.create_experiment(_PROJECT)
        where = f"tags.folder = '{folder.resolve()}'"
        runs = self._client.search_runs([experiment], where, max_results=1)
        if runs:
            self._number = runs[0].info.run_id
            return
        run = self._client.create_run(experiment, run_name=name, tags={"folder": str(folder.resolve())})
        self._number = run.info.run_id
        for key, value in options.items():
            self._client.log_param(self._number, key, value)

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self._client.log_metric(self._number, name, value, step=step)

    def close(self) -> None:
        self._client.set_terminated(self._number)
