"""Protects the judgements of one run from each other: their results, and who works."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cli.main import orchestrate as orchestrate_group
from domain.errors import UsageError
from domain.plan.jobs import Job
from domain.plan.spec import ChecksSpec
from domain.verdict.record import JudgingFacts
from storage.broker.connection import Client, connect
from storage.broker.embedded_redis import embedded_redis
from storage.record.artifacts import jobs_with_artifacts, publish_artifact
from storage.record.attended import attending
from storage.record.judgements import Judgement, add_judgement, judgement_names
from storage.record.results import read_metrics, write_metrics, writing_results
from storage.record.run import Run
from tasks.fleet.app import make_app
from tasks.fleet.send import send_jobs
from tests.simulated_runs import driver
from tests.stored_run import stored_run

ENDS = {"evil/reduce@second", "evil/verify@second"}


@pytest.fixture(scope="module")
def broker() -> Iterator[str]:
    with embedded_redis() as url:
        yield url


@pytest.fixture
def client(broker: str) -> Iterator[Client]:
    with connect(broker) as found:
        found.flushdb()
        yield found


def judged_twice(folder: Path, *, ended: bool) -> Run:
    """A finished run on its second judgement, of which a trait's tests are to come unless ended."""
    checks = ChecksSpec(evaluation=1, causal=0, contexts=0)
    own = stored_run(folder, traits="evil", checks=checks)
    add_judgement(own, Judgement(name="second", number=2, judge=own.spec.judge))
    run = replace(own, judgement="second")
    last = run.plan.last_job(run.spec.traits[0])
    for job in run.plan.jobs():
        if job.judgement is not None and (ended or job != last):
            publish_artifact(run.store, job, files={}, info={})
    return run


def show_results_of(run: Run, judgement: str) -> None:
    facts = JudgingFacts(judgement=judgement, judge=run.spec.judge, mode=None)
    metrics = read_metrics(run.store, "evil").model_copy(update={"judging": facts})
    with writing_results(run.store, "traits/evil"):
        write_metrics(run.store, "traits/evil", metrics)


def ends_left(run: Run) -> set[str]:
    return ENDS & jobs_with_artifacts(run.store, ["evil"], judgement="second")


@pytest.mark.parametrize("ended", [False, True])
def test_a_judgement_that_goes_on_tests_its_own_vectors_and_not_those_made_since(
    ended: bool, tmp_path: Path, broker: str, client: Client
) -> None:
    run = judged_twice(tmp_path / "r", ended=ended)
    show_results_of(run, "first")

    driver(broker, run).start()

    assert ends_left(run) == set()


def test_a_judgement_that_goes_on_keeps_the_vectors_that_it_made(
    tmp_path: Path, broker: str, client: Client
) -> None:
    run = judged_twice(tmp_path / "r", ended=False)
    show_results_of(run, "second")

    driver(broker, run).start()

    assert ends_left(run) == {"evil/reduce@second"}


def test_a_finished_run_keeps_the_results_of_a_later_judgement(
    tmp_path: Path, broker: str, client: Client
) -> None:
    run = judged_twice(tmp_path / "r", ended=True)
    show_results_of(run, "second")

    driver(broker, replace(run, judgement=None)).start()

    assert read_metrics(run.store, "evil").judging is not None
    assert {"evil/reduce", "evil/verify"} <= run.done()


def asked(folder: Path, *arguments: str, broker_url: str = "") -> Result:
    fleet = ("--broker-url", broker_url) if broker_url else ()
    return CliRunner().invoke(orchestrate_group, [*arguments, "--runs-dir", str(folder), *fleet])


def test_no_judgement_is_begun_while_another_is_made_on_the_fleet(
    tmp_path: Path, broker: str, client: Client
) -> None:
    run = judged_twice(tmp_path / "r", ended=False)
    one = driver(broker, run)
    job = Job("judge", "evil", "positive", 0, "second")
    send_jobs(make_app(broker), one.state, run, jobs=[job])

    ended = asked(tmp_path, "rejudge", "r", "--name", "third", broker_url=broker)

    assert isinstance(ended.exception, UsageError)
    assert "second" in str(ended.exception)
    assert judgement_names(run) == ["second"]


def test_no_judgement_is_begun_while_another_command_works_on_the_run(tmp_path: Path) -> None:
    run = judged_twice(tmp_path / "r", ended=True)

    with attending(run.store):
        ended = asked(tmp_path, "rejudge", "r", "--use", "first")

    assert isinstance(ended.exception, UsageError)
    assert {"evil/reduce", "evil/verify"} <= replace(run, judgement=None).done()
