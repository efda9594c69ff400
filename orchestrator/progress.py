"""What of a run is done and what is to come: counts by trait and stage, time left, calls, tokens.

Tokens are estimated from the actual prompts' characters; the estimate says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass
from math import ceil
from typing import Any

from domain.plan.jobs import Plan, Stage
from domain.plan.readiness import is_job_needed
from domain.plan.spec import TraitRef
from domain.scoring.prices import Price
from domain.traits.definition import TraitDefinition
from domain.traits.prompts import coherence_prompt
from domain.verdict.record import TraitMetrics

SAMPLED = ("generate", "judge")
"""The stages that are counted in samples; the others in jobs."""

# English in the tokenizers of current models: 4 to 4.7 characters a token; the low end is safe.
CHARACTERS_PER_TOKEN = 4.0


@dataclass(frozen=True)
class StageCount:
    """Samples of one stage of a trait, or its jobs where they have none: done, of how many."""

    done: int = 0
    total: int = 0

    def __add__(self, other: StageCount) -> StageCount:
        return StageCount(self.done + other.done, self.total + other.total)


@dataclass(frozen=True)
class TraitCount:
    """Where a trait stands; `stages` are those of the plan but the reduce, in their order."""

    trait: str
    stages: Mapping[str, StageCount]
    is_reduced: bool
    is_finished: bool


def trait_counts(plan: Plan, done: AbstractSet[str]) -> list[TraitCount]:
    """Where each trait of the plan stands."""
    found = []
    for trait in plan.spec.traits:
        stages: dict[str, StageCount] = {}
        for job in plan.trait_jobs(trait):
            if job.stage != "reduce" and is_job_needed(plan, job, done):
                n = plan.n_samples_of(job) if job.stage in SAMPLED else 1
                counted = StageCount(n if job.key in done else 0, n)
                stages[job.stage] = stages.get(job.stage, StageCount()) + counted
        is_reduced = plan.trait_job("reduce", trait.name).key in done
        is_finished = plan.last_job(trait).key in done
        found.append(TraitCount(trait.name, stages, is_reduced, is_finished))
    return found


def trait_row(count: TraitCount, metrics: TraitMetrics | None) -> dict[str, Any]:
    """Where a trait stands as JSON, with its verdict once there is one."""
    return {
        "trait": count.trait,
        **{stage: asdict(one) for stage, one in count.stages.items()},
        "is_reduced": count.is_reduced,
        "is_finished": count.is_finished,
        "verdict": metrics and metrics.verdict,
        "contrast": metrics and metrics.contrast,
        "reasons": list(metrics.reasons) if metrics else [],
        "notes": list(metrics.notes) if metrics else [],
    }


def stage_totals(counts: list[TraitCount]) -> dict[str, StageCount]:
    """Each stage's count over all traits, in the order work goes through them."""
    found: dict[str, StageCount] = {}
    for count in counts:
        for stage, one in count.stages.items():
            found[stage] = found.get(stage, StageCount()) + one
    return found


def seconds_left(totals: Mapping[str, StageCount], rates: Mapping[str, float]) -> float | None:
    """The time of the slowest stage at its rate; None when nothing is known yet.

    What is counted in jobs follows the samples within seconds, and counts once these are done.
    """
    left = {stage: one.total - one.done for stage, one in totals.items() if one.done < one.total}
    if not left:
        return 0.0
    sampled = {stage: n for stage, n in left.items() if stage in SAMPLED}
    waits = [
        n / rates[stage] for stage, n in (sampled or left).items() if rates.get(stage, 0.0) > 0
    ]
    return max(waits, default=None)


def stage_rates(counted: Mapping[str, float], stages: Iterable[str]) -> dict[str, float]:
    """What each stage gets done a second, in the units of StageCount, by the broker's counts."""
    units = {stage: "samples" if stage in SAMPLED else "jobs" for stage in stages}
    return {stage: counted.get(f"{unit}.{stage}", 0.0) for stage, unit in units.items()}


@dataclass(frozen=True)
class Asking:
    """How often a scoring is asked and how long its answers are, in tokens."""

    votes: int
    completion_tokens: float


# Calls measured on gpt-4-class judges are charged one token for the number.
WITH_LOGPROBS = Asking(votes=1, completion_tokens=1)

# Without token probabilities a scoring takes three votes; a judge that thinks first was charged
# about 200 tokens each.
WITHOUT_LOGPROBS = Asking(votes=3, completion_tokens=200)


@dataclass(frozen=True)
class TraitEstimate:
    """What one trait still needs at most, and what exists already; `n_checked` of the samples are
    those that vectors are tested on."""

    trait: str
    n_samples: int
    n_checked: int
    n_generated: int
    n_judged: int
    judge_prompt_tokens: int

    @property
    def n_to_generate(self) -> int:
        """Responses still to generate."""
        return self.n_samples - self.n_generated

    @property
    def n_calls(self) -> int:
        """Judge calls still to make: trait and coherence of each response."""
        return 2 * (self.n_samples - self.n_judged)

    def usd(self, price: Price, asking: Asking) -> float:
        """What the calls still to make will cost."""
        return asking.votes * price.usd(
            prompt_tokens=self.judge_prompt_tokens,
            completion_tokens=self.n_calls * asking.completion_tokens,
        )


def estimate(
    plan: Plan, definitions: Mapping[str, TraitDefinition], *, done: AbstractSet[str]
) -> list[TraitEstimate]:
    """One estimate per trait; `done` are the keys of the jobs that have ended."""
    # half of the longest response is a fair guess before any was made
    response_tokens = plan.spec.sampling.max_new_tokens // 2
    found = []
    for trait in plan.spec.traits:
        definition = definitions[trait.name]
        questions = definition.questions[: trait.n_questions]
        characters = sum(
            len(definition.judge_prompt(q, "")) + len(coherence_prompt(q, "")) for q in questions
        )
        per_response = characters / len(questions) / CHARACTERS_PER_TOKEN + 2 * response_tokens
        n_checked = plan.n_checked(trait)
        n_samples = plan.n_samples(trait) + n_checked
        judged = _n_done(plan, trait, "judge", done)
        found.append(
            TraitEstimate(
                trait=trait.name,
                n_samples=n_samples,
                n_checked=n_checked,
                n_generated=_n_done(plan, trait, "generate", done),
                n_judged=judged,
                judge_prompt_tokens=ceil((n_samples - judged) * per_response),
            )
        )
    return found


def _n_done(plan: Plan, trait: TraitRef, stage: Stage, done: AbstractSet[str]) -> int:
    jobs = plan.part_jobs(trait, stage)
    return sum(plan.n_samples_of(job) for job in jobs if job.key in done)
