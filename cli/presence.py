"""Which kinds of workers a fleet lacks.

Knows nothing of runs.
"""

from __future__ import annotations

import time
from collections.abc import Collection

from celery import Celery
from kombu.exceptions import OperationalError

from orchestrator.errors import BrokerError


def missing_workers(app: Celery, needed: Collection[str], *, wait_s: float) -> list[str]:
    """Which of the needed queues no worker listens on, after waiting up to wait_s seconds.

    Raises BrokerError when the broker goes away meanwhile.
    """
    deadline = time.monotonic() + wait_s
    while True:
        try:
            answered = app.control.inspect(timeout=2.0).active_queues() or {}
        except OperationalError as error:
            raise BrokerError(
                f"the broker did not take a question to its workers: {error}"
            ) from error
        listening = {queue["name"] for queues in answered.values() for queue in queues}
        missing: list[str] = [name for name in needed if name not in listening]
        if not missing or time.monotonic() >= deadline:
            return missing
