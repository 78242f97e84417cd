"""Masked modeling: hidden frames (Sequence-BERT) or hidden parcels (Network-BERT) of two windows are filled in."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import BertConfig, BertModel

from boldly.models.network import Network, NetworkConfig, Outputs, real_frames, window_l1

_FIRST, _SECOND = 0, 1


class MaskedNetwork(Network):
    """BERT layers that read CLS A SEP B.

    Sequence-BERT hides spans of frames behind a learned vector; Network-BERT hides parcels over all time behind a
    learned value per parcel. The loss is the L1 of what is hidden plus the binary cross-entropy of "B follows A",
    read from CLS.
    """

    def __init__(self, sizes: NetworkConfig) -> None:
        super().__init__(sizes)
        self.decoder = bert_layers(sizes)
        self.cls_vector = nn.Parameter(torch.randn(sizes.width) * 0.02)
        if sizes.labels:
            return
        self.sep_vector = nn.Parameter(torch.randn(sizes.width) * 0.02)
        self.follows_head = nn.Linear(sizes.width, 1)
        hidden_size = sizes.n_parcels if sizes.framework == "network_bert" else sizes.width
        self.mask_vector = nn.Parameter(torch.randn(hidden_size) * 0.02)

    def encode(
        self, inputs: Tensor, seconds: Tensor, t_r: Tensor, marked: Tensor, valid: Tensor | None = None
    ) -> Tensor:
        """Return the hidden states of the frames (B, L, W)."""
        frames = self.embedder(inputs, seconds, t_r, marked)
        return self._read(frames, valid, split=frames.shape[1])[0]

    def fill_in(
        self,
        inputs: Tensor,
        seconds: Tensor,
        t_r: Tensor,
        marked: Tensor,
        masked: Tensor,
        split: int,
        valid: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the predicted frames (B, L, P) and the logit of "B follows A" (B,)."""
        if self.sizes.framework == "network_bert":
            inputs = torch.where(masked[:, None], self.mask_vector, inputs)
            frames = self.embedder(inputs, seconds, t_r, marked)
        else:
            frames = self.embedder(inputs, seconds, t_r, marked, masked=masked, mask_vector=self.mask_vector)
        hidden, cls = self._read(frames, valid, split)
        return self.predict_frames(hidden), self.follows_head(cls).squeeze(-1)

    def objective(self, inputs: Tensor, marked: Tensor, valid: Tensor | None = None, **batch: Any) -> Outputs:
        """Return the L1 of the hidden values plus the cross-entropy of the order of the windows."""
        follows, masked = batch.pop("follows"), batch["masked"]
        prediction, logit = self.fill_in(inputs=inputs, marked=marked, valid=valid, **batch)
        l1 = window_l1(prediction, inputs, *self._targets(inputs, marked, masked, valid))
        order = functional.binary_cross_entropy_with_logits(logit.float(), follows, reduction="none")
        loss = l1 + order
        return {
            "loss": loss.mean(),
            "window_loss": loss,
            "l1": l1,
            "order_loss": order,
            "order_accuracy": ((logit > 0) == (follows > 0.5)).float(),
        }

    def naive(self, inputs: Tensor, marked: Tensor, valid: Tensor | None = None, **batch: Any) -> Outputs:
        """Return the L1 per window (B,) of predicting zero."""
        targets = self._targets(inputs, marked, batch["masked"], valid)
        return {"l1_zero": window_l1(torch.zeros_like(inputs), inputs, *targets)}

    def _targets(
        self, inputs: Tensor, marked: Tensor, masked: Tensor, valid: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return the frames (B, L) that count and the parcels (B, P) that do not."""
        if self.sizes.framework == "network_bert":
            return real_frames(inputs, valid), ~masked | marked
        return masked, marked

    def _read(self, frames: Tensor, valid: Tensor | None, split: int) -> tuple[Tensor, Tensor]:
        """Pass embedded frames (B, L, W), of which `split` belong to A, through the layers."""
        B, L, W = frames.shape
        cls = self.cls_vector.expand(B, 1, W)
        parts = [cls, frames[:, :split]]
        if split < L:
            parts += [self.sep_vector.expand(B, 1, W), frames[:, split:]]
        tokens = torch.cat(parts, dim=1)  # (B, 1 + A [+ 1 + B], W)
        types = self.decoder.embeddings.token_type_embeddings.weight
        n_first = split + 2 if split < L else split + 1
        tokens = torch.cat([tokens[:, :n_first] + types[_FIRST], tokens[:, n_first:] + types[_SECOND]], dim=1)
        hidden = self.decoder.encoder(
            self.decoder.embeddings.LayerNorm(tokens), attention_mask=_attention(valid, split)
        ).last_hidden_state
        return torch.cat([hidden[:, 1 : 1 + split], hidden[:, n_first:]], dim=1), hidden[:, 0]


def _attention(valid: Tensor | None, split: int) -> Tensor | None:
    """Return which tokens may be looked at (B, 1, 1, tokens); None: all."""
    if valid is None:
        return None
    special = valid.new_ones(len(valid), 1)
    parts = [special, valid[:, :split]]
    if split < valid.shape[1]:
        parts += [special, valid[:, split:]]
    return torch.cat(parts, dim=1)[:, None, None]


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
