"""The Celery app: queues, delivery settings, and nothing that a task does.

Delivery: at least once. A worker renews its leases while it lives (tasks/lease.py), so the
visibility timeout can be short: a killed worker's job runs elsewhere within it, and a healthy
job of any length is delivered once.

kombu's Redis transport with five of its habits changed, so that leases hold and workers live.

* Times of delivery come from the Redis server: kombu takes each machine's own clock, and one
  that is an hour off takes every job of the others for abandoned, or offers its own to them.
* A worker that has just connected gives the others time to renew before it calls their jobs
  abandoned: after a restart of Redis nobody could have renewed.
* Whatever is asked of a channel whose connection is gone is a connection error. kombu 5.7.0
  raises AttributeError there, which Celery does not take for one: the worker would exit.
* A lost connection gives nothing back that still runs here: its lease goes on with the next one.
* What is no message of ours is refused with a reason, before it can raise in the main loop.

Events for Flower that never wait for a broker that is away.

Celery's heartbeat does, in the main loop of the worker, which then would not see that it was
told to leave.
"""

from __future__ import annotations

import logging
import time
from typing import Any

import celery.app.events
import celery.events
import redis
from celery import Celery
from celery.worker import state as worker_state
from kombu import Queue
from kombu.transport import TRANSPORT_ALIASES, virtual
from kombu.transport.redis import Channel, Mutex, MutexHeld, QoS, Transport
from kombu.utils.json import dumps

from domain.fleet.heartbeats import QUEUES
from storage.broker.connection import server_time, tls_options
from tasks.queue.message import envelope_fault
from tasks.queue.settings import delivery_settings

TASK_NAMES = {
    "negotiate": "judge.negotiate",
    "generate": "gpu.generate",
    "judge": "judge.judge",
    "converge": "reduce.converge",
    "reduce": "reduce.reduce",
    "verify": "reduce.verify",
}
"""Stage -> task; the part before the dot is the queue."""


def make_app(broker_url: str) -> Celery:
    """The app on a broker; connects to nothing yet. Raises UsageError for a wrong setting."""
    use_leased_transport()
    app = Celery("orchestrate", broker=broker_url, events=Events)
    app.conf.update(
        task_queues=[Queue(name) for name in QUEUES],
        task_default_queue="reduce",
        task_routes={name: {"queue": name.partition(".")[0]} for name in TASK_NAMES.values()},
        accept_content=["json"],
        task_serializer="json",
        result_serializer="json",
        # completion is an artifact, not a result
        task_ignore_result=True,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,
        # the fleet step says how much a worker takes, after a reconnection as well
        worker_enable_prefetch_count_reduction=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_send_task_events=True,
        task_send_sent_event=True,
        task_track_started=True,
        worker_hijack_root_logger=False,
        # kombu's own default for rediss:// is to trust any certificate
        broker_use_ssl=tls_options(broker_url),
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options=_transport_options(),
    )
    return app


def run_queue(name: str) -> Queue:
    """The queue of that name without an exchange: its Redis list and nothing else."""
    return Queue(name, exchange="", routing_key=name)


def _transport_options() -> dict[str, Any]:
    return {
        "visibility_timeout": delivery_settings().visibility_timeout_s,
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
        "unacked_mutex_expire": 5,
        "socket_timeout": 30,
        "socket_connect_timeout": 10,
        "socket_keepalive": True,
        "health_check_interval": 10,
    }


# Celery's, where Flower and our own screens listen.
EVENT_QUEUES = "celeryev."

log = logging.getLogger(__name__)


class LeasedQoS(QoS):  # type: ignore[misc]
    """Keeps delivery times by the server's clock."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # kombu's signature
        super().__init__(*args, **kwargs)
        self._opened = time.monotonic()

    def append(self, message: Any, delivery_tag: str) -> None:
        """Note a delivered message as unacknowledged."""
        where = message.delivery_info
        body = dumps([message._raw, where["exchange"], where["routing_key"]])
        with self.channel.conn_or_acquire() as client:
            pipe = client.pipeline()
            pipe.zadd(self.unacked_index_key, {delivery_tag: server_time(client)})
            pipe.hset(self.unacked_key, delivery_tag, body)
            pipe.execute()
        virtual.QoS.append(self, message, delivery_tag)

    def restore_visible(self, start: int = 0, num: int = 10, interval: int = 10) -> None:
        """Put messages whose lease ran out back on their queues."""
        if time.monotonic() - self._opened < self.visibility_timeout:
            return
        with self.channel.conn_or_acquire() as client:
            oldest = server_time(client) - self.visibility_timeout
            try:
                with Mutex(client, self.unacked_mutex_key, self.unacked_mutex_expire):
                    # with REV the first bound is the highest score
                    stale = client.zrange(
                        self.unacked_index_key,
                        oldest,
                        0,
                        desc=True,
                        byscore=True,
                        offset=start if num else None,
                        num=num,
                    )
                    for tag in stale:
                        self.restore_by_tag(tag, client)
            except MutexHeld:
                return

    def restore_unacked(self, client: redis.Redis | None = None) -> None:
        """Put back what this worker took and will not run, when it leaves or its connection goes.

        Raises redis.ConnectionError while nobody answers; the leases of these run out then.
        """
        ours = {request.message.delivery_tag for request in list(worker_state.requests.values())}
        for tag in set(self._delivered) - ours:
            self.restore_by_tag(tag, client=client)
        self._delivered.clear()


class LeasedChannel(Channel):  # type: ignore[misc]
    """A channel that says so when its connection is gone."""

    QoS = LeasedQoS

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        if self.connection is None or self.connection.client is None:
            raise redis.ConnectionError("the connection of this channel is closed")
        return dict(super()._connparams(asynchronous=asynchronous))

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)
        except (ValueError, RecursionError) as error:
            # it was taken off its queue and is noted nowhere else: refusing it is all there is
            _refuse(str(error))
            return True


class LeasedTransport(Transport):  # type: ignore[misc]
    """The transport behind redis:// and rediss:// in this process."""

    Channel = LeasedChannel

    def _deliver(self, message: Any, queue: str) -> None:
        # remote control and events come on queues of their own kinds
        is_ours = not queue.endswith(".pidbox") and not queue.startswith(EVENT_QUEUES)
        fault = envelope_fault(message) if is_ours else ""
        if fault:
            _refuse(fault)
        else:
            super()._deliver(message, queue)


def _refuse(fault: str) -> None:
    log.error("Refused a message: %.300s.", fault, extra={"event": "message_refused"})


def use_leased_transport() -> None:
    """Have kombu take this transport for Redis URLs; harmless to repeat."""
    for scheme in ("redis", "rediss"):
        TRANSPORT_ALIASES[scheme] = "tasks.queue.app:LeasedTransport"


class Dispatcher(celery.events.EventDispatcher):  # type: ignore[misc]
    """Sends an event once; one that cannot be sent waits for the next connection."""

    def send(self, type: str, *arguments: Any, retry: bool = False, **fields: Any) -> Any:
        """See Celery; `retry` counts as False."""
        return super().send(type, *arguments, **{**fields, "retry": False})


class Events(celery.app.events.Events):  # type: ignore[misc]
    """An app's events, with our dispatcher."""

    dispatcher_cls = Dispatcher
