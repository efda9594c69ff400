"""A redis-server that a test can kill, restart and configure."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import redis

from storage.broker.embedded_redis import die_with_parent, find_redis_server


class RedisProcess:
    """One server on a fixed loopback port, with or without an append-only file."""

    def __init__(
        self,
        folder: Path,
        *,
        persistent: bool = False,
        user: str = "",
        password: str = "for-tests-only",
        users: Path | None = None,
        host: str = "127.0.0.1",
        prefix: Sequence[str] = (),
    ) -> None:
        self.folder, self.host, self._prefix = folder, host, prefix
        self._user, self.password, self._users = user, password, users
        self.persistent = persistent
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def url(self) -> str:
        """The URL of the default user."""
        return f"redis://{self._user}:{self.password}@{self.host}:{self.port}/0"

    def start(self) -> None:
        """Start it and wait until it answers."""
        lines = [
            f"port {self.port}",
            f"bind {self.host}",
            f"aclfile {self._users}" if self._users else f"requirepass {self.password}",
            'save ""',
            f"appendonly {'yes' if self.persistent else 'no'}",
            "appendfsync always",
            f"dir {self.folder}",
        ]
        config = self.folder / "redis.conf"
        config.write_text("\n".join(lines) + "\n")
        with (self.folder / "redis.log").open("ab") as output:
            self._process = subprocess.Popen(
                [*self._prefix, str(find_redis_server()), str(config)],
                stdout=output,
                stderr=subprocess.STDOUT,
                preexec_fn=die_with_parent,
            )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                with self.client() as client:
                    client.ping()
                    return
            except redis.RedisError:
                time.sleep(0.02)
        raise RuntimeError((self.folder / "redis.log").read_text()[-800:])

    def client(self) -> redis.Redis:
        """A connection as the default user."""
        return redis.Redis.from_url(self.url, socket_timeout=30)

    def kill(self) -> None:
        """End it at once, as a crash would."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
