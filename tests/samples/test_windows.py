import dataclasses

import numpy as np
import pytest
import torch

from boldly.config import PretrainOptions
from boldly.models.build import window_options
from boldly.records import InputError
from boldly.samples.cuts import uniform
from boldly.samples.windows import Trials, WindowOptions, Windows, group_of_parcels
from tests.training import synthetic

SINGLE = WindowOptions(shortest=5, longest=12, batch_size=8)
PAIRED = dataclasses.replace(SINGLE, pairs=True, masking="frames", mask_fraction=0.3, mask_span=3)


@pytest.fixture(scope="module")
def corpus():
    return synthetic.corpus([60, 40, 30, 50], t_r=[2.0, 2.0, 0.72, 0.72], datasets=["a", "a", "b", "b"])


def frames_of(corpus, run):
    return torch.from_numpy(corpus.signals(run)).float()


def places(corpus, frames):
    """Return (run, first frame) of all places where a window could have been cut."""
    return [
        (run, onset)
        for run in range(len(corpus))
        for onset in range(corpus.lengths[run] - len(frames) + 1)
        if torch.equal(frames_of(corpus, run)[onset : onset + len(frames)], frames)
    ]


def test_uniform_is_uniform_and_streams_are_independent():
    numbers = np.arange(20_000)
    one, other = uniform(3, numbers, 0), uniform(3, numbers, 1)
    # Standard error of the mean of 20,000 uniform numbers: 0.002.
    assert abs(one.mean() - 0.5) < 0.01
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.03
    assert abs(np.corrcoef(one[1:], one[:-1])[0, 1]) < 0.03
    assert one.min() >= 0
    assert one.max() < 1


@pytest.mark.parametrize("options", [SINGLE, PAIRED], ids=["single", "paired"])
def test_a_window_is_a_function_of_seed_and_number(corpus, options):
    windows = Windows(corpus, options, seed=5, count=100)
    batch = windows.__getitems__(range(16, 24))
    for row, number in enumerate(range(16, 24)):
        alone = Windows(corpus, options, seed=5, count=30)[number]
        length = alone["inputs"].shape[1]
        assert torch.equal(batch["inputs"][row, :length], alone["inputs"][0])
        assert torch.equal(batch["seconds"][row, :length], alone["seconds"][0])
        if "masked" in alone:
            assert torch.equal(batch["masked"][row, :length], alone["masked"][0])
    other = Windows(corpus, options, seed=6, count=100).__getitems__(range(16, 24))
    assert other["inputs"].shape != batch["inputs"].shape or not torch.equal(other["inputs"], batch["inputs"])


def test_windows_lie_in_their_runs_and_lengths_cover_the_range(corpus):
    windows = Windows(corpus, SINGLE, seed=1, count=400)
    lengths = set()
    for start in range(0, 400, 8):
        batch = windows.__getitems__(range(start, start + 8))
        assert "valid" not in batch  # all runs are longer than the longest window: no padding at all
        lengths.add(batch["inputs"].shape[1])
        runs = windows.runs(range(start, start + 8))
        assert runs[0] in [run for run, _ in places(corpus, batch["inputs"][0])]
        assert torch.equal(batch["t_r"], torch.tensor(corpus.t_r[runs]).float())
        expected = torch.arange(batch["inputs"].shape[1]) * batch["t_r"][:, None]
        assert torch.allclose(batch["seconds"], expected)
    assert min(lengths) == 5
    assert max(lengths) == 12  # the longest length occurs too (defect 8.14)


@pytest.mark.parametrize("options", [SINGLE, PAIRED], ids=["single", "paired"])
def test_a_batch_stays_what_it_is_when_the_next_one_is_cut(corpus, options):
    windows = Windows(corpus, options, seed=5, count=100)
    first = windows.__getitems__(range(8))["inputs"]
    kept = first.clone()
    for start in range(8, 80, 8):
        windows.__getitems__(range(start, start + 8))
    assert torch.equal(first, kept)


