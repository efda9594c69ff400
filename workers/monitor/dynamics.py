"""Dynamics of many responses: each one's measures, what they have in common, and averages around an
event.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domain.errors import UsageError
from traitlens.dynamics.trajectory import (
    AlignedAverage,
    as_scores,
    event_aligned_average,
    find_decision_point,
    trait_dynamics,
)
from traitlens.errors import NonFiniteError

Scores = NDArray[np.float64]

# A step counts as a commitment when so few trajectories without a step show one as clear.
CLEAR = 0.05

EVENTS = ("commitment", "documents", "decision", "peak")


@dataclass(frozen=True)
class TraitDynamics:
    """One trait over n responses; medians are over those that have the measure, else None."""

    n: int
    committed: int
    commitment: float | None
    height_sd: float | None
    half_life: float | None
    documents_commitment: float | None
    documents_persistence: float | None
    peak_velocity: float | None


def dynamics(
    scores: Mapping[str, Sequence[float]], *, null: Mapping[str, Sequence[Scores]] | None = None
) -> dict[str, Any]:
    """The documents' measures and the scale-free ones of each trait, ready for JSON.

    `null` holds each trait's neutral trajectories. Raises UsageError for a score that is no number
    or a trait without neutral ones.
    """
    found = {}
    for trait, values in scores.items():
        if null is not None and trait not in null:
            raise UsageError(f"the null file has no scores of {trait}: choose other --traits")
        try:
            found[trait] = trait_dynamics(values, null=None if null is None else null[trait])
        except NonFiniteError as error:
            raise UsageError(f"{trait}: {error}") from error
    return found


def in_common(found: Sequence[Mapping[str, Any]]) -> TraitDynamics:
    """What one trait's measures have in common over responses."""
    free = [one["scale_free"] for one in found]
    clear = [one for one in free if one["p_value"] is not None and one["p_value"] <= CLEAR]
    return TraitDynamics(
        n=len(found),
        committed=len(clear),
        commitment=_median([one["commitment_point"] for one in clear]),
        height_sd=_median([one["height_sd"] for one in clear]),
        half_life=_median([one["half_life"] for one in free]),
        documents_commitment=_median([one["commitment_point"] for one in found]),
        documents_persistence=_median([one["persistence"] for one in found]),
        peak_velocity=_median([one["peak_velocity"] for one in found]),
    )


def find_event(
    event: str, tokens: Sequence[str], scores: Sequence[float], measures: Mapping[str, Any]
) -> int | None:
    """The token at which the event happens, None where it does not.

    "commitment": the clear step of the scale-free measures; "documents": the documents' commitment
    point; "decision": seed 002's rule; "peak": the highest score; anything else is a regular
    expression, and the event is the token in which its first match begins.
    """
    if event == "commitment":
        free = measures["scale_free"]
        is_clear = free["p_value"] is not None and free["p_value"] <= CLEAR
        return free["commitment_point"] if is_clear else None
    if event == "documents":
        point: int | None = measures["commitment_point"]
        return point
    if event == "decision":
        return find_decision_point(scores)
    if event == "peak":
        return int(np.argmax(scores)) if len(scores) else None
    return _matched(event, tokens)


def averaged(
    trajectories: Sequence[Sequence[float]],
    events: Sequence[int | None],
    *,
    before: int,
    after: int,
) -> AlignedAverage:
    """The mean score at each offset from the event, with an interval over responses."""
    rows = [as_scores(one) for one in trajectories]
    return event_aligned_average(rows, events, before=before, after=after)


def _matched(pattern: str, tokens: Sequence[str]) -> int | None:
    try:
        match = re.search(pattern, "".join(tokens))
    except re.error as error:
        known = ", ".join(EVENTS)
        raise UsageError(
            f"--align {pattern!r} is neither {known} nor a regular expression: {error}"
        ) from error
    if match is None:
        return None
    ends = np.cumsum([len(token) for token in tokens])
    return int(np.searchsorted(ends, match.start(), side="right"))


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None
