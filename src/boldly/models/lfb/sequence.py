"""The parts that read a sequence of embedded tokens: GPT-2, BERT, LSTMs, or a linear map over time."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel, GPT2Config, GPT2Model

from boldly.models.lfb.embedder import N_POSITIONS
from boldly.models.network import NetworkConfig

_ACTIVATION = "gelu_new"


class GptDecoder(nn.Module):
    """GPT-2; its pooler reads the last token."""

    def __init__(self, sizes: NetworkConfig) -> None:
        super().__init__()
        self.transformer = GPT2Model(
            GPT2Config(
                vocab_size=1,
                n_positions=N_POSITIONS,
                n_embd=sizes.width,
                n_layer=sizes.layers,
                n_head=sizes.heads,
                n_inner=4 * sizes.width,
                activation_function=_ACTIVATION,
                resid_pdrop=sizes.dropout,
                embd_pdrop=sizes.dropout,
                attn_pdrop=sizes.dropout,
                use_cache=False,
                bos_token_id=None,
                eos_token_id=None,
            )
        )
        self.pooler_layer = _pooler(sizes)
        if sizes.labels:
            self.decoding_head = _classes(sizes.width, sizes)

    def forward(self, hidden: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """Return the last hidden states (B, T, W)."""
        return self.transformer(inputs_embeds=hidden, attention_mask=attention_mask.long()).last_hidden_state

    def pool(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the pooled state (B, W) of the last token that is read: CLS."""
        last = attention_mask.sum(dim=1) - 1
        return self.pooler_layer(hidden[torch.arange(len(hidden), device=hidden.device), last])


