"""Readiness: which jobs can run, as a pure function of the plan and of the artifacts that exist.

Resuming, the embedded mode, the workers' hand-over and the dry run all use it. `done` holds the
keys of finished jobs, and those of the stop marks that a converge job leaves when a trait has
enough samples.
"""

from __future__ import annotations

from collections.abc import Sequence
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


def inputs(plan: Plan, job: Job) -> list[Job]:
    """The jobs whose artifacts a job reads or has to wait for."""
    if job.trait is None:
        return []
    trait = plan.spec.trait(job.trait)
    if job.stage == "generate":
        return _generate_inputs(plan, trait, job)
    if job.stage == "judge":
        generated = Job("generate", job.trait, job.part, job.shard)
        return [plan.negotiate_job, generated, *_decided(plan, trait, job, ahead=1)]
    if job.stage == "converge":
        assert job.shard is not None
        judged = [Job("judge", job.trait, polarity, job.shard) for polarity in POLARITIES]
        before = [Job("converge", job.trait, "wave", job.shard - 1)] if job.shard else []
        return [*judged, *before]
    if job.stage == "reduce":
        return [] if plan.spec.until == "converged" else plan.shard_jobs(trait, "judge")
    tested = [
        j for part in (EVALUATION, CONFIRMATION) for j in plan.part_jobs(trait, "judge", part)
    ]
    return [plan.reduce_job(job.trait), *tested]


def _generate_inputs(plan: Plan, trait: TraitRef, job: Job) -> list[Job]:
    """The pushes of a steering round follow from the vectors, those of the next from its scores."""
    if job.part in POLARITIES:
        return [plan.own.negotiate_job, *_decided(plan, trait, job, ahead=WAVES_AHEAD)]
    if job.part == EVALUATION:
        return [plan.own.negotiate_job]
    rounds = ROUNDS if job.part == CONFIRMATION else ROUNDS[: ROUNDS.index(str(job.part))]
    judged = [one for part in rounds for one in plan.own.part_jobs(trait, "judge", part)]
    return [plan.own.reduce_job(trait.name), *judged]


def _decided(plan: Plan, trait: TraitRef, job: Job, *, ahead: int) -> list[Job]:
    """The look after the wave that comes `ahead` waves before a job's."""
    is_waved = plan.spec.until == "converged" and job.part in POLARITIES
    if not is_waved or job.shard is None or job.shard < ahead or plan.judgement is not None:
        return []
    return [Job("converge", trait.name, "wave", job.shard - ahead)]


def last_wave(plan: Plan, trait: TraitRef, done: AbstractSet[str]) -> int | None:
    """The wave after which a trait had enough; None while that is open."""
    return next((k for k in range(plan.n_shards(trait)) if stop_mark(trait, k).key in done), None)


def stop_mark(trait: TraitRef, wave: int) -> Job:
    """What exists once a trait's samples are decided to end with a wave."""
    return Job("converge", trait.name, "stop", wave)


def is_needed(plan: Plan, job: Job, done: AbstractSet[str]) -> bool:
    """Whether a job belongs to the result: false for waves after the last."""
    if plan.spec.until == "all" or job.trait is None or job.shard is None:
        return True
    if job.part not in (*POLARITIES, "wave"):
        return True
    last = last_wave(plan, plan.spec.trait(job.trait), done)
    return last is None or job.shard <= last


def is_ready(plan: Plan, job: Job, done: AbstractSet[str]) -> bool:
    """Whether a job still has to run and everything it waits for exists."""
    if job.key in done or not all(needed.key in done for needed in inputs(plan, job)):
        return False
    if job.stage == "reduce" and plan.spec.until == "converged" and job.trait is not None:
        return _has_every_wave(plan, plan.spec.trait(job.trait), done)
    return is_needed(plan, job, done)


def _has_every_wave(plan: Plan, trait: TraitRef, done: AbstractSet[str]) -> bool:
    last = last_wave(plan, trait, done)
    return last is not None and all(
        job.key in done
        for job in plan.shard_jobs(trait, "judge")
        if job.shard is not None and job.shard <= last
    )


def ready_jobs(plan: Plan, done: AbstractSet[str]) -> list[Job]:
    """Every job that can run now, in the order of `in_good_order`."""
    if plan.negotiate_job.key not in done:
        return [plan.negotiate_job]
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
    trait = plan.spec.trait(job.trait)
    if job.stage == "generate":
        return [plan.judge_job(job)]
    if job.stage == "judge":
        return _judge_followers(plan, trait, job)
    if job.stage == "converge":
        assert job.shard is not None
        waves = (job.shard + 1, job.shard + WAVES_AHEAD)
        coming = [j for j in plan.shard_jobs(trait, "generate") if j.shard in waves]
        judged = [plan.judge_job(j) for j in coming if j.shard == job.shard + 1]
        return [*coming, *judged, plan.reduce_job(trait.name)]
    if job.stage == "reduce":
        return [*plan.part_jobs(trait, "generate", ROUNDS[0]), *_ends(plan, trait)]
    return []


def _judge_followers(plan: Plan, trait: TraitRef, job: Job) -> list[Job]:
    if job.part in POLARITIES:
        waves = [one for one in plan.wave_jobs(trait) if one.shard == job.shard]
        return [*waves, plan.reduce_job(trait.name)]
    if job.part in ROUNDS:
        following = (*ROUNDS, CONFIRMATION)[ROUNDS.index(job.part) + 1]
        return plan.part_jobs(trait, "generate", following)
    return _ends(plan, trait)


def _ends(plan: Plan, trait: TraitRef) -> list[Job]:
    last = plan.last_job(trait)
    return [last] if last.stage == "verify" else []


def is_finished(plan: Plan, trait: TraitRef, done: AbstractSet[str]) -> bool:
    """Whether a trait's vectors exist and are tested."""
    return plan.last_job(trait).key in done


# With fewer the bootstrap knows little of its own uncertainty.
MINIMUM_KEPT = 30


@dataclass(frozen=True)
class Certainty:
    """What a wave leaves: kept responses by polarity, and at the layers that matter the 95 % bound
    in degrees on the direction's angle to the true one; both empty where one has too little."""

    n_kept: dict[str, int]
    layers: list[int]
    degrees: list[float]


class WaveEnd(StrEnum):
    """What follows from the look after a wave."""

    ENOUGH = "enough"
    EVERYTHING_GENERATED = "everything_generated"
    GOES_ON = "goes_on"


def decide(found: Certainty, spec: RunSpec, *, is_last: bool) -> WaveEnd:
    """Whether to go on after a wave."""
    is_sure = bool(found.degrees) and max(found.degrees) <= spec.converged_degrees
    if is_sure and min(found.n_kept.values()) >= MINIMUM_KEPT:
        return WaveEnd.ENOUGH
    return WaveEnd.EVERYTHING_GENERATED if is_last else WaveEnd.GOES_ON
