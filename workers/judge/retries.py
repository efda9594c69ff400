"""The only retry loop of the program: how often a judge's endpoint is asked again, and when."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type
from tenacity.wait import wait_random_exponential

from workers.judge.client import HealingError

# The seeds' schedule: an attempt at once, then waits of up to 1, 2, 4 and 8 s.
ATTEMPTS = 5
BACKOFF = wait_random_exponential(multiplier=1, max=8.0)

# Being told to come again later is no failure of the question, and costs nothing; nor is an
# endpoint that is down. Neither goes on for ever: the question itself may be what breaks it.
MAX_REJECTED = 60
MAX_UNCOUNTED = 20

Sleep = Callable[[float], Awaitable[None]]


@dataclass
class Tries:
    """The attempts at one question."""

    made: int = 0
    counted: int = 0
    rejected: int = 0
    uncounted: int = 0
    usd: float = 0.0

    def note(self, error: HealingError, *, is_down: bool) -> None:
        """Count a failure as what it is."""
        if error.kind == "limit":
            self.rejected += 1
        elif is_down:
            self.uncounted += 1
        else:
            self.counted += 1

    def are_used_up(self, state: RetryCallState) -> bool:
        """Whether to give the question up; tenacity's stop condition."""
        return (
            self.counted >= ATTEMPTS
            or self.rejected >= MAX_REJECTED
            or self.uncounted >= MAX_UNCOUNTED
        )


def retrying_judge_calls(tries: Tries, sleep: Sleep) -> AsyncRetrying:
    """Attempts at a call until it ends otherwise than by a HealingError, or they are used up."""
    return AsyncRetrying(
        stop=tries.are_used_up,
        wait=seconds_to_wait,
        retry=retry_if_exception_type(HealingError),
        sleep=sleep,
        reraise=True,
    )


def seconds_to_wait(state: RetryCallState) -> float:
    """Seconds to wait: what the server asked for, else exponential with jitter."""
    error = state.outcome.exception() if state.outcome else None
    asked = error.limits.retry_after_s if isinstance(error, HealingError) else None
    return asked if asked is not None else BACKOFF(state)
