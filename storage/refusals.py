"""Which workers refused a run, and why: a hash beside the run's other keys on the broker.

Lost with the broker, and then said again. Knows nothing of what a refusal leads to.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import redis

from orchestrator.refusals import Refusal
from storage.broker_state import EXPIRE_S

MAX_REASON = 2000


def refusals_key(run_id: str) -> str:
    """Where a run's refusals lie."""
    return f"orchestrate:{run_id}:refusals"


def put_refusal(client: redis.Redis, run_id: str, refusal: Refusal) -> None:
    """Note that a worker refused a run."""
    pipe = client.pipeline()
    pipe.hset(refusals_key(run_id), refusal.worker, refusal.reason[:MAX_REASON])
    pipe.expire(refusals_key(run_id), EXPIRE_S)
    pipe.execute()


def read_refusals(client: redis.Redis, run_id: str) -> list[Refusal]:
    """Who refused a run, by name; some of them may be gone."""
    found = cast(Mapping[bytes, bytes], client.hgetall(refusals_key(run_id)))
    said = {
        name.decode(errors="replace"): why.decode(errors="replace") for name, why in found.items()
    }
    return [Refusal(name, said[name]) for name in sorted(said)]


def forget_refusal(client: redis.Redis, run_id: str, worker: str) -> None:
    """Take a worker's refusal back."""
    client.hdel(refusals_key(run_id), worker)


def forget_refusals(client: redis.Redis, run_id: str) -> None:
    """Have every worker try a run again: somebody may have mended what was wrong."""
    client.delete(refusals_key(run_id))
