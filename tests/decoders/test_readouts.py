"""Hidden states of trials to features."""

from __future__ import annotations

import dataclasses
import itertools
from typing import get_args

import numpy as np
import pytest
from nilearn.connectome import ConnectivityMeasure
from sklearn.covariance import EmpiricalCovariance

from boldly.config import ReadOut
from boldly.decoders.encoders import States
from boldly.decoders.readouts import Scaling, read_out
from boldly.models.basis import Basis, fit_basis

WORDS: tuple[ReadOut, ...] = get_args(ReadOut)
# Features of a layer with 40 components: means; eight parts; 8 x 9 / 2 covariances and four times 8 x 8 with lags;
# 32 x 33 / 2 covariances; 40 x 39 / 2 pairs.
SIZES = {
    "mean": 40,
    "slices": 320,
    "leading": 64,
    "covariance": 36 + 4 * 64,
    "power": 528,
    "tangent": 528,
    "correlation": 780,
}


def states_of(trials: list[np.ndarray], t_r: float | list[float] = 2.0) -> States:
    """Return states of one layer (or several, of the trials' own), from trials (L, W) or (L, layers, W)."""
    blocks = [trial if trial.ndim == 3 else trial[:, None] for trial in trials]
    starts = np.concatenate([[0], np.cumsum([len(trial) for trial in trials])]).astype(np.int64)
    return States(
        np.concatenate(blocks).astype(np.float32), starts, np.broadcast_to(t_r, len(trials)).astype(float)
    )


def noise(lengths: list[int], width: int = 40, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((length, width)) * np.geomspace(3, 0.3, width) for length in lengths]


def plain(width: int) -> Basis:
    """Return the components that leave states as they are."""
    one = np.ones((1, width), np.float32)
    return Basis(np.zeros((1, width), np.float32), np.eye(width, dtype=np.float32)[None], one)


@pytest.mark.parametrize("word", WORDS)
def test_trials_of_any_length_have_as_many_features(word: ReadOut) -> None:
    states = states_of(noise([1, 2, 3, 9, 50]), [0.72, 3.0, 2.0, 0.8, 10.0])
    (block,) = read_out(states, fit_basis([states.values]), [word], [0])
    assert block.shape == (5, SIZES[word])
    assert block.dtype == np.float32
    assert np.isfinite(block).all()
    # No trial is a multiple of the others' size, not even that of a single frame.
    norm = np.linalg.norm(block - block.mean(axis=0), axis=1)
    assert norm.max() < 10 * np.median(norm)


def test_a_single_frame_is_its_own_mean_and_has_no_covariance() -> None:
    trials = noise([1, 30])
    states = states_of(trials)
    basis = plain(40)
    blocks = dict(zip(WORDS, read_out(states, basis, WORDS, [0]), strict=True))
    np.testing.assert_allclose(blocks["mean"][0], trials[0][0], rtol=1e-6)
    np.testing.assert_allclose(blocks["slices"][0], np.tile(trials[0][0], 8), rtol=1e-6)
    assert (blocks["covariance"][0] == 0).all()
    assert (blocks["power"][0] == 0).all()
    assert (blocks["correlation"][0] == 0).all()
    # That of the components, which have unit variance here.
    np.testing.assert_allclose(blocks["tangent"][0], 0, atol=1e-6)


def test_blocks_come_layer_by_layer() -> None:
    trials = [np.stack([trial, 7 * trial], axis=1) for trial in noise([9, 12], 4)]
    states = states_of(trials)
    basis = Basis(
        *(np.concatenate([part, part]) for part in (plain(4).mean, plain(4).components, plain(4).variance))
    )
    mean, tangent, mean_2, tangent_2 = read_out(states, basis, ["mean", "tangent"], [0, 1])
    np.testing.assert_allclose(mean_2, 7 * mean, rtol=1e-5)
    assert tangent.shape == tangent_2.shape == (2, 10)
    assert len(read_out(states, basis, ["mean"], [1])) == 1


@pytest.mark.parametrize("word", WORDS)
def test_a_trial_has_the_very_same_features_in_any_company(word: ReadOut) -> None:
    trials = noise([9, 1, 30, 5])
    basis = fit_basis([states_of(trials).values])
    (whole,) = read_out(states_of(trials), basis, [word], [0])
    # The others change, their lengths stay: that no digit depends on them keeps test units out of training.
    others = [trial if number == 2 else 1e7 * trial + 5 for number, trial in enumerate(trials)]
    (again,) = read_out(states_of(others), basis, [word], [0])
    np.testing.assert_array_equal(again[2], whole[2])
    (alone,) = read_out(states_of(trials[2:3]), basis, [word], [0])
    np.testing.assert_allclose(alone[0], whole[2], rtol=1e-4, atol=1e-4)


