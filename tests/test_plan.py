"""Protects the plan: every sample once, the same on every machine, balanced, resumable."""

from __future__ import annotations

from collections import Counter

import pytest

from domain.plan.jobs import Job, Plan
from domain.plan.readiness import is_job_ready, jobs_readied_by, ready_jobs
from domain.plan.samples import POLARITIES, sample_cells
from domain.plan.spec import JudgeSpec, ModelSpec, RunSpec, TraitRef, settings_differences


def spec(**changes: object) -> RunSpec:
    body = {
        "traits": (trait(),),
        "model": ModelSpec(model_id="demo"),
        "judge": JudgeSpec(model="judge"),
        **changes,
    }
    return RunSpec(**body)  # type: ignore[arg-type]


def trait(
    name: str = "refusal", n_instructions: int = 5, n_questions: int = 20, n_held_out: int = 20
) -> TraitRef:
    return TraitRef(
        name=name,
        fingerprint="f",
        n_instructions=n_instructions,
        n_questions=n_questions,
        n_eval_questions=n_held_out,
    )


def all_keys(plan: Plan) -> list[str]:
    jobs = plan.part_jobs(plan.spec.traits[0], "generate", *POLARITIES)
    return [sample.key for job in jobs for sample in plan.samples(job)]


def test_the_default_plan_of_a_trait_is_2000_samples_each_once() -> None:
    plan = Plan(spec())

    keys = all_keys(plan)

    assert len(keys) == 2000 == plan.n_samples(plan.spec.traits[0])
    assert len(set(keys)) == 2000


@pytest.mark.parametrize("shard_samples", [1, 7, 64, 100, 5000])
def test_the_shard_size_changes_neither_samples_nor_seeds_nor_the_digest(
    shard_samples: int,
) -> None:
    usual, other = Plan(spec()), Plan(spec(shard_samples=shard_samples))

    seeds = [
        {
            s.key: s.seed(0)
            for j in p.part_jobs(trait(), "generate", *POLARITIES)
            for s in p.samples(j)
        }
        for p in (usual, other)
    ]

    assert seeds[0] == seeds[1]
    assert usual.spec.digest() == other.spec.digest()


@pytest.mark.parametrize("shard_samples", [1, 7, 64, 100, 5000])
def test_a_job_knows_its_number_of_samples_without_listing_them(shard_samples: int) -> None:
    plan = Plan(spec(shard_samples=shard_samples, rollouts=3))

    for job in plan.part_jobs(trait(), "judge", *POLARITIES):
        assert plan.n_samples_of(job) == len(plan.samples(job))


def test_more_rollouts_keep_the_seeds_of_those_before() -> None:
    few, many = Plan(spec(rollouts=3)), Plan(spec(rollouts=10))

    seeds_few = {
        s.key: s.seed(5)
        for j in few.part_jobs(trait(), "generate", *POLARITIES)
        for s in few.samples(j)
    }
    seeds_many = {
        s.key: s.seed(5)
        for j in many.part_jobs(trait(), "generate", *POLARITIES)
        for s in many.samples(j)
    }

    assert seeds_few.items() <= seeds_many.items()
    assert len(set(seeds_many.values())) == len(seeds_many)


@pytest.mark.parametrize("n_instructions", range(1, 11))
def test_wherever_a_run_stops_questions_and_instructions_are_even(n_instructions: int) -> None:
    for n_questions in range(1, 41):
        found = sample_cells(trait(n_instructions=n_instructions, n_questions=n_questions))

        assert len(found) == len(set(found)) == n_instructions * n_questions
        for start in range(len(found) - n_questions + 1):
            stretch = found[start : start + n_questions]
            assert {question for _, question in stretch} == set(range(n_questions))
        for wave in range(n_instructions):
            now = Counter(i for i, _ in found[wave * n_questions : (wave + 1) * n_questions])
            counts = [now[i] for i in range(n_instructions)]
            assert max(counts) - min(counts) <= 1


def test_running_ready_jobs_until_none_is_left_does_every_job_once_with_its_inputs_there() -> None:
    plan = Plan(spec(traits=(trait("evil"), trait("refusal", 2, 3)), rollouts=2))
    done: set[str] = set()
    order: list[Job] = []

    while ready := ready_jobs(plan, done):
        assert all(is_job_ready(plan, job, done) for job in ready)
        order += ready
        done |= {job.key for job in ready}

    assert order[0] == plan.negotiate_job
    assert Counter(job.key for job in order) == Counter(job.key for job in plan.jobs())


def test_the_hand_over_after_each_job_reaches_every_job_without_looking_at_the_whole_plan() -> None:
    plan = Plan(spec(rollouts=2, shard_samples=20))
    done: set[str] = set()
    waiting = [plan.negotiate_job]

    while waiting:
        job = waiting.pop()
        done.add(job.key)
        waiting += [j for j in jobs_readied_by(plan, job) if is_job_ready(plan, j, done)]

    assert done == {job.key for job in plan.jobs()}


def test_traits_are_interleaved() -> None:
    plan = Plan(spec(traits=(trait("evil"), trait("refusal"))))

    first = ready_jobs(plan, {"negotiate"})[:4]

    assert [job.trait for job in first] == ["evil", "refusal", "evil", "refusal"]


def test_a_job_is_found_again_by_its_key_and_a_foreign_key_is_refused() -> None:
    plan = Plan(spec())

    assert plan.parse_job("refusal/judge/negative-003") == Job("judge", "refusal", "negative", 3)
    for foreign in ("refusal/judge/negative-999", "evil/reduce", "refusal/../x", ""):
        with pytest.raises(KeyError):
            plan.parse_job(foreign)


def test_differing_settings_are_named() -> None:
    found = settings_differences(spec(), spec(rollouts=3, traits=(trait("evil"),)))

    assert "rollouts was 10, now 3" in found
    assert "trait evil is not in the run" in found
    assert "trait refusal is in the run but was not asked for" in found
