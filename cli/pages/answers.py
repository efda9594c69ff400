"""Every response of a run as columns: what a person reads, sorts and links in the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domain.plan.jobs import CHECKED, Job
from domain.plan.samples import EVALUATION, ROUNDS
from domain.plan.steering_search import Cell
from domain.scoring.scores import Score, Scoring, score_value
from domain.scoring.thresholds import Fall, Outcome, outcomes
from domain.traits.definition import TraitDefinition
from domain.verdict.record import TraitMetrics
from domain.verdict.sentences import fall_text
from domain.verdict.uses import use_layers
from storage.record.artifacts import load_record
from storage.record.contexts import load_contexts
from storage.record.judged_samples import judged_samples, training_jobs
from storage.record.judgements import on_judgement_of
from storage.record.responses import ACTIVATIONS, load_activations
from storage.record.results import SampleResult, read_response_vectors
from storage.record.run import Run, load_definition

EXTRACTION = "extraction"
"""The part that vectors are made from, both polarities."""

# The tail of the judge's alternatives holds almost no mass.
CANDIDATES_SHOWN = 5

# Of one reply of a judge that explains itself.
REPLY_CHARACTERS = 2000


@dataclass(frozen=True)
class Answer:
    """One response with all that is known of it; None is what its part has not, or was not kept.

    Projections are on the direction that `answer_table` names: in the response's own context, after
    the opposite instruction and after the question alone. `cut` is the whole length in characters
    of a response that the page holds the beginning of, `system` the turn with the instruction.
    """

    key: str
    part: str
    polarity: str
    instruction: str
    system: str | None
    question: str
    rollout: int
    response: str
    cut: int | None
    n_tokens: int
    finish: str
    trait_score: float | None
    coherence_score: float | None
    trait_bounds: tuple[float, float] | None
    coherence_bounds: tuple[float, float] | None
    status: str
    reason: str
    fall: Fall | None
    direction: str | None
    layer: int | None
    strength: float | None
    projection: float | None
    projection_opposite: float | None
    projection_plain: float | None
    judge_trait: dict[str, Any]
    judge_coherence: dict[str, Any]


# Columns of few values: each stands in the page once, the rows hold its number.
CODED = (
    "part",
    "polarity",
    "instruction",
    "system",
    "question",
    "finish",
    "status",
    "reason",
    "fall",
    "direction",
)


def trait_answers(run: Run, metrics: TraitMetrics) -> list[Answer]:
    """The responses of a trait that are judged: those its vectors are made from, those they are
    tested on, and those of steering."""
    # torch is not loaded for --help
    from tasks.stages.steering_cells import recorded_cells

    run, own = on_judgement_of(run, metrics), replace(run, judgement=None)
    trait, done = run.spec.trait(metrics.trait), run.done(metrics.trait)
    onto, definition = _Direction.of(run, metrics), load_definition(run, trait.name)
    training = training_jobs(run, trait, "generate")
    found = _answers(run, training, definition, onto, cells=[])
    for part in CHECKED:
        # the search for the best push went by the run's own scores
        judged = own if part in ROUNDS else run
        jobs = run.plan.part_jobs(trait, "generate", part)
        jobs = [job for job in jobs if judged.plan.settling_job(job).key in done]
        if jobs:
            cells = [] if part == EVALUATION else recorded_cells(run, trait.name, part)
            found += _answers(judged, jobs, definition, onto, cells=cells)
    contexts = [job for job in run.plan.contexts_jobs(trait) if job.key in done]
    return _read_again(run, contexts, found, onto) if onto and contexts else found


def answer_table(answers: Sequence[Answer], metrics: TraitMetrics) -> dict[str, Any]:
    """The columns of a trait's answers by name, and which direction their projections are on."""
    columns: dict[str, Any] = {
        one.name: [getattr(answer, one.name) for answer in answers] for one in fields(Answer)
    }
    for name in CODED:
        values = sorted(set(columns[name]), key=lambda value: (value is not None, str(value)))
        places = {value: k for k, value in enumerate(values)}
        columns[name] = {"values": values, "of": [places[value] for value in columns[name]]}
    quality = metrics.quality
    onto = quality and {
        "method": quality.best.method,
        "layer": use_layers(quality, quality.best.method)[0],
    }
    return {"n": len(answers), "projected_onto": onto, **columns}


