"""Replies of judges by the question, shared by all runs on one broker: asked once, paid once.

The key holds the endpoint, the whole request and the vote's index. Can be lost; costs money
then, changes no result.

Whoever may write to the broker could write a reply too, so each is signed with a secret that is
not there: it follows from the judge's key, which judge workers alone hold. A worker without a key
trusts only what it wrote itself.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
import zlib
from collections.abc import Mapping, Sequence

import redis
from pydantic import ValidationError
from redis.asyncio import Redis as AsyncRedis

from domain.redaction import Redactor
from domain.scoring.scores import Reply

EXPIRE_S = 30 * 24 * 3600

# A worker that is killed loses what it was paid for in this time.
WRITE_AFTER_S = 0.25

PREFIX = "orchestrate:reply:"

# A reply is a number with a few alternatives, at most some pages of words. What is larger is not
# kept, and not read either: somebody else wrote it.
MOST_BYTES, MOST_PACKED = 1 << 20, 1 << 16

_OWN = secrets.token_bytes(32)
_SIGNATURE = hashlib.sha256().digest_size


class ReplyCache:
    """See workers.judge.judge.KnownReplies."""

    def __init__(self, client: AsyncRedis, *, judge_key: str) -> None:
        """`judge_key` is the one that the judge is asked with; empty without one."""
        self._redis, self._redact = client, Redactor.of([judge_key])
        known = hmac.digest(judge_key.encode(), b"orchestrate: replies of judges", "sha256")
        self._secret = known if judge_key else _OWN
        self._unwritten: dict[str, Reply] = {}
        self._writer: asyncio.Task[None] | None = None
        self._writing = asyncio.Lock()

    async def get_many(self, keys: Sequence[str]) -> Mapping[str, Reply]:
        """The replies that are known; a broker that does not answer knows none."""
        unique = list(dict.fromkeys(keys))
        if not unique:
            return {}
        try:
            async with self._redis.pipeline(transaction=False) as pipe:
                for key in unique:
                    # no more of it than we would read
                    pipe.getrange(PREFIX + key, 0, MOST_PACKED)
                bodies = await pipe.execute(raise_on_error=False)
        except (redis.RedisError, OSError):
            return {}
        found = {}
        for key, body in zip(unique, bodies, strict=True):
            reply = self._decode(key, body) if isinstance(body, bytes) else None
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
                        body = self._encode(key, reply)
                        if len(body) <= MOST_PACKED:
                            pipe.set(PREFIX + key, body, ex=EXPIRE_S)
                    await pipe.execute()
            except (redis.RedisError, OSError):
                # the cache is a saving, not a record
                return

    async def _write_soon(self) -> None:
        while self._unwritten:
            await asyncio.sleep(WRITE_AFTER_S)
            await self.flush()

    def _encode(self, key: str, reply: Reply) -> bytes:
        text = self._redact.without_secrets(reply.model_dump_json())
        packed = zlib.compress(text.encode(), 1)
        return self._signature(key, packed) + packed

    def _decode(self, key: str, body: bytes) -> Reply | None:
        """The reply that we or another judge worker wrote under a key; None for anything else."""
        signature, packed = body[:_SIGNATURE], body[_SIGNATURE:]
        if not hmac.compare_digest(signature, self._signature(key, packed)):
            return None
        try:
            return Reply.model_validate_json(zlib.decompressobj().decompress(packed, MOST_BYTES))
        except (zlib.error, ValidationError):
            return None

    def _signature(self, key: str, packed: bytes) -> bytes:
        # the key as well: a reply to another question is none to this one
        return hmac.digest(self._secret, key.encode() + b"\0" + packed, "sha256")
