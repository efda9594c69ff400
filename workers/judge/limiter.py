"""What a judge call passes before it goes out: the shared limits, the circuit and the budget.

The limiter and the cache that a fleet shares live in storage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from domain.scoring.prices import Answered, Cost, Failed
from domain.scoring.scores import Reply


class Limiter(Protocol):
    """Admits calls; all judge processes on one endpoint share one."""

    async def admit(self, cost: Cost) -> None:
        """Wait until a call may go out, and reserve its cost; raises what ends the run."""

    def answered(self, cost: Cost, result: Answered) -> None:
        """Note an answered call; its reservation becomes what it did cost."""

    async def failed(self, cost: Cost, result: Failed) -> bool:
        """Note a failed call; whether the endpoint is taken to be down, so that nobody burns
        attempts."""

    async def flush(self) -> None:
        """Bring what was noted to the others."""


class ReplyCache(Protocol):
    """Replies by the key of their request; all runs share one."""

    async def get_many(self, keys: Sequence[str]) -> Mapping[str, Reply]:
        """The replies that are known."""

    def put(self, key: str, reply: Reply) -> None:
        """Remember a reply, some time soon."""

    async def flush(self) -> None:
        """Write what was put."""
