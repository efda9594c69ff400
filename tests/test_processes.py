"""Protects the launcher's word: a child that died and was started again is said, with its end."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from domain.errors import BrokerError
from orchestrator import processes as subject
from orchestrator.local_fleet import local_fleet
from orchestrator.processes import Child, Processes
from tests.faults.fleet import wait_until


def child(script: str) -> Child:
    return Child("gpu worker on cuda:0", [sys.executable, "-c", script], dict(os.environ))


def pid(one: Child) -> int:
    assert one.process is not None
    return one.process.pid


def tended(processes: Processes, said: list[str]) -> Callable[[], bool]:
    def look() -> bool:
        processes.tend()
        return bool(said)

    return look


def test_a_killed_child_is_said_with_its_signal_once() -> None:
    said: list[str] = []
    one = child("import time; time.sleep(60)")
    with Processes([one], say=said.append).running() as processes:
        first = pid(one)
        os.kill(first, signal.SIGKILL)
        wait_until(tended(processes, said), timeout_s=60, what="the next one")
        processes.tend()

        assert pid(one) != first
    assert said == ["gpu worker on cuda:0 was killed by SIGKILL; started again"]


def test_a_child_that_ends_by_itself_is_said_with_its_code_and_the_time(
    capsys: pytest.CaptureFixture[str],
) -> None:
    one = child("raise SystemExit(3)")
    with Processes([one]).running() as processes:
        first = pid(one)

        def started_again() -> bool:
            processes.tend()
            return pid(one) != first

        wait_until(started_again, timeout_s=60, what="it")

    line = capsys.readouterr().err.splitlines()[0]
    assert re.fullmatch(
        r"[0-9-]+ [0-9:]+  gpu worker on cuda:0 ended with code 3; started again", line
    )


def test_a_child_that_was_told_to_leave_is_not_mentioned() -> None:
    said: list[str] = []
    one = child("pass")
    with Processes([one], say=said.append).running() as processes:
        wait_until(processes.all_left, timeout_s=60, what="its end")
        processes.tend()

    assert said == []


def test_a_child_that_ends_for_want_of_a_broker_is_never_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(subject, "RESTART_PAUSE_S", 0.0)
    said: list[str] = []
    one = child(f"raise SystemExit({BrokerError.exit_code})")
    with Processes([one], say=said.append).running() as processes:
        started = set[int]()

        def started_often() -> bool:
            processes.tend()
            started.add(pid(one))
            return len(started) > subject.MAX_DEATHS + 1

        wait_until(started_often, timeout_s=60, what="more starts than deaths are borne")

    assert len(said) == 1
    assert "waits for the broker" in said[0]


def test_a_child_that_does_not_leave_is_killed_with_what_it_started(tmp_path: Path) -> None:
    file = tmp_path / "grandchild"
    one = child(
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "started = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"open({str(file)!r}, 'w').write(str(started.pid))\n"
        "time.sleep(600)\n"
    )
    with Processes([one], stop_timeout_s=0.5).running():
        wait_until(
            lambda: file.exists() and file.read_text() != "", timeout_s=60, what="the grandchild"
        )
        grandchild = int(file.read_text())

    assert one.process is not None
    assert one.process.poll() == -signal.SIGKILL
    wait_until(lambda: not is_alive(grandchild), timeout_s=60, what="its end")


def is_alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    try:
        # an orphan may stay as a zombie where nobody reaps it
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_place_that_takes_no_logs_spoils_no_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "logs").write_text("no folder")

    with local_fleet(tmp_path / "logs", needs_judge_server=None, devices=["cpu"]) as (_, processes):
        places = [child.log for child in processes.children]

    assert all(place and not place.is_relative_to(tmp_path) for place in places)
    assert len(caplog.records) == 1
