"""What tells how good trait vectors are: halves of the questions, left-out instructions, contrast.

Arrays in, arrays out; NaN is what cannot be measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress

import numpy as np

from traitlens.arrays import Float64
from traitlens.assess.chance import Reached, chance_p, random_by_layer
from traitlens.assess.directions import direction_quality, vector_separation
from traitlens.assess.kept_rows import FEWEST_QUESTIONS, Array, Group, KeptRows, independent_groups
from traitlens.methods import METHODS
from traitlens.stats.bootstrap import make_cells
from traitlens.stats.intervals import Interval, percentile_interval
from traitlens.stats.separation import Separation

# With fewer questions each half is a question or none, and says nothing.
QUESTIONS_TO_HALVE = 4


def contrast_interval(
    positive: Sequence[float],
    negative: Sequence[float],
    *,
    groups: tuple[Sequence[Group], Sequence[Group]],
) -> tuple[float, float] | None:
    """95 % interval [low, high] of mean(positive) - mean(negative); `groups` are the prompts.

    Draws whole questions, because what a question adds to one side it adds under every
    instruction; whole prompts where a side has one question. None when a side has fewer than two
    prompts: nothing tells then how much they differ.
    """
    if not has_two(groups):
        return None
    drawn = independent_groups(groups, fewest=2)
    cells = make_cells(drawn, len(positive), len(negative))
    sums = cells.sums(np.array([*positive, *negative], dtype=np.float64))
    found = percentile_interval(
        cells.contrast(cells.draw()) @ sums, n_groups=min(cells.by_polarity)
    )
    # scores run from 0 to 100
    low, high = (float(np.clip(end, -100.0, 100.0)) for end in (found.low, found.high))
    return low, high


def has_two(labels: tuple[Sequence[object], Sequence[object]]) -> bool:
    """Whether both sides have two labels or more: one shows no spread, so no interval."""
    return all(len(set(side)) > 1 for side in labels)


def left_out_instructions(
    pos: Array, neg: Array, rows: tuple[KeptRows, KeptRows]
) -> Interval | None:
    """AUROC on left-out instructions; None where a side has only one.

    Five instructions a side are five observations of what another instruction would do, however
    many prompts they make, so the interval moves whole instructions.
    """
    labels = (rows[0].instruction, rows[1].instruction)
    if not has_two(labels):
        return None
    folds = {"instruction": labels}
    # the draws of the bootstrap are for the angle, which is measured over questions
    found = direction_quality(
        pos, neg, groups=labels, folds=folds, n_bootstrap=1, is_group_one_observation=True
    )
    return found.leave_one_out["instruction"]


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
    fit_groups, test_groups = (independent_groups(h, fewest=FEWEST_QUESTIONS) for h in halves)
    found = {}
    random = random_by_layer(pos[~made[0]], neg[~made[1]], seed=seed)
    for name in methods:
        vectors = METHODS[name](pos[made[0]], neg[made[1]], groups=fit_groups).vectors
        separated = vector_separation(vectors, pos[~made[0]], neg[~made[1]], groups=test_groups)
        reached = zip(separated.auroc.value, separated.cohens_d.value, strict=True)
        own = [Reached(*np.array(one)[:, None]) for one in reached]
        ranks = np.array([chance_p(*pair) for pair in zip(own, random, strict=True)])
        found[name] = HeldOutHalf(separated, len(questions) - len(first), ranks)
    return found


def candidate_layers(n_rows: int) -> range:
    """Layers of n_rows = L+1 that may be chosen: not the embedding, nor the last where avoidable.

    Row L is before the final norm and no later block reads it.
    """
    return range(1, n_rows - 1) if n_rows > 2 else range(n_rows - 1, n_rows)
