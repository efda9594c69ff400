"""The limiter that all judge processes of a fleet share: rate, circuit and budget, in Redis.

Callers wait in this process; one message to Redis admits as many of them as may go. Everything
here can be lost: limits are learned again, and what was spent is rebuilt from the record.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import math
import os
import random
import socket
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import astuple, dataclass
from importlib.resources import files
from typing import Any

import redis
from redis.asyncio import Redis as AsyncRedis

from domain.errors import BrokerError, BudgetError, OrchestrateError, StoppedError
from domain.scoring.prices import Charged, Cost, Failed, Limits
from storage.broker.state import EXPIRE_S
from storage.record.spending import Terms

# As many failures in a row, over all processes, as one question has attempts: the circuit opens
# before any question has used up its own.
OPEN_AFTER = 5

MAX_BATCH = 128

# Calls that come within this are admitted by one message.
GATHER_S = 0.002

MAX_POLL_S = 1.0
FLUSH_AFTER_S = 0.05
BROKER_PATIENCE_S = 60.0


@dataclass(frozen=True)
class LimiterKeys:
    """Where a run's judge keeps its shared state."""

    run_id: str
    endpoint: str

    @classmethod
    def of(cls, run_id: str, *, url: str, model: str) -> LimiterKeys:
        """The keys of a run's endpoint and model; runs on one endpoint and model share limits."""
        return cls(run_id, hashlib.sha256(f"{url.rstrip('/')} {model}".encode()).hexdigest()[:16])

    @property
    def limits(self) -> str:
        """What is known of the endpoint."""
        return f"orchestrate:judge:{self.endpoint}"

    @property
    def budget(self) -> str:
        """The run's money."""
        return f"orchestrate:{self.run_id}:budget"

    def all(self) -> list[str]:
        """The keys in the order of the script."""
        cancelled = f"orchestrate:{self.run_id}:cancelled"
        return [
            self.limits,
            self.budget,
            f"{self.limits}:served",
            f"{self.limits}:hungry",
            cancelled,
        ]


@dataclass(frozen=True)
class Meter:
    """What is spent and what calls under way may still cost, in US dollars."""

    spent: float
    reserved: float
    cap: float | None


def put_judge_meter(client: redis.Redis, run_id: str, *, terms: Terms, spent: float) -> None:
    """Bring the run's money into Redis; a meter that stands higher there stays."""
    key = LimiterKeys(run_id, "").budget
    before = client.hget(key, "spent")
    if before is None or float(before) < spent:
        client.hset(key, "spent", repr(float(spent)))
    client.hset(key, "cap", "" if terms.cap_usd is None else repr(terms.cap_usd))
    client.expire(key, EXPIRE_S)


def read_judge_meter(client: redis.Redis, run_id: str) -> Meter | None:
    """What the meter shows; None when Redis has none."""
    found: dict[bytes, bytes] = client.hgetall(LimiterKeys(run_id, "").budget)  # type: ignore[assignment]
    if b"spent" not in found:
        return None
    reserved = math.fsum(float(v) for k, v in found.items() if k.startswith(b"r:"))
    cap = found.get(b"cap", b"")
    return Meter(float(found[b"spent"]), reserved, float(cap) if cap else None)


def note_stated_limits(client: redis.Redis, keys: LimiterKeys, limits: Limits) -> None:
    """Remember what the endpoint stated before the first score is asked."""
    stated = {"rpm": limits.requests_per_minute, "tpm": limits.tokens_per_minute}
    known = {name: repr(value) for name, value in stated.items() if value}
    if known:
        client.hset(keys.limits, mapping=known)  # type: ignore[arg-type]
        client.expire(keys.limits, EXPIRE_S)


def endpoint_state(client: redis.Redis, keys: LimiterKeys) -> dict[str, Any]:
    """What is known of the judge's endpoint: calls a second now, rejections, and since when it is
    down (None: it is up)."""
    found: dict[bytes, bytes] = client.hgetall(keys.limits)  # type: ignore[assignment]
    number = {k.decode(): float(v) for k, v in found.items() if v}
    seconds, _ = client.time()
    down_since = number.get("down_since", 0.0)
    return {
        "calls_per_second": number.get("rate"),
        "requests_per_minute_stated": number.get("rpm"),
        "rejected": int(number.get("rejected", 0)),
        "down_for_s": max(0.0, seconds - down_since) if down_since else None,
        "next_look_in_s": max(0.0, number.get("open_until", 0.0) - seconds) if down_since else None,
    }


@dataclass
class _Waiting:
    cost: Cost
    future: asyncio.Future[None]


@dataclass
class _Noted:
    """What the others are not told yet, in the order of the script's arguments."""

    released: float = 0.0
    spent: float = 0.0
    n_ok: int = 0
    extra_tokens: int = 0
    requests_per_minute: float = 0.0
    tokens_per_minute: float = 0.0


