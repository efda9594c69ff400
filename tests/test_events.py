"""Protects what Flower lives on: the events of workers, which are no jobs and still get through."""

from __future__ import annotations

import threading
import time
from typing import Any

from storage.broker.embedded_redis import embedded_redis
from tasks.fleet.app import make_app


def test_a_workers_events_reach_those_who_watch() -> None:
    seen: list[Any] = []

    with embedded_redis() as url:
        sent = threading.Event()
        sender = threading.Thread(target=_send_until, args=(url, sent))
        sender.start()
        app = make_app(url)
        with app.connection_for_read() as connection:
            receiver = app.events.Receiver(connection, handlers={"task-succeeded": seen.append})
            events = receiver.itercapture(timeout=60, wakeup=False)
            until = time.monotonic() + 60
            while not seen and time.monotonic() < until:
                next(events)
        sent.set()
        sender.join()

    assert seen[0]["result"] == "99 responses"


def _send_until(url: str, end: threading.Event) -> None:
    with make_app(url).events.default_dispatcher() as worker:
        while not end.is_set():
            worker.send("task-succeeded", uuid="u1", result="99 responses")
            time.sleep(0.05)
