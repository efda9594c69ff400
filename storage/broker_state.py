"""The Redis side of a run: which jobs are done, out or failed, and whether it was cancelled.

Everything here can be lost and is rebuilt from the run's record. Knows nothing of Celery.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
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
        self.run_id = run_id

    @property
    def client(self) -> redis.Redis:
        """The connection, for what else of the run lies on the broker."""
        return self._redis

    def outstanding(self) -> set[str]:
        """Jobs that were sent and are neither done nor failed."""
        return _texts(self._redis.smembers(self._key("outstanding")))

    def is_idle(self) -> bool:
        """Whether none of its jobs is out."""
        return not self._redis.exists(self._key("outstanding"))

    def claim(self, job: str) -> bool:
        """Mark a job as sent; False when it was out already."""
        added = self._redis.sadd(self._key("outstanding"), job)
        self._redis.expire(self._key("outstanding"), EXPIRE_S)
        return bool(added)

    def release(self, jobs: Iterable[str]) -> None:
        """Take claims back, so that the reconciler sends these jobs again unless they are done."""
        names = list(jobs)
        if names:
            self._redis.srem(self._key("outstanding"), *names)

    def begin(self, job: str) -> int:
        """Count that a worker begins a job; returns how often it was begun and has not ended."""
        pipe = self._redis.pipeline()
        pipe.hincrby(self._key("begun"), job, 1)
        pipe.expire(self._key("begun"), EXPIRE_S)
        return int(pipe.execute()[0])

    def n_begun(self, job: str) -> int:
        """How often a job was begun and has not ended: deaths, and workers on it now."""
        return max(0, int(self._redis.hget(self._key("begun"), job) or 0))  # type: ignore[arg-type]

    def hand_back(self, job: str) -> None:
        """Take a beginning back: the worker lives and gave the job to another."""
        self._redis.hincrby(self._key("begun"), job, -1)

    def done(self) -> set[str]:
        """Jobs whose artifact exists, as far as Redis knows."""
        return _texts(self._redis.smembers(self._key("done")))

    def are_done(self, jobs: Sequence[str]) -> bool:
        """Whether all of these jobs are done, as far as Redis knows."""
        return all(self._redis.smismember(self._key("done"), list(jobs)))

    def mark_done(self, jobs: Iterable[str]) -> None:
        """Note that the jobs' artifacts exist."""
        names = list(jobs)
        if names:
            pipe = self._redis.pipeline()
            pipe.sadd(self._key("done"), *names)
            pipe.srem(self._key("outstanding"), *names)
            pipe.hdel(self._key("failures"), *names)
            pipe.hdel(self._key("begun"), *names)
            pipe.expire(self._key("done"), EXPIRE_S)
            pipe.execute()

    def mark_undone(self, jobs: Iterable[str]) -> None:
        """Note that the jobs have to run again."""
        names = list(jobs)
        if names:
            pipe = self._redis.pipeline()
            pipe.srem(self._key("done"), *names)
            pipe.srem(self._key("outstanding"), *names)
            pipe.hdel(self._key("begun"), *names)
            pipe.execute()

    def fail(self, failure: Failure) -> None:
        """Note that a job ended in an error."""
        pipe = self._redis.pipeline()
        pipe.hset(self._key("failures"), failure.job, json.dumps(asdict(failure)))
        pipe.srem(self._key("outstanding"), failure.job)
        pipe.hdel(self._key("begun"), failure.job)
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


def jobs_on_queues(client: redis.Redis, queues: Iterable[str], run_id: str) -> set[str]:
    """Jobs of a run that a message exists for, waiting or held by a worker."""
    waiting = [raw for queue in queues for raw in client.lrange(queue, 0, -1)]  # type: ignore[union-attr]
    found = {_job_of(raw, run_id) for raw in waiting}
    # a held message lies there with its exchange and routing key
    found |= {_job_of(raw, run_id, held=True) for raw in client.hvals("unacked")}  # type: ignore[union-attr]
    return found - {""}


def _job_of(raw: bytes | str, run_id: str, *, held: bool = False) -> str:
    """The job that a message is of; empty for another run's, and for what is none of ours."""
    try:
        message = json.loads(raw)
        headers = (message[0] if held else message)["headers"]
        return str(headers["job"]) if headers["run_id"] == run_id else ""
    except (ValueError, TypeError, KeyError, IndexError, RecursionError):
        return ""


def _texts(members: object) -> set[str]:
    if not isinstance(members, set):
        raise BrokerError("the broker answered in a form we do not know: is it a Redis server?")
    return {m.decode() if isinstance(m, bytes) else str(m) for m in members}
