"""Windows of variant lfb: cut and masked as in the published system."""

import pytest
import torch

from boldly.config import PretrainOptions
from boldly.models.build import window_options
from boldly.samples.windows import Windows
from tests.training import synthetic

N_FRAMES = 140
COUNT = 400


def cut(framework):
    """Cut windows of 10 to 49 frames out of two runs; the first parcel tells the frame's number."""
    corpus = synthetic.corpus([N_FRAMES, N_FRAMES], t_r=2.0)
    corpus.frames[:, 0] = [*range(N_FRAMES), *range(N_FRAMES)]
    options = PretrainOptions(framework=framework, variant="lfb")
    return Windows(corpus, window_options(options, 64), seed=5, count=COUNT).__getitems__(range(COUNT))


def test_windows_have_lengths_of_their_own_and_start_at_multiples_of_them():
    batch = cut("csm")
    lengths = batch["valid"].sum(dim=1)
    assert set(lengths.tolist()) == set(range(10, 50))  # never 50: defect 8.14
    assert not (batch["inputs"][:, 0, 0] % lengths).any()
    assert batch["inputs"][:, 0, 0].unique().numel() > 50


def test_one_frame_is_masked_that_is_never_the_first():
    batch = cut("csm")
    assert (batch["masked"].sum(dim=1) == 1).all()
    position, lengths = batch["masked"].int().argmax(dim=1), batch["valid"].sum(dim=1)
    assert (position < lengths).all()
    assert position.min() == 1
    assert (position == lengths - 1).any()
    # Uniform over the positions: half of them lie in the second half, to four standard errors.
    assert abs(((position - 1) / (lengths - 1)).mean() - 0.48) < 4 * 0.29 / COUNT**0.5


@pytest.mark.parametrize("framework", ["sequence_bert", "network_bert"])
def test_pairs_restart_their_clock_and_leave_one_to_four_frames_out(framework):
    batch = cut(framework)
    split, follows = batch["split"], batch["follows"] > 0.5
    assert not batch["seconds"][:, [0, split]].any()
    last_a = batch["inputs"][:, :split, 0].gather(1, batch["valid"][:, :split].sum(dim=1, keepdim=True) - 1)[:, 0]
    gap = batch["inputs"][:, split, 0] - last_a - 1
    assert set(gap[follows].tolist()) == {1, 2, 3, 4}
    assert 0.4 < follows.float().mean() < 0.6


def test_a_fifth_of_the_frames_is_masked():
    batch = cut("sequence_bert")
    assert not (batch["masked"] & ~batch["valid"]).any()
    share = batch["masked"].sum(dim=1) / batch["valid"].sum(dim=1)
    # Of 20 frames or more; rounding to whole frames moves the share by a fortieth at most.
    assert (share - 0.2).abs().max() <= 0.5 / 20


def test_teacher_forcing_is_one_toss_of_a_coin_for_a_batch():
    options = window_options(PretrainOptions(framework="autoencoding", variant="lfb"), 8)
    windows = Windows(synthetic.corpus([N_FRAMES] * 3), options, seed=1, count=8000)
    tosses = []
    for first in range(0, 8000, 8):
        masked = windows.__getitems__(range(first, first + 8))["masked"]
        assert masked.all() or not masked.any()
        tosses.append(bool(masked.all()))
    # 1,000 tosses: four standard errors.
    assert abs(sum(tosses) / 1000 - 0.5) < 4 * 0.5 / 1000**0.5


def test_numbers_of_windows_decide_alone():
    options = window_options(PretrainOptions(framework="sequence_bert", variant="lfb"), 8)
    windows = Windows(synthetic.corpus([N_FRAMES] * 3), options, seed=1, count=50)
    one, many = windows.__getitems__([17]), windows.__getitems__(range(15, 20))
    # Alone it needs no padding; between others it has some, behind A and behind B.
    assert "valid" not in one
    for name in ("inputs", "seconds", "masked"):
        assert torch.equal(one[name][0], many[name][2][many["valid"][2]])
