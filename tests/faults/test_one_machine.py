"""Protects a fleet's runs from the faults of one machine: no folder for runs there, or no model.

The runs and the model lie below /proc/self/cwd, so what a worker finds there depends on the folder
that it was started in, as a mount point depends on the machine.
"""

from __future__ import annotations

import json
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from domain.errors import CannotWorkError
from storage.broker.fleet import put_heartbeat, read_workers
from tests.faults.conftest import Note
from tests.faults.disturbed_run import FINISHED, PATIENCE_S, SHAPE, Scene
from tests.faults.fleet import Fleet, wait_until
from tests.faults.redis_process import RedisProcess
from tests.fleet import by_text, run_command
from tests.http_judge import http_judge
from tests.tiny_models import save_tiny_model

pytestmark = [
    pytest.mark.faults,
    pytest.mark.timeout(900),
    pytest.mark.skipif(sys.platform != "linux", reason="places by process need Linux's /proc"),
]

GPU = ("gpu", "--device", "cpu", "--pinned", "cpu")
JUDGE = ("judge", "--no-embedded")
HERE = Path("/proc/self/cwd")
LOGS = ("logs", "--runs-dir", str(HERE / "runs"))
DECLINED = "cannot serve this run"
# long enough to be seen declining, short enough to be well again while the others load
SOON = {"ORCHESTRATE_RETRY_REFUSED": "3"}


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """A judge, a broker and three kinds of machines: `good`, `no-runs` and `no-model`."""
    save_tiny_model(tmp_path / "shared" / "model", "llama")
    (tmp_path / "shared" / "runs").mkdir()
    for machine, sees in (
        ("good", ("runs", "model")),
        ("no-runs", ("model",)),
        ("no-model", ("runs",)),
    ):
        (tmp_path / machine).mkdir()
        for name in sees:
            (tmp_path / machine / name).symlink_to(tmp_path / "shared" / name)
    broker = RedisProcess(tmp_path / "redis")
    broker.start()
    fleet = Fleet(broker.url, tmp_path / "logs")
    try:
        with http_judge(by_text) as judge:
            prefix = on(tmp_path / "good")
            yield Scene(fleet, judge, str(HERE / "model"), HERE / "runs", prefix=prefix)
    finally:
        for name in list(fleet.workers):
            fleet.remove(name)
        broker.kill()


def on(machine: Path) -> list[str]:
    """What starts a command on a machine."""
    return ["env", "-C", str(machine)]


def declines(scene: Scene, machine: Path, run: str) -> str:
    """What `status` shows of the workers that decline a run."""
    shown = run_command(
        *("status", run, "--runs-dir", str(HERE / "runs"), "--json"),
        broker_url=scene.fleet.broker_url,
        cwd=machine,
    )
    found: dict[str, Any] = json.loads(shown.stdout)
    return "\n".join(f"{row['worker']}: {row['reason']}" for row in found["refusals"])


def test_a_run_goes_on_beside_machines_without_its_folder_or_its_model(
    scene: Scene, tmp_path: Path, note: Note
) -> None:
    """A machine that cannot serve a run leaves it to the others, and serves it once it is mended.

    Beside healthy workers stand a GPU worker without the model, another and a judge worker without
    the folder of the runs; the folder comes back to one of them.
    """
    fleet, good = scene.fleet, tmp_path / "good"
    fleet.add("gpu-no-model", *GPU, prefix=on(tmp_path / "no-model"))
    fleet.add("gpu-no-runs", *GPU, prefix=on(tmp_path / "no-runs"), environment=SOON)
    fleet.add("gpu-good", *GPU, prefix=on(good))
    fleet.add("judge-no-runs", *JUDGE, prefix=on(tmp_path / "no-runs"))
    fleet.add("judge-good", *JUDGE, prefix=on(good))
    fleet.add("reduce-good", "reduce", prefix=on(good))
    for name in fleet.workers:
        said_by(fleet, name, "ready.")

    # the healthy judge worker is too slow to take the negotiation
    fleet.kill("judge-good", signal.SIGSTOP)
    run = scene.run("beside")
    process = run.start()
    try:
        with heartbeats_kept(fleet):
            said_by(fleet, "judge-no-runs", DECLINED)
            shown = declines(scene, good, "beside")
            fleet.kill("judge-good", signal.SIGCONT)
            said_by(fleet, "gpu-no-runs", DECLINED)
            # the folder is mounted after all
            (tmp_path / "no-runs" / "runs").symlink_to(tmp_path / "shared" / "runs")
            # the healthy one leaves it jobs
            fleet.kill("gpu-good", signal.SIGSTOP)
            said_by(fleet, "gpu-no-model", DECLINED)
            shown += declines(scene, good, "beside")
            said_by(fleet, "gpu-no-runs", "Finished ")
            fleet.kill("gpu-good", signal.SIGCONT)
        assert run.finish(process) == FINISHED
    finally:
        process.kill()

    assert "there is no run at" in shown
    assert "No model '/proc/self/cwd/model'" in shown
    log = run_command(*LOGS, "beside", "--level", "warning", cwd=good).stdout
    assert log.count(DECLINED) == 3
    note("seen", "finished; three workers declined it, one of them until it was mended")