def test_runs_are_drawn_in_proportion_to_their_frames(corpus):
    drawn = Windows(corpus, SINGLE, seed=1, count=1).runs(range(20_000))
    share = np.bincount(drawn, minlength=4) / len(drawn)
    np.testing.assert_allclose(share, corpus.lengths / corpus.lengths.sum(), atol=0.02)


def test_short_runs_are_padded_and_too_short_ones_left_out():
    corpus = synthetic.corpus([7, 3, 40])
    windows = Windows(corpus, dataclasses.replace(SINGLE, shortest=6), seed=1, count=400)
    assert set(windows.runs(range(400))) == {0, 2}
    batch = windows.__getitems__(range(400))
    short = windows.runs(range(400)) == 0
    assert batch["valid"][short].sum(dim=1).max() == 7
    assert not batch["inputs"][~batch["valid"]].any()
    with pytest.raises(InputError, match="no run has the 50 frames"):
        Windows(corpus, dataclasses.replace(SINGLE, shortest=50, longest=60), seed=1, count=1)


def test_b_follows_a_when_the_label_says_so_and_time_goes_on(corpus):
    windows = Windows(corpus, dataclasses.replace(PAIRED, masking="none"), seed=2, count=64)
    batch = windows.__getitems__(range(8))
    split, follows = batch["split"], batch["follows"].bool()
    assert follows.any()
    assert not follows.all()
    for row in range(8):
        (run_a, onset_a), *_ = places(corpus, batch["inputs"][row, :split])
        (run_b, onset_b), *_ = places(corpus, batch["inputs"][row, split:])
        gap = onset_b - onset_a - split
        assert (run_a == run_b and 1 <= gap <= 4) == bool(follows[row])
        if not follows[row]:
            assert run_a != run_b
            assert corpus.datasets[run_a] == corpus.datasets[run_b]
        # The clock of B goes on behind that of A (defect 8.12), whether B follows or not.
        step = (batch["seconds"][row, split] - batch["seconds"][row, split - 1]) / corpus.t_r[run_a]
        assert 2 <= round(float(step)) <= 5
        if follows[row]:
            assert round(float(step)) == gap + 1


def test_pairs_share_runs_that_are_too_short_for_both():
    corpus = synthetic.corpus([20, 24])
    options = dataclasses.replace(PAIRED, longest=40, masking="none")
    batch = Windows(corpus, options, seed=2, count=64).__getitems__(range(64))
    valid = batch.get("valid", torch.ones(batch["inputs"].shape[:2], dtype=torch.bool))
    split = batch["split"]
    assert valid[:, :split].sum(dim=1).min() >= 5
    assert valid[:, split:].sum(dim=1).min() >= 5
    assert valid.sum(dim=1).max() <= 24 - 1


def test_a_dataset_of_one_run_gives_pairs_as_well():
    corpus = synthetic.corpus([60])
    batch = Windows(corpus, PAIRED, seed=2, count=64).__getitems__(range(32))
    assert 0 < batch["follows"].mean() < 1


def test_masked_frames_are_spans_of_the_wanted_share(corpus):
    options = dataclasses.replace(
        SINGLE, shortest=20, longest=20, masking="frames", mask_fraction=0.4, mask_span=4
    )
    masked = Windows(corpus, options, seed=3, count=64).__getitems__(range(64))["masked"]
    assert (masked.sum(dim=1) == 8).all()  # 0.4 of 20 frames
    borders = (masked[:, 1:] != masked[:, :-1]).sum(dim=1).float().mean()
    # Eight frames in spans of four have about 2 spans and at most 3 pieces; single frames would have 9 borders.
    assert borders < 6


def test_masked_parcels_are_the_wanted_share_of_the_unmarked(corpus):
    marked = np.zeros_like(corpus.marked)
    marked[:, :6] = True
    options = dataclasses.replace(SINGLE, masking="parcels", mask_fraction=0.3)
    windows = Windows(dataclasses.replace(corpus, marked=marked), options, seed=3, count=64)
    masked = windows.__getitems__(range(64))["masked"]
    assert not masked[:, :6].any()
    assert (masked.sum(dim=1) == 3).all()  # 0.3 of 10 parcels
    assert len(torch.unique(masked, dim=0)) > 30


