"""Protects what is said of a device's work: the share of the last minute, nothing when idle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from domain.fleet.heartbeats import RateMeter
from orchestrator.prometheus import FleetCollector
from storage.broker.connection import connect
from storage.broker.embedded_redis import embedded_redis
from storage.broker.fleet import read_workers
from tasks.fleet.device_stage import DeviceStage
from tasks.fleet.work_log import WorkLog
from tests.faults.fleet import wait_until
from tests.simulated_runs import simulated_workers


class Device:
    """A device on a clock of its own."""

    def __init__(self) -> None:
        self.now = self.computed = 0.0

    def passes(self, seconds: float, *, share: float) -> None:
        self.now += seconds
        self.computed += seconds * share

    def busy_share(self) -> Callable[[], float]:
        meter = RateMeter()
        meter.note(self.now, {})
        return lambda: meter.note(self.now, {"computed": self.computed})["computed"]


def test_a_device_is_as_busy_as_it_was_over_the_last_minute() -> None:
    device = Device()
    busy = device.busy_share()
    shares = []

    for share in (0.5, 1.0, 0.0):
        for _ in range(40):
            device.passes(2.0, share=share)
            shares.append(busy())

    assert shares[39] == pytest.approx(0.5)
    assert shares[79] == pytest.approx(1.0)
    assert shares[95] == pytest.approx(28 / 60)
    assert shares[119] == 0.0


def test_a_device_that_never_worked_is_not_busy_from_the_start() -> None:
    device = Device()

    assert device.busy_share()() == 0.0


def test_the_time_in_which_a_model_loads_makes_no_device_slow() -> None:
    device = Device()
    busy = device.busy_share()
    for _ in range(10):
        device.passes(2.0, share=0.0)
        busy()

    device.passes(2.0, share=0.8)

    assert busy() == pytest.approx(0.8)


def test_an_engine_that_is_replaced_leaves_no_gap_and_no_rise() -> None:
    device = Device()
    busy = device.busy_share()
    device.passes(10.0, share=1.0)
    busy()

    device.computed -= 8.0  # the old one is gone and not counted yet
    device.now += 10.0
    between = busy()
    device.computed += 8.0
    device.now += 10.0

    assert between == pytest.approx(0.5)
    assert busy() == pytest.approx(1 / 3)


def test_a_worker_without_a_device_says_nothing_and_one_without_libraries_is_idle() -> None:
    judge, gpu = WorkLog(), WorkLog()

    gpu.watch_device(DeviceStage("cpu", limit=1).computed)
    gpu.note({"busy_share": 0.96})

    assert (judge.now().busy, gpu.now().busy) == (None, 0.0)


def test_a_gpu_worker_that_never_had_a_job_is_served_as_idle(tmp_path: Path) -> None:
    with (
        embedded_redis() as url,
        connect(url) as client,
        simulated_workers(url, "--judge", "0", "--reduce", "0", logs=tmp_path),
    ):
        wait_until(lambda: bool(read_workers(client)), timeout_s=60, what="the worker")
        families = {one.name: one for one in FleetCollector(url).collect()}

    shares = [one.value for one in families["orchestrate_worker_busy_share"].samples]
    assert shares == [0.0]
