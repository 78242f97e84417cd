"""How sure a mean over draws, seeds and test units is: variance components, intervals and p-values.

Scores of a decoder form a crossed layout: every draw of training units meets every seed and every test unit. The
three are random factors. A score y of draw d, seed s and unit u is

    y = mean + a_d + b_s + c_u + (ab)_ds + (ac)_du + (bc)_su + e_dsu,

and the variance of the mean over D draws, S seeds and U units is the sum of the variances of the terms, each
divided by its number of levels. These are estimated from mean squares (the analysis of variance of a balanced
random layout; Searle, Casella & McCulloch 1992, doi:10.1002/9780470316856); those that come out negative count as
zero.

Few draws are the difficulty: the variance of two numbers has one degree of freedom. Satterthwaite's degrees of
freedom are an estimate too, and intervals with them cover less than they claim (0.87 at 2 draws and 100 units).
Here the quantile is the mean of those of Student's t with D - 1, S - 1 and U - 1 degrees of freedom, weighted with
the mean squares of draws, seeds and units, as Cochran and Cox (1950, Experimental Designs, section 4.14) do it for
two variances.

What cannot be estimated: a factor with one level has no mean square. An interval of one draw (or one seed) holds
for that draw (or seed), and says nothing about others. Where there is one test unit, the caller gives its trials
in place of units; the interval then holds for that unit. Where each draw tests another unit, draw and unit are one
factor; that its draws share most of their training units, which makes them alike, cannot be seen in the scores
(Bengio & Grandvalet 2004, jmlr.org/papers/v5/grandvalet04a.html).

Lowest and highest coverage of intervals of nominally 0.95, over 54 ratios of the variances (the slow test of
``tests/test_intervals.py``; SD of units 0.05 to 0.15, of draws 0.01 to 0.08, of seeds 0 to 0.03, of interactions 0
to 0.03, 20 or 60 trials per unit):

======== ============== ============== ============== ==============
one seed 6 units        9 units        24 units       100 units
======== ============== ============== ============== ==============
1 draw   0.938 to 0.955 0.943 to 0.957 0.943 to 0.958 0.943 to 0.961
2 draws  0.964 to 0.996 0.953 to 0.996 0.935 to 0.994 0.927 to 0.985
3 draws  0.961 to 0.994 0.956 to 0.991 0.939 to 0.987 0.940 to 0.980
5 draws  0.948 to 0.984 0.952 to 0.980 0.943 to 0.974 0.947 to 0.969
10       0.946 to 0.968 0.944 to 0.967 0.947 to 0.965 0.946 to 0.961
======== ============== ============== ============== ==============

(4,000 intervals per ratio: standard error 0.003.) With three seeds they cover 0.934 to 1.000 at 2 draws, 0.944 to
0.997 at 1 or 3, and 0.948 to 0.987 at 5 or 10. Two levels of a factor cannot do better: an interval that allows
for the spread that two numbers may hide is too wide wherever there is none.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

Array = NDArray[np.float64]

_AXES = (-3, -2, -1)


@dataclass(frozen=True)
class Spread:
    """How far the mean of a crossed layout may be from the truth.

    Attributes
    ----------
    variance : ndarray, shape (...)
        Of the mean; nan where no factor has two levels.
    weights : ndarray, shape (..., F)
        Weight of the quantile of each factor that has two levels or more; they sum to 1.
    degrees : tuple of int, length F
        Degrees of freedom of these factors.
    """

    variance: Array
    weights: Array
    degrees: tuple[int, ...]

    def half_width(self, confidence: float) -> Array:
        """Return half the width of the interval with this level (0 to 1), shape (...)."""
        return self._quantile(np.asarray((1 - confidence) / 2)) * np.sqrt(self.variance)

    def p_value(self, mean: Array) -> Array:
        """Return two-sided p-values of means (...): 1 - the level of the interval that just holds zero."""
        mean = np.abs(np.asarray(mean, np.float64))
        error = np.sqrt(self.variance)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(mean == 0, 0.0, mean / error)
        low, high = np.full(ratio.shape, np.log(1e-300)), np.zeros(ratio.shape)
        for _ in range(60):
            middle = (low + high) / 2
            is_above = self._quantile(np.exp(middle) / 2) > ratio
            low, high = np.where(is_above, middle, low), np.where(is_above, high, middle)
        p = np.where(np.isinf(ratio), 0.0, np.where(ratio == 0, 1.0, np.exp((low + high) / 2)))
        return np.where(np.isnan(error), np.nan, p)

    def _quantile(self, tail: Array) -> Array:
        quantiles = [-special.stdtrit(degrees, tail) for degrees in self.degrees]
        return sum((self.weights[..., i] * q for i, q in enumerate(quantiles)), np.zeros(self.variance.shape))


def spread(values: Array) -> Spread:
    """Estimate the variance of the mean of a crossed layout from its mean squares.

    Parameters
    ----------
    values : ndarray, shape (..., D, S, U)
        Scores of D draws, S seeds and U units, for any number of layouts at once.
    """
    sizes = dict(zip(_AXES, values.shape[-3:], strict=True))
    squares = _mean_squares(values, sizes)
    factors = [axis for axis in _AXES if sizes[axis] > 1]
    if not factors:
        lost = np.full(values.shape[:-3], np.nan)
        return Spread(lost, np.ones((*lost.shape, 0)), ())
    parts: dict[tuple[int, ...], Array] = {}
    # From the interaction of all factors down: each mean square holds those of the terms that contain it.
    for term in sorted(squares, key=len, reverse=True):
        above = sum((parts[other] for other in parts if set(other) > set(term)), np.zeros(values.shape[:-3]))
        parts[term] = np.maximum(squares[term] - above, 0)
    total = sum(parts.values(), np.zeros(values.shape[:-3]))
    main = np.stack([squares[axis,] for axis in factors], axis=-1)
    sum_of_main = main.sum(axis=-1, keepdims=True)
    weights = np.where(sum_of_main > 0, main / np.where(sum_of_main > 0, sum_of_main, 1), 1 / len(factors))
    variance = total / np.prod(list(sizes.values()))
    # What is left of equal numbers after subtracting their mean is rounding.
    rounding = (4 * np.finfo(np.float64).eps * np.abs(values).max(axis=_AXES)) ** 2
    return Spread(
        np.where(variance > rounding, variance, 0.0), weights, tuple(sizes[axis] - 1 for axis in factors)
    )


def _mean_squares(values: Array, sizes: dict[int, int]) -> dict[tuple[int, ...], Array]:
    """Return the mean square of each factor and interaction that has degrees of freedom."""
    effects: dict[tuple[int, ...], Array] = {}
    squares: dict[tuple[int, ...], Array] = {}
    for term in (term for size in range(4) for term in combinations(_AXES, size)):
        others = tuple(axis for axis in _AXES if axis not in term)
        effect = values.mean(axis=others, keepdims=True)
        for other, below in effects.items():
            if set(other) < set(term):
                effect = effect - below
        effects[term] = effect
        degrees = int(np.prod([sizes[axis] - 1 for axis in term]))
        if term and degrees:
            repeated = np.prod([sizes[axis] for axis in others])
            squares[term] = (effect**2).sum(axis=_AXES) * repeated / degrees
    return squares


def wilson(share: float, total: int, confidence: float) -> tuple[float, float]:
    """Return Wilson's interval of a share of independent trials (Wilson 1927, doi:10.1080/01621459.1927.10502953).

    Parameters
    ----------
    share : float
        Share of successes, 0 to 1.
    total : int
        Number of trials.
    confidence : float
        Level, as 0.95.
    """
    z = float(stats.norm.ppf((1 + confidence) / 2))
    centre = (share + z**2 / (2 * total)) / (1 + z**2 / total)
    half = z / (1 + z**2 / total) * float(np.sqrt(share * (1 - share) / total + z**2 / (4 * total**2)))
    return max(0.0, centre - half), min(1.0, centre + half)


def holm(p_values: Array) -> Array:
    """Return p-values corrected for their number (Holm 1979, jstor.org/stable/4615733), in the same order.

    Parameters
    ----------
    p_values : ndarray, shape (M,)
        P-values of one family; nan ones do not count and stay.
    """
    p_values = np.asarray(p_values, np.float64)
    corrected = np.full(len(p_values), np.nan)
    known = np.flatnonzero(~np.isnan(p_values))
    order = known[np.argsort(p_values[known], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(p_values[order] * factors), 1.0)
    return corrected
