"""One Celery worker of one kind: builds what its tasks share, registers them, and runs.

Knows nothing of devices beyond the name it is given; the launcher in cli/ starts one process each.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass

from celery import Celery
from celery.signals import worker_shutting_down

from tasks import about
from tasks.app import TASK_NAMES, WorkerKind, make_app
from tasks.edge import Edge, Stage
from tasks.lease import LeaseStep
from tasks.settings import delivery_settings, permissions

# Two jobs in flight let the engine refill from the next while the last rows of the first finish.
CONCURRENCY: dict[WorkerKind, int] = {"gpu": 3, "judge": 4, "reduce": 2}


@dataclass(frozen=True)
class WorkerSettings:
    """What one worker process is started with; secrets come from the environment only."""

    kind: WorkerKind
    broker_url: str
    name: str
    device: str = "auto"
    judge_url: str | None = None
    judge_in_flight: int = 256
    judge_timeout_s: float = 60.0
    log_level: str = "info"


def run_worker(settings: WorkerSettings) -> int:
    """Run until told to stop; returns the exit code."""
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(message)s"
    )
    # the HTTP clients' debug lines would hold prompts and headers
    for chatty in ("httpx2", "httpcore2", "openai", "fsspec", "celery.worker.strategy"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    about.register()
    app = make_app(settings.broker_url)
    app.steps["consumer"].add(LeaseStep)
    close = _register(app, settings)
    # a leaving GPU worker hands its jobs back instead of finishing them first
    worker_shutting_down.connect(lambda **_: close(), weak=False)
    try:
        worker = app.Worker(
            hostname=f"{settings.name}@{socket.gethostname()}",
            queues=[settings.kind],
            # threads: the main loop stays free for leases, heartbeats and Flower's questions
            pool="threads",
            concurrency=CONCURRENCY[settings.kind],
            loglevel=settings.log_level,
            without_mingle=True,
            without_gossip=True,
            task_events=True,
        )
        worker.start()
        return int(worker.exitcode or 0)
    finally:
        close()


def _register(app: Celery, settings: WorkerSettings) -> Callable[[], None]:
    """Register the tasks of the worker's kind; returns what to call when it leaves."""
    edge = Edge(app, settings.broker_url, delivery_settings(), permissions())
    if settings.kind == "gpu":
        from tasks.generate import generate
        from workers.resident import Residents

        residents = Residents(device=settings.device)
        _task(app, edge, "generate", lambda run, job: generate(run, job, residents=residents))
        return residents.close
    if settings.kind == "judge":
        from tasks.judge import judge, probe
        from tasks.judge_pool import JudgePool

        judges = JudgePool(
            settings.broker_url,
            settings.judge_url,
            settings.judge_in_flight,
            settings.judge_timeout_s,
        )
        _task(app, edge, "probe", lambda run, job: probe(run, job, judges=judges))
        _task(app, edge, "judge", lambda run, job: judge(run, job, judges=judges))
        return judges.close
    from tasks.converge import converge
    from tasks.reduce import reduce
    from tasks.verify import verify

    _task(app, edge, "converge", converge)
    _task(app, edge, "reduce", reduce)
    _task(app, edge, "verify", verify)
    return lambda: None


def _task(app: Celery, edge: Edge, stage_name: str, stage: Stage) -> None:
    def carry(*surplus: object, **fields: object) -> str:
        # anything may stand in a message; what does not belong is refused in words, by the edge
        return edge.carry(stage, {**fields, **({"positional": surplus} if surplus else {})})

    app.task(name=TASK_NAMES[stage_name])(carry)


def default_name(kind: WorkerKind, device: str) -> str:
    """A worker's name as Flower shows it: `gpu-cuda:1-4711`, `judge-4712`."""
    return f"{kind}-{device}-{os.getpid()}" if kind == "gpu" else f"{kind}-{os.getpid()}"