class SharedLimiter:
    """The limiter of one run in one process; see workers.judge.judge.Limiter."""

    def __init__(
        self,
        client: AsyncRedis,
        keys: LimiterKeys,
        *,
        is_up: Callable[[], Awaitable[bool]],
        open_budget: Callable[[], Awaitable[None]],
    ) -> None:
        """`is_up` asks the endpoint; `open_budget` puts the run's money into Redis again."""
        self._keys, self._is_up, self._open_budget = keys, is_up, open_budget
        lua = files("storage").joinpath("broker/judge_limits.lua").read_text(encoding="utf-8")
        self._script: Any = client.register_script(lua)
        self._process = f"{socket.gethostname()}-{os.getpid()}-{id(self)}"
        self._waiting: deque[_Waiting] = deque()
        self._pump: asyncio.Task[None] | None = None
        self._flusher: asyncio.Task[None] | None = None
        self._stopped: OrchestrateError | None = None
        self._noted = _Noted()
        self._telling = asyncio.Lock()

    async def admit(self, cost: Cost) -> None:
        """Wait until a call may go out; raises BudgetError, StoppedError or what broke."""
        if self._stopped:
            raise self._stopped
        waiting = _Waiting(cost, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        if self._pump is None or self._pump.done():
            self._pump = asyncio.create_task(self._pump_all())
        await waiting.future

    def answered(self, cost: Cost, result: Charged) -> None:
        """Note an answered call; told to the others with the next message."""
        noted = self._noted
        noted.released += cost.usd
        noted.spent += result.usd
        noted.extra_tokens += result.tokens - cost.tokens
        noted.n_ok += 1 if result.tokens else 0
        limits = result.limits
        noted.requests_per_minute = limits.requests_per_minute or noted.requests_per_minute
        noted.tokens_per_minute = limits.tokens_per_minute or noted.tokens_per_minute
        if self._flusher is None or self._flusher.done():
            self._flusher = asyncio.create_task(self._flush_soon())

    async def failed(self, cost: Cost, result: Failed) -> bool:
        """Note a failed call at once; whether the circuit is open now."""
        await self.flush()
        stated = result.limits
        found = await self._run(
            "failed",
            self._process,
            result.kind,
            cost.usd,
            result.usd,
            stated.retry_after_s or 0.0,
            stated.requests_per_minute or 0.0,
            stated.tokens_per_minute or 0.0,
            OPEN_AFTER,
        )
        return bool(found)

    async def flush(self) -> None:
        """Return when all that was noted is told, also what is on its way already."""
        async with self._telling:
            noted = self._noted
            if noted.n_ok or noted.released or noted.spent:
                await self._tell([])

    def stop(self) -> None:
        """Let nothing more out: the process is leaving."""
        self._stopped = StoppedError("the judge worker is leaving")
        self._refuse(self._stopped)

    def reopen(self) -> None:
        """Let calls out again after a budget was reached and raised."""
        self._stopped = None

    async def _pump_all(self) -> None:
        while self._waiting:
            await asyncio.sleep(GATHER_S)
            batch = [self._waiting[k] for k in range(min(len(self._waiting), MAX_BATCH))]
            try:
                async with self._telling:
                    state, granted, wait_ms = await self._tell(batch)
                await self._act(state)
            except (OrchestrateError, redis.RedisError, OSError) as error:
                self._refuse(_as_ours(error))
                return
            for _ in range(granted):
                future = self._waiting.popleft().future
                if not future.done():
                    future.set_result(None)
            if self._waiting and state in ("wait", "down", "money_out"):
                seconds = min(max(wait_ms / 1000, 0.005), MAX_POLL_S)
                # not all processes at the same moment
                await asyncio.sleep(seconds * random.uniform(1.0, 1.2))

    async def _act(self, state: str) -> None:
        if state == "budget":
            self._stopped = BudgetError(
                "the judge's budget is reached: nothing more is asked, what was judged is kept; "
                "run the same command again with a larger --budget"
            )
            raise self._stopped
        if state == "cancelled":
            raise StoppedError("the run was cancelled")
        if state == "no_budget":
            await self._open_budget()
        if state == "look":
            is_up = await self._is_up()
            await self._run("looked", int(is_up), OPEN_AFTER)

    async def _tell(self, batch: list[_Waiting]) -> tuple[str, int, int]:
        """Send what was noted and ask for a batch; money that did not arrive stays noted."""
        noted, self._noted = self._noted, _Noted()
        arguments = [self._keys.run_id, self._process, len(batch), *astuple(noted), EXPIRE_S]
        for one in batch:
            arguments += [one.cost.tokens, one.cost.usd]
        state = b"no_budget"
        try:
            state, granted, wait_ms = await self._run("admit", *arguments)
        finally:
            if state == b"no_budget":
                self._noted.released += noted.released
                self._noted.spent += noted.spent
        return state.decode(), int(granted), int(wait_ms)

    async def _run(self, action: str, *arguments: object) -> Any:
        """Do one of the script's actions; a broker that restarts is waited for."""
        deadline = asyncio.get_running_loop().time() + BROKER_PATIENCE_S
        while True:
            try:
                return await self._script(keys=self._keys.all(), args=[action, *arguments])
            except (redis.ConnectionError, redis.TimeoutError) as error:
                if asyncio.get_running_loop().time() > deadline:
                    raise _as_ours(error) from error
                await asyncio.sleep(1.0)

    async def _flush_soon(self) -> None:
        await asyncio.sleep(FLUSH_AFTER_S)
        # what the broker is not there for is told with the next message
        with contextlib.suppress(OrchestrateError, redis.RedisError, OSError):
            await self.flush()

    def _refuse(self, error: OrchestrateError) -> None:
        while self._waiting:
            future = self._waiting.popleft().future
            if not future.done():
                future.set_exception(error)


def _as_ours(error: Exception) -> OrchestrateError:
    if isinstance(error, OrchestrateError):
        return error
    return BrokerError(f"the broker stopped answering while judging ({error}): check Redis")
