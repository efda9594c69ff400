"""A judge for tests: a real HTTP server whose answers a test scripts and which counts calls."""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from domain.scoring.prices import Charged, Cost, Failed

Answer = Callable[[dict[str, Any], int], Response]
"""(request body, number of this call from 0) -> response."""


class OpenLimiter:
    """Admits every call and remembers nothing."""

    async def admit(self, cost: Cost) -> None:
        pass

    def answered(self, cost: Cost, result: Charged) -> None:
        pass

    async def failed(self, cost: Cost, result: Failed) -> bool:
        return False

    async def flush(self) -> None:
        pass


@dataclass
class HttpJudge:
    """A running server: its URL and what it was asked."""

    url: str
    asked: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    delay_s: float = 0.0
    down: bool = False
    n_waiting: int = 0


@contextlib.contextmanager
def http_judge(answer: Answer, *, host: str = "127.0.0.1") -> Iterator[HttpJudge]:
    """Serve on a free port while the context is open."""
    judge = HttpJudge("")

    async def chat(request: Request) -> Response:
        body = await request.json()
        judge.n_waiting += 1
        try:
            await asyncio.sleep(judge.delay_s)
        finally:
            judge.n_waiting -= 1
        if judge.down:
            return error(503, "The judge is away.")
        judge.asked.append(body)
        judge.keys.append(request.headers.get("authorization", ""))
        return answer(body, len(judge.asked) - 1)

    app = Starlette(routes=[Route("/v1/chat/completions", chat, methods=["POST"])])
    server = uvicorn.Server(
        uvicorn.Config(app, host=host, port=0, log_level="error", lifespan="off", access_log=False)
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.005)
    judge.url = f"http://{host}:{server.servers[0].sockets[0].getsockname()[1]}/v1"
    try:
        yield judge
    finally:
        server.should_exit = True
        thread.join(timeout=5)


def scoring(pairs: list[tuple[str, float]] | None, *, text: str = "50") -> JSONResponse:
    """A chat completion with these first-token probabilities, or none."""
    tops = [{"token": t, "logprob": math.log(p), "bytes": None} for t, p in pairs or []]
    logprobs = {"content": [{**tops[0], "top_logprobs": tops}]} if tops else None
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "finish_reason": "stop", "message": message, "logprobs": logprobs}
    usage = {"prompt_tokens": 7, "completion_tokens": 1, "total_tokens": 8}
    body = {"id": "x", "object": "chat.completion", "created": 0, "model": "test"}
    return JSONResponse({**body, "choices": [choice], "usage": usage})


def error(status: int, message: str, *, code: str | None = None, **headers: str) -> JSONResponse:
    """An error in OpenAI's form."""
    body = {"error": {"message": message, "code": code}}
    return JSONResponse(body, status_code=status, headers=headers)
