"""The judges that one worker process talks to, kept with their connections for its life.

Everything async lives on one event loop in a thread of its own; job threads hand it coroutines.
Never one loop per task: an HTTP client's connections die with the loop that made them.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from redis.asyncio import BlockingConnectionPool
from redis.asyncio import Redis as AsyncRedis

from domain.errors import JudgeNotHereError, StoppedError
from domain.fleet.permissions import permissions
from domain.plan.spec import JudgeSpec
from domain.redaction import JUDGE_KEYS
from domain.scoring.prices import FREE, Charged, Cost, Price
from domain.scoring.reply_limits import CALL_TIMEOUT_S
from domain.scoring.scores import Evidence
from storage.broker.connection import connect
from storage.broker.judge_limits import (
    LimiterKeys,
    SharedLimiter,
    note_stated_limits,
    put_judge_meter,
)
from storage.broker.reply_cache import ReplyCache
from storage.record.run import Run
from storage.record.spending import Terms, read_terms, recorded_usd
from workers.judge.client import NO_KEY, JudgeClient, OnCall
from workers.judge.judge import Judge, JudgedPrompts, Slots
from workers.judge.negotiate import Negotiated, negotiate
from workers.judge.profile import JudgeProfile

# Endpoints whose connections are kept while no run asks them.
MAX_IDLE_ENDPOINTS = 2

# How long a loop is waited for that was told to end.
ENDS_WITHIN_S = 5.0


class EventLoopThread:
    """Runs coroutines for many threads on one loop."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="judge", daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """The coroutine's result; raises what it raised."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def call(self, function: Callable[[], None]) -> None:
        """Call a function on the loop, soon."""
        self._loop.call_soon_threadsafe(function)

    def close(self) -> None:
        """Stop the loop; coroutines under way are cancelled."""
        self._loop.call_soon_threadsafe(self._stop)
        self._thread.join(timeout=ENDS_WITHIN_S)
        # what holds it up longer is left to the end of the process
        if not self._thread.is_alive():
            self._loop.close()

    def _stop(self) -> None:
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.call_soon(self._loop.stop)


