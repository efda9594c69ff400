"""Protects a judge worker's end: its loop is left alone where something holds it up."""

from __future__ import annotations

import threading

import pytest

from tasks.stages import judge_pool as subject
from tasks.stages.judge_pool import EventLoopThread


def test_a_loop_that_is_held_up_when_the_worker_leaves_is_no_fault_of_the_program(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(subject, "ENDS_WITHIN_S", 0.0)
    let_go = threading.Event()
    loop = EventLoopThread()

    def hold_up() -> None:
        let_go.wait(timeout=60)

    loop.call(hold_up)
    loop.close()
    let_go.set()
