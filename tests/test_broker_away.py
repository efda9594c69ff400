"""Protects whoever looks on while the broker restarts: the view goes on and says so."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from click.testing import CliRunner, Result
from redis._parsers import BaseParser

from cli.main import _tell
from cli.main import orchestrate as orchestrate_group
from domain.errors import BrokerError, UsageError
from orchestrator.processes import orchestrate
from storage.broker.connection import BROKER_AWAY, TRYING, connect
from storage.broker.embedded_redis import die_with_parent, find_redis_server
from storage.broker.fleet import put_listed_run
from storage.broker.job_log import LogLine, append_log_line
from storage.record.dead_letters import Failure, write_dead_letter
from storage.record.run import Run, Schedule, write_run_schedule
from tests.faults.fleet import wait_until
from tests.fleet import clean_environment, run_command
from tests.simulated_runs import make_run
from tests.stored_run import stored_run

PRIVATE = "to have a private broker started"


class Broker:
    """A Redis that can be stopped and started again in the same place."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self._folder, self._process = folder, None
        self.url = f"redis://127.0.0.1:{self._port}/0"

    _process: subprocess.Popen[bytes] | None

    def start(self) -> None:
        binary = str(find_redis_server())
        options = ["--bind", "127.0.0.1", "--port", str(self._port), "--save", ""]
        self._process = subprocess.Popen(
            [binary, *options, "--dir", str(self._folder)],
            stdout=subprocess.DEVNULL,
            preexec_fn=die_with_parent,
        )
        wait_until(self._answers, timeout_s=60, what="redis")

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _answers(self) -> bool:
        try:
            connect(self.url).close()
        except BrokerError:
            return False
        return True


