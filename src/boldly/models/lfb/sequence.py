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

    def layers(self, hidden: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        """Return the embedding with positions, and the output of each layer (of the last one behind LayerNorm)."""
        return _all_states(self.transformer, hidden, attention_mask)

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

    def layers(self, hidden: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        """Return the embedding with positions and segment, and the output of each layer."""
        return _all_states(self.transformer, hidden, attention_mask)

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

    The encoder's state is that of its last layer behind the last place (padding included), the mean of both
    directions. It starts the generator as hidden state; pooled (linear, tanh) it is the generator's first input.
    The generator's cell state starts at zero.
    """

    def __init__(self, sizes: NetworkConfig) -> None:
        super().__init__()
        self.encoder = _Encoder(sizes)
        self.decoder = _Generator(sizes)
        if sizes.labels:
            self.decoding_head = _classes(sizes.width, sizes)

    def forward(self, frames: Tensor, forced: Tensor | None) -> tuple[Tensor, Tensor]:
        """Restore embedded frames (B, L, W); return them and the pooled state (B, W).

        Where `forced` (B, L), the generator is fed the frame itself; None: it is fed its own outputs throughout.
        """
        state, pooled = self.encoder(frames)
        return self.decoder(frames, state, pooled, forced), pooled

    def pool(self, frames: Tensor) -> Tensor:
        """Return the pooled state of the encoder (B, W)."""
        return self.encoder(frames)[1]


class _Encoder(nn.Module):
    """Bidirectional LSTMs, directions averaged; residual and LayerNorm between them; states handed on (8.16)."""

    def __init__(self, sizes: NetworkConfig) -> None:
        super().__init__()
        self.lstms, self.layer_norms = _lstms(sizes, bidirectional=True)
        width, dropout = sizes.width, sizes.dropout
        self.pooler_layer = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(width, width), nn.Tanh(), nn.Dropout(dropout)
        )

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Return the last hidden state, and the same pooled, each (B, W)."""
        last = self._read(hidden)[1]
        return last, self.pooler_layer(last)

    def layers(self, hidden: Tensor) -> list[Tensor]:
        """Return what goes into the layers and what comes out of the last one, each (B, L, W)."""
        return self._read(hidden)[0]

    def _read(self, hidden: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return the states of all layers, and the last state of the last layer, the mean of its directions."""
        B, L, W = hidden.shape
        state: tuple[Tensor, Tensor] | None = None
        states = [hidden]
        for number, lstm in enumerate(self.lstms):
            output, state = lstm(hidden, state)
            hidden = output.view(B, L, 2, W).mean(dim=2)
            if number < len(self.layer_norms):
                hidden = self.layer_norms[number](states[-1] + hidden)
            states.append(hidden)
        assert state is not None
        return states, state[0].mean(dim=0)


class _Generator(nn.Module):
    """LSTMs that go from frame to frame; the state goes from layer to layer, then to the next frame (8.16)."""

    def __init__(self, sizes: NetworkConfig) -> None:
        super().__init__()
        self.lstms, self.layer_norms = _lstms(sizes, bidirectional=False)
        self.linear_output_layer = nn.Sequential(nn.Dropout(sizes.dropout), nn.Linear(sizes.width, sizes.width))

    def forward(self, frames: Tensor, start: Tensor, first: Tensor, forced: Tensor | None) -> Tensor:
        """Return restored frames (B, L, W), from the hidden state `start` and the input `first`, each (B, W)."""
        hidden_state = start[None].contiguous()
        state = (hidden_state, torch.zeros_like(hidden_state))
        restored = first
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


def _all_states(transformer: GPT2Model | BertModel, hidden: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
    return transformer(
        inputs_embeds=hidden, attention_mask=attention_mask.long(), output_hidden_states=True
    ).hidden_states


def _pooler(sizes: NetworkConfig) -> nn.Sequential:
    return nn.Sequential(nn.Linear(sizes.width, sizes.width), nn.Tanh(), nn.Dropout(sizes.dropout))


def _classes(n_inputs: int, sizes: NetworkConfig) -> nn.Sequential:
    return nn.Sequential(nn.Linear(n_inputs, len(sizes.labels)))
