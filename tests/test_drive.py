"""Protects an orchestrator that meets a broker which comes and goes."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

import pytest
import redis

from domain.errors import BrokerError
from orchestrator.driver import Driver
from storage.broker.state import BrokerState
from tasks.fleet.app import make_app
from tests.test_delivery import make_run

NOBODY = "redis://127.0.0.1:1/0"


def driver_for(folder: Path, *, patience_s: float) -> Driver:
    run, client = make_run(folder), redis.Redis.from_url(NOBODY)
    found = Driver(make_app(NOBODY), NOBODY, run, BrokerState(client, run.run_id), lambda: None)
    found.broker_patience_s = patience_s
    return found


def test_a_step_that_the_broker_missed_is_done_again(tmp_path: Path) -> None:
    tries = []

    def step() -> str:
        tries.append(1)
        if len(tries) == 1:
            raise redis.ConnectionError("Connection reset by peer")
        return "sent"

    assert driver_for(tmp_path, patience_s=60).patiently(step) == "sent"


def test_why_it_waits_is_said_once_of_each_reason(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A server behind a balancer refuses and times out in turn: two lines, not one a second."""
    answers = iter(["refused", "timed out"] * 4)

    def step() -> str:
        if (answer := next(answers, None)) is not None:
            raise redis.ConnectionError(answer)
        return "sent"

    driver = driver_for(tmp_path, patience_s=60)
    with caplog.at_level("WARNING"), patch("orchestrator.driver.time.sleep"):
        assert driver.patiently(step) == "sent"

    # refused, timed out, back
    assert len(caplog.records) == 3


def test_a_broker_that_stays_away_ends_the_command_with_what_to_do(tmp_path: Path) -> None:
    driver = driver_for(tmp_path, patience_s=0.0)

    with pytest.raises(BrokerError, match="run the same command again"):
        driver.patiently(driver.start)
