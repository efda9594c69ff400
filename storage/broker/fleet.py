"""The fleet on the broker's Redis: the list of runs, heartbeats, declines, and what waits.

All of it is said again when it is lost.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import cast

import redis
from pydantic import TypeAdapter

from domain.fleet.heartbeats import Decline, Demand, Heartbeat, ListedRun
from storage.broker.connection import CannotServeError, server_time
from storage.broker.state import EXPIRE_S
from storage.record.run import Run, read_run_schedule

RUNS = "orchestrate:runs"
WORKERS = "orchestrate:workers"
HEARTBEAT = TypeAdapter(Heartbeat)

# A worker leaves a heartbeat every two seconds; one that is silent this long is gone.
SILENT_AFTER_S = 15.0

# What another version wrote, or somebody who is none of us: as good as none.
_UNREADABLE = (ValueError, TypeError, KeyError, AttributeError, RecursionError)


def queue_of(kind: str, run_id: str) -> str:
    """The queue, a Redis list, of one run's jobs for one kind of worker."""
    return f"{kind}.{run_id}"


def listed_run(run: Run, *, since: float) -> ListedRun:
    """A run as it stands on the list, by its record."""
    schedule = read_run_schedule(run.store)
    return ListedRun(
        run_id=run.run_id,
        name=run.name,
        url=run.store.url,
        model=run.spec.model.label,
        priority=schedule.priority,
        paused=schedule.paused,
        samples=sum(run.plan.n_worked_on(trait) for trait in run.spec.traits),
        since=since,
    )


def put_listed_run(client: redis.Redis, run: Run) -> None:
    """Put a run on the list; one that was there keeps the time it came."""
    before = read_listed_run(client, run.run_id)
    listed = listed_run(run, since=before.since if before else server_time(client))
    if listed != before:
        client.hset(RUNS, run.run_id, json.dumps(asdict(listed)))


def read_listed_run(client: redis.Redis, run_id: str) -> ListedRun | None:
    """A run on the list, None when it is not there."""
    body = client.hget(RUNS, run_id)
    return None if body is None else _read_listed(cast(bytes, body))


def has_listed_run(client: redis.Redis, run_id: str) -> bool:
    """Whether a run is on the list."""
    return bool(client.hexists(RUNS, run_id))


def forget_listed_run(client: redis.Redis, run_id: str) -> None:
    """Take a run off the list: nobody listens for its jobs any more."""
    client.hdel(RUNS, run_id)


def read_listed_runs(client: redis.Redis) -> list[ListedRun]:
    """All runs on the list, oldest first; those of two weeks ago go."""
    found = cast(Mapping[bytes, bytes], client.hgetall(RUNS))
    readable = (run for body in found.values() if (run := _read_listed(body)) is not None)
    runs = sorted(readable, key=lambda run: run.since)
    if runs and runs[0].since < server_time(client) - EXPIRE_S:
        forget_listed_run(client, runs[0].run_id)
    return runs


def read_demands(client: redis.Redis, kind: str) -> list[Demand]:
    """The runs that have jobs out, how many wait for a kind of worker, and who declined them."""
    runs = read_listed_runs(client)
    pipe = client.pipeline(transaction=False)
    for run in runs:
        pipe.exists(f"orchestrate:{run.run_id}:outstanding")
        pipe.llen(queue_of(kind, run.run_id))
        pipe.hkeys(_declines_key(run.run_id))
    answers = iter(pipe.execute() if runs else [])
    return [
        Demand(run, int(waiting), frozenset(name.decode(errors="replace") for name in declined))
        for run, is_out, waiting, declined in zip(runs, answers, answers, answers, strict=False)
        if is_out or waiting
    ]


def put_heartbeat(client: redis.Redis, heartbeat: Heartbeat) -> None:
    """Write a worker's heartbeat."""
    body = {**asdict(heartbeat), "at": server_time(client)}
    client.hset(WORKERS, heartbeat.name, json.dumps(body))


def forget_worker(client: redis.Redis, name: str) -> None:
    """Take a leaving worker's heartbeat away."""
    client.hdel(WORKERS, name)


def read_workers(client: redis.Redis) -> list[Heartbeat]:
    """The heartbeats of the workers that live, by name; those of silent ones go."""
    now, alive, silent = server_time(client), [], []
    found = cast(Mapping[bytes, bytes], client.hgetall(WORKERS))
    for name, text in found.items():
        try:
            body = json.loads(text)
            if now - body.pop("at") > SILENT_AFTER_S:
                silent.append(name)
            else:
                alive.append(HEARTBEAT.validate_python(body))
        except _UNREADABLE:
            silent.append(name)
    if silent:
        # who only looks on does so on a server that takes no writes, too
        with contextlib.suppress(CannotServeError):
            client.hdel(WORKERS, *silent)
    return sorted(alive, key=lambda one: one.name)


def _read_listed(body: bytes) -> ListedRun | None:
    try:
        return ListedRun(**json.loads(body))
    except _UNREADABLE:
        return None


MAX_REASON = 2000


def _declines_key(run_id: str) -> str:
    """Where a run's declines lie."""
    return f"orchestrate:{run_id}:declines"


def put_decline(client: redis.Redis, run_id: str, decline: Decline) -> None:
    """Note that a worker declined a run."""
    pipe = client.pipeline()
    pipe.hset(_declines_key(run_id), decline.worker, decline.reason[:MAX_REASON])
    pipe.expire(_declines_key(run_id), EXPIRE_S)
    pipe.execute()


def read_declines(client: redis.Redis, run_id: str) -> list[Decline]:
    """Who declined a run, by name; some of them may be gone."""
    found = cast(Mapping[bytes, bytes], client.hgetall(_declines_key(run_id)))
    said = {
        name.decode(errors="replace"): why.decode(errors="replace") for name, why in found.items()
    }
    return [Decline(name, said[name]) for name in sorted(said)]


def forget_decline(client: redis.Redis, run_id: str, worker: str) -> None:
    """Take a worker's decline back."""
    client.hdel(_declines_key(run_id), worker)


# Anybody who reaches the broker may have written a message; it is refused where it is taken.
_UNREADABLE_ENVELOPE = (ValueError, TypeError, KeyError, IndexError, RecursionError)


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
    client: redis.Redis, runs: Iterable[ListedRun], kinds: Sequence[str]
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
        with contextlib.suppress(*_UNREADABLE_ENVELOPE):
            found[str(json.loads(body)[2])] += 1
    return found


def _sent_at(message: bytes, now: float) -> float:
    try:
        return float(json.loads(message)["headers"]["sent_at"])
    except _UNREADABLE_ENVELOPE:
        return now