def test_a_run_that_no_machine_can_serve_ends_with_the_names_of_all(
    scene: Scene, tmp_path: Path, note: Note
) -> None:
    """A run that nobody can serve ends within seconds, and says where and why.

    The only judge worker has not the folder of the runs.
    """
    fleet, good = scene.fleet, tmp_path / "good"
    fleet.add("gpu-good", *GPU, prefix=on(good))
    fleet.add("judge-no-runs", *JUDGE, prefix=on(tmp_path / "no-runs"))
    fleet.add("reduce-good", "reduce", prefix=on(good))
    for name in fleet.workers:
        said_by(fleet, name, "ready.")

    run = scene.run("nobody")
    process = run.start()
    code = run.finish(process, timeout_s=60)

    said = (fleet.folder / "command_nobody.log").read_text()
    assert code == 1
    assert f"on {socket.gethostname()}: there is no run at" in said
    note("seen", "exit code 1 and the host's name")


def test_a_model_that_is_nowhere_ends_the_embedded_default_within_a_minute(
    scene: Scene, tmp_path: Path, note: Note
) -> None:
    """A misspelled model ends a run without a fleet with one sentence.

    `extract` without a broker, with the one GPU worker that it starts.
    """
    judge = ["--judge-url", scene.judge.url, "--judge-model", "test"]
    began = time.monotonic()
    ended = run_command(
        *("extract", *SHAPE, "--model", str(tmp_path / "modle"), *judge),
        *("--runs-dir", str(tmp_path / "runs")),
    )
    took = time.monotonic() - began

    assert ended.returncode == 1
    assert ended.stderr.count("Error: ") == 1
    assert str(tmp_path / "modle") in ended.stderr
    assert took < 60
    note("seen", f"exit code 1 after {took:.0f} s")


def test_a_worker_on_a_device_that_is_not_there_leaves_and_the_run_goes_on(
    scene: Scene, tmp_path: Path, note: Note
) -> None:
    """A GPU worker whose device computes nothing ends by itself with the device's name.

    `worker gpu` for a device that the machine has not, and one with a misspelled name, start
    before a healthy one.
    """
    fleet, good = scene.fleet, tmp_path / "good"
    for name, device in (("gpu-none", "cuda:99"), ("gpu-typo", "gpu0")):
        fleet.add(name, "gpu", "--device", device, prefix=on(good))
        said_by(fleet, name, "ready.")
    fleet.add("gpu-good", *GPU, prefix=on(good))
    fleet.add("judge-good", *JUDGE, prefix=on(good))
    fleet.add("reduce-good", "reduce", prefix=on(good))

    run = scene.run("device")
    process = run.start()
    try:
        assert run.finish(process) == FINISHED
        for name, device in (("gpu-none", "cuda:99"), ("gpu-typo", "gpu0")):
            launcher = fleet.workers[name].process
            assert launcher is not None
            assert launcher.wait(timeout=PATIENCE_S) == CannotWorkError.exit_code
            said = f"nothing can be computed on the device {device} here"
            assert said in fleet.workers[name].log()
            assert f"gpu worker on {device} cannot work" in fleet.workers[name].log()
    finally:
        process.kill()
    note("seen", "finished; both launchers ended with exit code 6")


@contextmanager
def heartbeats_kept(fleet: Fleet) -> Iterator[None]:
    """Have stopped workers count as alive however busy this machine is: a run that nobody else can
    serve ends."""
    client, over = redis.Redis.from_url(fleet.broker_url), threading.Event()

    def beat() -> None:
        while not over.wait(1):
            for worker in read_workers(client):
                put_heartbeat(client, worker)

    beating = threading.Thread(target=beat)
    beating.start()
    try:
        yield
    finally:
        over.set()
        beating.join()
        client.close()


def said_by(fleet: Fleet, name: str, words: str) -> None:
    """Wait until a worker says something."""
    worker = fleet.workers[name]
    try:
        wait_until(lambda: words in worker.log(), timeout_s=PATIENCE_S, what=f"{words!r} of {name}")
    except TimeoutError as error:
        for log in fleet.folder.glob("*.log"):
            error.add_note(f"{log.name}:\n{log.read_text(errors='replace')[-2000:]}")
        raise
