"""Protects judging: what heals is retried, what cannot stops at once, nothing becomes a number."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest
from starlette.responses import Response

from domain.errors import JudgeError
from domain.scoring.prices import Price
from domain.scoring.scores import Reply, Score, Unscored
from tests.http_judge import Answer, HttpJudge, OpenLimiter, error, http_judge, scoring
from tests.lean_judge import Action, Call, completion, lean_judge
from workers.judge.client import JudgeClient
from workers.judge.judge import Judge, JudgedPrompts, Slots
from workers.judge.profile import JudgeProfile
from workers.judge.retries import ATTEMPTS


class Waits:
    """A sleep that does not sleep and remembers what it was asked."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


async def judged(
    url: str,
    prompts: list[str],
    *,
    profile: JudgeProfile | None = None,
    sleep: Any = asyncio.sleep,
    timeout_s: float = 60.0,
    **settings: Any,
) -> JudgedPrompts:
    client = JudgeClient(url, api_key="sk-planted", timeout_s=timeout_s)
    judge = Judge(
        client,
        "test",
        profile=profile or JudgeProfile(),
        slots=Slots(64),
        limiter=OpenLimiter(),
        sleep=sleep,
        **settings,
    )
    try:
        return await judge.scorings(prompts)
    finally:
        await client.close()


def ask(answer: Answer, n: int = 1, **settings: Any) -> tuple[JudgedPrompts, HttpJudge, Waits]:
    waits = Waits()
    with http_judge(answer) as server:
        prompts = [f"prompt {k}" for k in range(n)]
        found = asyncio.run(judged(server.url, prompts, sleep=waits, **settings))
        return found, server, waits


def test_verdicts_come_back_in_the_order_asked() -> None:
    def answer(body: dict[str, Any], call: int) -> Response:
        return scoring([(body["messages"][0]["content"].removeprefix("prompt "), 1.0)])

    found, server, _ = ask(answer, n=40)

    assert [v.value for v in found.scorings if isinstance(v, Score)] == list(range(40))
    assert server.asked[0]["max_tokens"] == 1
    assert server.asked[0]["top_logprobs"] == 20


def test_a_429_is_retried_after_the_time_the_server_asks_for() -> None:
    def answer(body: dict[str, Any], call: int) -> Response:
        return (
            error(429, "slow down", **{"retry-after": "7"}) if call < 2 else scoring([("60", 1.0)])
        )

    found, server, waits = ask(answer)

    assert isinstance(found.scorings[0], Score)
    assert found.scorings[0].evidence.attempts == 3 == len(server.asked)
    assert waits.seconds == [7.0, 7.0]


def test_being_told_to_come_later_uses_up_no_attempt() -> None:
    def answer(body: dict[str, Any], call: int) -> Response:
        return error(429, "slow down") if call < 3 * ATTEMPTS else scoring([("60", 1.0)])

    found, _, _ = ask(answer)

    assert isinstance(found.scorings[0], Score)


def test_a_server_error_that_stays_is_unscored_after_the_attempts_and_never_a_number() -> None:
    found, server, waits = ask(lambda body, call: error(503, "overloaded"))

    assert isinstance(found.scorings[0], Unscored)
    assert found.scorings[0].reason == "http"
    assert len(server.asked) == ATTEMPTS
    assert all(wait <= limit for wait, limit in zip(waits.seconds, (1, 2, 4, 8), strict=True))


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_what_cannot_heal_stops_at_once_with_the_servers_words_and_without_the_key(
    status: int,
) -> None:
    found, server, _ = ask(lambda body, call: error(status, "no such thing as sk-planted"), n=500)

    assert isinstance(found.stopped, JudgeError)
    assert "no such thing" in str(found.stopped)
    assert "sk-planted" not in str(found.stopped)
    # those that were under way or admitted, no retries, and a harmless question
    assert len(server.asked) <= 64 + 16 + 1
    assert found.scorings == [None] * 500


def test_an_empty_account_stops_at_once_although_it_is_a_429() -> None:
    def answer(body: dict[str, Any], call: int) -> Response:
        return error(429, "you exceeded your quota", code="insufficient_quota")

    found, server, _ = ask(answer)

    assert "quota" in str(found.stopped)
    assert len(server.asked) == 1


