"""Somebody with the worker's password: messages, remote control and keys of their own making."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import Celery

from domain.plan.spec import WIRE_VERSION
from orchestrator.processes import Child, Processes, orchestrate
from storage.broker.connection import connect
from storage.broker.embedded_redis import embedded_redis
from tasks.fleet.app import TASK_NAMES, make_app, run_queue
from tasks.fleet.remote_control import ask_workers
from tests.attacks.scene import Listener, listener, wait_until
from tests.fleet import clean_environment
from tests.simulated_runs import Silent, driver, make_run


@pytest.fixture(scope="module")
def broker() -> Iterator[str]:
    with embedded_redis() as url:
        yield url


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """runs/ is what the worker may open, beside it are somebody else's files."""
    folder = tmp_path_factory.mktemp("host")
    (folder / "runs").mkdir()
    return folder


@pytest.fixture(scope="module")
def log(broker: str, folder: Path) -> Iterator[Path]:
    """A reduce worker's log, as it listens."""
    file = folder / "worker.log"
    environment = {
        **clean_environment(),
        "ORCHESTRATE_BROKER_URL": broker,
        "ORCHESTRATE_ONLY_RUNS_BELOW": str(folder / "runs"),
    }
    child = Child("reduce", orchestrate("worker", "reduce"), environment, file)
    with Processes([child]).running():
        assert wait_until(lambda: "ready" in file.read_text(), within_s=60)
        yield file


@pytest.fixture(scope="module")
def app(broker: str) -> Celery:
    return make_app(broker)


@pytest.fixture(scope="module")
def evil() -> Iterator[Listener]:
    with listener() as found:
        yield found


def places(evil: Listener, outside: Path) -> list[str]:
    """Where a worker that opened them would be heard, or leave a file."""
    host = evil.url.removeprefix("http://").removesuffix("/v1")
    return [
        f"{evil.url}/run",
        f"ftp://{host}/run",
        f"zip::{evil.url}/run.zip",
        f"reference::{evil.url}/run.json",
        f"tar://run::file://{outside}/run.tar",
        f"simplecache::{evil.url}/run",
        f"filecache::file://{outside}",
        f"blockcache://{host}/run",
        f"webhdfs://{host}/run",
        f"file://{outside}",
        f"{outside}/../outside",
        f"{outside.parent}/runs/../outside",
    ]


def test_a_worker_opens_no_place_but_those_it_may(
    folder: Path, log: Path, app: Celery, evil: Listener
) -> None:
    outside = folder / "outside"
    make_run(outside, traits=1, shards=1)
    before = sorted(outside.rglob("*"))
    (folder / "runs" / "link").symlink_to(outside)
    named = [*places(evil, outside), f"{folder}/runs/link"]

    for place in named:
        fields = {"wire": WIRE_VERSION, "run_id": "outside", "run": place, "job": "trait0/reduce"}
        app.send_task(TASK_NAMES["reduce"], queue=run_queue("reduce"), kwargs=fields)

    def refused() -> int:
        return log.read_text().count("failed: ")

    assert wait_until(lambda: refused() >= len(named), within_s=60), log.read_text()
    for place in (named[0], named[3]):
        answers = ask_workers(app, wait_s=1, store=place, key="a/b", token="c")
        assert all(answer["sees"] != "yes" for answer in answers.values())
    assert evil.heard == []
    assert sorted(outside.rglob("*")) == before


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("rate_limit", {"task_name": TASK_NAMES["reduce"], "rate_limit": "1/h"}),
        ("pool_shrink", {"n": 100}),
        ("cancel_consumer", {"queue": "reduce"}),
        ("memdump", {}),
    ],
)
def test_remote_control_freezes_no_worker(
    log: Path, app: Celery, command: str, arguments: dict[str, object]
) -> None:
    app.control.broadcast(command, arguments=arguments)

    assert wait_until(lambda: f"{command!r}" in log.read_text(), within_s=60)
    answers: dict[str, list[dict[str, str]]] = {}
    # a busy worker may answer after a second
    assert wait_until(
        lambda: answers.update(app.control.inspect(timeout=1).active_queues() or {}) or answers,
        within_s=60,
    )
    (answer,) = answers.values()
    assert "reduce" in {queue["name"] for queue in answer}


def test_a_linked_folder_of_a_run_leads_nowhere(
    folder: Path, log: Path, app: Celery, broker: str
) -> None:
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    run = make_run(folder / "runs" / "linked", traits=1, shards=1)
    traits = Path(run.store.url) / "traits"
    if traits.exists():
        traits.rename(folder / "traits-before")
    traits.symlink_to(elsewhere)

    fields = {"wire": WIRE_VERSION, "run_id": "linked", "run": run.store.url}
    message = {**fields, "job": "trait0/reduce"}
    app.send_task(TASK_NAMES["reduce"], queue=run_queue("reduce"), kwargs=message)

    assert wait_until(lambda: "leads outside" in log.read_text(), within_s=60), log.read_text()
    assert list(elsewhere.iterdir()) == []


def test_marks_that_nobody_earned_do_not_end_a_run(folder: Path, broker: str) -> None:
    run = make_run(folder / "runs" / "forged", traits=1, shards=1)
    with connect(broker) as client:
        client.sadd(f"orchestrate:{run.run_id}:done", *(job.key for job in run.plan.jobs()))
    steering = driver(broker, run)
    steering.lost_after_s = 0.0

    assert steering._look(Silent()) is None
    steering.reconcile()
    assert steering.state.done() == set()
    assert steering.state.outstanding() != set()


def test_the_password_was_not_said(log: Path, broker: str) -> None:
    password = broker.split(":")[2].partition("@")[0]

    assert len(password) > 20
    assert password not in log.read_text()
