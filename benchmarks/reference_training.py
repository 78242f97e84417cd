"""The reference's way to train, said again in plain code, for `train.py` and `train_gpu.py` to compare with.

Written from a description of Thomas, Ré & Poldrack 2022, not from their code. What makes it slow is kept: whole
runs are unpickled for one window, the inner loader has batches of one, windows are padded to 50 frames, masks are
drawn sample by sample, a window has one target (CSM), and the LSTM decoder goes frame by frame. What today's
libraries speed up without being asked is kept as well: fused attention and a fused AdamW.
"""

from __future__ import annotations

import io
import pickle
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset
from transformers import BertConfig, BertModel, GPT2Config, GPT2Model

LONGEST, SHORTEST = 50, 10
_TIMES, _STEP_S = 1501, 0.2


def write_run(path: Path, frames: np.ndarray, t_r: float) -> None:
    """Write a tar of one run, its arrays pickled; read back by this script alone."""
    with tarfile.open(path, "w") as tar:
        for name, value in (("bold", frames.astype(np.float32)), ("t_r", np.float32(t_r))):
            content = pickle.dumps(value)
            member = tarfile.TarInfo(f"{path.stem}.{name}.pyd")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


class Runs(IterableDataset[dict[str, Tensor]]):
    """Windows, each from a run that is unpickled for it; of pairs both windows share the 50 frames."""

    def __init__(self, paths: list[Path], *, pairs: bool, seed: int) -> None:
        self.paths, self.pairs = paths, pairs
        self.rng = np.random.default_rng(seed)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        while True:
            frames, t_r = self._read()
            if not self.pairs:
                yield self._window(frames, t_r)
                continue
            first, second = self._halves(frames, t_r)
            follows = self.rng.random() < 0.5
            if not follows:
                second = self._halves(*self._read())[1]
            sample = {f"{name}_a": value for name, value in first.items()}
            yield {
                **sample,
                **{f"{name}_b": value for name, value in second.items()},
                "follows": torch.tensor(follows),
            }

    def _read(self) -> tuple[np.ndarray, float]:
        with tarfile.open(self.paths[self.rng.integers(len(self.paths))]) as tar:
            frames, t_r = (pickle.load(tar.extractfile(member)) for member in tar)  # type: ignore[arg-type]
        return frames, float(t_r)

    def _window(self, frames: np.ndarray, t_r: float) -> dict[str, Tensor]:
        length = int(self.rng.integers(SHORTEST, LONGEST))
        onset = length * int(self.rng.integers((len(frames) - length) // length + 1))
        return padded(frames[onset : onset + length], t_r, LONGEST)

    def _halves(self, frames: np.ndarray, t_r: float) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        first, second = self.rng.integers(SHORTEST // 2, LONGEST // 2 + 1, 2)
        onset = int(self.rng.integers(len(frames) - first - second - 4))
        there = onset + first + int(self.rng.integers(1, 5))
        a, b = frames[onset : onset + first], frames[there : there + second]
        return padded(a, t_r, LONGEST // 2), padded(b, t_r, LONGEST // 2)


def padded(frames: np.ndarray, t_r: float, longest: int) -> dict[str, Tensor]:
    """Pad a window with zeros on the right."""
    inputs, seconds = np.zeros((longest, frames.shape[1]), np.float32), np.zeros(longest, np.float32)
    inputs[: len(frames)] = frames
    seconds[: len(frames)] = np.arange(len(frames)) * t_r
    return {
        "inputs": torch.from_numpy(inputs),
        "seconds": torch.from_numpy(seconds),
        "length": torch.tensor(len(frames)),
    }


def batches(paths: list[Path], size: int, *, pairs: bool, seed: int = 0) -> Iterator[dict[str, Tensor]]:
    """Collect batches of one."""
    loader = iter(DataLoader(Runs(paths, pairs=pairs, seed=seed), batch_size=1))
    while True:
        rows = [next(loader) for _ in range(size)]
        yield {name: torch.cat([row[name] for row in rows]) for name in rows[0]}


class ReferenceNetwork(nn.Module):
    """Embedder, sequence network, unembedder, with the preparation of batches that belongs to them."""

    def __init__(
        self, framework: str, n_parcels: int, width: int, layers: int, heads: int, dropout: float
    ) -> None:
        super().__init__()
        self.framework = framework
        self.embed = nn.Sequential(nn.Linear(n_parcels, width), nn.LayerNorm(width), nn.Dropout(dropout))
        self.time = nn.Embedding(_TIMES, width)
        self.unembed = nn.Linear(width, n_parcels)
        self.mask = nn.Parameter(torch.randn(n_parcels) if framework != "network_bert" else torch.randn(1))
        sizes: dict[str, Any] = {"vocab_size": 1, "bos_token_id": None, "eos_token_id": None}
        if framework == "csm":
            self.decoder: nn.Module = GPT2Model(
                GPT2Config(n_positions=512, n_embd=width, n_layer=layers, n_head=heads, use_cache=False, **sizes)
            )
        elif framework == "autoencoding":
            self.decoder = _Lstms(width, layers, dropout)
        else:
            self.sep, self.cls = nn.Parameter(torch.randn(n_parcels)), nn.Parameter(torch.randn(n_parcels))
            self.follows = nn.Linear(width, 1)
            bert: dict[str, Any] = {
                "hidden_size": width,
                "num_hidden_layers": layers,
                "num_attention_heads": heads,
            }
            self.decoder = BertModel(
                BertConfig(intermediate_size=4 * width, hidden_act="gelu_new", **bert, **sizes),
                add_pooling_layer=False,
            )

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the loss of a batch."""
        if self.framework in ("csm", "autoencoding"):
            inputs, seconds, lengths = batch["inputs"], batch["seconds"], batch["length"]
            if self.framework == "autoencoding":
                embedded = self._embed(inputs, seconds)
                real = torch.arange(LONGEST, device=inputs.device) < lengths[:, None]
                return (self.unembed(self.decoder(embedded)) - inputs).abs()[real].mean()
            places = torch.stack([torch.randint(1, int(length), ()) for length in lengths])
            return self.masked_error(inputs, seconds, places).mean()
        return self._pair_loss(batch)

    def masked_error(self, inputs: Tensor, seconds: Tensor, places: Tensor) -> Tensor:
        """Return the L1 (B,) at the frame that MASK stands in for; what follows it is cut."""
        tokens, attention = inputs.clone(), torch.zeros(inputs.shape[:2], device=inputs.device)
        for row, place in enumerate(places.tolist()):
            tokens[row, place] = self.mask
            tokens[row, place + 1 :] = 0
            attention[row, : place + 1] = 1
        hidden = self.decoder(inputs_embeds=self._embed(tokens, seconds), attention_mask=attention)
        said = self.unembed(hidden.last_hidden_state)
        rows = torch.arange(len(inputs), device=inputs.device)
        places = places.to(inputs.device)
        return (said[rows, places] - inputs[rows, places]).abs().mean(dim=1)

    def _pair_loss(self, batch: dict[str, Tensor]) -> Tensor:
        B, _, P = batch["inputs_a"].shape
        tokens = batch["inputs_a"].new_zeros(B, LONGEST + 3, P)
        seconds, types = (
            tokens.new_full((B, LONGEST + 3), -1.0),
            tokens.new_zeros((B, LONGEST + 3), dtype=torch.long),
        )
        attention, hidden = torch.zeros_like(seconds), torch.zeros_like(tokens, dtype=torch.bool)
        lengths = zip(batch["length_a"].tolist(), batch["length_b"].tolist(), strict=True)
        for row, (a, b) in enumerate(lengths):
            end = a + b + 1
            tokens[row, :a], tokens[row, a + 1 : end] = batch["inputs_a"][row, :a], batch["inputs_b"][row, :b]
            seconds[row, :a], seconds[row, a + 1 : end] = batch["seconds_a"][row, :a], batch["seconds_b"][row, :b]
            tokens[row, a], tokens[row, end], tokens[row, end + 1] = self.sep, self.sep, self.cls
            types[row, a + 1 : end + 1], attention[row, : end + 2] = 1, 1
            frames = np.delete(np.arange(end), a)
            if self.framework == "network_bert":
                chosen = torch.from_numpy(np.random.permutation(P)[: P // 10])
                hidden[row][torch.from_numpy(frames)[:, None], chosen] = True
            else:
                hidden[row, np.random.permutation(frames)[: max(1, round(0.2 * len(frames)))]] = True
        said = self.decoder(
            inputs_embeds=self._embed(torch.where(hidden, self.mask, tokens), seconds),
            attention_mask=attention,
            token_type_ids=types,
        ).last_hidden_state
        error = (self.unembed(said) - tokens).abs()[hidden].mean()
        logit = self.follows(said[:, 0]).squeeze(1)
        return error + nn.functional.binary_cross_entropy_with_logits(logit, batch["follows"].float())

    def _embed(self, tokens: Tensor, seconds: Tensor) -> Tensor:
        row = torch.where(seconds < 0, _TIMES - 1, (seconds / _STEP_S).round().clamp(0, _TIMES - 2)).long()
        return self.embed(tokens) + self.time(row)


class _Lstms(nn.Module):
    """Bidirectional encoder, decoder frame by frame with teacher forcing of 0.5."""

    def __init__(self, width: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.encoder = nn.ModuleList(
            nn.LSTM(width, width, batch_first=True, bidirectional=True) for _ in range(layers)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(layers))
        self.decoder = nn.ModuleList(nn.LSTM(width, width, batch_first=True) for _ in range(layers))
        self.output = nn.Sequential(nn.Dropout(dropout), nn.Linear(width, width))

    def forward(self, frames: Tensor) -> Tensor:
        hidden = frames
        for lstm, norm in zip(self.encoder, self.norms, strict=True):
            said, state = lstm(hidden)
            hidden = norm(hidden + said.unflatten(2, (2, -1)).mean(dim=2))
        state = tuple(part.mean(dim=0, keepdim=True) for part in state)
        before, restored = state[0][0], []
        for place in range(frames.shape[1]):
            forced = torch.rand(len(frames), 1, device=frames.device) < 0.5
            step = torch.where(forced, frames[:, place], before)[:, None]
            for lstm in self.decoder:
                step, state = lstm(step, state)
            before = self.output(step[:, 0])
            restored.append(before)
        return torch.stack(restored, dim=1)
