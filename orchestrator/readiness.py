"""Readiness: which jobs can run, as a pure function of the plan and of the artifacts that exist.

Resuming, the embedded mode, the workers' hand-over and the dry run all use it.
"""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from itertools import chain, cycle, zip_longest

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
    """Every job that can run now, in the order of `in_good_order`."""
    if plan.probe.key not in done:
        return [plan.probe]
    by_trait = [
        [job for job in plan.trait_jobs(trait) if is_ready(plan, job, done)]
        for trait in plan.spec.traits
    ]
    return in_good_order(by_trait)


def in_good_order(by_trait: Sequence[Sequence[Job]]) -> list[Job]:
    """Every second job from the first trait that has one left, the others from all in turn.

    So the first verdict comes after about a third of an equal share's time, the next ones follow
    it, and no trait stands still meanwhile.
    """
    found: list[Job] = []
    taken: set[Job] = set()
    in_turn = (job for job in chain.from_iterable(zip_longest(*by_trait)) if job is not None)
    one_by_one = chain.from_iterable(by_trait)
    for source in cycle((one_by_one, in_turn)):
        job = next((job for job in source if job not in taken), None)
        if job is None:
            return found
        taken.add(job)
        found.append(job)
    return found


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
