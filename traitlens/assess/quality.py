"""What tells how good trait vectors are: halves of the questions, left-out instructions, contrast.

Arrays in, arrays out; NaN is what cannot be measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress

import numpy as np

from traitlens.arrays import Bools, Float64, Ints
from traitlens.assess.chance import Reached, chance_p, random_by_layer
from traitlens.assess.directions import vector_separation
from traitlens.assess.kept_rows import FEWEST_QUESTIONS, Array, Group, KeptRows, independent_groups
from traitlens.methods import METHODS
from traitlens.stats.crossed import (
    StandardDeviations,
    crossed_interval,
    standard_deviations,
    weighted_difference,
)
from traitlens.stats.separation import Separation, separation_labels

# With fewer questions each half is a question or none, and says nothing.
QUESTIONS_TO_HALVE = 4


def contrast_interval(
    positive: Sequence[float],
    negative: Sequence[float],
    *,
    prompts: tuple[Sequence[Group], Sequence[Group]],
) -> tuple[float, float] | None:
    """95 % interval [low, high] of mean(positive) - mean(negative) over instructions and questions.

    None when a side has fewer than two prompts: nothing tells then how much they differ.
    """
    if not has_two(prompts):
        return None
    values, is_pos, instruction, question = _scored(positive, negative, prompts)
    found = crossed_interval(weighted_difference(values, is_pos), instruction, question)
    # scores run from 0 to 100
    low, high = (float(np.clip(end, -100.0, 100.0)) for end in (found.low, found.high))
    return (low, high) if np.isfinite(low) else None


def contrast_deviations(
    positive: Sequence[float],
    negative: Sequence[float],
    *,
    prompts: tuple[Sequence[Group], Sequence[Group]],
) -> StandardDeviations:
    """What the contrast varies with, in points of the judge's scale."""
    return standard_deviations(*_scored(positive, negative, prompts))


def _scored(
    positive: Sequence[float],
    negative: Sequence[float],
    prompts: tuple[Sequence[Group], Sequence[Group]],
) -> tuple[Float64, Bools, Ints, Ints]:
    values = np.array([*positive, *negative], dtype=np.float64)
    rows = separation_labels(prompts, len(positive), len(negative))
    return values, np.arange(len(values)) < len(positive), *rows


def has_two(labels: tuple[Sequence[object], Sequence[object]]) -> bool:
    """Whether both sides have two labels or more: one shows no spread, so no interval."""
    return all(len(set(side)) > 1 for side in labels)


def residual_norms(pos: Array, neg: Array) -> Float64:
    """Mean norm of the kept activations at each layer, both sides: [L+1]."""
    total = sum(
        np.sqrt(np.einsum("nld,nld->nl", side, side)).sum(axis=0, dtype=np.float64)
        for side in (pos, neg)
    )
    return np.asarray(total / (len(pos) + len(neg)))


@dataclass(frozen=True, eq=False)
class HeldOutHalf:
    """How vectors separate the questions that they were not made from, how many those are, and
    each layer's p-value among random directions [L+1]."""

    separation: Separation
    n_questions: int
    random_p: Float64


def held_out_halves(
    methods: Sequence[str], pos: Array, neg: Array, *, rows: tuple[KeptRows, KeptRows], seed: int
) -> dict[str, HeldOutHalf]:
    """Each method made from half of the questions and tested on the other half; {} if too few."""
    questions = sorted(set(rows[0].question) & set(rows[1].question))
    if len(questions) < QUESTIONS_TO_HALVE:
        return {}
    first = np.random.default_rng(seed).permutation(questions)[: len(questions) // 2]
    made = [np.isin(side.question, first) for side in rows]
    halves = [
        (list(compress(rows[0].prompts, kept[0])), list(compress(rows[1].prompts, kept[1])))
        for kept in (made, [~side for side in made])
    ]
    if not all(has_two(half) for half in halves):
        return {}
    tested, fit_groups = halves[1], independent_groups(halves[0], fewest=FEWEST_QUESTIONS)
    found = {}
    random = random_by_layer(pos[~made[0]], neg[~made[1]], seed=seed)
    for name in methods:
        vectors = METHODS[name](pos[made[0]], neg[made[1]], groups=fit_groups).vectors
        separated = vector_separation(vectors, pos[~made[0]], neg[~made[1]], prompts=tested)
        reached = zip(separated.auroc.value, separated.cohens_d.value, strict=True)
        own = [Reached(*np.array(one)[:, None]) for one in reached]
        ranks = np.array([chance_p(*pair) for pair in zip(own, random, strict=True)])
        found[name] = HeldOutHalf(separated, len(questions) - len(first), ranks)
    return found
