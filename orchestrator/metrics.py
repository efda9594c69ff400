"""A trait's metrics: counts, contrast and the verdict, from verdicts and outcomes. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from orchestrator.plan import Polarity
from orchestrator.scores import Score
from orchestrator.threshold import Judged, Outcome, Status
from orchestrator.verdict import VerdictInputs, contrast, verdict

Outcomes = Sequence[tuple[Judged, Outcome]]


def trait_metrics(trait: str, found: Outcomes, *, magnitude: float | None) -> dict[str, Any]:
    """What metrics.json holds; counts are samples, scores 0 to 100.

    `magnitude` is the mean L2 norm over layers of the response_avg vector, None without one.
    """
    n_kept = {p: n_with(found, p, "kept") for p in ("positive", "negative")}
    unscored = Counter(unscored_reason(j) for j, o in found if o.status == "unscored")
    gap = contrast(trait_scores(found, "positive"), trait_scores(found, "negative"))
    name, reasons = verdict(
        VerdictInputs(
            n_generated=len(found),
            n_unscored=unscored.total(),
            n_kept_positive=n_kept["positive"],
            n_kept_negative=n_kept["negative"],
            contrast=gap,
            magnitude=magnitude,
        )
    )
    coherence = [j.coherence.value for j, _ in found if isinstance(j.coherence, Score)]
    return {
        "trait": trait,
        "verdict": name,
        "reasons": reasons,
        "n_generated": len(found),
        "n_scored": len(found) - unscored.total(),
        "n_unscored": dict(unscored),
        "n_dropped": dict(Counter(o.reason for _, o in found if o.status == "dropped")),
        "n_kept": n_kept,
        "contrast": gap,
        "coherence": sum(coherence) / len(coherence) if coherence else None,
        "magnitude": magnitude,
    }


def n_with(found: Outcomes, polarity: str, status: Status) -> int:
    """Samples of a polarity with that status."""
    return sum(j.sample.polarity == polarity and o.status == status for j, o in found)


def trait_scores(found: Outcomes, polarity: Polarity) -> list[float]:
    """The trait scores of one polarity's scored samples, kept or not."""
    side = (j.trait for j, _ in found if j.sample.polarity == polarity)
    return [one.value for one in side if isinstance(one, Score)]


def unscored_reason(judged: Judged) -> str:
    """Why a sample is unscored: of the trait's verdict, or else of coherence's."""
    for one in (judged.trait, judged.coherence):
        if not isinstance(one, Score):
            return one.reason
    raise ValueError(f"{judged.sample.key} has both scores")
