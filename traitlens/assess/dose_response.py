"""What steering does: trait and coherence against strength, with intervals over questions.

The same questions are answered at every strength, and whole questions are drawn, so what differs
between questions leaves the differences between strengths alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from traitlens.arrays import Float64, Labels
from traitlens.stats.bootstrap import bootstrap_means, group_draws
from traitlens.stats.intervals import Interval, percentile_interval, stacked_intervals


@dataclass(frozen=True, eq=False)
class Answers:
    """Scored answers, arrays [n]: the strength that each was given at (0: not steered), its trait
    and coherence scores (NaN: no score), and its question."""

    strength: Float64
    trait: Float64
    coherence: Float64
    question: Labels


@dataclass(frozen=True, eq=False)
class DoseResponse:
    """Curves over `strength` [s], rising from 0: the means of both scores with intervals, and the
    number of answers.

    `slope`: least squares of the trait's means on strength, over the strengths from 0 on that stay
    coherent. `rise`: the trait at `rise_at` minus that at 0. NaN where there is nothing to say.
    """

    strength: Float64
    n: Float64
    trait: Interval
    coherence: Interval
    slope: Interval
    rise: Interval
    rise_at: float | None


def dose_response(answers: Answers, *, floor: float, best: float, seed: int = 0) -> DoseResponse:
    """The curve of one direction; answers at strength 0 are its beginning.

    A strength is coherent when the mean coherence there and at every weaker one is `floor` or more.
    The rise is taken at the strongest coherent strength up to `best`, which was chosen before.
    """
    strengths = np.unique(answers.strength)
    times = group_draws(answers.question, seed=seed)
    n_groups = len(set(np.asarray(answers.question).tolist()))
    interval = partial(percentile_interval, n_groups=n_groups)
    at = [answers.strength == strength for strength in strengths]
    trait = np.stack([bootstrap_means(answers.trait[rows], times[:, rows]) for rows in at], axis=1)
    coherence = np.stack(
        [bootstrap_means(answers.coherence[rows], times[:, rows]) for rows in at], axis=1
    )
    coherent = _n_coherent(coherence[0], floor)
    upto = max((k for k in range(coherent) if strengths[k] <= best), default=0)
    return DoseResponse(
        strength=strengths,
        n=np.array([float(rows.sum()) for rows in at]),
        trait=stacked_intervals([interval(column) for column in trait.T]),
        coherence=stacked_intervals([interval(column) for column in coherence.T]),
        slope=interval(_slopes(strengths[:coherent], trait[:, :coherent])),
        rise=interval(_rise(trait, upto)),
        rise_at=float(strengths[upto]) if upto else None,
    )


def _n_coherent(coherence: Float64, floor: float) -> int:
    """How many strengths, from the weakest on, have mean coherence [s] of `floor` or more; the
    unsteered answers always count, for they are what everything is compared with."""
    fallen = np.flatnonzero(~(coherence[1:] >= floor))
    return len(coherence) if not len(fallen) else int(fallen[0]) + 1


def _slopes(strengths: Float64, trait: Float64) -> Float64:
    """Least-squares slope of trait [b, s] on strengths [s]; NaN with a single strength."""
    if len(strengths) < 2:
        return _unknown(trait)
    centered = strengths - strengths.mean()
    return np.asarray(trait @ centered / (centered @ centered))


def _rise(trait: Float64, upto: int) -> Float64:
    return np.asarray(trait[:, upto] - trait[:, 0]) if upto else _unknown(trait)


def _unknown(times: Float64) -> Float64:
    return np.full(len(times), np.nan)
