"""What a run is doing and for whom it waits, in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from textwrap import shorten
from typing import Any

from domain.fleet.heartbeats import QUEUES
from domain.plan.spec import NO_JUDGE
from orchestrator.run_state import (
    RunState,
    State,
    judge_facts,
    read_state_on_broker,
    run_snapshot,
    state_of_open_jobs,
)
from storage.broker.connection import connect
from storage.broker.fleet import read_listed_run, read_queues, read_workers
from storage.record.judgements import judge_of
from storage.record.run import Run

GOES_ON = "orchestrate resume goes on"

# Characters of what was said of a failure, for one run and for each in a list of them; `orchestrate
# logs` shows all of it.
MOST_SHOWN, MOST_LISTED = 240, 60


def run_in_words(run: Run, broker_url: str | None) -> dict[str, Any]:
    """See run_snapshot; its state in words, as `status --json` has it."""
    found = run_snapshot(run, broker_url)
    return {**found, **state_in_words(found["state"])}


def state_in_words(state: RunState) -> dict[str, str]:
    """`state` is one of a few, for programs too; `state_why` is for people and may be empty."""
    named = state.state.value
    if state.state == State.LACKS_WORKERS:
        named = f"waiting for {state.lacks} workers"
    return {"state": named, "state_why": _why(state)}


def state_line_in_words(state: RunState) -> str:
    """Both in a line."""
    named, why = state_in_words(state).values()
    return f"{named}: {why}" if why else named


def _why(state: RunState) -> str:
    match state:
        case RunState(State.LACKS_BROKER):
            return state.cannot
        case RunState(State.LACKS_WORKERS):
            return f"orchestrate worker {state.lacks}"
        case RunState(State.LACKS_JUDGE):
            return f"no answer since {state.judge_down_s:.0f} s"
        case RunState(State.BUDGET_REACHED):
            return "a larger one goes on: orchestrate resume --budget"
        case RunState(State.FAILED, failure=failure) if failure is not None:
            more = f" and {state.n_more} more jobs" if state.n_more else ""
            return f"{failure.job}{more}, {failure.message}"
        case RunState(State.NOT_FINISHED | State.NOT_RUNNING) if state.recorded:
            return shortened(state.recorded[0].text)
        case RunState(State.PAUSED | State.CANCELLED | State.NOT_FINISHED | State.NOT_RUNNING):
            return GOES_ON
        case RunState(State.RUNNING, attended=attended) if attended is not None:
            return f"by process {attended.pid} on {attended.host}"
        case RunState(State.RUNNING) if state.lacks:
            return f"no {state.lacks} worker is there"
    return ""


def shortened(text: str, most: int = MOST_SHOWN) -> str:
    """What was said of a failure, on one line and without its end where it is long."""
    return shorten(text, most, placeholder=" …")


def judge_in_words(found: Mapping[str, Any]) -> list[str]:
    """What of a snapshot's judge people should know: whether it is down, its cost, rejections."""
    parts = []
    if found["down_for_s"] is not None:
        parts.append(
            f"the judge at {found['url']} is down since {found['down_for_s']:.0f} s: judging waits "
            f"and spends nothing, next look in {found['next_look_in_s']:.0f} s"
        )
    if found["money"]:
        spent, cap = found["money"]["spent"], found["money"]["cap"]
        parts.append(f"judge ${spent:.4f}" + ("" if cap is None else f" of ${cap:g}"))
    if found["rejected"]:
        parts.append(f"{found['rejected']} calls rejected by its limits")
    return parts


@dataclass(frozen=True)
class News:
    """For whom a run waits, what the judge has cost so far and whether it is down, in words, empty
    when that is nothing; and how many tokens a second its workers write."""

    text: str = ""
    tokens_per_s: float = 0.0


def news_in_words(run: Run, broker_url: str) -> News:
    """The run's news from the broker."""
    with connect(broker_url) as client:
        listed, workers = read_listed_run(client, run.run_id), read_workers(client)
        parts = []
        if listed is not None:
            queues = read_queues(client, [listed], QUEUES)
            facts = read_state_on_broker(client, listed, queues=queues, workers=workers)
            state = RunState(State.PAUSED) if listed.paused else state_of_open_jobs(facts)
            parts = [state_line_in_words(state)] if state != RunState(State.RUNNING) else []
        if judge_of(run).url not in ("embedded", NO_JUDGE):
            parts += judge_in_words({**judge_facts(client, run), "rejected": 0})
    ours = [one for one in workers if any(name == run.name for name, _, _ in one.jobs)]
    tokens = sum(one.per_minute.tokens for one in ours if one.kind == "gpu") / 60
    return News(", ".join(parts), tokens)
