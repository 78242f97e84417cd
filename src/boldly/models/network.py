"""What all networks share: their sizes, the way frames enter, the read-out that gives classes."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from boldly.models.parcel_errors import tell

Outputs = dict[str, Tensor]
NetworkName = Literal[
    "autoencoding",
    "csm",
    "sequence_bert",
    "network_bert",
    "masked_autoencoding",
    "components",
    "linear",
    "mean_mlp",
]

# Periods of the time embedding, s: from below the shortest repetition times to twice the longest windows in use.
_SHORTEST_PERIOD_S = 1.0
_LONGEST_PERIOD_S = 600.0
_N_PERIODS = 16
# Of the embedding of time, where that of signals starts from their components: time is not to drown them.
_QUIET_TIME = 0.2


@dataclass(frozen=True)
class NetworkConfig:
    """Everything needed to build a network; stored as config.json beside its weights.

    Attributes
    ----------
    framework : str
        Framework or baseline.
    n_parcels : int
        Number of parcels P.
    width, layers, heads : int
        Size of the hidden states W, number of layers (autoencoding: of encoder and of decoder), attention heads.
    dropout : float
        Dropout rate.
    window_frames : int
        Longest window; only the linear baseline depends on it.
    labels : tuple of str
        Names of the states in label order: the network is a decoder. Empty: it is a pretraining network.
    variant : str
        "boldly", or "lfb" for the networks of the published system.
    embedding_layers : int
        Layers of embedder and unembedder; only lfb can have more than one.
    horizons_s : tuple of float
        How far ahead CSM predicts beside the next frame, s.
    parcel_groups : int
        Groups of parcels that a frame is parted into (masked_autoencoding).
    pairs : bool
        Whether the BERT frameworks are pretrained on pairs of windows and told their order.
    groups : tuple of (str, float)
        Datasets and repetition times (s) for whose next frames CSM has a coupling of their own.
    """

    framework: NetworkName
    n_parcels: int
    width: int
    layers: int = 0
    heads: int = 1
    dropout: float = 0.1
    window_frames: int = 50
    labels: tuple[str, ...] = ()
    variant: str = "boldly"
    embedding_layers: int = 1
    horizons_s: tuple[float, ...] = ()
    parcel_groups: int = 0
    pairs: bool = True
    groups: tuple[tuple[str, float], ...] = ()


class TimeEmbedding(nn.Module):
    """Elapsed seconds and repetition time to width: any repetition time and any length have a place.

    Sines and cosines with periods from 1 s to 600 s, and the logarithm of the repetition time, mapped linearly.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        ratio = (_LONGEST_PERIOD_S / _SHORTEST_PERIOD_S) ** (1 / (_N_PERIODS - 1))
        rates = 2 * math.pi / (_SHORTEST_PERIOD_S * ratio ** torch.arange(_N_PERIODS))
        self.register_buffer("rates", rates, persistent=False)
        self.rates: Tensor
        self.projection = nn.Linear(2 * _N_PERIODS + 1, width)

    def forward(self, seconds: Tensor, t_r: Tensor) -> Tensor:
        """Embed times (B, L) and repetition times (B,) as (B, L, W)."""
        angle = seconds[..., None] * self.rates  # (B, L, periods)
        step = t_r.log()[:, None, None].expand(*seconds.shape, 1)  # (B, L, 1)
        return self.projection(torch.cat([angle.sin(), angle.cos(), step], dim=-1))


class Embedder(nn.Module):
    """Frames to width: a linear map of the unmarked parcels, the embedding of time, and dropout.

    The reference scales each embedded frame with LayerNorm. That mixes the noise of single frames into what should
    average out over a trial: the accuracy of linear probes on the mean over time falls by a tenth or more.
    """

    def __init__(self, sizes: NetworkConfig) -> None:
        super().__init__()
        self.projection = nn.Linear(sizes.n_parcels, sizes.width)
        self.time = TimeEmbedding(sizes.width)
        self.dropout = nn.Dropout(sizes.dropout)

    def forward(
        self,
        inputs: Tensor,
        seconds: Tensor,
        t_r: Tensor,
        marked: Tensor,
        *,
        masked: Tensor | None = None,
        mask_vector: Tensor | None = None,
    ) -> Tensor:
        """Embed frames.

        Parameters
        ----------
        inputs : Tensor, shape (B, L, P)
            Signals.
        seconds : Tensor, shape (B, L)
            Time since the first frame, s.
        t_r : Tensor, shape (B,)
            Repetition times, s.
        marked : Tensor of bool, shape (B, P)
            Parcels without coverage. The others are scaled up so that the input keeps its variance.
        masked : Tensor of bool, shape (B, L), optional
            Frames that `mask_vector` (W,) stands in for; their time stays visible.

        Returns
        -------
        Tensor, shape (B, L, W)
        """
        hidden = self.projection(inputs * parcel_scale(marked)[:, None])
        if masked is not None and mask_vector is not None:
            hidden = torch.where(masked[..., None], mask_vector.to(hidden.dtype), hidden)
        return self.dropout(hidden + self.time(seconds, t_r))