def test_slices_tell_the_order_of_what_happens() -> None:
    ramp = np.arange(16.0)[:, None]
    (block,) = read_out(states_of([ramp, ramp[::-1]]), plain(1), ["slices"], [0])
    np.testing.assert_allclose(block[0], 0.5 + 2 * np.arange(8))
    np.testing.assert_allclose(block[1], block[0][::-1])


def test_leading_are_the_slices_of_eight_components() -> None:
    states = states_of(noise([20, 33]))
    leading, slices = read_out(states, plain(40), ["leading", "slices"], [0])
    np.testing.assert_array_equal(leading.reshape(2, 8, 8), slices.reshape(2, 8, 40)[:, :, :8])


@pytest.mark.parametrize("length", [1, 2, 3, 5, 7, 9, 13])
def test_slices_of_short_trials_overlap(length: int) -> None:
    ramp = np.arange(float(length))[:, None]
    (block,) = read_out(states_of([ramp, ramp]), plain(1), ["slices"], [0])
    # Each part has the frames that the eighth of the trial touches.
    edges = np.arange(9) * length / 8
    frames = [np.arange(np.floor(a), np.ceil(b)) for a, b in itertools.pairwise(edges)]
    np.testing.assert_allclose(block, np.tile([part.mean() for part in frames], (2, 1)), rtol=1e-6)


def lagged(sign: int, seed: int) -> np.ndarray:
    """Return two signals of 60 frames; the second follows the first, or leads it, by two frames."""
    source = np.random.default_rng(seed).standard_normal(64)
    follower = source[2 - 2 * sign : 62 - 2 * sign]
    return np.stack([source[2:62], follower], axis=1)


def test_covariance_finds_a_lag_that_mean_and_tangent_cannot() -> None:
    labels = np.array([1, -1] * 20)
    states = states_of([lagged(sign, seed) for seed, sign in enumerate(labels)], t_r=1.0)
    blocks = dict(zip(WORDS, read_out(states, plain(2), WORDS, [0]), strict=True))

    def best(word: ReadOut) -> float:
        """Return the largest correlation of a feature with the labels."""
        return float(np.abs(np.nan_to_num(np.corrcoef(blocks[word].T, labels)[-1, :-1])).max())

    assert best("covariance") > 0.9
    # About two standard errors of 40 trials, the largest of a few features.
    assert best("mean") < 0.45
    assert best("tangent") < 0.45


def test_power_is_the_covariance_in_the_unit_of_the_states() -> None:
    (trial,) = noise([50], 3)
    (block,) = read_out(states_of([trial]), plain(3), ["power"], [0])
    covariance = np.cov(trial.T, bias=True)[np.triu_indices(3)]
    np.testing.assert_allclose(np.sign(block[0]) * block[0] ** 2, covariance, rtol=1e-4, atol=1e-5)


def test_lags_are_seconds() -> None:
    """Two frames of one second and one of two are the same lag."""
    slow = np.random.default_rng(0).standard_normal((40, 2))
    fast = np.repeat(slow, 2, axis=0)
    features = [
        read_out(states_of([trial], t_r), plain(2), ["covariance"], [0])[0][0]
        for trial, t_r in ((slow, 2.0), (fast, 1.0))
    ]
    # Of two components: three covariances, then four for each of the lags 1, 2, 3 and 4 s.
    at_two, at_four = slice(7, 11), slice(15, 19)
    for place in (slice(0, 3), at_two, at_four):
        np.testing.assert_allclose(features[0][place], features[1][place], atol=0.12)


def test_lags_do_not_bridge_what_scrubbing_took() -> None:
    (whole,) = noise([40], width=8)
    numbers = np.concatenate([np.arange(12), np.arange(15, 40)]).astype(np.int32)
    gapped = dataclasses.replace(states_of([whole[numbers]], t_r=1.0), numbers=numbers)
    (found,) = read_out(gapped, plain(8), ["covariance"], [0])
    frames = whole - whole[numbers].mean(axis=0)
    there = set(numbers.tolist())
    pairs = [(frame, frame + 2) for frame in there if frame + 2 in there]
    expected = np.mean([np.outer(frames[one], frames[other]) for one, other in pairs], axis=0)
    # Behind the covariance without a lag and that of one second.
    lagged = found[0, 36 + 64 : 36 + 128].reshape(8, 8)
    np.testing.assert_allclose(np.sign(lagged) * lagged**2, expected, atol=1e-5)
    complete = dataclasses.replace(states_of([whole], t_r=1.0), numbers=np.arange(40, dtype=np.int32))
    (same,) = read_out(complete, plain(8), ["covariance"], [0])
    np.testing.assert_array_equal(same, read_out(states_of([whole], t_r=1.0), plain(8), ["covariance"], [0])[0])