def test_masked_blocks_are_groups_at_all_times_or_for_a_while(corpus):
    options = dataclasses.replace(
        SINGLE, shortest=20, longest=20, masking="blocks", mask_fraction=0.75, mask_span=5, parcel_groups=4
    )
    batch = Windows(corpus, options, seed=3, count=64).__getitems__(range(64))
    masked = batch["masked"]
    assert masked.shape == (64, 20, 4)
    # Three quarters of 20 frames x 4 groups: all windows have as many visible tokens.
    assert (masked.flatten(1).sum(dim=1) == 60).all()
    assert batch["n_visible"] == 20
    whole = masked.all(dim=1).sum(dim=1)
    assert (whole[::2] == 3).all()
    # A group of 20 frames has 4 or 5 blocks: few are hidden as a whole by chance.
    assert whole[1::2].float().mean() < 2
    borders = (masked[1::2, 1:] != masked[1::2, :-1]).sum(dim=(1, 2)).float().mean()
    # At most 4 borders in each of 4 groups; single frames would have 0.375 x 19 in each.
    assert borders < 12


def test_more_groups_than_parcels_are_refused(corpus):
    options = dataclasses.replace(SINGLE, masking="blocks", parcel_groups=17)
    with pytest.raises(InputError, match="16 parcels cannot be parted into 17 groups"):
        Windows(corpus, options, seed=3, count=8)


def test_every_so_many_parcels_are_of_one_group():
    assert group_of_parcels(7, 3).tolist() == [0, 1, 2, 0, 1, 2, 0]


@pytest.mark.parametrize("fraction", [0.01, 0.99])
def test_something_is_masked_but_never_everything(corpus, fraction):
    for masking in ("frames", "parcels", "blocks"):
        options = dataclasses.replace(SINGLE, masking=masking, mask_fraction=fraction)
        masked = Windows(corpus, options, seed=3, count=8).__getitems__(range(8))["masked"].flatten(1)
        assert masked.any(dim=1).all()
        assert not masked.all(dim=1).any()


def test_each_framework_says_what_it_wants_to_see():
    def wanted(framework, **options):
        return window_options(PretrainOptions(framework=framework, mask_fraction=0.3, **options), 4)

    assert not wanted("csm").pairs
    assert not wanted("network_bert").pairs
    assert wanted("network_bert", pairs=True).pairs
    assert wanted("masked_autoencoding").masking == "blocks"
    assert wanted("sequence_bert").masking == "frames"
    assert wanted("network_bert").masking == "parcels"
    assert wanted("network_bert").mask_fraction == 0.3
    assert wanted("autoencoding").mask_fraction == 0.5


@pytest.fixture
def trials():
    return synthetic.corpus([10, 12, 8, 9, 11], labels=[0, 1, 0, 1, 1], n_labels=2)


def test_trials_come_in_their_own_order_uncut(trials):
    batch = Trials(trials, longest=50).__getitems__(range(5))
    assert batch["labels"].tolist() == [0, 1, 0, 1, 1]
    assert batch["valid"].sum(dim=1).tolist() == [10, 12, 8, 9, 11]
    assert torch.equal(batch["inputs"][2, :8], frames_of(trials, 2))
    cut = Trials(trials, longest=8).__getitems__(range(5))
    assert "valid" not in cut
    assert torch.equal(cut["inputs"][1], frames_of(trials, 1)[:8])


def test_each_epoch_has_each_trial_once_in_an_order_of_its_own(trials):
    drawn = Trials(trials, longest=50, seed=4, count=1000).runs(range(500)).reshape(100, 5)
    assert (np.sort(drawn, axis=1) == np.arange(5)).all()
    assert len(np.unique(drawn, axis=0)) > 50  # of 120 orders
    again = Trials(trials, longest=50, seed=4, count=10).runs([7, 8, 3])
    assert again.tolist() == drawn.ravel()[[7, 8, 3]].tolist()


