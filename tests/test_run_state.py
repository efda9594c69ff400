"""Protects the word that `status` says of a run: what it is doing, not that it was once begun."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from rich.console import Console, RenderableType

from cli.main import orchestrate as orchestrate_group
from cli.options.settings import Moment
from cli.screens.next_steps import last_step
from cli.screens.run_in_words import (
    news_in_words,
    run_in_words,
    state_in_words,
    state_line_in_words,
)
from cli.screens.status import FolderStatus, run_status_screen
from domain.errors import BrokerError
from domain.fleet.heartbeats import Heartbeat
from domain.plan.samples import POLARITIES
from domain.plan.spec import WIRE_VERSION
from orchestrator.run_state import OnBroker, RunState, State, run_state
from storage.broker.connection import Client, connect
from storage.broker.embedded_redis import embedded_redis
from storage.broker.fleet import put_heartbeat, put_listed_run
from storage.broker.job_log import KEPT, LogLine
from storage.broker.state import BrokerState
from storage.record.artifacts import publish_artifact
from storage.record.attended import attending
from storage.record.dead_letters import Failure, write_dead_letter
from storage.record.json_bytes import encode_checked
from storage.record.run import Run, Schedule, read_run_schedule, write_run_schedule
from storage.record.store import LocalStore
from tests.simulated_runs import make_run
from tests.stored_run import stored_run

ALL = ("gpu", "judge", "reduce")
NEGOTIATE = Failure("negotiate", "JudgeError", "nobody answers", fatal=True)
ONE_JOB = Failure("evil/generate/positive-000", "ValueError", "odd", fatal=False)
MONEY = Failure("evil/judge/positive-000", "BudgetError", "the cap is reached", fatal=True)


def word(facts: OnBroker, *, finished: bool = False, paused: bool = False) -> str:
    return state_in_words(run_state(facts, finished=finished, paused=paused))["state"]


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (OnBroker(True, waiting={"gpu": 3}, kinds=ALL), "running"),
        (OnBroker(True, held={"reduce": 1}, kinds=ALL), "running"),
        # the workers that held them are gone
        (OnBroker(True, held={"reduce": 1}), "waiting for reduce workers"),
        (OnBroker(True, waiting={"gpu": 3}, kinds=ALL, cannot="OOM"), "waiting for the broker"),
        (OnBroker(True, failures=[NEGOTIATE]), "failed"),
        (OnBroker(True, cancelled=True, failures=[NEGOTIATE], waiting={"gpu": 3}), "failed"),
        (OnBroker(True, failures=[ONE_JOB], held={"gpu": 1}, kinds=ALL), "running"),
        (OnBroker(False, failures=[ONE_JOB]), "failed"),
        (OnBroker(True, cancelled=True, failures=[MONEY]), "budget reached"),
        (OnBroker(True, cancelled=True, waiting={"gpu": 3}, kinds=ALL), "cancelled"),
        (OnBroker(True, kinds=ALL), "not running"),
        (OnBroker(False, kinds=ALL), "not running"),
        (OnBroker(True, waiting={"gpu": 3}, kinds=["judge"]), "waiting for gpu workers"),
        (OnBroker(True, waiting={"gpu": 3}, held={"judge": 1}, kinds=["judge"]), "running"),
        (OnBroker(True, held={"judge": 2}, kinds=ALL, judge_down_s=9), "waiting for a judge"),
        (OnBroker(True, held={"judge": 2, "gpu": 1}, kinds=ALL, judge_down_s=9), "running"),
    ],
)
def test_a_run_is_what_record_and_broker_know(facts: OnBroker, expected: str) -> None:
    assert word(facts) == expected


def test_finished_and_paused_come_from_the_record() -> None:
    out = OnBroker(True, waiting={"judge": 2}, kinds=ALL)

    assert word(OnBroker(False, failures=[ONE_JOB]), finished=True) == "finished"
    assert word(out, finished=True) == "running"  # it is judged again
    assert word(out, paused=True) == "paused"
    assert run_state(None, finished=False, paused=False) == RunState(State.NOT_FINISHED)


def test_a_command_that_waits_for_a_paused_run_says_so(
    client: tuple[str, Client], tmp_path: Path
) -> None:
    url, redis = client
    run = make_run(tmp_path / "r", traits=1, shards=1)
    write_run_schedule(run.store, Schedule(paused=True))
    put_listed_run(redis, run)

    assert news_in_words(run, url).text.startswith(State.PAUSED.value)


@pytest.mark.parametrize(
    "arguments", [("retry", "r"), ("rejudge", "r", "--use", "first")], ids=" ".join
)
def test_a_command_that_works_on_a_paused_run_ends_the_pause(
    arguments: tuple[str, ...], client: tuple[str, Client], tmp_path: Path
) -> None:
    run = stored_run(tmp_path / "r", traits="evil", rollouts=1)
    if arguments[0] == "retry":
        run.store.delete("traits/evil/reduce.json")
    write_run_schedule(run.store, Schedule(priority=2, paused=True))
    where = ("--runs-dir", str(tmp_path), "--broker-url", client[0], "--wait-for-workers", "0")

    ended = CliRunner().invoke(orchestrate_group, [*arguments, *where])

    # no worker is there
    assert isinstance(ended.exception, BrokerError)
    assert read_run_schedule(run.store) == Schedule(priority=2)


def test_a_failure_is_said_with_its_reason() -> None:
    state = run_state(OnBroker(True, failures=[ONE_JOB, NEGOTIATE]), finished=False, paused=False)

    assert state_line_in_words(state) == "failed: negotiate and 1 more jobs, nobody answers"
    assert state_line_in_words(RunState(State.RUNNING)) == "running"


@pytest.fixture
def client() -> Iterator[tuple[str, Client]]:
    with embedded_redis() as url, connect(url) as client:
        yield url, client


def states(folder: Path, url: str | None) -> dict[str, str]:
    return {row["name"]: row["state"] for row in FolderStatus(str(folder)).look(url)["standing"]}


def finish(run: Run) -> None:
    for trait in run.spec.traits:
        publish_artifact(run.store, run.plan.last_job(trait), files={}, info={})


def test_the_list_and_the_screen_agree_about_each_run(
    client: tuple[str, Client], tmp_path: Path
) -> None:
    url, redis = client
    runs = {
        name: make_run(tmp_path / name, traits=1, shards=1)
        for name in ("done", "cancelled", "failed", "works", "left")
    }
    finish(runs["done"])
    put_heartbeat(redis, Heartbeat("gpu-0@h", "gpu", "h"))
    for name in ("cancelled", "failed", "works"):
        put_listed_run(redis, runs[name])
    for name in ("cancelled", "works"):
        redis.rpush(f"gpu.{name}", "{}")
    BrokerState(redis, "cancelled").cancel()
    BrokerState(redis, "failed").fail(NEGOTIATE)

    listed = states(tmp_path, url)

    assert listed == {
        "cancelled": "cancelled",
        "done": "finished",
        "failed": "failed",
        "left": "not running",
        "works": "running",
    }
    assert {name: run_in_words(run, url)["state"] for name, run in runs.items()} == listed
    assert states(tmp_path, None) == {**dict.fromkeys(runs, "not finished"), "done": "finished"}


def test_a_run_that_cannot_be_read_is_told_once_and_hides_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("good", "cut", "later"):
        make_run(tmp_path / name, traits=1, shards=1)
    make_run(tmp_path / "cut", traits=1, shards=1).store.write("schedule.json", b'{"pri')
    later = encode_checked({"wire": WIRE_VERSION + 1})
    (tmp_path / "later/run.json").write_bytes(later)
    folder = FolderStatus(str(tmp_path))

    found = [[row["name"] for row in folder.look(None)["standing"]] for _ in range(2)]

    assert found == [["good"], ["good"]]
    assert sorted(text.split()[0] for text in caplog.messages) == ["cut", "later"]


def keep_failures(run: Run, *said: tuple[str, str]) -> None:
    """Put (job, why it failed) into the log of the run's record, oldest first."""
    lines = [
        LogLine(float(at), "error", "judge-1@h", job, "job_failed", f"{job} failed: {why}")
        for at, (job, why) in enumerate(said)
    ]
    run.store.write(KEPT, "".join(json.dumps(asdict(line)) + "\n" for line in lines).encode())


