"""What one worker process has in hand and got done lately, for its card and for the run's counts.

Knows nothing of Celery or Redis.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping

from orchestrator.fleet import Rate
from tasks.busy_share import BusyShare

WINDOW_S = 60.0


class WorkLog:
    """Written by job threads, read by the main loop."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._started = time.monotonic()
        self._doing: dict[tuple[str, str], float] = {}
        self._done: deque[tuple[float, Rate]] = deque()
        self._device: BusyShare | None = None
        self._calls: list[float] = []
        self._failed_calls = 0

    @contextlib.contextmanager
    def doing(self, run: str, job: str) -> Iterator[None]:
        """A job of a run is in hand while the context is open."""
        with self._lock:
            self._doing[run, job] = time.monotonic()
        try:
            yield
        finally:
            with self._lock:
                self._doing.pop((run, job), None)

    def note(self, info: Mapping[str, object]) -> None:
        """Take note of the record of a finished job."""
        with self._lock:
            self._done.append((time.monotonic(), Rate(1.0, samples_in(info), tokens_in(info))))

    def watch_device(self, computed_s: Callable[[], float]) -> None:
        """Say from now on how busy a device is, by the seconds that it has computed so far."""
        self._device = BusyShare(computed_s)

    def call(self, seconds: float, *, answered: bool) -> None:
        """Take note of a call of the judge."""
        with self._lock:
            if answered:
                self._calls.append(seconds)
            else:
                self._failed_calls += 1

    def take_calls(self) -> tuple[list[float], int]:
        """Seconds of the calls answered since the last time, and how many failed."""
        with self._lock:
            taken, self._calls = (self._calls, self._failed_calls), []
            self._failed_calls = 0
        return taken

    def in_hand(self) -> tuple[tuple[str, str, float], ...]:
        """(run, job, seconds) of what is in hand, longest first."""
        now = time.monotonic()
        with self._lock:
            found = [(run, job, now - began) for (run, job), began in self._doing.items()]
        return tuple(sorted(found, key=lambda one: -one[2]))

    def per_minute(self) -> Rate:
        """What was done over the last minute, or since the start when that is shorter ago."""
        now = time.monotonic()
        with self._lock:
            while self._done and now - self._done[0][0] > WINDOW_S:
                self._done.popleft()
            rates = [rate for _, rate in self._done]
        scale = 60.0 / max(min(WINDOW_S, now - self._started), 1.0)
        return Rate(
            scale * sum(r.jobs for r in rates),
            scale * sum(r.samples for r in rates),
            scale * sum(r.tokens for r in rates),
        )

    def busy(self) -> float | None:
        """The share of the last minute that the device computed; None for a worker without one."""
        return None if self._device is None else self._device.share()

    def up_s(self) -> float:
        """Seconds since the process began."""
        return time.monotonic() - self._started


def samples_in(info: Mapping[str, object]) -> float:
    """Samples that a record says its job carried through: two verdicts are one."""
    if "n_verdicts" in info:
        return float(str(info["n_verdicts"])) / 2
    return float(str(info.get("n_samples") or 0))


def tokens_in(info: Mapping[str, object]) -> float:
    """Tokens of responses that a record says its job generated."""
    return float(str(info.get("n_tokens") or 0))
