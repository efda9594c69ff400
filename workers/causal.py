"""The dose-response of a vector beside that of random ones: scored answers in, plain dict out.

Knows nothing of stores or verdicts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from orchestrator.samples import Sample
from orchestrator.steering_rounds import Cell
from traitlens.dose_response import Answers, DoseResponse, dose_response
from traitlens.intervals import Interval
from traitlens.weighted import group_draws, interval_of, means
from workers.plain_numbers import interval_json, numbers

# Below it answers are no longer read as answers; from it on they are good (the judge's scale).
COHERENCE_FLOOR = 50.0
COHERENCE_GOOD = 75.0

Scored = tuple[Sample, Cell, float | None, float | None]
"""A steered sample, its cell, and its trait and coherence scores."""


def causal(scored: Sequence[Scored], *, method: str, best: Cell, step: float) -> dict[str, Any]:
    """The quality dict's `causal`, from the confirmation's samples.

    `step` is the length of a push of strength 1. Raises ValueError without unsteered answers.
    """
    vector, random = (
        dose_response(_answers(scored, kind), floor=COHERENCE_FLOOR, best=best.strength)
        for kind in ("vector", "random")
    )
    good = vector.strength[(vector.coherence.value >= COHERENCE_GOOD) & (vector.strength > 0)]
    return {
        "method": method,
        "layer": best.layer,
        "best_strength": best.strength,
        "step": step,
        "n_questions": len({sample.question for sample, *_ in scored}),
        "coherence_floor": COHERENCE_FLOOR,
        "coherence_good": COHERENCE_GOOD,
        "strongest_coherent": float(good.max()) if len(good) else None,
        "vector": _curve(vector),
        "random": _curve(random),
        "rise_over_random": _one(_within(_rise_over_random(scored, vector.rise_at), -100.0)),
    }


def _answers(scored: Sequence[Scored], kind: str) -> Answers:
    rows = [one for one in scored if one[1].direction in ("none", kind)]
    if not any(cell.direction == "none" for _, cell, *_ in rows):
        raise ValueError("a dose-response begins with unsteered answers: there are none")
    return Answers(
        strength=np.array([cell.strength for _, cell, *_ in rows]),
        trait=_scores([trait for *_, trait, _ in rows]),
        coherence=_scores([coherence for *_, coherence in rows]),
        question=[sample.question for sample, *_ in rows],
    )


def _scores(values: Sequence[float | None]) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([np.nan if v is None else v for v in values], dtype=np.float64)


def _rise_over_random(scored: Sequence[Scored], strength: float | None) -> Interval:
    """The trait with the vector minus that with random vectors, at the strength of the rise."""
    rows = [one for one in scored if one[1].strength == strength]
    if strength is None or not rows:
        nothing = np.array(np.nan)
        return Interval(nothing, nothing, nothing)
    questions = [sample.question for sample, *_ in rows]
    times, trait = group_draws(questions), _scores([trait for *_, trait, _ in rows])
    sides = [np.array([cell.direction == k for _, cell, *_ in rows]) for k in ("vector", "random")]
    drawn = [means(trait[side], times[:, side]) for side in sides]
    return interval_of(drawn[0] - drawn[1], n_groups=len(set(questions)))


def _curve(found: DoseResponse) -> dict[str, Any]:
    return {
        "strength": numbers(found.strength),
        "n": [int(n) for n in found.n],
        "trait": interval_json(_within(found.trait, 0.0)),
        "coherence": interval_json(_within(found.coherence, 0.0)),
        "slope": _one(found.slope),
        "rise": _one(_within(found.rise, -100.0)),
        "rise_at": found.rise_at,
    }


def _within(found: Interval, least: float) -> Interval:
    """Few questions make intervals that reach beyond what scores of 0 to 100 can do."""
    low, high = (np.clip(end, least, 100.0) for end in (found.low, found.high))
    return Interval(found.value, low, high)


def _one(found: Interval) -> dict[str, Any]:
    """A single number with its interval."""
    body = interval_json(found)
    return {"value": body["value"][0], "interval": body["interval"][0]}
