"""The vectorised layouts against the same rules written with loops over windows and tokens."""

from typing import Any

import pytest
import torch
from torch import Tensor

from boldly.models.lfb import layout
from boldly.models.lfb.embedder import time_rows

P = 5
GENERATOR = torch.Generator().manual_seed(1)


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=GENERATOR)


def windows(lengths: list[int], places: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return frames, times (0.8 s steps) and validity of windows with zeros behind them."""
    valid = torch.arange(places) < torch.tensor(lengths)[:, None]
    inputs = noise(len(lengths), places, P) * valid[..., None]
    return inputs, 0.8 * torch.arange(places) * valid, valid


def vectors(mask_shape: tuple[int, ...]) -> dict[str, Tensor]:
    return {"msk": noise(*mask_shape), "sep": noise(1, P), "cls": noise(1, 1, P)}


def plain_pair(
    frames: Tensor, seconds: Tensor, n_a: int, split: int, n_b: int, hidden: Any, v: Any
) -> dict[str, list]:
    """Lay out one pair, token by token; `hidden(source)` tells which parcels of a frame are masked, (P,)."""
    tokens: list[Tensor] = []
    times: list[float] = []
    masks: list[Tensor] = []
    targets: list[Tensor] = []
    segments: list[int] = []

    def frame(source: int, segment: int) -> None:
        where = hidden(source)
        mask_here = v["msk"][0, len(tokens)].expand(P) if v["msk"].shape[1] > 1 else v["msk"][0, 0]
        tokens.append(torch.tensor([mask_here[p] if where[p] else frames[source, p] for p in range(P)]))
        times.append(float(seconds[source]))
        masks.append(where)
        targets.append(frames[source])
        segments.append(segment)

    def special(vector: Tensor, segment: int) -> None:
        tokens.append(vector)
        times.append(-1.0)
        masks.append(torch.zeros(P, dtype=torch.bool))
        targets.append(torch.zeros(P))
        segments.append(segment)

    for t in range(n_a):
        frame(t, 0)
    special(v["sep"][0], 0)
    for t in range(n_b):
        frame(split + t, 1)
    special(v["sep"][0], 1)
    # CLS goes to the end; mask and segments are lengthened in front (8.13).
    tokens.append(v["cls"][0, 0])
    times.append(-1.0)
    masks.insert(0, torch.zeros(P, dtype=torch.bool))
    targets.insert(0, torch.zeros(P))
    segments.insert(0, 0)
    return {"inputs_embeds": tokens, "t_rs": times, "modelling_mask": masks, "targets": targets, "types": segments}


@pytest.mark.parametrize("by_parcel", [False, True], ids=["frames", "parcels"])
def test_pairs_are_laid_out_as_a_loop_does(by_parcel):
    lengths_a, lengths_b = [3, 7, 5, 1, 7], [8, 2, 8, 1, 4]
    split = max(lengths_a)
    a, b = windows(lengths_a, split), windows(lengths_b, max(lengths_b))
    inputs, seconds, valid = (torch.cat([x, y], dim=1) for x, y in zip(a, b, strict=True))
    v = vectors((1, 512, 1) if by_parcel else (1, 1, P))
    masked = torch.rand(len(inputs), P if by_parcel else inputs.shape[1], generator=GENERATOR) < 0.4
    found: Any = layout.paired(inputs, seconds, valid, split, masked, **v)
    T = inputs.shape[1] + 3
    assert found.inputs_embeds.shape == (5, T, P)
    compared = found.modelling_mask.expand(5, T, P)
    for row, (n_a, n_b) in enumerate(zip(lengths_a, lengths_b, strict=True)):
        draw = masked[row]
        expected = plain_pair(
            inputs[row],
            seconds[row],
            n_a,
            split,
            n_b,
            (lambda source, draw=draw: draw) if by_parcel else (lambda source, draw=draw: draw[source].expand(P)),
            v,
        )
        n = n_a + n_b + 3
        assert torch.equal(found.attention_mask[row], torch.arange(T) < n)
        assert torch.equal(found.inputs_embeds[row, :n], torch.stack(expected["inputs_embeds"]))
        assert torch.equal(found.t_rs[row, :n], torch.tensor(expected["t_rs"]))
        assert torch.equal(compared[row, :n], torch.stack(expected["modelling_mask"]))
        assert torch.equal(found.targets[row, :n], torch.stack(expected["targets"]))
        assert found.token_type_ids[row, :n].tolist() == expected["types"]
        assert not found.inputs_embeds[row, n:].any()
        assert not compared[row, n:].any()
        assert not found.t_rs[row, n:].any()


def test_every_masked_frame_is_compared_one_token_later():
    inputs, seconds, valid = windows([4, 4], 4)
    inputs, seconds, valid = (torch.cat([x, x], dim=1) for x in (inputs, seconds, valid))
    masked = torch.ones(2, 8, dtype=torch.bool)
    found: Any = layout.paired(inputs, seconds, valid, 4, masked, **vectors((1, 1, P)))
    # Frames lie at 0-3 and 5-8; SEP (4, 9) and CLS (10) have no target of their own.
    assert torch.nonzero(found.modelling_mask[0, :, 0]).flatten().tolist() == [1, 2, 3, 4, 6, 7, 8, 9]


def test_causal_windows_are_cut_behind_the_masked_frame_as_a_loop_does():
    inputs, seconds, _ = windows([6, 9, 2], 9)
    positions = [3, 8, 1]
    msk = noise(1, 1, P)
    masked = torch.arange(9) == torch.tensor(positions)[:, None]
    found: Any = layout.causal(inputs, seconds, masked, msk)
    for row, position in enumerate(positions):
        for t in range(9):
            expected = inputs[row, t] if t < position else msk[0, 0] if t == position else torch.zeros(P)
            assert torch.equal(found.inputs_embeds[row, t], expected)
            assert found.attention_mask[row, t] == (t <= position)
            assert found.modelling_mask[row, t] == (t == position)
    assert torch.equal(found.targets, inputs)
    assert torch.equal(found.t_rs, seconds)


def test_cls_stands_behind_the_last_real_frame():
    lengths = [4, 7, 1]
    inputs, seconds, valid = windows(lengths, 7)
    cls = noise(1, 1, P)
    found = layout.with_cls(inputs, seconds, valid, cls)
    for row, n in enumerate(lengths):
        assert torch.equal(found.inputs_embeds[row, :n], inputs[row, :n])
        assert torch.equal(found.inputs_embeds[row, n], cls[0, 0])
        assert found.t_rs[row, n] == -1
        assert not found.inputs_embeds[row, n + 1 :].any()
        assert torch.equal(found.attention_mask[row], torch.arange(8) <= n)


def test_time_goes_in_steps_of_a_fifth_of_a_second():
    times = torch.tensor([0.0, 0.72, 2.16, 1.5, 4.5, 299.8, -1.0, 300.0, 1000.0])
    # 1.5 s and 4.5 s lie between two steps and go to the even one; what is no frame has the last of 1501 rows.
    assert time_rows(times).tolist() == [0, 4, 11, 8, 22, 1499, 1500, 1499, 1499]