def test_what_failed_last_and_is_not_done_is_said_from_the_record(
    client: tuple[str, Client], tmp_path: Path
) -> None:
    """A private broker is gone when its command has ended."""
    url, _ = client
    run = make_run(tmp_path / "r", traits=1, shards=1)
    (positive, negative) = run.plan.part_jobs(run.spec.traits[0], "generate", *POLARITIES)
    publish_artifact(run.store, positive, files={}, info={})
    odd = "no line\nof a job " * 50
    keep_failures(
        run,
        ("negotiate", "busy"),
        ("not/a/job", "odd"),
        (negative.key, odd),
        (positive.key, "odd"),
        ("negotiate", "nobody answers"),
    )

    (row,) = FolderStatus(str(tmp_path)).look(None)["standing"]
    found = run_in_words(run, None)
    screen = drawn(run_status_screen(found))

    assert words_of(row) == ("not finished", "negotiate failed: nobody answers")
    assert words_of(found) == words_of(row)
    assert [line["job"] for line in found["last_errors"]] == ["negotiate", negative.key]
    assert f"{negative.key} failed: no line of a job" in screen and odd not in screen
    assert last_step(run, found) == "Go on with: orchestrate resume r"
    assert words_of(run_in_words(run, url)) == ("not running", row["state_why"])


def drawn(screen: RenderableType) -> str:
    console = Console(width=400, file=io.StringIO(), record=True)
    console.print(screen)
    return console.export_text()


