"""Protects a run from one machine's faults: a worker that cannot serve it leaves it to others."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from celery.exceptions import Reject

import tasks.fleet.edge
from domain.errors import ModelError, ModelNotHereError, StoreNotHereError
from domain.fleet.heartbeats import Decline, Demand, Heartbeat, ListedRun
from domain.fleet.placement import models_left, workers_left
from domain.plan.jobs import Job
from storage.broker.embedded_redis import embedded_redis
from storage.broker.fleet import (
    put_heartbeat,
    put_listed_run,
    read_declines,
    read_demands,
)
from storage.broker.state import BrokerState
from storage.record.artifacts import Record
from storage.record.run import Run
from storage.record.store import open_store
from tasks.fleet.app import DeliverySettings, make_app
from tasks.fleet.declines import SETTLES_S, Declines, decline_reasons
from tasks.fleet.edge import Edge
from tests.fleet import run_command
from tests.test_delivery import do_it, make_run, message_for, message_of

GOOD, BAD = "gpu-0@good", "gpu-0@bad"


@pytest.fixture(scope="module")
def broker_url() -> Iterator[str]:
    with embedded_redis() as url:
        yield url


@pytest.fixture
def client(broker_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[redis.Redis]:
    monkeypatch.setattr(tasks.fleet.edge, "DECLINED_PAUSE_S", 0.0)
    with redis.Redis.from_url(broker_url) as found:
        found.flushdb()
        yield found


def worker(
    name: str, kind: str = "gpu", *, models: tuple[str, ...] = (), leaves: bool = False
) -> Heartbeat:
    host = name.partition("@")[2]
    return Heartbeat(name=name, kind=kind, host=host, models=models, draining=leaves)


def edge_of(broker_url: str, worker: str, retry_s: float = 300.0) -> Edge:
    declines = Declines("gpu", worker, retry_s)
    return Edge(make_app(broker_url), broker_url, DeliverySettings(), declines=declines)


def fleet_of(client: redis.Redis, run: Run, *workers: Heartbeat) -> BrokerState:
    put_listed_run(client, run)
    for one in workers:
        put_heartbeat(client, one)
    state = BrokerState(client, run.run_id)
    state.claim("negotiate")
    return state


def no_model(_run: Run, _job: Job) -> Record:
    raise ModelNotHereError("No model 'x' in a folder of that name")


def test_a_run_is_left_to_those_of_the_kind_that_may_serve_its_model_and_have_not_declined() -> (
    None
):
    workers = [
        worker("gpu-1@a"),
        worker("gpu-2@b", models=("google/*",)),
        worker("gpu-3@c", models=("Qwen/*",)),
        worker("gpu-4@d", leaves=True),
        worker("judge-1@e", "judge"),
    ]

    assert workers_left("gpu", "Qwen/7B", workers=workers, declined={"gpu-1@a"}) == ["gpu-3@c"]
    assert workers_left("gpu", "demo", workers=workers, declined={"gpu-1@a"}) == []
    assert workers_left("judge", "demo", workers=workers, declined=set()) == ["judge-1@e"]
    assert "gpu-2@b" in workers_left("gpu", "", workers=workers, declined=set())


def test_what_nobody_serves_is_said_with_every_host_and_each_reason_once() -> None:
    said = [
        Decline("gpu-1@b", "no model"),
        Decline("gpu-2@b", "no model"),
        Decline("gpu-1@a", "no model"),
        Decline("gpu-1@c", "no folder"),
    ]

    assert decline_reasons(said) == "on a, b: no model; on c: no folder"


def test_a_worker_counts_for_the_models_of_which_it_did_not_decline_every_run() -> None:
    def demand(name: str, model: str, *declined_by: str) -> Demand:
        return Demand(ListedRun(name, name, "/runs", model), 1, frozenset(declined_by))

    one, other = worker(GOOD), worker(BAD, models=("a*", "b"))
    demands = [demand("1", "a[1]", BAD), demand("2", "b", BAD), demand("3", "b")]

    assert models_left(one, demands) == ()
    assert models_left(other, demands) == ("b",)
    assert models_left(other, demands[:2]) is None
    assert models_left(other, []) == ("a*", "b")


def test_a_job_goes_back_uncounted_and_its_run_is_declined_once_with_one_warning(
    tmp_path: Path, broker_url: str, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    run, edge = make_run(tmp_path / "run"), edge_of(broker_url, BAD)
    state = fleet_of(client, run, worker(GOOD), worker(BAD))

    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            with pytest.raises(Reject) as given_back:
                edge.carry(no_model, message_of(run))
            assert given_back.value.requeue

    assert state.failures() == []
    assert state.outstanding() == {"negotiate"}
    assert state.n_attempts("negotiate") == 0
    assert [one.worker for one in read_declines(client, run.run_id)] == [BAD]
    (warning,) = [r for r in caplog.records if getattr(r, "event", "") == "run_declined"]
    assert "bad cannot serve this run: No model 'x'" in warning.getMessage()


def test_a_run_fails_with_every_host_when_the_last_of_the_kind_declines(
    tmp_path: Path, broker_url: str, client: redis.Redis
) -> None:
    run = make_run(tmp_path / "run")
    state = fleet_of(client, run, worker(GOOD), worker(BAD), worker("judge-0@other", "judge"))

    with pytest.raises(Reject):
        edge_of(broker_url, BAD).carry(no_model, message_of(run))
    with pytest.raises(ModelError):
        edge_of(broker_url, GOOD).carry(no_model, message_of(run))

    (failure,) = state.failures()
    assert failure.fatal
    assert failure.message == "on bad, good: No model 'x' in a folder of that name"
    # the last one takes what comes next, so that a resumed run is tried at once
    assert [one.worker for one in read_declines(client, run.run_id)] == [BAD]


def test_a_worker_alone_fails_at_once_and_declines_nothing(
    tmp_path: Path, broker_url: str, client: redis.Redis
) -> None:
    run, edge = make_run(tmp_path / "run"), edge_of(broker_url, BAD)
    state = fleet_of(client, run, worker(BAD), worker("gpu-9@leaving", leaves=True))

    with pytest.raises(ModelNotHereError):
        edge.carry(no_model, message_of(run))

    assert [failure.fatal for failure in state.failures()] == [True]
    assert edge.carry(do_it, message_of(run)) == "negotiate: did it"


def test_what_is_wrong_with_the_run_itself_fails_it_beside_any_number_of_workers(
    tmp_path: Path, broker_url: str, client: redis.Redis
) -> None:
    def encoder(_run: Run, _job: Job) -> Record:
        raise ModelError("A bert model is not a causal language model: choose one that writes.")

    run, edge = make_run(tmp_path / "run"), edge_of(broker_url, BAD)
    state = fleet_of(client, run, worker(GOOD), worker(BAD))

    with pytest.raises(ModelError):
        edge.carry(encoder, message_of(run))
    with pytest.raises(Reject) as refused:
        edge.carry(do_it, {**message_of(run), "job": "refusal/generate/positive-999"})

    assert refused.value.requeue is False
    assert [failure.fatal for failure in state.failures()] == [True, True]
    assert read_declines(client, run.run_id) == []


def test_a_run_that_is_not_on_this_machine_is_left_to_others(
    tmp_path: Path, broker_url: str, client: redis.Redis
) -> None:
    run, edge = make_run(tmp_path / "run"), edge_of(broker_url, BAD)
    state = fleet_of(client, run, worker(GOOD), worker(BAD))
    elsewhere = message_for(run.run_id, str(tmp_path / "not mounted"), "negotiate").model_dump()

    with pytest.raises(Reject) as given_back:
        edge.carry(do_it, elsewhere)

    assert given_back.value.requeue
    assert state.failures() == []
    assert "there is no run at" in read_declines(client, run.run_id)[0].reason


def test_a_declined_run_is_tried_again_after_a_while_or_when_it_is_started_again(
    tmp_path: Path, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, declines = make_run(tmp_path / "run"), Declines("gpu", BAD, retry_s=300.0)
    state = fleet_of(client, run, worker(GOOD), worker(BAD))
    now = 1000.0
    monkeypatch.setattr("tasks.fleet.declines.time.monotonic", lambda: now)

    def open_runs() -> list[str]:
        demands = read_demands(client, "gpu")
        return [d.run.run_id for d in declines.without_declined(client, demands)]

    assert declines.decline(state, StoreNotHereError("not mounted")) == ""
    assert open_runs() == []
    now += 299
    assert open_runs() == []
    now += 1
    assert open_runs() == [run.run_id]
    assert read_declines(client, run.run_id) == []

    declines.decline(state, StoreNotHereError("not mounted"))
    now += SETTLES_S
    assert open_runs() == []
    state.start_over()
    assert open_runs() == [run.run_id]


def test_a_worker_that_leaves_takes_its_declines_along_and_so_does_its_successor_of_the_same_name(
    tmp_path: Path, client: redis.Redis
) -> None:
    run, declines = make_run(tmp_path / "run"), Declines("gpu", BAD)
    state = fleet_of(client, run, worker(GOOD), worker(BAD))

    declines.decline(state, StoreNotHereError("not mounted"))
    declines.forget(client)
    after_leaving = read_declines(client, run.run_id)
    declines.decline(state, StoreNotHereError("not mounted"))
    Declines("gpu", BAD).without_declined(client, read_demands(client, "gpu"))

    assert after_leaving == []
    assert read_declines(client, run.run_id) == []


def test_status_and_the_list_of_workers_show_who_declines_which_run_and_why(
    tmp_path: Path, broker_url: str, client: redis.Redis
) -> None:
    run = make_run(tmp_path / "runs" / "gemma")
    state = fleet_of(client, run, worker(GOOD), worker(BAD))
    Declines("gpu", "gpu-9@dead").decline(state, StoreNotHereError("gone with its worker"))
    Declines("gpu", BAD).decline(state, StoreNotHereError("[no] folder"))
    where = ["--runs-dir", str(tmp_path / "runs")]

    def said(*words: str) -> str:
        # the workers live on, however long the commands take
        for name in (GOOD, BAD):
            put_heartbeat(client, worker(name))
        return run_command(*words, broker_url=broker_url).stdout

    assert "bad gpu-0: cannot serve this run: [no] folder" in said("status", "gemma", *where)
    assert "bad gpu-0: cannot serve gemma: [no] folder" in said("status", *where)
    assert "bad gpu-0: cannot serve gemma: [no] folder" in said("worker", "list")
    rows = json.loads(said("worker", "list", "--json"))
    assert [row["worker"] for row in rows["refusals"]] == [BAD]


def test_a_place_that_this_machine_cannot_write_is_its_own_fault(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    store = open_store(str(tmp_path / "file" / "run"))

    with pytest.raises(StoreNotHereError, match="cannot write"):
        store.write("run.json", b"{}")
