"""The judge: asks an OpenAI-compatible endpoint for verdicts, and retries what can heal.

Knows nothing of queues, runs or thresholds; is given its client and its way to sleep.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

import openai
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletion
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    stop_after_attempt,
)
from tenacity.wait import wait_random_exponential

from orchestrator.errors import JudgeError
from orchestrator.run_spec import Frozen
from orchestrator.scores import (
    Evidence,
    Unscored,
    Verdict,
    candidates_from_logprobs,
    score_0_100,
)

# The seeds' schedule: an attempt at once, then waits of up to 1, 2, 4 and 8 s.
ATTEMPTS = 5
MAX_WAIT_S = 8.0
# An endpoint may ask for more patience than our schedule, but not for the whole night.
MAX_RETRY_AFTER_S = 120.0
CALL_TIMEOUT_S = 60.0

HEALING = (
    openai.RateLimitError,
    openai.InternalServerError,
    openai.APITimeoutError,
    openai.APIConnectionError,
)
Sleep = Callable[[float], Awaitable[None]]


class RequestShape(Frozen):
    """The request that an endpoint accepts and answers with token probabilities."""

    token_parameter: str = "max_tokens"
    n_tokens: int = 1
    top_logprobs: int = 20
    temperature: bool = True
    seed: bool = True
    reasoning_effort: str | None = None

    def arguments(self) -> dict[str, object]:
        """Keyword arguments of `chat.completions.create`."""
        found: dict[str, object] = {
            self.token_parameter: self.n_tokens,
            "logprobs": True,
            "top_logprobs": self.top_logprobs,
        }
        if self.temperature:
            found["temperature"] = 0
        if self.seed:
            found["seed"] = 0
        if self.reasoning_effort is not None:
            found["reasoning_effort"] = self.reasoning_effort
        return found


SHAPES = (
    RequestShape(),
    RequestShape(top_logprobs=5),
    RequestShape(
        token_parameter="max_completion_tokens",
        n_tokens=16,
        top_logprobs=5,
        temperature=False,
        seed=False,
        reasoning_effort="none",
    ),
)
"""Tried in this order: the classic request, a server with fewer alternatives, newer hosted models."""


class Judge:
    """One endpoint and model, with a bound on the calls in flight."""

    def __init__(
        self,
        client: AsyncOpenAI,
        model: str,
        *,
        shape: RequestShape = SHAPES[0],
        max_in_flight: int = 64,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._client, self._model, self._shape, self._sleep = client, model, shape, sleep
        self._slots = asyncio.Semaphore(max_in_flight)

    async def verdicts(self, prompts: Sequence[str]) -> list[Verdict]:
        """The verdict on each prompt, in order; raises JudgeError when asking on is pointless."""
        try:
            async with asyncio.TaskGroup() as group:
                asked = [group.create_task(self._verdict(prompt)) for prompt in prompts]
        except ExceptionGroup as failed:
            # one refusal stops the shard; the others are the same refusal again
            raise failed.exceptions[0] from failed
        return [task.result() for task in asked]

    async def probe(self, prompts: Mapping[str, str]) -> RequestShape:
        """The first request shape that is answered with token probabilities, tried on one prompt,
        then used for all of them, so that an unknown trait is found before anything is generated.

        Raises JudgeError with the server's words when none works.
        """
        first = next(iter(prompts.values()))
        refusals: list[str] = []
        for shape in SHAPES:
            try:
                completion = await self._create(first, shape)
            except openai.BadRequestError as error:
                refusals.append(_words(error))
                continue
            except openai.APIError as error:
                raise _unusable(self._client, error) from error
            if _has_logprobs(completion):
                await self._check_each(prompts, shape)
                return shape
            refusals.append("answered without token probabilities (logprobs)")
        raise JudgeError(
            f"the judge {self._model} at {self._client.base_url} cannot give a score: "
            f"{'; '.join(dict.fromkeys(refusals))}. Choose a judge whose API returns logprobs, or "
            "start one with `orchestrate judge-server --model ...`"
        )

    async def _check_each(self, prompts: Mapping[str, str], shape: RequestShape) -> None:
        for name, prompt in prompts.items():
            try:
                await self._create(prompt, shape)
            except openai.APIError as error:
                raise JudgeError(
                    f"the judge refused the prompt of {name}: {_words(error)}"
                ) from error

    async def _verdict(self, prompt: str) -> Verdict:
        async with self._slots:
            attempts = 0
            try:
                async for attempt in AsyncRetrying(
                    stop=stop_after_attempt(ATTEMPTS),
                    wait=_wait,
                    retry=retry_if_exception_type(HEALING),
                    sleep=self._sleep,
                    reraise=True,
                ):
                    with attempt:
                        attempts += 1
                        completion = await self._create(prompt, self._shape)
            except openai.APITimeoutError as error:
                return Unscored(reason="timeout", detail=_words(error))
            except HEALING as error:
                return Unscored(reason="http", detail=_words(error))
            except openai.APIError as error:
                raise _unusable(self._client, error) from error
        return score_0_100(evidence(completion, attempts))

    async def _create(self, prompt: str, shape: RequestShape) -> ChatCompletion:
        # the overloads of the SDK do not accept a mapping of keyword arguments
        create: Callable[..., Awaitable[ChatCompletion]] = self._client.chat.completions.create
        return await create(
            model=self._model,
            messages=[{"role": "user", "content": prompt}],
            **shape.arguments(),
        )


def open_client(url: str, *, api_key: str) -> AsyncOpenAI:
    """A client whose own retries are off: tenacity's loop is the only one."""
    return AsyncOpenAI(base_url=url, api_key=api_key, max_retries=0, timeout=CALL_TIMEOUT_S)


