"""Protects a GPU worker's first seconds: it takes part before its libraries are loaded."""

from __future__ import annotations

import logging
import sys
from typing import Any

import pytest
from celery.exceptions import Reject
from celery.worker import state as worker_state

from tasks.device_stage import DeviceStage


def test_a_worker_whose_libraries_are_broken_hands_its_job_back_and_leaves_saying_why(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    nothing: Any = None
    monkeypatch.setattr(worker_state, "should_terminate", None)
    monkeypatch.setitem(sys.modules, "tasks.generate", nothing)
    stage = DeviceStage("cpu", limit=16)

    with caplog.at_level(logging.CRITICAL):
        stage.load()
        with pytest.raises(Reject) as given_back:
            stage.generate(nothing, nothing)

    assert given_back.value.requeue
    assert "tasks.generate" in caplog.text
    assert worker_state.should_terminate == 1


def test_one_job_is_taken_until_the_libraries_are_there_and_goes_back_when_the_worker_leaves() -> (
    None
):
    nothing: Any = None
    stage = DeviceStage("cpu", limit=16)
    at_first = stage.most_jobs()
    stage.close()

    stage.load()
    with pytest.raises(Reject, match="leaving"):
        stage.generate(nothing, nothing)

    assert at_first == 1
    assert stage.most_jobs() > 1
