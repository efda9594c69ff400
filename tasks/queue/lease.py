"""Leases: a living worker keeps what it took; a dead one's jobs go to another within seconds.

kombu notes in a sorted set when each message was delivered, and any worker restores those older
than the visibility timeout. This step rewrites the notes of the messages that this worker holds,
from its main loop, so it lives exactly as long as the worker does.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from celery import bootsteps
from celery.worker import state as worker_state
from celery.worker.consumer.tasks import Tasks
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from storage.broker.connection import server_time

if TYPE_CHECKING:
    from celery.worker.consumer import Consumer

log = logging.getLogger(__name__)

# Three renewals may fail before another worker takes the job.
RENEWALS_PER_TIMEOUT = 4

# Leases do not depend on this machine's clock; log lines, TLS and signed store requests do.
CLOCK_SKEW_WARNING_S = 5.0


class LeaseStep(bootsteps.StartStopStep):  # type: ignore[misc]
    """Renews the delivery times of the messages this worker holds."""

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
            skew = renew(parent)
        except (RedisError, OperationalError, OSError) as error:
            log.warning("Leases could not be renewed: %s.", error, extra={"event": "lease_failed"})
            return
        if abs(skew) > CLOCK_SKEW_WARNING_S and not self._warned:
            self._warned = True
            log.warning(
                "This machine's clock is %.0f s off the broker's: set it.",
                skew,
                extra={"event": "clock_skew"},
            )


def renew(parent: Consumer) -> float:
    """Rewrite the delivery time of every message the worker holds, unless it was acknowledged.

    Returns how many seconds this machine's clock is ahead of the broker's.
    """
    channel = parent.task_consumer.channel
    with channel.conn_or_acquire() as client:
        now = server_time(client)
        held = _held(channel)
        if held:
            # XX: an acknowledged tag stays gone
            client.zadd(channel.unacked_index_key, dict.fromkeys(held, now), xx=True)
        return time.time() - now


def _held(channel: Any) -> set[str]:
    """Tags delivered on this channel, and those of jobs that still run since an earlier one."""
    held = {tag for tag in list(channel.qos._delivered) if tag not in channel.qos._dirty}
    # a plain dict's values are copied in one step, while job threads come and go
    running = [request.message for request in list(worker_state.requests.values())]
    return held | {message.delivery_tag for message in running if not message.acknowledged}
