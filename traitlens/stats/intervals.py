"""Numbers with their 95 % intervals, layer by layer."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from traitlens.arrays import Float64, Ints

LOW, HIGH = 0.025, 0.975
Z_95 = 1.959964
BISECTIONS = 40


@dataclass(frozen=True, eq=False)
class Interval:
    """Estimates with the ends of their 95 % intervals; arrays of one shape, usually [L+1].

    NaN where there is nothing to say.
    """

    value: Float64
    low: Float64
    high: Float64

    @classmethod
    def unknown(cls) -> Interval:
        """A single number of which nothing is known."""
        return cls(np.array(np.nan), np.array(np.nan), np.array(np.nan))


def middle_95(draws: Float64) -> tuple[Float64, Float64]:
    """The quantiles 0.025 and 0.975 of draws [b, ...], NaN left out: [...] both."""
    with warnings.catch_warnings():
        # a layer where all rows are equal, as the embedding of a prompt's last token is
        warnings.filterwarnings("ignore", "All-NaN slice", RuntimeWarning)
        low, high = np.nanquantile(draws, [LOW, HIGH], axis=0)
    return low, high


def score_interval(value: Float64, variance: Callable[[Float64], Float64]) -> Interval:
    """All p in 0..1 with |value - p| <= 1.96 sd(p): Wilson's interval, for any variance of p.

    Its ends stay within 0..1 and apart even when every observation agrees.
    """
    ends = []
    for outer in (np.zeros_like(value), np.ones_like(value)):
        inside, outside = value.copy(), outer
        for _ in range(BISECTIONS):
            middle = 0.5 * (inside + outside)
            missed = (value - middle) ** 2 > Z_95**2 * variance(middle)
            inside, outside = np.where(missed, inside, middle), np.where(missed, middle, outside)
        ends.append(inside)
    return Interval(value, ends[0], ends[1])


def exact_share_interval(counts: Ints, n: int) -> Interval:
    """Shares counts / n [k] with their exact interval (Clopper and Pearson 1934); NaN, 0 and 1 for
    an n of 0."""
    # scipy is slow to load, and few need it
    from scipy.special import betaincinv

    x = np.asarray(counts, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        low = np.where(x > 0, betaincinv(np.maximum(x, 1), n - x + 1, 0.025), 0.0)
        high = np.where(x < n, betaincinv(x + 1, np.maximum(n - x, 1), 0.975), 1.0)
        return Interval(x / n if n else np.full(x.shape, np.nan), low, high)


def stacked_intervals(layers: Sequence[Interval]) -> Interval:
    """One interval over layers from one per layer."""
    return Interval(
        np.array([layer.value for layer in layers]),
        np.array([layer.low for layer in layers]),
        np.array([layer.high for layer in layers]),
    )