def parcel_scale(marked: Tensor) -> Tensor:
    """Return factors (B, P): zero for marked parcels, for others what keeps the variance of a sum over parcels."""
    present = (~marked).float()
    share = present.mean(dim=1, keepdim=True).clamp_min(1 / marked.shape[1])
    return present * share.rsqrt()


def window_l1(prediction: Tensor, target: Tensor, frames: Tensor, marked: Tensor) -> Tensor:
    """Return the mean absolute error of each window over the chosen frames and the unmarked parcels.

    Each window has the same weight in a batch, whatever its length: the mean over ranks is that over the batch.

    Parameters
    ----------
    prediction, target : Tensor, shape (B, L, P)
        Signals.
    frames : Tensor of bool, shape (B, L)
        Frames that count.
    marked : Tensor of bool, shape (B, P)
        Parcels that do not count.

    Returns
    -------
    Tensor, shape (B,)
    """
    parcels = (~marked).float()
    error = (prediction.float() - target).abs()  # (B, L, P)
    if not torch.compiler.is_compiling():
        tell(error, frames[:, :, None] & ~marked[:, None])
    per_frame = torch.einsum("blp,bp->bl", error, parcels)
    count = frames.sum(dim=1) * parcels.sum(dim=1)
    return (per_frame * frames).sum(dim=1) / count.clamp_min(1)


def real_frames(inputs: Tensor, valid: Tensor | None) -> Tensor:
    """Return which frames are real (B, L); `valid` is None where all are."""
    return inputs.new_ones(inputs.shape[:2], dtype=torch.bool) if valid is None else valid


