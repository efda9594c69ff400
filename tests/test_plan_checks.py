"""Protects what is generated beside training: parts, their order, and waves that stop in time."""

from __future__ import annotations

from collections import Counter

import pytest

from domain.plan.jobs import CHECKED, Job, Plan
from domain.plan.readiness import is_job_ready, job_inputs, jobs_readied_by, ready_jobs, stop_mark
from domain.plan.samples import CONFIRMATION, EVALUATION, ROUNDS
from domain.plan.spec import NO_JUDGE, ChecksSpec, JudgeSpec, RunSpec
from tests.test_plan import spec, trait


def samples_of(plan: Plan, part: str) -> list[str]:
    jobs = plan.part_jobs(plan.spec.traits[0], "generate", part)
    return [sample.key for job in jobs for sample in plan.samples(job)]


@pytest.mark.parametrize("shard_samples", [1, 7, 100])
@pytest.mark.parametrize("part", CHECKED)
def test_every_part_has_its_stated_size_in_any_shards(part: str, shard_samples: int) -> None:
    plan = Plan(spec(shard_samples=shard_samples))

    keys = samples_of(plan, part)

    assert len(keys) == len(set(keys)) == plan.size(trait(), part)
    jobs = plan.part_jobs(trait(), "generate", part)
    assert [plan.n_samples_of(job) for job in jobs] == [len(plan.samples(job)) for job in jobs]


def test_one_job_chooses_the_pushes_of_a_round_for_all_its_samples() -> None:
    plan = Plan(spec(shard_samples=1, checks=ChecksSpec(causal=50)))

    assert [plan.n_shards(trait(), part) for part in (*ROUNDS, CONFIRMATION)] == [1, 1, 1, 1]


def test_the_stated_budget_is_120_to_evaluate_72_to_search_and_120_to_confirm() -> None:
    plan = Plan(spec())

    sizes = [plan.size(trait(), part) for part in (EVALUATION, *ROUNDS, CONFIRMATION)]

    assert sizes == [120, 24, 24, 24, 120]
    assert plan.n_checked(trait()) == 312


def test_no_sample_of_a_part_shares_its_key_or_seed_with_another_part() -> None:
    plan = Plan(spec())

    parts = ("positive", "negative", *CHECKED)
    keys = [key for part in parts for key in samples_of(plan, part)]

    assert len(keys) == len(set(keys)) == 2000 + 312


def test_evaluation_questions_are_asked_in_all_conditions_and_instructions_take_turns() -> None:
    plan = Plan(spec())
    found = [s for j in plan.part_jobs(trait(), "generate", EVALUATION) for s in plan.samples(j)]

    assert set(Counter((s.question, s.polarity) for s in found).values()) == {2}
    instructed = Counter(s.instruction for s in found if s.polarity == "positive")
    assert set(instructed.values()) == {8}


def test_every_push_answers_the_same_questions_behind_those_of_the_search() -> None:
    plan = Plan(spec())
    found = [s for j in plan.part_jobs(trait(), "generate", CONFIRMATION) for s in plan.samples(j)]

    asked = {c: [s.question for s in found if s.cell == c] for c in range(3)}

    # twice each, those behind the search's first
    assert asked == {c: [*range(8, 20), *range(8)] * 2 for c in range(3)}


def test_each_round_waits_for_the_scores_of_the_one_before_and_the_first_for_the_vectors() -> None:
    plan = Plan(spec())

    waits = [
        {job.key for job in job_inputs(plan, plan.part_jobs(trait(), "generate", part)[0])}
        for part in (*ROUNDS, CONFIRMATION)
    ]

    assert waits[0] == {"refusal/reduce", "refusal/contexts"}
    assert waits[1] - waits[0] == {"refusal/judge/steering-1-000"}
    assert waits[3] - waits[2] == {"refusal/judge/steering-3-000"}


@pytest.mark.parametrize(
    ("evaluation", "causal", "contexts", "last"),
    [(0, 0, 0, "reduce"), (1, 0, 0, "verify"), (0, 4, 0, "verify"), (0, 0, 120, "verify")],
)
def test_without_checks_a_trait_ends_with_its_vectors(
    evaluation: int, causal: int, contexts: int, last: str
) -> None:
    checks = ChecksSpec(evaluation=evaluation, causal=causal, contexts=contexts)
    plan = Plan(spec(checks=checks))
    done: set[str] = set()

    while ready := ready_jobs(plan, done):
        assert plan.last_job(trait()).key not in done
        done |= {job.key for job in ready}

    assert plan.last_job(trait()).key == f"refusal/{last}"
    assert plan.last_job(trait()).key in done


def test_a_trait_without_evaluation_questions_is_not_checked() -> None:
    without = (trait(n_held_out=0),)
    plan = Plan(spec(traits=without))
    alone = Plan(spec(traits=without, checks=ChecksSpec(contexts=0)))

    assert plan.n_checked(plan.spec.traits[0]) == 0
    # what vectors were made from is read again all the same
    assert plan.last_job(plan.spec.traits[0]).stage == "verify"
    assert alone.last_job(plan.spec.traits[0]).stage == "reduce"