def test_tangent_does_not_see_a_constant() -> None:
    trials = noise([20, 31])
    basis = plain(40)
    (block,) = read_out(states_of(trials), basis, ["tangent"], [0])
    (shifted,) = read_out(states_of([trial + 5 for trial in trials]), basis, ["tangent"], [0])
    np.testing.assert_allclose(shifted, block, atol=1e-3)


def test_factors_add_up_in_tangent() -> None:
    trials = noise([20, 31])
    once, twice, four = (
        read_out(states_of([factor * trial for trial in trials]), plain(40), ["tangent"], [0])[0]
        for factor in (1, 2, 4)
    )
    np.testing.assert_allclose(four - twice, twice - once, atol=1e-3)
    # A factor of two is one of four for variances, on the diagonal alone.
    expected = np.zeros(528)
    expected[np.equal(*np.triu_indices(32))] = np.log(4)
    np.testing.assert_allclose(twice - once, np.tile(expected, (2, 1)), atol=1e-3)


def test_tangent_keeps_the_length_of_matrices() -> None:
    """The length of the features is the Frobenius norm of the logarithm."""
    (trial,) = noise([50], 3)
    (block,) = read_out(states_of([trial]), plain(3), ["tangent"], [0])
    covariance = np.cov(trial.T, bias=True)
    covariance = 0.9 * covariance + 0.1 * np.trace(covariance) / 3 * np.eye(3)
    logarithms = np.log(np.linalg.eigvalsh(covariance))
    assert np.linalg.norm(block) == pytest.approx(np.linalg.norm(logarithms), rel=1e-4)


def test_correlation_is_that_of_nilearn() -> None:
    trials = noise([20, 31, 12])
    (block,) = read_out(states_of(trials), plain(40), ["correlation"], [0])
    measure = ConnectivityMeasure(
        EmpiricalCovariance(), kind="correlation", vectorize=True, discard_diagonal=True, standardize=False
    )
    expected = measure.fit_transform([trial.astype(np.float32).astype(np.float64) for trial in trials])
    np.testing.assert_allclose(np.tanh(block), expected, atol=1e-5)


def test_correlations_of_two_frames_stay_finite() -> None:
    (block,) = read_out(states_of(noise([2])), plain(40), ["correlation"], [0])
    np.testing.assert_allclose(np.abs(block), np.arctanh(0.999), rtol=1e-5)


def test_a_direction_that_only_rounding_varies_correlates_with_none() -> None:
    # The values that a LayerNorm gives sum to zero in each frame, but for what single precision rounds.
    states = states_of([trial - trial.mean(axis=1, keepdims=True) for trial in noise([12, 20], 6)])
    basis = fit_basis([states.values])
    assert 0 <= basis.variance[0, 5] < 1e-9 * basis.variance[0, 0]
    (block,) = read_out(states, basis, ["correlation"], [0])
    np.testing.assert_array_equal(block[:, -5:], 0)
    assert (block[:, :-5] != 0).all()


@pytest.mark.parametrize("word", WORDS)
def test_states_that_never_vary_have_finite_features(word: ReadOut) -> None:
    states = states_of([np.full((n, 5), 0.1) for n in (1, 4, 9)])
    (block,) = read_out(states, fit_basis([states.values]), [word], [0])
    assert np.isfinite(block).all()


def test_scaling_gives_each_block_unit_total_variance() -> None:
    rng = np.random.default_rng(0)
    blocks = [
        (rng.standard_normal((50, n)) * spread + 7).astype(np.float32) for n, spread in ((3, 100), (80, 0.01))
    ]
    features = Scaling.fit(blocks)(blocks)
    assert features.shape == (50, 83)
    assert features.dtype == np.float32
    np.testing.assert_allclose(features.mean(axis=0), 0, atol=1e-4)
    for part in (features[:, :3], features[:, 3:]):
        assert part.var(axis=0).sum() == pytest.approx(1, rel=1e-3)


def test_features_that_vary_little_stay_small() -> None:
    rng = np.random.default_rng(0)
    block = (rng.standard_normal((200, 2)) * [10, 0.1]).astype(np.float32)
    spread = Scaling.fit([block])([block]).std(axis=0)
    assert spread[0] / spread[1] == pytest.approx(block[:, 0].std() / block[:, 1].std(), rel=1e-3)


@pytest.mark.parametrize("value", [0.0, 0.1, -3e4])
def test_a_block_that_is_constant_in_training_says_nothing_anywhere(value: float) -> None:
    varied = np.random.default_rng(0).standard_normal((7, 2)).astype(np.float32)
    training = [np.full((7, 4), value, np.float32), varied]
    scaling = Scaling.fit(training)
    others = [np.full((7, 4), value + 1, np.float32), varied]
    for blocks in (training, others):
        features = scaling(blocks)
        assert (features[:, :4] == 0).all()
        assert features[:, 4:].var(axis=0).sum() == pytest.approx(1, rel=1e-3)