def test_the_key_travels_in_the_header_only() -> None:
    _, server, _ = ask(lambda body, call: scoring([("5", 1.0)]))

    assert server.keys == ["Bearer sk-planted"]
    assert "sk-planted" not in str(server.asked)


def test_a_hanging_and_a_cut_call_are_asked_again_and_may_have_cost_money() -> None:
    def decide(call: Call, number: int) -> Action:
        kinds: list[Any] = ["hang", "cut", "answer"]
        return Action(completion([[("70", 0.0)]]), kind=kinds[min(number, 2)])

    with lean_judge(decide) as server:
        price = Price(input=1.0, output=1.0)
        found = asyncio.run(
            judged(server.url, ["x" * 400], sleep=Waits(), timeout_s=0.5, price=price)
        )

    (one,) = found.scorings
    assert isinstance(one, Score)
    # one more for each whose time was over before it was sent
    assert one.evidence.attempts >= 3
    assert one.evidence.usd is not None and one.evidence.usd > 2 * 101 / 1e6


def test_without_a_price_the_cost_is_unknown_and_not_nothing() -> None:
    found, _, _ = ask(lambda body, call: scoring([("5", 1.0)]), price=None)

    assert found.evidence[0].usd is None


def test_the_same_question_in_one_asking_is_paid_once() -> None:
    with http_judge(lambda body, call: scoring([("5", 1.0)])) as server:
        found = asyncio.run(judged(server.url, ["same", "same", "other"]))

    assert len(server.asked) == 2
    assert [one.attempts for one in found.evidence] == [1, 0, 1]


class Remembered:
    """A cache in a dictionary."""

    def __init__(self) -> None:
        self.replies: dict[str, Reply] = {}

    async def get_many(self, keys: Any) -> Any:
        return {key: self.replies[key] for key in keys if key in self.replies}

    def put(self, key: str, reply: Reply) -> None:
        self.replies[key] = reply

    async def flush(self) -> None:
        pass


def test_a_cached_reply_is_the_same_verdict_and_costs_nothing() -> None:
    cache, price = Remembered(), Price(input=1, output=1)
    with http_judge(lambda body, call: scoring([(str(call), 1.0)])) as server:
        first = asyncio.run(judged(server.url, ["a", "b"], cache=cache, price=price))
        again = asyncio.run(judged(server.url, ["b", "a"], cache=cache, price=price))

    assert len(server.asked) == 2
    assert [v.value for v in again.scorings if isinstance(v, Score)] == [
        v.value for v in reversed(first.scorings) if isinstance(v, Score)
    ]
    assert [one.usd for one in first.evidence] == [8e-6] * 2
    assert [one.usd for one in again.evidence] == [0.0] * 2


def test_a_judge_is_asked_again_while_its_score_could_lie_far_away_and_each_is_remembered() -> None:
    usual = [[("9", math.log(0.86)), ("1", math.log(0.14))], [("3", 0.0)]]
    rare = [[("1", math.log(0.14)), ("9", math.log(0.86))], [("0", 0.0)], [("<end>", 0.0)]]
    cache = Remembered()

    def decide(call: Call, number: int) -> Action:
        return Action(completion(rare if number == 2 else usual))

    with lean_judge(decide) as server:
        profile = JudgeProfile(digits="split", n_tokens=4)
        found = asyncio.run(judged(server.url, ["one"], profile=profile, cache=cache))
        again = asyncio.run(judged(server.url, ["one"], profile=profile, cache=cache))

    (one,), (same,) = found.scorings, again.scorings
    assert isinstance(one, Score) and isinstance(same, Score)
    assert one.value == same.value == pytest.approx(81.38)
    assert one.evidence.attempts == len(cache.replies) == 3


def test_votes_are_averaged_and_asked_as_different_questions() -> None:
    def answer(body: dict[str, Any], call: int) -> Response:
        return scoring(None, text=f'{{"score": {40 + 10 * body["seed"]}}}')

    found, server, _ = ask(answer, profile=JudgeProfile(mode="structured", votes=3, n_tokens=64))

    assert isinstance(found.scorings[0], Score)
    assert found.scorings[0].value == pytest.approx(50)
    assert sorted(body["temperature"] for body in server.asked) == [0, 1, 1]
    assert "json_schema" in str(server.asked[0]["response_format"])
