"""Protects the doctor's view of broker and workers: settings, clocks, versions, shared storage."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import redis

from cli.doctor.services import (
    check_broker,
    check_queues,
    check_shared_storage,
    check_workers,
    token_file,
)
from domain.plan.spec import WIRE_VERSION
from storage.broker.connection import connect
from storage.broker.embedded_redis import embedded_redis
from storage.record.store import open_store
from tasks.fleet.remote_control import _sees, package_versions
from tests.doctor_lines import doctor, states
from tests.fleet import workers
from tests.simulated_runs import driver, make_run


@pytest.fixture(scope="module")
def broker() -> Iterator[str]:
    with embedded_redis() as url:
        yield url


# the broker


def test_a_broker_that_is_not_there_fails_without_showing_the_password(tmp_path: Path) -> None:
    code, lines = doctor("--runs-dir", str(tmp_path), broker_url="redis://:tulip@127.0.0.1:1/0")

    assert code == 1
    assert lines["broker"]["state"] == "fail"
    assert "start Redis there" in lines["broker"]["advice"]
    assert "tulip" not in json.dumps(lines)


def test_a_wrong_password_is_named_as_such(broker: str, tmp_path: Path) -> None:
    wrong = "redis://:wrong@" + broker.partition("@")[2]

    _, lines = doctor("--runs-dir", str(tmp_path), broker_url=wrong)

    assert "refuses our" in lines["broker"]["found"]
    assert lines["broker"]["advice"] == "check ORCHESTRATE_BROKER_URL"


@pytest.mark.parametrize(("limit", "state"), [(0, "warn"), (10**8, "fail")])
def test_a_broker_that_may_drop_queued_jobs_is_found(broker: str, limit: int, state: str) -> None:
    with connect(broker) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        client.config_set("maxmemory", limit)
        found = {f.check: f for f in check_broker(broker)}
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", 0)

    assert found["broker memory"].state == state
    assert "noeviction" in found["broker memory"].advice
    # the private server keeps nothing on disk
    assert found["broker disk"].state == "warn"


def test_a_clock_that_is_off_fails_by_how_much(
    broker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time
    monkeypatch.setattr("storage.broker.connection.time.time", lambda: now() - 30)

    found = {f.check: f for f in check_broker(broker)}["clock"]

    assert found.state == "fail"
    assert "30.0 s behind" in found.found
    assert "NTP" in found.advice


def test_a_machine_that_was_busy_once_is_no_broker_far_away_or_with_another_clock(
    broker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost: list[float] = []
    now = time.time

    def answers_late(_: redis.Redis) -> tuple[int, int]:
        server_time = now() + sum(lost)
        lost.append(0.0 if lost else 5.0)
        return int(server_time), int(server_time % 1 * 1e6)

    monkeypatch.setattr(redis.Redis, "time", answers_late)
    monkeypatch.setattr("storage.broker.connection.time.time", lambda: now() + sum(lost))

    found = states(check_broker(broker))

    assert (found["broker"], found["clock"]) == ("ok", "ok")


# the workers


def test_live_workers_say_their_queues_and_versions_and_see_our_file(
    broker: str, tmp_path: Path
) -> None:
    (tmp_path / "runs").mkdir()
    # the judge worker imports no torch, so it is up first
    with workers(broker, ["judge", "--no-embedded"], logs=tmp_path):
        deadline = time.monotonic() + 150
        lines: dict[str, dict[str, str]] = {}
        while time.monotonic() < deadline and "versions" not in lines:
            _, lines = doctor("--runs-dir", str(tmp_path / "runs"), broker_url=broker)

    assert lines["queue judge"]["state"] == "ok"
    assert lines["queue gpu"]["advice"] == "start one: orchestrate worker gpu"
    assert lines["versions"]["state"] == "ok"
    assert lines["shared storage"]["state"] == "ok"
    assert list((tmp_path / "runs").iterdir()) == []


def worker(**changes: Any) -> dict[str, Any]:
    """What a worker like this machine answers."""
    known = {
        "versions": package_versions(),
        "wire": WIRE_VERSION,
        "skew_s": 0.0,
        "queues": ["gpu"],
        "host": "gpu1",
        "sees": "yes",
    }
    return {**known, **changes}


def test_a_worker_of_another_version_is_named() -> None:
    older = worker(versions={**package_versions(), "torch": "1.0.0"})

    (found,) = check_workers({"gpu-0@gpu1": worker(), "gpu-1@gpu2": older})

    assert found.state == "warn"
    assert "torch 1.0.0" in found.found
    assert "gpu-1@gpu2" in found.found
    assert "gpu-0@gpu1" not in found.found


def test_a_judge_without_torch_has_no_other_version_of_it() -> None:
    slim = {name: v for name, v in package_versions().items() if name != "torch"}

    assert states(check_workers({"judge@j": worker(versions=slim)})) == {"versions": "ok"}


def test_another_wire_version_fails_and_an_old_worker_is_told_apart() -> None:
    fleet = {"a@x": worker(wire=0), "b@y": {"error": "no such command"}}

    found = list(check_workers(fleet))

    assert [f.state for f in found] == ["warn", "fail", "ok"]
    assert "b@y did not understand" in found[0].found
    assert "a@x" in found[1].found


def test_a_workers_clock_is_compared_with_the_brokers() -> None:
    found = states(check_workers({"gpu@gpu1": worker(skew_s=-12.0)}))

    assert found == {"versions": "ok", "clock": "fail"}


def test_workers_that_see_another_folder_are_named() -> None:
    fleet = {"a@x": worker(), "b@y": worker(sees="no such file", host="y")}

    found = check_shared_storage(fleet, "/shared/runs")

    assert found.state == "fail"
    assert "b@y: no such file" in found.found
    assert "a@x" not in found.found


def test_workers_that_may_not_write_what_we_make_are_told_from_those_that_see_nothing() -> None:
    refused = "cannot write /shared/runs/.doctor-0/1: Permission denied"

    found = check_shared_storage({"a@x": worker(sees=refused, writes=False)}, "/shared/runs")

    assert found.state == "fail"
    assert "chmod g+rwxs /shared/runs" in found.advice


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_another_user_s_worker_cannot_write_beside_our_file_unless_a_group_is_shared(
    tmp_path: Path,
) -> None:
    for folder in (tmp_path, *tmp_path.parents):
        if not folder.stat().st_mode & 0o001:
            folder.chmod(folder.stat().st_mode | 0o011)
    runs = tmp_path / "runs"
    runs.mkdir()

    runs.chmod(0o777)
    open_to_all = seen_by_another_user(runs)
    os.chown(runs, -1, OTHER_GROUP)
    runs.chmod(0o2775)
    of_a_group = seen_by_another_user(runs)

    assert "cannot write" in open_to_all
    assert "Permission denied" in open_to_all
    assert of_a_group == "yes"
    assert list(runs.iterdir()) == []


OTHER_USER = OTHER_GROUP = 54321


def seen_by_another_user(runs: Path) -> str:
    """What a worker of another user, in a group of its own, says of a doctor's file."""
    with token_file(open_store(str(runs))) as (key, token), ProcessPoolExecutor(1) as pool:
        return pool.submit(_as_another_user, str(runs), key, token).result()


