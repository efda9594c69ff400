"""What a run is doing, in a word and a reason, as its record and the broker know it.

Knows nothing of how it is shown.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cli.judge_meter import endpoint
from orchestrator.errors import BudgetError
from orchestrator.fleet import WorkerCard
from storage.broker_state import BrokerState, Failure
from storage.connection import Client
from storage.fleet import has_run
from storage.queues import QueueFacts
from storage.run_record import Run

FINISHED, RUNNING = "finished", "running"
GOES_ON = "orchestrate resume goes on"


@dataclass(frozen=True)
class RunState:
    """`word` is one of a few, for programs too; `why` is for people and may be empty."""

    word: str
    why: str = ""

    def __str__(self) -> str:
        return f"{self.word}: {self.why}" if self.why else self.word


@dataclass(frozen=True)
class OnBroker:
    """What the broker knows of a run. `waiting` and `held` are jobs by kind of worker, `kinds`
    those that a worker is there for, `judge_down_s` how long nobody has answered there."""

    is_listed: bool
    cancelled: bool = False
    failures: Sequence[Failure] = ()
    waiting: Mapping[str, int] = field(default_factory=dict)
    held: Mapping[str, int] = field(default_factory=dict)
    kinds: Collection[str] = ()
    judge_down_s: float | None = None


def by_record(*, finished: bool, paused: bool) -> RunState:
    """What the record alone tells."""
    if finished:
        return RunState(FINISHED)
    return RunState("paused", GOES_ON) if paused else RunState("not finished")


def run_state(facts: OnBroker, *, finished: bool, paused: bool) -> RunState:
    """What the run is doing now."""
    is_out = any(facts.waiting.values()) or any(facts.held.values())
    # one that is judged again is finished, and goes on
    if finished and not (facts.is_listed and is_out):
        return RunState(FINISHED)
    # a failure that would meet every job cancels what is left
    if facts.failures and (not is_out or _stopped(facts)):
        return _failed(facts.failures)
    if facts.cancelled:
        return RunState("cancelled", GOES_ON)
    if paused:
        return RunState("paused", GOES_ON)
    if not facts.is_listed or not is_out:
        return RunState("not running", GOES_ON)
    return _waits(facts) or RunState(RUNNING)


def read_on_broker(
    client: Client, run: Run, *, queues: Iterable[QueueFacts], workers: Iterable[WorkerCard]
) -> OnBroker:
    """A run's facts; `queues` may be those of other runs too."""
    state = BrokerState(client, run.run_id)
    ours = [queue for queue in queues if queue.run_id == run.run_id]
    return OnBroker(
        is_listed=has_run(client, run.run_id),
        cancelled=state.is_cancelled(),
        failures=state.failures(),
        waiting={queue.kind: queue.waiting for queue in ours},
        held={queue.kind: queue.held for queue in ours},
        kinds={card.kind for card in workers if not card.draining},
        judge_down_s=endpoint(client, run)["down_for_s"],
    )


def state_json(state: RunState) -> dict[str, Any]:
    """As it stands in a snapshot."""
    return {"state": state.word, "state_why": state.why}


def _stopped(facts: OnBroker) -> bool:
    return facts.cancelled and any(failure.fatal for failure in facts.failures)


def _failed(failures: Sequence[Failure]) -> RunState:
    first = next((failure for failure in failures if failure.fatal), failures[0])
    if first.error == BudgetError.__name__:
        return RunState("budget reached", "a larger one goes on: orchestrate resume --budget")
    more = f" and {len(failures) - 1} more jobs" if len(failures) > 1 else ""
    return RunState("failed", f"{first.job}{more}, {first.message}")


def _waits(facts: OnBroker) -> RunState | None:
    """For whom the run waits when nobody else works on it."""
    lacking = [k for k, n in facts.waiting.items() if n and k not in facts.kinds]
    if lacking and not any(facts.held.values()):
        return RunState(f"waiting for {lacking[0]} workers", f"orchestrate worker {lacking[0]}")
    others = [k for k in facts.held if k != "judge" and (facts.held[k] or facts.waiting[k])]
    if facts.judge_down_s is not None and not others:
        return RunState("waiting for a judge", f"no answer since {facts.judge_down_s:.0f} s")
    return None
