"""What waits on the broker's queues, run by run: how much, held by workers, and for how long."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import redis

from orchestrator.fleet import RunCard
from storage.connection import server_time
from storage.fleet import queue_of

# Anybody who reaches the broker may have written a message; it is refused where it is taken.
_UNREADABLE = (ValueError, TypeError, KeyError, IndexError, RecursionError)


@dataclass(frozen=True)
class QueueFacts:
    """Jobs of one run for one kind of worker: waiting, held by workers, and how many seconds the
    one that waits longest has waited."""

    run_id: str
    kind: str
    waiting: int
    held: int
    oldest_s: float


def read_queues(
    client: redis.Redis, runs: Iterable[RunCard], kinds: Sequence[str]
) -> list[QueueFacts]:
    """The queues of these runs."""
    asked = [(run.run_id, kind) for run in runs for kind in kinds]
    pipe = client.pipeline(transaction=False)
    for run_id, kind in asked:
        pipe.llen(queue_of(kind, run_id))
        pipe.lindex(queue_of(kind, run_id), -1)
    answers = pipe.execute() if asked else []
    held, now = _held(client), server_time(client)
    found = []
    for (run_id, kind), waiting, oldest in zip(asked, answers[::2], answers[1::2], strict=True):
        age = max(0.0, now - _sent_at(oldest, now)) if oldest else 0.0
        found.append(QueueFacts(run_id, kind, int(waiting), held[queue_of(kind, run_id)], age))
    return found


def _held(client: redis.Redis) -> Counter[str]:
    """Queue -> messages delivered to workers and not acknowledged."""
    bodies = cast(Sequence[bytes], client.hvals("unacked"))
    found: Counter[str] = Counter()
    for body in bodies:
        # each lies there with its exchange and its routing key, which is the queue's name
        with contextlib.suppress(*_UNREADABLE):
            found[str(json.loads(body)[2])] += 1
    return found


def _sent_at(message: bytes, now: float) -> float:
    try:
        return float(json.loads(message)["headers"]["sent_at"])
    except _UNREADABLE:
        return now
