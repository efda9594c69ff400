"""kombu's Redis transport with five of its habits changed, so that leases hold and workers live.

* Times of delivery come from the Redis server: kombu takes each machine's own clock, and one
  that is an hour off takes every job of the others for abandoned, or offers its own to them.
* A worker that has just connected gives the others time to renew before it calls their jobs
  abandoned: after a restart of Redis nobody could have renewed.
* Whatever is asked of a channel whose connection is gone is a connection error. kombu 5.7.0
  raises AttributeError there, which Celery does not take for one: the worker would exit.
* A lost connection gives nothing back that still runs here: its lease goes on with the next one.
* What is no message of ours is refused with a reason, before it can raise in the main loop.
"""

from __future__ import annotations

import logging
import time
from typing import Any

import redis
from celery.worker import state as worker_state
from kombu.transport import TRANSPORT_ALIASES, virtual
from kombu.transport.redis import Channel, Mutex, MutexHeld, QoS, Transport
from kombu.utils.json import dumps

from storage.connection import server_time
from tasks.envelope import envelope_fault

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
        TRANSPORT_ALIASES[scheme] = "tasks.transport:LeasedTransport"
