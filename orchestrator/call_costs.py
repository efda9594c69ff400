"""What one judge call may cost, did cost, and how it failed: the values that the gate is told.

Knows nothing of who asks or who keeps count.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """The most a call can cost: tokens in and out, and US dollars (0 when no price is known)."""

    tokens: int
    usd: float


@dataclass(frozen=True)
class Answered:
    """What an answered call did cost, and the limits that its headers stated (0: none stated)."""

    tokens: int
    usd: float
    requests_per_minute: float = 0.0
    tokens_per_minute: float = 0.0


@dataclass(frozen=True)
class Failed:
    """A call that failed; usd is what it may have cost all the same."""

    kind: str
    usd: float = 0.0
    retry_after_s: float = 0.0
    requests_per_minute: float = 0.0
    tokens_per_minute: float = 0.0
