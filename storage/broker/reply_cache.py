"""Replies of judges by the question, shared by all runs on one broker: asked once, paid once.

The key holds the endpoint, the whole request and the vote's index. Can be lost; costs money
then, changes no result.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Mapping, Sequence

import redis
from pydantic import ValidationError
from redis.asyncio import Redis as AsyncRedis

from domain.scoring.scores import Reply

EXPIRE_S = 30 * 24 * 3600

# A worker that is killed loses what it was paid for in this time.
WRITE_AFTER_S = 0.25

PREFIX = "orchestrate:reply:"


class SharedCache:
    """See workers.judge.judge.ReplyCache."""

    def __init__(self, client: AsyncRedis) -> None:
        self._redis = client
        self._unwritten: dict[str, Reply] = {}
        self._writer: asyncio.Task[None] | None = None
        self._writing = asyncio.Lock()

    async def get_many(self, keys: Sequence[str]) -> Mapping[str, Reply]:
        """The replies that are known; a broker that does not answer knows none."""
        unique = list(dict.fromkeys(keys))
        if not unique:
            return {}
        try:
            bodies = await self._redis.mget([PREFIX + key for key in unique])
        except (redis.RedisError, OSError):
            return {}
        found = {}
        for key, body in zip(unique, bodies, strict=True):
            reply = None if body is None else _decode(body)
            if reply is not None:
                found[key] = reply
        return found

    def put(self, key: str, reply: Reply) -> None:
        """Remember a reply; written with others a moment later."""
        self._unwritten[key] = reply
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write_soon())

    async def flush(self) -> None:
        """Return when all that was put is written, also what is on its way already."""
        async with self._writing:
            replies, self._unwritten = self._unwritten, {}
            if not replies:
                return
            try:
                async with self._redis.pipeline(transaction=False) as pipe:
                    for key, reply in replies.items():
                        body = zlib.compress(reply.model_dump_json().encode(), 1)
                        pipe.set(PREFIX + key, body, ex=EXPIRE_S)
                    await pipe.execute()
            except (redis.RedisError, OSError):
                # the cache is a saving, not a record
                return

    async def _write_soon(self) -> None:
        while self._unwritten:
            await asyncio.sleep(WRITE_AFTER_S)
            await self.flush()


def _decode(body: bytes | str) -> Reply | None:
    try:
        assert isinstance(body, bytes)
        return Reply.model_validate_json(zlib.decompress(body))
    except (zlib.error, ValidationError):
        return None
