"""The read-outs of `boldly.decoders.readouts` for batches in torch, so that gradients pass through them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from boldly.config import ReadOut
from boldly.decoders import readouts as arrays


@dataclass(frozen=True)
class Timing:
    """What read-outs know of the time of B trials, padded to L frames.

    Attributes
    ----------
    valid : Tensor of float64, shape (B, L)
        One for frames of the trial, zero behind its end.
    parts : Tensor of float64, shape (B, parts, L)
        Weights that average the frames of each part of a trial.
    later : Tensor of int64, shape (B, lags, L)
        The frame that comes a lag later.
    pairs : Tensor of float64, shape (B, lags, L)
        One where there is such a frame.
    """

    valid: Tensor
    parts: Tensor
    later: Tensor
    pairs: Tensor

    @classmethod
    def of(cls, lengths: np.ndarray, t_r: np.ndarray, numbers: Sequence[np.ndarray] | None) -> Timing:
        """Work out the timing of trials.

        Parameters
        ----------
        lengths : ndarray of int64, shape (B,)
            Frames of each trial.
        t_r : ndarray, shape (B,)
            Repetition times, s.
        numbers : sequence of ndarray, optional
            Which frame of its run each frame is; None: no trial has a gap.
        """
        count, longest = len(lengths), int(lengths.max())
        valid = np.zeros((count, longest))
        parts = np.zeros((count, arrays.PARTS, longest))
        later = np.zeros((count, len(arrays.LAGS_S), longest), np.int64)
        pairs = np.zeros((count, len(arrays.LAGS_S), longest))
        for trial, length in enumerate(lengths):
            valid[trial, :length] = 1
            for part, (first, stop) in enumerate(arrays.part_edges(np.array([length]))[0]):
                parts[trial, part, first:stop] = 1 / (stop - first)
            own = None if numbers is None else numbers[trial]
            for place, lag_s in enumerate(arrays.LAGS_S):
                now, then = arrays.lagged_pairs(int(length), arrays.lag_frames(lag_s, t_r[trial], length), own)
                later[trial, place, now], pairs[trial, place, now] = then, 1
        return cls(*map(torch.from_numpy, (valid, parts, later, pairs)))

    def select(self, rows: Tensor) -> Timing:
        """Return that of some trials."""
        return Timing(self.valid[rows], self.parts[rows], self.later[rows], self.pairs[rows])

    def to(self, device: torch.device | str) -> Timing:
        """Return the same on a device."""
        return Timing(*(part.to(device) for part in (self.valid, self.parts, self.later, self.pairs)))

    @property
    def frames(self) -> Tensor:
        """Number of frames of each trial, shape (B,)."""
        return self.valid.sum(dim=1)


def _mean(projected: Tensor, timing: Timing, variance: Tensor) -> Tensor:
    return torch.einsum("bl,blk->bk", timing.valid / timing.frames[:, None], projected)


def _slices(projected: Tensor, timing: Timing, variance: Tensor) -> Tensor:
    return torch.einsum("bsl,blk->bsk", timing.parts, projected).flatten(start_dim=1)


def _leading(projected: Tensor, timing: Timing, variance: Tensor) -> Tensor:
    return _slices(projected[..., : arrays.LEADING], timing, variance)


def _centred(projected: Tensor, timing: Timing) -> Tensor:
    return (projected - _mean(projected, timing, projected)[:, None]) * timing.valid[..., None]


def _covariance(projected: Tensor, timing: Timing, variance: Tensor) -> Tensor:
    values = _centred(projected[..., : arrays.LEADING], timing)  # (B, L, K)
    size = values.shape[2]
    upper = torch.triu_indices(size, size, device=values.device)
    blocks = []
    for place, lag_s in enumerate(arrays.LAGS_S):
        there = timing.pairs[:, place]
        then = values.gather(1, timing.later[:, place, :, None].expand(-1, -1, size))
        product = torch.einsum("bl,blk,blm->bkm", there, values, then)
        product = product / there.sum(dim=1).clamp_min(1)[:, None, None]
        blocks.append(product[:, upper[0], upper[1]] if lag_s == 0 else product.flatten(start_dim=1))
    return _signed_root(torch.cat(blocks, dim=1))


def _power(projected: Tensor, timing: Timing, variance: Tensor) -> Tensor:
    found = _covariances(projected[..., : arrays.COMPONENTS], timing)
    upper = torch.triu_indices(*found.shape[1:], device=found.device)
    return _signed_root(found[:, upper[0], upper[1]])


def _covariances(values: Tensor, timing: Timing) -> Tensor:
    centred = _centred(values, timing)
    return torch.einsum("blk,blm->bkm", centred, centred) / timing.frames[:, None, None]


def _signed_root(table: Tensor) -> Tensor:
    """Return signed square roots; where the table is zero their slope, which is infinite, counts as zero."""
    size = table.abs()
    there = size > 0
    return torch.where(there, table.sign() * torch.where(there, size, 1.0).sqrt(), 0.0)


def _tangent(projected: Tensor, timing: Timing, variance: Tensor) -> Tensor:
    values = projected[..., : arrays.COMPONENTS]
    count = values.shape[2]
    floor = max(1e-6 * float(variance.max()), 1e-12)
    weights = variance[:count].clamp_min(floor) ** (-arrays.WHITENING / 2)
    expected = variance[:count] * weights**2
    covariances = _covariances(values * weights, timing)
    power = covariances.diagonal(dim1=1, dim2=2).mean(dim=1)
    still = power <= arrays.STILL * expected.mean()
    covariances = torch.where(still[:, None, None], torch.diag(expected), covariances)
    power = torch.where(still, expected.mean(), power)
    sphere = torch.eye(count, dtype=values.dtype, device=values.device)
    shrunk = (1 - arrays.SHRINKAGE) * covariances
    shrunk = shrunk + (arrays.SHRINKAGE * power + 1e-12)[:, None, None] * sphere
    upper = torch.triu_indices(count, count, device=values.device)
    root = torch.where(upper[0] == upper[1], 1.0, 2.0**0.5)
    logarithms: Tensor = _MatrixLogarithm.apply(shrunk)
    return logarithms[:, upper[0], upper[1]] * root


class _MatrixLogarithm(torch.autograd.Function):
    """The logarithm of symmetric positive matrices (B, K, K).

    The gradient that torch has of eigenvectors is infinite where eigenvalues meet. That of the logarithm is not
    (Daleckii & Krein 1965): divided differences of logarithms of eigenvalues take its place.
    """

    @staticmethod
    def forward(ctx: Any, matrices: Tensor) -> Tensor:
        spectra, vectors = torch.linalg.eigh(matrices)
        ctx.save_for_backward(spectra, vectors)
        return (vectors * spectra.log()[:, None]) @ vectors.transpose(1, 2)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        spectra, vectors = ctx.saved_tensors
        one, other = spectra[:, :, None], spectra[:, None, :]
        apart = one - other
        alike = apart.abs() <= 1e-9 * (one + other)
        slopes = torch.where(
            alike, 2 / (one + other), (one / other).log() / torch.where(alike, torch.ones_like(apart), apart)
        )
        (gradient,) = gradients
        gradient = (gradient + gradient.transpose(1, 2)) / 2
        turned = vectors.transpose(1, 2) @ gradient @ vectors
        return vectors @ (turned * slopes) @ vectors.transpose(1, 2)


def _correlation(projected: Tensor, timing: Timing, variance: Tensor) -> Tensor:
    frames = _centred(projected, timing)
    power = frames.square().sum(dim=1, keepdim=True)
    there = power > arrays.STILL * power.amax(dim=2, keepdim=True)
    # Signals that do not vary correlate with none.
    frames = torch.where(there, frames / torch.where(there, power, 1.0).sqrt(), 0.0)
    found = torch.einsum("blk,blm->bkm", frames, frames)
    count = found.shape[1]
    lower = torch.tril_indices(count, count, offset=-1, device=found.device)
    return found[:, lower[0], lower[1]].clamp(-arrays.HIGHEST, arrays.HIGHEST).atanh()


READ_OUTS: dict[ReadOut, Callable[[Tensor, Timing, Tensor], Tensor]] = {
    "mean": _mean,
    "slices": _slices,
    "leading": _leading,
    "covariance": _covariance,
    "power": _power,
    "tangent": _tangent,
    "correlation": _correlation,
}