def words_of(found: dict[str, Any]) -> tuple[str, str]:
    return found["state"], found["state_why"]


def test_a_run_that_goes_on_or_is_finished_says_no_more_what_failed(tmp_path: Path) -> None:
    runs = {name: make_run(tmp_path / name, traits=1, shards=1) for name in ("done", "works")}
    for run in runs.values():
        keep_failures(run, ("negotiate", "nobody answers"))
    finish(runs["done"])

    with attending(runs["works"].store):
        found = {name: run_in_words(run, None) for name, run in runs.items()}

    assert [one["last_errors"] for one in found.values()] == [[], []]
    assert "nobody" not in found["works"]["state_why"] + found["done"]["state_why"]


@pytest.mark.parametrize(
    ("state", "command"),
    [
        (State.FAILED, "resume r"),
        (State.PAUSED, "resume r"),
        (State.BUDGET_REACHED, "resume r --budget MORE"),
        (State.RUNNING, ""),
        (State.LACKS_WORKERS, ""),
    ],
)
def test_a_run_that_stands_still_is_gone_on_with_by_the_command_that_status_names(
    state: State, command: str, tmp_path: Path
) -> None:
    run = make_run(tmp_path / "r", traits=1, shards=1)
    found = {**run_in_words(run, None), "state": state.value}

    assert last_step(run, found) == (f"Go on with: orchestrate {command}" if command else "")


def test_what_was_given_up_is_gone_on_with_by_a_retry(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r", traits=1, shards=1)
    write_dead_letter(run.store, ONE_JOB)

    found = run_in_words(run, None)
    paused = {**found, "state": State.PAUSED.value}

    assert last_step(run, found) == "Go on with: orchestrate retry r --dead"
    # which leaves given up what was
    assert last_step(run, paused) == "Go on with: orchestrate resume r"


def test_a_folder_without_runs_shows_the_fleet(client: tuple[str, Client], tmp_path: Path) -> None:
    url, redis = client
    put_heartbeat(redis, Heartbeat("gpu-0@h", "gpu", "h"))

    found: dict[str, Any] = FolderStatus(str(tmp_path / "nowhere")).look(url)

    assert found["runs"] == []
    assert [worker["name"] for worker in found["workers"]] == ["gpu-0@h"]


def test_the_list_looks_at_no_artifacts_of_its_runs(
    client: tuple[str, Client], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run has tens of thousands, and a network folder takes long to list them."""
    url, redis = client
    for name in ("done", "works"):
        run = make_run(tmp_path / name, traits=1, shards=2)
        put_listed_run(redis, run)
    finish(run)

    def listed(store: LocalStore, prefix: str) -> set[str]:
        raise AssertionError(f"{prefix or 'everything'} of {store.url} is listed")

    monkeypatch.setattr(LocalStore, "list", listed)

    assert FolderStatus(str(tmp_path)).look(url)["runs"] == ["done", "works"]


def test_runs_stand_with_the_last_planned_first_and_can_be_asked_for_by_time(
    tmp_path: Path,
) -> None:
    """Runs made before dates were written down stand last, and count as older than any."""
    dates = {"b": "2026-03-01T10:00:00+00:00", "c": "2026-03-02T10:00:00+00:00", "a": None}
    for name, planned_at in dates.items():
        make_run(tmp_path / name, traits=1, shards=1, planned_at=planned_at)

    def names(since: datetime | None) -> list[str]:
        return [str(one) for one in FolderStatus(str(tmp_path), since=since).look(None)["runs"]]

    assert names(None) == ["c", "b", "a"]
    assert names(datetime(2026, 3, 1, 12, tzinfo=UTC)) == ["c"]


@pytest.mark.parametrize(
    ("said", "when"),
    [
        ("2026-11-20", datetime(2026, 11, 20, tzinfo=UTC)),
        ("2026-11-20T12:30", datetime(2026, 11, 20, 12, 30, tzinfo=UTC)),
        ("2026-11-20T12:30+02:00", datetime(2026, 11, 20, 10, 30, tzinfo=UTC)),
    ],
)
def test_a_time_is_in_utc_unless_it_says_otherwise(said: str, when: datetime) -> None:
    assert Moment().convert(said, None, None) == when


@pytest.mark.parametrize(("said", "hours"), [("3d", 72), ("12h", 12), ("90m", 1.5)])
def test_a_time_may_be_how_long_ago(said: str, hours: float) -> None:
    ago = datetime.now(UTC) - Moment().convert(said, None, None)

    assert abs(ago - timedelta(hours=hours)) < timedelta(seconds=10)


@pytest.mark.parametrize("said", ["yesterday", "3", "d", "2026-13-01", "-1d", "999999d"])
def test_what_is_no_time_is_refused(said: str) -> None:
    with pytest.raises(click.BadParameter):
        Moment().convert(said, None, None)
