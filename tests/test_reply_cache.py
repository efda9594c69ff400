"""Protects that a reply of a judge, once paid for, is written for the other workers and runs."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Iterator, Mapping

import pytest
from redis.asyncio import Redis

from domain.scoring.scores import Reply
from storage.broker.embedded_redis import embedded_redis
from storage.broker.reply_cache import MOST_PACKED, PREFIX, WRITE_AFTER_S, ReplyCache

KEY = "a-key-of-the-judge"
FIRST, SECOND = Reply(text="71"), Reply(text="8")


@pytest.fixture(scope="module")
def broker() -> Iterator[str]:
    with embedded_redis() as url:
        yield url


async def hold_writes(connection: Redis, cache: ReplyCache, key: str) -> None:
    """Put a reply and return while it is on its way to a Redis that takes half a second."""
    await connection.client_pause(int(2000 * WRITE_AFTER_S) + 500, all=False)
    cache.put(key, FIRST)
    await asyncio.sleep(2 * WRITE_AFTER_S)


def test_a_flush_waits_for_replies_that_are_on_their_way(broker: str) -> None:
    async def found() -> Mapping[str, Reply]:
        async with Redis.from_url(broker) as connection:
            cache = ReplyCache(connection, judge_key=KEY)
            await hold_writes(connection, cache, "a")
            await cache.flush()
            return await cache.get_many(["a"])

    assert asyncio.run(found()) == {"a": FIRST}


def test_a_reply_that_comes_while_others_are_written_is_written_too(broker: str) -> None:
    async def found() -> Mapping[str, Reply]:
        async with Redis.from_url(broker) as connection:
            cache = ReplyCache(connection, judge_key=KEY)
            await hold_writes(connection, cache, "b")
            cache.put("c", SECOND)
            for _ in range(200):
                known = await cache.get_many(["b", "c"])
                if len(known) == 2:
                    break
                await asyncio.sleep(0.02)
            return known

    assert asyncio.run(found()) == {"b": FIRST, "c": SECOND}


def test_what_somebody_else_wrote_is_no_reply(broker: str) -> None:
    """With the worker's password: a reply of one's own, a large one, one of another question."""

    async def found() -> Mapping[str, Reply]:
        async with Redis.from_url(broker) as connection:
            cache, keyless = (ReplyCache(connection, judge_key=key) for key in (KEY, ""))
            stranger = ReplyCache(connection, judge_key="a-key-of-a-stranger")
            cache.put("true", FIRST)
            stranger.put("forged", SECOND)
            await cache.flush()
            await stranger.flush()
            written = await connection.get(f"{PREFIX}true")
            assert isinstance(written, bytes)
            await connection.set(f"{PREFIX}moved", written)
            plain = zlib.compress(SECOND.model_dump_json().encode())
            await connection.set(f"{PREFIX}unsigned", plain)
            await connection.set(f"{PREFIX}longer", written + b"x")
            await connection.rpush(f"{PREFIX}list", b"x")
            asked = ["true", "forged", "moved", "unsigned", "longer", "list"]
            assert await keyless.get_many(asked) == {}
            return await cache.get_many(asked)

    assert asyncio.run(found()) == {"true": FIRST}


def test_no_more_of_a_value_is_read_than_a_reply_may_have(broker: str) -> None:
    async def bytes_read() -> tuple[Mapping[str, Reply], int]:
        async with Redis.from_url(broker) as connection:
            await connection.set(f"{PREFIX}bomb", zlib.compress(b"0" * (64 << 20)) * 200)
            before = (await connection.info("stats"))["total_net_output_bytes"]
            known = await ReplyCache(connection, judge_key=KEY).get_many(["bomb"])
            return known, (await connection.info("stats"))["total_net_output_bytes"] - before

    known, n_bytes = asyncio.run(bytes_read())

    assert known == {}
    assert n_bytes < 2 * MOST_PACKED


def test_a_key_that_a_judge_repeats_is_not_put_on_the_broker(broker: str) -> None:
    async def stored() -> bytes:
        async with Redis.from_url(broker) as connection:
            cache = ReplyCache(connection, judge_key=KEY)
            cache.put("told", Reply(text=f"You sent {KEY}, truly {KEY[:12]}"))
            await cache.flush()
            return (await cache.get_many(["told"]))["told"].text.encode()

    assert asyncio.run(stored()) == b"You sent ..., truly ..."
