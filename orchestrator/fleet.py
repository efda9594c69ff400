"""What a fleet looks like from the broker: runs that want work done, and workers that do it.

Cards are what workers and commands read of each other. Knows nothing of where cards are kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from orchestrator.run_spec import ModelSpec

WorkerKind = Literal["gpu", "judge", "reduce"]
QUEUES: tuple[WorkerKind, ...] = ("gpu", "judge", "reduce")
"""The kinds of workers, and the queue that every worker of a kind listens to."""

LOWEST, HIGHEST = -100, 100


@dataclass(frozen=True)
class RunCard:
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
    """A run, how many of its jobs wait for one kind of worker, and the workers that refused it."""

    run: RunCard
    waiting: int
    refused_by: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Rate:
    """What a worker got done over the last minute; tokens are those of responses."""

    jobs: float = 0.0
    samples: float = 0.0
    tokens: float = 0.0


@dataclass(frozen=True)
class WorkerCard:
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


def model_label(spec: ModelSpec) -> str:
    """A model's name on cards; two runs with one label can share what is loaded."""
    parts = [spec.model_id if spec.revision is None else f"{spec.model_id}@{spec.revision}"]
    if spec.dtype != "auto":
        parts.append(spec.dtype)
    if spec.trust_remote_code:
        parts.append("own code")
    return " ".join(parts)
