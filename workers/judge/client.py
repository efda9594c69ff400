"""One HTTP call to a judge: sends a body, has the reply read, and what the headers say of limits.

No retries here: every failure leaves as one error that says whether it can heal. No redirect is
followed: it would carry the key and the texts to whom nobody chose.
"""

from __future__ import annotations

import asyncio
import functools
import math
import ssl
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, Protocol
from urllib.parse import urlsplit

import aiohttp
import httpx2
import openai
from openai import AsyncOpenAI, DefaultAioHttpClient, DefaultAsyncHttpxClient

from domain.errors import JudgeError, JudgeNotHereError
from domain.redaction import Redactor
from domain.scoring.prices import Limits
from domain.scoring.reply_limits import (
    BATCH_TIMEOUT_S,
    CALL_TIMEOUT_S,
    CONNECT_TIMEOUT_S,
    MAX_BATCH_BYTES,
    MAX_BODY_BYTES,
    MAX_RETRY_AFTER_S,
    MIN_REQUESTS_PER_MINUTE,
    MIN_TOKENS_PER_MINUTE,
)
from domain.scoring.reply_shapes import NoAnswer, read_reply
from domain.scoring.scores import Reply

NOT_FOUND = 404
# Compatible endpoints have it in their paths, /v1beta among them.
VERSION = "/v1"

# What is sent for a key where there is none: servers of one's own ask for nothing.
NO_KEY = "no-key"
SET_A_KEY = "set ORCHESTRATE_JUDGE_API_KEY (or OPENAI_API_KEY) where the judge workers start"

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
    """A call that would fail again: for its text, perhaps for its form, or for good."""

    def __init__(self, said: NoAnswer) -> None:
        super().__init__(said.words)
        self.said, self.status, self.parameter = said, said.status, said.parameter


class OnCall(Protocol):
    """What counts calls."""

    def __call__(self, seconds: float, *, answered: bool) -> None:
        """A call took so long, and was answered or not."""


class JudgeClient:
    """An OpenAI-compatible endpoint and the connections to it; the client's own retries are off."""

    def __init__(
        self,
        url: str,
        *,
        api_key: str,
        max_in_flight: int = 64,
        timeout_s: float = CALL_TIMEOUT_S,
        on_call: OnCall | None = None,
        will_be_closed: bool = True,
    ) -> None:
        """`timeout_s` is all that a call may take, from its first byte to the last of its reply;
        `on_call` is told of every completed or failed call, for counting. Where it may be
        that nobody closes it (not `will_be_closed`) calls are slower, and nothing is said of it."""
        self.url, self._key, self._on_call = url.rstrip("/"), api_key, on_call
        self.has_key = api_key != NO_KEY
        self._transport = _OverAiohttp if will_be_closed else _OverHttpx
        self.hide = Redactor.of([api_key])
        # one more, to look whether it is up
        self._client = self._open(timeout_s, MAX_BODY_BYTES, max_in_flight + 1)

    async def complete(self, body: Mapping[str, object]) -> tuple[Reply, Limits]:
        """The reply to a chat completion request; raises HealingError, RefusedError, or
        JudgeNotHereError for a certificate that is not trusted here."""
        started, answered = time.monotonic(), False
        try:
            response = await self._post(body)
            found = read_reply(response.status_code, response.content, asked=body, hide=self.hide)
            answered, limits = isinstance(found, Reply), read_limits(response.headers)
            if isinstance(found, Reply):
                return found, limits
            if found.kind != "heals":
                raise RefusedError(self._asking_for_version(found))
            raise HealingError(
                found.words,
                kind="limit" if found.is_limit else "http",
                limits=limits,
                # what stands under status 200 may be on the bill, whatever it says
                answered=response.status_code >= 300,
            )
        finally:
            if self._on_call is not None:
                self._on_call(time.monotonic() - started, answered=answered)

    def _asking_for_version(self, said: NoAnswer) -> NoAnswer:
        """What was not found, with the likely cause where the URL ends before its /v1."""
        # a code would come from a server that knows the path
        if (said.kind, said.status) != ("form", NOT_FOUND) or VERSION in urlsplit(self.url).path:
            return said
        return replace(said, words=f"{said.words} (should the judge's URL end in {VERSION}?)")

    async def _post(self, body: Mapping[str, object]) -> httpx2.Response:
        try:
            # post instead of chat.completions.create: the same client, without building typed
            # objects of the request and the reply, which cost more than the call itself
            return await self._client.post("/chat/completions", body=body, cast_to=httpx2.Response)
        except openai.APIStatusError as error:
            return error.response
        except openai.APITimeoutError:
            raise HealingError("no answer in time", kind="timeout") from None
        except openai.APIConnectionError as error:
            untrusted = _certificate_error(error)
            if untrusted is not None:
                raise JudgeNotHereError(
                    f"the certificate of the judge at {self.url} is not trusted here "
                    f"({untrusted.verify_message})",
                    advice="check --judge-url; for an authority of your own set SSL_CERT_FILE",
                ) from None
            unsent = isinstance(error.__cause__, httpx2.ConnectError)
            words = self.hide(f"{error.message} {error.__cause__ or ''}".strip())[:500]
            raise HealingError(words, kind="unreachable" if unsent else "http") from None

    async def is_up(self) -> bool:
        """Whether anything below a server error answers at the endpoint; costs nothing."""
        try:
            await self._client.get("/models", cast_to=httpx2.Response)
        except openai.APIStatusError as error:
            return error.status_code < 500
        except openai.APIError:
            return False
        return True

    @functools.cached_property
    def api(self) -> AsyncOpenAI:
        """The client itself, for the endpoints other than chat, whose files are larger."""
        return self._open(BATCH_TIMEOUT_S, MAX_BATCH_BYTES, 1)

    def _open(self, timeout_s: float, most_bytes: int, n_connections: int) -> AsyncOpenAI:
        timeout = httpx2.Timeout(timeout_s, connect=min(CONNECT_TIMEOUT_S, timeout_s))
        return AsyncOpenAI(
            base_url=self.url,
            api_key=self._key,
            max_retries=0,
            timeout=timeout,
            http_client=self._transport(
                total_s=timeout_s,
                most_bytes=most_bytes,
                limits=httpx2.Limits(max_connections=n_connections),
                timeout=timeout,
                follow_redirects=False,
            ),
        )

    def words(self, error: openai.APIError) -> str:
        """What the server said, without our key."""
        if not isinstance(error, openai.APIStatusError):
            return self.hide(error.message)[:500]
        response = error.response
        found = read_reply(response.status_code, response.content, asked={}, hide=self.hide)
        return found.words if isinstance(found, NoAnswer) else found.text[:500]

    async def close(self) -> None:
        """Close every connection."""
        opened = [self.api] if "api" in self.__dict__ else []
        for client in (self._client, *opened):
            await client.close()


