"""Protects runs from a broker that answers and cannot serve: they wait, say so, and go on."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import redis

from tests.faults.disturbed_run import (
    FINISHED,
    GENERATE,
    PATIENCE_S,
    Scene,
    disturbed,
    while_busy,
    whole_scene,
)
from tests.faults.fleet import wait_until
from tests.faults.redis_process import RedisProcess
from tests.fleet import run_command

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

# Four visibility timeouts: every lease would have run out.
CANNOT_S = 12.0
BACK = "The broker is back."


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    server = RedisProcess(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def scene(broker: RedisProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with whole_scene(broker.url, tmp_path_factory.mktemp("answers")) as scene:
        yield scene


@contextmanager
def full(client: redis.Redis) -> Iterator[None]:
    client.config_set("maxmemory", 1)
    yield
    client.config_set("maxmemory", 0)


@contextmanager
def replica(client: redis.Redis) -> Iterator[None]:
    client.replicaof("127.0.0.1", "1")
    yield
    client.replicaof("NO", "ONE")


@contextmanager
def cannot_save(client: redis.Redis) -> Iterator[None]:
    folder = str(client.config_get("dir")["dir"])
    # a folder that is there and where nobody may write, root neither
    client.config_set("dir", "/proc")
    client.config_set("save", "1 1")
    client.set("orchestrate:changed", 1)
    with suppress(redis.ResponseError):
        client.bgsave()
    yield
    client.config_set("save", "")
    client.config_set("dir", folder)


@contextmanager
def no_more_clients(client: redis.Redis) -> Iterator[None]:
    client.config_set("maxclients", 1)
    client.client_kill_filter(_type="normal", skipme=True)
    yield
    client.config_set("maxclients", 10000)


@contextmanager
def other_password(client: redis.Redis) -> Iterator[None]:
    old = client.connection_pool.connection_kwargs["password"]
    client.execute_command("ACL", "SETUSER", "default", "resetpass", ">another")
    client.client_kill_filter(_type="normal", skipme=True)
    yield
    client.execute_command("ACL", "SETUSER", "default", f">{old}")


@contextmanager
def busy(client: redis.Redis) -> Iterator[None]:
    client.config_set("lua-time-limit", 100)
    looping = redis.Redis(
        connection_pool=redis.ConnectionPool(
            **{**client.connection_pool.connection_kwargs, "socket_timeout": 60}
        )
    )

    def loop() -> None:
        with suppress(redis.RedisError):
            looping.eval("while true do end", 0)

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    yield
    client.execute_command("SCRIPT", "KILL")
    thread.join()


CASES = {
    "OOM": (full, "Redis full (OOM)"),
    "READONLY": (replica, "Redis a replica (READONLY)"),
    "MISCONF": (cannot_save, "Redis unable to save (MISCONF)"),
    "max number of clients": (no_more_clients, "Redis with too many clients"),
    "password": (other_password, "another password (WRONGPASS)"),
    "BUSY": (busy, "Redis busy with a script (BUSY)"),
}


@pytest.mark.parametrize("words", CASES)
def test_the_server_answers_and_cannot_serve_for_a_while(
    scene: Scene, broker: RedisProcess, words: str
) -> None:
    """Workers stay, the command says once what it waits for, and all go on.

    The state is brought about while workers generate, and ended after four visibility timeouts.
    """
    hinder, fault = CASES[words]
    deaths, name = scene.fleet.deaths, words.split()[0]
    with disturbed(scene, name) as (run, process), broker.client() as client:
        log = scene.fleet.folder / f"command_{name}.log"
        client.ping()  # it keeps the one connection that it has
        while_busy(scene, run, GENERATE, "gpu-0", "gpu-1")

        with hinder(client):
            since = time.monotonic()
            wait_until(
                lambda: words in log.read_text(), timeout_s=PATIENCE_S, what="the command's word"
            )
            shown = standing(run.runs, name, broker.url)
            time.sleep(max(0.0, CANNOT_S - (time.monotonic() - since)))

        assert run.finish(process) == FINISHED
    said = log.read_text()
    assert scene.fleet.deaths == deaths
    assert words in shown
    assert (said.count("Waits for the broker"), said.count(BACK)) == (1, 1)
    run.check(fault, at_most=0)


def standing(runs: Path, name: str, broker_url: str) -> str:
    """All that `status` says while the broker cannot serve."""
    found = run_command("status", name, "--runs-dir", str(runs), "--json", broker_url=broker_url)
    return f"{json.loads(found.stdout)['state_why']} {found.stderr}"
