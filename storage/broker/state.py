"""The Redis side of a run: which jobs are done, out or failed.

All of it can be lost: it is rebuilt from the run's record.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict

import redis

from domain.errors import BrokerError
from storage.broker.connection import connect
from storage.record.dead_letters import Failure

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
        """Mark a job as sent; False when it was out already, or is done by now: who looked which
        jobs are ready looked a while ago."""
        pipe = self.client.pipeline()
        pipe.sadd(self._key("outstanding"), job)
        pipe.expire(self._key("outstanding"), EXPIRE_S)
        pipe.sismember(self._key("done"), job)
        added, _, is_done = pipe.execute()
        if is_done:
            self.release([job])
        return bool(added and not is_done)

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
