"""Counts of a run by trait and stage, from the plan and the jobs that are done."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from orchestrator.plan import Plan
from orchestrator.readiness import is_finished, is_needed
from orchestrator.run_spec import TraitRef

SAMPLED = ("generate", "judge")
"""The stages that are counted in samples; the others in jobs."""


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


def total(counts: list[TraitCount], stage: str) -> StageCount:
    """A stage's count over all traits."""
    return sum((count.stages.get(stage, StageCount()) for count in counts), StageCount())


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
