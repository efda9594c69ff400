"""Serves one page on loopback behind a random path, a growing file as server-sent events, and the
state of a run as JSON."""

from __future__ import annotations

import contextlib
import hmac
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from domain.errors import OrchestrateError, UsageError

ADDRESS = "127.0.0.1"

# A name that resolves here could let another site read the page; the port may be a tunnel's.
OUR_NAMES = ("127.0.0.1", "localhost", "::1")

POLL_S = 0.05

# A comment now and then, so that a thread notices that its reader has gone.
HEARTBEAT_S = 10.0

READ_BYTES = 2**20

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class PageServer(ThreadingHTTPServer):
    """Listens on 127.0.0.1; `url` holds the random path without which every answer is 404.

    `make_page` runs at every request for the page, so that a reload shows what the files hold
    by then; an OrchestrateError it raises is shown instead. `followed` is streamed at `events`,
    and what `look` finds is answered as JSON at `state`. Raises UsageError when the port is taken.
    """

    daemon_threads = True

    def __init__(
        self,
        make_page: Callable[[], str],
        *,
        port: int = 0,
        followed: Path | None = None,
        look: Callable[[], Mapping[str, object]] | None = None,
    ) -> None:
        self.make_page = make_page
        self.followed = followed
        self.look = look
        self.secret_path = f"/{secrets.token_urlsafe(16)}/"
        try:
            super().__init__((ADDRESS, port), _Handler)
        except OSError as error:
            raise UsageError(
                f"cannot listen on {ADDRESS}:{port} ({error.strerror}): choose another --port"
            ) from error

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{ADDRESS}:{self.server_address[1]}{self.secret_path}"


class _Handler(BaseHTTPRequestHandler):
    server: PageServer

    def do_GET(self) -> None:
        """Answer the page, its stream, or 403 and 404."""
        # a browser that leaves in the middle of an answer is no error
        with contextlib.suppress(ConnectionError):
            self._route()

    def _route(self) -> None:
        if _host_name(self.headers.get("Host", "")) not in OUR_NAMES:
            self._answer(403, "text/plain", "This server answers to localhost only.")
            return
        path = urlsplit(self.path).path
        look, make_page = self.server.look, self.server.make_page
        if _is_same(path, self.server.secret_path):
            self._made("text/html", make_page)
        elif _is_same(path, f"{self.server.secret_path}state") and look:
            self._made("application/json", lambda: json.dumps(look(), allow_nan=False))
        elif _is_same(path, f"{self.server.secret_path}events") and self.server.followed:
            self._stream(self.server.followed)
        else:
            self._answer(404, "text/plain", "Open the address that `orchestrate view` printed.")

    def _made(self, kind: str, make: Callable[[], str]) -> None:
        try:
            body = make()
        except OrchestrateError as error:
            self._answer(500, "text/plain", str(error))
            return
        self._answer(200, kind, body)

    def _answer(self, status: int, kind: str, text: str) -> None:
        body = text.encode("utf-8")
        self._head(status, kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _head(self, status: int, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        for name, value in HEADERS.items():
            self.send_header(name, value)

    def _stream(self, followed: Path) -> None:
        last = self.headers.get("Last-Event-ID", "0")
        self._head(200, "text/event-stream")
        self.end_headers()
        for event in follow_events(followed, int(last[:18]) if last.isdecimal() else 0):
            self.wfile.write(event)
            self.wfile.flush()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the request line holds the secret path."""


def follow_events(
    path: Path, offset: int = 0, *, sleep: Callable[[float], None] = time.sleep
) -> Iterator[bytes]:
    """Server-sent events, one for each complete line of `path` from byte `offset` on, for ever.

    An event's id is the offset behind its line: a reader that comes back names it and goes on from
    there. A file that shrank or was replaced begins anew with a `reset` event. A missing file is
    waited for.
    """
    inode: int | None = None
    quiet_s = 0.0
    while True:
        found = _stat(path)
        if found and (found.st_size < offset or inode not in (None, found.st_ino)):
            offset = 0
            yield b"event: reset\ndata:\n\n"
        if found:
            inode = found.st_ino
        block = _complete_lines(path, offset) if found and found.st_size > offset else b""
        if block:
            yield b"".join(_events(block, offset))
            offset += len(block)
            quiet_s = 0.0
            continue
        if quiet_s >= HEARTBEAT_S:
            yield b": still here\n\n"
            quiet_s = 0.0
        sleep(POLL_S)
        quiet_s += POLL_S


def _complete_lines(path: Path, offset: int) -> bytes:
    """Whole lines from `offset` on, about a megabyte at most; a line still being written is not."""
    with path.open("rb") as file:
        file.seek(offset)
        block = file.read(READ_BYTES)
        if len(block) == READ_BYTES:
            block += file.readline()
    return block[: block.rfind(b"\n") + 1]


def _events(block: bytes, offset: int) -> Iterator[bytes]:
    for line in block.splitlines(keepends=True):
        offset += len(line)
        text = line.strip()
        if text:
            yield b"id: %d\ndata: %b\n\n" % (offset, text)


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _host_name(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


def _is_same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), wanted.encode("utf-8"))
