"""Events for Flower that never wait for a broker that is away.

Celery's heartbeat does, in the main loop of the worker, which then would not see that it was told
to leave.
"""

from __future__ import annotations

from typing import Any

import celery.app.events
import celery.events


class Dispatcher(celery.events.EventDispatcher):  # type: ignore[misc]
    """Sends an event once; one that cannot be sent waits for the next connection."""

    def send(self, type: str, *arguments: Any, retry: bool = False, **fields: Any) -> Any:
        """See Celery; `retry` counts as False."""
        return super().send(type, *arguments, **{**fields, "retry": False})


class Events(celery.app.events.Events):  # type: ignore[misc]
    """An app's events, with our dispatcher."""

    dispatcher_cls = Dispatcher
