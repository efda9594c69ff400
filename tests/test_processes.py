"""Protects the launcher's word: a child that died and was started again is said, with its end."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable

import pytest

from orchestrator.local_fleet import Child, Processes
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
        wait_until(tended(processes, said), timeout_s=10, what="the next one")
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

        wait_until(started_again, timeout_s=10, what="it")

    line = capsys.readouterr().err.splitlines()[0]
    assert re.fullmatch(
        r"[0-9-]+ [0-9:]+  gpu worker on cuda:0 ended with code 3; started again", line
    )


def test_a_child_that_was_told_to_leave_is_not_mentioned() -> None:
    said: list[str] = []
    one = child("pass")
    with Processes([one], say=said.append).running() as processes:
        wait_until(processes.all_left, timeout_s=10, what="its end")
        processes.tend()

    assert said == []
