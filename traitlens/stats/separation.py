"""How well scores separate the polarities: AUROC, Cohen's d, accuracy, effective sample size.

Scores are anything with one number per response and layer, such as projections; intervals
respect that responses of one group resemble one another.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from traitlens.arrays import Float64, Ints, Labels
from traitlens.errors import ShapeError
from traitlens.stats.bootstrap import N_DRAWS, Cells, make_cells
from traitlens.stats.intervals import Interval, percentile_interval, score_interval


@dataclass(frozen=True, eq=False)
class Separation:
    """Per layer: AUROC, Cohen's d (pooled standard deviation) and balanced accuracy at the midpoint
    of the two means, each with its interval; and the effective sample sizes [L+1]."""

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
    n_bootstrap: int = N_DRAWS,
    seed: int = 0,
) -> Separation:
    """Separation of scores pos [n_pos, L+1] from neg [n_neg, L+1], column by column.

    Cohen's d gets a bootstrap over groups, the two shares score intervals. Raises ShapeError.
    """
    if pos.ndim != 2 or neg.ndim != 2 or pos.shape[1] != neg.shape[1]:
        raise ShapeError(f"scores are {pos.shape} and {neg.shape}: want [n, L+1] of both")
    cells = make_cells(groups, len(pos), len(neg))
    scores = np.concatenate([pos, neg]).astype(np.float64)
    sizes = effective_sizes(scores, cells)
    return Separation(
        auroc=auroc_interval(scores, cells.n_pos, sizes),
        cohens_d=_cohens_d_interval(scores, cells, cells.draw(n_bootstrap, seed=seed)),
        accuracy=_accuracy_interval(scores, cells.n_pos, sizes),
        effective_n_pos=sizes[0],
        effective_n_neg=sizes[1],
    )


def effective_sizes(scores: Float64, cells: Cells) -> tuple[Float64, Float64]:
    """`effective_n` of the positives and of the negatives, [L+1] each; scores [n, L+1]."""
    n_pos = cells.n_pos
    return (
        effective_n(scores[:n_pos], cells.of_row[:n_pos]),
        effective_n(scores[n_pos:], cells.of_row[n_pos:]),
    )


def effective_n(scores: Float64, group: Ints) -> Float64:
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
    weighted_size = (sizes**2).sum() / n
    spread = between + ((n - weighted_size) / (k - 1) - 1) * within
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = np.where(spread > 0, (between - within) / spread, 0.0)
    return np.asarray(n / (1 + (weighted_size - 1) * np.clip(correlation, 0, 1)))


def auroc(pos: Float64, neg: Float64) -> Float64:
    """Chance that a positive outscores a negative, ties one half: [k] for scores [n, k]."""
    ordered = np.sort(neg, axis=0)
    wins = [
        np.searchsorted(column, scores, "left").sum()
        + np.searchsorted(column, scores, "right").sum()
        for column, scores in zip(ordered.T, pos.T, strict=True)
    ]
    return np.array(wins) / (2 * len(pos) * len(neg))


def auroc_interval(scores: Float64, n_pos: int, sizes: tuple[Float64, Float64]) -> Interval:
    """AUROC of scores [n, L+1], the n_pos positives first, with its interval.

    The score interval of Newcombe (2006, method 5) on the `sizes` that the positives and negatives
    are worth, [L+1] each: a bootstrap has no width where the polarities do not overlap, which is
    where good vectors are.
    """
    product, others = sizes[0] * sizes[1], (sizes[0] + sizes[1]) / 2 - 1

    def variance(p: Float64) -> Float64:
        shape = 1 + others * ((1 - p) / (2 - p) + p / (1 + p))
        return np.asarray(p * (1 - p) / product * shape)

    return score_interval(auroc(scores[:n_pos], scores[n_pos:]), variance)


def _cohens_d_interval(scores: Float64, cells: Cells, times: Float64) -> Interval:
    """Cohen's d with a bootstrap over groups whose bias is taken out.

    A draw repeats groups, so its spread is smaller than the sample's by a factor `shrunk`, and the
    sample's is to the truth's as the draw's is to the sample's: d is too large by 1 / `shrunk` in
    the sample and by its square in a draw.
    """
    difference, spread = _difference_and_spread(scores - scores.mean(axis=0), cells, times)
    with np.errstate(invalid="ignore", divide="ignore"):
        d = np.where(difference == 0, 0.0, difference / spread)
        shrunk = np.where(spread[0] > 0, np.nanmedian(spread[1:], axis=0) / spread[0], 1.0)
    shrunk = np.minimum(shrunk, 1.0)
    unbiased = np.concatenate([shrunk * d[:1], shrunk**2 * d[1:]])
    found = percentile_interval(unbiased, n_groups=min(cells.by_polarity))
    return Interval(d[0], np.minimum(found.low, d[0]), np.maximum(found.high, d[0]))


def _difference_and_spread(
    centered: Float64, cells: Cells, times: Float64
) -> tuple[Float64, Float64]:
    """Difference of the means and pooled standard deviation in each draw: [1 + b, L+1] both."""
    sums, squares = cells.sums(centered), cells.sums(centered**2)
    means, within, n = [], [], []
    for positive in (True, False):
        average = cells.mean(times, positive=positive)
        means.append(average @ sums)
        n.append((np.where(cells.is_pos == positive, times, 0) @ cells.counts)[:, None])
        within.append(n[-1] * (average @ squares - means[-1] ** 2))
    freedom = np.maximum(n[0] + n[1] - 2, 1)
    return means[0] - means[1], np.sqrt(np.maximum(within[0] + within[1], 0) / freedom)


def _accuracy_interval(scores: Float64, n_pos: int, sizes: tuple[Float64, Float64]) -> Interval:
    """Balanced accuracy with Wilson's interval on the effective sample sizes.

    The midpoint comes from the same scores, which costs one degree of freedom.
    """
    pos, neg = scores[:n_pos], scores[n_pos:]
    midpoint = 0.5 * (pos.mean(axis=0) + neg.mean(axis=0))
    value = 0.5 * ((pos > midpoint).mean(axis=0) + (neg <= midpoint).mean(axis=0))
    n = sizes[0] + sizes[1]
    share = n / (n - 1) * (1 / sizes[0] + 1 / sizes[1]) / 4
    return score_interval(value, lambda p: np.asarray(p * (1 - p) * share))
