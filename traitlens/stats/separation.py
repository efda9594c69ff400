"""How well scores separate the polarities: AUROC, Cohen's d, accuracy, effective sample size.

Scores are anything with one number per response and layer, such as projections; intervals are over
instructions and questions (`stats.crossed`). Those of shares are made on the scale of log odds,
which has no ends: there they cover as often near 1 as in the middle. Those of Cohen's d are made on
the scale where its spread does not grow with it, asinh(d / 2 sqrt 2) (Hedges and Olkin 1985,
Statistical Methods for Meta-Analysis, 5.C): d of two sides that hardly vary is in the thousands.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from traitlens.arrays import Bools, Float64, Ints, Labels
from traitlens.errors import ShapeError
from traitlens.stats.crossed import Crossing, Statistic, crossed_interval, numbered, weighted_mean
from traitlens.stats.intervals import Interval, score_interval

Prompts = Sequence[tuple[Hashable, Hashable]]
"""Of each row its instruction pair and its question."""


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
    pos: Float64, neg: Float64, *, prompts: tuple[Prompts, Prompts] | None = None
) -> Separation:
    """Separation of scores pos [n_pos, L+1] from neg [n_neg, L+1], column by column.

    Without `prompts` every row is a question of its own. Raises ShapeError.
    """
    if pos.ndim != 2 or neg.ndim != 2 or pos.shape[1] != neg.shape[1]:
        raise ShapeError(f"scores are {pos.shape} and {neg.shape}: want [n, L+1] of both")
    scores = np.concatenate([pos, neg]).astype(np.float64)
    is_pos = np.arange(len(scores)) < len(pos)
    rows = separation_labels(prompts, len(pos), len(neg))
    sizes = _worth(scores, is_pos, rows)
    return Separation(
        auroc=auroc_over_prompts(scores, is_pos, *rows),
        cohens_d=cohens_d_over_prompts(scores, is_pos, *rows),
        accuracy=_accuracy_interval(scores, is_pos, rows),
        effective_n_pos=sizes[0],
        effective_n_neg=sizes[1],
    )


def separation_labels(
    prompts: tuple[Prompts, Prompts] | None, n_pos: int, n_neg: int
) -> tuple[Ints, Ints]:
    """The instruction and question of each row, positives first; see `separation`.

    Raises ShapeError when there is not one prompt per row.
    """
    if prompts is None:
        return np.zeros(n_pos + n_neg, dtype=np.int64), np.arange(n_pos + n_neg)
    found = (len(prompts[0]), len(prompts[1]))
    if found != (n_pos, n_neg):
        raise ShapeError(f"{found} prompts for {(n_pos, n_neg)} rows: give one per row")
    both = [*prompts[0], *prompts[1]]
    return numbered(instruction for instruction, _ in both), numbered(
        question for _, question in both
    )


def effective_n(scores: Float64, instruction: Labels, question: Labels) -> Float64:
    """Independent observations that the mean of scores [n, m] is worth: [m], n at most.

    Their variance over that of the mean when instructions and questions are drawn anew.
    """
    crossing = Crossing.of(instruction, question)
    variance, _ = crossing.variance(crossing.values(lambda w: weighted_mean(scores, w)))
    spread = scores.var(axis=0, ddof=1) if len(scores) > 1 else np.zeros(scores.shape[1])
    with np.errstate(invalid="ignore", divide="ignore"):
        worth = np.where(spread > 0, spread / variance, len(scores))
    # a single prompt is one observation
    return np.clip(np.where(np.isnan(worth), 1.0, worth), 1.0, len(scores))


CHANCE = 0.5
D_SCALE = 2 * 2**0.5


def cohens_d_over_prompts(
    scores: Float64, is_pos: Bools, instruction: Labels, question: Labels
) -> Interval:
    """Cohen's d of scores [n, m] with its interval over instructions and questions; [m] each."""
    statistic = weighted_cohens_d(scores, is_pos)
    found = crossed_interval(lambda w: np.arcsinh(statistic(w) / D_SCALE), instruction, question)
    with np.errstate(over="ignore"):
        value, low, high = (D_SCALE * np.sinh(one) for one in (found.value, found.low, found.high))
    return Interval(value, low, high)


