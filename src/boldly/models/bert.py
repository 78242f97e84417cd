"""Masked modeling: hidden frames (Sequence-BERT) or hidden parcels (Network-BERT) of windows are filled in."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import BertConfig, BertModel

from boldly.config import PretrainOptions
from boldly.models.network import Network, NetworkConfig, Outputs, attention_kernel, real_frames, window_l1
from boldly.models.objective import Objective, Targets
from boldly.samples.windows import WindowOptions

_FIRST, _SECOND = 0, 1

# Weight of the order of the windows in the loss: with weight 1 its gradient, nearly all noise at first, drowns
# that of the frames for hundreds of steps.
_ORDER_WEIGHT = 0.1

# Attention heads look back and ahead over these times, s, evenly spaced on a logarithmic scale.
_NEAREST_S, _FARTHEST_S = 2.0, 100.0


class MaskedNetwork(Network):
    """BERT layers that read CLS and a window, or CLS, SEP, A and B; seconds and segments tell what lies where.

    Sequence-BERT hides spans of frames behind a learned vector; Network-BERT hides parcels over all time behind a
    learned value per parcel. Of pairs, whether B follows A is read from CLS. Attention falls with the seconds
    between two frames, as it does with their distance in Press et al. 2022 (ALiBi): each head has a time constant
    of its own; neighbours are found at once.
    """

    def __init__(self, sizes: NetworkConfig) -> None:
        super().__init__(sizes)
        self.decoder = bert_layers(sizes)
        reach = torch.logspace(math.log10(_NEAREST_S), math.log10(_FARTHEST_S), sizes.heads)
        self.register_buffer("rates", 1 / reach, persistent=False)
        self.rates: Tensor
        self.cls_vector = nn.Parameter(torch.randn(sizes.width) * 0.02)
        if sizes.labels:
            return
        if sizes.pairs:
            self.sep_vector = nn.Parameter(torch.randn(sizes.width) * 0.02)
            self.follows_head = nn.Linear(sizes.width, 1)
        hidden_size = sizes.n_parcels if sizes.framework == "network_bert" else sizes.width
        self.mask_vector = nn.Parameter(torch.randn(hidden_size) * 0.02)

    def encode(
        self, inputs: Tensor, seconds: Tensor, t_r: Tensor, marked: Tensor, valid: Tensor | None = None
    ) -> list[Tensor]:
        """Return the hidden states of the frames, each (B, L, W): the embedding, then the output of each layer."""
        frames = self.embedder(inputs, seconds, t_r, marked)
        return self._read(frames, seconds, valid, split=frames.shape[1])[0]

    def predict(
        self,
        inputs: Tensor,
        seconds: Tensor,
        t_r: Tensor,
        marked: Tensor,
        valid: Tensor | None = None,
        *,
        masked: Tensor,
        split: int | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Return the predicted frames (B, L, P) and, of pairs, the logit of "B follows A" (B,)."""
        if self.sizes.framework == "network_bert":
            inputs = torch.where(masked[:, None], self.mask_vector, inputs)
            frames = self.embedder(inputs, seconds, t_r, marked)
        else:
            frames = self.embedder(inputs, seconds, t_r, marked, masked=masked, mask_vector=self.mask_vector)
        hidden, cls = self._read(frames, seconds, valid, frames.shape[1] if split is None else split)
        return self.predict_frames(hidden[-1]), None if split is None else self.follows_head(cls).squeeze(-1)

    def _read(
        self, frames: Tensor, seconds: Tensor, valid: Tensor | None, split: int
    ) -> tuple[list[Tensor], Tensor]:
        """Pass embedded frames (B, L, W), of which `split` belong to A, through the layers.

        Returns
        -------
        frames : list of Tensor, shape (B, L, W)
            What goes in, and the output of each layer.
        cls : Tensor, shape (B, W)
        """
        B, _, W = frames.shape
        types = self.decoder.embeddings.token_type_embeddings.weight
        parts = [self.cls_vector.expand(B, 1, W) + types[_FIRST], frames[:, :split] + types[_FIRST]]
        n_special = 1
        if split < frames.shape[1]:
            parts = [parts[0], self.sep_vector.expand(B, 1, W) + types[_FIRST], *parts[1:]]
            parts.append(frames[:, split:] + types[_SECOND])
            n_special = 2
        tokens = self.decoder.embeddings.LayerNorm(torch.cat(parts, dim=1))
        bias = self._attention_bias(seconds, valid, n_special).to(tokens.dtype)
        layers = [tokens]
        with attention_kernel(tokens):
            for layer in self.decoder.encoder.layer:
                layers.append(layer(layers[-1], bias))
        return [hidden[:, n_special:] for hidden in layers], layers[-1][:, 0]

    def _attention_bias(self, seconds: Tensor, valid: Tensor | None, n_special: int) -> Tensor:
        """Return what is added to attention scores (B, heads, tokens, tokens); special tokens have no distance."""
        distance = (seconds[:, :, None] - seconds[:, None]).abs()
        bias = -distance[:, None] * self.rates[:, None, None]
        if valid is not None:
            bias = bias.masked_fill(~valid[:, None, None], torch.finfo(bias.dtype).min)
        bias = functional.pad(bias, (n_special, 0, n_special, 0))
        if valid is not None:
            # Special tokens do not look at padding either.
            bias[:, :, :n_special, n_special:].masked_fill_(~valid[:, None, None], torch.finfo(bias.dtype).min)
        return bias


