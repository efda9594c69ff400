"""One HTTP call to a judge: sends a body, reads the reply and what the headers say of limits.

No retries here: every failure leaves as one error that says whether it can heal. Connections are
spread over small pools, since looking for a free one costs time in proportion to the pool.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any, Literal, Protocol

import httpx2
import openai
from openai import AsyncOpenAI, DefaultAsyncHttpxClient

from domain.errors import JudgeError, JudgeNotHereError
from domain.scoring.prices import Limits
from domain.scoring.replies import integer
from domain.scoring.scores import Position, Reply, candidates_from_logprobs

# What is sent for a key where there is none: servers of one's own ask for nothing.
NO_KEY = "no-key"
SET_A_KEY = "set ORCHESTRATE_JUDGE_API_KEY (or OPENAI_API_KEY) where the judge workers start"
CALL_TIMEOUT_S = 60.0
CONNECT_TIMEOUT_S = 10.0

# measured: one pool of 512 connections costs 5.7 ms of CPU a call, pools of 16 cost 1.3
CALLS_PER_POOL = 16

# An endpoint may ask for more patience than our schedule, but not for the whole night.
MAX_RETRY_AFTER_S = 120.0

# What a body of another form raises when it is read.
NO_COMPLETION = (ValueError, KeyError, TypeError, AttributeError, IndexError)

FailureKind = Literal["limit", "http", "timeout", "unreachable"]
"""429; a server error or a broken connection; no answer in time; nobody there at all."""


class HealingError(Exception):
    """A call that failed in a way that can heal: 429, 5xx, a timeout, a broken connection."""

    def __init__(
        self, words: str, *, kind: FailureKind, limits: Limits | None = None, answered: bool = False
    ) -> None:
        super().__init__(words)
        self.kind, self.limits, self.answered = kind, limits or Limits(), answered


class RefusedError(Exception):
    """A call that would fail again: 400, 401, 403, 404 and their like, or an empty account."""

    def __init__(self, words: str, *, status: int, parameter: str | None = None) -> None:
        super().__init__(words)
        self.status, self.parameter = status, parameter


class OnCall(Protocol):
    """What counts calls."""

    def __call__(self, seconds: float, *, answered: bool) -> None:
        """A call took so long, and was answered or not."""


class JudgeClient:
    """An OpenAI-compatible endpoint behind pools of connections; its own retries are off."""

    def __init__(
        self,
        url: str,
        *,
        api_key: str,
        max_in_flight: int = 64,
        timeout_s: float = CALL_TIMEOUT_S,
        on_call: OnCall | None = None,
    ) -> None:
        """`on_call` is told of every completed or failed call, for counting."""
        self.url, self._key, self._on_call = url.rstrip("/"), api_key, on_call
        self.has_key = api_key != NO_KEY
        n_pools = -(-max_in_flight // CALLS_PER_POOL)
        self._pools = [_open(url, api_key, timeout_s) for _ in range(n_pools)]
        self._busy = [0] * n_pools

    async def complete(self, body: Mapping[str, object]) -> tuple[Reply, Limits]:
        """The reply to a chat completion request; raises HealingError or RefusedError."""
        pool = self._busy.index(min(self._busy))
        self._busy[pool] += 1
        started, answered = time.monotonic(), False
        try:
            # post instead of chat.completions.create: the same client, without building typed
            # objects of the request and the reply, which cost more than the call itself
            response = await self._pools[pool].post(
                "/chat/completions", body=body, cast_to=httpx2.Response
            )
            try:
                reply, answered = read_reply(json.loads(response.content)), True
            except NO_COMPLETION as error:
                # a proxy's page or a cut body under status 200
                words = f"the reply is no chat completion ({error})"
                raise HealingError(words, kind="http") from error
            return reply, read_limits(response.headers)
        except openai.APIError as error:
            # the message, not the error itself: a server may quote the key that it refuses
            raise _classified(error, self._key) from None
        finally:
            self._busy[pool] -= 1
            if self._on_call is not None:
                self._on_call(time.monotonic() - started, answered=answered)

    async def is_up(self) -> bool:
        """Whether anything below a server error answers at the endpoint; costs nothing."""
        try:
            await self._pools[0].get("/models", cast_to=httpx2.Response)
        except openai.APIStatusError as error:
            return error.status_code < 500
        except openai.APIError:
            return False
        return True

    @property
    def api(self) -> AsyncOpenAI:
        """The client itself, for the endpoints other than chat."""
        return self._pools[0]

    def words(self, error: openai.APIError) -> str:
        """What the server said, without our key."""
        return _words(error, self._key)

    async def close(self) -> None:
        """Close every connection."""
        for pool in self._pools:
            await pool.close()


def stop_at_once(client: JudgeClient, error: RefusedError) -> JudgeError:
    """The error that ends a run, with the server's words; without a key of our own it is a
    JudgeNotHereError, for other judge workers may have one."""
    url = client.url
    if error.status in (401, 403) and not client.has_key:
        return JudgeNotHereError(
            f"the judge at {url} asks for a key and none is set here ({error})", advice=SET_A_KEY
        )
    if error.status in (401, 403):
        return JudgeError(f"the judge at {url} refuses our key ({error})", advice=SET_A_KEY)
    if error.status == 429:
        return JudgeError(f"the judge's account at {url} is used up: {error}")
    return JudgeError(f"the judge at {url} refuses the request: {error}")


def read_reply(body: Mapping[str, Any]) -> Reply:
    """A chat completion's body as we keep it; raises NO_COMPLETION for another form."""
    choices = body.get("choices") or [{}]
    message = choices[0].get("message") or {}
    usage = body.get("usage") or {}
    content = (choices[0].get("logprobs") or {}).get("content") or []
    positions = [
        Position(
            token=one["token"],
            candidates=candidates_from_logprobs(
                [(top["token"], top["logprob"]) for top in one.get("top_logprobs") or []]
            ),
        )
        for one in content
    ]
    start = _answer_starts(positions)
    return Reply(
        text=message.get("content") or message.get("refusal") or "",
        candidates=positions[start].candidates if positions else (),
        # a number has three digits at most
        following=tuple(positions[start + 1 : start + 3]) if len(positions) > start + 1 else (),
        refusal=bool(message.get("refusal")) or choices[0].get("finish_reason") == "content_filter",
        finish=choices[0].get("finish_reason") or "",
        model=body.get("model") or "",
        prompt_tokens=int(usage.get("prompt_tokens") or 0),
        completion_tokens=int(usage.get("completion_tokens") or 0),
    )


