"""When a trait commits and how long it lasts, in measures that ignore the size of the scores.

Everything here is unchanged when scores are multiplied by a positive number or shifted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from traitlens.arrays import Float64, Ints

# Fewer tokens cannot show a step and its scatter on both sides.
SHORTEST = 6

# Of this many trajectories without a step, those most alike in correlation are compared with.
N_SIMULATED = 4000
N_NULL = 199

# Nearer to a random walk than this, no step can be told from drift.
LARGEST_CORRELATION = 0.98

# Keeps the simulation's arrays within tens of megabytes for long responses.
VALUES_AT_ONCE = 2**21

# A normal distribution's standard deviation over its median absolute deviation.
MAD_TO_SD = 1.4826


@dataclass(frozen=True)
class ChangePoint:
    """One step in a trajectory: the first token after it, its height in standard deviations of the
    scores around the two levels (positive: a rise), and how often a trajectory without a step shows
    one as clear."""

    index: int
    height_sd: float
    p_value: float


def find_change_point(
    scores: Float64, *, null: Sequence[Float64] | None = None, seed: int = 0
) -> ChangePoint | None:
    """The most likely single step of the mean, with its p-value; None under 6 tokens.

    Statistic: max over k of |mean x[k:] - mean x[:k]| sqrt(k (n-k) / n) over the standard deviation
    around the two means (the likelihood ratio of a step at an unknown place; Hinkley 1970).

    Null distribution: the statistic of the given `null` trajectories, for example of neutral
    responses; or of first-order autoregressive ones of the same length, their correlation drawn
    evenly from 0 to 0.98, of which the 199 with the most similar correlation around the fitted step
    are kept. Projections of neighboring tokens resemble one another, so a shuffle of the tokens
    would call nearly everything a commitment.
    """
    if len(scores) < SHORTEST:
        return None
    steps = _strongest_step(scores[None])
    if null is None:
        statistics, correlations = _simulated(len(scores), seed)
        alike = np.argsort(np.abs(correlations - steps.correlation[0]), kind="stable")[:N_NULL]
        compared = statistics[alike]
    else:
        long_enough = [x for x in null if len(x) >= SHORTEST]
        compared = np.array([_strongest_step(x[None]).statistic[0] for x in long_enough])
    as_clear = int((compared >= steps.statistic[0]).sum())
    p_value = (1 + as_clear) / (1 + len(compared))
    return ChangePoint(int(steps.index[0]), float(steps.height_sd[0]), p_value)


def half_life(scores: Float64) -> int:
    """Tokens from the highest score on, it included, that stay nearer to it than to the median.

    Contiguous: it ends at the first token that does not. 0 for a flat trajectory.
    """
    if len(scores) == 0 or np.ptp(scores) == 0:
        return 0
    peak = int(np.argmax(scores))
    middle = 0.5 * (scores[peak] + np.median(scores))
    below = np.flatnonzero(scores[peak:] <= middle)
    return int(below[0]) if len(below) else len(scores) - peak


def peak_velocity_sd(scores: Float64) -> float:
    """Largest |difference| of neighbours over their robust standard deviation; 0 when flat."""
    steps = np.diff(scores)
    if len(steps) == 0:
        return 0.0
    spread = MAD_TO_SD * float(np.median(np.abs(steps - np.median(steps))))
    if spread == 0:
        spread = float(steps.std())
    return float(np.abs(steps).max() / spread) if spread > 0 else 0.0


@dataclass(frozen=True, eq=False)
class _Steps:
    """The strongest step of each of m trajectories; all arrays [m]."""

    statistic: Float64
    index: Ints
    height_sd: Float64
    correlation: Float64


def _strongest_step(many: Float64) -> _Steps:
    """For trajectories [m, n]; a step needs two tokens on either side."""
    m, n = many.shape
    x = many - many.mean(axis=1, keepdims=True)
    k = np.arange(2, n - 1)
    # The total is zero, so the sum after a place is minus the sum before it.
    difference = -np.cumsum(x, axis=1)[:, k - 1] * (1 / (n - k) + 1 / k)
    best = (difference**2 * (k * (n - k) / n)).argmax(axis=1)
    index, height = k[best], difference[np.arange(m), best]
    after = np.arange(n) >= index[:, None]
    share = (index / n)[:, None]
    left = x - height[:, None] * np.where(after, share, share - 1)
    power = (left**2).sum(axis=1)
    # An exact step has no scatter and is as clear as can be; a flat line has no step.
    floor = 1e-12 * np.abs(many).max(axis=1) + np.finfo(np.float64).tiny
    height_sd = np.where(np.abs(height) > floor, height, 0) / np.maximum(
        np.sqrt(power / (n - 2)), floor
    )
    correlation = (left[:, 1:] * left[:, :-1]).sum(axis=1) / np.maximum(power, floor**2)
    statistic = np.abs(height_sd) * np.sqrt(index * (n - index) / n)
    return _Steps(statistic, index, height_sd, correlation)


@lru_cache(maxsize=64)
def _simulated(n: int, seed: int) -> tuple[Float64, Float64]:
    """Statistic and correlation of trajectories of n tokens without a step; [N_SIMULATED] each."""
    rng = np.random.default_rng(seed)
    parts = []
    rows_at_once = max(1, VALUES_AT_ONCE // n)
    for start in range(0, N_SIMULATED, rows_at_once):
        count = min(rows_at_once, N_SIMULATED - start)
        # stationary, first-order autoregressive, of unit variance; [n, count]
        correlation = rng.uniform(0, LARGEST_CORRELATION, count)
        x = rng.standard_normal((n, count))
        x[1:] *= np.sqrt(1 - correlation**2)
        for t in range(1, n):
            x[t] += correlation * x[t - 1]
        parts.append(_strongest_step(np.ascontiguousarray(x.T)))
    return (
        np.concatenate([part.statistic for part in parts]),
        np.concatenate([part.correlation for part in parts]),
    )
