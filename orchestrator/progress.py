"""Counts of a run by trait and stage, from the plan and the jobs done, and the time left."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from domain.plan.jobs import Plan
from domain.plan.readiness import is_finished, is_needed
from domain.plan.spec import TraitRef

SAMPLED = ("generate", "judge")
"""The stages that are counted in samples; the others in jobs."""


def total(counts: list[TraitCount], stage: str) -> StageCount:
    """A stage's count over all traits."""
    return sum((count.stages.get(stage, StageCount()) for count in counts), StageCount())


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
    return [
        TraitCount(
            trait.name,
            _stages(plan, trait, done),
            plan.reduce_job(trait.name).key in done,
            is_finished(plan, trait, done),
        )
        for trait in plan.spec.traits
    ]


def stages_of(counts: list[TraitCount]) -> list[str]:
    """The stages that any trait has, in the order work goes through them."""
    return list(dict.fromkeys(stage for count in counts for stage in count.stages))


def _stages(plan: Plan, trait: TraitRef, done: AbstractSet[str]) -> dict[str, StageCount]:
    found: dict[str, StageCount] = {}
    for job in plan.trait_jobs(trait):
        if job.stage != "reduce" and is_needed(plan, job, done):
            n = plan.n_samples_of(job) if job.stage in SAMPLED else 1
            counted = StageCount(n if job.key in done else 0, n)
            found[job.stage] = found.get(job.stage, StageCount()) + counted
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
    return {stage: counted.get(f"{_unit(stage)}.{stage}", 0.0) for stage in stages}


def _unit(stage: str) -> str:
    return "samples" if stage in SAMPLED else "jobs"
