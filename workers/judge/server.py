"""The local judge: `/v1/models` and `/v1/chat/completions` with logprobs, over a backend.

It speaks OpenAI's protocol, so the real client is the only judge path in the code. The built-in
backend measures: by the formula of a trait that has one, else style markers of the demo traits (see
demo/scorer_weights/README.md).
"""

from __future__ import annotations

import hmac
import math
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from demo.scorer import KNOWN_TRAITS, demo_coherence_score, demo_trait_score
from domain.errors import JudgeError, OrchestrateError
from domain.traits.judge_prompt import named_trait
from domain.traits.measure import measure_of
from workers.judge.measures import score_by

MODEL_NAME = "embedded-judge"

# A real judge is not certain to the point; neither is the stand-in.
SPREAD = 2.5
MAX_TOP_LOGPROBS = 20

# A small model that goes in circles ends there: minutes on a processor.
MOST_WRITTEN_TOKENS = 1500

LOOPBACK = ("127.0.0.1", "localhost", "::1")

# A judge's prompt holds one response; the longest context of today's models is a few MiB of text.
MOST_BYTES = 8 << 20

_TEXTS = re.compile(
    r"\[QUESTION START\]\s*(?P<question>.*?)\s*\[QUESTION END\]"
    r".*?\[ANSWER START\]\n?(?P<answer>.*)\n?\[ANSWER END\]",
    re.DOTALL,
)


@dataclass(frozen=True)
class ServerReply:
    """A judge's answer: reply tokens with their probabilities, the likeliest first."""

    candidates: Sequence[tuple[str, float]]
    prompt_tokens: int


@dataclass(frozen=True)
class WrittenReply:
    """A text in answer to a prompt, and whether it broke off at the most tokens."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    is_cut: bool


Backend = Callable[[str], Awaitable[ServerReply]]
"""Scores the user's prompt; raises OrchestrateError for one it cannot judge."""

Writer = Callable[[str, int], Awaitable[WrittenReply]]
"""Answers the user's prompt with a text of at most so many tokens."""


class Message(BaseModel):
    """One turn of the chat."""

    role: str
    content: str


class ChatRequest(BaseModel):
    """The part of OpenAI's request that we read; the rest is accepted and ignored."""

    model_config = ConfigDict(extra="ignore")

    model: str
    messages: list[Message] = Field(min_length=1)
    logprobs: bool = False
    top_logprobs: int = Field(default=0, ge=0, le=MAX_TOP_LOGPROBS)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)


def make_server(
    backend: Backend, *, model_name: str, api_key: str | None = None, writer: Writer | None = None
) -> Starlette:
    """The application; with an api_key, requests must carry it as a bearer token.

    Who asks for logprobs is scored by the backend, and without a `writer` so is everybody.
    """

    async def models(request: Request) -> JSONResponse:
        body = {"id": model_name, "object": "model", "created": 0, "owned_by": "orchestrate"}
        return JSONResponse({"object": "list", "data": [body]})

    async def chat(request: Request) -> JSONResponse:
        sent = request.headers.get("authorization", "").encode()
        if api_key is not None and not hmac.compare_digest(sent, f"Bearer {api_key}".encode()):
            return _error(401, "the judge server was started with a key and this is not it")
        # without one we serve whoever is here, but no web page that has its own name lead to us
        if api_key is None and request.url.hostname not in LOOPBACK:
            return _error(403, "this judge server is asked as 127.0.0.1 or localhost")
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > MOST_BYTES:
                return _error(413, f"a request has at most {MOST_BYTES >> 20} MiB")
        try:
            asked = ChatRequest.model_validate_json(bytes(body))
        except ValidationError as error:
            return _error(400, f"not a chat completion request: {error.errors()[0]['msg']}")
        if asked.model != model_name:
            return _error(404, f"this server judges as {model_name!r}, not {asked.model!r}")
        prompt = asked.messages[-1].content
        try:
            if writer is not None and not asked.logprobs:
                most = asked.max_completion_tokens or asked.max_tokens or MOST_WRITTEN_TOKENS
                written = await writer(prompt, min(most, MOST_WRITTEN_TOKENS))
                return JSONResponse(_written(asked, written))
            return JSONResponse(_completion(asked, await backend(prompt)))
        except OrchestrateError as error:
            return _error(400, str(error))

    return Starlette(
        routes=[Route("/v1/models", models), Route("/v1/chat/completions", chat, methods=["POST"])]
    )


