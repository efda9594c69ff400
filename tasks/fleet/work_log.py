"""What one worker process has in hand and got done; job threads write, its main loop reads."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from domain.fleet.heartbeats import Rate, RateMeter


@dataclass(frozen=True)
class JobInHand:
    """A job that a worker does, and for how long."""

    run_id: str
    run: str
    job: str
    seconds: float


class JobsInHand:
    """The jobs that one worker process does; job threads write, the main loop reads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # (run id, run, job) -> since when
        self._doing: dict[tuple[str, str, str], float] = {}

    @contextlib.contextmanager
    def doing(self, run_id: str, run: str, job: str) -> Iterator[None]:
        """A job of a run is in hand while the context is open."""
        with self._lock:
            self._doing[run_id, run, job] = time.monotonic()
        try:
            yield
        finally:
            with self._lock:
                self._doing.pop((run_id, run, job), None)

    def now(self) -> list[JobInHand]:
        """Those in hand, longest first."""
        now = time.monotonic()
        with self._lock:
            jobs = [JobInHand(*named, now - began) for named, began in self._doing.items()]
        return sorted(jobs, key=lambda one: -one.seconds)


@dataclass(frozen=True)
class Work:
    """What a worker did over the last minute, or since it began when that is shorter ago; see
    Heartbeat."""

    per_minute: Rate
    busy: float | None
    up_s: float


class WorkLog:
    """What one worker process got done; job threads write, the main loop reads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._started = time.monotonic()
        self._done: Counter[str] = Counter()
        self._meter = RateMeter()
        self._meter.note(self._started, {})
        self._computed: Callable[[], tuple[float, int]] | None = None
        self._calls: list[float] = []
        self._failed_calls = 0

    def note(self, info: Mapping[str, object]) -> None:
        """Take note of the record of a finished job."""
        with self._lock:
            done = {"jobs": 1.0, "samples": samples_in(info), "tokens": tokens_in(info)}
            self._done.update(done)

    def watch_device(self, computed: Callable[[], tuple[float, int]]) -> None:
        """Say from now on how busy a device is and how fast it writes, by the seconds that it has
        computed so far and the tokens that it has drawn."""
        self._computed = computed

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

    def now(self) -> Work:
        """How it goes."""
        now = time.monotonic()
        with self._lock:
            totals = {name: float(self._done[name]) for name in ("jobs", "samples", "tokens")}
        if self._computed is not None:
            # as they are drawn: a job may take minutes
            totals["computed"], totals["tokens"] = self._computed()
        rates = self._meter.note(time.monotonic(), totals)
        busy = min(1.0, rates.pop("computed")) if "computed" in rates else None
        per_minute = Rate(**{name: 60.0 * rate for name, rate in rates.items()})
        return Work(per_minute, busy, up_s=now - self._started)


def samples_in(info: Mapping[str, object]) -> float:
    """Samples that a record says its job carried through: two scorings are one."""
    if "n_verdicts" in info:
        return float(str(info["n_verdicts"])) / 2
    return float(str(info.get("n_samples") or 0))


def tokens_in(info: Mapping[str, object]) -> float:
    """Tokens of responses that a record says its job generated."""
    return float(str(info.get("n_tokens") or 0))
