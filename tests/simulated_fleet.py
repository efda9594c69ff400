"""Real workers without models: a generate job sleeps as a device would work, a judge job as calls.

    python -m tests.simulated_fleet --gpu 16 --seconds-per-job 4 --scorings-per-second 400

Everything else is the product: Celery consumers on the real queues, leases, heartbeats, hand-over,
artifacts. Workers are forked from one process that imported everything, so that dozens of them
start within seconds and share their memory. Devices serve models as real workers do.
"""

from __future__ import annotations

import argparse
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

from celery import Celery

from domain.plan.jobs import Job
from domain.verdict.record import TraitMetrics, VerdictName
from storage.broker.embedded_redis import die_with_parent
from storage.record.artifacts import Record, publish_artifact
from storage.record.results import write_metrics
from storage.record.run import Run
from tasks.fleet.edge import Edge
from tasks.fleet.member import Member
from tasks.fleet.worker import Register, WorkerSettings, add_task, run_worker

TOKENS_PER_SAMPLE = 200


def stages(seconds_per_job: float, scorings_per_second: float, load_seconds: float) -> Register:
    """What a worker registers in place of the real stages."""
    device, judge_line, loaded = threading.Lock(), threading.Lock(), list[str]()
    computed = list[float]()

    def generate(run: Run, job: Job) -> Record:
        # jobs of a device run one after another, as rows that fill it do
        with device:
            if loaded != [run.spec.model.model_id]:
                loaded[:] = [run.spec.model.model_id]
                time.sleep(load_seconds)
            time.sleep(seconds_per_job)
            computed.append(seconds_per_job)
        n = run.plan.n_samples_of(job)
        facts = {"n_samples": n, "n_tokens": n * TOKENS_PER_SAMPLE}
        return publish_artifact(
            run.store, job, files={"responses.parquet": job.key.encode()}, info=facts
        )

    def judge(run: Run, job: Job) -> Record:
        n = 2 * run.plan.n_samples_of(job)
        with judge_line:
            time.sleep(n / scorings_per_second)
        return publish_artifact(run.store, job, files={}, info={"n_verdicts": n, "n_calls": n})

    def negotiate(run: Run, job: Job) -> Record:
        return publish_artifact(run.store, job, files={}, info={"mode": "simulated"})

    def reduce(run: Run, job: Job) -> Record:
        metrics = TraitMetrics(trait=str(job.trait), verdict=VerdictName.USABLE)
        write_metrics(run.store, f"traits/{job.trait}", metrics)
        return publish_artifact(run.store, job, files={}, info={"verdict": "usable"})

    def register(
        app: Celery, edge: Edge, settings: WorkerSettings, member: Member
    ) -> Callable[[], None]:
        kinds = {
            "gpu": {"generate": generate},
            "judge": {"negotiate": negotiate, "judge": judge},
            "reduce": {"reduce": reduce},
        }
        for name, stage in kinds[settings.kind].items():
            add_task(app, edge, name, stage)
        most = 3 if settings.kind == "gpu" else 4
        member.most_jobs = lambda: most
        if settings.kind == "gpu":
            member.work.watch_device(lambda: (sum(computed), 0))
        return lambda: None

    return register


def main() -> None:
    """Fork the workers and stay until told to end."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for kind, n in (("gpu", 1), ("judge", 1), ("reduce", 1)):
        parser.add_argument(f"--{kind}", type=int, default=n)
    parser.add_argument("--seconds-per-job", type=float, default=4.0)
    parser.add_argument("--load-seconds", type=float, default=0.0)
    parser.add_argument("--scorings-per-second", type=float, default=1e6)
    parser.add_argument("--logs", type=Path, required=True)
    given = parser.parse_args()
    given.logs.mkdir(parents=True, exist_ok=True)
    register = stages(given.seconds_per_job, given.scorings_per_second, given.load_seconds)
    children = [
        _fork(kind, number, given.logs, register)
        for kind in ("reduce", "judge", "gpu")
        for number in range(getattr(given, kind))
    ]
    signal.signal(signal.SIGTERM, lambda *_: _kill(children))
    for pid in children:
        os.waitpid(pid, 0)


def _kill(children: list[int]) -> None:
    for pid in children:
        os.kill(pid, signal.SIGKILL)


def _fork(kind: str, number: int, logs: Path, register: Register) -> int:
    pid = os.fork()
    if pid:
        return pid
    die_with_parent()
    os.setsid()
    log = os.open(logs / f"{kind}-{number}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    settings = WorkerSettings(
        kind=kind,  # type: ignore[arg-type]
        broker_url=os.environ["ORCHESTRATE_BROKER_URL"],
        name=f"{kind}-{number:02d}",
        device_name="simulated" if kind == "gpu" else "",
        models=_models(number),
    )
    os._exit(run_worker(settings, register=register))


def _models(number: int) -> tuple[str, ...]:
    """The patterns of a worker: those of all, or with semicolons each one's own."""
    each = os.environ.get("SIMULATED_MODELS", "").split(";")
    return tuple(filter(None, each[number % len(each)].split(",")))


if __name__ == "__main__":
    main()
