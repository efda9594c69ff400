"""How the fleet scales: efficiency with simulated devices, cost per job, large plans, overlap.

    python benchmarks/scale.py                       # all of it, about twelve minutes on two cores
    python benchmarks/scale.py --parts fleet --workers 1,16

Devices are simulated (tests/simulated_fleet.py): real Celery workers on a real Redis whose generate
job sleeps. `ideal` is jobs x seconds / workers; efficiency is ideal / wall time of the whole run,
from the first message to the last vector, start of the run included; a judge worker for every 16
devices. Costs are CPU seconds of the orchestrator process and of Redis, and Redis' network bytes,
over all jobs of the run, its negotiation, judge and reduce jobs too. `plans` measures an
orchestrator and `status` on runs of which half is done. `overlap` is wall time over the longer of
generation / devices and judging / allowed rate. Other work on the machine counts against the
fleet: 64 workers want a core for themselves.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from domain.plan.readiness import ready_jobs
from domain.plan.samples import POLARITIES
from orchestrator.progress import TraitCount
from orchestrator.run_state import run_snapshot
from storage.broker.connection import connect
from storage.broker.embedded_redis import embedded_redis
from storage.broker.fleet import read_workers
from storage.record.artifacts import jobs_with_artifacts, publish_artifact
from storage.record.run import Run, open_run
from storage.record.store import open_store
from tests.simulated_runs import Silent, driver, make_run, simulated_workers

N_TRAITS = 8


@dataclass(frozen=True)
class Cost:
    """CPU seconds and bytes up to a moment."""

    orchestrator_s: float
    redis_s: float
    redis_bytes: float

    @classmethod
    def now(cls, client: redis.Redis) -> Cost:
        """Up to now."""
        mine = resource.getrusage(resource.RUSAGE_SELF)
        info: dict[str, Any] = client.info()
        return cls(
            mine.ru_utime + mine.ru_stime,
            info["used_cpu_user"] + info["used_cpu_sys"],
            info["total_net_input_bytes"] + info["total_net_output_bytes"],
        )

    def since(self, before: Cost, n_jobs: int) -> str:
        """Per job."""
        parts = (
            f"{1000 * (self.orchestrator_s - before.orchestrator_s) / n_jobs:.2f}",
            f"{1000 * (self.redis_s - before.redis_s) / n_jobs:.2f}",
            f"{(self.redis_bytes - before.redis_bytes) / n_jobs:.0f}",
        )
        return " | ".join(parts)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", default="fleet,overlap,plans")
    parser.add_argument("--workers", default="1,4,16,64")
    parser.add_argument("--jobs-per-worker", type=int, default=32)
    parser.add_argument("--seconds-per-job", type=float, default=4.0)
    parser.add_argument("--planned", default="100000,1000000")
    parser.add_argument("--measure-plan", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--broker", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure_plan:
        print(json.dumps(measure_plan(given.measure_plan, given.broker)))
        return
    for part in given.parts.split(","):
        {"fleet": fleet, "overlap": overlap, "plans": plans}[part](given)


@contextlib.contextmanager
def fleet_of(n: int, *arguments: str) -> Iterator[tuple[str, Path]]:
    """A broker and n simulated devices that are all up."""
    with tempfile.TemporaryDirectory() as name, embedded_redis() as url:
        folder = Path(name)
        n_judges = -(-n // 16)
        every = ["--gpu", str(n), "--judge", str(n_judges), *arguments]
        with simulated_workers(url, *every, logs=folder / "logs"), connect(url) as client:
            while len(read_workers(client)) < n + n_judges + 1:
                time.sleep(0.2)
            yield url, folder


def fleet(given: argparse.Namespace) -> None:
    """Efficiency and cost per job by number of workers; jobs grow with the workers."""
    print(f"{N_TRAITS} traits, {given.jobs_per_worker} generate jobs a worker, each ", end="")
    print(f"{given.seconds_per_job} s")
    print(
        "workers | jobs | ideal s | wall s | efficiency | first verdict at | orchestrator CPU ms ",
        end="",
    )
    print("a job | Redis CPU ms a job | Redis bytes a job")
    for n in (int(one) for one in given.workers.split(",")):
        shards = max(1, n * given.jobs_per_worker // (2 * N_TRAITS))
        with fleet_of(n, "--seconds-per-job", str(given.seconds_per_job)) as (url, folder):
            print(n, "|", fleet_row(url, folder, shards, n, given.seconds_per_job), flush=True)


def fleet_row(url: str, folder: Path, shards: int, n: int, seconds: float) -> str:
    """One measurement."""
    run = make_run(folder / "run", traits=N_TRAITS, shards=shards)
    n_jobs = sum(1 for _ in run.plan.jobs())
    ideal = 2 * N_TRAITS * shards * seconds / n
    with connect(url) as client:
        before, started = Cost.now(client), time.monotonic()
        first = FirstVerdict()
        drives = driver(url, run)
        drives.start()
        drives.watch(first)
        wall = time.monotonic() - started
        cost = Cost.now(client).since(before, n_jobs)
    share = (first.at - started) / wall
    return f"{n_jobs} | {ideal:.1f} | {wall:.1f} | {ideal / wall:.1%} | {share:.0%} | {cost}"


class FirstVerdict(Silent):
    """Notes when the first trait is finished."""

    at = 0.0

    def update(self, counts: list[TraitCount], failures: list[Any]) -> None:
        """See orchestrator.driver.View."""
        if not self.at and any(one.is_reduced for one in counts):
            self.at = time.monotonic()


def overlap(given: argparse.Namespace) -> None:
    """Wall time over the longer of the two stages, with either the longer and both alike."""
    print("\nbound by | generation s | judging s | wall s | wall / longer")
    n, seconds, shards, samples = 4, 1.0, 15, 10
    n_shards = 2 * N_TRAITS * shards
    generation = n_shards * seconds / n
    for name, share in (("generation", 0.5), ("both", 1.0), ("judging", 1.5)):
        rate = 2 * n_shards * samples / (generation * share)
        speed = ["--seconds-per-job", str(seconds), "--scorings-per-second", str(rate)]
        with fleet_of(n, *speed) as (url, folder):
            run = make_run(folder / "run", traits=N_TRAITS, shards=shards, shard_samples=samples)
            started = time.monotonic()
            drives = driver(url, run)
            drives.start()
            drives.watch(Silent())
            wall = time.monotonic() - started
        judging = generation * share
        longer = max(generation, judging)
        print(
            f"{name} | {generation:.0f} | {judging:.0f} | {wall:.1f} | {wall / longer:.3f}",
            flush=True,
        )


def plans(given: argparse.Namespace) -> None:
    """An orchestrator and `status` on large runs, in a process of their own."""
    print(
        "\nsamples | jobs | start CPU s | reconcile CPU s | messages' memory in Redis MB ", end=""
    )
    print("| orchestrator's memory MB | hand-over CPU ms | status CPU s | status by record CPU s")
    for planned in (int(one) for one in given.planned.split(",")):
        with tempfile.TemporaryDirectory() as name, embedded_redis() as url:
            run = make_run(
                Path(name) / "run",
                traits=N_TRAITS,
                shards=planned // (2 * N_TRAITS * 100),
                shard_samples=100,
            )
            finish_half(run)
            command = [sys.executable, __file__, "--measure-plan", run.store.url, "--broker", url]
            found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        print(planned, "|", " | ".join(f"{v:.3g}" for v in found), flush=True)


def finish_half(run: Run) -> None:
    """Records of the negotiation and of every second generate and judge job."""
    publish_artifact(run.store, run.plan.negotiate_job, files={}, info={})
    for trait in run.spec.traits:
        for job in run.plan.part_jobs(trait, "generate", *POLARITIES)[::2]:
            publish_artifact(run.store, job, files={}, info={})
            publish_artifact(run.store, run.plan.judge_job(job), files={}, info={})


def measure_plan(folder: Path, url: str) -> list[float]:
    """The figures of one plan."""
    from tasks.fleet.send import hand_over

    run = open_run(open_store(str(folder)))
    drives = driver(url, run)
    with connect(url) as client:
        empty = int(client.info()["used_memory"])
        start = timed(drives.start)
        full = int(client.info()["used_memory"])
        reconcile = timed(drives.reconcile)
        job = next(
            j
            for j in ready_jobs(
                run.plan, jobs_with_artifacts(run.store, [t.name for t in run.spec.traits])
            )
        )
        follow = run.plan.judge_job(job)
        cpu = time.process_time()
        for _ in range(20):
            hand_over(drives.app, drives.state, run, done=follow)
        hand = (time.process_time() - cpu) / 20
        by_broker = timed(lambda: run_snapshot(run, url))
        by_record = timed(lambda: run_snapshot(run, None))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    n_jobs = sum(1 for _ in run.plan.jobs())
    return [
        n_jobs,
        start,
        reconcile,
        (full - empty) / 1e6,
        memory,
        1000 * hand,
        by_broker,
        by_record,
    ]


def timed(work: Any) -> float:
    """CPU seconds of this process that it takes: the same on a busy machine."""
    started = time.process_time()
    work()
    return time.process_time() - started


if __name__ == "__main__":
    main()
