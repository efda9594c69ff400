"""How vectors do on the evaluation questions, which they were not made from: arrays in, dict out.

Knows nothing of stores or verdicts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from traitlens.intervals import Interval
from traitlens.quality import vector_separation
from traitlens.weighted import correlations, group_draws, interval_of
from workers.kept_rows import Array, Float64, Group
from workers.plain_numbers import interval_json, separation_json

# With fewer a side nothing can be said.
FEWEST_A_SIDE = 4
# Intervals from fewer questions miss a correlation far more often than one time in twenty.
FEWEST_TO_CORRELATE = 6


@dataclass(frozen=True, eq=False)
class Answered:
    """Judged responses to the evaluation questions.

    activations [n, L+1, d_model]; `side` [n] is positive or negative for those that count as an
    example of it, "" for the others; `is_plain` [n] for those without an instruction; trait [n] is
    NaN where a response is unscored or incoherent.
    """

    activations: Array
    side: Sequence[str]
    is_plain: NDArray[np.bool_]
    trait: Float64
    prompts: Sequence[Group]


def evaluation(vectors: Mapping[str, Array], answered: Answered) -> dict[str, Any]:
    """Each method's vectors [L+1, d_model] on held-out questions, lists over the layers.

    `separation` is between instructed responses that count as positive and as negative, None when
    a side has fewer than two; `correlation` is of the projection with the judge's trait score, over
    all responses and over those without an instruction, None for fewer than six questions.
    Intervals draw whole questions.
    """
    side = np.array(answered.side)
    sides = {name: side == name for name in ("positive", "negative")}
    questions = [question for _, question in answered.prompts]
    return {
        "n": {name: int(rows.sum()) for name, rows in sides.items()}
        | {"plain": int((answered.is_plain & np.isfinite(answered.trait)).sum())},
        "n_questions": len(set(questions)),
        "methods": {
            name: {
                "separation": _separation(vector, answered, sides),
                "correlation": _correlation(vector, answered, np.ones(len(questions), bool)),
                "correlation_plain": _correlation(vector, answered, answered.is_plain),
            }
            for name, vector in vectors.items()
        },
    }


def _separation(
    vectors: Array, answered: Answered, sides: Mapping[str, NDArray[np.bool_]]
) -> dict[str, Any] | None:
    pos, neg = sides["positive"], sides["negative"]
    if min(pos.sum(), neg.sum()) < FEWEST_A_SIDE:
        return None
    groups = [[answered.prompts[k][1] for k in np.flatnonzero(rows)] for rows in (pos, neg)]
    found = vector_separation(
        vectors,
        answered.activations[pos],
        answered.activations[neg],
        groups=(groups[0], groups[1]),
    )
    return separation_json(found)


def _correlation(
    vectors: Array, answered: Answered, rows: NDArray[np.bool_]
) -> dict[str, Any] | None:
    rows = rows & np.isfinite(answered.trait)
    questions = [answered.prompts[k][1] for k in np.flatnonzero(rows)]
    if len(set(questions)) < FEWEST_TO_CORRELATE:
        return None
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    units = vectors / np.where(norms > 0, norms, 1)
    scores = np.einsum("nld,ld->nl", answered.activations[rows], units).astype(np.float64)
    draws = correlations(scores, answered.trait[rows], group_draws(questions))
    found = interval_of(draws, n_groups=len(set(questions)))
    return interval_json(
        Interval(found.value, np.maximum(found.low, -1), np.minimum(found.high, 1))
    )
