"""What a fleet looks like from the broker: runs that want work done, and workers that do it.

A worker leaves a heartbeat every few seconds, and says so when it declines a run.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

WorkerKind = Literal["gpu", "judge", "reduce"]
QUEUES: tuple[WorkerKind, ...] = ("gpu", "judge", "reduce")
"""The kinds of workers, and the queue that every worker of a kind listens to."""

LOWEST, HIGHEST = -100, 100


@dataclass(frozen=True)
class ListedRun:
    """A run on the broker; `model` is what a GPU worker has to have loaded for it.

    `samples` are all that go through its stages at most, those of tests too; `since` is when it
    came, in seconds since 1970 by the broker's clock.
    """

    run_id: str
    name: str
    url: str
    model: str
    priority: int = 0
    paused: bool = False
    samples: int = 0
    since: float = 0.0


@dataclass(frozen=True)
class Demand:
    """A run, how many of its jobs wait for one kind of worker, and the workers that declined it."""

    run: ListedRun
    waiting: int
    declined_by: frozenset[str] = frozenset()


WINDOW_S = 60.0
"""Rates are over this: long enough to be steady, short enough to show a stall."""


class RateMeter:
    """Rates over the last minute of totals that only grow; who asks brings the time."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, dict[str, float]]] = deque()

    def note(self, now: float, totals: Mapping[str, float]) -> dict[str, float]:
        """Add the totals by now; returns what each grew a second since the last look that is a
        minute ago, or since the last before any grew: a model that loads makes nothing slow. One
        that fell, as when an engine is replaced, waits."""
        latest = self._seen[-1][1] if self._seen else {}
        grown = {name: max(total, latest.get(name, 0.0)) for name, total in totals.items()}
        if len(self._seen) == 1 and all(n == latest.get(name, 0.0) for name, n in grown.items()):
            self._seen.clear()
        self._seen.append((now, grown))
        while len(self._seen) > 1 and now - self._seen[1][0] >= WINDOW_S:
            self._seen.popleft()
        began, before = self._seen[0]
        span = now - began
        return {n: (t - before.get(n, 0.0)) / span if span > 0 else 0.0 for n, t in grown.items()}


@dataclass(frozen=True)
class Rate:
    """What a worker got done over the last minute; tokens are those of responses."""

    jobs: float = 0.0
    samples: float = 0.0
    tokens: float = 0.0


@dataclass(frozen=True)
class Heartbeat:
    """A worker as it last described itself.

    `model` is what it serves or means to, `serving_s` for how long; `models` are the patterns of
    those it may serve, none for any. `jobs` maps what it holds to how long, in seconds; `busy` is
    the share of the last minute that its device computed, None for a worker without one.
    """

    name: str
    kind: str
    host: str
    device: str = ""
    model: str = ""
    serving_s: float = 0.0
    models: tuple[str, ...] = ()
    jobs: tuple[tuple[str, str, float], ...] = ()
    busy: float | None = None
    per_minute: Rate = Rate()
    draining: bool = False
    up_s: float = 0.0


@dataclass(frozen=True)
class Decline:
    """What a worker said when it met a run that it cannot serve."""

    worker: str
    reason: str

    @property
    def host(self) -> str:
        """The machine it runs on."""
        return self.worker.partition("@")[2]
