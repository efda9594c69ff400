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
from celery.worker.consumer.tasks import Tasks
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from tasks.app import VISIBILITY_TIMEOUT_S

if TYPE_CHECKING:
    from celery.worker.consumer import Consumer

log = logging.getLogger(__name__)

RENEW_EVERY_S = VISIBILITY_TIMEOUT_S / 4
# A clock that is off by more makes fresh leases look old to others, or old ones fresh.
CLOCK_SKEW_WARNING_S = 5.0


class LeaseStep(bootsteps.StartStopStep):  # type: ignore[misc]
    """Renews the delivery times of the messages this worker holds."""

    requires = (Tasks,)

    def __init__(self, parent: Consumer, **options: Any) -> None:  # Celery's signature
        super().__init__(parent, **options)
        self._timer: Any = None

    def start(self, parent: Consumer) -> None:
        """Begin renewing; called on every (re)connection."""
        self._timer = parent.timer.call_repeatedly(RENEW_EVERY_S, renew, (parent,))

    def stop(self, parent: Consumer) -> None:
        """Stop renewing; called before the connection goes."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def renew(parent: Consumer) -> None:
    """Rewrite the delivery time of every message the consumer holds, unless it was acknowledged."""
    channel = parent.task_consumer.channel
    held = [tag for tag in list(channel.qos._delivered) if tag not in channel.qos._dirty]
    try:
        with channel.conn_or_acquire() as client:
            seconds, micros = client.time()
            if held:
                # XX: an acknowledged tag stays gone
                now = time.time()
                client.zadd(channel.unacked_index_key, dict.fromkeys(held, now), xx=True)
    except (RedisError, OperationalError, OSError) as error:
        log.warning("Leases could not be renewed: %s.", error, extra={"event": "lease_failed"})
        return
    skew = time.time() - (seconds + micros / 1e6)
    if abs(skew) > CLOCK_SKEW_WARNING_S:
        log.warning(
            "This machine's clock is %.0f s off the broker's; set it, or jobs run twice.",
            skew,
            extra={"event": "clock_skew"},
        )
