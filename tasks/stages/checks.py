"""How vectors do on the evaluation questions, which they were not made from, and in steering beside
random vectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from domain.plan.samples import POLARITIES, AnyPolarity, Sample
from domain.plan.steering_search import Cell, CellAnswer, mean_steering_worth
from domain.verdict.record import (
    Bounds,
    CausalFigures,
    CurveFigures,
    Estimates,
    EvaluationCounts,
    EvaluationFigures,
    SearchedPush,
    SeparationFigures,
    TestedFigures,
)
from tasks.stages.quality import estimate_of, estimates_of, separation_figures
from traitlens.arrays import Float64
from traitlens.assess.directions import vector_separation
from traitlens.assess.dose_response import Answers, DoseResponse, dose_response
from traitlens.assess.kept_rows import Array, Group
from traitlens.assess.reading import FoldedDirections
from traitlens.stats.correlation import partial_correlation, weighted_correlation
from traitlens.stats.crossed import (
    crossed_interval,
    numbered,
    unseen_variance,
    weighted_difference,
)
from traitlens.stats.intervals import Interval, score_interval
from traitlens.stats.separation import auroc_over_prompts

# Below it answers are no longer read as answers; from it on they are good (the judge's scale).
COHERENCE_FLOOR = 50.0

COHERENCE_GOOD = 75.0

# Of fewer questions a share says nothing.
FEWEST_BACKWARDS = 4
Scored = tuple[Sample, Cell, float | None, float | None]
"""A steered sample, its cell, and its trait and coherence scores."""


def causal_figures(
    scored: Sequence[Scored],
    shown: Sequence[CellAnswer],
    *,
    method: str,
    best: Cell,
    step: float,
    is_missing: Sequence[bool] | None = None,
) -> CausalFigures:
    """What steering does, from the confirmation's samples and from what the search had `shown`.

    `step` is the length of a push of strength 1; `is_missing` says of which samples a judge owes
    the trait score. Raises ValueError without unsteered answers.
    """
    vector, random = (
        dose_response(_answers(scored, kind), floor=COHERENCE_FLOOR, best=best.strength)
        for kind in ("vector", "random")
    )
    good = vector.strength[(vector.coherence.value >= COHERENCE_GOOD) & (vector.strength > 0)]
    worth = mean_steering_worth(shown)
    open_ = is_missing or [False] * len(scored)
    return CausalFigures(
        method=method,
        layer=best.layer,
        best_strength=best.strength,
        step=step,
        n_questions=len({sample.question for sample, *_ in scored}),
        coherence_floor=COHERENCE_FLOOR,
        coherence_good=COHERENCE_GOOD,
        strongest_coherent=float(good.max()) if len(good) else None,
        vector=_curve(vector),
        random=_curve(random),
        backwards=estimate_of(_backwards(scored, vector.rise_at)),
        rise_over_random=estimate_of(_over_random(scored, vector.rise_at)),
        rise_bounds=_bounds(scored, open_, lambda rows: _rise(rows, best.strength)),
        rise_over_random_bounds=_bounds(
            scored, open_, lambda rows: _over_random(rows, vector.rise_at)
        ),
        n_searched=len(shown),
        search=tuple(
            SearchedPush(
                layer=cell.layer,
                strength=cell.strength,
                n=sum(one.cell == cell for one in shown),
                worth=worth[cell],
            )
            for cell in sorted(worth, key=lambda c: (c.layer, c.strength))
        ),
        n_confirmed=len(scored),
    )


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


def _scores(values: Sequence[float | None]) -> Float64:
    return np.array([np.nan if v is None else v for v in values], dtype=np.float64)


def _bounds(
    scored: Sequence[Scored], is_missing: Sequence[bool], figure: Callable[[list[Scored]], Interval]
) -> Bounds | None:
    """A figure that rises with what the vector's push scores and falls with the other scores."""
    if not any(is_missing):
        return None
    ends = []
    for of_vector in (0.0, 100.0):
        filled = [
            (sample, cell, of_vector if cell.direction == "vector" else 100 - of_vector, coherence)
            if missing
            else (sample, cell, trait, coherence)
            for (sample, cell, trait, coherence), missing in zip(scored, is_missing, strict=True)
        ]
        ends.append(estimate_of(figure(filled)))
    return Bounds(n=sum(is_missing), lowest=ends[0], highest=ends[1])


def _rise(scored: Sequence[Scored], strength: float) -> Interval:
    found = dose_response(_answers(scored, "vector"), floor=COHERENCE_FLOOR, best=strength)
    return _within(found.rise, -100.0)