class MaskedModeling(Objective):
    """The L1 of what is hidden; of pairs, plus a tenth of the binary cross-entropy of the order of the windows."""

    network: MaskedNetwork

    @classmethod
    def view(cls, options: PretrainOptions, batch_size: int) -> WindowOptions:
        """Return windows, or pairs of them."""
        return replace(super().view(options, batch_size), pairs=options.pairs)

    def forward(
        self,
        inputs: Tensor,
        marked: Tensor,
        masked: Tensor,
        valid: Tensor | None = None,
        follows: Tensor | None = None,
        **batch: Any,
    ) -> Outputs:
        """Return the loss and its parts."""
        filled_in, logit = self.network(inputs=inputs, marked=marked, masked=masked, valid=valid, **batch)
        targets = self.targets(inputs, marked, valid, masked=masked)
        l1 = window_l1(filled_in, inputs, targets.frames, targets.marked)
        if follows is None:
            return {"loss": l1.mean(), "window_loss": l1, "l1": l1}
        order = functional.binary_cross_entropy_with_logits(logit.float(), follows, reduction="none")
        loss = l1 + _ORDER_WEIGHT * order
        return {
            "loss": loss.mean(),
            "window_loss": loss,
            "l1": l1,
            "order_loss": order,
            "order_accuracy": ((logit > 0) == (follows > 0.5)).float(),
        }


class FrameModeling(MaskedModeling):
    """Sequence-BERT: spans of frames are hidden."""

    @classmethod
    def view(cls, options: PretrainOptions, batch_size: int) -> WindowOptions:
        """Return windows with hidden frames."""
        return replace(super().view(options, batch_size), masking="frames", mask_span=options.mask_span)

    def targets(self, inputs: Tensor, marked: Tensor, valid: Tensor | None = None, **batch: Any) -> Targets:
        """Return the hidden frames."""
        return Targets(batch["masked"], marked, real_frames(inputs, valid) & ~batch["masked"])


class ParcelModeling(MaskedModeling):
    """Network-BERT: parcels are hidden at all times."""

    has_forecasts = False

    @classmethod
    def view(cls, options: PretrainOptions, batch_size: int) -> WindowOptions:
        """Return windows with hidden parcels."""
        return replace(super().view(options, batch_size), masking="parcels")

    def targets(self, inputs: Tensor, marked: Tensor, valid: Tensor | None = None, **batch: Any) -> Targets:
        """Return the hidden parcels."""
        return Targets(real_frames(inputs, valid), ~batch["masked"] | marked, None)


def bert_layers(sizes: NetworkConfig) -> BertModel:
    """Build a BERT without tables of words and positions: time is embedded in seconds."""
    network = BertModel(
        BertConfig(
            vocab_size=1,
            max_position_embeddings=1,
            hidden_size=sizes.width,
            num_hidden_layers=sizes.layers,
            num_attention_heads=sizes.heads,
            intermediate_size=4 * sizes.width,
            hidden_act="gelu_pytorch_tanh",
            hidden_dropout_prob=sizes.dropout,
            attention_probs_dropout_prob=0.0,
            pad_token_id=None,
        ),
        add_pooling_layer=False,
    )
    network.embeddings.word_embeddings = nn.Identity()  # type: ignore[assignment]
    network.embeddings.position_embeddings = nn.Identity()  # type: ignore[assignment]
    return network
