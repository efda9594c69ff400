"""What steering does: trait and coherence against strength, with intervals over questions.

The same questions are answered at every strength, and whole questions are left out, so what differs
between questions leaves the differences between strengths alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from traitlens.arrays import Float64, Labels
from traitlens.stats.crossed import Statistic, crossed_interval, unseen_variance, weighted_mean
from traitlens.stats.intervals import Interval


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


def dose_response(answers: Answers, *, floor: float, best: float) -> DoseResponse:
    """The curve of one direction; answers at strength 0 are its beginning.

    A strength is coherent when the mean coherence there and at every weaker one is `floor` or more.
    Answers that all score the same are not taken to be sure of that (`unseen_variance`).
    The rise is taken at the strongest coherent strength up to `best`, which was chosen before.
    """
    strengths = np.unique(answers.strength)
    at = [answers.strength == strength for strength in strengths]
    # the same questions stand under one instruction or none
    one, question = np.zeros(len(answers.strength)), answers.question

    def means(scores: Float64) -> Statistic:
        return lambda weights: np.stack(
            [weighted_mean(scores[rows], weights[:, rows]) for rows in at], axis=1
        )

    trait = means(answers.trait)
    labels = np.asarray(question)
    unseen = np.array([unseen_variance(answers.trait[rows], labels[rows]) for rows in at])
    coherence = crossed_interval(means(answers.coherence), one, question)
    coherent = _n_coherent(coherence.value, floor)
    upto = max((k for k in range(coherent) if strengths[k] <= best), default=0)
    return DoseResponse(
        strength=strengths,
        n=np.array([float(rows.sum()) for rows in at]),
        trait=crossed_interval(trait, one, question, unseen=unseen),
        coherence=coherence,
        slope=crossed_interval(
            lambda weights: _slopes(strengths[:coherent], trait(weights)[:, :coherent]),
            one,
            question,
        ),
        rise=crossed_interval(
            lambda weights: _rise(trait(weights), upto),
            one,
            question,
            unseen=unseen[upto] + unseen[0],
        ),
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