@dataclass
class JudgePool:
    """Judges by endpoint, limiters by run; everything async happens on one loop."""

    broker_url: str
    embedded_url: str | None
    max_in_flight: int
    timeout_s: float = CALL_TIMEOUT_S
    on_call: OnCall | None = None
    loop: EventLoopThread = field(default_factory=EventLoopThread)
    _redis: AsyncRedis | None = None
    # by run and endpoint: calls that wait for one judge take no place of another's
    _slots: dict[LimiterKeys, Slots] = field(default_factory=dict)
    _clients: dict[str, JudgeClient] = field(default_factory=dict)
    _endpoints: dict[str, str] = field(default_factory=dict)
    _limiters: dict[tuple[str, LimiterKeys], SharedLimiter] = field(default_factory=dict)
    _askings: Counter[str] = field(default_factory=Counter)
    _left: asyncio.Event = field(default_factory=asyncio.Event)
    is_leaving: bool = False

    def negotiate(
        self, run: Run, spec: JudgeSpec, prompts: Mapping[str, str]
    ) -> tuple[Negotiated, float | None]:
        """What the run's judge accepts, and what it cost to ask; raises JudgeError."""
        url, price = self.url_of(spec), self.terms(run, spec).price
        self._endpoints[run.run_id] = spec.url

        async def ask() -> Negotiated:
            async with self.asking(url):
                found = await negotiate(
                    self._client(url),
                    spec.model,
                    prompts,
                    scale=spec.scale,
                    votes=spec.votes,
                    sleep=self._sleep,
                )
                if price is not None:
                    _, limiter = self.client_and_limiter(run, spec)
                    limiter.answered(Cost(0, 0.0), Charged(0, _usd(found, price)))
                    await limiter.flush()
                return found

        found = self.loop.run(ask())
        keys = LimiterKeys.of(run.run_id, url=spec.url, model=spec.model)
        with connect(self.broker_url) as redis:
            note_stated_limits(redis, keys, found.limits)
        return found, None if price is None else _usd(found, price)

    def scorings(
        self,
        run: Run,
        spec: JudgeSpec,
        profile: JudgeProfile,
        prompts: Sequence[str],
        *,
        known: Mapping[int, Evidence],
    ) -> JudgedPrompts:
        """The run's judge on the prompts; see workers.judge.Judge.scorings."""
        terms = self.terms(run, spec)
        self._endpoints[run.run_id] = spec.url

        async def ask() -> JudgedPrompts:
            async with self.asking(self.url_of(spec)):
                judge = self._judge(run, spec, profile, terms)
                return await judge.scorings(prompts, known=known)

        return self.loop.run(ask())

    def terms(self, run: Run, spec: JudgeSpec) -> Terms:
        """The recorded terms; what runs on our own machine costs nothing."""
        terms = read_terms(run.store, judgement=run.judgement)
        if spec.url == "embedded":
            return terms.model_copy(update={"price": FREE, "use_cache": False})
        return terms

    def url_of(self, spec: JudgeSpec) -> str:
        """The endpoint's URL; raises JudgeNotHereError when it is one that nobody started."""
        url = self.embedded_url if spec.url == "embedded" else spec.url
        if url is None:
            raise JudgeNotHereError(
                "the run uses the embedded judge and this worker has none: start it with "
                "`orchestrate worker judge`, or give the run a --judge-url"
            )
        return url

    def endpoint_of(self, run_id: str) -> str:
        """Where a run was judged last; empty for one that was not yet."""
        return self._endpoints.get(run_id, "")

    def client_and_limiter(self, run: Run, spec: JudgeSpec) -> tuple[JudgeClient, SharedLimiter]:
        """The run's endpoint and the limiter before it; called on the loop."""
        url = self.url_of(spec)
        client = self._client(url)
        keys = LimiterKeys.of(run.run_id, url=spec.url, model=spec.model)
        if (url, keys) not in self._limiters:
            open_budget = self._budget_opener(run, spec)
            self._limiters[url, keys] = SharedLimiter(
                self._connection(), keys, is_up=client.is_up, open_budget=open_budget
            )
        limiter = self._limiters[url, keys]
        if not self.is_leaving:
            limiter.reopen()
        return client, limiter

    def close(self) -> None:
        """Let no more calls out; what is under way is answered, the rest goes back."""
        self.is_leaving = True
        self.loop.call(self._left.set)
        for limiter in list(self._limiters.values()):
            self.loop.call(limiter.stop)

    def end(self) -> None:
        """Close every connection and the loop; nobody asks any more."""
        self.loop.run(self._release(*self._clients))
        self.loop.close()

    async def _sleep(self, seconds: float) -> None:
        """Wait; raises StoppedError as soon as the process is leaving."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._left.wait(), seconds)
            raise StoppedError("the judge worker is leaving")

    @contextlib.asynccontextmanager
    async def asking(self, url: str) -> AsyncIterator[None]:
        """Keep an endpoint's connections while it is asked; afterwards those of the last few."""
        self._askings[url] += 1
        try:
            yield
        finally:
            self._askings[url] -= 1
            if url in self._clients:
                self._clients[url] = self._clients.pop(url)  # the last one asked stands last
            idle = [one for one in self._clients if not self._askings[one]]
            await self._release(*idle[:-MAX_IDLE_ENDPOINTS])

    async def _release(self, *urls: str) -> None:
        for url in urls:
            del self._askings[url]
            for at, keys in [one for one in self._limiters if one[0] == url]:
                del self._limiters[at, keys]
                self._slots.pop(keys, None)
            await self._clients.pop(url).close()
        if self._redis is not None and not self._clients:
            await self._redis.aclose(close_connection_pool=True)
            self._redis = None

    def _judge(self, run: Run, spec: JudgeSpec, profile: JudgeProfile, terms: Terms) -> Judge:
        """Called on the loop."""
        client, limiter = self.client_and_limiter(run, spec)
        keys = LimiterKeys.of(run.run_id, url=spec.url, model=spec.model)
        slots = self._slots.setdefault(keys, Slots(self.max_in_flight))
        redis = self._connection()
        return Judge(
            client,
            spec.model,
            profile=profile,
            slots=slots,
            price=terms.price,
            limiter=limiter,
            cache=ReplyCache(redis, judge_key=judge_key()) if terms.use_cache else None,
            sleep=self._sleep,
            # the same judge asked again is a second opinion, not the first one remembered
            opinion=(run.judgement or "") if spec == run.spec.judge else "",
        )

    def _client(self, url: str) -> JudgeClient:
        if url not in self._clients:
            # the embedded judge is a process of this worker and asks for no key
            is_own = url == self.embedded_url
            opened = partial(JudgeClient, api_key=NO_KEY) if is_own else open_judge
            self._clients[url] = opened(
                url,
                max_in_flight=self.max_in_flight,
                timeout_s=self.timeout_s,
                on_call=self.on_call,
            )
        return self._clients[url]

    def _connection(self) -> AsyncRedis:
        if self._redis is None:
            # hundreds of calls may fail at once, and each of them is told
            pool = BlockingConnectionPool.from_url(
                self.broker_url,
                max_connections=16,
                timeout=60,
                socket_connect_timeout=5,
                socket_timeout=10,
            )
            self._redis = AsyncRedis(connection_pool=pool)
        return self._redis

    def _budget_opener(self, run: Run, spec: JudgeSpec) -> Callable[[], Awaitable[None]]:
        def put() -> None:
            with connect(self.broker_url) as client:
                spent = recorded_usd(run.store)
                put_judge_meter(client, run.run_id, terms=self.terms(run, spec), spent=spent)

        async def open_budget() -> None:
            await asyncio.to_thread(put)

        return open_budget


def _usd(found: Negotiated, price: Price) -> float:
    return math.fsum(price.of(reply) for reply in found.replies)


def open_judge(
    url: str, *, max_in_flight: int, timeout_s: float, on_call: OnCall | None = None
) -> JudgeClient:
    """The client of an endpoint, with the key of the environment; nothing else sends the key.

    Raises JudgeNotHereError for one that ORCHESTRATE_ONLY_JUDGES_AT leaves out.
    """
    refusal = permissions(os.environ).refusal_of_judge(url)
    if refusal:
        raise JudgeNotHereError(refusal)
    return JudgeClient(
        url,
        api_key=judge_key() or NO_KEY,
        max_in_flight=max_in_flight,
        timeout_s=timeout_s,
        on_call=on_call,
    )


def judge_key() -> str:
    """The judge's key of this process; empty without one."""
    return next((os.environ[name] for name in JUDGE_KEYS if os.environ.get(name)), "")


T = TypeVar("T")
