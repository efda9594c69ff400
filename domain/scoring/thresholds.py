"""Thresholds: which responses a vector is built from, and why the others fell.

Positives are kept at trait >= T and coherence >= C, negatives at trait < 100 - T and
coherence >= C (persona_vectors' `get_persona_effective`). Unpaired unless asked otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from domain.plan.samples import Sample
from domain.plan.spec import FilterSpec
from domain.scoring.scores import Score, Verdict

Status = Literal["kept", "dropped", "unscored"]


@dataclass(frozen=True)
class Judged:
    """A sample with its two verdicts and the number of tokens measured in its response."""

    sample: Sample
    n_tokens: int
    trait: Verdict
    coherence: Verdict


@dataclass(frozen=True)
class Outcome:
    """What became of a sample; reason is empty for the kept."""

    status: Status
    reason: str = ""


def outcomes(judged: Sequence[Judged], filter_spec: FilterSpec) -> list[Outcome]:
    """The outcome of each sample, in the order given."""
    single = [outcome(one, filter_spec) for one in judged]
    if filter_spec.pairing == "unpaired":
        return single
    kept_cells: dict[tuple[int, int, int], int] = {}
    for one, own in zip(judged, single, strict=True):
        kept_cells[_cell(one)] = kept_cells.get(_cell(one), 0) + (own.status == "kept")
    return [
        Outcome("dropped", "its pair was not kept")
        if own.status == "kept" and kept_cells[_cell(one)] < 2
        else own
        for one, own in zip(judged, single, strict=True)
    ]


def outcome(judged: Judged, filter_spec: FilterSpec) -> Outcome:
    """The outcome of one sample on its own scores."""
    for metric, verdict in (("trait", judged.trait), ("coherence", judged.coherence)):
        if not isinstance(verdict, Score):
            return Outcome("unscored", f"{metric}: {verdict.reason}")
    assert isinstance(judged.trait, Score) and isinstance(judged.coherence, Score)
    if judged.n_tokens == 0:
        return Outcome("dropped", "empty response")
    if judged.coherence.value < filter_spec.coherence:
        return Outcome("dropped", f"coherence under {filter_spec.coherence:g}")
    limit = filter_spec.threshold
    if judged.sample.polarity == "positive" and judged.trait.value < limit:
        return Outcome("dropped", f"positive with trait under {limit:g}")
    if judged.sample.polarity == "negative" and judged.trait.value >= 100 - limit:
        return Outcome("dropped", f"negative with trait at or over {100 - limit:g}")
    return Outcome("kept")


def _cell(judged: Judged) -> tuple[int, int, int]:
    return (judged.sample.instruction, judged.sample.question, judged.sample.rollout)
