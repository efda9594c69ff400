"""All that we use of Celery and kombu beyond what they document; USED lists it, a test checks it.

kombu's Redis transport is changed here in six habits, so that leases hold and workers live.

* Times of delivery come from the Redis server: kombu takes each machine's own clock, and one
  that is an hour off takes every job of the others for abandoned, or offers its own to them.
* A worker that has just connected gives the others time to renew before it calls their jobs
  abandoned: after a restart of Redis nobody could have renewed.
* Whatever is asked of a channel whose connection is gone is a connection error. kombu raises
  AttributeError there, which Celery does not take for one: the worker would exit.
* A lost connection gives nothing back that still runs here: its lease goes on with the next one.
* A server that answers and takes no writes is one that is away: nothing is taken off its queues.
  What was taken when it stopped is kept here and put back.
* What is no message of ours is refused with a reason, before it can raise in the main loop.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import deque
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import celery.app.events
import celery.events
import redis
from celery import bootsteps
from celery.worker import state as worker_state
from celery.worker.consumer.tasks import Tasks
from celery.worker.control import Panel
from kombu.exceptions import OperationalError
from kombu.transport import TRANSPORT_ALIASES, virtual
from kombu.transport.redis import Channel, Mutex, MutexHeld, QoS, Transport
from kombu.utils.json import dumps

from storage.broker.connection import BROKER_AWAY, require_writes, server_time
from tasks.fleet.message import envelope_fault

if TYPE_CHECKING:
    from celery.worker.consumer import Consumer

log = logging.getLogger(__name__)

# Celery's, where Flower and our own screens listen.
EVENT_QUEUES = "celeryev."


@dataclass(frozen=True)
class Internal:
    """Names of a module, or of `module:Class`, and the version of the library they were seen in."""

    owner: str
    names: tuple[str, ...]
    why: str
    seen: str = "5.7.0"


USED = (
    Internal(
        "kombu.transport.redis:QoS",
        ("append", "restore_visible", "restore_unacked", "restore_by_tag", "visibility_timeout"),
        "delivery times by the server's clock, and what goes back on its queue",
    ),
    Internal(
        "kombu.transport.redis:QoS",
        ("unacked_key", "unacked_index_key", "unacked_mutex_key", "unacked_mutex_expire"),
        "where messages lie that nobody acknowledged",
    ),
    Internal(
        "kombu.transport.virtual:QoS",
        ("_delivered", "_dirty", "append"),
        "what a worker holds: delivered, less what is acknowledged and not yet noted",
    ),
    Internal("kombu.transport.virtual.base:Message", ("_raw",), "the message as it is put back"),
    Internal(
        "kombu.transport.redis:Channel",
        ("_connparams", "_brpop_read", "conn_or_acquire", "unacked_index_key", "qos"),
        "a lost connection is a connection error, and an unreadable message is refused",
    ),
    Internal(
        "redis._parsers:BaseParser",
        ("parse_error",),
        "answers that heal are connection errors (storage/broker/connection.py)",
        seen="8.1.0",
    ),
    Internal("kombu.transport.redis", ("Mutex", "MutexHeld"), "one worker restores at a time"),
    Internal("kombu.transport.redis:Transport", ("_deliver",), "foreign messages are refused"),
    Internal("kombu.transport", ("TRANSPORT_ALIASES",), "redis:// means our transport"),
    Internal("celery.worker.state", ("requests", "should_stop"), "what runs here, and leaving"),
    Internal("celery.app.events:Events", ("dispatcher_cls",), "events are sent by our dispatcher"),
    Internal("kombu.common:QoS", ("value", "update"), "how many messages a worker holds"),
    Internal("celery.worker.control", ("Panel",), "what a worker may be told by others"),
)

# Questions, leaving, and events for Flower. The rest would have a worker stand still in silence, a
# rate limit, a smaller pool, a queue that is not listened to, or write files of its memory.
CONTROLS = frozenset(
    [
        *("ping", "hello", "clock", "heartbeat", "enable_events", "shutdown", "conf", "stats"),
        *("active", "active_queues", "registered", "reserved", "revoked", "scheduled"),
        *("query_task", "report"),
    ]
)


def keep_controls() -> None:
    """Have this worker obey CONTROLS of Celery's remote control and nothing else of it."""
    for name in set(Panel.data) - CONTROLS:
        del Panel.data[name]


def running_messages() -> list[Any]:
    """The messages of the jobs that run in this worker, those of an earlier connection too."""
    # a plain dict's values are copied in one step, while job threads come and go
    return [request.message for request in list(worker_state.requests.values())]


def delivered_tags(parent: Consumer) -> set[str]:
    """What was delivered on the worker's present connection and is not acknowledged."""
    qos = parent.task_consumer.channel.qos
    return {tag for tag in list(qos._delivered) if tag not in qos._dirty}


def end_worker(code: int) -> None:
    """Have this worker end with a code, as if it had been told to leave."""
    # not should_terminate: Celery ends that with code 0 whatever it is given
    worker_state.should_stop = code


def broker_client(parent: Consumer) -> AbstractContextManager[redis.Redis]:
    """The Redis connection that a worker's main loop consumes on."""
    client: AbstractContextManager[redis.Redis] = parent.task_consumer.channel.conn_or_acquire()
    return client


def renew_leases(parent: Consumer, client: redis.Redis, *, now: float) -> None:
    """Rewrite the delivery time of every message the worker holds, unless it was acknowledged."""
    running = {one.delivery_tag for one in running_messages() if not one.acknowledged}
    held = delivered_tags(parent) | running
    if held:
        # XX: an acknowledged tag stays gone
        key = parent.task_consumer.channel.unacked_index_key
        client.zadd(key, dict.fromkeys(held, now), xx=True)