def judge_client_error(client: JudgeClient, error: RefusedError) -> JudgeError:
    """The error that ends a run, with the server's words; without a key of our own it is a
    JudgeNotHereError, for other judge workers may have one."""
    url = client.url
    if error.status in (401, 403) and not client.has_key:
        return JudgeNotHereError(
            f"the judge at {url} asks for a key and none is set here ({error})", advice=SET_A_KEY
        )
    if error.status in (401, 403):
        return JudgeError(f"the judge at {url} refuses our key ({error})", advice=SET_A_KEY)
    if error.status in (402, 429):
        return JudgeError(f"the judge's account at {url} is used up: {error}")
    if 300 <= error.status < 400:
        return JudgeError(
            f"the judge at {url} does not answer there: {error}", advice="give its own --judge-url"
        )
    return JudgeError(f"the judge at {url} refuses the request: {error}")


def read_limits(headers: Mapping[str, str]) -> Limits:
    """The limits that OpenAI-like headers state; those that cannot be are left out."""
    retry_after = _number(headers, "retry-after", least=0.0)
    if retry_after is None:
        milliseconds = _number(headers, "retry-after-ms", least=0.0)
        retry_after = None if milliseconds is None else milliseconds / 1000
    return Limits(
        _number(headers, "x-ratelimit-limit-requests", least=MIN_REQUESTS_PER_MINUTE),
        _number(headers, "x-ratelimit-limit-tokens", least=MIN_TOKENS_PER_MINUTE),
        None if retry_after is None else min(retry_after, MAX_RETRY_AFTER_S),
    )


class _Bounded(httpx2.AsyncClient):
    """An HTTP client whose replies have a deadline and a size, all of them together and unpacked;
    timeouts of the transport begin anew with every byte."""

    def __init__(self, *, total_s: float, most_bytes: int, **settings: Any) -> None:
        super().__init__(**settings)
        self._total_s, self._most_bytes = total_s, most_bytes

    async def send(
        self, request: httpx2.Request, *, stream: bool = False, **settings: Any
    ) -> httpx2.Response:
        """The whole response, also where a stream was asked for; raises ReadTimeout and
        RemoteProtocolError beyond the bounds."""
        try:
            async with asyncio.timeout(self._total_s):
                response = await super().send(request, stream=True, **settings)
                try:
                    body = await self._bounded(response)
                finally:
                    await response.aclose()
        except httpx2.ConnectTimeout as error:
            raise _broken(error, request) from error.__cause__
        except TimeoutError as error:
            raise httpx2.ReadTimeout("no whole reply in time", request=request) from error
        # as it is unpacked
        headers = [
            pair for pair in response.headers.multi_items() if pair[0] not in _HEADERS_OF_TRANSFER
        ]
        return httpx2.Response(response.status_code, headers=headers, content=body, request=request)

    async def _bounded(self, response: httpx2.Response) -> bytes:
        parts, size = [], 0
        async for part in response.aiter_bytes():
            parts.append(part)
            size += len(part)
            if size > self._most_bytes:
                raise httpx2.RemoteProtocolError(
                    f"the reply has more than {self._most_bytes} bytes", request=response.request
                )
        return b"".join(parts)


class _OverAiohttp(_Bounded, DefaultAioHttpClient):
    """Costs less processor time a call, and complains where it was not closed."""


class _OverHttpx(_Bounded, DefaultAsyncHttpxClient):
    """With httpx's own transport."""


def _broken(error: httpx2.ConnectTimeout, request: httpx2.Request) -> httpx2.TransportError:
    """What became of the connection: over aiohttp all that breaks one bears this name."""
    match error.__cause__:
        case aiohttp.ConnectionTimeoutError():
            return error
        case aiohttp.ClientConnectorError() as cause:
            return httpx2.ConnectError(str(cause), request=request)
        case aiohttp.ClientConnectionError() as cause:
            return httpx2.ReadError(str(cause), request=request)
    return error


_HEADERS_OF_TRANSFER = frozenset({"content-encoding", "content-length", "transfer-encoding"})


def _certificate_error(error: BaseException | None) -> ssl.SSLCertVerificationError | None:
    """The certificate's fault behind an error, or None."""
    found = None
    while error is not None:
        # the last one is of ssl itself, and says what it is
        found = error if isinstance(error, ssl.SSLCertVerificationError) else found
        error = error.__cause__ or error.__context__
    return found


def _number(headers: Mapping[str, str], name: str, *, least: float) -> float | None:
    try:
        number = float(headers.get(name) or "nan")
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= least else None


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
