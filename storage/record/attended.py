"""The note in a run's folder that a command with workers of its own works there.

Its broker is private, so nothing else tells other commands that the run is under way.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator

from pydantic import ValidationError

from domain.errors import StoreError
from domain.plan.spec import Frozen
from storage.record.store import Store

KEY = "command.json"
EVERY_S = 10.0

# One that is older was left by a command that was killed.
STALE_S = 60.0


class Attended(Frozen):
    """Who works on the run: a process of a host, since when, and when it last said so."""

    host: str
    pid: int
    since: float
    at: float

    @property
    def is_alive(self) -> bool:
        """Whether it works still, as far as can be told from this machine."""
        if time.time() - self.at > STALE_S:
            return False
        if self.host == socket.gethostname():
            try:
                os.kill(self.pid, 0)
            except ProcessLookupError:
                return False
            except PermissionError:
                return True
        return True


@contextlib.contextmanager
def attending(store: Store) -> Iterator[Callable[[], None]]:
    """The note stands while the context is open; what is yielded keeps it fresh and may be called
    as often as wanted. A store that takes no note spoils no run."""
    since, next_note = time.time(), 0.0

    def stay() -> None:
        nonlocal next_note
        if time.monotonic() >= next_note:
            next_note = time.monotonic() + EVERY_S
            note = Attended(host=socket.gethostname(), pid=os.getpid(), since=since, at=time.time())
            with contextlib.suppress(StoreError):
                store.write(KEY, note.model_dump_json().encode())

    stay()
    try:
        yield stay
    finally:
        with contextlib.suppress(StoreError):
            store.delete(KEY)


def read_attended(store: Store) -> Attended | None:
    """Who works on the run; None where nobody does, and where the note was left behind."""
    try:
        note = Attended.model_validate_json(store.read(KEY))
    except (KeyError, ValidationError):
        return None
    return note if note.is_alive else None
