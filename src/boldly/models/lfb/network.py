"""LfB's networks: what they read (`prepare`), what they put out (`predict`), and their losses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from boldly.config import PretrainOptions
from boldly.models.lfb import layout
from boldly.models.lfb.embedder import N_POSITIONS, Embedder, Unembedder
from boldly.models.lfb.layout import Tokens
from boldly.models.lfb.sequence import BertDecoder, GptDecoder, LinearDecoder, LstmDecoder
from boldly.models.network import NetworkConfig, Outputs, classified, real_frames
from boldly.models.objective import Objective
from boldly.models.parcel_errors import tell
from boldly.records import InputError, Problem
from boldly.samples.windows import WindowOptions

# Parameters that no gradient reaches, by objective. They are part of the published weights.
_IDLE = {
    "csm": ("embedder.cls_embed", "decoder.transformer.wte.", "decoder.pooler_layer."),
    "sequence_bert": ("decoder.transformer.embeddings.word_embeddings.",),
    "network_bert": ("decoder.transformer.embeddings.word_embeddings.",),
    "autoencoding": (),
}
_IDLE_DECODING = (
    "embedder.msk_embed",
    "embedder.sep_embed",
    "decoder.transformer.wte.",
    "decoder.transformer.embeddings.word_embeddings.",
    "decoder.is_next_head.",
    "decoder.decoder.",
    "unembedder.",
)


class LfbNetwork(nn.Module):
    """A network of the published system; its parameters have the published names and shapes.

    A batch is one of `boldly.samples.windows`. Marked parcels are read as the zeros that they are, and count in
    the losses: the published system knows no such parcels.
    """

    def __init__(self, sizes: NetworkConfig) -> None:
        super().__init__()
        self.sizes = sizes
        self.unembedder = Unembedder(sizes) if sizes.width != sizes.n_parcels else None

    def forward(self, labels: Tensor | None = None, **batch: Any) -> Any:
        """Return what was laid out and put out for it; of a decoder `logits` (B, classes) and their `loss`."""
        tokens = self.prepare(**batch)
        outputs = self.predict(tokens)
        if self.sizes.labels:
            return classified(outputs["decoding_logits"], labels)
        return tokens, outputs

    def prepare(
        self,
        inputs: Tensor,
        seconds: Tensor,
        valid: Tensor | None = None,
        masked: Tensor | None = None,
        split: int = 0,
        **_: Any,
    ) -> Tokens:
        """Lay out the tokens of a batch, given its draws (`masked`).

        Parameters
        ----------
        inputs : Tensor, shape (B, L, P)
            Frames; of pairs A in the first `split` places.
        seconds : Tensor, shape (B, L)
            Their times, s.
        valid : Tensor of bool, shape (B, L), optional
            Real frames, in front of the padding; None: all.
        masked : Tensor of bool, optional
            The draws. csm: one frame of each window (B, L); sequence_bert: frames (B, L); network_bert: parcels
            (B, P); autoencoding: frames without teacher forcing (B, L), read while training only. Decoders have
            none.
        split : int
            Places of A.
        """
        valid = real_frames(inputs, valid)
        return self._lay_out(inputs * valid[..., None], seconds * valid, valid, masked, split)

    def predict(self, tokens: Tokens) -> Outputs:
        """Read tokens.

        Returns
        -------
        dict
            Under LfB's names, what there is of: `outputs` (B, T, P), for decoders the hidden states (B, T, W);
            `pooler_outputs` (B, W); `is_next_logits` (B,), large where B does not follow A; `decoding_logits`
            (B, classes).
        """
        raise NotImplementedError

    def _lay_out(
        self, inputs: Tensor, seconds: Tensor, valid: Tensor, masked: Tensor | None, split: int
    ) -> Tokens:
        raise NotImplementedError

    def _unembed(self, hidden: Tensor) -> Tensor:
        return hidden if self.unembedder is None else self.unembedder(hidden)

    def _rest_idle_weights(self) -> None:
        """Take weights that no gradient reaches out of training, so that processes need not look for them."""
        idle = _IDLE_DECODING if self.sizes.labels else _IDLE[self.sizes.framework]
        for name, parameter in self.named_parameters():
            if name.startswith(idle):
                parameter.requires_grad_(False)


class LfbTransformer(LfbNetwork):
    """GPT-2 (csm) or BERT (sequence_bert, network_bert)."""

    def __init__(self, sizes: NetworkConfig) -> None:
        super().__init__(sizes)
        self.embedder = Embedder(sizes)
        self.decoder = GptDecoder(sizes) if sizes.framework == "csm" else BertDecoder(sizes)
        self._rest_idle_weights()

    def predict(self, tokens: Tokens) -> Outputs:
        """Read tokens; see `LfbNetwork.predict`."""
        embedded = self.embedder(tokens.inputs_embeds, tokens.t_rs)
        hidden = self.decoder(embedded, tokens.attention_mask, tokens.token_type_ids)
        if self.sizes.labels:
            pooled = self.decoder.pool(hidden, tokens.attention_mask)
            logits = self.decoder.decoding_head(pooled)
            return {"outputs": hidden, "pooler_outputs": pooled, "decoding_logits": logits}
        outputs = {"outputs": self._unembed(hidden)}
        if isinstance(self.decoder, BertDecoder):
            pooled = self.decoder.pool(hidden, tokens.attention_mask)
            outputs |= {"pooler_outputs": pooled, "is_next_logits": self.decoder.is_next_head(pooled).squeeze(-1)}
        return outputs

    def encode(
        self, inputs: Tensor, seconds: Tensor, t_r: Tensor, marked: Tensor, valid: Tensor | None = None
    ) -> list[Tensor]:
        """Return the hidden states (B, L, W) of the embedding and of all layers, where nothing is masked.

        A window is followed by CLS, as in adaptation (pretraining has no layout for a single window of BERT); the
        state of CLS is left out. Those of GPT-2, which looks back only, are the same with and without it.

        Parameters
        ----------
        inputs : Tensor, shape (B, L, P)
            Frames.
        seconds : Tensor, shape (B, L)
            Their times, s.
        t_r, marked : Tensor
            Part of each batch; the published networks have no use for them.
        valid : Tensor of bool, shape (B, L), optional
            Real frames, in front of the padding; None: all. States of padding mean nothing.

        Raises
        ------
        InputError
            For windows that are longer than the positions that the network knows.
        """
        _check_length(inputs.shape[1], N_POSITIONS - 1)
        valid = real_frames(inputs, valid)
        tokens = layout.with_cls(inputs * valid[..., None], seconds * valid, valid, self.embedder.cls_embed)
        embedded = self.embedder(tokens.inputs_embeds, tokens.t_rs)
        states = self.decoder.layers(embedded, tokens.attention_mask)
        # CLS stands behind the last real frame, and makes the windows a place longer.
        return [layer[:, :-1] for layer in states]

    def _lay_out(
        self, inputs: Tensor, seconds: Tensor, valid: Tensor, masked: Tensor | None, split: int
    ) -> Tokens:
        embedder = self.embedder
        if self.sizes.labels:
            _check_length(inputs.shape[1], N_POSITIONS - 1)
            return layout.with_cls(inputs, seconds, valid, embedder.cls_embed)
        assert masked is not None
        if self.sizes.framework == "csm":
            return layout.causal(inputs, seconds, masked, embedder.msk_embed)
        vectors = {"msk": embedder.msk_embed, "sep": embedder.sep_embed, "cls": embedder.cls_embed}
        return layout.paired(inputs, seconds, valid, split, masked, **vectors)


class LfbAutoencoder(LfbNetwork):
    """LSTM encoder and LSTM generator; windows are padded to the longest length, the encoder reads that too."""

    def __init__(self, sizes: NetworkConfig) -> None:
        super().__init__(sizes)
        self.embedder = Embedder(sizes)
        self.decoder = LstmDecoder(sizes)
        self._rest_idle_weights()

    def predict(self, tokens: Tokens) -> Outputs:
        """Read tokens; see `LfbNetwork.predict`."""
        frames = self.embedder(tokens.inputs_embeds, tokens.t_rs)
        if self.sizes.labels:
            pooled = self.decoder.pool(frames)
            return {"pooler_outputs": pooled, "decoding_logits": self.decoder.decoding_head(pooled)}
        restored, pooled = self.decoder(frames, tokens.forced)
        return {"outputs": self._unembed(restored), "pooler_outputs": pooled}

    def encode(
        self, inputs: Tensor, seconds: Tensor, t_r: Tensor, marked: Tensor, valid: Tensor | None = None
    ) -> list[Tensor]:
        """Return the embedded frames and the outputs of the encoder's layers, each (B, L, W).

        Of the last layer it is the mean of both directions, whose state at the end the generator starts from.

        Parameters
        ----------
        inputs, seconds, t_r, marked, valid
            As in `LfbTransformer.encode`.

        Raises
        ------
        InputError
            For windows that are longer than the longest of the pretraining: the encoder reads all of them padded
            to that length.
        """
        n_frames = inputs.shape[1]
        _check_length(n_frames, self.sizes.window_frames)
        tokens = self.prepare(inputs, seconds, valid)
        layers = self.decoder.encoder.layers(self.embedder(tokens.inputs_embeds, tokens.t_rs))
        return [layer[:, :n_frames] for layer in layers]

    def _lay_out(
        self, inputs: Tensor, seconds: Tensor, valid: Tensor, masked: Tensor | None, split: int
    ) -> Tokens:
        missing = self.sizes.window_frames - inputs.shape[1]
        inputs = functional.pad(inputs, (0, 0, 0, missing))
        valid = functional.pad(valid, (0, missing))
        return Tokens(
            inputs_embeds=inputs,
            t_rs=functional.pad(seconds, (0, missing)),
            attention_mask=valid,
            modelling_mask=valid[..., None],
            targets=inputs,
            # Out of training the generator always runs freely.
            forced=None if masked is None or not self.training else _lengthened(~masked, missing),
        )


def _check_length(n_frames: int, longest: int) -> None:
    if n_frames > longest:
        message = f"trials of {n_frames} frames, this network of variant lfb reads {longest} at most"
        raise InputError(Problem("window_frames", "", message, f"set it to {longest} for this experiment"))


def _lengthened(forced: Tensor, places: int) -> Tensor:
    """Let padding be fed as the last frame is: one draw is for all steps."""
    return torch.cat([forced, forced[:, -1:].expand(-1, places)], dim=1)


class LfbLinear(LfbNetwork):
    """The linear baseline; its unembedder has weights but no use."""

    def __init__(self, sizes: NetworkConfig) -> None:
        super().__init__(sizes)
        self.decoder = LinearDecoder(sizes)
        self._rest_idle_weights()

    def predict(self, tokens: Tokens) -> Outputs:
        """Read tokens; see `LfbNetwork.predict`."""
        return {"decoding_logits": self.decoder.decoding_head(self.decoder.pool(tokens.inputs_embeds))}

    def _lay_out(
        self, inputs: Tensor, seconds: Tensor, valid: Tensor, masked: Tensor | None, split: int
    ) -> Tokens:
        missing = self.sizes.window_frames - inputs.shape[1]
        return Tokens(functional.pad(inputs, (0, 0, 0, missing)), seconds, valid)


class LfbModeling(Objective):
    """The published objectives.

    The loss is the mean over all masked values of the batch, as published, so that windows with more of them weigh
    more; `window_loss` is that of each window.
    """

    network: LfbNetwork
    has_forecasts = False

    @classmethod
    def view(cls, options: PretrainOptions, batch_size: int) -> WindowOptions:
        """Return windows that each have their own length, below the longest (8.14), 10 to 49 frames.

        Where LfB's description is silent: the length of B is drawn as that of A; masks take the given share of the
        frames of both together, or of the parcels, the same ones in both. Teacher forcing is one draw for the
        windows that are cut together, which are those of a process and step.
        """
        wanted = super().view(options, batch_size)
        wanted = replace(wanted, longest=wanted.longest - 1, batch_size=1, stepped_onsets=True, restart_clock=True)
        match options.framework:
            case "csm":
                return replace(wanted, masking="one_frame")
            case "sequence_bert":
                return replace(wanted, pairs=True, masking="frames", mask_span=1)
            case "network_bert":
                return replace(wanted, pairs=True, masking="parcels")
            case _:
                return replace(wanted, masking="coin")

    def forward(self, follows: Tensor | None = None, **batch: Any) -> Outputs:
        """Return the loss, and of each window (B,) `l1` and for pairs `order_loss`, `order_accuracy`."""
        tokens, outputs = self.network(**batch)
        return losses(tokens, outputs, follows)

    def naive(self, follows: Tensor | None = None, **batch: Any) -> Outputs:
        """Return the L1 of each window (B,) for predicting zero, as `l1_zero`."""
        tokens = self.network.prepare(**batch)
        assert tokens.targets is not None
        return {"l1_zero": masked_l1(torch.zeros_like(tokens.targets), tokens)[0]}


def losses(tokens: Tokens, outputs: Outputs, follows: Tensor | None = None) -> Outputs:
    """Return `loss` and its parts (see `LfbModeling`).

    Parameters
    ----------
    tokens, outputs
        What was read and put out.
    follows : Tensor, shape (B,), optional
        1 where B follows A; the published label is 1 where it does not (8.12).
    """
    l1, loss = masked_l1(outputs["outputs"], tokens)
    if follows is None:
        return {"loss": loss, "window_loss": l1, "l1": l1}
    logit, label = outputs["is_next_logits"].float(), 1 - follows
    order = functional.binary_cross_entropy_with_logits(logit, label, reduction="none")
    return {
        "loss": loss + order.mean(),
        "window_loss": l1 + order,
        "l1": l1,
        "order_loss": order,
        "order_accuracy": ((logit > 0) == (label > 0.5)).float(),
    }


def masked_l1(prediction: Tensor, tokens: Tokens) -> tuple[Tensor, Tensor]:
    """Return the mean absolute error over the masked values: of each window (B,), and of all together ()."""
    assert tokens.targets is not None
    assert tokens.modelling_mask is not None
    chosen = tokens.modelling_mask.expand_as(tokens.targets)
    error = (prediction.float() - tokens.targets).abs() * chosen
    tell(error, chosen)
    error = error.sum(dim=(1, 2))
    count = chosen.sum(dim=(1, 2))
    return error / count.clamp_min(1), error.sum() / count.sum().clamp_min(1)
