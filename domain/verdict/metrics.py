"""A trait's metrics: counts, contrast, quality and verdict, from judgings and outcomes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from domain.plan.samples import Polarity
from domain.plan.spec import DEFAULT_POSITION, ChecksSpec
from domain.scoring.scores import Score
from domain.scoring.thresholds import Fall, Judged, Outcome, Status
from domain.verdict.gates import (
    VerdictInputs,
    check_facts,
    contrast,
    left_out_notes,
    vector_facts,
    vector_notes,
    verdict,
)
from domain.verdict.sentences import fall_text
from domain.verdict.untested import untested

MADE_FROM_PROMPTS = (
    "made from prompts, where the sides differ by their instructions whatever is answered: that "
    "they separate says little"
)

Outcomes = Sequence[tuple[Judged, Outcome]]


@dataclass(frozen=True)
class Measured:
    """What was measured on activations and scores; None and empty where there are no vectors.

    `magnitude` is the mean L2 norm over layers of the first method's vector,
    `contrast_interval` the 95 % interval [low, high] of the contrast, `methods` what each method
    says of its fit, `checks` what the run tests vectors with.
    """

    contrast_interval: list[float] | None = None
    magnitude: float | None = None
    quality: Mapping[str, Any] | None = None
    methods: Mapping[str, Any] = field(default_factory=dict)
    n_eval_questions: int = 0
    checks: ChecksSpec = field(default_factory=ChecksSpec)


def trait_metrics(trait: str, found: Outcomes, measured: Measured) -> dict[str, Any]:
    """What metrics.json holds; counts are samples, scores 0 to 100."""
    unscored = Counter(str(o.unscored) for _, o in found if o.fall == Fall.UNSCORED)
    coherence = [j.coherence.value for j, _ in found if isinstance(j.coherence, Score)]
    body = {
        "trait": trait,
        "verdict": "",
        "n_generated": len(found),
        "n_scored": len(found) - unscored.total(),
        "n_unscored": dict(unscored),
        "n_dropped": dict(Counter(fall_text(o) for _, o in found if o.status == "dropped")),
        "n_kept": {p: n_with(found, p, "kept") for p in ("positive", "negative")},
        "contrast": contrast(trait_scores(found, "positive"), trait_scores(found, "negative")),
        "contrast_interval": measured.contrast_interval,
        "coherence": sum(coherence) / len(coherence) if coherence else None,
        "magnitude": measured.magnitude,
        "methods": measured.methods,
        "quality": measured.quality,
        "n_eval_questions": measured.n_eval_questions,
        "checks": measured.checks.model_dump(),
        # a verdict before anything was tested
        "is_checked": False,
        "is_steered_with_others": False,
    }
    return with_verdict(body)


def with_verdict(body: Mapping[str, Any]) -> dict[str, Any]:
    """The metrics with the verdict that follows from their numbers, its reasons and notes; those
    of the notes that name a test that was not made are `untested` as well."""
    quality = body["quality"]
    facts = None if quality is None else vector_facts(quality, body["methods"])
    interval = body["contrast_interval"]
    name, reasons = verdict(
        VerdictInputs(
            n_generated=body["n_generated"],
            n_unscored=sum(body["n_unscored"].values()),
            n_kept_positive=body["n_kept"]["positive"],
            n_kept_negative=body["n_kept"]["negative"],
            contrast=body["contrast"],
            magnitude=body["magnitude"],
            contrast_low=interval[0] if interval else None,
            vector=facts,
            checks=None if quality is None else check_facts(quality),
        )
    )
    notes = []
    if quality is not None and facts is not None:
        if quality["position"] != DEFAULT_POSITION:
            notes.append(MADE_FROM_PROMPTS)
        notes += vector_notes(quality, facts, trait=body["trait"])
    left_out = [] if facts is None else left_out_notes(facts)
    not_made = untested(body)
    return {
        **body,
        "verdict": name,
        "reasons": reasons,
        "notes": not_made + notes,
        "untested": left_out + not_made,
    }


def n_with(found: Outcomes, polarity: str, status: Status) -> int:
    """Samples of a polarity with that status."""
    return sum(j.sample.polarity == polarity and o.status == status for j, o in found)


def trait_scores(found: Outcomes, polarity: Polarity) -> list[float]:
    """The trait scores of one polarity's scored samples, kept or not."""
    side = (j.trait for j, _ in found if j.sample.polarity == polarity)
    return [one.value for one in side if isinstance(one, Score)]


def scored_prompts(found: Outcomes, polarity: Polarity) -> list[tuple[int, int]]:
    """The prompt (instruction, question) of each of `trait_scores`, in its order."""
    side = (j for j, _ in found if j.sample.polarity == polarity and isinstance(j.trait, Score))
    return [(one.sample.instruction, one.sample.question) for one in side]
