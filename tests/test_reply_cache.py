"""Protects that a reply of a judge, once paid for, is written for the other workers and runs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping

import pytest
from redis.asyncio import Redis

from domain.scoring.scores import Reply
from storage.broker.embedded_redis import embedded_redis
from storage.broker.reply_cache import WRITE_AFTER_S, SharedCache

FIRST, SECOND = Reply(text="71"), Reply(text="8")


@pytest.fixture(scope="module")
def broker() -> Iterator[str]:
    with embedded_redis() as url:
        yield url


async def hold_writes(connection: Redis, cache: SharedCache, key: str) -> None:
    """Put a reply and return while it is on its way to a Redis that takes half a second."""
    await connection.client_pause(int(2000 * WRITE_AFTER_S) + 500, all=False)
    cache.put(key, FIRST)
    await asyncio.sleep(2 * WRITE_AFTER_S)


def test_a_flush_waits_for_replies_that_are_on_their_way(broker: str) -> None:
    async def found() -> Mapping[str, Reply]:
        async with Redis.from_url(broker) as connection:
            cache = SharedCache(connection)
            await hold_writes(connection, cache, "a")
            await cache.flush()
            return await cache.get_many(["a"])

    assert asyncio.run(found()) == {"a": FIRST}


def test_a_reply_that_comes_while_others_are_written_is_written_too(broker: str) -> None:
    async def found() -> Mapping[str, Reply]:
        async with Redis.from_url(broker) as connection:
            cache = SharedCache(connection)
            await hold_writes(connection, cache, "b")
            cache.put("c", SECOND)
            for _ in range(200):
                known = await cache.get_many(["b", "c"])
                if len(known) == 2:
                    break
                await asyncio.sleep(0.02)
            return known

    assert asyncio.run(found()) == {"b": FIRST, "c": SECOND}
