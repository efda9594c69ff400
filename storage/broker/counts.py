"""What a run's jobs and the fleet's judge calls came to, counted on the broker for whoever looks.

Counts that are lost begin anew: nothing is decided by them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import cast

import redis

from storage.broker.connection import server_time
from storage.broker.state import EXPIRE_S

BUCKET_S = 10
WINDOW_S = 60
JOB_BOUNDS_S = (0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0)
CALL_BOUNDS_S = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0)
CALLS = "orchestrate:judge-calls"


def note_counts(client: redis.Redis, run_id: str, counts: Mapping[str, float]) -> None:
    """Add to a run's counts, such as `samples.generate`; one message to the broker."""
    pipe = client.pipeline()  # a reader sees all of a job or nothing
    total, lately = _key(run_id), _bucket(run_id, int(server_time(client)) // BUCKET_S)
    for name, amount in counts.items():
        pipe.hincrbyfloat(total, name, amount)
        if not name.startswith("le."):
            pipe.hincrbyfloat(lately, name, amount)
    pipe.expire(total, EXPIRE_S)
    pipe.expire(lately, 2 * WINDOW_S)
    pipe.execute()


def job_counts(stage: str, seconds: float, *, samples: float, tokens: float) -> dict[str, float]:
    """The counts of a finished job."""
    return {
        f"jobs.{stage}": 1,
        f"seconds.{stage}": seconds,
        f"samples.{stage}": samples,
        f"tokens.{stage}": tokens,
        f"le.{stage}.{_bound(seconds, JOB_BOUNDS_S):g}": 1,
    }


def note_calls(client: redis.Redis, seconds: list[float], *, failed: int) -> None:
    """Add answered judge calls, by how long they took, and failed ones to the fleet's counts."""
    pipe = client.pipeline(transaction=False)
    for one in seconds:
        pipe.hincrby(CALLS, f"le.{_bound(one, CALL_BOUNDS_S):g}", 1)
    pipe.hincrbyfloat(CALLS, "seconds", sum(seconds))
    pipe.hincrby(CALLS, "answered", len(seconds))
    pipe.hincrby(CALLS, "failed", failed)
    pipe.expire(CALLS, EXPIRE_S)
    pipe.execute()


def read_counts(client: redis.Redis, run_id: str) -> dict[str, float]:
    """A run's totals; those that nobody noted are absent."""
    return _floats(client.hgetall(_key(run_id)))


def read_calls(client: redis.Redis) -> dict[str, float]:
    """The fleet's judge calls."""
    return _floats(client.hgetall(CALLS))


def read_rates(client: redis.Redis, run_id: str) -> dict[str, float]:
    """The counts per second over the last minute, or since work began when that is later."""
    now = server_time(client)
    newest = int(now) // BUCKET_S
    numbers = range(newest - WINDOW_S // BUCKET_S, newest + 1)
    pipe = client.pipeline(transaction=False)
    for number in numbers:
        pipe.hgetall(_bucket(run_id, number))
    buckets = [_floats(found) for found in pipe.execute()]
    began = next((n for n, found in zip(numbers, buckets, strict=True) if found), None)
    if began is None:
        return {}
    sums: dict[str, float] = {}
    for found in buckets:
        for name, amount in found.items():
            sums[name] = sums.get(name, 0.0) + amount
    span = max(now - began * BUCKET_S, 1.0)
    return {name: amount / span for name, amount in sums.items()}


def _bound(seconds: float, bounds: tuple[float, ...]) -> float:
    return next((bound for bound in bounds if seconds <= bound), math.inf)


def _floats(found: object) -> dict[str, float]:
    return {k.decode(): float(v) for k, v in cast(Mapping[bytes, bytes], found).items()}


def _key(run_id: str) -> str:
    return f"orchestrate:{run_id}:counts"


def _bucket(run_id: str, number: int) -> str:
    return f"{_key(run_id)}:{number}"
