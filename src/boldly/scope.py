"""Which results are those of the config: a folder also holds what earlier configs left in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from boldly.layout import has_job

Record = dict[str, Any]

# Rows of scores that belong to no experiment of the config: "chosen" is one of those that are pretrained.
_NO_EXPERIMENTS = ("chance", "ceiling", "control")
_CHOSEN = "chosen"


@dataclass(frozen=True)
class Scope:
    """Tells what a report is about; without a config, all that a folder holds.

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
        if self.config is None:
            return True
        options = self.config["adapt"]["experiments"].get(name)
        return (
            self.is_decoded(dataset)
            and options is not None
            and (options.get("datasets") is None or dataset in options["datasets"])
        )

    def has_job(self, stage: str, name: str) -> bool:
        """Tell whether a job of the workflow is of what the config has."""
        return self.config is None or has_job(self.config, stage, name)

    def has_scores(self, dataset: str, name: str, kind: str) -> bool:
        """Tell whether scores are those of a decoder of the config, or of none at all, as chance."""
        return kind in _NO_EXPERIMENTS or name == _CHOSEN or self.has_decoder(dataset, name)


EVERYTHING = Scope()
