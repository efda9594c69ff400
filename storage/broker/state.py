"""The Redis side of a run: which jobs are done, out or failed, and what they came to.

Everything here can be lost: the first is rebuilt from the run's record, counts are to look at.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import cast

import redis

from domain.errors import BrokerError
from storage.broker.connection import connect, server_time
from storage.record.run import Failure

# A run that nobody touched for two weeks leaves no keys behind; its record is unaffected.
EXPIRE_S = 14 * 24 * 3600

# Jobs that are asked for at a time.
LOOK_AT = 64


class BrokerState:
    """A run's keys on the broker's Redis."""

    def __init__(self, client: redis.Redis, run_id: str) -> None:
        self.client, self.run_id = client, run_id

    def outstanding(self) -> set[str]:
        """Jobs that were sent and are neither done nor failed."""
        return _texts(self.client.smembers(self._key("outstanding")))

    def is_idle(self) -> bool:
        """Whether none of its jobs is out."""
        return not self.client.exists(self._key("outstanding"))

    def claim(self, job: str) -> bool:
        """Mark a job as sent; False when it was out already."""
        added = self.client.sadd(self._key("outstanding"), job)
        self.client.expire(self._key("outstanding"), EXPIRE_S)
        return bool(added)

    def release(self, jobs: Iterable[str]) -> None:
        """Take claims back, so that the reconciler sends these jobs again unless they are done."""
        names = list(jobs)
        if names:
            self.client.srem(self._key("outstanding"), *names)

    def begin_attempt(self, job: str) -> int:
        """Count that a worker begins a job; returns the attempts that have not ended."""
        pipe = self.client.pipeline()
        pipe.hincrby(self._key("attempts"), job, 1)
        pipe.expire(self._key("attempts"), EXPIRE_S)
        return int(pipe.execute()[0])

    def n_attempts(self, job: str) -> int:
        """Attempts at a job that have not ended: deaths, and workers on it now."""
        return max(0, int(self.client.hget(self._key("attempts"), job) or 0))

    def take_attempt_back(self, job: str) -> None:
        """Take an attempt back: the worker lives and gave the job to another."""
        self.client.hincrby(self._key("attempts"), job, -1)

    def done(self) -> set[str]:
        """Jobs whose artifact exists, as far as Redis knows."""
        return _texts(self.client.smembers(self._key("done")))

    def are_done(self, jobs: Sequence[str]) -> bool:
        """Whether all of these jobs are done, as far as Redis knows.

        The last to be sent are the last to be done: the end of the list tells soonest.
        """
        return all(
            all(self.client.smismember(self._key("done"), list(jobs[max(0, end - LOOK_AT) : end])))
            for end in range(len(jobs), 0, -LOOK_AT)
        )

    def mark_done(self, jobs: Iterable[str]) -> None:
        """Note that the jobs' artifacts exist."""
        names = list(jobs)
        if names:
            pipe = self.client.pipeline()
            pipe.sadd(self._key("done"), *names)
            pipe.srem(self._key("outstanding"), *names)
            pipe.hdel(self._key("failures"), *names)
            pipe.hdel(self._key("attempts"), *names)
            pipe.expire(self._key("done"), EXPIRE_S)
            pipe.execute()

    def mark_undone(self, jobs: Iterable[str]) -> None:
        """Note that the jobs have to run again."""
        names = list(jobs)
        if names:
            pipe = self.client.pipeline()
            pipe.srem(self._key("done"), *names)
            pipe.srem(self._key("outstanding"), *names)
            pipe.hdel(self._key("attempts"), *names)
            pipe.execute()

    def fail(self, failure: Failure) -> None:
        """Note that a job ended in an error."""
        pipe = self.client.pipeline()
        pipe.hset(self._key("failures"), failure.job, json.dumps(asdict(failure)))
        pipe.srem(self._key("outstanding"), failure.job)
        pipe.hdel(self._key("attempts"), failure.job)
        pipe.expire(self._key("failures"), EXPIRE_S)
        pipe.execute()

    def failures(self) -> list[Failure]:
        """The jobs that ended in an error."""
        found = self.client.hgetall(self._key("failures"))
        return [Failure(**json.loads(body)) for body in found.values()]

    def cancel(self) -> None:
        """Tell workers to drop this run's jobs."""
        self.client.set(self._key("cancelled"), "1", ex=EXPIRE_S)

    def start_over(self) -> None:
        """Forget that it was cancelled, what failed and who declined it: all is tried again."""
        self.client.delete(*map(self._key, ("cancelled", "failures", "declines")))

    def is_cancelled(self) -> bool:
        """Whether the run was cancelled."""
        return bool(self.client.exists(self._key("cancelled")))

    def _key(self, name: str) -> str:
        return f"orchestrate:{self.run_id}:{name}"


def broker_state(url: str, run_id: str) -> BrokerState:
    """A run's keys behind a broker URL; raises BrokerError when nobody answers."""
    return BrokerState(connect(url), run_id)


def jobs_on_queues(client: redis.Redis, queues: Iterable[str], run_id: str) -> set[str]:
    """Jobs of a run that a message exists for, waiting or held by a worker."""
    found = set()
    waiting = [raw for queue in queues for raw in client.lrange(queue, 0, -1)]
    for k, raw in enumerate([*waiting, *client.hvals("unacked")]):
        # what is none of ours is refused where it is taken
        with contextlib.suppress(ValueError, TypeError, KeyError, IndexError, RecursionError):
            message = json.loads(raw)
            # a held message lies there with its exchange and routing key
            headers = (message if k < len(waiting) else message[0])["headers"]
            if headers["run_id"] == run_id:
                found.add(str(headers["job"]))
    return found


def _texts(members: object) -> set[str]:
    if not isinstance(members, set):
        raise BrokerError("the broker answered in a form we do not know: is it a Redis server?")
    return {m.decode() if isinstance(m, bytes) else str(m) for m in members}


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
