"""Means and correlations with 95 % intervals from draws of whole groups.

Rows of a group (the answers to one question) are drawn together, so an effect that differs from
question to question is not taken for noise of single answers. Pure numpy; NaN is no observation.
"""

from __future__ import annotations

import numpy as np

from traitlens.cells import Float64
from traitlens.folds import group_ids
from traitlens.intervals import Interval, percentile_interval
from traitlens.sides import Labels

N_DRAWS = 1000


def group_draws(groups: Labels, *, n_draws: int = N_DRAWS, seed: int = 0) -> Float64:
    """How often each row counts: [1 + n_draws, n], the first row being the sample itself."""
    ids, n_groups = group_ids((groups, []), len(groups), 0)
    rng = np.random.default_rng(seed)
    times = rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=n_draws)
    return np.concatenate([np.ones((1, len(ids))), times[:, ids]])


def means(values: Float64, times: Float64) -> Float64:
    """The mean of values [n] in each draw of times [b, n]: [b]; NaN where nothing was drawn."""
    known = np.isfinite(values)
    weights = times[:, known]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(weights @ values[known] / weights.sum(axis=1))


def correlations(scores: Float64, values: Float64, times: Float64) -> Float64:
    """Pearson's correlation of scores [n, k] with values [n] in each draw: [b, k]."""
    known = np.isfinite(values)
    x, y, w = scores[known], values[known][:, None], times[:, known]
    with np.errstate(invalid="ignore", divide="ignore"):
        w = w / w.sum(axis=1, keepdims=True)
        x, y = x - x.mean(axis=0), y - y.mean()
        mean_x, mean_y = w @ x, w @ y
        covariance = w @ (x * y) - mean_x * mean_y
        spread = (w @ x**2 - mean_x**2) * (w @ y**2 - mean_y**2)
        return np.asarray(covariance / np.sqrt(np.maximum(spread, 0)))


def interval_of(draws: Float64, *, n_groups: int) -> Interval:
    """The estimate (the first draw) with the middle 95 % of the others; draws [1 + b, ...]."""
    value = np.asarray(draws[0])
    if not np.isfinite(draws[1:]).any():
        nothing = np.full_like(value, np.nan)
        return Interval(value, nothing, nothing)
    return percentile_interval(value, draws[1:], n_clusters=n_groups)