def _over_random(scored: Sequence[Scored], strength: float | None) -> Interval:
    return _within(_rise_over_random(scored, strength), -100.0)


def _rise_over_random(scored: Sequence[Scored], strength: float | None) -> Interval:
    """The trait with the vector minus that with random vectors, at the strength of the rise."""
    rows = [one for one in scored if one[1].strength == strength]
    if strength is None or not rows:
        nothing = np.array(np.nan)
        return Interval(nothing, nothing, nothing)
    questions = [sample.question for sample, *_ in rows]
    trait = _scores([trait for *_, trait, _ in rows])
    is_vector = np.array([cell.direction == "vector" for _, cell, *_ in rows])
    of_rows = np.asarray(questions)
    unseen = sum(unseen_variance(trait[one], of_rows[one]) for one in (is_vector, ~is_vector))
    statistic = weighted_difference(trait, is_vector)
    return crossed_interval(statistic, np.zeros(len(rows)), questions, unseen=unseen)


def _backwards(scored: Sequence[Scored], strength: float | None) -> Interval:
    """The share of questions whose answers have a lower mean trait score with the vector at a
    strength than without a push; questions are what varies."""
    means = (
        _mean_by_question(scored, "none", 0.0),
        _mean_by_question(scored, "vector", strength),
    )
    both = means[0].keys() & means[1].keys()
    if len(both) < FEWEST_BACKWARDS:
        return Interval.unknown()
    share = np.array(np.mean([means[1][question] < means[0][question] for question in both]))
    return score_interval(share, lambda p: p * (1 - p) / len(both))


def _mean_by_question(
    scored: Sequence[Scored], direction: str, strength: float | None
) -> dict[int, float]:
    by_question: dict[int, list[float]] = {}
    for sample, cell, trait, _ in scored:
        if (cell.direction, cell.strength) == (direction, strength) and trait is not None:
            by_question.setdefault(sample.question, []).append(trait)
    return {question: sum(traits) / len(traits) for question, traits in by_question.items()}


def _curve(found: DoseResponse) -> CurveFigures:
    return CurveFigures(
        strength=tuple(found.strength.tolist()),
        n=tuple(int(n) for n in found.n),
        trait=estimates_of(_within(found.trait, 0.0)),
        coherence=estimates_of(_within(found.coherence, 0.0)),
        slope=estimate_of(found.slope),
        rise=estimate_of(_within(found.rise, -100.0)),
        rise_at=found.rise_at,
    )


def _within(found: Interval, least: float) -> Interval:
    """Few questions make intervals that reach beyond what scores of 0 to 100 can do."""
    low, high = (np.clip(end, least, 100.0) for end in (found.low, found.high))
    return Interval(found.value, low, high)


# With fewer a side nothing can be said.
FEWEST_A_SIDE = 4

# Intervals from fewer questions miss a correlation far more often than one time in twenty.
FEWEST_TO_CORRELATE = 6


@dataclass(frozen=True, eq=False)
class Answered:
    """Judged responses to the evaluation questions.

    activations [n, L+1, d_model]; `polarity` [n] is that of the instruction, or plain; `is_example`
    [n] for those whose scores suit it; `is_readable` [n] for coherent ones, scored or not, and
    `may_be_readable` [n] for those as well whose coherence no judge scored (None: no such); trait
    [n] is NaN where a response is unscored or incoherent.
    """

    activations: Array
    polarity: Sequence[AnyPolarity]
    is_example: NDArray[np.bool_]
    is_readable: NDArray[np.bool_]
    trait: Float64
    prompts: Sequence[Group]
    may_be_readable: NDArray[np.bool_] | None = None


def evaluation_figures(
    vectors: Mapping[str, Array],
    answered: Answered,
    *,
    without_instruction: FoldedDirections | None = None,
) -> EvaluationFigures:
    """Each method's vectors [L+1, d_model] on held-out questions, lists over the layers; and what
    mean differences reach that are made `without_instruction`, that of each response.

    Separations are None when a side has fewer than four responses, correlations of the projection
    with the judge's trait score for fewer than six questions.
    Intervals are over instructions and questions.
    """
    polarity = np.array(answered.polarity)
    sides: dict[str, NDArray[np.bool_]] = {name: polarity == name for name in POLARITIES}
    examples = {name: side & answered.is_example for name, side in sides.items()}
    readable = {name: side & answered.is_readable for name, side in sides.items()}
    open_, may = answered.may_be_readable, {}
    if open_ is not None:
        may = {name: side & open_ for name, side in sides.items()}
    is_plain, everything = polarity == "plain", np.ones(len(polarity), bool)
    questions = [question for _, question in answered.prompts]
    return EvaluationFigures(
        n=EvaluationCounts(
            positive=int(examples["positive"].sum()),
            negative=int(examples["negative"].sum()),
            plain=int((is_plain & np.isfinite(answered.trait)).sum()),
        ),
        n_questions=len(set(questions)),
        score_within=_score_within(answered),
        left_out_instruction_auroc=_left_out_instruction(without_instruction, answered, readable),
        methods={
            name: TestedFigures(
                readable=_separation(vector, answered, readable),
                with_unscored=_separation(vector, answered, may) if may else None,
                separation=_separation(vector, answered, examples),
                correlation=_correlation(vector, answered, everything),
                correlation_within=_correlation_within(vector, answered),
                correlation_plain=_correlation(vector, answered, is_plain),
            )
            for name, vector in vectors.items()
        },
    )