def _completion(asked: ChatRequest, reply: ServerReply) -> dict[str, object]:
    logprobs = None
    if asked.logprobs:
        tops = [_token(t, p) for t, p in reply.candidates[: asked.top_logprobs]]
        logprobs = {"content": [{**_token(*reply.candidates[0]), "top_logprobs": tops}]}
    return _body(asked, reply.candidates[0][0], (reply.prompt_tokens, 1), logprobs=logprobs)


def _written(asked: ChatRequest, reply: WrittenReply) -> dict[str, object]:
    tokens = (reply.prompt_tokens, reply.completion_tokens)
    return _body(asked, reply.text, tokens, finish="length" if reply.is_cut else "stop")


def _body(
    asked: ChatRequest,
    text: str,
    n_tokens: tuple[int, int],
    *,
    finish: str = "stop",
    logprobs: object = None,
) -> dict[str, object]:
    choice = {
        "index": 0,
        "finish_reason": finish,
        "message": {"role": "assistant", "content": text},
        "logprobs": logprobs,
    }
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": asked.model,
        "choices": [choice],
        "usage": {
            "prompt_tokens": n_tokens[0],
            "completion_tokens": n_tokens[1],
            "total_tokens": sum(n_tokens),
        },
    }


def _token(text: str, probability: float) -> dict[str, object]:
    logprob = math.log(max(probability, 1e-30))
    return {"token": text, "logprob": logprob, "bytes": list(text.encode())}


def _error(status: int, message: str) -> JSONResponse:
    kind = "invalid_request_error" if status < 500 else "server_error"
    body = {"error": {"message": message, "type": kind, "param": None, "code": None}}
    return JSONResponse(body, status_code=status)


async def embedded_backend(prompt: str) -> ServerReply:
    """Scores by the formula that the prompt begins with, else a demo trait; raises JudgeError for
    what it cannot judge."""
    texts, trait = _TEXTS.search(prompt), named_trait(prompt)
    try:
        measure = measure_of(prompt)
    except ValidationError as error:
        raise JudgeError(f"the formula cannot be read: {error.errors()[0]['msg']}") from error
    if measure is not None and texts is not None:
        score = score_by(measure, texts["answer"])
        return ServerReply(candidates=exactly(score), prompt_tokens=len(prompt) // 4)
    if texts is None or trait is None:
        raise JudgeError(
            "the embedded judge reads only prompts that name a **trait** and hold [QUESTION START] "
            "... [ANSWER END] marks: set --judge-url and --judge-model to a real judge"
        )
    question, answer = texts["question"], texts["answer"]
    if trait == "coherence":
        score = demo_coherence_score(question=question, answer=answer)
    elif trait in KNOWN_TRAITS:
        score = demo_trait_score(trait, question=question, answer=answer)
    else:
        raise JudgeError(
            f"the embedded judge knows only the demo traits, not {trait!r}: set --judge-url and "
            "--judge-model to a real judge, or start one with `orchestrate judge-server --model`"
        )
    return ServerReply(candidates=spread_over_numbers(score), prompt_tokens=len(prompt) // 4)


def exactly(score: float) -> list[tuple[str, float]]:
    """Probabilities of the two integers beside a score, whose mean is the score."""
    below = math.floor(score)
    pair = [(str(below), 1 - (score - below)), (str(below + 1), score - below)]
    return sorted((one for one in pair if one[1] > 0), key=lambda one: -one[1])


def spread_over_numbers(score: float) -> list[tuple[str, float]]:
    """Probabilities of the integer tokens around a score, summing to 1, the likeliest first."""
    near = range(max(0, math.floor(score) - 8), min(100, math.ceil(score) + 8) + 1)
    weights = {n: math.exp(-0.5 * ((n - score) / SPREAD) ** 2) for n in near}
    total = sum(weights.values())
    ranked = sorted(weights.items(), key=lambda pair: -pair[1])
    return [(str(n), weight / total) for n, weight in ranked]
