"""Numbers with their 95 % intervals, layer by layer."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]

LOW, HIGH = 0.025, 0.975

Z_95 = 1.959964

BISECTIONS = 40


@dataclass(frozen=True, eq=False)
class Interval:
    """Estimates with the ends of their 95 % intervals; arrays of one shape, usually [L+1]."""

    value: Float64
    low: Float64
    high: Float64

    def to_json(self) -> dict[str, list[float | None]]:
        """Lists under the same names; NaN (nothing to measure) becomes None, JSON's null."""
        return {name: _plain(getattr(self, name)) for name in ("value", "low", "high")}


def percentile_interval(value: Float64, draws: Float64, *, n_clusters: int) -> Interval:
    """The middle 95 % of bootstrap draws [B, ...] around a value [...].

    Draws of G clusters scatter too little by (G-1)/G in variance, and their spread is itself known
    from G clusters only, as in Student's t; the ends are moved outwards by both (the expanded
    percentile interval of Hesterberg 2015, The American Statistician 69, 371). One cluster shows
    no spread: the ends are NaN, as they are where no draw measures anything.
    """
    if n_clusters < 2:
        return Interval(value, np.full_like(value, np.nan), np.full_like(value, np.nan))
    with warnings.catch_warnings():
        # a layer where all rows are equal, as the embedding of a prompt's last token is
        warnings.filterwarnings("ignore", "All-NaN slice", RuntimeWarning)
        low, high = np.nanquantile(draws, [LOW, HIGH], axis=0)
    freedom = n_clusters - 1
    stretch = np.sqrt(n_clusters / freedom) * _student_95(freedom) / Z_95
    return Interval(value, value - stretch * (value - low), value + stretch * (high - value))


def _student_95(freedom: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(freedom, HIGH))


def score_interval(value: Float64, variance: Callable[[Float64], Float64]) -> Interval:
    """All p in 0..1 with |value - p| <= 1.96 sd(p): Wilson's interval, for any variance of p.

    Its ends stay within 0..1 and apart even when every observation agrees.
    """

    def misses(p: Float64) -> npt.NDArray[np.bool_]:
        return np.asarray((value - p) ** 2 > Z_95**2 * variance(p))

    ends = []
    for outer in (np.zeros_like(value), np.ones_like(value)):
        inside, outside = value.copy(), outer
        for _ in range(BISECTIONS):
            middle = 0.5 * (inside + outside)
            missed = misses(middle)
            inside, outside = np.where(missed, inside, middle), np.where(missed, middle, outside)
        ends.append(inside)
    return Interval(value, ends[0], ends[1])


def stacked(layers: list[Interval]) -> Interval:
    """One interval over layers from one per layer."""
    return Interval(
        np.array([layer.value for layer in layers]),
        np.array([layer.low for layer in layers]),
        np.array([layer.high for layer in layers]),
    )


def _plain(values: Float64) -> list[float | None]:
    return [None if np.isnan(x) else float(x) for x in np.atleast_1d(values)]
