"""Rooms for jobs in one worker process: many share one, a suspect gets one for itself.

A job that kills its worker takes the jobs beside it along, and they would count the death too.
One that was begun before and never ended therefore runs alone, and only it can die then.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator


class Isolation:
    """Lets jobs in side by side, or one by itself."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._suspects = 0

    @contextlib.contextmanager
    def shared(self) -> Iterator[None]:
        """Come in beside others; waits while a suspect is inside or at the door."""
        with self._changed:
            self._changed.wait_for(lambda: not self._suspects)
            self._inside += 1
        try:
            yield
        finally:
            self._leave()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Come in when all others have left, and keep them out."""
        with self._changed:
            self._suspects += 1
            self._changed.wait_for(lambda: not self._inside)
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._suspects -= 1
            self._leave()

    def _leave(self) -> None:
        with self._changed:
            self._inside -= 1
            self._changed.notify_all()
