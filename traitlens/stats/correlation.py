"""Correlation: of all rows, and within conditions, where the conditions are held fixed.

Two figures that both follow a condition go together in the pool of all conditions, though neither
has to do with the other (Simpson 1951, Journal of the Royal Statistical Society B 13, 238).
"""

from __future__ import annotations

import numpy as np

from traitlens.arrays import Float64, Labels
from traitlens.stats.crossed import Statistic, crossed_interval
from traitlens.stats.intervals import Interval


def weighted_correlation(scores: Float64, values: Float64) -> Statistic:
    """Fisher's z of Pearson's correlation of scores [n, m] with finite values [n], as a statistic
    [k, m]: a scale without ends, where a symmetric interval is one."""
    x, y = scores - scores.mean(axis=0), (values - values.mean())[:, None]

    def statistic(weights: Float64) -> Float64:
        with np.errstate(invalid="ignore", divide="ignore"):
            w = weights / weights.sum(axis=1, keepdims=True)
            mean_x, mean_y = w @ x, w @ y
            covariance = w @ (x * y) - mean_x * mean_y
            spread = (w @ x**2 - mean_x**2) * (w @ y**2 - mean_y**2)
            correlation = covariance / np.sqrt(np.maximum(spread, 0))
            return np.asarray(np.arctanh(np.clip(correlation, -1, 1)))

    return statistic


def partial_correlation(
    scores: Float64, values: Float64, *, condition: Labels, question: Labels
) -> Interval:
    """Correlation of scores [n, m] with finite values [n], both from their mean in the condition
    of each row; with its interval over questions, [m] each.

    What an instruction adds is taken out with the condition's mean where conditions are as fine as
    instructions. NaN where nothing varies within conditions.
    """
    statistic = weighted_partial_correlation(scores, values, condition)
    z = crossed_interval(statistic, np.zeros(len(values)), question)
    return Interval(np.tanh(z.value), np.tanh(z.low), np.tanh(z.high))


def weighted_partial_correlation(scores: Float64, values: Float64, condition: Labels) -> Statistic:
    """Fisher's z of the correlation within conditions as a statistic [k, m]."""
    numbers: dict[object, int] = {}
    of_row = [numbers.setdefault(label, len(numbers)) for label in condition]
    is_in = np.eye(len(numbers))[of_row]
    x, y = scores - scores.mean(axis=0), (values - values.mean())[:, None]

    def statistic(weights: Float64) -> Float64:
        size = (weights @ is_in)[:, :, None]

        def within(a: Float64, b: Float64) -> Float64:
            """Weighted sum of products of what is left once each condition's means are out."""
            both = (
                np.einsum("kn,nc,nm->kcm", weights, is_in, one, optimize=True) for one in (a, b)
            )
            sum_a, sum_b = both
            with np.errstate(invalid="ignore", divide="ignore"):
                means = np.where(size > 0, sum_a * sum_b / size, 0.0)
            return np.asarray(weights @ (a * b) - means.sum(axis=1))

        with np.errstate(invalid="ignore", divide="ignore"):
            # what rounding leaves of equal values is nothing
            spreads = [within(one, one) for one in (x, y)]
            least = [1e-12 * (one**2).sum(axis=0) for one in (x, y)]
            kept = (spreads[0] > least[0]) & (spreads[1] > least[1])
            correlation = within(x, y) / np.sqrt(spreads[0] * spreads[1])
            return np.where(kept, np.arctanh(np.clip(correlation, -1, 1)), np.nan)

    return statistic
