"""Intervals over draws, seeds and units: what they are made of, and how often they hold the truth."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import pytest
from scipy import stats

from boldly import intervals

TRUTH = 0.6


@dataclass(frozen=True)
class Study:
    """Standard deviations of a layout, in accuracy, and the trials of a unit."""

    unit: float
    draw: float
    seed: float
    draw_unit: float
    trials: int

    def simulate(self, rng: np.random.Generator, n: int, n_draws: int, n_seeds: int, n_units: int) -> np.ndarray:
        """Return accuracies of n studies, shape (n, draws, seeds, units), whose truth is `TRUTH`.

        A single draw (seed) has no effect of its own: the truth is that of this draw (seed).
        """

        def effect(deviation: float, *shape: int) -> np.ndarray:
            return deviation * rng.normal(size=(n, *shape))

        chance = TRUTH + effect(self.unit, 1, 1, n_units) + effect(self.draw_unit, n_draws, 1, n_units)
        if n_draws > 1:
            chance = chance + effect(self.draw, n_draws, 1, 1)
        if n_seeds > 1:
            chance = chance + effect(self.seed, 1, n_seeds, 1) + effect(self.seed / 2, 1, n_seeds, n_units)
        if n_draws > 1 and n_seeds > 1:
            chance = chance + effect(self.seed / 2, n_draws, n_seeds, 1)
        shape = (n, n_draws, n_seeds, n_units)
        return rng.binomial(self.trials, np.broadcast_to(chance, shape).clip(0, 1)) / self.trials


STUDIES = [
    Study(unit, draw, seed, inter, trials)
    for unit, draw, (seed, inter), trials in product(
        (0.05, 0.10, 0.15), (0.01, 0.03, 0.08), ((0.0, 0.0), (0.01, 0.01), (0.03, 0.03)), (20, 60)
    )
]


def coverage(layout: tuple[int, int, int], studies: list[Study], n: int) -> list[float]:
    """Return for each study the share of n intervals of 0.95 that hold the truth."""
    shares = []
    for number, study in enumerate(studies):
        rng = np.random.default_rng([number, *layout])
        values = study.simulate(rng, n, *layout)
        half = intervals.spread(values).half_width(0.95)
        shares.append(float((np.abs(values.mean(axis=(1, 2, 3)) - TRUTH) <= half).mean()))
    return shares


def test_one_factor_gives_the_interval_of_students_t():
    values = np.array([0.5, 0.7, 0.4, 0.9, 0.65])
    for shape in ((1, 1, 5), (1, 5, 1), (5, 1, 1)):
        spread = intervals.spread(values.reshape(shape))
        low, high = stats.t.interval(0.95, 4, values.mean(), stats.sem(values))
        assert spread.half_width(0.95) == pytest.approx((high - low) / 2)
        assert spread.p_value(values.mean() - 0.3) == pytest.approx(stats.ttest_1samp(values, 0.3).pvalue)


def test_variance_components_of_an_orthogonal_layout():
    # Effects that are orthogonal by construction: the mean squares are theirs alone, and no component is negative.
    draw, unit = np.array([-1.0, 1.0]), np.array([-1.0, 0.0, 1.0])
    noise = np.array([[1.0, -2.0, 1.0], [-1.0, 2.0, -1.0]]) / 10
    values = (0.3 * draw[:, None] + 0.2 * unit + noise)[:, None, :]
    ms_draw, ms_unit, ms_rest = 3 * 0.3**2 * 2 / 1, 2 * 0.2**2 * 2 / 2, 0.12 / 2
    spread = intervals.spread(values)
    assert spread.variance == pytest.approx((ms_draw + ms_unit - ms_rest) / 6)
    assert spread.degrees == (1, 2)
    np.testing.assert_allclose(spread.weights, np.array([ms_draw, ms_unit]) / (ms_draw + ms_unit))


def test_negative_components_count_as_zero():
    # Draws agree in their means, units differ in opposite ways: the draws' mean square is below the rest's.
    values = np.array([[0.4, 0.6, 0.5, 0.7], [0.6, 0.4, 0.7, 0.5]])[:, None, :]
    spread = intervals.spread(values)
    between_units = values.mean(axis=(0, 1)).var(ddof=1) / 4
    assert spread.variance >= between_units
    assert np.isfinite(spread.half_width(0.95))


def test_layouts_at_once_are_those_one_by_one():
    values = np.random.default_rng(0).random((4, 3, 2, 5))
    together = intervals.spread(values)
    for number in range(4):
        one = intervals.spread(values[number])
        assert together.half_width(0.9)[number] == pytest.approx(one.half_width(0.9))
        assert together.p_value(values.mean(axis=(1, 2, 3)))[number] == pytest.approx(
            one.p_value(values[number].mean())
        )


def test_nothing_to_estimate_from_gives_no_interval():
    spread = intervals.spread(np.full((1, 1, 1), 0.5))
    assert np.isnan(spread.half_width(0.95))
    assert np.isnan(spread.p_value(np.asarray(0.5)))


def test_equal_numbers_have_no_variance():
    spread = intervals.spread(np.full((2, 3, 7), 0.1))
    assert spread.half_width(0.95) == 0
    assert spread.p_value(np.asarray(0.1)) == 0
    assert spread.p_value(np.asarray(0.0)) == 1


@pytest.mark.parametrize("shape", [(2, 1, 24), (3, 2, 6), (1, 3, 9)])
def test_the_p_value_is_that_of_the_interval_that_just_holds_zero(shape):
    values = np.random.default_rng(1).normal(0.1, 0.2, shape)
    spread, mean = intervals.spread(values), values.mean()
    p = float(spread.p_value(mean))
    assert float(spread.half_width(1 - p)) == pytest.approx(abs(mean), rel=1e-6)


def test_few_draws_widen_the_interval():
    values = np.random.default_rng(2).normal(0.6, 0.05, (10, 1, 40)) + np.linspace(-0.1, 0.1, 10)[:, None, None]
    two, ten = intervals.spread(values[[0, 9]]), intervals.spread(values)
    assert two.half_width(0.95) > 12 / 2.3 * ten.half_width(0.95)  # t of 1 degree of freedom against t of 9
    assert intervals.spread(values[:1]).half_width(0.95) < ten.half_width(0.95)  # one draw says nothing of others


# Least and largest coverage of the full grid below is 0.927 and 1.0, and 0.986 with five draws and nine units; a
# share of 1,000 intervals has a standard error of 0.007.
@pytest.mark.parametrize("n_seeds", [1, 3])
@pytest.mark.parametrize(
    ("n_draws", "n_units"), [(1, 6), (1, 100), (2, 6), (2, 24), (2, 100), (3, 100), (5, 9), (5, 100), (10, 24)]
)
def test_intervals_cover_as_often_as_they_say(n_draws, n_units, n_seeds):
    shares = coverage((n_draws, n_seeds, n_units), STUDIES[:: len(STUDIES) // 6], n=1000)
    assert min(shares) > 0.915
    assert max(shares) < 0.995 or n_draws < 5
    if n_draws == n_seeds == 1:
        assert max(shares) < 0.97  # Student's t: nothing else to allow for


@pytest.mark.slow
@pytest.mark.parametrize("n_seeds", [1, 3])
@pytest.mark.parametrize("n_units", [6, 9, 24, 100])
@pytest.mark.parametrize("n_draws", [1, 2, 3, 5, 10])
def test_intervals_cover_over_the_whole_grid(n_draws, n_units, n_seeds):
    shares = coverage((n_draws, n_seeds, n_units), STUDIES, n=1500)
    print(f"draws {n_draws}, units {n_units}, seeds {n_seeds}: {min(shares):.3f} to {max(shares):.3f}")
    # The table of boldly.intervals comes from n=4000; here a share has a standard error of 0.006.
    assert min(shares) > 0.91
    assert max(shares) < 0.995 or min(n_draws, n_units - 4) < 5


def test_holm_is_that_of_the_paper():
    # Four hypotheses: 0.01 x 4, 0.02 x 3, then monotone; ties and nan keep their places.
    corrected = intervals.holm(np.array([0.02, 0.01, 0.5, np.nan, 0.03]))
    np.testing.assert_allclose(corrected, [0.06, 0.04, 0.5, np.nan, 0.06])
    assert intervals.holm(np.array([0.9, 0.8])).tolist() == [1.0, 1.0]


def test_wilson_interval():
    # Newcombe 1998 (doi:10.1002/(SICI)1097-0258(19980430)17:8<857), table I: 81 of 263, 0 of 20, 29 of 29.
    assert intervals.wilson(81 / 263, 263, 0.95) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert intervals.wilson(0.0, 20, 0.95) == pytest.approx((0.0, 0.1611), abs=1e-4)
    assert intervals.wilson(1.0, 29, 0.95) == pytest.approx((0.8830, 1.0), abs=1e-4)
