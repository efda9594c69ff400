"""Readiness: which jobs can run, as a pure function of the plan and of the artifacts that exist.

Resuming, the embedded mode, the workers' hand-over and the dry run all use it. `done` holds the
keys of finished jobs, and those of the stop marks that a converge job leaves when a trait has
enough samples.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain, cycle, zip_longest

from domain.plan.jobs import Job, Plan
from domain.plan.samples import CONFIRMATION, EVALUATION, POLARITIES, ROUNDS
from domain.plan.spec import RunSpec, TraitRef

# A wave may be generated before it is known to be needed, so that devices do not wait for a judge;
# it is judged only then, since scores cost money.
WAVES_AHEAD = 2


def job_inputs(plan: Plan, job: Job) -> list[Job]:
    """The jobs whose artifacts a job reads or has to wait for."""
    if job.trait is None:
        return []
    trait, shard = plan.spec.trait(job.trait), job.shard or 0
    if job.stage in ("generate", "judge"):
        ahead = WAVES_AHEAD if job.stage == "generate" else 1
        is_waved = plan.spec.until == "converged" and plan.judgement is None
        # the look after the wave that comes so many waves before it
        looks = [Job("converge", trait.name, "wave", shard - ahead)] if shard >= ahead else []
        decided = looks if is_waved and job.part in POLARITIES else []
    if job.stage == "judge":
        generated = Job("generate", job.trait, job.part, job.shard)
        return [plan.negotiate_job, generated, *decided]
    if job.stage == "generate":
        if job.part in (*POLARITIES, EVALUATION):
            return [*([plan.own.negotiate_job] if plan.own.is_judged else []), *decided]
        # pushes of a steering round follow from the vectors, those of the next from its scores
        rounds = ROUNDS if job.part == CONFIRMATION else ROUNDS[: ROUNDS.index(str(job.part))]
        settled = plan.own.settled_by
        judged = [one for part in rounds for one in plan.own.part_jobs(trait, settled, part)]
        made = [plan.own.trait_job("reduce", trait.name), *plan.contexts_jobs(trait)]
        return [*made, *judged]
    if job.stage == "converge":
        judged = [Job(plan.settled_by, job.trait, polarity, shard) for polarity in POLARITIES]
        return [*judged, *([Job("converge", job.trait, "wave", shard - 1)] if shard else [])]
    if job.stage == "reduce":
        is_waved = plan.spec.until == "converged"
        return [] if is_waved else plan.part_jobs(trait, plan.settled_by, *POLARITIES)
    if job.stage == "contexts":
        answered = plan.own.part_jobs(trait, "generate", EVALUATION)
        return [plan.own.trait_job("reduce", trait.name), *answered]
    settled = plan.settled_by
    tested = [
        one for part in (EVALUATION, CONFIRMATION) for one in plan.part_jobs(trait, settled, part)
    ]
    return [plan.trait_job("reduce", job.trait), *plan.contexts_jobs(trait), *tested]


def last_wave(plan: Plan, trait: TraitRef, done: AbstractSet[str]) -> int | None:
    """The wave after which a trait had enough; None while that is open."""
    return next((k for k in range(plan.n_shards(trait)) if stop_mark(trait, k).key in done), None)


def stop_mark(trait: TraitRef, wave: int) -> Job:
    """What exists once a trait's samples are decided to end with a wave."""
    return Job("converge", trait.name, "stop", wave)


def is_job_needed(plan: Plan, job: Job, done: AbstractSet[str]) -> bool:
    """Whether a job belongs to the result: false for waves after the last."""
    if plan.spec.until == "all" or job.trait is None or job.shard is None:
        return True
    if job.part not in (*POLARITIES, "wave"):
        return True
    last = last_wave(plan, plan.spec.trait(job.trait), done)
    return last is None or job.shard <= last


def is_job_ready(plan: Plan, job: Job, done: AbstractSet[str]) -> bool:
    """Whether a job still has to run and everything it waits for exists."""
    if job.key in done or not all(needed.key in done for needed in job_inputs(plan, job)):
        return False
    if job.stage == "reduce" and plan.spec.until == "converged" and job.trait is not None:
        return _has_every_wave(plan, plan.spec.trait(job.trait), done)
    return is_job_needed(plan, job, done)