class Watcher:
    """A command that goes on, and what it has said so far."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            orchestrate(*arguments),
            # rich draws as on a terminal
            env={**clean_environment(), "FORCE_COLOR": "1", "COLUMNS": "200"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self.said = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        while piece := os.read(self.process.stdout.fileno(), 65536):
            self.said += piece.decode(errors="replace")

    def says(self, text: str) -> Callable[[], bool]:
        return lambda: text in self.said

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join(timeout=10)
        if self.process.stdout is not None:
            self.process.stdout.close()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    one = Broker(tmp_path)
    one.start()
    yield one
    one.stop()


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return make_run(tmp_path / "runs" / "seen", traits=1, shards=1)


@contextlib.contextmanager
def watching(broker: Broker, run: Run, *arguments: str) -> Iterator[Watcher]:
    runs_dir = str(Path(run.store.url).parent)
    one = Watcher(*arguments, "--runs-dir", runs_dir, "--broker-url", broker.url)
    try:
        yield one
    finally:
        one.close()


def say(broker: Broker, run: Run, text: str) -> None:
    with connect(broker.url) as client:
        line = LogLine(time.time(), "info", "w", "trait0/reduce", "e", text)
        append_log_line(client, run.run_id, line)


def test_logs_are_followed_over_a_restart_of_the_broker(broker: Broker, run: Run) -> None:
    say(broker, run, "said before")
    with watching(broker, run, "logs", "seen", "--follow") as one:
        wait_until(one.says("said before"), timeout_s=60, what="the first line")

        broker.stop()
        wait_until(one.says(TRYING), timeout_s=60, what="the notice")
        broker.start()
        say(broker, run, "said after")
        wait_until(one.says("said after"), timeout_s=60, what="the next line")

        assert one.process.poll() is None
        assert one.said.count(TRYING) == 1


@pytest.mark.parametrize("named", [["seen"], []])
def test_status_is_watched_over_a_restart_of_the_broker(
    broker: Broker, run: Run, named: list[str]
) -> None:
    with watching(broker, run, "status", *named, "--watch") as one:
        time.sleep(1.0)  # it has begun, or begins while the broker is away: both go on

        broker.stop()
        wait_until(one.says(TRYING), timeout_s=60, what="the notice")
        broker.start()
        with connect(broker.url) as client:
            put_listed_run(client, run)
            client.rpush("gpu.seen", "{}")
        wait_until(one.says("waiting for gpu workers"), timeout_s=60, what="the broker's word")

        assert one.process.poll() is None


@pytest.mark.parametrize("named", [["seen"], []])
def test_status_shows_the_record_while_the_broker_is_away(
    broker: Broker, run: Run, named: list[str]
) -> None:
    broker.stop()
    where = ("--runs-dir", str(Path(run.store.url).parent))

    shown = run_command("status", *named, *where, broker_url=broker.url)
    as_json = run_command("status", *named, *where, "--json", broker_url=broker.url)

    assert shown.returncode == as_json.returncode == BrokerError.exit_code
    assert "seen" in shown.stdout
    assert "only the record is shown: no broker answers at redis://" in shown.stderr
    assert PRIVATE not in shown.stderr
    assert "seen" in json.dumps(json.loads(as_json.stdout))


def test_only_a_command_that_can_start_a_broker_offers_it(broker: Broker, run: Run) -> None:
    broker.stop()
    where = ("--runs-dir", str(Path(run.store.url).parent))

    size = ("--questions", "1", "--instructions", "1", "--rollouts", "1")
    extract = run_command("extract", "--traits", "evil", *size, *where, broker_url=broker.url)
    worker = run_command("worker", "reduce", broker_url=broker.url)
    logs = run_command("logs", "seen", *where, broker_url=broker.url)

    codes = {one.returncode for one in (extract, worker, logs)}
    assert codes == {BrokerError.exit_code}
    assert [PRIVATE in one.stderr for one in (extract, worker, logs)] == [True, False, False]


NOBODY = "redis://127.0.0.1:1"


def ended_in(folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(orchestrate_group, [*arguments, "--runs-dir", str(folder)])


@pytest.mark.parametrize("detached", [(), ("--detach",)])
@pytest.mark.parametrize("url", [NOBODY, "notaurl", "http://127.0.0.1:1"])
def test_a_run_whose_broker_does_not_answer_is_not_recorded(
    url: str, detached: tuple[str, ...], tmp_path: Path
) -> None:
    size = ("--questions", "1", "--instructions", "1", "--rollouts", "1")

    asked = ("extract", "--traits", "evil", *size, "--broker-url", url, *detached)
    ended = ended_in(tmp_path, *asked)

    assert isinstance(ended.exception, BrokerError)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("resume", "--priority", "3", "--budget", "9", "--broker-url", NOBODY),
        ("resume", "--priority", "3", "--detach"),
        ("retry", "--dead", "--broker-url", NOBODY),
        ("pause", "--broker-url", NOBODY),
        ("pause",),
        ("cancel", "--broker-url", NOBODY),
        ("rejudge", "--only", "unscored", "--broker-url", NOBODY),
        ("rejudge", "--use", "first", "--broker-url", NOBODY),
    ],
    ids=" ".join,
)
def test_a_command_without_its_broker_changes_nothing_in_the_record(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    run = stored_run(tmp_path / "seen", traits="evil", rollouts=1)
    write_run_schedule(run.store, Schedule(priority=2, paused=arguments[0] != "pause"))
    write_dead_letter(run.store, Failure("evil/reduce", "E", "died", fatal=False))
    before = {key: run.store.read(key) for key in run.store.list("")}

    ended = ended_in(tmp_path, arguments[0], "seen", *arguments[1:])

    assert isinstance(ended.exception, BrokerError | UsageError)
    assert "broker" in str(ended.exception)
    assert {key: run.store.read(key) for key in run.store.list("")} == before


def test_a_broker_that_goes_away_is_no_fault_of_the_program(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code = _tell(redis.ConnectionError("Connection closed by server."))

    said = capsys.readouterr().err
    assert code == BrokerError.exit_code
    assert said.startswith("Error: the broker went away")
    assert "fault of the program" not in said


@pytest.mark.parametrize(
    "answer",
    [
        "OOM command not allowed when used memory > 'maxmemory'.",
        "READONLY You can't write against a read only replica.",
        "UNBLOCKED force unblock from blocking operation, instance state changed",
        "MISCONF Redis is configured to save RDB snapshots, but is currently unable to persist",
        "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
        "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
        "LOADING Redis is loading the dataset in memory",
        "NOAUTH Authentication required.",
        "WRONGPASS invalid username-password pair or user is disabled.",
        "ERR max number of clients reached",
        "ERR Error running script (call to f_4d): @user_script:1: @user_script: 1: -OOM command "
        "not allowed when used memory > 'maxmemory'.",
    ],
)
def test_an_answer_that_heals_is_a_broker_that_is_away(answer: str) -> None:
    assert isinstance(BaseParser.parse_error(answer), redis.ConnectionError)


@pytest.mark.parametrize(
    "answer", ["WRONGTYPE Operation against a key", "NOPERM this user has no permissions", "ERR x"]
)
def test_an_answer_that_does_not_heal_is_not_waited_for(answer: str) -> None:
    error = BaseParser.parse_error(answer)

    assert not isinstance(error, BROKER_AWAY)


def test_logs_of_a_job_that_is_not_planned_say_so(run: Run) -> None:
    where = ("--runs-dir", str(Path(run.store.url).parent))

    wrong = run_command("logs", "seen", "nonsense", *where)
    right = run_command("logs", "seen", "trait0/judge/*", *where)

    assert wrong.returncode == 2
    assert "no job of seen is like 'nonsense'" in wrong.stderr
    assert (right.returncode, right.stdout) == (0, "")
    assert "Nobody said that yet" in right.stderr
