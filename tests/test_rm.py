"""Protects what people keep: a run goes whole and only when it is asked for, and others stay."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cli.commands.rm import QUIET_S
from domain.fleet.heartbeats import Heartbeat
from storage.broker.connection import connect
from storage.broker.embedded_redis import embedded_redis
from storage.broker.fleet import has_listed_run, put_heartbeat, put_listed_run
from storage.broker.state import BrokerState
from storage.record.attended import KEY, STALE_S, Attended, attending, read_attended
from storage.record.run import open_run
from storage.record.store import open_store
from tests.fleet import run_command
from tests.simulated_runs import make_run

Ended = subprocess.CompletedProcess[str]
Rm = Callable[..., Ended]


@pytest.fixture
def rm(tmp_path: Path) -> Rm:
    def command(*arguments: str, broker: str | None = None) -> Ended:
        return run_command("rm", *arguments, "--runs-dir", str(tmp_path), broker_url=broker)

    return command


def at_rest(folder: Path) -> None:
    """As if its last file had been written a while ago."""
    then = time.time() - 2 * QUIET_S
    for path in folder.rglob("*"):
        os.utime(path, (then, then))


def test_a_run_goes_whole_and_its_neighbor_stays(tmp_path: Path, rm: Rm) -> None:
    for name in ("first", "second"):
        make_run(tmp_path / name, traits=1, shards=1)
        at_rest(tmp_path / name)
    before = {p: p.read_bytes() for p in (tmp_path / "second").rglob("*") if p.is_file()}

    done = rm("first", "--yes", "--json")

    (gone,) = json.loads(done.stdout)
    assert (gone["run"], gone["traits"]) == ("first", ["trait0"])
    assert gone["files"] > 0 and gone["bytes"] > 0
    assert [p.name for p in tmp_path.iterdir()] == ["second"]
    assert {p: p.read_bytes() for p in (tmp_path / "second").rglob("*") if p.is_file()} == before


def test_nothing_goes_where_nobody_can_be_asked(tmp_path: Path, rm: Rm) -> None:
    make_run(tmp_path / "kept", traits=1, shards=1)
    at_rest(tmp_path / "kept")

    assert rm("kept").returncode == 2
    assert (tmp_path / "kept" / "run.json").exists()


@pytest.mark.parametrize("name", ["missing", "../kept", "."])
def test_what_is_no_run_is_left_alone(tmp_path: Path, rm: Rm, name: str) -> None:
    """A folder without a record, and whatever lies outside of the runs' folder."""
    (tmp_path / "missing").mkdir()
    (tmp_path / "missing" / "thesis.txt").write_text("years of work")
    make_run(tmp_path.parent / "kept", traits=1, shards=1)

    assert rm(name, "--yes").returncode != 0
    assert (tmp_path / "missing" / "thesis.txt").exists()
    assert (tmp_path.parent / "kept" / "run.json").exists()


def write_note(run: Path, **changes: object) -> None:
    note = Attended(host=socket.gethostname(), pid=os.getpid(), since=0.0, at=time.time())
    (run / KEY).write_text(note.model_copy(update=changes).model_dump_json())


def test_a_run_that_a_command_works_on_with_workers_of_its_own_is_running(
    tmp_path: Path, rm: Rm
) -> None:
    """However long its jobs take; what a killed command left behind keeps nothing."""
    run = make_run(tmp_path / "r", traits=1, shards=1)
    at_rest(tmp_path / "r")
    with attending(run.store):
        at_rest(tmp_path / "r")
        status = run_command("status", "--runs-dir", str(tmp_path), "--json")
        shown = run_command("status", "r", "--runs-dir", str(tmp_path))
        refused = rm("r", "--yes")
    gone = subprocess.Popen(["true"])
    gone.wait()
    for left_behind in (
        {"pid": gone.pid},
        {"at": time.time() - 2 * STALE_S},
        {"host": "x", "at": 0},
    ):
        write_note(tmp_path / "r", **left_behind)
        assert read_attended(run.store) is None

    (row,) = json.loads(status.stdout)["standing"]
    assert (row["state"], str(os.getpid()) in row["state_why"]) == ("running", True)
    assert "running" in shown.stdout
    assert refused.returncode == 2
    at_rest(tmp_path / "r")
    assert rm("r", "--yes").returncode == 0


def test_a_run_that_is_worked_on_is_refused(tmp_path: Path, rm: Rm) -> None:
    """By the broker where it is known there, by fresh files where its command is alone with it."""
    run = make_run(tmp_path / "works", traits=1, shards=1)
    assert rm("works", "--yes").returncode == 2  # written a moment ago
    at_rest(tmp_path / "works")

    with embedded_redis() as url, connect(url) as client:
        put_heartbeat(client, Heartbeat("gpu-0@h", "gpu", "h"))
        put_listed_run(client, run)
        client.rpush(f"gpu.{run.run_id}", "{}")
        assert rm("works", "--yes", broker=url).returncode == 2
        assert (tmp_path / "works" / "run.json").exists()

        BrokerState(client, run.run_id).cancel()
        assert rm("works", "--yes", broker=url).returncode == 0
        assert not has_listed_run(client, run.run_id)
    assert not (tmp_path / "works").exists()


def test_a_link_to_a_run_elsewhere_is_not_followed(tmp_path: Path, rm: Rm) -> None:
    elsewhere = tmp_path / "elsewhere" / "run"
    make_run(elsewhere, traits=1, shards=1)
    at_rest(elsewhere)
    (tmp_path / "linked").symlink_to(elsewhere)

    assert rm("linked", "--yes").returncode == 1
    assert (elsewhere / "run.json").exists()


def test_an_object_store_keeps_the_record_until_the_rest_is_gone(tmp_path: Path) -> None:
    """Interrupted, the same command finds the run and goes on."""
    store = open_store("memory://runs/r")
    for path in (p for p in tmp_path_of_run(tmp_path).rglob("*") if p.is_file()):
        store.write(path.relative_to(tmp_path / "run").as_posix(), path.read_bytes())
    deleted: list[str] = []
    whole: Any = store.delete

    def delete(key: str) -> None:
        deleted.append(key)
        whole(key)

    store.delete = delete  # type: ignore[method-assign]
    n = len(store.contents())
    store.remove_all(last="run.json")

    assert len(deleted) == n > 1
    assert deleted[-1] == "run.json"
    assert store.list("") == set()


def tmp_path_of_run(tmp_path: Path) -> Path:
    make_run(tmp_path / "run", traits=1, shards=1)
    assert open_run(open_store(str(tmp_path / "run"))).spec.traits
    return tmp_path / "run"
