"""A worker's part in the fleet: which queues it listens to, how much it takes, its heartbeat.

Runs in the worker's main loop twice a second. What to take is decided in
domain/fleet/placement.py, from heartbeats that every worker sees alike.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import redis
from celery import bootsteps
from celery.worker.consumer.tasks import Tasks
from kombu.exceptions import OperationalError

from domain.fleet.heartbeats import Demand, Heartbeat
from domain.fleet.placement import (
    GpuWorker,
    beside_those_that_wait,
    jobs_to_hold,
    model_to_serve,
    models_left,
    runs_in_turn,
    wanted_models,
)
from storage.broker.counts import note_calls
from storage.broker.fleet import forget_worker, put_heartbeat, queue_of, read_demands, read_workers
from tasks.fleet.app import run_queue
from tasks.fleet.declines import Declines
from tasks.fleet.kombu_internals import broker_client, end_worker, hold_messages, running_messages
from tasks.fleet.work_log import JobsInHand, WorkLog

if TYPE_CHECKING:
    from celery.worker.consumer import Consumer

log = logging.getLogger(__name__)
LOOK_EVERY_S = 0.5
HEARTBEAT_EVERY_S = 2.0

# With 64 workers each looks at the others every eight seconds.
PEERS_A_SECOND = 8


@dataclass
class Member:
    """This worker as the fleet knows it; set up before the worker starts."""

    kind: str
    device: str = ""
    models: tuple[str, ...] = ()
    most_jobs: Callable[[], int] = lambda: 2
    # of a judge worker: run id -> its judge's endpoint, empty where it is not known
    endpoint_of: Callable[[str], str] = lambda run_id: ""
    jobs: JobsInHand = field(default_factory=JobsInHand)
    work: WorkLog = field(default_factory=WorkLog)
    declines: Declines = field(default_factory=Declines)
    model: str = ""
    since: float = field(default_factory=time.monotonic)
    draining: bool = False

    def heartbeat(self, name: str) -> Heartbeat:
        """What others read of it."""
        return Heartbeat(
            name=name,
            kind=self.kind,
            host=name.partition("@")[2],
            device=self.device,
            model=self.model,
            serving_s=self.serving_s,
            models=self.models,
            draining=self.draining,
            jobs=tuple((one.run, one.job, one.seconds) for one in self.jobs.now()),
            **vars(self.work.now()),
        )

    @property
    def serving_s(self) -> float:
        """How long it has served its model."""
        return time.monotonic() - self.since

    def serve(self, model: str) -> None:
        """Turn to a model."""
        if model != self.model:
            log.info("Serves %s.", model, extra={"event": "serves"})
            self.model, self.since = model, time.monotonic()


class FleetStep(bootsteps.StartStopStep):  # type: ignore[misc]
    """Keeps a worker listening to the right queues; `member` is set by run_worker."""

    requires = (Tasks,)
    member: Member

    def __init__(self, parent: Consumer, **options: Any) -> None:  # Celery's signature
        super().__init__(parent, **options)
        self._timer: Any = None
        self._next_heartbeat = self._next_peers = 0.0
        self._has_joined = False
        self._read: list[Heartbeat] = []

    def start(self, parent: Consumer) -> None:
        """Begin looking; called on every (re)connection."""
        self._look(parent)
        self._timer = parent.timer.call_repeatedly(LOOK_EVERY_S, self._look, (parent,))

    def stop(self, parent: Consumer) -> None:
        """Stop looking and take the heartbeat away."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        try:
            with broker_client(parent) as client:
                forget_worker(client, parent.hostname)
                self.member.declines.forget(client)
        except (redis.RedisError, OperationalError, OSError, AttributeError):
            # gone with the connection; others take it for gone when it is silent
            return

    def _look(self, parent: Consumer) -> None:
        try:
            with broker_client(parent) as client:
                self._take_part(parent, client)
        except (redis.ResponseError, OperationalError) as error:
            log.warning("The broker did not say what waits: %s.", error, extra={"event": "blind"})

    def _take_part(self, parent: Consumer, client: redis.Redis) -> None:
        member = self.member
        if member.draining:
            _listen(parent, set())
            if not running_messages():
                end_worker(0)
        elif not self._has_joined:
            # those that start together see each other before they choose between models
            self._has_joined = True
        else:
            demands = read_demands(client, member.kind)
            peers = self._peers(client)
            demands = member.declines.without_declined(client, demands)
            mine = self._mine(parent.hostname, demands, peers)
            n_waiting = 0
            if member.kind == "judge":
                in_hand: dict[str, list[float]] = {}
                for one in member.jobs.now():
                    in_hand.setdefault(one.run_id, []).append(one.seconds)
                mine, n_waiting = beside_those_that_wait(mine, in_hand, member.endpoint_of)
            base = {member.kind}
            _listen(parent, base | {queue_of(member.kind, d.run.run_id) for d in mine})
            hold_messages(parent, self._how_many(mine, peers) + n_waiting)
        if time.monotonic() >= self._next_heartbeat:
            put_heartbeat(client, member.heartbeat(parent.hostname))
            seconds, failed = member.work.take_calls()
            if seconds or failed:
                note_calls(client, seconds, failed=failed)
            self._next_heartbeat = time.monotonic() + HEARTBEAT_EVERY_S

    def _peers(self, client: redis.Redis) -> list[Heartbeat]:
        """Heartbeats of its kind; read the seldomer the more there are, for everybody reads all."""
        if time.monotonic() >= self._next_peers:
            self._read = [c for c in read_workers(client) if c.kind == self.member.kind]
            pause = max(HEARTBEAT_EVERY_S, len(self._read) / PEERS_A_SECOND)
            self._next_peers = time.monotonic() + pause
        return self._read

    def _how_many(self, mine: list[Demand], peers: list[Heartbeat]) -> int:
        member = self.member
        if member.kind != "gpu":
            # calls and files wait for others, not for one device
            return member.most_jobs()
        beside = [one for one in peers if one.model == member.model and not one.draining]
        waiting = sum(one.waiting for one in mine)
        return jobs_to_hold(member.most_jobs(), waiting, n_workers=len(beside))

    def _mine(self, name: str, demands: list[Demand], peers: list[Heartbeat]) -> list[Demand]:
        """The runs to take jobs of; for GPU workers those of one model."""
        member = self.member
        if member.kind != "gpu":
            return runs_in_turn(demands)
        others = [
            GpuWorker(c.name, c.model, c.serving_s, models)
            for c in peers
            if c.name != name and not c.draining and (models := models_left(c, demands)) is not None
        ]
        me = GpuWorker(name, member.model, member.serving_s, member.models)
        chosen = model_to_serve(name, [*others, me], wanted_models(demands))
        if chosen != member.model:
            member.serve(chosen)
            self._next_heartbeat = 0.0  # others decide by it
        return runs_in_turn(one for one in demands if one.run.model == chosen)


def _listen(parent: Consumer, wanted: set[str]) -> None:
    """Listen to these queues and no others."""
    consumer = parent.task_consumer
    listening = {queue.name for queue in consumer.queues}
    for name in sorted(listening - wanted):
        consumer.cancel_by_queue(name)
    new = sorted(wanted - listening)
    for name in new:
        consumer.add_queue(run_queue(name))
    if new:
        consumer.consume()
