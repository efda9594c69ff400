"""Readiness: which jobs can run, as a pure function of the plan and of the artifacts that exist.

Resuming, the embedded mode, the workers' hand-over and the dry run all use it.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from itertools import chain, zip_longest

from orchestrator.plan import Job, Plan
from orchestrator.run_spec import TraitRef


def inputs(plan: Plan, job: Job) -> list[Job]:
    """The jobs whose artifacts a job reads."""
    if job.stage == "generate":
        return [plan.probe]
    if job.stage == "judge":
        return [Job("generate", job.trait, job.polarity, job.shard)]
    if job.stage == "reduce" and job.trait is not None:
        return plan.shard_jobs(plan.spec.trait(job.trait), "judge")
    return []


def is_ready(plan: Plan, job: Job, done: AbstractSet[str]) -> bool:
    """Whether a job still has to run and everything it reads exists (`done` holds job keys)."""
    return job.key not in done and all(needed.key in done for needed in inputs(plan, job))


def ready_jobs(plan: Plan, done: AbstractSet[str]) -> list[Job]:
    """Every job that can run now, the traits interleaved so that all advance together."""
    if plan.probe.key not in done:
        return [plan.probe]
    by_trait = [
        [job for job in plan.trait_jobs(trait) if is_ready(plan, job, done)]
        for trait in plan.spec.traits
    ]
    return [job for job in chain.from_iterable(zip_longest(*by_trait)) if job is not None]


def followers(plan: Plan, job: Job) -> list[Job]:
    """The jobs that may have become ready because `job` is done."""
    if job.trait is None:
        return ready_jobs(plan, {job.key})
    if job.stage == "generate":
        return [plan.judge_job(job)]
    if job.stage == "judge" and job.trait is not None:
        return [plan.reduce_job(job.trait)]
    return []


def is_finished(plan: Plan, trait: TraitRef, done: AbstractSet[str]) -> bool:
    """Whether a trait's vectors exist."""
    return plan.reduce_job(trait.name).key in done
