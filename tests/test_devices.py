"""Protects the pinning of GPU workers: each process sees its own device and no other."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from cli.commands.extract import local_devices
from orchestrator.devices import cpu_workers, pin, visible_devices


def test_a_cuda_process_sees_only_its_device_as_the_first() -> None:
    inside, environment = pin("cuda:2", {"PATH": "x"}, n_here=4)

    assert inside == "cuda:0"
    assert environment == {"PATH": "x", "CUDA_VISIBLE_DEVICES": "2"}


def test_pinning_counts_within_the_devices_that_were_visible_before() -> None:
    _, environment = pin("cuda:1", {"CUDA_VISIBLE_DEVICES": "4,GPU-7f,6"}, n_here=3)

    assert environment["CUDA_VISIBLE_DEVICES"] == "GPU-7f"


def test_a_device_that_is_not_visible_is_none_and_an_unknown_name_is_left_to_torch() -> None:
    _, environment = pin("cuda:2", {"CUDA_VISIBLE_DEVICES": "4,6"}, n_here=1)

    assert environment["CUDA_VISIBLE_DEVICES"] == ""
    assert pin("cuda:x", {"PATH": "x"}, n_here=1) == ("cuda:x", {"PATH": "x"})


@pytest.mark.parametrize(
    ("shown", "devices"), [("0,1", ["cuda:0", "cuda:1"]), ("", None), ("-1", None)]
)
def test_the_environment_decides_which_devices_are_visible(
    monkeypatch: pytest.MonkeyPatch, shown: str, devices: list[str] | None
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", shown)

    found = visible_devices()

    assert found == devices if devices else found in (["cpu"], ["mps"])


def test_cpu_workers_share_the_cores_and_a_set_number_of_threads_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("orchestrator.devices.usable_cores", lambda: 9)

    assert pin("cpu", {}, n_here=2)[1]["OMP_NUM_THREADS"] == "4"
    assert pin("cpu", {"OMP_NUM_THREADS": "1"}, n_here=2)[1]["OMP_NUM_THREADS"] == "1"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no process is bound to cores")
def test_a_process_that_a_scheduler_bound_to_a_core_counts_that_one() -> None:
    code = (
        "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n"
        "from orchestrator.devices import usable_cores; print(usable_cores())"
    )

    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert said.stdout.split() == ["1"]


@pytest.mark.parametrize(
    ("cores", "gib_free", "responses", "n"),
    [(2, 16, 2000, 2), (1, 16, 2000, 1), (2, 16, 600, 1), (2, 6, 2000, 1), (16, 64, 10**4, 4)],
)
def test_a_machine_without_a_gpu_has_the_workers_that_cores_memory_and_work_allow(
    cores: int, gib_free: int, responses: int, n: int
) -> None:
    found = cpu_workers(
        cores,
        weight_bytes=2**30,
        free_bytes=gib_free * 2**30,
        n_responses=responses,
        is_judged_here=True,
    )

    assert found == n


@pytest.mark.parametrize(
    ("megabytes", "is_judged_here", "n"), [(4, True, 1), (4, False, 2), (500, True, 2)]
)
def test_a_core_is_left_to_a_judge_that_has_as_much_to_do(
    megabytes: int, is_judged_here: bool, n: int
) -> None:
    found = cpu_workers(
        2,
        weight_bytes=megabytes * 10**6,
        free_bytes=16 * 2**30,
        n_responses=5000,
        is_judged_here=is_judged_here,
    )

    assert found == n


def test_a_machine_with_one_core_has_a_worker() -> None:
    found = cpu_workers(
        1, weight_bytes=10**6, free_bytes=2**34, n_responses=5000, is_judged_here=True
    )

    assert found == 1


def test_a_private_fleet_takes_every_visible_device_whether_or_not_the_driver_knows_its_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-7f,3")

    assert local_devices("demo", n_responses=5000, is_judged_here=True) == ["cuda:0", "cuda:1"]


def test_a_stop_that_comes_while_a_launcher_ends_by_itself_is_no_failure() -> None:
    # Python gives back what it handles before it is gone, and not what it ignores
    code = (
        "import signal; from orchestrator.processes import Processes\n"
        "from cli.commands.worker import _tend_until_stopped\n"
        "_tend_until_stopped(Processes([]))\n"
        "print(signal.getsignal(signal.SIGTERM) is signal.SIG_IGN)"
    )

    ended = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)

    assert ended.stdout == "True\n", ended.stderr
