"""How well two sets of scores agree: Spearman, quadratic kappa, calibration.

Scores are on 0..100. NaN-free by construction: what has no score on either side is not a pair,
and the number of pairs stands beside every figure.
"""

from __future__ import annotations

import math
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
    if len(pairs) < 2:
        return None
    first, second = _ranks([a for a, _ in pairs]), _ranks([b for _, b in pairs])
    mean = (len(pairs) + 1) / 2
    covariance = math.fsum((a - mean) * (b - mean) for a, b in zip(first, second, strict=True))
    spread = math.fsum((a - mean) ** 2 for a in first) * math.fsum((b - mean) ** 2 for b in second)
    return covariance / math.sqrt(spread) if spread > 0 else None


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
    bins = _bins(pairs)
    n = len(pairs)
    error = math.fsum(b.n * abs(b.mean_first - b.mean_second) for b in bins) / n if n else None
    return Agreement(
        n=n,
        spearman=spearman(pairs),
        kappa=quadratic_kappa(pairs),
        mean_difference=math.fsum(a - b for a, b in pairs) / n if n else None,
        calibration_error=error,
        bins=tuple(bins),
    )


def quadratic_kappa(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Cohen's kappa over tens with squared distances as weights: 1 - observed / expected."""
    if not pairs:
        return None
    levels = [(_level(a), _level(b)) for a, b in pairs]
    n = len(levels)
    observed = sum((a - b) ** 2 for a, b in levels) / n
    first, second = [a for a, _ in levels], [b for _, b in levels]
    # mean squared distance of two independent draws with the same margins
    expected = (
        sum(a * a for a in first) / n
        + sum(b * b for b in second) / n
        - 2 * (sum(first) / n) * (sum(second) / n)
    )
    return 1 - observed / expected if expected > 1e-12 else None


def _bins(pairs: Sequence[tuple[float, float]]) -> list[Bin]:
    width = 100 / CALIBRATION_BINS
    members: dict[int, list[tuple[float, float]]] = {}
    for pair in pairs:
        members.setdefault(min(int(pair[0] / width), CALIBRATION_BINS - 1), []).append(pair)
    return [
        Bin(
            low=k * width,
            high=(k + 1) * width,
            n=len(found),
            mean_first=math.fsum(a for a, _ in found) / len(found),
            mean_second=math.fsum(b for _, b in found) / len(found),
        )
        for k, found in sorted(members.items())
    ]


def _level(score: float) -> int:
    return min(max(round(score / 100 * (KAPPA_LEVELS - 1)), 0), KAPPA_LEVELS - 1)


def _ranks(values: Sequence[float]) -> list[float]:
    order = sorted(range(len(values)), key=values.__getitem__)
    ranks = [0.0] * len(values)
    start = 0
    while start < len(order):
        end = start
        while end < len(order) and values[order[end]] == values[order[start]]:
            end += 1
        for k in order[start:end]:
            ranks[k] = (start + end + 1) / 2
        start = end
    return ranks
