"""Protects the rate at which a judge is asked: a limit is found and kept, and rejections that no
rate avoids slow nobody down.

The script that the workers send runs on a real Redis, with the clock of the test in place of the
server's.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.resources import files

import numpy as np
import pytest
import redis

from storage.broker.embedded_redis import embedded_redis
from storage.broker.judge_limits import OPEN_AFTER, LimiterKeys, put_judge_meter
from storage.record.spending import Terms

STEP_S = 0.05
WANTED_A_SECOND = 80
EXPIRE_S = 3600
START = 1_000_000


@pytest.fixture(scope="module")
def client() -> Iterator[redis.Redis]:
    with embedded_redis() as url:
        yield redis.Redis.from_url(url)


@dataclass
class Endpoint:
    """A judge that answers at once: so many calls a second (a second's worth at once), of which it
    rejects a share for no reason; whom it rejects it asks to wait."""

    limit: float = np.inf
    noise: float = 0.0
    wait_s: float = 0.0
    seed: int = 0
    level: float = field(init=False)

    def __post_init__(self) -> None:
        self.level, self.random = max(self.limit, 1.0), random.Random(self.seed)

    def pass_time(self) -> None:
        self.level = min(max(self.limit, 1.0), self.level + self.limit * STEP_S)

    def accepts(self) -> bool:
        if self.random.random() < self.noise:
            return False
        if self.level < 1:
            return False
        self.level -= 1
        return True


def asked_for(
    client: redis.Redis, endpoint: Endpoint, *, seconds: float, rate: float | None = None
) -> tuple[float, float]:
    """(answers a second, share rejected) in the second half of a run that always has more to ask,
    from a rate that was found before, if any."""
    client.flushall()
    keys = LimiterKeys("run", "endpoint")
    put_judge_meter(client, "run", terms=Terms(), spent=0.0)
    if rate is not None:
        client.hset(keys.limits, mapping={"rate": rate, "learned": rate, "cut_at": START})
    text = files("storage").joinpath("broker/judge_limits.lua").read_text(encoding="utf-8")
    assert text.count("redis.call('TIME')") == 1
    clock = "{redis.call('HGET', 'clock', 'seconds'), redis.call('HGET', 'clock', 'micros')}"
    script = client.register_script(text.replace("redis.call('TIME')", clock))
    n_ok = n_bad = n_told = 0
    n_steps = round(seconds / STEP_S)
    for step in range(n_steps):
        now = START + step * STEP_S
        client.hset("clock", mapping={"seconds": int(now), "micros": int(now % 1 * 1e6)})
        endpoint.pass_time()
        wanted = round(WANTED_A_SECOND * STEP_S)
        noted = [0.0, 0.0, n_told, 0, 0.0, 0.0, EXPIRE_S]
        _, granted, _ = script(
            keys=keys.all(), args=["admit", "run", "p", wanted, *noted, *([1, 0.0] * wanted)]
        )
        n_told = sum(endpoint.accepts() for _ in range(granted))
        for _ in range(granted - n_told):
            said = [0, 0, endpoint.wait_s, 0, 0, OPEN_AFTER]
            script(keys=keys.all(), args=["failed", "p", "limit", *said])
        if step >= n_steps // 2:
            n_ok, n_bad = n_ok + n_told, n_bad + granted - n_told
    return 2 * n_ok / seconds, n_bad / max(1, n_ok + n_bad)


@pytest.mark.parametrize("noise", [0.02, 0.1, 0.2])
def test_rejections_that_no_rate_avoids_do_not_starve_a_run(
    client: redis.Redis, noise: float
) -> None:
    """They once cut the rate again and again, to a call in two seconds and never up again."""
    found = [
        asked_for(client, Endpoint(noise=noise, seed=seed), seconds=120)[0] for seed in range(3)
    ]

    assert np.mean(found) > 0.4 * WANTED_A_SECOND
    assert min(found) > 0.1 * WANTED_A_SECOND


def test_a_rate_that_was_found_on_a_bad_day_rises_when_the_endpoint_is_well(
    client: redis.Redis,
) -> None:
    answered, _ = asked_for(client, Endpoint(), seconds=240, rate=0.5)

    assert answered > 0.4 * WANTED_A_SECOND


@pytest.mark.parametrize("limit", [2, 10, 60])
def test_a_limit_that_nobody_stated_is_found_and_kept(client: redis.Redis, limit: float) -> None:
    answered, rejected = asked_for(client, Endpoint(limit=limit), seconds=120)

    assert answered > 0.93 * limit
    assert rejected < 0.03


@pytest.mark.parametrize("limit", [20, 40, 50])
def test_a_rate_that_was_cut_too_deep_is_soon_back_below_the_limit(
    client: redis.Redis, limit: float
) -> None:
    """The waits after many rejections make the first cuts too deep: 16 calls a second were once
    left of 40."""
    answered, rejected = asked_for(client, Endpoint(limit=limit, wait_s=1), seconds=60)

    assert answered > 0.93 * limit
    assert rejected < 0.03


def test_a_limit_is_kept_beside_rejections_of_no_reason(client: redis.Redis) -> None:
    answered, rejected = asked_for(client, Endpoint(limit=30, noise=0.05), seconds=240)

    assert answered > 0.6 * 30
    assert rejected < 0.15
