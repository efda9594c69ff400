"""What a trait's judged samples count to: who was kept, the scores, and their contrast."""

from __future__ import annotations

from collections.abc import Sequence

from domain.plan.samples import Polarity
from domain.scoring.scores import Score
from domain.scoring.thresholds import Judged, Outcome
from domain.verdict.record import PolarityCounts

Outcomes = Sequence[tuple[Judged, Outcome]]


def kept_counts(found: Outcomes) -> PolarityCounts:
    """The kept samples of each polarity."""
    kept = [judged.sample.polarity for judged, outcome in found if outcome.fall is None]
    return PolarityCounts(positive=kept.count("positive"), negative=kept.count("negative"))


def scores_by_prompt(
    found: Outcomes, polarity: Polarity
) -> tuple[list[float], list[tuple[int, int]]]:
    """The trait scores of one polarity's scored samples, kept or not, and the prompt
    (instruction, question) of each."""
    scores, prompts = [], []
    for judged, _ in found:
        if judged.sample.polarity == polarity and isinstance(judged.trait, Score):
            scores.append(judged.trait.value)
            prompts.append((judged.sample.instruction, judged.sample.question))
    return scores, prompts


def contrast(positive: Sequence[float], negative: Sequence[float]) -> float | None:
    """Mean positive minus mean negative trait score over all scored responses, kept or not.

    Over the kept alone it would be large by construction: the thresholds push the sides apart.
    """
    if not positive or not negative:
        return None
    return sum(positive) / len(positive) - sum(negative) / len(negative)