class BertDecoder(nn.Module):
    """BERT; its pooler reads position 0, the first frame, although CLS stands at the end (8.13)."""

    def __init__(self, sizes: NetworkConfig) -> None:
        super().__init__()
        self.transformer = BertModel(
            BertConfig(
                vocab_size=1,
                max_position_embeddings=N_POSITIONS,
                hidden_size=sizes.width,
                num_hidden_layers=sizes.layers,
                num_attention_heads=sizes.heads,
                intermediate_size=4 * sizes.width,
                hidden_act=_ACTIVATION,
                hidden_dropout_prob=sizes.dropout,
                attention_probs_dropout_prob=sizes.dropout,
                pad_token_id=None,
            ),
            add_pooling_layer=False,
        )
        self.pooler_layer = _pooler(sizes)
        self.is_next_head = nn.Sequential(nn.Linear(sizes.width, 1))
        if sizes.labels:
            self.decoding_head = _classes(sizes.width, sizes)

    def forward(self, hidden: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """Return the last hidden states (B, T, W)."""
        return self.transformer(
            inputs_embeds=hidden, attention_mask=attention_mask.long(), token_type_ids=token_type_ids
        ).last_hidden_state

    def pool(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the pooled state (B, W) of the first token."""
        return self.pooler_layer(hidden[:, 0])


class LinearDecoder(nn.Module):
    """A linear map over time, padding included, then one over parcels."""

    def __init__(self, sizes: NetworkConfig) -> None:
        super().__init__()
        self.timseries_model = nn.Sequential(nn.Linear(sizes.window_frames, 1))
        self.decoding_head = _classes(sizes.n_parcels, sizes)

    def pool(self, frames: Tensor) -> Tensor:
        """Turn trials (B, L, P), L as long as the windows, into (B, P)."""
        return self.timseries_model(frames.transpose(1, 2)).squeeze(-1)


class LstmDecoder(nn.Module):
    """An LSTM encoder, and an LSTM generator that restores the frames from its state.

    The published description leaves open what passes between the two. Chosen here: the encoder's state is that of
    its last layer behind the last place (padding included), the mean of both directions; the pooled hidden state
    starts the generator as hidden state and as the first input, the cell state goes over as it is.
    """

    def __init__(self, sizes: NetworkConfig) -> None:
        super().__init__()
        self.encoder = _Encoder(sizes)
        self.decoder = _Generator(sizes)
        if sizes.labels:
            self.decoding_head = _classes(sizes.width, sizes)

    def forward(self, frames: Tensor, forced: Tensor | None) -> Tensor:
        """Restore embedded frames (B, L, W); where `forced` (B, L), the generator is fed the frame itself."""
        pooled, cell = self.encoder(frames)
        return self.decoder(frames, pooled, cell, forced)

    def pool(self, frames: Tensor) -> Tensor:
        """Return the pooled state of the encoder (B, W)."""
        return self.encoder(frames)[0]


class _Encoder(nn.Module):
    """Bidirectional LSTMs, directions averaged; residual and LayerNorm between them; states handed on (8.16)."""

    def __init__(self, sizes: NetworkConfig) -> None:
        super().__init__()
        self.lstms, self.layer_norms = _lstms(sizes, bidirectional=True)
        width = sizes.width
        self.pooler_layer = nn.Sequential(nn.Dropout(sizes.dropout), nn.Linear(width, width), nn.Tanh())

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Return the pooled hidden state and the cell state, each (B, W)."""
        B, L, W = hidden.shape
        state: tuple[Tensor, Tensor] | None = None
        for number, lstm in enumerate(self.lstms):
            output, state = lstm(hidden, state)
            if number < len(self.layer_norms):
                hidden = self.layer_norms[number](hidden + output.view(B, L, 2, W).mean(dim=2))
        assert state is not None
        return self.pooler_layer(state[0].mean(dim=0)), state[1].mean(dim=0)


class _Generator(nn.Module):
    """LSTMs that go from frame to frame; the state goes from layer to layer, then to the next frame (8.16)."""

    def __init__(self, sizes: NetworkConfig) -> None:
        super().__init__()
        self.lstms, self.layer_norms = _lstms(sizes, bidirectional=False)
        self.linear_output_layer = nn.Sequential(nn.Dropout(sizes.dropout), nn.Linear(sizes.width, sizes.width))

    def forward(self, frames: Tensor, pooled: Tensor, cell: Tensor, forced: Tensor | None) -> Tensor:
        """Return restored frames (B, L, W)."""
        state = (pooled[None].contiguous(), cell[None].contiguous())
        restored = pooled
        outputs = []
        for place in range(frames.shape[1]):
            hidden = restored
            if forced is not None:
                hidden = torch.where(forced[:, place, None], frames[:, place], restored)
            restored, state = self._step(hidden[:, None], state)
            outputs.append(restored)
        return torch.stack(outputs, dim=1)

    def _step(self, hidden: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Pass one frame (B, 1, W) through the layers; return it as (B, W), and the state."""
        for number, lstm in enumerate(self.lstms):
            output, state = lstm(hidden, state)
            hidden = self.layer_norms[number](hidden + output) if number < len(self.layer_norms) else output
        return self.linear_output_layer(hidden)[:, 0], state


def _lstms(sizes: NetworkConfig, *, bidirectional: bool) -> tuple[nn.ModuleList, nn.ModuleList]:
    """Build the LSTMs, and what stands between them: LayerNorm and dropout."""
    width = sizes.width
    lstms = (nn.LSTM(width, width, batch_first=True, bidirectional=bidirectional) for _ in range(sizes.layers))
    norms = (nn.Sequential(nn.LayerNorm(width), nn.Dropout(sizes.dropout)) for _ in range(sizes.layers - 1))
    return nn.ModuleList(lstms), nn.ModuleList(norms)


def _pooler(sizes: NetworkConfig) -> nn.Sequential:
    return nn.Sequential(nn.Linear(sizes.width, sizes.width), nn.Tanh(), nn.Dropout(sizes.dropout))


def _classes(n_inputs: int, sizes: NetworkConfig) -> nn.Sequential:
    return nn.Sequential(nn.Linear(n_inputs, len(sizes.labels)))
