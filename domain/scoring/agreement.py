"""How well two sets of scores agree: Spearman, quadratic kappa, calibration.

Scores are on 0..100. NaN-free by construction: what has no score on either side is not a pair,
and the number of pairs stands beside every figure.
"""

from __future__ import annotations

import math
import statistics
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

KAPPA_LEVELS = 11
"""0, 10, ... 100: people agree about tens, not about points."""

CALIBRATION_BINS = 5


@dataclass(frozen=True)
class Bin:
    """One stretch of the first scores: how many, their mean, and the second scores' mean."""

    low: float
    high: float
    n: int
    mean_first: float
    mean_second: float


def spearman(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Pearson's correlation of the ranks, ties sharing their mean rank."""
    first, second = _ranks([a for a, _ in pairs]), _ranks([b for _, b in pairs])
    try:
        return statistics.correlation(first, second)
    except statistics.StatisticsError:
        return None  # a constant side, or fewer than two pairs


@dataclass(frozen=True)
class Agreement:
    """Figures over n pairs; None where they are not defined (a constant side, too few pairs)."""

    n: int
    spearman: float | None
    kappa: float | None
    mean_difference: float | None
    calibration_error: float | None
    bins: tuple[Bin, ...]


def agreement(pairs: Sequence[tuple[float, float]]) -> Agreement:
    """How the second scores follow the first; a judge goes first, people's labels second."""
    bins, n = _bins(pairs), len(pairs)
    error = math.fsum(b.n * abs(b.mean_first - b.mean_second) for b in bins) / n if n else None
    difference = math.fsum(a - b for a, b in pairs) / n if n else None
    return Agreement(n, spearman(pairs), quadratic_kappa(pairs), difference, error, bins)


def quadratic_kappa(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Cohen's kappa over tens with squared distances as weights: 1 - observed / expected."""
    if not pairs:
        return None
    first, second = [_level(a) for a, _ in pairs], [_level(b) for _, b in pairs]
    n = len(pairs)
    observed = sum((a - b) ** 2 for a, b in zip(first, second, strict=True)) / n
    # mean squared distance of two independent draws with the same margins
    expected = (
        sum(a * a for a in first) / n
        + sum(b * b for b in second) / n
        - 2 * (sum(first) / n) * (sum(second) / n)
    )
    return 1 - observed / expected if expected > 1e-12 else None


def _bins(pairs: Sequence[tuple[float, float]]) -> tuple[Bin, ...]:
    width = 100 / CALIBRATION_BINS
    members: dict[int, list[tuple[float, float]]] = {}
    for pair in pairs:
        members.setdefault(min(int(pair[0] / width), CALIBRATION_BINS - 1), []).append(pair)
    found = []
    for k, inside in sorted(members.items()):
        first, second = (math.fsum(side) / len(inside) for side in zip(*inside, strict=True))
        found.append(Bin(k * width, (k + 1) * width, len(inside), first, second))
    return tuple(found)


def _level(score: float) -> int:
    return min(max(round(score / 100 * (KAPPA_LEVELS - 1)), 0), KAPPA_LEVELS - 1)


def _ranks(values: Sequence[float]) -> list[float]:
    ordered = sorted(values)
    return [(bisect_left(ordered, one) + bisect_right(ordered, one) + 1) / 2 for one in values]