def evidence(completion: ChatCompletion, attempts: int) -> Evidence:
    """What the judge answered, as we keep it."""
    choice = completion.choices[0] if completion.choices else None
    content = choice.logprobs.content if choice and choice.logprobs else None
    usage = completion.usage
    return Evidence(
        reply=(choice.message.content or "") if choice else "",
        candidates=candidates_from_logprobs(
            [(top.token, top.logprob) for top in content[0].top_logprobs] if content else []
        ),
        model=completion.model,
        prompt_tokens=usage.prompt_tokens if usage else 0,
        completion_tokens=usage.completion_tokens if usage else 0,
        attempts=attempts,
    )


def _has_logprobs(completion: ChatCompletion) -> bool:
    return bool(evidence(completion, 1).candidates)


_backoff = wait_random_exponential(multiplier=1, max=MAX_WAIT_S)


def _wait(state: RetryCallState) -> float:
    """Seconds to wait: what the server asked for, else exponential with jitter."""
    asked = _retry_after(state.outcome.exception() if state.outcome else None)
    return asked if asked is not None else _backoff(state)


def _retry_after(error: BaseException | None) -> float | None:
    if not isinstance(error, openai.APIStatusError):
        return None
    try:
        seconds = float(error.response.headers.get("retry-after", ""))
    except ValueError:
        return None
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_S)


def _unusable(client: AsyncOpenAI, error: openai.APIError) -> JudgeError:
    where = str(client.base_url)
    if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
        return JudgeError(
            f"the judge at {where} refuses our key ({_words(error)}): set "
            "ORCHESTRATE_JUDGE_API_KEY (or OPENAI_API_KEY) where the judge workers start"
        )
    if isinstance(error, openai.APIConnectionError):
        return JudgeError(f"no judge answers at {where}: check --judge-url and that it is running")
    return JudgeError(f"the judge at {where} refuses the request: {_words(error)}")


def _words(error: openai.APIError) -> str:
    body = error.body
    if isinstance(body, dict) and isinstance(body.get("message"), str):
        return str(body["message"])[:500]
    return error.message[:500]
