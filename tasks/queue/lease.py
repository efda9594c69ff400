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

from storage.broker.connection import server_time
from tasks.queue.kombu_internals import broker_client, renew_leases

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
            with broker_client(parent) as client:
                now = server_time(client)
                renew_leases(parent, client, now=now)
        except (RedisError, OperationalError, OSError) as error:
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
