"""The Redis side of a run: which jobs are done, out or failed, and whether it was cancelled.

Everything here can be lost and is rebuilt from the run's record. Knows nothing of Celery.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass

import redis

from orchestrator.errors import BrokerError
from storage.connection import connect

# A run that nobody touched for two weeks leaves no keys behind; its record is unaffected.
EXPIRE_S = 14 * 24 * 3600


@dataclass(frozen=True)
class Failure:
    """A job that ended in an error; a fatal one would meet every other job too."""

    job: str
    error: str
    message: str
    fatal: bool


class BrokerState:
    """A run's keys on the broker's Redis."""

    def __init__(self, client: redis.Redis, run_id: str) -> None:
        self._redis, self._prefix = client, f"orchestrate:{run_id}"

    def outstanding(self) -> set[str]:
        """Jobs that were sent and are neither done nor failed."""
        return _texts(self._redis.smembers(self._key("outstanding")))

    def claim(self, job: str) -> bool:
        """Mark a job as sent; False when it was out already."""
        added = self._redis.sadd(self._key("outstanding"), job)
        self._redis.expire(self._key("outstanding"), EXPIRE_S)
        return bool(added)

    def forget_outstanding(self) -> None:
        """Forget what was sent, so that the reconciler sends again what is not done."""
        self._redis.delete(self._key("outstanding"))

    def done(self) -> set[str]:
        """Jobs whose artifact exists, as far as Redis knows."""
        return _texts(self._redis.smembers(self._key("done")))

    def mark_done(self, jobs: Iterable[str]) -> None:
        """Note that the jobs' artifacts exist."""
        names = list(jobs)
        if names:
            pipe = self._redis.pipeline()
            pipe.sadd(self._key("done"), *names)
            pipe.srem(self._key("outstanding"), *names)
            pipe.hdel(self._key("failures"), *names)
            pipe.expire(self._key("done"), EXPIRE_S)
            pipe.execute()

    def mark_undone(self, jobs: Iterable[str]) -> None:
        """Note that the jobs have to run again."""
        names = list(jobs)
        pipe = self._redis.pipeline()
        pipe.srem(self._key("done"), *names)
        pipe.srem(self._key("outstanding"), *names)
        pipe.execute()

    def fail(self, failure: Failure) -> None:
        """Note that a job ended in an error."""
        pipe = self._redis.pipeline()
        pipe.hset(self._key("failures"), failure.job, json.dumps(asdict(failure)))
        pipe.srem(self._key("outstanding"), failure.job)
        pipe.expire(self._key("failures"), EXPIRE_S)
        pipe.execute()

    def failures(self) -> list[Failure]:
        """The jobs that ended in an error."""
        found = self._redis.hgetall(self._key("failures"))
        return [Failure(**json.loads(body)) for body in found.values()]

    def clear_failures(self) -> None:
        """Forget errors of earlier attempts, so that their jobs are tried again."""
        self._redis.delete(self._key("failures"))

    def cancel(self) -> None:
        """Tell workers to drop this run's jobs."""
        self._redis.set(self._key("cancelled"), "1", ex=EXPIRE_S)

    def uncancel(self) -> None:
        """Let workers take this run's jobs again."""
        self._redis.delete(self._key("cancelled"))

    def is_cancelled(self) -> bool:
        """Whether the run was cancelled."""
        return bool(self._redis.exists(self._key("cancelled")))

    def _key(self, name: str) -> str:
        return f"{self._prefix}:{name}"


def broker_state(url: str, run_id: str) -> BrokerState:
    """A run's keys behind a broker URL; raises BrokerError when nobody answers."""
    return BrokerState(connect(url), run_id)


def queue_lengths(client: redis.Redis, queues: Iterable[str]) -> dict[str, int]:
    """Messages waiting in each queue, those delivered but not acknowledged left out."""
    return {queue: int(client.llen(queue)) for queue in queues}  # type: ignore[arg-type]


def n_unacknowledged(client: redis.Redis) -> int:
    """Messages that a worker holds."""
    return int(client.hlen("unacked"))  # type: ignore[arg-type]


def _texts(members: object) -> set[str]:
    if not isinstance(members, set):
        raise BrokerError("the broker answered in a form we do not know: is it a Redis server?")
    return {m.decode() if isinstance(m, bytes) else str(m) for m in members}