def read_limits(headers: Mapping[str, str]) -> Limits:
    """The limits that OpenAI-like headers state."""
    retry_after = _number(headers.get("retry-after"))
    if retry_after is None:
        milliseconds = _number(headers.get("retry-after-ms"))
        retry_after = None if milliseconds is None else milliseconds / 1000
    if retry_after is not None:
        retry_after = min(max(retry_after, 0.0), MAX_RETRY_AFTER_S)
    return Limits(
        _number(headers.get("x-ratelimit-limit-requests")),
        _number(headers.get("x-ratelimit-limit-tokens")),
        retry_after,
    )


def _open(url: str, api_key: str, timeout_s: float) -> AsyncOpenAI:
    timeout = httpx2.Timeout(timeout_s, connect=min(CONNECT_TIMEOUT_S, timeout_s))
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=CALLS_PER_POOL + 2)
    return AsyncOpenAI(
        base_url=url,
        api_key=api_key,
        max_retries=0,
        timeout=timeout,
        http_client=DefaultAsyncHttpxClient(limits=limits, timeout=timeout),
    )


def _answer_starts(positions: list[Position]) -> int:
    """Index of the first token of the answer: past white space, at a number where there is one."""
    words = [k for k, one in enumerate(positions) if one.token.strip()]
    numbers = [k for k in words if integer(positions[k].token, top=100) is not None]
    if not words:
        return 0
    # "**85**" and "Score: 85" hold their number later; a number seen first stays the answer
    first = positions[words[0]].candidates
    starts_with_one = any(integer(c.token, top=100) is not None for c in first)
    return numbers[0] if numbers and not starts_with_one else words[0]


def _classified(error: openai.APIError, key: str) -> HealingError | RefusedError:
    if isinstance(error, openai.APITimeoutError):
        return HealingError("no answer in time", kind="timeout")
    if not isinstance(error, openai.APIStatusError):
        unsent = isinstance(error.__cause__, httpx2.ConnectError)
        words = f"{error.message} {error.__cause__ or ''}".strip()[:500]
        return HealingError(words, kind="unreachable" if unsent else "http")
    words, limits = _words(error, key), read_limits(error.response.headers)
    if error.status_code == 429 and error.code != "insufficient_quota":
        return HealingError(words, kind="limit", limits=limits)
    if error.status_code in (408, 409) or error.status_code >= 500:
        words = f"{error.status_code}: {words}"
        return HealingError(words, kind="http", limits=limits, answered=True)
    return RefusedError(words, status=error.status_code, parameter=error.param)


def _words(error: openai.APIError, key: str) -> str:
    body = error.body
    message = body.get("message") if isinstance(body, dict) else None
    words = message if isinstance(message, str) else error.message
    # a key of a few letters is a placeholder, and part of many words
    return (words.replace(key, "...") if len(key) >= 8 else words)[:500]


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None


async def shutdown_date(client: JudgeClient, model: str) -> str | None:
    """The `shutdown_date` of /v1/models; None when the endpoint has no list or states none."""
    try:
        listed = await client.api.models.list()
    except openai.APIError:
        return None
    for one in listed.data:
        if one.id == model:
            # not in the client's own type: most endpoints do not say it
            date = getattr(one, "shutdown_date", None)
            return str(date) if date else None
    return None