class TrialNorm(nn.BatchNorm1d):
    """Batch norm without weights that also takes a batch of a single trial.

    A single trial has no variance over the batch. It moves the running mean and variance (exponentially weighted,
    as in Finch 2009) and is scaled with these.
    """

    def __init__(self, size: int) -> None:
        super().__init__(size, affine=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """Normalise (B, W)."""
        if not self.training or len(hidden) > 1:
            return super().forward(hidden)
        mean, variance = self.running_mean, self.running_var
        assert mean is not None
        assert variance is not None
        with torch.no_grad():
            change, momentum = hidden[0].to(mean.dtype) - mean, self.momentum or 0.0
            mean += momentum * change
            variance.copy_((1 - momentum) * (variance + momentum * change.square()))
        # Copies: the backward pass of the next trial may come after they have moved on.
        return functional.batch_norm(hidden, mean.clone(), variance.clone(), eps=self.eps)


class Head(nn.Module):
    """Hidden states to classes: attentive pooling over time, batch norm, pooler (linear, tanh, dropout), linear.

    All layers are read, the embedding among them: the last layer knows what its objective asked for, such as the
    change to the next frame, not the pattern that lasts. Each attention head of each layer weighs the frames with
    its own query, which starts at zero, where pooling is the mean over frames. Batch norm without weights lets
    differences between trials stand out from what all trials share, as in linear probes (He et al. 2022).
    """

    def __init__(self, sizes: NetworkConfig) -> None:
        super().__init__()
        heads = sizes.heads if sizes.width % sizes.heads == 0 else 1
        n_read = sizes.layers + 1
        self.query = nn.Parameter(torch.zeros(n_read, heads, sizes.width // heads))
        self.norm = TrialNorm(n_read * sizes.width)
        self.pooler = nn.Linear(n_read * sizes.width, sizes.width)
        self.dropout = nn.Dropout(sizes.dropout)
        self.classes = nn.Linear(sizes.width, len(sizes.labels))

    def forward(self, layers: list[Tensor], valid: Tensor | None) -> Tensor:
        """Turn the hidden states of the layers, each (B, L, W), into logits (B, classes)."""
        return self.classes(self.dropout(self.pooler(self.norm(self.pool(layers, valid))).tanh()))

    def pool(self, layers: list[Tensor], valid: Tensor | None) -> Tensor:
        """Return the weighted means over time (B, layers * W)."""
        heads, size = self.query.shape[1:]
        hidden = torch.stack(layers, dim=2)  # (B, L, layers, W)
        parts = hidden.view(*hidden.shape[:3], heads, size)
        score = torch.einsum("blnhd,nhd->blnh", parts, self.query.to(hidden.dtype)) / math.sqrt(size)
        if valid is not None:
            score = score.masked_fill(~valid[..., None, None], -math.inf)
        return torch.einsum("blnh,blnhd->bnhd", score.softmax(dim=1), parts).flatten(start_dim=1)


class Network(nn.Module):
    """A framework's network: it predicts signals while pretraining, and with a head it decodes mental states.

    `embedder`, `decoder` (the sequence network) and `head` or `unembedder` are the names of its parts. A batch
    holds what `boldly.samples.windows` cuts. `predict`, which each framework defines, takes one while pretraining
    and returns what its objective compares with the signals.
    """

    predict: Callable[..., Any]

    def __init__(self, sizes: NetworkConfig) -> None:
        super().__init__()
        self.sizes = sizes
        self.embedder = Embedder(sizes)
        self.head = Head(sizes) if sizes.labels else None
        self.unembedder = None if sizes.labels else small_linear(sizes.width, sizes.n_parcels)

    def forward(self, labels: Tensor | None = None, **batch: Any) -> Any:
        """Return what the network predicts for its objective; of a decoder `logits` (B, classes) and `loss`."""
        if self.head is None:
            return self.predict(**batch)
        return classified(self.head(self.encode(**batch), batch.get("valid")), labels)

    def start_embedding(self, components: NDArray[np.floating]) -> None:
        """Let the first units of the embedding be components of the signals; the others are left to training.

        Single frames are mostly noise. To find out by gradient steps what parcels have in common takes most of a
        short training, and Sequence-BERT, whose hidden frames are said by others alone, does not find it at all.

        Parameters
        ----------
        components : ndarray, shape (P, K)
            Orthonormal columns; those beyond the width are not used.
        """
        projection = self.embedder.projection
        leading = torch.as_tensor(components).T[: projection.out_features]
        with torch.no_grad():
            projection.weight.zero_()
            projection.weight[: len(leading)] = leading
            projection.bias.zero_()
            for parameter in self.embedder.time.projection.parameters():
                parameter.mul_(_QUIET_TIME)

    def encode(
        self, inputs: Tensor, seconds: Tensor, t_r: Tensor, marked: Tensor, valid: Tensor | None = None
    ) -> list[Tensor]:
        """Return the hidden states of the frames, each (B, L, W): the embedding, then the output of each layer."""
        raise NotImplementedError

    def predict_frames(self, hidden: Tensor) -> Tensor:
        """Turn hidden states (B, L, W) into signals (B, L, P)."""
        if self.unembedder is None:
            raise ValueError("a decoder of mental states does not predict frames")
        return self.unembedder(hidden)


def classified(logits: Tensor, labels: Tensor | None) -> Outputs:
    """Return `logits` (B, classes) in full precision and, with labels, the cross-entropy as `loss`."""
    logits = logits.float()
    if labels is None:
        return {"logits": logits}
    return {"loss": functional.cross_entropy(logits, labels), "logits": logits}


def attention_kernel(hidden: Tensor) -> AbstractContextManager[None]:
    """Choose how attention is computed: as torch chooses, but for bfloat16 on CPUs.

    There the gradients of torch's fused kernel take ten times as long as those of plain products.
    """
    if hidden.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        return sdpa_kernel(SDPBackend.MATH)
    return nullcontext()


def small_linear(width: int, n_parcels: int) -> nn.Linear:
    """Build a linear map that starts near zero whatever the width: the first predictions are almost none.

    At zero itself nothing that lies below would learn in the first steps.
    """
    layer = nn.Linear(width, n_parcels)
    nn.init.normal_(layer.weight, std=0.1 / math.sqrt(width))
    nn.init.zeros_(layer.bias)
    return layer
