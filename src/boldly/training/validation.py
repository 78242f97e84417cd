"""Validation: fixed windows of held-out subjects upstream, all trials of the validation units downstream."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from boldly.models.lfb.network import LfbNetwork
from boldly.models.network import Network
from boldly.samples.windows import Batch, Trials, Windows
from boldly.training.journal import Processes, Row

# Trials are short; so many fit any machine.
TRIALS_PER_BATCH = 256


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Move the tensors of a batch."""
    return {name: value.to(device) if isinstance(value, Tensor) else value for name, value in batch.items()}


class UpstreamValidation:
    """Losses of fixed windows, over all and by dataset, beside those of predictions that need no training.

    A row has `loss`, its parts (`l1`, `order_loss`, `order_accuracy`), `l1_zero` and `l1_last_frame`, the `skill`
    ``1 - l1 / l1_zero``, and `l1`, `l1_zero`, `l1_last_frame` of each dataset as ``<column>_<dataset>``. A number
    is the mean over windows, each weighted alike.

    Parameters
    ----------
    windows : Windows
        The fixed windows.
    batch_size : int
        Windows per forward pass.
    """

    def __init__(self, windows: Windows, batch_size: int) -> None:
        self.windows = windows
        self.batch_size = batch_size
        dataset_of_run = np.array(windows.corpus.datasets)
        self.names, self._dataset = np.unique(
            dataset_of_run[windows.runs(range(len(windows)))], return_inverse=True
        )

    def __call__(self, network: nn.Module, processes: Processes) -> Row:
        """Validate a network; each process takes its share of the windows."""
        sums: dict[str, Tensor] = {}
        device = next(network.parameters()).device
        counts = torch.zeros(len(self.names), dtype=torch.float64, device=device)
        for batch, dataset in self._share(processes, device):
            counts.index_add_(0, dataset, torch.ones(len(dataset), dtype=torch.float64, device=device))
            for name, values in self._losses(network, batch).items():
                total = sums.setdefault(name, torch.zeros_like(counts))
                total.index_add_(0, dataset, values.double())
        names = sorted(sums)
        # A process without a share must still take part in the sum.
        table = processes.total(torch.stack([counts, *(sums[name] for name in names)])).cpu().numpy()
        return self._row(names, table)

    def _share(self, processes: Processes, device: torch.device) -> Iterator[tuple[Batch, Tensor]]:
        starts = range(0, len(self.windows), self.batch_size)
        # Every process takes at least one batch, so that all know the columns.
        for start in starts[processes.rank :: processes.count] or starts[:1]:
            numbers = range(start, min(start + self.batch_size, len(self.windows)))
            batch = to_device(self.windows.__getitems__(numbers), device)
            yield batch, torch.from_numpy(self._dataset[numbers.start : numbers.stop]).to(device)

    @staticmethod
    def _losses(network: nn.Module, batch: Batch) -> dict[str, Tensor]:
        losses = {name: value for name, value in network(**batch).items() if name != "loss"}
        losses["loss"] = losses.pop("window_loss")
        assert isinstance(network, Network | LfbNetwork)
        return {**losses, **network.naive(**batch)}

    def _row(self, names: list[str], table: np.ndarray) -> Row:
        counts, values = table[0], table[1:]
        overall = dict(zip(names, values.sum(axis=1) / counts.sum(), strict=True))
        row: Row = {"loss": overall.pop("loss"), **overall, "skill": 1 - overall["l1"] / overall["l1_zero"]}
        for name, by_dataset in zip(names, values / counts, strict=True):
            if name.startswith("l1"):
                row.update({f"{name}_{d}": value for d, value in zip(self.names, by_dataset, strict=True)})
        return {**{name: float(value) for name, value in row.items()}, "criterion": float(row["loss"])}


class DecoderValidation:
    """Cross-entropy and accuracy over all trials of the validation units.

    Parameters
    ----------
    trials : Trials
        The trials, in their own order.
    """

    def __init__(self, trials: Trials) -> None:
        starts = range(0, len(trials), TRIALS_PER_BATCH)
        self.batches = [trials.__getitems__(range(s, min(s + TRIALS_PER_BATCH, len(trials)))) for s in starts]

    def __call__(self, network: nn.Module, processes: Processes) -> Row:
        """Validate a network."""
        device = next(network.parameters()).device
        losses, hits = [], []
        for batch in self.batches:
            batch = to_device(batch, device)
            logits = network(**batch)["logits"]
            losses.append(functional.cross_entropy(logits, batch["labels"], reduction="none"))
            hits.append(logits.argmax(dim=1) == batch["labels"])
        loss, accuracy = torch.cat(losses).mean().item(), torch.cat(hits).float().mean().item()
        return {"loss": loss, "accuracy": accuracy, "criterion": loss}
