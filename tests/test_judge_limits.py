"""Protects what judge processes share: the endpoint's limits, the circuit, the budget, fairness."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import pytest
import redis
import redis.asyncio

from domain.scoring.prices import Charged, Cost, Limits
from storage.broker.embedded_redis import embedded_redis
from storage.broker.judge_limits import (
    FLUSH_AFTER_S,
    LimiterKeys,
    SharedLimiter,
    endpoint_state,
    note_stated_limits,
    put_judge_meter,
    read_judge_meter,
)
from storage.record.spending import Terms
from tests.judge_process import in_processes, in_this_process, report, start
from tests.lean_judge import Action, Call, LeanJudge, completion, lean_judge, refusal

AskAll = Callable[[list[dict[str, Any]]], list[dict[str, Any]]]
slow = pytest.mark.slow
PRICE = {"input": 10.0, "output": 10.0}
USD_A_CALL = 101 * 10 / 1e6  # the server counts 100 tokens in and 1 out


@pytest.fixture(scope="module")
def broker() -> Iterator[str]:
    with embedded_redis() as url:
        yield url


def open_run(broker: str, run: str, *, cap: float | None = None) -> redis.Redis:
    client = redis.Redis.from_url(broker)
    put_judge_meter(client, run, terms=Terms(cap_usd=cap), spent=0.0)
    return client


def settings(broker: str, judge: LeanJudge, run: str, *, n: int, who: str = "") -> dict[str, Any]:
    return {"broker": broker, "url": judge.url, "run": run, "text": f" {run} {who} ", "n": n}


class Limited:
    """A server with a token bucket: so many requests a minute, a second's worth at once."""

    def __init__(self, per_minute: int, *, says_so: bool) -> None:
        self.rate, self.level, self.at = per_minute / 60, per_minute / 60, time.monotonic()
        limit = str(per_minute)
        self.headers = {"x-ratelimit-limit-requests": limit} if says_so else {}

    def __call__(self, call: Call, number: int) -> Action:
        now = time.monotonic()
        self.level = min(self.rate, self.level + (now - self.at) * self.rate)
        self.at = now
        if self.level < 1:
            error = refusal(429, "too many requests", retry_after="1")
            return Action(error.body, 429, {**error.headers, **self.headers})
        self.level -= 1
        return Action(completion([[("50", -0.1)]]), headers=self.headers, delay_s=0.3)


def share_of_limit(
    broker: str,
    *,
    per_minute: int,
    seconds: float,
    settle_s: float,
    says_so: bool,
    ask_all: AskAll = in_this_process,
) -> tuple[float, float]:
    """(share rejected, share of the allowed rate used) after settle_s, of four processes."""
    run = f"limit-{per_minute}-{says_so}"
    client = open_run(broker, run)
    with lean_judge(Limited(per_minute, says_so=says_so)) as judge:
        if says_so:
            # as the negotiation does
            keys = LimiterKeys.of(run, url=judge.url, model="test")
            note_stated_limits(client, keys, Limits(requests_per_minute=per_minute))
        n = int(per_minute / 60 * seconds / 4)
        asked = [settings(broker, judge, run, n=n, who=f"p{k}") for k in range(4)]
        reports = ask_all(asked)
        first, last = judge.calls[0].at, judge.calls[-1].at
        steady = [
            action.status
            for call, action in zip(judge.calls, judge.actions, strict=True)
            # the end, where some processes are done already, is no steady state either
            if settle_s <= call.at - first < last - first - 2
        ]
    assert sum(one["n_scored"] for one in reports) == 4 * n
    accepted, span = steady.count(200), last - first - 2 - settle_s
    return steady.count(429) / len(steady), accepted / (span * per_minute / 60)


@slow
def test_four_judges_share_a_limit_that_the_server_states(broker: str) -> None:
    rejected, used = share_of_limit(broker, per_minute=3000, seconds=10, settle_s=3, says_so=True)

    assert rejected < 0.01
    assert used > 0.95


@slow
@pytest.mark.parametrize(("says_so", "most", "least"), [(True, 0.01, 0.95), (False, 0.03, 0.93)])
def test_four_processes_share_600_requests_a_minute(
    broker: str, says_so: bool, most: float, least: float
) -> None:
    # a limit that no header states has to be touched now and then to be known
    rejected, used = share_of_limit(
        broker, per_minute=600, seconds=60, settle_s=10, says_so=says_so, ask_all=in_processes
    )

    assert rejected < most
    assert used > least


@slow
def test_two_runs_get_equal_shares_of_a_limit_although_one_has_more_processes(
    broker: str,
) -> None:
    client = open_run(broker, "big")
    open_run(broker, "small")
    with lean_judge(Limited(1200, says_so=True)) as judge:
        keys = LimiterKeys.of("big", url=judge.url, model="test")
        note_stated_limits(client, keys, Limits(requests_per_minute=1200))
        asked = [settings(broker, judge, "big", n=100, who=f"p{k}") for k in range(2)]
        asked.append(settings(broker, judge, "small", n=70))
        in_this_process(asked)
        served = [
            "big" if " big " in call.body["messages"][0]["content"] else "small"
            for call, action in zip(judge.calls, judge.actions, strict=True)
            if action.status == 200
        ]
    # once both are at it, until the small one is done
    first = served.index("small")
    last = len(served) - served[::-1].index("small")
    share = served[first + 20 : last].count("small") / (last - first - 20)
    assert 0.4 < share < 0.6