def weighted_cohens_d(scores: Float64, is_pos: Bools) -> Statistic:
    """Cohen's d of scores [n, m], over the pooled standard deviation, as a statistic [k, m]."""
    centered = scores - scores.mean(axis=0)

    def statistic(weights: Float64) -> Float64:
        means, within, n = [], [], []
        for side in (is_pos, ~is_pos):
            of_side = weights[:, side]
            means.append(weighted_mean(centered[side], of_side))
            n.append(of_side.sum(axis=1)[:, None])
            square = weighted_mean(centered[side] ** 2, of_side)
            within.append(n[-1] * (square - means[-1] ** 2))
        freedom = np.maximum(n[0] + n[1] - 2, 1)
        with np.errstate(invalid="ignore", divide="ignore"):
            spread = np.sqrt(np.maximum(within[0] + within[1], 0) / freedom)
            difference = means[0] - means[1]
            return np.where(difference == 0, 0.0, difference / spread)

    return statistic


def weighted_auroc(scores: Float64, is_pos: Bools) -> Statistic:
    """Log odds of the AUROC of scores [n, m] as a statistic [k, m], ties one half; half a pair is
    added to either outcome, so that the odds are finite."""
    ranked = []
    for pos, neg in zip(scores[is_pos].T, scores[~is_pos].T, strict=True):
        order = np.argsort(neg)
        sides = (np.searchsorted(neg[order], pos, side) for side in ("left", "right"))
        ranked.append((order, *sides))

    def statistic(weights: Float64) -> Float64:
        of_pos, of_neg = weights[:, is_pos], weights[:, ~is_pos]
        pairs = of_pos.sum(axis=1) * of_neg.sum(axis=1)
        below = np.zeros((len(weights), of_neg.shape[1] + 1))
        found = np.empty((len(weights), len(ranked)))
        for column, (order, first, last) in enumerate(ranked):
            np.cumsum(of_neg[:, order], axis=1, out=below[:, 1:])
            wins = ((below[:, first] + below[:, last]) * of_pos).sum(axis=1) / 2
            found[:, column] = _log_odds(wins, pairs)
        return found

    return statistic