def _has_every_wave(plan: Plan, trait: TraitRef, done: AbstractSet[str]) -> bool:
    last = last_wave(plan, trait, done)
    return last is not None and all(
        job.key in done
        for job in plan.part_jobs(trait, plan.settled_by, *POLARITIES)
        if job.shard is not None and job.shard <= last
    )


def ready_jobs(plan: Plan, done: AbstractSet[str]) -> list[Job]:
    """Every job that can run now: every second one from the first trait that has one left, the
    others from all in turn.

    So the first verdict comes after about a third of an equal share's time, the next ones follow
    it, and no trait stands still meanwhile.
    """
    by_trait = [
        [job for job in plan.trait_jobs(trait) if is_job_ready(plan, job, done)]
        for trait in plan.spec.traits
    ]
    asks = plan.is_judged and is_job_ready(plan, plan.negotiate_job, done)
    found = [plan.negotiate_job] if asks else []
    taken: set[Job] = set()
    in_turn = (job for job in chain.from_iterable(zip_longest(*by_trait)) if job is not None)
    one_by_one = chain.from_iterable(by_trait)
    for source in cycle((one_by_one, in_turn)):
        job = next((job for job in source if job not in taken), None)
        if job is None:
            break
        taken.add(job)
        found.append(job)
    return found


def jobs_readied_by(plan: Plan, job: Job) -> list[Job]:
    """The jobs that may have become ready because `job` is done."""
    if job.trait is None:
        return ready_jobs(plan, {job.key})
    trait, shard = plan.spec.trait(job.trait), job.shard or 0
    reduce = plan.trait_job("reduce", job.trait)
    last = plan.last_job(trait)
    ends = [] if last == reduce else [last]
    answered = job.stage == "generate" and job.part == EVALUATION
    again = plan.contexts_jobs(trait) if answered else []
    if job.stage == "generate" and plan.is_judged:
        return [plan.judge_job(job), *again]
    if job.stage == plan.settled_by and job.part in POLARITIES:
        return [*(one for one in plan.wave_jobs(trait) if one.shard == shard), reduce]
    if job.stage == plan.settled_by and job.part in ROUNDS:
        next_part = (*ROUNDS, CONFIRMATION)[ROUNDS.index(job.part) + 1]
        return plan.part_jobs(trait, "generate", next_part)
    if job.stage == plan.settled_by:
        return [*again, *ends]
    if job.stage == "converge":
        waves = (shard + 1, shard + WAVES_AHEAD)
        coming = [
            one for one in plan.part_jobs(trait, "generate", *POLARITIES) if one.shard in waves
        ]
        if plan.is_judged:
            following = [plan.judge_job(one) for one in coming if one.shard == shard + 1]
        else:
            # a wave that was generated ahead only waits for this look
            following = [one for one in plan.wave_jobs(trait) if one.shard == shard + 1]
        return [*coming, *following, reduce]
    if job.stage in ("reduce", "contexts"):
        again = plan.contexts_jobs(trait) if job.stage == "reduce" else []
        return [*plan.part_jobs(trait, "generate", ROUNDS[0]), *again, *ends]
    return []


# With fewer the angle's bound knows little of its own uncertainty.
MINIMUM_KEPT = 30


@dataclass(frozen=True)
class Certainty:
    """What a wave leaves: kept responses by polarity, and at the layers that matter the 95 % bound
    in degrees on the direction's angle to the true one; both empty where one has too little.
    `least_degrees` is what the largest of these surely stays over with any number of rollouts,
    because too few instructions were asked."""

    n_kept: dict[str, int]
    layers: list[int]
    degrees: list[float]
    least_degrees: float = 0.0


class WaveEnd(StrEnum):
    """What follows from the look after a wave."""

    ENOUGH = "enough"
    MORE_INSTRUCTIONS = "more_instructions"
    EVERYTHING_GENERATED = "everything_generated"
    GOES_ON = "goes_on"


def decide_wave_end(found: Certainty, spec: RunSpec, *, is_last: bool) -> WaveEnd:
    """Whether to go on after a wave."""
    is_sure = bool(found.degrees) and max(found.degrees) <= spec.converged_degrees
    if min(found.n_kept.values()) >= MINIMUM_KEPT:
        if is_sure:
            return WaveEnd.ENOUGH
        if found.least_degrees > spec.converged_degrees:
            return WaveEnd.MORE_INSTRUCTIONS
    return WaveEnd.EVERYTHING_GENERATED if is_last else WaveEnd.GOES_ON
