"""Protects the exporter's series: unique, there from the start, and those that alarms ask for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from domain.fleet.heartbeats import Heartbeat
from domain.plan.spec import ChecksSpec
from orchestrator.prometheus import FleetCollector
from storage.broker.connection import Client, connect
from storage.broker.counts import job_counts, note_counts
from storage.broker.embedded_redis import embedded_redis
from storage.broker.fleet import put_heartbeat, put_listed_run
from storage.broker.judge_limits import put_judge_meter
from storage.record.run import Run, create_run
from storage.record.spending import Terms
from storage.record.store import open_store
from tests.deploy_files import DEPLOY
from tests.simulated_runs import make_run

SCRAPED = {"instance", "job"}
Series = tuple[str, frozenset[tuple[str, str]]]


@pytest.fixture
def broker() -> Iterator[tuple[str, Client]]:
    with embedded_redis() as url, connect(url) as client:
        yield url, client


def scrape(url: str) -> dict[Series, float]:
    """Every series with its value; fails where one is served twice."""
    found: dict[Series, float] = {}
    for family in FleetCollector(url).collect():
        for one in family.samples:
            series = (one.name, frozenset(one.labels.items()))
            assert series not in found, f"served twice: {series}"
            found[series] = one.value
    return found


def named(name: str, folder: Path, *, run_id: str) -> Run:
    """A run of that name below a folder."""
    spec = make_run(folder / "like" / run_id, traits=1, shards=2).spec
    store = open_store(str(folder / run_id / name))
    return create_run(store, spec, run_id=run_id, definitions={}, provenance={})


def total(found: dict[Series, float], name: str, **labels: str) -> float:
    return sum(v for (n, have), v in found.items() if n == name and have >= set(labels.items()))


def test_two_runs_of_one_name_are_two_series_each_with_its_own_counts(
    broker: tuple[str, Client], tmp_path: Path
) -> None:
    url, client = broker
    for run_id, n in (("mine", 30), ("yours", 500)):
        put_listed_run(client, named("demo", tmp_path, run_id=run_id))
        note_counts(client, run_id, {"samples.generate": n, "jobs.generate": 1})

    found = scrape(url)

    names = "orchestrate_samples_total", "orchestrate_jobs_total"
    assert total(found, names[0], run="demo", run_id="mine") == 30
    assert total(found, names[0], run="demo", run_id="yours") == 500
    assert total(found, names[1], run="demo", outcome="done") == 2


def test_a_run_that_nothing_came_of_yet_has_a_zero_for_every_outcome(
    broker: tuple[str, Client], tmp_path: Path
) -> None:
    url, client = broker
    put_listed_run(client, named("demo", tmp_path, run_id="new"))

    found = scrape(url)

    outcomes = {
        (labels["outcome"], value)
        for (name, have), value in found.items()
        if name == "orchestrate_jobs_total" and (labels := dict(have))["stage"] == "generate"
    }
    assert outcomes == {(one, 0.0) for one in ("done", "failed", "begun_again", "given_up")}


def test_the_tests_of_the_alarms_use_series_as_the_exporter_serves_them(
    broker: tuple[str, Client], tmp_path: Path
) -> None:
    url, client = broker
    put_listed_run(client, named("demo", tmp_path, run_id="new"))
    put_judge_meter(client, "new", terms=Terms(cap_usd=1.0), spent=0.0)
    put_heartbeat(client, Heartbeat("gpu-0@h", "gpu", "h", device="cuda:0", busy=0.5))
    served = {(name, frozenset(dict(have))) for name, have in scrape(url)}
    tests = yaml.safe_load((DEPLOY / "prometheus" / "rules_test.yml").read_text())["tests"]

    used = set()
    for line in (one["series"] for test in tests for one in test["input_series"]):
        labels = frozenset(re.findall(r'(\w+)="', line))
        assert labels >= SCRAPED, line
        used.add((line.partition("{")[0], labels - SCRAPED))

    assert used - served == set()


@pytest.mark.parametrize("file", ["prometheus/rules.yml", "grafana/orchestrate.json"])
def test_alarms_and_dashboard_ask_for_what_is_served(
    broker: tuple[str, Client], tmp_path: Path, file: str
) -> None:
    url, client = broker
    put_listed_run(client, named("demo", tmp_path, run_id="new"))
    put_judge_meter(client, "new", terms=Terms(cap_usd=1.0), spent=0.0)
    put_heartbeat(client, Heartbeat("gpu-0@h", "gpu", "h", busy=0.5))
    note_counts(client, "new", job_counts("judge", 1.0, samples=1, tokens=0))
    asked = set(re.findall(r"\borchestrate_\w+", (DEPLOY / file).read_text()))

    assert asked - {name for name, _ in scrape(url)} == set()


@pytest.mark.parametrize("judgement", [None, "second"])
def test_planned_samples_are_those_that_the_stages_get_done(
    broker: tuple[str, Client], tmp_path: Path, judgement: str | None
) -> None:
    url, client = broker
    run = replace(checked(named("demo", tmp_path, run_id="new")), judgement=judgement)
    put_listed_run(client, run)
    jobs = [job for trait in run.spec.traits for job in run.plan.part_jobs(trait, "judge")]
    for job in jobs:
        n = run.plan.n_samples_of(job)
        note_counts(client, "new", job_counts("judge", 1.0, samples=n, tokens=0))

    found = scrape(url)

    done = total(found, "orchestrate_samples_total", run="demo", stage="judge")
    assert done > sum(run.plan.n_samples(trait) for trait in run.spec.traits)
    assert total(found, "orchestrate_run_samples", run="demo") == done


def checked(run: Run) -> Run:
    """The run with evaluation and steering samples."""
    traits = tuple(one.model_copy(update={"n_eval_questions": 4}) for one in run.spec.traits)
    checks = ChecksSpec(evaluation=2, causal=3)
    return replace(run, spec=run.spec.model_copy(update={"traits": traits, "checks": checks}))
