"""What an attack is tried on: a planted key, and a listener that it must not reach."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.fleet import run_command

KEY = "planted-0123456789-abcdef-key"


@dataclass
class Listener:
    """A server of the attacker's and everything that it was sent."""

    url: str = ""
    heard: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return "\n".join(self.heard)


@contextlib.contextmanager
def listener(answer: bytes = b"{}", status: int = 200) -> Iterator[Listener]:
    """Listen on loopback while the context is open."""
    found = Listener()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            found.heard.append(f"{self.requestline}\n{self.headers}\n{body.decode()}")
            self.send_response(status)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_POST

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    found.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()


def in_folder(
    folder: Path, *arguments: str, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """The command in a folder, by somebody whose key stands in the environment."""
    return run_command(
        *arguments, cwd=folder, environment={"OPENAI_API_KEY": KEY, **(environment or {})}
    )


def processes_with(mark: str) -> dict[int, dict[str, str]]:
    """pid -> environment of this machine's processes that have a mark in it."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            raw = (folder / "environ").read_bytes().decode(errors="replace").split("\0")
            environment = dict(one.partition("=")[::2] for one in raw)
            if mark in environment.values():
                found[int(folder.name)] = environment
    found.pop(os.getpid(), None)
    return found


def wait_until(condition: object, *, within_s: float) -> bool:
    """Whether a condition comes true in time."""
    assert callable(condition)
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.1)
    return bool(condition())
