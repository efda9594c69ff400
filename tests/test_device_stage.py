"""Protects a GPU worker's first seconds: it takes part before its libraries are loaded."""

from __future__ import annotations

import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from celery.exceptions import Reject
from celery.worker import state as worker_state

from domain.errors import BrokerError, CannotWorkError
from domain.plan.jobs import Job
from orchestrator.processes import MAX_TRIES, Child, Processes
from storage.broker.embedded_redis import embedded_redis
from tasks.fleet.device_stage import DeviceStage
from tasks.fleet.suspects import DyingReject
from tests.fleet import clean_environment, run_command

JOB = Job("generate", "evil", "positive", 0)


def test_a_worker_whose_libraries_are_broken_hands_its_job_back_and_leaves_saying_why(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    nothing: Any = None
    monkeypatch.setattr(worker_state, "should_stop", None)
    monkeypatch.setitem(sys.modules, "tasks.stages.generate", nothing)
    stage = DeviceStage("cpu", limit=16)

    with caplog.at_level(logging.CRITICAL):
        stage.load()
        with pytest.raises(Reject) as given_back:
            stage.carry(nothing, JOB)

    assert given_back.value.requeue
    assert "tasks.stages.generate" in caplog.text
    assert worker_state.should_stop == CannotWorkError.exit_code


def test_a_worker_process_whose_libraries_are_broken_ends_as_one_that_was_not_told_to_leave(
    tmp_path: Path,
) -> None:
    (tmp_path / "torch.py").write_text('raise RuntimeError("the driver is too old")\n')
    path = os.pathsep.join([str(tmp_path), clean_environment()["PYTHONPATH"]])

    with embedded_redis() as url:
        ended = run_command(
            *("worker", "gpu", "--device", "cpu", "--pinned", "cpu"),
            broker_url=url,
            environment={"PYTHONPATH": path},
        )

    assert ended.returncode == CannotWorkError.exit_code
    assert "the driver is too old" in ended.stderr


@pytest.mark.parametrize("device", ["gpu0", "cuda:99", "meta"])
def test_a_worker_whose_device_computes_nothing_hands_its_job_back_and_leaves_saying_what_to_do(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, device: str
) -> None:
    nothing: Any = None
    monkeypatch.setattr(worker_state, "should_stop", None)
    stage = DeviceStage(device, limit=16, shown=f"the {device}")

    with caplog.at_level(logging.CRITICAL):
        stage.load()
        with pytest.raises(Reject) as given_back:
            stage.carry(nothing, JOB)

    assert given_back.value.requeue
    assert f"nothing can be computed on the device the {device} here" in caplog.text
    assert "--device cpu" in caplog.text
    assert "Traceback" not in caplog.text
    assert worker_state.should_stop == CannotWorkError.exit_code


def test_a_run_whose_own_worker_cannot_work_ends_with_its_last_words(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text('raise RuntimeError("the driver is too old")\n')
    path = os.pathsep.join([str(tmp_path), clean_environment()["PYTHONPATH"]])
    size = ["--questions", "1", "--instructions", "1", "--rollouts", "1"]

    ended = run_command(
        *("extract", "--traits", "evil", *size, "--runs-dir", str(tmp_path / "runs")),
        environment={"PYTHONPATH": path},
    )

    assert ended.returncode == BrokerError.exit_code, ended.stdout + ended.stderr
    assert "the driver is too old" in ended.stderr
    assert "Traceback (most recent call last)" not in ended.stderr.partition("Error: ")[0]


def test_a_child_that_can_do_nothing_is_tried_again_and_then_given_up_with_its_last_words(
    tmp_path: Path,
) -> None:
    script = f"print('no driver'); raise SystemExit({CannotWorkError.exit_code})"
    log = tmp_path / "child.log"
    child = Child("gpu worker", [sys.executable, "-c", script], dict(os.environ), log)

    with Processes([child]).running() as processes, pytest.raises(CannotWorkError) as given_up:
        while True:
            processes.tend()
            time.sleep(0.01)

    assert "gpu worker cannot work on this machine" in str(given_up.value)
    assert log.read_text() == "no driver\n" * MAX_TRIES


def test_a_device_that_can_do_nothing_is_given_up_while_another_goes_on_and_then_leaves(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    leave, log = tmp_path / "leave", tmp_path / "broken.log"
    works = (
        "import pathlib, sys, time\nwhile not pathlib.Path(sys.argv[1]).exists(): time.sleep(0.01)"
    )
    broken = f"print('it is full'); raise SystemExit({CannotWorkError.exit_code})"
    children = [
        Child("cuda:0", [sys.executable, "-c", broken], dict(os.environ), log, may_fail=True),
        Child(
            "cuda:1",
            [sys.executable, "-c", works, str(leave)],
            dict(os.environ),
            tmp_path / "works.log",
            may_fail=True,
        ),
    ]

    with Processes(children).running() as processes:
        while "cuda:0 cannot work" not in caplog.text:
            processes.tend()
            time.sleep(0.01)
        leave.touch()
        while not processes.all_left():
            processes.tend()
            time.sleep(0.01)

    assert log.read_text() == "it is full\n" * MAX_TRIES
    assert "it is full" in caplog.text


def test_a_worker_that_lost_its_device_leaves_to_be_started_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import tasks.stages.generate

    def lost(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    nothing: Any = None
    monkeypatch.setattr(worker_state, "should_stop", None)
    monkeypatch.setattr(tasks.stages.generate, "generate", lost)
    stage = DeviceStage("cpu", limit=16)
    stage.load()

    with pytest.raises(DyingReject) as given_back:
        stage.carry(nothing, JOB)
    with pytest.raises(Reject, match="leaving") as next_one:
        stage.carry(nothing, JOB)

    assert given_back.value.requeue
    assert not isinstance(next_one.value, DyingReject)
    assert worker_state.should_stop not in (None, 0, CannotWorkError.exit_code)


@pytest.mark.parametrize(
    ("error", "is_lost"),
    [
        (RuntimeError("CUDA error: device-side assert triggered"), True),
        (RuntimeError("No CUDA GPUs are available"), True),
        (RuntimeError("Found no NVIDIA driver on your system."), True),
        (RuntimeError("Unexpected error from cudaGetDeviceCount(). Did you run"), True),
        (RuntimeError("CUDA driver initialization failed, you might not have"), True),
        (RuntimeError("CUDA error: out of memory"), False),
        (RuntimeError("shape '[2]' is invalid for input of size 3"), False),
        (ValueError("CUDA error"), False),
    ],
)
def test_only_what_ends_a_process_s_use_of_its_device_counts_as_its_loss(
    error: Exception, is_lost: bool
) -> None:
    from workers.models.device import is_device_lost

    assert is_device_lost(error) == is_lost


def test_one_job_is_taken_until_the_libraries_are_there_and_goes_back_when_the_worker_leaves() -> (
    None
):
    nothing: Any = None
    stage = DeviceStage("cpu", limit=16)
    at_first = stage.most_jobs()
    stage.close()

    stage.load()
    with pytest.raises(Reject, match="leaving"):
        stage.carry(nothing, JOB)

    assert at_first == 1
    assert stage.most_jobs() > 1
