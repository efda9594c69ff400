"""Protects what is announced of a later judgement: as many calls as its jobs will ask."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cli.using.estimate import TraitEstimate, estimate_judgement, estimate_plan
from domain.plan.jobs import Plan
from domain.plan.readiness import stop_mark
from domain.plan.samples import CONFIRMATION, POLARITIES, ROUNDS
from domain.plan.spec import ChecksSpec, JudgeSpec
from domain.scoring.scores import Score
from domain.traits.definition import TraitDefinition
from domain.traits.room import CHARACTERS_PER_TOKEN
from storage.files.trait_files import load_trait
from storage.record.artifacts import set_artifact_aside
from storage.record.judgements import Judgement, add_judgement, asked_prompts, effective_scorings
from storage.record.responses import load_responses
from storage.record.run import Run, load_definition
from storage.record.scorings import keep_partial_scorings
from tests.stored_run import stored_run
from tests.test_plan import spec, trait

CHECKS = ChecksSpec(evaluation=2, causal=6, contexts=0)
OTHER = JudgeSpec(model="other", url="http://h/v1")


def judged_again(run: Run, *, only_unscored: bool = False) -> Run:
    judge = run.spec.judge if only_unscored else OTHER
    add_judgement(run, Judgement(name="second", number=2, judge=judge, only_unscored=only_unscored))
    return replace(run, judgement="second")


def announced(run: Run) -> TraitEstimate:
    definitions = {one.name: load_definition(run, one.name) for one in run.spec.traits}
    done = run.done()
    (found,) = estimate_judgement(run, estimate_plan(run.plan, definitions, done=done), done=done)
    return found


def n_responses(run: Run, *parts: str) -> int:
    (ref,) = run.spec.traits
    jobs = run.plan.part_jobs(ref, "generate", *parts)
    return sum(len(load_responses(run.store, job)) for job in jobs)


def test_a_later_judgement_asks_nothing_of_the_search_for_the_best_push(tmp_path: Path) -> None:
    run = judged_again(stored_run(tmp_path / "run", traits="evil", checks=CHECKS))

    found = announced(run)

    assert n_responses(run, *ROUNDS) > 0 and n_responses(run, CONFIRMATION) > 0
    assert found.n_judge_calls == 2 * (n_responses(run) - n_responses(run, *ROUNDS))
    jobs = run.plan.part_jobs(run.spec.traits[0], "judge")
    texts = [text for job in jobs for text in asked_prompts(run, job)[0].values()]
    assert found.n_judge_calls == len(texts)
    assert found.judge_prompt_tokens == pytest.approx(
        sum(map(len, texts)) / CHARACTERS_PER_TOKEN, abs=1
    )


def test_only_what_has_no_score_is_announced_where_only_that_is_asked(tmp_path: Path) -> None:
    first = stored_run(tmp_path / "run", traits="evil")
    jobs = first.plan.part_jobs(first.spec.traits[0], "judge")
    scorings = [one for job in jobs for one in effective_scorings(first, job).values()]

    found = announced(judged_again(first, only_unscored=True))

    n_unscored = sum(not isinstance(one, Score) for one in scorings)
    assert found.n_judge_calls == n_unscored > 0


def test_what_an_interrupted_judgement_was_answered_is_not_announced_again(tmp_path: Path) -> None:
    first = stored_run(tmp_path / "run", traits="evil")
    run = judged_again(first)
    job, *_ = run.plan.part_jobs(run.spec.traits[0], "judge")
    before = announced(run)
    answered = {
        asked: one.evidence
        for asked, one in effective_scorings(first, replace(job, judgement=None)).items()
        if isinstance(one, Score)
    }

    keep_partial_scorings(run.store, job, answered)

    assert before.n_judge_calls - announced(run).n_judge_calls == len(answered) > 0


def test_responses_that_are_to_be_made_again_are_announced_as_planned(tmp_path: Path) -> None:
    run = judged_again(stored_run(tmp_path / "run", traits="evil"))
    (ref,) = run.spec.traits
    set_artifact_aside(run.store, run.plan.part_jobs(ref, "generate", *POLARITIES)[0])

    assert announced(run).n_judge_calls == 2 * run.plan.n_samples(ref)


def test_waves_after_the_last_are_not_announced() -> None:
    plan = Plan(spec(until="converged", checks=ChecksSpec(evaluation=0, causal=0, contexts=0)))
    (ref,) = plan.spec.traits
    definitions: dict[str, TraitDefinition] = {ref.name: load_trait(ref.name)}
    jobs = [*plan.part_jobs(ref, "generate"), *plan.part_jobs(ref, "judge")]
    done = {job.key for job in jobs if (job.shard or 0) <= 1} | {stop_mark(trait(), 1).key}

    whole, ended = (estimate_plan(plan, definitions, done=keys)[0] for keys in (set(), done))

    assert (whole.n_to_generate, whole.n_judge_calls) == (2000, 4000)
    assert (ended.n_to_generate, ended.n_judge_calls) == (0, 0)
