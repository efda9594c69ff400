"""The Celery app: its queues and how they deliver.

At least once: a worker renews its leases while it lives (tasks/queue/lease.py), so the visibility
timeout can be short. A killed worker's job runs elsewhere within it, and a healthy job of any
length is delivered once.
"""

from __future__ import annotations

from typing import Any

from celery import Celery
from kombu import Queue

from domain.fleet.heartbeats import QUEUES
from storage.broker.connection import tls_options
from tasks.queue.kombu_internals import Events, use_leased_transport
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
