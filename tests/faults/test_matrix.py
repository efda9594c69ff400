"""Protects the promise: break anything at any time, and the same vectors come out.

Real worker processes, a real redis-server, one fault a case; docs/reliability.md is its table.
"""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import pytest

from orchestrator.processes import orchestrate
from tests.faults.disturbed_run import (
    FINISHED,
    GENERATE,
    GPU,
    IN_FLIGHT,
    JUDGE,
    N_SHARDS,
    PATIENCE_S,
    STAGES,
    Scene,
    disturbed,
    end,
    while_busy,
    whole_scene,
)
from tests.faults.fleet import wait_until
from tests.faults.redis_process import RedisProcess

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

NAMES = {"gpu": "GPU", "judge": "judge", "reduce": "reduce"}
# Two minutes, scaled with the visibility timeout.
AWAY_S = 12.0


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    server = RedisProcess(tmp_path_factory.mktemp("redis"), persistent=True)
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def scene(broker: RedisProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Two GPU workers, a judge and a reduce worker, and the run that nothing disturbs."""
    with whole_scene(broker.url, tmp_path_factory.mktemp("faults")) as scene:
        yield scene


def test_when_nothing_breaks_nothing_is_done_twice(scene: Scene) -> None:
    """Nothing is done twice.

    A second run beside the one that all are compared with.
    """
    with disturbed(scene, "again") as (run, process):
        assert run.finish(process) == FINISHED
    run.check("none", at_most=0)


@contextmanager
def held_at_the_reduce(scene: Scene, hold: Path) -> Iterator[None]:
    """A reduce worker whose jobs wait while a file exists: they are over sooner than one looks."""
    hold.touch()
    scene.fleet.remove("reduce-0")
    scene.fleet.add(
        "reduce-held",
        "reduce",
        module="tests.faults.odd_worker",
        environment={"ODD_HOLD": str(hold)},
    )
    try:
        yield
    finally:
        scene.fleet.remove("reduce-held")
        scene.fleet.add("reduce-0", "reduce")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "terminated"])
@pytest.mark.parametrize("kind", ["gpu", "judge", "reduce"])
def test_a_worker_is_ended_in_the_middle_of_a_job(
    scene: Scene, kind: str, number: signal.Signals, tmp_path: Path
) -> None:
    """Its jobs run elsewhere or again; what it had stored counts.

    A signal to a worker in the middle of such a job; it is started again.
    """
    hold = tmp_path / "hold"
    with (
        held_at_the_reduce(scene, hold) if kind == "reduce" else nullcontext(),
        disturbed(scene, f"{kind}-{number.name}") as (run, process),
    ):
        names = [name for name in scene.fleet.workers if name.startswith(kind)]
        name = while_busy(scene, run, STAGES[kind], *names)

        scene.fleet.kill(name, number)
        hold.unlink(missing_ok=True)

        assert run.finish(process) == FINISHED
    run.check(f"{number.name} of a {NAMES[kind]} worker", at_most=IN_FLIGHT)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "terminated"])
def test_the_orchestrator_is_ended_and_the_same_command_continues(
    scene: Scene, number: signal.Signals
) -> None:
    """The fleet goes on; the same command finishes the run.

    A signal to `extract` while workers generate, then the same command.
    """
    with disturbed(scene, f"orchestrator-{number.name}") as (run, process):
        while_busy(scene, run, GENERATE, "gpu-0", "gpu-1")

        process.send_signal(number)
        process.wait()
        again = run.start()

        assert run.finish(again) == FINISHED
    run.check(f"{number.name} of the orchestrator", at_most=0)


def test_redis_dies_and_comes_back_with_its_data(scene: Scene, broker: RedisProcess) -> None:
    """Nobody exits; all reconnect and go on.

    SIGKILL of redis-server while workers generate, a second later it is back with its data.
    """
    deaths = scene.fleet.deaths
    with disturbed(scene, "redis-persistent") as (run, process):
        while_busy(scene, run, GENERATE, "gpu-0", "gpu-1")

        broker.kill()
        time.sleep(1.0)
        broker.start()

        assert run.finish(process) == FINISHED
    assert scene.fleet.deaths == deaths
    run.check("Redis restarted with its data", at_most=2 * IN_FLIGHT)


def test_redis_dies_and_comes_back_empty(scene: Scene, broker: RedisProcess) -> None:
    """What Redis forgot is found by comparing plan and artifacts.

    The same, and it comes back without any data.
    """
    deaths = scene.fleet.deaths
    with disturbed(scene, "redis-empty") as (run, process):
        while_busy(scene, run, GENERATE, "gpu-0", "gpu-1")

        broker.kill()
        broker.persistent = False
        broker.start()

        assert run.finish(process) == FINISHED
    assert scene.fleet.deaths == deaths
    run.check("Redis restarted empty", at_most=2 * IN_FLIGHT)


def test_redis_is_flushed(scene: Scene, broker: RedisProcess) -> None:
    """As above, with every connection still up.

    FLUSHALL while workers generate.
    """
    with disturbed(scene, "redis-flushed") as (run, process):
        while_busy(scene, run, GENERATE, "gpu-0", "gpu-1")

        with broker.client() as client:
            client.flushall()

        assert run.finish(process) == FINISHED
    run.check("Redis flushed", at_most=2 * IN_FLIGHT)


def test_an_artifact_is_truncated_before_it_is_used(scene: Scene) -> None:
    """It is found, set aside, and its job runs again.

    A hundred bytes are cut off an activations file before the reduce reads it.
    """
    with disturbed(scene, "truncated") as (run, process):
        # its file alone is none yet: the worker reads back what it wrote before it makes the record
        record = run.folder / "generate" / "positive-000.json"
        wait_until(record.exists, timeout_s=PATIENCE_S, what="an artifact")

        (file,) = record.parent.glob("positive-000.activations-*.safetensors")
        file.write_bytes(file.read_bytes()[:-100])

        assert run.finish(process) == FINISHED
    run.check("an artifact truncated", at_most=1)


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A disk of a few megabytes."""
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(folder)])
    if mounted.returncode != 0:
        pytest.skip("mounting a small disk needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(file: Path) -> None:
    """Write until nothing fits any more."""
    with file.open("wb", buffering=0) as out, suppress(OSError):
        while True:
            out.write(b"x" * 4096)


def test_the_disk_is_full_until_somebody_frees_some(scene: Scene, tmp_path: Path) -> None:
    """The command ends with 1 and says what to do; the same command continues.

    The run is on a disk of 6 MB that is filled after the first shard, and emptied.
    """
    with small_disk(tmp_path / "disk") as disk:
        run = scene.run("disk-full", runs=disk)
        process = run.start()
        try:
            pattern = "generate/*.activations-*"
            wait_until(lambda: any(run.folder.glob(pattern)), timeout_s=PATIENCE_S, what="a shard")

            fill(disk / "filler")
            ended = run.finish(process)
            (disk / "filler").unlink()
            again = run.finish(run.start())
        finally:
            end(process)
        said = (scene.fleet.folder / "command_disk-full.log").read_text()

        assert (ended, again) == (1, FINISHED)
        assert "no space left" in said
        run.check("the disk full", at_most=2 * IN_FLIGHT)


def test_every_message_is_delivered_twice(scene: Scene, broker: RedisProcess) -> None:
    """The first artifact wins, the second delivery finds it.

    A copy of each message on the GPU queue.
    """
    with disturbed(scene, "twice") as (run, process), broker.client() as client:

        def copied() -> int:
            return sum(
                client.lpush(queue, message)
                for queue in client.scan_iter("gpu.*")
                for message in client.lrange(queue, 0, -1)
            )

        wait_until(lambda: copied() > 0, timeout_s=PATIENCE_S, what="messages on the run's queue")

        assert run.finish(process) == FINISHED
    run.check("every message delivered twice", at_most=2 * IN_FLIGHT)


def test_two_orchestrators_drive_one_run(scene: Scene) -> None:
    """They send nothing twice.

    The same command a second time while the first still runs.
    """
    with disturbed(scene, "two") as (run, process):
        while_busy(scene, run, GENERATE, "gpu-0", "gpu-1")

        second = run.start()

        assert run.finish(second) == run.finish(process) == FINISHED
    run.check("two orchestrators", at_most=0)


def test_a_clock_is_an_hour_ahead(scene: Scene) -> None:
    """Leases go by the server's clock; the worker says that its own is wrong.

    A GPU worker whose clock is an hour ahead takes part beside another.
    """
    environment = {"ODD_CLOCK_S": "3600"}
    # two with the right time may leave it no job
    scene.fleet.remove("gpu-1")
    scene.fleet.add("gpu-late", *GPU, module="tests.faults.odd_worker", environment=environment)
    try:
        wait_until(
            lambda: "ready." in scene.fleet.workers["gpu-late"].log(),
            timeout_s=PATIENCE_S,
            what="a worker",
        )
        with disturbed(scene, "clock") as (run, process):
            assert run.finish(process) == FINISHED
        worked = "Finished" in scene.fleet.workers["gpu-late"].log()
        warned = "clock is 3600 s off" in scene.fleet.workers["gpu-late"].log()
    finally:
        scene.fleet.remove("gpu-late")
        scene.fleet.add("gpu-1", *GPU)

    assert (worked, warned) == (True, True)
    run.check("a clock an hour ahead", at_most=0)


def test_a_poison_prompt_is_given_up_and_the_rest_is_finished(scene: Scene, tmp_path: Path) -> None:
    """It is given up after N deaths and named; the others finish; `retry --dead` tries it again.

    A shard kills the only worker three times; afterwards it is harmless and retried.
    """
    poison, job = tmp_path / "poison", "refusal/generate/negative-001"
    poison.write_text(job)
    ordinary = [n for n in list(scene.fleet.workers) if n.startswith("gpu")]
    for name in ordinary:
        scene.fleet.remove(name)
    environment = {"ODD_POISON": str(poison), "ORCHESTRATE_MAX_DEATHS": "3"}
    scene.fleet.add("gpu-odd", *GPU, module="tests.faults.odd_worker", environment=environment)
    deaths = scene.fleet.deaths
    try:
        with disturbed(scene, "poison") as (run, process):
            ended = run.finish(process)
            others = len(list((run.folder / "judge").glob("*-???.json")))
        died = scene.fleet.deaths - deaths
        (letter,) = (run.runs / "poison" / "dead").rglob("*.json")
        said = json.loads(letter.read_text())["message"]
        poison.unlink()
        retry = orchestrate("retry", "poison", "--dead", "--runs-dir", str(run.runs))
        assert run.finish(run.start(retry)) == FINISHED
    finally:
        scene.fleet.remove("gpu-odd")
        for name in ordinary:
            scene.fleet.add(name, *GPU)

    assert (ended, died, others) == (1, 3, N_SHARDS - 1)
    assert "3 workers died" in said
    assert not letter.exists()
    run.check("a poison prompt", at_most=3 * IN_FLIGHT)


def test_the_judge_is_away(scene: Scene) -> None:
    """Judge workers wait and lose no answer.

    The judge answers 503 for two minutes, scaled to 12 s.
    """
    with disturbed(scene, "judge-away") as (run, process):
        while_busy(scene, run, JUDGE, "judge-0")

        scene.judge.down = True
        threading.Timer(AWAY_S, lambda: setattr(scene.judge, "down", False)).start()

        assert run.finish(process) == FINISHED
    run.check("the judge away", at_most=0)
