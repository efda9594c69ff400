"""The Celery app: its queues, how they deliver, and what the environment says of that.

At least once: a worker renews its leases while it lives (`LeaseStep`), so the visibility timeout
can be short. A killed worker's job runs elsewhere within it, and a healthy job of any length is
delivered once. docs/reliability.md and SECURITY.md document the names of the environment.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from celery import Celery
from kombu import Queue

from domain.errors import UsageError
from domain.fleet.heartbeats import QUEUES
from storage.broker.connection import tls_options
from tasks.fleet.kombu_internals import Events, use_leased_transport

TASK_NAMES = {
    "negotiate": "judge.negotiate",
    "generate": "gpu.generate",
    "judge": "judge.judge",
    "converge": "reduce.converge",
    "reduce": "reduce.reduce",
    "contexts": "gpu.contexts",
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


PREFIX = "ORCHESTRATE_"


@dataclass(frozen=True)
class DeliverySettings:
    """What decides when a job is delivered again, and when no more."""

    # How long a dead worker's job waits for another; leases are renewed four times as often.
    visibility_timeout_s: float = 30.0
    # A job that was begun this often and never ended kills its workers: it is given up.
    max_deaths: int = 5
    # How long a worker leaves a run to others that it could not serve.
    retry_declined_s: float = 300.0


def delivery_settings(environment: Mapping[str, str] | None = None) -> DeliverySettings:
    """The settings of this process; raises UsageError for a value that is no positive number."""
    found = os.environ if environment is None else environment
    default = DeliverySettings()
    return DeliverySettings(
        _number(found, "VISIBILITY_TIMEOUT", float, default.visibility_timeout_s),
        int(_number(found, "MAX_DEATHS", int, default.max_deaths)),
        _number(found, "RETRY_REFUSED", float, default.retry_declined_s),
    )


def _number(
    found: Mapping[str, str], name: str, kind: Callable[[str], float], default: float
) -> float:
    text = found.get(PREFIX + name)
    if not text:
        return default
    try:
        value = kind(text)
    except ValueError:
        value = 0
    if not value > 0 or value == float("inf"):
        raise UsageError(f"{PREFIX}{name} is {text!r}: give a number above 0")
    return value