def _separation(
    vectors: Array, answered: Answered, sides: Mapping[str, NDArray[np.bool_]]
) -> SeparationFigures | None:
    pos, neg = sides["positive"], sides["negative"]
    if min(pos.sum(), neg.sum()) < FEWEST_A_SIDE:
        return None
    prompts = [[answered.prompts[int(k)] for k in np.flatnonzero(rows)] for rows in (pos, neg)]
    found = vector_separation(
        vectors,
        answered.activations[pos],
        answered.activations[neg],
        prompts=(prompts[0], prompts[1]),
    )
    return separation_figures(found)


def _left_out_instruction(
    directions: FoldedDirections | None, answered: Answered, sides: Mapping[str, NDArray[np.bool_]]
) -> Estimates | None:
    """AUROC between readable responses of both sides, each scored by a direction that is made of
    the other instruction pairs; None where those are too few."""
    rows = np.flatnonzero(sides["positive"] | sides["negative"])
    is_pos = sides["positive"][rows]
    prompts = [answered.prompts[int(k)] for k in rows]
    instructions, questions = [i for i, _ in prompts], [q for _, q in prompts]
    is_few = min(is_pos.sum(), (~is_pos).sum()) < FEWEST_A_SIDE or len(set(instructions)) < 2
    if directions is None or is_few:
        return None
    scores = directions.scores(answered.activations[rows], instructions)
    if not np.isfinite(scores).all():
        return None
    return estimates_of(auroc_over_prompts(scores, is_pos, instructions, questions))


def _correlation(vectors: Array, answered: Answered, rows: NDArray[np.bool_]) -> Estimates | None:
    rows = rows & np.isfinite(answered.trait)
    prompts = [answered.prompts[int(k)] for k in np.flatnonzero(rows)]
    instructions, questions = [i for i, _ in prompts], [q for _, q in prompts]
    if len(set(questions)) < FEWEST_TO_CORRELATE:
        return None
    scores = _projections(vectors, answered.activations[rows])
    z = crossed_interval(
        weighted_correlation(scores, answered.trait[rows]), instructions, questions
    )
    return estimates_of(Interval(np.tanh(z.value), np.tanh(z.low), np.tanh(z.high)))


def _correlation_within(vectors: Array, answered: Answered) -> Estimates | None:
    """Given the polarity and the instruction of each response."""
    rows = np.flatnonzero(np.isfinite(answered.trait))
    questions = [answered.prompts[int(k)][1] for k in rows]
    if len(set(questions)) < FEWEST_TO_CORRELATE:
        return None
    found = partial_correlation(
        _projections(vectors, answered.activations[rows]),
        answered.trait[rows],
        condition=_conditions(answered, rows),
        question=questions,
    )
    return estimates_of(found)


def _score_within(answered: Answered) -> float | None:
    """The share of the trait scores' variance that lies within polarity and instruction."""
    rows = np.flatnonzero(np.isfinite(answered.trait))
    of_row = numbered(_conditions(answered, rows))
    trait = answered.trait[rows]
    if not len(trait) or not trait.var() > 0:
        return None
    means = np.bincount(of_row, trait) / np.bincount(of_row)
    return float(((trait - means[of_row]) ** 2).mean() / trait.var())


def _conditions(answered: Answered, rows: NDArray[np.intp]) -> list[tuple[AnyPolarity, int]]:
    return [(answered.polarity[int(k)], answered.prompts[int(k)][0]) for k in rows]


def _projections(vectors: Array, activations: Array) -> Float64:
    """Of activations [n, L+1, d_model] on vectors [L+1, d_model] of length 1: [n, L+1]."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    units = vectors / np.where(norms > 0, norms, 1)
    return np.asarray(np.einsum("nld,ld->nl", activations, units), dtype=np.float64)