def _as_another_user(store: str, key: str, token: str) -> str:
    os.setgroups([])
    os.setgid(OTHER_GROUP)
    os.setuid(OTHER_USER)
    os.umask(0o022)
    return str(_sees(store, key, token)["sees"])


@pytest.mark.parametrize("key", ["runs/token", ".doctor-0123456789abcdef/../token", "token"])
def test_a_worker_writes_in_a_doctors_folder_only(key: str, tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    if ".." not in key:
        store.write(key, b"t")
    before = store.list("")

    _sees(str(tmp_path), key, "t")

    assert store.list("") == before


def test_a_worker_does_not_look_where_it_may_open_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORCHESTRATE_ONLY_RUNS_BELOW", str(tmp_path / "ours"))

    with token_file(open_store(str(tmp_path))) as (key, token):
        assert "opens runs below" in _sees(str(tmp_path), key, token)["sees"]


def test_waiting_jobs_and_listeners_are_counted(broker: str, tmp_path: Path) -> None:
    for name in ("one", "other"):
        driver(broker, make_run(tmp_path / name, traits=1, shards=1)).start()

    found = {f.check: f for f in check_queues(broker, {"a@x": worker()})}

    assert found["queue gpu"].found == "1 worker listens, 0 jobs wait"
    assert found["queue judge"].found == "0 workers listen, 2 jobs wait"
