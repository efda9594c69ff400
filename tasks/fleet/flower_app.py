"""What Flower runs in: our Celery app on the broker of the environment.

Flower asks a worker once which queues it listens to; ours come and go with the runs, so its
pages about queues are told the names of the runs that are there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from domain.fleet.heartbeats import QUEUES
from storage.broker.connection import connect
from storage.broker.fleet import queue_of, read_listed_runs
from tasks.fleet.app import make_app


def run_flower(broker_url: str, arguments: Sequence[str]) -> None:
    """Run Flower with arguments of its own until it is stopped."""
    set_up_flower_pages(broker_url)
    make_app(broker_url).start(argv=["flower", *arguments])


def queue_names(broker_url: str) -> list[str]:
    """The queues of every kind of worker, and of each run on the broker."""
    with connect(broker_url) as client:
        runs = read_listed_runs(client)
    return [*QUEUES, *(queue_of(kind, run.run_id) for run in runs for kind in QUEUES)]


def set_up_flower_pages(broker_url: str) -> None:
    """Have Flower's Broker page, and its answer to programs, count our queues, and its metrics
    stand behind the login as all its pages do."""
    from flower.api.tasks import GetQueueLengths
    from flower.urls import handlers
    from flower.views.broker import BrokerView
    from flower.views.monitor import Metrics
    from tornado.web import authenticated, url

    def told(page: Any) -> Any:
        names = {"get_active_queue_names": lambda _self: queue_names(broker_url)}
        return type(page.__name__, (page,), names)

    for k, one in enumerate(handlers):
        if isinstance(one, url):
            if one.handler_class is BrokerView:
                pattern = one.regex.pattern.removesuffix("$")
                handlers[k] = url(pattern, told(BrokerView), name=one.name)
        elif one[1] is GetQueueLengths:
            handlers[k] = (one[0], told(GetQueueLengths))
        elif one[1] is Metrics:
            guarded = type("Metrics", (Metrics,), {"get": authenticated(Metrics.get)})
            handlers[k] = (one[0], guarded)
