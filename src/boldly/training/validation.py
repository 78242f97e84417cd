"""Validation: fixed windows of held-out subjects upstream, all trials of the validation units downstream."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from boldly.files import read_json, write_json
from boldly.models.network import Outputs, real_frames, window_l1
from boldly.models.objective import SHARES, Objective, Row, Sums, Targets
from boldly.samples.corpus import Corpus, Group
from boldly.samples.windows import TRIALS_PER_BATCH, Batch, Trials, Windows, to_device
from boldly.training.forecasts import forecast
from boldly.training.linear import COUPLING, NAMES, Forecasts, fit_forecasts
from boldly.training.processes import Processes

# What a validation is: an objective in evaluation mode to a row with `loss` and `criterion` (smaller is better).
Validate = Callable[[Objective, Processes], Row]


def device_of(objective: Objective) -> torch.device:
    """Return where an objective computes."""
    return next(objective.parameters()).device


class UpstreamValidation:
    """Losses of fixed windows, over all and by dataset, beside those of predictions that need no training.

    A row has `loss`, its parts (`l1`, `order_loss`, `order_accuracy`), and the errors of comparisons: `l1_zero`
    (predicting zero) and, where the objective has to do with time, `l1_last_frame`, `l1_ar1`, `l1_var` (see
    `boldly.training.linear`). `skill` is ``1 - l1 / l1_zero``, `skill_ar1` is ``1 - l1 / l1_ar1``, and so on.
    All errors and skills stand there for each dataset as well, as ``<column>_<dataset>``, and for each repetition
    time of a dataset that has several, as ``<column>_<dataset>_<t_r>s``. A number is the mean over windows, each
    weighted alike.

    With `calibrate`, the row is that of the weights that the objective makes of those of the network by what it
    chooses on these windows (`Objective.choose`, `Objective.settle`): in causal sequence modeling, for each
    dataset and repetition time, the share of the blocks' forecast that errs least, and their mean as
    `forecast_share`. The L1 of the next frame can then not exceed that before the first step.

    Parameters
    ----------
    windows : Windows
        The fixed windows, of held-out subjects.
    batch_size : int
        Windows per forward pass.
    training : Corpus, optional
        Runs of the training subjects, to fit the forecasts to; None: predicting zero is all there is to beat.
    fitted : Forecasts, optional
        Forecasts of the training subjects that were fitted before; None: they are fitted to `training`.
    cache : Path, optional
        JSON that keeps the errors of the comparisons, so that a training that goes on need not fit again.
    calibrate : bool, default=False
        Let the objective choose: for windows of validation subjects, never for those of a test.
    """

    def __init__(
        self,
        windows: Windows,
        batch_size: int,
        *,
        training: Corpus | None = None,
        fitted: Forecasts | None = None,
        cache: Path | None = None,
        calibrate: bool = False,
    ) -> None:
        self.windows = windows
        self.batch_size = batch_size
        self.training = training
        self.fitted = fitted
        self.cache = cache
        self.calibrate = calibrate
        corpus, runs = windows.corpus, windows.runs(range(len(windows)))
        group_of_run = corpus.groups
        self.groups: list[Group] = sorted({group_of_run[run] for run in runs})
        number = {group: place for place, group in enumerate(self.groups)}
        self._group = np.array([number[group_of_run[run]] for run in runs])
        self._comparisons = read_json(cache) if cache is not None and cache.exists() else None

    def __call__(self, objective: Objective, processes: Processes) -> Row:
        """Validate a network; each process takes its share of the windows."""
        if self._comparisons is None:
            self._comparisons = self._compare(objective, processes)
            # Of a corpus that is streamed it is one group, which must not stay in memory.
            self.training = None
            if self.cache is not None and processes.rank == 0:
                write_json(self.cache, self._comparisons)
        measure = partial(objective.measure, calibrate=self.calibrate)
        chosen: Row = {}
        sums = self._sums(device_of(objective), processes, lambda batch, group: measure(**batch))
        if self.calibrate:
            sums, chosen = objective.choose(sums, self.groups)
        return {**self._row({**self._comparisons, **sums}), **chosen}

    def choose_couplings(self, fits: Forecasts) -> dict[Group, NDArray[np.float32]]:
        """Choose how much parcels say of each other, for each dataset and repetition time.

        The ridge of a fit is chosen on training subjects left out of it. With one training subject it is chosen on
        runs of the same subject, and too small for others. Of what the coupling has beyond AR(1) the share from 0
        to 1 is taken that errs least on the windows, or the plain VAR if that errs less.

        Parameters
        ----------
        fits : Forecasts
            Fitted to the training subjects.

        Returns
        -------
        dict
            For each group in `fits` the coupling (P, P). Its L1 on the windows of the group exceeds neither that
            of the fitted one nor those of AR(1) and VAR. Groups without a window keep the fitted one.
        """
        candidates: dict[str, float | None] = {f"{share:.1f}": share for share in SHARES} | {"var": None}

        def errors(batch: Batch, group: Tensor) -> Outputs:
            inputs, marked = batch["inputs"], batch["marked"]
            frames = real_frames(inputs, batch.get("valid"))[:, 1:]
            found = {name: inputs.new_zeros(len(inputs)) for name in candidates}
            for number in group.unique().tolist():
                rows = (group == number).nonzero().squeeze(1)
                alone, coupling, var = (fits[self.groups[number]][name] for name in ("ar1", COUPLING, "var"))
                before = inputs[rows, :-1] * ~marked[rows, None]
                apart, plain = before * torch.as_tensor(alone), before @ torch.as_tensor(var)
                together = before @ torch.as_tensor(coupling) - apart
                for name, share in candidates.items():
                    said = plain if share is None else apart + share * together
                    found[name][rows] = window_l1(said, inputs[rows, 1:], frames[rows], marked[rows])
            return found

        sums = self._sums(torch.device("cpu"), Processes(), errors)
        best = np.array([sums[name] for name in candidates]).argmin(axis=0)  # (groups,)
        shares = list(candidates.values())
        chosen = {group: shares[number] for group, number in zip(self.groups, best, strict=True)}
        return {group: _blended(fit, chosen.get(group, 1.0)) for group, fit in fits.items()}

    def _compare(self, objective: Objective, processes: Processes) -> Sums:
        """Return the errors of the predictions that need no training, summed over the windows of each group."""
        fitted: Forecasts = {}
        if self.training is not None and objective.has_forecasts:
            fitted = self.fitted or fit_forecasts(self.training, self.groups)

        def errors(batch: Batch, group: Tensor) -> Outputs:
            found = objective.naive(**batch)
            if fitted:
                found |= self._forecast_errors(objective.targets(**batch), batch, group, fitted)
            return {"windows": torch.ones_like(found["l1_zero"]), **found}

        return self._sums(device_of(objective), processes, errors)

    def _sums(
        self, device: torch.device, processes: Processes, measure: Callable[[Batch, Tensor], Outputs]
    ) -> Sums:
        """Sum what is measured for each window (B,) over the windows of each group, in all processes."""
        sums: dict[str, Tensor] = {}
        for batch, group, counts in self._share(processes, device):
            for name, values in measure(batch, group).items():
                zeros = torch.zeros(len(self.groups), dtype=torch.float64, device=device)
                sums.setdefault(name, zeros).index_add_(0, group, values.double() * counts)
        names = sorted(sums)
        table = processes.total(torch.stack([sums[name] for name in names])).cpu().tolist()
        return dict(zip(names, table, strict=True))

    def _share(self, processes: Processes, device: torch.device) -> Iterator[tuple[Batch, Tensor, float]]:
        """Yield the batches of this process, their groups (B,), and whether they count."""
        starts = range(0, len(self.windows), self.batch_size)
        mine = starts[processes.rank :: processes.count]
        # A process without a share must still know the columns and take part in the sums.
        for start in mine or starts[:1]:
            numbers = range(start, min(start + self.batch_size, len(self.windows)))
            batch = to_device(self.windows.__getitems__(numbers), device)
            group = torch.from_numpy(self._group[numbers.start : numbers.stop]).to(device)
            yield batch, group, float(bool(mine))

    def _forecast_errors(
        self, targets: Targets, batch: Batch, group: Tensor, fitted: Forecasts
    ) -> dict[str, Tensor]:
        """Return the L1 per window (B,) of each forecast."""
        assert targets.seen is not None
        inputs, split = batch["inputs"], batch.get("split", 0)
        errors = {f"l1_{name}": inputs.new_zeros(len(inputs)) for name in NAMES}
        for number in group.unique().tolist():
            rows = (group == number).nonzero().squeeze(1)
            frames, counted, marked = inputs[rows], targets.frames[rows], targets.marked[rows]
            for name in NAMES:
                coefficients = fitted[self.groups[number]][name]
                there = None if coefficients is None else torch.as_tensor(coefficients, device=inputs.device)
                said = forecast(frames, targets.seen[rows], there, split=split)
                errors[f"l1_{name}"][rows] = window_l1(said, frames, counted, marked)
        return errors

    def _row(self, sums: Sums) -> Row:
        counts = np.array(sums["windows"])
        values = {name: np.array(total) for name, total in sums.items() if name != "windows"}
        row: Row = {"loss": float(values["loss"].sum() / counts.sum())}
        row |= _with_skills({name: total.sum() / counts.sum() for name, total in values.items()}, "")
        for suffix, chosen in self._parts():
            means = {name: total[chosen].sum() / counts[chosen].sum() for name, total in values.items()}
            errors = {name: mean for name, mean in means.items() if name.startswith("l1")}
            row |= _with_skills(errors, suffix)
        return {**row, "criterion": row["loss"]}

    def _parts(self) -> Iterator[tuple[str, list[int]]]:
        """Yield the end of the column names, and the groups, of each dataset and each of its repetition times."""
        for dataset in sorted({dataset for dataset, _ in self.groups}):
            numbers = [number for number, group in enumerate(self.groups) if group[0] == dataset]
            yield f"_{dataset}", numbers
            if len(numbers) > 1:
                yield from ((f"_{dataset}_{self.groups[number][1]:g}s", [number]) for number in numbers)


def _with_skills(means: dict[str, float], suffix: str) -> Row:
    """Name means with a suffix; add the skill against each comparison."""
    row = {f"{name}{suffix}": float(mean) for name, mean in means.items()}
    for name, mean in means.items():
        if name.startswith("l1_"):
            skill = "skill" if name == "l1_zero" else name.replace("l1", "skill", 1)
            row[f"{skill}{suffix}"] = float(1 - means["l1"] / mean)
    return row


def _blended(fit: Mapping[str, NDArray[np.float32] | None], share: float | None) -> NDArray[np.float32]:
    """Return a share of what a coupling has beyond AR(1), beside AR(1); None: the plain VAR."""
    alone, coupling, var = fit["ar1"], fit[COUPLING], fit["var"]
    assert alone is not None
    assert coupling is not None
    assert var is not None
    return var if share is None else np.diag(alone) + np.float32(share) * (coupling - np.diag(alone))


class DecoderValidation:
    """Cross-entropy and accuracy over all trials of the validation units.

    Parameters
    ----------
    trials : Trials
        The trials, in their own order.

    Attributes
    ----------
    losses : list of ndarray of float32, shape (R,)
        Of each trial, for each validation so far.
    """

    def __init__(self, trials: Trials) -> None:
        starts = range(0, len(trials), TRIALS_PER_BATCH)
        self.batches = [trials.__getitems__(range(s, min(s + TRIALS_PER_BATCH, len(trials)))) for s in starts]
        self.losses: list[NDArray[np.float32]] = []

    def __call__(self, objective: Objective, processes: Processes) -> Row:
        """Validate a decoder."""
        device = device_of(objective)
        losses, hits = [], []
        for batch in self.batches:
            batch = to_device(batch, device)
            logits = objective(**batch)["logits"]
            losses.append(functional.cross_entropy(logits, batch["labels"], reduction="none"))
            hits.append(logits.argmax(dim=1) == batch["labels"])
        self.losses.append(torch.cat(losses).float().cpu().numpy())
        loss, accuracy = torch.cat(losses).mean().item(), torch.cat(hits).float().mean().item()
        return {"loss": loss, "accuracy": accuracy, "criterion": loss}
