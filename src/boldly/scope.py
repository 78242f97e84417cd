"""Which results are those of the config: a folder also holds what earlier configs left in it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

Record = dict[str, Any]

# Rows of scores that belong to no experiment of the config: "chosen" is one of those that are pretrained.
_NO_EXPERIMENTS = ("chance", "ceiling", "control")
_CHOSEN = "chosen"
# Stages and tools of which the name of a job begins with that of a dataset.
_OF_DATASETS = ("fetch", "index", "prepare", "split", "adapt", "evaluate", "explain", "export")
# The job that fits all probes of a dataset; it stays as long as there are any.
_PROBES = "probes"


@dataclass(frozen=True)
class Scope:
    """Tells what is of a config; without one, all that a folder holds.

    Attributes
    ----------
    config : dict or None
        The complete config, as JSON.
    """

    config: Record | None = None

    def has_dataset(self, name: str) -> bool:
        """Tell whether a dataset is one of the config."""
        return self.config is None or name in self.config["datasets"]

    def is_decoded(self, name: str) -> bool:
        """Tell whether a dataset is one whose states are decoded."""
        if self.config is None:
            return True
        return self.has_dataset(name) and self.config["datasets"][name]["role"] == "downstream"

    def has_pretraining(self, name: str) -> bool:
        """Tell whether an upstream experiment is one of the config."""
        return self.config is None or name in self.config["pretrain"]["experiments"]

    def has_decoder(self, dataset: str, name: str) -> bool:
        """Tell whether a downstream experiment is one of the config, on this dataset."""
        return self.is_decoded(dataset) and self._is_adapted(dataset, name)

    def has_job(self, stage: str, name: str) -> bool:
        """Tell whether a job of the workflow is of experiments and datasets that the config has.

        Parameters
        ----------
        stage, name : str
            Folder and name of the job's log, or of what Snakemake measured of it.
        """
        first, _, rest = re.split(r"([_/]|$)", name, maxsplit=1)
        if stage == "pretrain":
            return self.has_pretraining(name)
        if stage == "decode":
            return self.config is None or first in self.config["decode"]
        if stage not in _OF_DATASETS:
            return True
        is_adapted = stage != "adapt" or rest == _PROBES or self._is_adapted(first, rest)
        return self.has_dataset(first) and is_adapted

    def _is_adapted(self, dataset: str, name: str) -> bool:
        if self.config is None:
            return True
        options = self.config["adapt"]["experiments"].get(name)
        return options is not None and (options.get("datasets") is None or dataset in options["datasets"])

    def has_scores(self, dataset: str, name: str, kind: str) -> bool:
        """Tell whether scores are those of a decoder of the config, or of none at all, as chance."""
        return kind in _NO_EXPERIMENTS or name == _CHOSEN or self.has_decoder(dataset, name)


EVERYTHING = Scope()