def _log_odds(wins: Float64, of: Float64) -> Float64:
    """NaN where there was nothing to win."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(of > 0, np.log((wins + 0.5) / (of - wins + 0.5)), np.nan)


def _share(log_odds: Float64) -> Float64:
    return np.asarray(1 / (1 + np.exp(-log_odds)))


def auroc_over_prompts(
    scores: Float64, is_pos: Bools, instruction: Labels, question: Labels
) -> Interval:
    """AUROC of scores [n, m] with its interval over instructions and questions; [m] each, NaN of a
    column with a score that is NaN.

    Near 0 or 1 leaving out the one question with a pair the wrong way round moves log odds far,
    and few degrees of freedom make much of it. The end towards one half is therefore no farther
    than that of the score interval of as many independent rows as the sides are worth, which goes
    by how much the scores vary rather than by how the AUROC does.
    """
    rows = np.asarray(instruction), np.asarray(question)
    found = crossed_interval(weighted_auroc(scores, is_pos), *rows)
    value = auroc(scores[is_pos], scores[~is_pos])
    # a NaN is sorted behind all numbers, as if it were the highest score
    value = np.where(np.isnan(scores).any(axis=0), np.nan, value)
    ordered = np.concatenate([scores[is_pos], scores[~is_pos]])
    alone = auroc_interval(ordered, int(is_pos.sum()), _worth(scores, is_pos, rows))
    ends = _of_shares(value, found, lambda: alone)
    is_over, known = value >= CHANCE, np.isfinite(ends.low)
    low = np.where(known & is_over, np.fmax(ends.low, alone.low), ends.low)
    high = np.where(known & ~is_over, np.fmin(ends.high, alone.high), ends.high)
    is_nan = np.isnan(value)
    return Interval(value, np.where(is_nan, np.nan, low), np.where(is_nan, np.nan, high))


def _worth(
    scores: Float64, is_pos: Bools, rows: tuple[npt.NDArray[np.generic], npt.NDArray[np.generic]]
) -> tuple[Float64, Float64]:
    """`effective_n` of the positives and of the negatives."""
    pos, neg = (
        effective_n(scores[side], *(one[side] for one in rows)) for side in (is_pos, ~is_pos)
    )
    return pos, neg


def _of_shares(value: Float64, log_odds: Interval, alone: Callable[[], Interval]) -> Interval:
    """Shares with an interval that was found on the scale of log odds.

    Where a share is 0 or 1, or all scores are equal, leaving out changes nothing: it is there the
    score interval of as many independent rows as the sides are worth, `alone`.
    """
    unknown = np.isnan(log_odds.low)
    at_end = (value == 0) | (value == 1) | (log_odds.low == log_odds.high)
    low = np.where(unknown, np.nan, np.fmin(_share(log_odds.low), value))
    high = np.where(unknown, np.nan, np.fmax(_share(log_odds.high), value))
    if not (at_end & ~unknown).any():
        return Interval(value, low, high)
    ends = alone()
    at_end &= ~unknown
    return Interval(value, np.where(at_end, ends.low, low), np.where(at_end, ends.high, high))


def auroc(pos: Float64, neg: Float64) -> Float64:
    """Chance that a positive outscores a negative, ties one half: [k] for scores [n, k]."""
    is_pos = np.arange(len(pos) + len(neg)) < len(pos)
    return auroc_of_labels(np.concatenate([pos, neg]), is_pos[:, None])


def auroc_of_labels(scores: Float64, is_pos: Bools) -> Float64:
    """`auroc` of scores [n, k] whose columns each have labels of their own: [k]."""
    n_pos = is_pos.sum(axis=0)
    # each positive's rank counts the negatives below it and the positives, half of them on average
    wins = (mid_ranks(scores) * is_pos).sum(axis=0) - n_pos**2 / 2
    return np.asarray(wins / (n_pos * (len(scores) - n_pos)))


def mid_ranks(scores: Float64) -> Float64:
    """Ranks of scores [n, k] within their columns, the lowest one half; equal ones share the mean
    of theirs."""
    order = np.argsort(scores, axis=0)
    found = np.empty(scores.shape)
    np.put_along_axis(found, order, np.arange(len(scores))[:, None] + 0.5, axis=0)
    ordered = np.take_along_axis(scores, order, axis=0)
    for k in np.flatnonzero((ordered[1:] == ordered[:-1]).any(axis=0)):
        found[:, k] = np.searchsorted(ordered[:, k], scores[:, k], "left") / 2
        found[:, k] += np.searchsorted(ordered[:, k], scores[:, k], "right") / 2
    return found


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


def _accuracy_interval(scores: Float64, is_pos: Bools, rows: tuple[Ints, Ints]) -> Interval:
    found = crossed_interval(_weighted_accuracy(scores, is_pos), *rows)
    pos, neg = scores[is_pos], scores[~is_pos]
    midpoint = 0.5 * (pos.mean(axis=0) + neg.mean(axis=0))
    value = 0.5 * ((pos > midpoint).mean(axis=0) + (neg <= midpoint).mean(axis=0))

    def alone() -> Interval:
        n_pos, n_neg = _worth(scores, is_pos, rows)
        # the midpoint comes from the same scores, which costs one degree of freedom
        n = np.maximum(n_pos + n_neg, 2)
        share = n / (n - 1) * (1 / n_pos + 1 / n_neg) / 4
        return score_interval(value, lambda p: np.asarray(p * (1 - p) * share))

    return _of_shares(value, found, alone)


def _weighted_accuracy(scores: Float64, is_pos: Bools) -> Statistic:
    """Log odds of the balanced accuracy at the midpoint of the two means, which follows what is
    left out; half a row is added to either outcome."""
    pos, neg = scores[is_pos], scores[~is_pos]

    def statistic(weights: Float64) -> Float64:
        of_pos, of_neg = weights[:, is_pos], weights[:, ~is_pos]
        n_pos, n_neg = of_pos.sum(axis=1), of_neg.sum(axis=1)
        middle = (weighted_mean(pos, of_pos) + weighted_mean(neg, of_neg)) / 2
        found = np.empty(middle.shape)
        for column, (above, below) in enumerate(zip(pos.T, neg.T, strict=True)):
            limit = middle[:, column, None]
            with np.errstate(invalid="ignore", divide="ignore"):
                right = (of_pos * (above > limit)).sum(axis=1) / n_pos
                right += (of_neg * (below <= limit)).sum(axis=1) / n_neg
            n = np.where(np.isfinite(right), n_pos + n_neg, 0)
            found[:, column] = _log_odds(right / 2 * n, n)
        return found

    return statistic
