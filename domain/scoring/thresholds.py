"""Thresholds: which responses a vector is built from, and why the others fell.

Positives are kept at trait >= T and coherence >= C, negatives at trait < 100 - T and
coherence >= C (persona_vectors' `get_persona_effective`). Unpaired unless asked otherwise.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Literal, TypeVar

from domain.plan.samples import Sample
from domain.plan.spec import FilterSpec
from domain.scoring.scores import Evidence, Metric, Score, Scoring, Unscored, UnscoredReason

Status = Literal["kept", "dropped", "unscored"]


class Fall(StrEnum):
    """Why a response is not kept."""

    UNSCORED = "unscored"
    THOUGHT_OPEN = "thought_open"
    EMPTY = "empty"
    COHERENCE_LOW = "coherence_low"
    TRAIT_LOW = "trait_low"
    TRAIT_HIGH = "trait_high"
    UNPAIRED = "unpaired"


@dataclass(frozen=True)
class Judged:
    """A sample with its two scorings and the number of tokens measured in its response;
    `thought_limit` is the tokens within which its thought did not end, None where it did."""

    sample: Sample
    n_tokens: int
    trait: Scoring
    coherence: Scoring
    thought_limit: int | None = field(default=None, kw_only=True)


J = TypeVar("J", bound=Judged)


@dataclass(frozen=True)
class Outcome:
    """What became of a sample: kept where nothing made it fall.

    `limit` is what a score was held against, or the tokens that a thought did not end within; of
    an unscored sample `metric` is the score that it lacks and `unscored` why.
    """

    fall: Fall | None = None
    limit: float | None = None
    metric: Metric | None = None
    unscored: UnscoredReason | None = None

    @property
    def status(self) -> Status:
        """The status in responses.parquet."""
        if self.fall is None:
            return "kept"
        return "unscored" if self.fall == Fall.UNSCORED else "dropped"


def outcomes(judged: Sequence[J], filter_spec: FilterSpec) -> list[tuple[J, Outcome]]:
    """Each sample with its outcome, in the order given; only samples that vectors are made from are
    pairs, the conditions of a question that tests them are none."""
    single = [outcome(one, filter_spec) for one in judged]
    if filter_spec.pairing == "unpaired" or any(one.sample.part for one in judged):
        return list(zip(judged, single, strict=True))
    cells = [(j.sample.instruction, j.sample.question, j.sample.rollout) for j in judged]
    kept = Counter(cell for cell, own in zip(cells, single, strict=True) if own.fall is None)
    return [
        (one, Outcome(Fall.UNPAIRED) if own.fall is None and kept[cell] < 2 else own)
        for one, cell, own in zip(judged, cells, single, strict=True)
    ]


def outcome(judged: Judged, filter_spec: FilterSpec) -> Outcome:
    """The outcome of one sample on its own scores."""
    if judged.thought_limit is not None:
        return Outcome(Fall.THOUGHT_OPEN, judged.thought_limit)
    trait, coherence = judged.trait, judged.coherence
    if not isinstance(trait, Score):
        if is_unjudged(judged):
            return Outcome() if judged.n_tokens else Outcome(Fall.EMPTY)
        return Outcome(Fall.UNSCORED, metric="trait", unscored=trait.reason)
    if not isinstance(coherence, Score):
        return Outcome(Fall.UNSCORED, metric="coherence", unscored=coherence.reason)
    if judged.n_tokens == 0:
        return Outcome(Fall.EMPTY)
    if coherence.value < filter_spec.coherence:
        return Outcome(Fall.COHERENCE_LOW, filter_spec.coherence)
    low, high = filter_spec.threshold, 100 - filter_spec.threshold
    if judged.sample.polarity == "positive" and trait.value < low:
        return Outcome(Fall.TRAIT_LOW, low)
    if judged.sample.polarity == "negative" and trait.value >= high:
        return Outcome(Fall.TRAIT_HIGH, high)
    return Outcome()


def is_unjudged(judged: Judged) -> bool:
    """Whether nobody was asked about a response: then it is used, whatever it says."""
    return isinstance(judged.trait, Unscored) and judged.trait.reason == "no_judge"


# Reasons of those whom nobody asked.
NOT_ASKED = frozenset({"no_answer", "no_judge"})


def is_missing(judged: Judged, metric: Metric) -> bool:
    """Whether a judge might have given a score and did not: it may be any. A response without a
    token has none to miss."""
    scoring = judged.trait if metric == "trait" else judged.coherence
    is_owed = isinstance(scoring, Unscored) and scoring.reason not in NOT_ASKED
    return is_owed and judged.n_tokens > 0


def with_missing_at(judged: J, *, trait: float, coherence: float) -> J:
    """The sample with these scores where its own are missing."""
    return replace(
        judged,
        trait=_any_score(trait) if is_missing(judged, "trait") else judged.trait,
        coherence=_any_score(coherence) if is_missing(judged, "coherence") else judged.coherence,
    )


def _any_score(value: float) -> Score:
    return Score(value=value, numeric_mass=0.0, refusal_mass=0.0, evidence=Evidence())


def is_readable(judged: Judged, filter_spec: FilterSpec) -> bool:
    """Whether a response can be read as an answer, whatever its trait's score, or without one."""
    coherence = judged.coherence
    is_coherent = is_unjudged(judged) or (
        isinstance(coherence, Score) and coherence.value >= filter_spec.coherence
    )
    return is_coherent and judged.n_tokens > 0


def contrast(positive: Sequence[float], negative: Sequence[float]) -> float | None:
    """Mean positive minus mean negative trait score over all scored responses, kept or not.

    Over the kept alone it would be large by construction: the thresholds push the sides apart.
    """
    if not positive or not negative:
        return None
    return sum(positive) / len(positive) - sum(negative) / len(negative)
