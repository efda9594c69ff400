"""When a trait commits and how long it lasts, in measures that ignore the size of the scores.

Everything here is unchanged when scores are multiplied by a positive number or shifted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from traitlens.arrays import Float64, Ints

# Fewer tokens cannot show a step and its scatter on both sides.
SHORTEST = 6

# Of this many trajectories without a step, those most alike in correlation are compared with.
N_SIMULATED = 4000
N_NULL = 199

# So many neutral responses are the fewest that a p-value of 5 % can come from.
FEWEST_NEUTRAL = 19

# Nearer to a random walk than this, no step can be told from drift.
LARGEST_CORRELATION = 0.98

# Keeps the simulation's arrays within tens of megabytes for long responses.
VALUES_AT_ONCE = 2**21


@dataclass(frozen=True)
class ChangePoint:
    """One step in a trajectory: the first token after it, its height in standard deviations of the
    scores around the two levels (positive: a rise), and how often a trajectory without a step shows
    one as clear."""

    index: int
    height_sd: float
    p_value: float


@dataclass(frozen=True, eq=False)
class NeutralSteps:
    """Trajectories of neutral responses, [n_tokens] each and one a question, that steps are held
    against: what looks like a step at this length where nothing happens."""

    trajectories: Sequence[Float64]

    def at(self, n_tokens: int) -> tuple[Float64, Float64] | None:
        """The mean by position [n_tokens] of the first tokens of those that have so many, and the
        strongest step of each [m] around it; None where too few have."""
        if n_tokens not in self._known:
            held = [x[:n_tokens] for x in self.trajectories if len(x) >= n_tokens]
            self._known[n_tokens] = None
            if len(held) >= FEWEST_NEUTRAL:
                middle = np.mean(held, axis=0)
                self._known[n_tokens] = middle, _strongest_step((held - middle)[:, 1:]).statistic
        return self._known[n_tokens]

    @cached_property
    def _known(self) -> dict[int, tuple[Float64, Float64] | None]:
        return {}


def find_change_point(
    scores: Float64, *, null: NeutralSteps | None = None, seed: int = 0
) -> ChangePoint | None:
    """The most likely single step of the mean, with its p-value; None under 6 tokens.

    Statistic: max over k of |mean x[k:] - mean x[:k]| sqrt(k (n-k) / n) over the standard deviation
    around the two means (the likelihood ratio of a step at an unknown place; Hinkley 1970). The
    first token is left out: its state stands far from the rest whatever the text says.

    Null distribution: neutral responses cut to the same length, where 19 or more have it, all less
    their mean by position. A whole response is the block that is drawn: shorter ones would tear
    apart what makes neutral scores drift. Else first-order autoregressive trajectories, their
    correlation drawn evenly from 0 to 0.98, of which the 199 with the most similar correlation
    around the fitted step are kept; real scores drift more, so p of 5 % may be 8 to 13 there.
    Projections of neighboring tokens resemble one another: a shuffle of the tokens would call
    nearly everything a commitment.
    """
    if len(scores) < SHORTEST:
        return None
    neutral = None if null is None else null.at(len(scores))
    if neutral is None:
        steps = _strongest_step(scores[None, 1:])
        statistics, correlations = _simulated(len(scores) - 1, seed)
        alike = np.argsort(np.abs(correlations - steps.correlation[0]), kind="stable")[:N_NULL]
        compared = statistics[alike]
    else:
        middle, compared = neutral
        steps = _strongest_step((scores - middle)[None, 1:])
    as_clear = int((compared >= steps.statistic[0]).sum())
    p_value = (1 + as_clear) / (1 + len(compared))
    return ChangePoint(int(steps.index[0]) + 1, float(steps.height_sd[0]), p_value)


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
