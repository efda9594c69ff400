"""One Celery worker of one kind: builds what its tasks share, registers them, and runs."""

from __future__ import annotations

import faulthandler
import functools
import logging
import os
import signal
import socket
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType

from celery import Celery
from celery.apps.worker import Worker
from celery.exceptions import SecurityWarning
from celery.signals import worker_ready, worker_shutting_down

from domain.fleet.heartbeats import WorkerKind
from domain.fleet.permissions import permissions
from storage.broker.connection import connect
from tasks.fleet.app import TASK_NAMES, delivery_settings, make_app
from tasks.fleet.declines import Declines
from tasks.fleet.device_stage import DeviceStage
from tasks.fleet.edge import Edge, Stage
from tasks.fleet.job_logging import LogToBroker, set_up_logging
from tasks.fleet.kombu_internals import LeaseStep, keep_controls
from tasks.fleet.member import FleetStep, Member
from tasks.fleet.remote_control import register_about, register_drain

log = logging.getLogger(__name__)

# Threads that can carry a job. How many do is decided by the device, and by how many judge jobs
# wait for their judge (domain/fleet/placement.py): those leave their places to others.
MOST_THREADS: dict[WorkerKind, int] = {"gpu": 16, "judge": 64, "reduce": 2}
MOST_JOBS = {**MOST_THREADS, "judge": 4}

# A worker that was told to leave and computes on is killed: its jobs run elsewhere. A GPU worker
# stops at its next step; the others end what is under way.
LEAVES_WITHIN_S: dict[WorkerKind, float] = {"gpu": 12.0, "judge": 50.0, "reduce": 50.0}


@dataclass(frozen=True)
class WorkerSettings:
    """What one worker process is started with; secrets come from the environment only."""

    kind: WorkerKind
    broker_url: str
    name: str
    device: str = "auto"
    device_name: str = ""
    models: tuple[str, ...] = ()
    judge_url: str | None = None
    judge_in_flight: int = 256
    judge_timeout_s: float = 60.0
    log_level: str = "info"
    log_format: str = "text"


def run_worker(settings: WorkerSettings, *, register: Register | None = None) -> int:
    """Run until told to stop; returns the exit code.

    `register` has another set of stages done, for measuring the rest without models.
    """
    name = f"{settings.name}@{socket.gethostname()}"
    connection = functools.cache(lambda: connect(settings.broker_url))
    set_up_logging(
        level=settings.log_level, form=settings.log_format, to_broker=LogToBroker(name, connection)
    )
    # the HTTP clients' debug lines would hold prompts and headers
    for chatty in ("httpx2", "httpcore2", "openai", "fsspec", "celery.worker.strategy"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    # it is about pickle, which no worker of ours opens
    warnings.filterwarnings("ignore", category=SecurityWarning)
    delivery = delivery_settings()
    declines = Declines(settings.kind, name, delivery.retry_declined_s)
    member = Member(settings.kind, settings.device_name, settings.models, declines=declines)
    FleetStep.member = member
    keep_controls()
    register_about()
    register_drain(member)
    app = make_app(settings.broker_url)
    app.steps["consumer"].update((LeaseStep, FleetStep))
    edge = Edge(
        app,
        settings.broker_url,
        delivery,
        permissions(os.environ),
        jobs=member.jobs,
        work=member.work,
        declines=declines,
    )
    close = (register or _register)(app, edge, settings, member)

    is_leaving = False

    def leave(**_: object) -> None:
        # a second signal interrupts what the first one waits for: it must not wait too
        nonlocal is_leaving
        is_first, is_leaving = not is_leaving, True
        if is_first:
            # a leaving GPU worker hands its jobs back instead of finishing them first
            close()

    worker_shutting_down.connect(leave, weak=False)
    try:
        worker = _worker_class(app, LEAVES_WITHIN_S[settings.kind])(
            hostname=name,
            queues=[settings.kind],
            # threads: the main loop stays free for leases, heartbeats and Flower's questions
            pool="threads",
            concurrency=MOST_THREADS[settings.kind],
            loglevel=settings.log_level,
            without_mingle=True,
            without_gossip=True,
            task_events=True,
        )
        worker.start()
        return int(worker.exitcode or 0)
    finally:
        close()


def _worker_class(app: Celery, leaves_within_s: float) -> type[Worker]:
    """Celery's worker, which is gone within its term whatever its leaving waits for."""

    def told(number: int, frame: FrameType | None, *, then: object) -> None:
        if number == signal.SIGTERM:
            # sent many times, by a launcher and a batch system, it would interrupt itself where
            # Celery holds a lock that it takes again
            signal.signal(number, signal.SIG_IGN)
        # a thread of C: it needs nothing that hangs, and shows where
        faulthandler.dump_traceback_later(leaves_within_s, exit=True, file=2)
        if callable(then):
            then(number, frame)

    class LeavingWorker(app.Worker):  # type: ignore[misc]
        def install_platform_tweaks(self, worker: Worker) -> None:
            super().install_platform_tweaks(worker)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
                signal.signal(number, functools.partial(told, then=signal.getsignal(number)))

    return LeavingWorker


Register = Callable[[Celery, Edge, WorkerSettings, Member], Callable[[], None]]


def _register(
    app: Celery, edge: Edge, settings: WorkerSettings, member: Member
) -> Callable[[], None]:
    """Register the tasks of the worker's kind; returns what to call when it leaves."""
    member.most_jobs = lambda: MOST_JOBS[settings.kind]
    if settings.kind == "gpu":
        shown = settings.device_name
        stage = DeviceStage(settings.device, limit=MOST_THREADS["gpu"], shown=shown)
        member.most_jobs = stage.most_jobs
        member.work.watch_device(stage.computed)
        worker_ready.connect(lambda **_: stage.load(), weak=False)
        add_task(app, edge, "generate", stage.carry)
        add_task(app, edge, "contexts", stage.carry)
        return stage.close
    if settings.kind == "judge":
        from tasks.stages.judge import judge, negotiate
        from tasks.stages.judge_pool import JudgePool

        judges = JudgePool(
            settings.broker_url,
            settings.judge_url,
            settings.judge_in_flight,
            settings.judge_timeout_s,
            on_call=member.work.call,
        )
        member.endpoint_of = judges.endpoint_of
        add_task(app, edge, "negotiate", lambda run, job: negotiate(run, job, judges=judges))
        add_task(app, edge, "judge", lambda run, job: judge(run, job, judges=judges))
        return judges.close
    from tasks.stages.converge import converge
    from tasks.stages.reduce import reduce
    from tasks.stages.verify import verify

    add_task(app, edge, "converge", converge)
    add_task(app, edge, "reduce", reduce)
    add_task(app, edge, "verify", verify)
    return lambda: None


def add_task(app: Celery, edge: Edge, stage_name: str, stage: Stage) -> None:
    """Have this worker do a stage's jobs."""

    # a function with a name: Celery writes the name into code that it runs, which no lambda's fits
    def carry(*surplus: object, **fields: object) -> str:
        # anything may stand in a message; what does not belong is refused in words, by the edge
        return edge.carry(stage, {**fields, "positional": surplus} if surplus else fields)

    app.task(name=TASK_NAMES[stage_name])(carry)


def default_worker_name(kind: WorkerKind, device: str) -> str:
    """A worker's name as Flower shows it: `gpu-cuda:1-4711`, `judge-4712`."""
    return f"{kind}-{device}-{os.getpid()}" if kind == "gpu" else f"{kind}-{os.getpid()}"