def test_crops_keep_the_wanted_share(trials):
    batch = Trials(trials, longest=50, seed=4, count=200, shortest_crop=0.5).__getitems__(range(200))
    runs = Trials(trials, longest=50, seed=4).runs(range(200))
    kept = batch["valid"].sum(dim=1).numpy() / trials.lengths[runs]
    assert kept.min() >= 0.44  # 0.5 of 9 frames, rounded to 4
    assert kept.max() == 1
    length = int(batch["valid"][0].sum())
    assert runs[0] in [run for run, _ in places(trials, batch["inputs"][0, :length])]


def with_gaps(corpus, kept):
    """Return a corpus of whole runs without the frames that are not kept, in which parcel 0 tells the number."""
    numbers = np.concatenate([np.arange(length) for length in corpus.lengths])
    corpus.frames[:, 0] = numbers
    lengths = np.array([len(frames) for frames in kept])
    rows = np.concatenate([corpus.starts[run] + np.asarray(frames) for run, frames in enumerate(kept)])
    return dataclasses.replace(
        corpus,
        frames=corpus.frames[rows],
        starts=np.cumsum(lengths) - lengths,
        lengths=lengths,
        numbers=numbers[rows].astype(np.int32),
    )


@pytest.mark.parametrize("options", [SINGLE, PAIRED], ids=["single", "paired"])
def test_no_window_bridges_a_gap(options):
    kept = [np.setdiff1d(np.arange(90), [30, 31, 60]), np.arange(5, 70)]
    corpus = with_gaps(synthetic.corpus([90, 70]), kept)
    windows = Windows(corpus, dataclasses.replace(options, masking="none"), seed=1, count=512)
    batch = windows.__getitems__(range(512))
    split = batch.get("split", batch["inputs"].shape[1])
    real = batch["valid"].numpy() if "valid" in batch else np.ones(batch["inputs"].shape[:2], bool)
    for part in (slice(0, split), slice(split, None)):
        step = np.diff(batch["inputs"][:, part, 0].numpy(), axis=1)
        assert (step[real[:, part][:, 1:]] == 1).all()
    # In proportion to the frames of the stretches: 30, 28 and 29 of the first run, 65 of the other.
    first = batch["inputs"][:, 0, 0].numpy()[windows.runs(range(512)) == 0]
    share = np.histogram(first, [0, 30, 60, 90])[0] / 512
    np.testing.assert_allclose(share, np.array([30, 28, 29]) / 152, atol=0.07)


def test_another_part_of_the_same_run_is_no_other_run():
    kept = [np.setdiff1d(np.arange(90), [30, 31, 60]), np.arange(70)]
    corpus = with_gaps(synthetic.corpus([90, 70]), kept)
    corpus.frames[:, 1] = np.repeat([0, 1], corpus.lengths)  # parcel 1 tells the run
    batch = Windows(corpus, dataclasses.replace(PAIRED, masking="none"), seed=2, count=256).__getitems__(
        range(256)
    )
    same_run = batch["inputs"][:, 0, 1] == batch["inputs"][:, batch["split"], 1]
    assert torch.equal(same_run, batch["follows"].bool())


def test_a_run_without_a_stretch_that_is_long_enough_is_left_out():
    corpus = with_gaps(synthetic.corpus([40, 40]), [np.setdiff1d(np.arange(40), range(9, 40, 10)), np.arange(40)])
    windows = Windows(corpus, dataclasses.replace(SINGLE, shortest=10), seed=1, count=64)
    assert set(windows.runs(range(64))) == {1}
    with pytest.raises(InputError, match="the longest of 9 frames without a gap"):
        Windows(corpus.select([0]), dataclasses.replace(SINGLE, shortest=10), seed=1, count=1)


def test_the_clock_of_a_trial_leaps_over_its_gaps():
    corpus = with_gaps(synthetic.corpus([80, 10]), [[0, 19, 60, 79], np.arange(10)])
    batch = Trials(corpus, longest=8).__getitems__([0, 1])
    # At 2 s. Behind the end of the first trial nothing is real, but time still goes on.
    assert batch["seconds"].tolist() == [[0, 38, 120, 158, 160, 162, 164, 166], list(range(0, 16, 2))]
    assert batch["valid"].sum(dim=1).tolist() == [4, 8]
