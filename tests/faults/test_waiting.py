"""Protects runs that wait, for a broker, workers, a judge or a person: they say so, and go on."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import redis

from domain.scoring.reply_limits import CALL_TIMEOUT_S
from storage.broker.fleet import queue_of
from tasks.fleet.worker import LEAVES_WITHIN_S
from tests.faults.conftest import Note
from tests.faults.disturbed_run import (
    FINISHED,
    GENERATE,
    GPU,
    IN_FLIGHT,
    PATIENCE_S,
    Scene,
    disturbed,
    end,
    while_busy,
    whole_scene,
)
from tests.faults.fleet import wait_until
from tests.faults.redis_process import RedisProcess
from tests.fleet import by_text, run_command
from tests.http_judge import http_judge

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

GPU_WORKERS = ("gpu-0", "gpu-1")

# Four visibility timeouts: every lease would have run out.
CANNOT_S = 12.0
WAITS, BACK = "Waits for the broker: ", "The broker is back."


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
    """Workers stay, the command says once of each reason that it waits, and all go on.

    The state is brought about while workers generate, and ended after four visibility timeouts.
    """
    hinder, fault = CASES[words]
    deaths, name = scene.fleet.deaths, words.split()[0]
    with disturbed(scene, name) as (run, process), broker.client() as client:
        log = scene.fleet.folder / f"command_{name}.log"
        client.ping()  # it keeps the one connection that it has
        while_busy(scene, run, GENERATE, *GPU_WORKERS)

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
    # a connection that was closed on the way to the answer is a reason of its own
    reasons = [line.partition(WAITS)[2] for line in said.splitlines() if WAITS in line]
    assert len(reasons) == len(set(reasons)) > 0
    assert said.count(BACK) == 1
    run.check(fault, at_most=0)


def test_a_cancelled_run_is_resumed_by_a_command_that_does_not_stay(
    scene: Scene, broker: RedisProcess
) -> None:
    """A run that was cancelled goes on with `resume --detach`; the command that watched it ends.

    `cancel` while workers generate; `resume --detach` once they have dropped what was queued.
    """
    where = ["--runs-dir", str(scene.runs)]
    with disturbed(scene, "cancelled") as (run, process), broker.client() as client:
        while_busy(scene, run, GENERATE, *GPU_WORKERS)

        run_command("cancel", "cancelled", *where, broker_url=broker.url)
        ended = run.finish(process)
        run_id = json.loads((run.runs / "cancelled" / "run.json").read_text())["run_id"]
        wait_until(
            # of this run: the cases before it may have left a message of theirs, twice delivered
            lambda: (
                not client.exists(queue_of("gpu", run_id))
                and not any(run_id.encode() in kept for kept in client.hvals("unacked"))
            ),
            timeout_s=PATIENCE_S,
            what="the workers to drop its jobs",
        )
        resumed = run_command("resume", "cancelled", "--detach", *where, broker_url=broker.url)

        wait_until(
            lambda: standing(run.runs, "cancelled", broker.url, of="state").startswith("finished"),
            timeout_s=60,
            what="its end",
        )
    said = (scene.fleet.folder / "command_cancelled.log").read_text()
    assert (ended, resumed.returncode) == (130, 0)
    assert "the run was cancelled" in said
    run.check("cancelled, then resumed with --detach", at_most=0)


def test_a_run_whose_workers_are_gone_says_for_whom_it_waits(
    scene: Scene, broker: RedisProcess
) -> None:
    """A run that no worker can go on with says so within 30 s, wherever one looks.

    Both GPU workers are killed in the middle of a job, and come back when all have said it.
    """
    waits = "waiting for gpu workers"
    with disturbed(scene, "nobody") as (run, process):
        log = scene.fleet.folder / "command_nobody.log"
        while_busy(scene, run, GENERATE, *GPU_WORKERS)

        for name in GPU_WORKERS:
            scene.fleet.remove(name)
        took = wait_until(
            lambda: (
                waits in log.read_text()
                and standing(run.runs, "nobody", broker.url, of="state").startswith(waits)
                and 'orchestrate_run_waiting{run="nobody"' in metrics(broker.url, of=" 1.0")
            ),
            timeout_s=60,
            what="the word of all three",
        )
        for name in GPU_WORKERS:
            scene.fleet.add(name, *GPU)

        assert run.finish(process) == FINISHED
    # each look starts two commands, seconds on a busy machine
    assert took < 30 + 15
    run.check(
        f"no GPU worker for a while, which all said within {took:.0f} s", at_most=2 * IN_FLIGHT
    )


def test_a_worker_that_computes_on_when_it_is_told_to_leave_is_killed(
    scene: Scene, broker: RedisProcess
) -> None:
    """A worker in a step that never ends is gone within its grace; its jobs run elsewhere.

    SIGTERM to the only GPU worker while its jobs stand still; healthy ones follow.
    """
    for name in GPU_WORKERS:
        scene.fleet.remove(name)
    scene.fleet.add(
        "gpu-stuck",
        *GPU,
        module="tests.faults.odd_worker",
        environment={"ODD_SLOW_S": "600"},
    )
    try:
        with disturbed(scene, "stuck-worker") as (run, process):
            while_busy(scene, run, GENERATE, "gpu-stuck")
            told = scene.fleet.workers["gpu-stuck"].process
            assert told is not None

            told.send_signal(signal.SIGTERM)
            told.wait(timeout=LEAVES_WITHIN_S["gpu"] + 10)

            scene.fleet.remove("gpu-stuck")
            for name in GPU_WORKERS:
                scene.fleet.add(name, *GPU)
            assert run.finish(process) == FINISHED
    finally:
        if "gpu-stuck" in scene.fleet.workers:
            scene.fleet.remove("gpu-stuck")
    run.check("SIGTERM of a GPU worker that stands still", at_most=2 * IN_FLIGHT)


def test_a_worker_that_is_told_to_leave_many_times_leaves_as_if_told_once(scene: Scene) -> None:
    """Signals that interrupt one another, as a launcher and a batch system send them.

    Sixty SIGTERMs within a moment to a GPU worker that has its model and nothing to do.
    """
    # those that have the model would do all before it has loaded its libraries
    for name in GPU_WORKERS:
        scene.fleet.remove(name)
    scene.fleet.add("gpu-told", *GPU)
    with disturbed(scene, "told") as (run, process):
        while_busy(scene, run, GENERATE, "gpu-told")
        assert run.finish(process) == FINISHED
    for name in GPU_WORKERS:
        scene.fleet.add(name, *GPU)
    told = scene.fleet.workers["gpu-told"].process
    assert told is not None

    for _ in range(60):
        told.send_signal(signal.SIGTERM)
        time.sleep(0.0005)

    assert told.wait(timeout=LEAVES_WITHIN_S["gpu"] + 10) == 0
    scene.fleet.remove("gpu-told")


def metrics(broker_url: str, *, of: str) -> str:
    """The lines of the metrics that end so."""
    shown = run_command("metrics", "--once", broker_url=broker_url).stdout
    return "\n".join(line for line in shown.splitlines() if line.endswith(of))


def test_a_run_whose_judge_hangs_leaves_room_for_others(
    scene: Scene, broker: RedisProcess, note: Note
) -> None:
    """A run whose judge answers nothing keeps no more of a judge worker than its share.

    One judge worker; the first run's judge answers nothing more once it was negotiated with,
    two other runs have a judge that answers.
    """
    with http_judge(by_text) as slow:
        stuck = Scene(scene.fleet, slow, scene.model, scene.runs, note=scene.note).run("stuck")
        waiting = stuck.start()
        try:
            while_busy(scene, stuck, GENERATE, *GPU_WORKERS)
            slow.delay_s = 600.0
            wait_until(lambda: slow.n_waiting > 0, timeout_s=PATIENCE_S, what="its calls")
            time.sleep(CANNOT_S)  # now it holds what it can
            began = time.monotonic()
            others = [scene.run(name) for name in ("beside-1", "beside-2")]
            ended = [run.finish(one) for run, one in [(run, run.start()) for run in others]]
            took = time.monotonic() - began
            left = waiting.poll()
        finally:
            end(waiting)
            run_command("cancel", "stuck", "--runs-dir", str(scene.runs), broker_url=broker.url)
        with broker.client() as client:
            wait_until(
                lambda: not client.hlen("unacked"),
                timeout_s=2 * CALL_TIMEOUT_S,
                what="what it kept, given back after it was cancelled",
            )
    assert ended == [FINISHED, FINISHED]
    assert left is None
    note("seen", f"two runs finished in {took:.0f} s beside it")


def standing(runs: Path, name: str, broker_url: str, *, of: str = "state_why") -> str:
    """What `status` says of a run, and beside it."""
    found = run_command("status", name, "--runs-dir", str(runs), "--json", broker_url=broker_url)
    return f"{json.loads(found.stdout)[of]} {found.stderr}"