@pytest.mark.parametrize("ask_all", [in_this_process, pytest.param(in_processes, marks=slow)])
def test_the_budget_is_reached_and_not_passed_by_four_judges(broker: str, ask_all: AskAll) -> None:
    cap, run = 100 * USD_A_CALL, f"budget-{ask_all.__name__}"
    client = open_run(broker, run, cap=cap)

    def decide(call: Call, number: int) -> Action:
        return Action(completion([[("50", -0.1)]]), delay_s=0.05)

    with lean_judge(decide) as judge:
        asked = [
            {**settings(broker, judge, run, n=120, who=f"p{k}"), "price": PRICE} for k in range(4)
        ]
        reports = ask_all(asked)
        n_first = len(judge.calls)
        put_judge_meter(client, run, terms=Terms(cap_usd=10.0), spent=0.0)
        again = ask_all(asked)

    assert {one["stopped"] for one in reports} == {"BudgetError"}
    assert 0.97 * cap <= n_first * USD_A_CALL <= 1.01 * cap
    assert sum(one["n_scored"] for one in reports) == n_first
    # a larger budget finishes, and what the cache holds is not asked again
    assert [one["n_scored"] for one in again] == [120] * 4
    assert len(judge.calls) == 480
    meter = read_judge_meter(client, run)
    assert meter is not None
    assert meter.spent == pytest.approx(480 * USD_A_CALL)
    assert meter.reserved == pytest.approx(0.0, abs=1e-9)


async def never() -> NoReturn:
    raise AssertionError("nothing is asked of the endpoint or of the record")


def test_what_is_told_already_has_arrived_when_a_flush_returns(broker: str) -> None:
    client, run = open_run(broker, "told", cap=1.0), "told"
    keys = LimiterKeys.of(run, url="http://127.0.0.1:9/v1", model="test")
    cost = Cost(tokens=100, usd=0.01)

    async def answer_and_leave() -> None:
        connection = redis.asyncio.Redis.from_url(broker)
        limiter = SharedLimiter(connection, keys, is_up=never, open_budget=never)
        await limiter.admit(cost)
        client.client_pause(500)
        limiter.answered(cost, Charged(tokens=100, usd=0.004))
        # the message is on its way to a broker that is slow to take it
        await asyncio.sleep(4 * FLUSH_AFTER_S)
        await limiter.flush()
        await connection.aclose()

    asyncio.run(answer_and_leave())
    meter = read_judge_meter(client, run)

    assert meter is not None
    assert meter.spent == pytest.approx(0.004)
    assert meter.reserved == 0


def test_money_that_the_broker_did_not_take_is_told_with_the_next_message(broker: str) -> None:
    client, run = open_run(broker, "untold", cap=1.0), "untold"
    keys = LimiterKeys.of(run, url="http://127.0.0.1:9/v1", model="test")
    cost = Cost(tokens=100, usd=0.01)

    async def answer_in_vain_and_again() -> None:
        connection = redis.asyncio.Redis.from_url(broker)
        limiter = SharedLimiter(connection, keys, is_up=never, open_budget=never)
        await limiter.admit(cost)
        limiter.answered(cost, Charged(tokens=100, usd=0.004))
        client.rename(keys.budget, "aside")
        client.set(keys.budget, "no meter")
        with pytest.raises(redis.ResponseError):
            await limiter.flush()
        client.rename("aside", keys.budget)
        await limiter.flush()
        await connection.aclose()

    asyncio.run(answer_in_vain_and_again())
    meter = read_judge_meter(client, run)

    assert meter is not None
    assert meter.spent == pytest.approx(0.004)
    assert meter.reserved == 0


@slow
def test_an_endpoint_that_goes_down_is_waited_for_and_nothing_is_burnt(broker: str) -> None:
    client = open_run(broker, "down")

    def decide(call: Call, number: int) -> Action:
        return Action(completion([[("50", -0.1)]]), delay_s=0.02)

    with lean_judge(decide) as judge:
        port = int(judge.url.rpartition(":")[2].partition("/")[0])
        asked = settings(broker, judge, "down", n=400)
        asked["in_flight"] = 4
        process = start(asked)
        while len(judge.calls) < 100:
            time.sleep(0.01)
    keys = LimiterKeys.of("down", url=judge.url, model="test")
    time.sleep(4)
    while_down = endpoint_state(client, keys)
    threading.Event().wait(0.1)
    with lean_judge(decide, port=port) as judge:
        found = report(process)

    assert while_down["down_for_s"] is not None and while_down["down_for_s"] > 1
    assert found["n_scored"] == 400
    assert endpoint_state(client, keys)["down_for_s"] is None


def test_a_cancelled_run_asks_nothing_more(broker: str) -> None:
    client = open_run(broker, "gone")
    client.set("orchestrate:gone:cancelled", "1")

    with lean_judge(lambda call, number: Action(completion([[("5", 0.0)]]))) as judge:
        (found,) = in_this_process([settings(broker, judge, "gone", n=5)])

    assert found["stopped"] == "StoppedError"
    assert judge.calls == []
