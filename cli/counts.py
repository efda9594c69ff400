"""Counts of a run by trait and stage, from the plan and the jobs that are done."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from orchestrator.plan import Plan, Stage
from orchestrator.readiness import is_finished, is_needed
from orchestrator.run_spec import TraitRef


@dataclass(frozen=True)
class StageCount:
    """Samples of one stage of a trait: how many are done, of how many."""

    done: int
    total: int


@dataclass(frozen=True)
class TraitCount:
    """Where a trait stands."""

    trait: str
    generate: StageCount
    judge: StageCount
    is_reduced: bool
    is_finished: bool


def trait_counts(plan: Plan, done: AbstractSet[str]) -> list[TraitCount]:
    """Where each trait of the plan stands."""
    return [
        TraitCount(
            trait.name,
            _stage(plan, trait, "generate", done),
            _stage(plan, trait, "judge", done),
            plan.reduce_job(trait.name).key in done,
            is_finished(plan, trait, done),
        )
        for trait in plan.spec.traits
    ]


def total(counts: list[TraitCount], stage: Stage) -> StageCount:
    """A stage's count over all traits."""
    found = [count.generate if stage == "generate" else count.judge for count in counts]
    return StageCount(sum(c.done for c in found), sum(c.total for c in found))


def _stage(plan: Plan, trait: TraitRef, stage: Stage, done: AbstractSet[str]) -> StageCount:
    jobs = [job for job in plan.stage_jobs(trait, stage) if is_needed(plan, job, done)]
    return StageCount(
        sum(plan.n_samples_of(job) for job in jobs if job.key in done),
        sum(plan.n_samples_of(job) for job in jobs),
    )
