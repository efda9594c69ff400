"""An endpoint that answers every chat completion the same after a latency, at little CPU itself.

    python benchmarks/judge_endpoint.py 0.3

Prints its URL, then serves. It reads no more of a request than where it ends.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.lean_judge import completion

LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


class Endpoint(asyncio.Protocol):
    """One connection."""

    def __init__(self, answer: bytes, latency_s: float) -> None:
        self._answer, self._latency_s, self._buffer = answer, latency_s, b""
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: Any) -> None:
        """Keep where to write."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer every request that is whole, after the latency."""
        self._buffer += data
        while (head := self._buffer.find(b"\r\n\r\n")) >= 0:
            length = LENGTH.search(self._buffer, 0, head)
            end = head + 4 + (int(length[1]) if length else 0)
            if len(self._buffer) < end:
                return
            self._buffer = self._buffer[end:]
            self._loop.call_later(self._latency_s, self._transport.write, self._answer)


async def serve(latency_s: float) -> None:
    """Serve until the process is ended."""
    tops = [(str(number), -1.0 - number / 10) for number in range(20)]
    body = json.dumps(completion([tops])).encode()
    head = f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    answer = b"HTTP/1.1 200 OK\r\n" + head.encode() + body
    server = await asyncio.get_running_loop().create_server(
        lambda: Endpoint(answer, latency_s), "127.0.0.1", 0, backlog=2048
    )
    sys.stdout.write(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1\n")
    sys.stdout.flush()
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(float(sys.argv[1])))
