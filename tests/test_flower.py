"""Protects Flower's Broker page: it counts what waits on the queues of the runs that are there."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from orchestrator.processes import orchestrate
from storage.broker.connection import connect
from storage.broker.embedded_redis import die_with_parent, embedded_redis
from storage.broker.fleet import put_listed_run
from tasks.fleet.app import make_app
from tests.faults.fleet import wait_until
from tests.fleet import clean_environment
from tests.simulated_runs import make_run


@pytest.fixture(scope="module")
def broker() -> Iterator[str]:
    with embedded_redis() as url:
        yield url


@pytest.fixture(scope="module")
def pages(broker: str) -> Iterator[httpx2.Client]:
    """Flower on the broker, begun before any run was there."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {
        **clean_environment(),
        "ORCHESTRATE_BROKER_URL": broker,
        "ORCHESTRATE_FLOWER_AUTH": "me:password",
    }
    command = orchestrate("flower", "--port", str(port))
    process = subprocess.Popen(command, env=environment, preexec_fn=die_with_parent)
    base = f"http://127.0.0.1:{port}"
    try:
        with httpx2.Client(base_url=base, auth=("me", "password"), timeout=60) as client:
            for _ in range(500):
                with contextlib.suppress(httpx2.TransportError):
                    client.get("/healthcheck")
                    break
                time.sleep(0.2)
            yield client
    finally:
        process.terminate()
        process.wait(timeout=60)


def test_jobs_that_wait_for_a_run_that_came_later_are_counted(
    broker: str, pages: httpx2.Client, tmp_path: Path
) -> None:
    run = make_run(tmp_path / "later", traits=1, shards=1)
    with connect(broker) as client:
        put_listed_run(client, run)
        client.rpush("gpu.later", *["{}"] * 7)

        found = json.loads(pages.get("/api/queues/length").text)["active_queues"]
        page = pages.get("/broker").text

    counts = {queue["name"]: queue["messages"] for queue in found}
    assert counts["gpu.later"] == 7
    assert counts["judge.later"] == 0
    assert "gpu.later" in page


def test_pages_need_the_password_still(pages: httpx2.Client) -> None:
    assert httpx2.get(f"{pages.base_url}/broker").status_code == 401


@pytest.mark.parametrize("page", ["/", "/metrics", "/broker", "/api/workers", "/tasks"])
def test_every_page_asks_for_the_login(pages: httpx2.Client, page: str) -> None:
    refused = httpx2.get(f"{str(pages.base_url).rstrip('/')}{page}")

    assert refused.status_code == 401
    assert pages.get(page).status_code == 200


def test_workers_are_seen_again_after_a_while_in_which_the_broker_took_nothing(
    broker: str, pages: httpx2.Client
) -> None:
    with connect(broker) as client:
        client.replicaof("127.0.0.1", "1")
        # Flower's own connection is cut too, so that it has to come back meanwhile
        client.client_kill_filter(_type="normal", skipme=True)
        time.sleep(5)
        client.replicaof("NO", "ONE")

    def is_seen() -> bool:
        with make_app(broker).events.default_dispatcher(hostname="gpu-7@later") as worker:
            worker.send("worker-heartbeat", freq=2)
        return "gpu-7@later" in pages.get("/workers").text

    wait_until(is_seen, timeout_s=60, what="a worker on Flower's page")
    assert pages.get("/broker").status_code == 200