def hold_messages(parent: Consumer, n_jobs: int) -> None:
    """Take messages until this many are held, those of an earlier connection counted in."""
    delivered = set(parent.task_consumer.channel.qos._delivered)
    earlier = sum(
        not one.acknowledged and one.delivery_tag not in delivered for one in running_messages()
    )
    # 0 would mean any number
    parent.qos.value = max(1, n_jobs - earlier)
    parent.qos.update()


_taken: deque[tuple[str, str]] = deque()
"""Queue and message of what was taken just when the broker went, until it is put back."""


def _put_back(client: redis.Redis) -> None:
    # job threads open channels too
    with contextlib.suppress(IndexError):
        while True:
            queue, message = _taken.popleft()
            try:
                client.rpush(queue, message)
            except BROKER_AWAY:
                _taken.append((queue, message))
                raise


class LeasedQoS(QoS):  # type: ignore[misc]
    """Keeps delivery times by the server's clock."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # kombu's signature
        super().__init__(*args, **kwargs)
        self._opened = time.monotonic()

    def append(self, message: Any, delivery_tag: str) -> None:
        """Note a delivered message as unacknowledged."""
        where = message.delivery_info
        body = dumps([message._raw, where["exchange"], where["routing_key"]])
        try:
            with self.channel.conn_or_acquire() as client:
                pipe = client.pipeline()
                pipe.zadd(self.unacked_index_key, {delivery_tag: server_time(client)})
                pipe.hset(self.unacked_key, delivery_tag, body)
                pipe.execute()
        except BROKER_AWAY:
            # it is off its queue, and nobody has noted that it is held
            _taken.append((where["routing_key"], dumps(message._raw)))
            raise
        virtual.QoS.append(self, message, delivery_tag)

    def restore_visible(self, start: int = 0, num: int = 10, interval: int = 10) -> None:
        """Put messages whose lease ran out back on their queues."""
        with self.channel.conn_or_acquire() as client:
            try:
                oldest = server_time(client) - self.visibility_timeout
                with Mutex(client, self.unacked_mutex_key, self.unacked_mutex_expire):
                    if time.monotonic() - self._opened < self.visibility_timeout:
                        return
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
            except BROKER_AWAY:
                # nobody could renew meanwhile
                self._opened = time.monotonic()
                raise

    def restore_unacked(self, client: redis.Redis | None = None) -> None:
        """Put back what this worker took and will not run, when it leaves or its connection goes.

        Raises redis.ConnectionError while nobody answers; the leases of these run out then.
        """
        for tag in set(self._delivered) - {one.delivery_tag for one in running_messages()}:
            self.restore_by_tag(tag, client=client)
        self._delivered.clear()


class LeasedChannel(Channel):  # type: ignore[misc]
    """A channel that says so when its connection is gone."""

    QoS = LeasedQoS

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # kombu's signature
        super().__init__(*args, **kwargs)
        try:
            with self.conn_or_acquire() as client:
                require_writes(client)
                _put_back(client)
        except BROKER_AWAY:
            self.close()
            raise

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
        TRANSPORT_ALIASES[scheme] = f"{__name__}:{LeasedTransport.__name__}"


class Dispatcher(celery.events.EventDispatcher):  # type: ignore[misc]
    """Sends an event once; one that cannot be sent waits for the next connection.

    Celery's tries again in the main loop of the worker, which then would not see that it was told
    to leave.
    """

    def send(self, type: str, *arguments: Any, retry: bool = False, **fields: Any) -> Any:
        """See Celery; `retry` counts as False."""
        return super().send(type, *arguments, **{**fields, "retry": False})


class Events(celery.app.events.Events):  # type: ignore[misc]
    """An app's events, with our dispatcher."""

    dispatcher_cls = Dispatcher


# Three renewals may fail before another worker takes the job.
RENEWALS_PER_TIMEOUT = 4

# Leases do not depend on this machine's clock; log lines, TLS and signed store requests do.
CLOCK_SKEW_WARNING_S = 5.0


class LeaseStep(bootsteps.StartStopStep):  # type: ignore[misc]
    """Renews the delivery times of the messages this worker holds.

    Any worker puts those back on their queues that are older than the visibility timeout. They are
    renewed from the main loop, so a lease lives exactly as long as its worker does.
    """

    requires = (Tasks,)

    def __init__(self, parent: Consumer, **options: Any) -> None:  # Celery's signature
        super().__init__(parent, **options)
        self._timer: Any = None
        self._warned = False

    def start(self, parent: Consumer) -> None:
        """Begin renewing; called on every (re)connection."""
        every = parent.app.conf.broker_transport_options["visibility_timeout"]
        self._renew(parent)  # what still runs since before a reconnection
        self._timer = parent.timer.call_repeatedly(
            every / RENEWALS_PER_TIMEOUT, self._renew, (parent,)
        )

    def stop(self, parent: Consumer) -> None:
        """Stop renewing; called before the connection goes."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _renew(self, parent: Consumer) -> None:
        try:
            with broker_client(parent) as client:
                now = server_time(client)
                renew_leases(parent, client, now=now)
        except (redis.ResponseError, OperationalError) as error:
            log.warning("Leases could not be renewed: %s.", error, extra={"event": "lease_failed"})
            return
        skew = time.time() - now
        if abs(skew) > CLOCK_SKEW_WARNING_S and not self._warned:
            self._warned = True
            log.warning(
                "This machine's clock is %.0f s off the broker's: set it.",
                skew,
                extra={"event": "clock_skew"},
            )