def test_a_later_judgement_scores_what_its_results_need_and_generates_nothing() -> None:
    first = Plan(spec())
    done = {job.key for job in first.jobs()}
    second = Plan(spec(), "second")
    order: list[Job] = []

    while ready := ready_jobs(second, done):
        order += ready
        done |= {job.key for job in ready}

    assert {job.stage for job in order} == {"negotiate", "judge", "reduce", "verify"}
    assert not [job for job in order if job.part in ROUNDS]
    assert order[-1].key == "refusal/verify@second"


def run_until_enough(plan: Plan, last: int) -> list[Job]:
    """Every job in the order of the hand-over, when the look after wave `last` finds enough."""
    done: set[str] = set()
    order: list[Job] = []
    waiting = [plan.negotiate_job]
    while waiting:
        job = waiting.pop(0)
        if job.key in done:
            continue
        done.add(job.key)
        order.append(job)
        if job.stage == "converge" and job.shard == last:
            done.add(stop_mark(trait(), last).key)
        waiting += [j for j in jobs_readied_by(plan, job) if is_job_ready(plan, j, done)]
    assert not ready_jobs(plan, done), "the hand-over left something for the reconciler"
    return order


@pytest.mark.parametrize("last", [0, 1, 4])
def test_when_a_trait_has_enough_no_score_more_is_asked_and_one_wave_was_ahead_at_most(
    last: int,
) -> None:
    plan = Plan(spec(until="converged", rollouts=3))

    order = run_until_enough(plan, last)

    training = [job for job in order if job.part in ("positive", "negative")]
    generated = {j.shard for j in training if j.stage == "generate"}
    assert {j.shard for j in training if j.stage == "judge"} == set(range(last + 1))
    assert generated <= set(range(last + 2))
    assert order[-1].key == "refusal/verify"
    assert all(plan.n_samples_of(job) == 20 for job in training)


def test_a_wave_is_balanced_and_the_first_hundred_prompts_come_before_any_second_rollout() -> None:
    plan = Plan(spec(until="converged", rollouts=3))
    jobs = plan.part_jobs(trait(), "generate", "positive")

    for job in jobs:
        samples = plan.samples(job)
        assert {s.question for s in samples} == set(range(20))
        assert set(Counter(s.instruction for s in samples).values()) == {4}
    first = [(s.instruction, s.question) for job in jobs[:5] for s in plan.samples(job)]
    assert len(set(first)) == 100


def test_waves_hold_the_samples_of_the_whole_run() -> None:
    whole, waves = Plan(spec(rollouts=3)), Plan(spec(rollouts=3, until="converged"))

    assert set(samples_of(whole, "positive")) == set(samples_of(waves, "positive"))


def test_a_later_judgement_scores_the_waves_that_counted_and_no_others() -> None:
    converged = spec(until="converged", rollouts=3)
    done = {job.key for job in run_until_enough(Plan(converged), 1)}
    done |= {stop_mark(trait(), 1).key}
    second = Plan(converged, "second")
    order: list[Job] = []

    while ready := ready_jobs(second, done):
        order += ready
        done |= {job.key for job in ready}

    waves = {job.shard for job in order if job.part in ("positive", "negative")}
    assert waves == {0, 1}
    assert order[-1].key == "refusal/verify@second"


def unjudged(**changes: object) -> RunSpec:
    judge = JudgeSpec(model=NO_JUDGE, url=NO_JUDGE)
    return spec(judge=judge, checks=ChecksSpec(causal=0), rollouts=3, **changes)


@pytest.mark.parametrize("until", ["all", "converged"])
def test_without_a_judge_nobody_is_asked_and_each_job_is_reached_from_those_before_it(
    until: str,
) -> None:
    plan = Plan(unjudged(until=until))
    done: set[str] = set()
    waiting = ready_jobs(plan, done)
    order: list[Job] = []

    while waiting:
        job = waiting.pop(0)
        order.append(job)
        done.add(job.key)
        if job.stage == "converge" and job.shard == plan.n_shards(trait()) - 1:
            done.add(stop_mark(trait(), job.shard).key)
        found = [one for one in jobs_readied_by(plan, job) if is_job_ready(plan, one, done)]
        waiting += [one for one in found if one not in waiting]

    assert {job.stage for job in order} & {"negotiate", "judge"} == set()
    assert {job.key for job in order} == {job.key for job in plan.jobs()}
    assert order[-1] == plan.last_job(trait())


def test_what_had_no_judge_is_judged_later_without_generating_again() -> None:
    first = Plan(unjudged())
    done = {job.key for job in first.jobs()}
    second = Plan(first.spec, "second")
    order: list[Job] = []

    while ready := ready_jobs(second, done):
        order += ready
        done |= {job.key for job in ready}

    assert {job.stage for job in order} == {"negotiate", "judge", "reduce", "verify"}
    assert order[-1].key == "refusal/verify@second"
