"""Principal components of hidden states: the directions in which the states of a network vary most.

They are fitted to unlabelled frames, at the end of a pretraining those of its training runs. Read-outs look at the
first components: what varies much over many people tells mental states apart better than what varies little.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from boldly.files import atomic_path
from boldly.records import InputError, Problem

FILE = "basis.safetensors"
# Components that are kept; no read-out looks at more.
MOST_COMPONENTS = 64

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Basis:
    """Mean and principal components of the states of each layer.

    Attributes
    ----------
    mean : ndarray of float32, shape (layers, W)
        Mean over frames.
    components : ndarray of float32, shape (layers, W, K)
        Orthonormal columns, in the order of falling variance; K is at most `MOST_COMPONENTS`.
    variance : ndarray of float32, shape (layers, K)
        Variance of each.
    """

    mean: Floats
    components: Floats
    variance: Floats


def fit_basis(blocks: Iterable[NDArray[np.floating]], most: int = MOST_COMPONENTS) -> Basis:
    """Fit the components to hidden states that come block by block.

    Parameters
    ----------
    blocks : iterable of ndarray, shape (frames, layers, W)
        Hidden states, in any number of blocks; only sums of products are kept.
    most : int, default=64
        Components that are kept.
    """
    count, total, products = 0, np.zeros(0), np.zeros(0)
    for block in blocks:
        layers = np.moveaxis(block.astype(np.float64), 1, 0)  # (layers, frames, W)
        sums, squares = layers.sum(axis=1), layers.transpose(0, 2, 1) @ layers
        total, products = (sums, squares) if count == 0 else (total + sums, products + squares)
        count += len(block)
    if count < 2:
        raise ValueError("the components of hidden states need at least two frames")
    mean = total / count
    covariance = products / count - mean[:, :, None] * mean[:, None, :]
    variance, components = np.linalg.eigh(covariance)
    keep = min(most, mean.shape[1])
    components, variance = components[:, :, ::-1][:, :, :keep], variance[:, ::-1][:, :keep]
    # The sign of an eigenvector is arbitrary: the same data give the same bytes.
    largest = np.take_along_axis(components, np.abs(components).argmax(axis=1, keepdims=True), axis=1)
    components = components * np.where(largest < 0, -1, 1)
    return Basis(*(part.astype(np.float32) for part in (mean, components, np.maximum(variance, 0))))


def save_basis(folder: Path | str, basis: Basis) -> None:
    """Write the components beside the weights of a network, atomically."""
    tensors = {name: np.ascontiguousarray(getattr(basis, name)) for name in ("mean", "components", "variance")}
    with atomic_path(Path(folder) / FILE) as temporary:
        save_file(tensors, temporary)


def load_basis(folder: Path | str) -> Basis | None:
    """Read the components of a network; None where there are none (imported networks, networks of older versions).

    Raises
    ------
    InputError
        For a damaged file.
    """
    path = Path(folder) / FILE
    if not path.exists():
        return None
    try:
        tensors = load_file(path)
        return Basis(tensors["mean"], tensors["components"], tensors["variance"])
    except (SafetensorError, KeyError) as error:
        raise InputError(Problem(str(path), "", f"no components: {error}", "train the model again")) from None