def judged_answer(scoring: Scoring) -> dict[str, Any]:
    """What the judge answered, word for word, with its likeliest tokens."""
    evidence = scoring.evidence
    found: dict[str, Any] = {
        "replies": [
            {
                "text": reply.text[:REPLY_CHARACTERS],
                "cut": len(reply.text) if len(reply.text) > REPLY_CHARACTERS else None,
                "tokens": [
                    [c.token, round(c.probability, 4)]
                    for c in sorted(reply.candidates, key=lambda c: -c.probability)
                ][:CANDIDATES_SHOWN],
            }
            for reply in (evidence.replies if evidence else ())
        ]
    }
    if not isinstance(scoring, Score):
        found["unscored"] = f"{scoring.reason}: {scoring.detail}".rstrip(": ")
    return found


@dataclass(frozen=True, eq=False)
class _Direction:
    """Of length 1, at a layer."""

    unit: NDArray[np.float64]
    layer: int

    @classmethod
    def of(cls, run: Run, metrics: TraitMetrics) -> _Direction | None:
        """The best method's vector at the reading layer; None without vectors or of length 0."""
        quality = metrics.quality
        if quality is None:
            return None
        layer, _ = use_layers(quality, quality.best.method)
        row = read_response_vectors(run.store, metrics.trait, quality.best.method)[layer]
        norm = np.linalg.norm(row.astype(np.float64))
        return cls(row / norm, layer) if norm else None

    def projections(self, activations: NDArray[np.float32]) -> list[float]:
        """Of activations [n, L+1, d_model]."""
        found: list[float] = (activations[:, self.layer].astype(np.float64) @ self.unit).tolist()
        return found


def _answers(
    run: Run,
    jobs: Sequence[Job],
    definition: TraitDefinition,
    onto: _Direction | None,
    *,
    cells: Sequence[Cell],
) -> list[Answer]:
    found: list[Answer] = []
    projections = [one for job in jobs for one in _projections(run, job, onto)]
    results = outcomes(judged_samples(run, jobs), run.spec.filter)
    for (one, outcome), projection in zip(results, projections, strict=True):
        cell = None if one.sample.cell is None else cells[one.sample.cell]
        system = definition.system_turn(one.sample.instruction, one.sample.polarity)
        found.append(_answer(one, outcome, cell, projection, system))
    return found


def _projections(run: Run, job: Job, onto: _Direction | None) -> Sequence[float | None]:
    """One a response of the job; None where steered responses' activations are not kept."""
    record = load_record(run.store, job)
    if onto is None or ACTIVATIONS not in record.files:
        return [None] * int(str(record.info["n_samples"]))
    return onto.projections(load_activations(run.store, job).response_avg)


def _read_again(
    run: Run, jobs: Sequence[Job], answers: Sequence[Answer], onto: _Direction
) -> list[Answer]:
    """The answers, those that were read again in other contexts with their projections there."""
    there: dict[str, tuple[float, float]] = {}
    for stored in (load_contexts(run.store, job) for job in jobs):
        both = map(onto.projections, (stored.opposite, stored.plain))
        there |= dict(zip(stored.keys, zip(*both, strict=True), strict=True))
    names = ("projection_opposite", "projection_plain")
    return [
        replace(one, **dict(zip(names, there[one.key], strict=True))) if one.key in there else one  # type: ignore[arg-type]
        for one in answers
    ]


def _answer(
    one: SampleResult,
    outcome: Outcome,
    cell: Cell | None,
    projection: float | None,
    system: str | None,
) -> Answer:
    sample = one.sample
    return Answer(
        key=sample.key,
        part=sample.part or EXTRACTION,
        polarity=sample.polarity,
        instruction=one.instruction,
        system=system,
        question=one.question,
        rollout=sample.rollout,
        response=one.response.response,
        cut=None,
        n_tokens=one.n_tokens,
        finish=one.response.finish,
        trait_score=score_value(one.trait),
        coherence_score=score_value(one.coherence),
        trait_bounds=getattr(one.trait, "bounds", None),
        coherence_bounds=getattr(one.coherence, "bounds", None),
        status=outcome.status,
        reason=fall_text(outcome),
        fall=outcome.fall,
        direction=cell.direction if cell else None,
        layer=cell.layer if cell else None,
        strength=cell.strength if cell else None,
        projection=projection,
        projection_opposite=None,
        projection_plain=None,
        judge_trait=judged_answer(one.trait),
        judge_coherence=judged_answer(one.coherence),
    )
