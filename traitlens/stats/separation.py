"""How well scores separate the two sides: AUROC, Cohen's d, accuracy, effective sample size.

Scores are anything with one number per response and layer, such as projections; intervals
respect that responses of one group resemble one another. Pure numpy;
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from traitlens.errors import ShapeError
from traitlens.stats.cells import Cells, Float64, make_cells
from traitlens.stats.intervals import Interval, percentile_interval, score_interval
from traitlens.stats.sides import IntArray, Labels

N_BOOTSTRAP = 1000


def auroc(pos: Float64, neg: Float64) -> Float64:
    """Chance that a positive outscores a negative, ties one half: [k] for scores [n, k]."""
    ordered = np.sort(neg, axis=0)
    wins = [
        np.searchsorted(column, scores, "left").sum()
        + np.searchsorted(column, scores, "right").sum()
        for column, scores in zip(ordered.T, pos.T, strict=True)
    ]
    return np.array(wins) / (2 * len(pos) * len(neg))


@dataclass(frozen=True, eq=False)
class Separation:
    """Per layer: AUROC, Cohen's d (pooled standard deviation) and balanced accuracy at the midpoint
    of the two means, each with its interval; and the effective sample sizes [L+1] of the sides."""

    auroc: Interval
    cohens_d: Interval
    accuracy: Interval
    effective_n_pos: Float64
    effective_n_neg: Float64


def separation(
    pos: Float64,
    neg: Float64,
    *,
    groups: tuple[Labels, Labels] | None = None,
    n_bootstrap: int = N_BOOTSTRAP,
    seed: int = 0,
) -> Separation:
    """Separation of scores pos [n_pos, L+1] from neg [n_neg, L+1], column by column.

    Cohen's d gets a bootstrap over groups, the two shares score intervals.
    """
    if pos.ndim != 2 or neg.ndim != 2 or pos.shape[1] != neg.shape[1]:
        raise ShapeError(f"scores are {pos.shape} and {neg.shape}: want [n, L+1] on both sides")
    cells = make_cells(groups, len(pos), len(neg))
    times = cells.bootstrap(n_bootstrap, seed=seed)
    scores = np.concatenate([pos, neg]).astype(np.float64)
    return Separation(
        auroc=auroc_interval(scores, cells),
        cohens_d=_cohens_d_interval(scores, cells, times),
        accuracy=_accuracy_interval(scores, cells),
        effective_n_pos=effective_n(pos, cells.of_row[: len(pos)]),
        effective_n_neg=effective_n(neg, cells.of_row[len(pos) :]),
    )


def auroc_interval(
    scores: Float64, cells: Cells, *, is_group_one_observation: bool = False
) -> Interval:
    """AUROC of scores [n, L+1], positives first, with its interval.

    The score interval of Newcombe (2006, method 5) on the effective sample sizes, or on the number
    of groups where each counts once: a bootstrap has no width where the sides do not overlap, which
    is where good vectors are.
    """
    pos, neg = scores[: cells.n_pos], scores[cells.n_pos :]
    if is_group_one_observation:
        n_pos, n_neg = (np.full(scores.shape[1], float(n)) for n in cells.side_counts())
    else:
        n_pos = effective_n(pos, cells.of_row[: cells.n_pos])
        n_neg = effective_n(neg, cells.of_row[cells.n_pos :])
    others = (n_pos + n_neg) / 2 - 1

    def variance(p: Float64) -> Float64:
        shape = 1 + others * ((1 - p) / (2 - p) + p / (1 + p))
        return np.asarray(p * (1 - p) / (n_pos * n_neg) * shape)

    return score_interval(auroc(pos, neg), variance)


def effective_n(scores: Float64, group: IntArray) -> Float64:
    """Independent observations that scores [n, L+1] of grouped rows [n] are worth: [L+1].

    n / (1 + (m - 1) r) with m the mean group size weighted by size and r the intraclass correlation
    from a one-way analysis of variance, at least 0 (Kish 1965).
    """
    _, of_row, sizes = np.unique(group, return_inverse=True, return_counts=True)
    n, k = len(scores), len(sizes)
    if k in (1, n):
        return np.full(scores.shape[1], float(k))
    means = np.zeros((k, scores.shape[1]))
    np.add.at(means, of_row, scores)
    means /= sizes[:, None]
    between = (sizes[:, None] * (means - scores.mean(axis=0)) ** 2).sum(axis=0) / (k - 1)
    within = ((scores - means[of_row]) ** 2).sum(axis=0) / (n - k)
    typical = (n - (sizes**2).sum() / n) / (k - 1)
    spread = between + (typical - 1) * within
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = np.where(spread > 0, (between - within) / spread, 0.0)
    weighted_size = (sizes**2).sum() / n
    return np.asarray(n / (1 + (weighted_size - 1) * np.clip(correlation, 0, 1)))


def _cohens_d_interval(scores: Float64, cells: Cells, times: Float64) -> Interval:
    """Cohen's d with a bootstrap over groups whose bias is taken out.

    A draw repeats groups, so its spread is smaller than the sample's by a factor `shrunk`, and the
    sample's is to the truth's as the draw's is to the sample's: d is too large by 1 / `shrunk` in
    the sample and by its square in a draw.
    """
    centered = scores - scores.mean(axis=0)
    sums, squares = cells.sums(centered), cells.sums(centered**2)
    every = np.concatenate([np.ones((1, len(cells.counts))), times])
    difference, spread = _difference_and_spread(sums, squares, cells, every)
    with np.errstate(invalid="ignore", divide="ignore"):
        d = np.where(difference == 0, 0.0, difference / spread)
        shrunk = np.where(spread[0] > 0, np.nanmedian(spread[1:], axis=0) / spread[0], 1.0)
    shrunk = np.minimum(shrunk, 1.0)
    clusters = min(cells.side_counts())
    found = percentile_interval(shrunk * d[0], shrunk**2 * d[1:], n_clusters=clusters)
    return Interval(d[0], np.minimum(found.low, d[0]), np.maximum(found.high, d[0]))


def _difference_and_spread(
    sums: Float64, squares: Float64, cells: Cells, times: Float64
) -> tuple[Float64, Float64]:
    """Difference of the means and pooled standard deviation in each draw: [k, L+1] both."""
    pos, neg = cells.side_mean(times, positive=True), cells.side_mean(times, positive=False)
    mean_pos, mean_neg = pos @ sums, neg @ sums
    n_pos = np.where(cells.is_pos, times, 0) @ cells.counts
    n_neg = np.where(cells.is_pos, 0, times) @ cells.counts
    within_pos = n_pos[:, None] * (pos @ squares - mean_pos**2)
    within_neg = n_neg[:, None] * (neg @ squares - mean_neg**2)
    freedom = np.maximum(n_pos + n_neg - 2, 1)[:, None]
    spread = np.sqrt(np.maximum(within_pos + within_neg, 0) / freedom)
    return mean_pos - mean_neg, spread


def _accuracy_interval(scores: Float64, cells: Cells) -> Interval:
    """Balanced accuracy with Wilson's interval on the effective sample sizes of the scores.

    The midpoint comes from the same scores, which costs one degree of freedom.
    """
    pos, neg = scores[: cells.n_pos], scores[cells.n_pos :]
    midpoint = 0.5 * (pos.mean(axis=0) + neg.mean(axis=0))
    value = 0.5 * ((pos > midpoint).mean(axis=0) + (neg <= midpoint).mean(axis=0))
    n_pos = effective_n(pos, cells.of_row[: cells.n_pos])
    n_neg = effective_n(neg, cells.of_row[cells.n_pos :])
    share = (n_pos + n_neg) / (n_pos + n_neg - 1) * (1 / n_pos + 1 / n_neg) / 4
    return score_interval(value, lambda p: np.asarray(p * (1 - p) * share))
