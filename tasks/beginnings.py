"""Counts how often jobs were begun and did not end, which is how one that kills workers is found.

A job that a healthy worker gives back did not kill anybody. Knows nothing of what a job does.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from celery.exceptions import Reject

from orchestrator.errors import LocalError
from storage.broker_state import BrokerState
from storage.connection import BROKER_AWAY


class DyingReject(Reject):  # type: ignore[misc]
    """Gives a job to another worker, and counts it among those that this worker may die of."""


@dataclass(frozen=True)
class Beginnings:
    """The beginnings of one worker process; shared by its threads."""

    # jobs that went back while the broker could not be told
    _untold: deque[tuple[BrokerState, str]] = field(default_factory=deque)

    @contextlib.contextmanager
    def counted(self, state: BrokerState, job: str) -> Iterator[None]:
        """Count a job as begun; not any more when a worker that lives on gives it back."""
        state.begin(job)
        try:
            yield
        except DyingReject:
            raise
        except (Reject, LocalError):
            state.hand_back(job)
            raise
        except BROKER_AWAY:
            self._untold.append((state, job))
            raise

    def tell(self) -> None:
        """Tell the broker what went back while it was away; raises what BROKER_AWAY names."""
        with contextlib.suppress(IndexError):
            while True:
                state, job = self._untold.popleft()
                try:
                    state.hand_back(job)
                except BROKER_AWAY:
                    self._untold.append((state, job))
                    raise
