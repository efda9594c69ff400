"""A judge for tests on bare asyncio: cheap, and able to hang or to cut a line."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

HANG_S = 3600.0


@dataclass
class Call:
    """One request as it came."""

    path: str
    body: dict[str, Any]
    at: float
    key: str = ""


@dataclass(frozen=True)
class Action:
    """What the server does with a call: an answer after a delay, or silence, or a cut line; a body
    that is text goes out as it is."""

    body: Any = field(default_factory=dict)
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    kind: Literal["answer", "hang", "cut"] = "answer"


Decide = Callable[[Call, int], Action]
"""(call, number of this call from 0) -> action."""


@dataclass
class LeanJudge:
    """A running server: its URL and the calls it got; `actions` says what became of each."""

    url: str = ""
    calls: list[Call] = field(default_factory=list)
    actions: list[Action] = field(default_factory=list)
    server: asyncio.Server | None = None
    transports: list[Any] = field(default_factory=list)


@contextlib.contextmanager
def lean_judge(decide: Decide, *, port: int = 0) -> Iterator[LeanJudge]:
    """Serve on a loopback port from a thread while the context is open."""
    judge, loop, is_up = LeanJudge(), asyncio.new_event_loop(), threading.Event()

    async def serve() -> None:
        judge.server = await _listen(judge, decide, port)
        is_up.set()

    def run() -> None:
        loop.run_until_complete(serve())
        loop.run_forever()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert is_up.wait(60)
    try:
        yield judge
    finally:
        loop.call_soon_threadsafe(_close, judge, loop)
        thread.join(timeout=60)
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.close()


def _close(judge: LeanJudge, loop: asyncio.AbstractEventLoop) -> None:
    """Stop listening and drop every line, as a server does that dies."""
    assert judge.server is not None
    judge.server.close()
    for transport in judge.transports:
        transport.abort()
    loop.call_later(0.05, loop.stop)


async def _listen(judge: LeanJudge, decide: Decide, port: int) -> asyncio.Server:
    server = await asyncio.get_running_loop().create_server(
        lambda: _Connection(judge, decide), "127.0.0.1", port, backlog=2048
    )
    judge.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    return server


class _Connection(asyncio.Protocol):
    def __init__(self, judge: LeanJudge, decide: Decide) -> None:
        self._judge, self._decide, self._buffer = judge, decide, b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._judge.transports.append(transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end].decode("latin-1")
            lines = [line.partition(":") for line in head.split("\r\n")[1:]]
            headers = {name.lower(): value.strip() for name, _, value in lines}
            length = int(headers.get("content-length", 0))
            if len(self._buffer) < end + 4 + length:
                return
            body = self._buffer[end + 4 : end + 4 + length]
            self._buffer = self._buffer[end + 4 + length :]
            self._handle(head.split(" ")[1], headers, body)

    def _handle(self, path: str, headers: dict[str, str], body: bytes) -> None:
        judge = self._judge
        parsed = json.loads(body) if headers.get("content-type") == "application/json" else {}
        call = Call(path, parsed, time.monotonic(), headers.get("authorization", ""))
        judge.calls.append(call)
        action = self._decide(call, len(judge.calls) - 1)
        judge.actions.append(action)
        if action.kind == "hang":
            return
        if action.kind == "cut":
            self._transport.abort()
            return
        loop = asyncio.get_running_loop()
        data = _response(action)
        if action.delay_s:
            loop.call_later(action.delay_s, self._write, data)
        else:
            self._write(data)

    def _write(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)


def _response(action: Action) -> bytes:
    sent = action.body if isinstance(action.body, str) else json.dumps(action.body)
    body = sent.encode()
    headers = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        **action.headers,
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {action.status} X\r\n{lines}\r\n".encode() + body


def completion(
    positions: list[list[tuple[str, float]]] | None,
    *,
    text: str | None = None,
    prompt_tokens: int = 100,
    completion_tokens: int = 1,
    finish: str = "stop",
    model: str = "test",
) -> dict[str, Any]:
    """A chat completion; positions are each token's (token, log probability) alternatives, the
    taken one first."""
    content = None
    if positions is not None:
        content = [
            {**_token(*tops[0]), "top_logprobs": [_token(*top) for top in tops]}
            for tops in positions
        ]
        text = "".join(tops[0][0] for tops in positions) if text is None else text
    choice = {
        "index": 0,
        "finish_reason": finish,
        "message": {"role": "assistant", "content": text or ""},
        "logprobs": None if content is None else {"content": content},
    }
    usage = {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }
    head = {"id": "x", "object": "chat.completion", "created": 0, "model": model}
    return {**head, "choices": [choice], "usage": usage}


def refusal(status: int, message: str, **headers: str) -> Action:
    """An error in OpenAI's form."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Action({"error": {"message": message}}, status, named)


def _token(text: str, logprob: float) -> dict[str, Any]:
    return {"token": text, "logprob": logprob, "bytes": list(text.encode())}
