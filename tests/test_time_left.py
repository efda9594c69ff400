"""Protects the time left that `extract` and `status` show: one estimate, from early in a run."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from cli.screens.progress import Progress
from cli.screens.run_in_words import News, run_in_words
from cli.screens.status import run_status_screen
from domain.fleet.heartbeats import Heartbeat
from domain.plan.jobs import Plan, Stage
from domain.plan.samples import POLARITIES
from domain.plan.spec import ChecksSpec
from orchestrator.progress import (
    StageCount,
    seconds_left,
    stage_progress,
    stage_rates,
    trait_progress,
    waiting_stages,
)
from storage.broker.connection import connect
from storage.broker.counts import job_counts, note_counts
from storage.broker.embedded_redis import embedded_redis
from storage.broker.fleet import put_heartbeat, put_listed_run
from storage.record.run import Run, create_run
from storage.record.store import open_store
from tests.quality_records import metrics
from tests.simulated_runs import driver, make_run

NOTHING_VERIFIED = {"generate": 10.0, "judge": 4.0, "verify": 0.0}


@pytest.fixture
def checked(tmp_path: Path) -> Run:
    """A run whose traits end with a `verify`."""
    spec = make_run(tmp_path / "like", traits=2, shards=4).spec
    refs = tuple(trait.model_copy(update={"n_eval_questions": 4}) for trait in spec.traits)
    with_checks = spec.model_copy(
        update={"traits": refs, "checks": ChecksSpec(evaluation=2, causal=0)}
    )
    store = open_store(str(tmp_path / "checked"))
    return create_run(store, with_checks, run_id="checked", definitions={}, provenance={})


def some_done(run: Run) -> set[str]:
    """The first jobs of each stage, one of a trait and none that ends it."""
    plan: Plan = run.plan
    ours = [
        plan.part_jobs(trait, stage, *POLARITIES)[0]
        for trait in run.spec.traits
        for stage in STAGES
    ]
    return {plan.negotiate_job.key, *(job.key for job in ours)}


STAGES: tuple[Stage, ...] = ("generate", "judge")


def test_stages_that_come_last_do_not_hide_the_time_of_the_others() -> None:
    totals = {
        "generate": StageCount(500, 1000),
        "judge": StageCount(400, 1000),
        "verify": StageCount(0, 11),
    }

    assert seconds_left(totals, NOTHING_VERIFIED) == 600 / 4
    # nor does the first one that ended within the minute
    assert seconds_left(totals, {**NOTHING_VERIFIED, "verify": 1 / 60}) == 600 / 4
    assert seconds_left(totals, {}) is None


def test_the_end_is_counted_in_its_own_jobs() -> None:
    totals = {"generate": StageCount(9, 9), "verify": StageCount(1, 11)}

    assert seconds_left(totals, stage_rates({"jobs.verify": 0.5}, totals)) == 20
    assert seconds_left({"verify": StageCount(11, 11)}, {}) == 0


def test_status_shows_a_time_left_before_any_vector_was_tested(checked: Run) -> None:
    with embedded_redis() as url, connect(url) as client:
        put_listed_run(client, checked)
        one = driver(url, checked)
        one.state.mark_done(some_done(checked))
        put_heartbeat(client, Heartbeat("gpu-0@h", "gpu", "h"))
        client.rpush("gpu.checked", "{}")
        for stage in STAGES:
            note_counts(client, "checked", job_counts(stage, 1.0, samples=20, tokens=0))
        found = run_in_words(checked, url)

    assert found["stages"]["verify"] == {"done": 0, "total": 2}
    console = Console(width=130, file=io.StringIO())
    console.print(run_status_screen(found))
    assert re.search(r"running, about [0-9:]+", console.file.getvalue())  # type: ignore[attr-defined]


def test_extract_shows_a_time_left_before_any_vector_was_tested(
    checked: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cli.screens.progress.PLAIN_EVERY_S", 0.0)
    console = Console(width=200, file=io.StringIO())
    progress = Progress(console, read_metrics=lambda _: metrics())

    progress.update(trait_progress(checked.plan, set()), [])
    progress.update(trait_progress(checked.plan, some_done(checked)), [])

    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert "time left" not in lines[0]
    assert re.fullmatch(r"(seconds|[0-9:]+)", lines[1].rpartition("time left ")[2])


def test_before_the_first_shard_ends_the_time_left_is_that_of_the_tokens(
    checked: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cli.screens.progress.PLAIN_EVERY_S", 0.0)
    console = Console(width=200, file=io.StringIO())
    progress = Progress(
        console,
        read_metrics=lambda _: metrics(),
        news_in_words=lambda: News(tokens_per_s=100.0),
        tokens_each=10.0,
    )
    counts = trait_progress(checked.plan, set())

    progress.update(counts, [])

    line = console.file.getvalue()  # type: ignore[attr-defined]
    n_responses = stage_progress(counts)["generate"].total
    assert f"time left {n_responses // 10} s" in line
    assert "100 tokens/s" in line


def test_only_what_can_do_nothing_else_waits_for_the_reading_in_other_contexts(
    checked: Run,
) -> None:
    """Steering follows what is read; the other trait's answers do not wait for it."""
    checks = ChecksSpec(evaluation=2, causal=6, contexts=20)
    plan = Plan(checked.spec.model_copy(update={"checks": checks}))
    done = {plan.negotiate_job.key}
    stages: tuple[Stage, ...] = ("generate", "judge")
    seen = []
    for trait in plan.spec.traits:
        parts = (*POLARITIES, "evaluation")
        done |= {one.key for stage in stages for one in plan.part_jobs(trait, stage, *parts)}
        done.add(plan.trait_job("reduce", trait.name).key)
        seen.append(waiting_stages(trait_progress(plan, done)))
    for trait in plan.spec.traits:
        done |= {one.key for one in plan.contexts_jobs(trait)}
        seen.append(waiting_stages(trait_progress(plan, done)))

    assert seen == [set(), {"generate", "judge"}, set(), set()]
