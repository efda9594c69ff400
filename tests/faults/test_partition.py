"""Protects runs on several hosts: cut a host or the broker off, put it back, touch nothing else."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.faults.disturbed_run import FINISHED, PATIENCE_S, DisturbedRun, Scene, end
from tests.faults.fleet import VISIBILITY_TIMEOUT_S, Fleet, wait_until
from tests.faults.hosts import Hosts, hosts
from tests.faults.redis_process import RedisProcess
from tests.fleet import by_text
from tests.http_judge import http_judge
from tests.tiny_models import save_tiny_model
from workers.engine.resident import jobs_in_flight

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

GPU = ("gpu", "--device", "cpu", "--pinned", "cpu")
# Longer than the broker waits before it gives a silent worker's jobs to another.
AWAY_S = 3 * VISIBILITY_TIMEOUT_S
IN_FLIGHT = jobs_in_flight("cpu")
NAMES = {
    "gpu0": "a GPU host",
    "judge": "the judge's host",
    "asking": "the orchestrator's host",
    "broker": "the broker",
}


@pytest.fixture(scope="module")
def net() -> Iterator[Hosts]:
    with hosts("broker", "gpu0", "gpu1", "judge", "asking") as made:
        yield made


@pytest.fixture(scope="module")
def scene(net: Hosts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Broker, two GPU hosts, a judge host with the reduce worker, and the orchestrator's host."""
    folder = tmp_path_factory.mktemp("partition")
    broker = RedisProcess(
        folder / "redis", host=net.address_of("broker"), prefix=net.prefix("broker")
    )
    broker.start()
    model = save_tiny_model(folder / "model", "llama")
    fleet = Fleet(broker.url, folder / "logs")
    with http_judge(by_text, host=net.address) as judge, fleet.tended():
        judge.delay_s = 0.3
        fleet.add("gpu-0", *GPU, prefix=net.prefix("gpu0"))
        fleet.add("gpu-1", *GPU, prefix=net.prefix("gpu1"))
        fleet.add("judge-0", "judge", "--no-embedded", prefix=net.prefix("judge"))
        fleet.add("reduce-0", "reduce", prefix=net.prefix("judge"))
        scene = Scene(fleet, judge, model, folder / "runs", prefix=net.prefix("asking"))
        first = scene.run("undisturbed")
        assert first.finish(first.start()) == FINISHED
        scene.undisturbed = first.folder
        yield scene
    broker.kill()


def cut_off(scene: Scene, net: Hosts, host: str, run: DisturbedRun) -> None:
    """Pull a host's cable in the middle of a run and put it back; the run has to end well."""
    fleet, deaths = scene.fleet, scene.fleet.deaths
    workers = ["gpu-0"] if host == "gpu0" else ["gpu-0", "gpu-1"]
    process = run.start()
    try:
        wait_until(
            lambda: any(fleet.busy_with(n, "/generate/", run.marks) for n in workers),
            timeout_s=PATIENCE_S,
            what="a worker on a generate job",
        )
        net.unplug(host)
        time.sleep(AWAY_S)
        net.plug(host)
        assert run.finish(process) == FINISHED
    finally:
        end(process)
    # nobody was restarted: they came back by themselves
    assert fleet.deaths == deaths


@pytest.mark.parametrize("host", [*NAMES])
def test_a_host_is_cut_off_and_comes_back_by_itself(scene: Scene, net: Hosts, host: str) -> None:
    """Everybody reconnects without hands; jobs on the far side go to others or come back.

    The host's cable is pulled in the middle of a run and put back after three visibility timeouts.
    """
    run = scene.run(f"without-{host}")

    cut_off(scene, net, host, run)

    run.check(f"partition: {NAMES[host]} cut off for {AWAY_S:.0f} s", at_most=2 * IN_FLIGHT)


def test_all_workers_still_listen_after_the_partitions(scene: Scene) -> None:
    """No worker was lost on the way.

    One more run on the same workers.
    """
    run = scene.run("after")

    assert run.finish(run.start()) == FINISHED

    run.check("all partitions over", at_most=0)
