"""Protects judging: what heals is retried, what cannot stops at once, nothing becomes a number."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.responses import Response

from orchestrator.errors import JudgeError
from orchestrator.scores import Score, Unscored, Verdict
from tests.http_judge import Answer, HttpJudge, error, http_judge, verdict
from workers.judge import ATTEMPTS, SHAPES, Judge, open_client


class Waits:
    """A sleep that does not sleep and remembers what it was asked."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


def ask(answer: Answer, n: int = 1) -> tuple[list[Verdict], HttpJudge, Waits]:
    waits = Waits()

    async def run(url: str) -> list[Verdict]:
        judge = Judge(open_client(url, api_key="sk-planted"), "test", sleep=waits)
        return await judge.verdicts([f"prompt {k}" for k in range(n)])

    with http_judge(answer) as server:
        return asyncio.run(run(server.url)), server, waits


def probe(answer: Answer) -> tuple[Any, HttpJudge]:
    async def run(url: str) -> Any:
        judge = Judge(open_client(url, api_key="sk-planted"), "test", sleep=Waits())
        return await judge.probe({"coherence": "rate this", "refusal": "and this"})

    with http_judge(answer) as server:
        return asyncio.run(run(server.url)), server


def test_verdicts_come_back_in_the_order_asked() -> None:
    def answer(body: dict[str, Any], call: int) -> Response:
        return verdict([(body["messages"][0]["content"].removeprefix("prompt "), 1.0)])

    found, server, _ = ask(answer, n=40)

    assert [v.value for v in found if isinstance(v, Score)] == list(range(40))
    assert server.asked[0]["max_tokens"] == 1
    assert server.asked[0]["top_logprobs"] == 20


def test_a_429_is_retried_after_the_time_the_server_asks_for() -> None:
    def answer(body: dict[str, Any], call: int) -> Response:
        return (
            error(429, "slow down", **{"retry-after": "7"}) if call < 2 else verdict([("60", 1.0)])
        )

    found, server, waits = ask(answer)

    assert isinstance(found[0], Score)
    assert found[0].evidence.attempts == 3 == len(server.asked)
    assert waits.seconds == [7.0, 7.0]


def test_a_server_error_that_stays_is_unscored_after_the_attempts_and_never_a_number() -> None:
    found, server, waits = ask(lambda body, call: error(503, "overloaded"))

    assert isinstance(found[0], Unscored)
    assert found[0].reason == "http"
    assert len(server.asked) == ATTEMPTS
    assert all(wait <= limit for wait, limit in zip(waits.seconds, (1, 2, 4, 8), strict=True))


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_what_cannot_heal_stops_at_once_with_the_servers_words_and_without_the_key(
    status: int,
) -> None:
    with pytest.raises(JudgeError, match="no such thing") as caught:
        ask(lambda body, call: error(status, "no such thing"))

    assert "sk-planted" not in str(caught.value)


def test_one_refused_call_does_not_pay_for_retries() -> None:
    calls = []

    def answer(body: dict[str, Any], call: int) -> Response:
        calls.append(call)
        return error(401, "who are you?")

    with pytest.raises(JudgeError, match="ORCHESTRATE_JUDGE_API_KEY"):
        ask(answer)

    assert len(calls) == 1


def test_the_key_travels_in_the_header_only() -> None:
    _, server, _ = ask(lambda body, call: verdict([("5", 1.0)]))

    assert server.keys == ["Bearer sk-planted"]
    assert "sk-planted" not in str(server.asked)


def test_the_probe_finds_the_shape_that_newer_hosted_models_accept() -> None:
    def answer(body: dict[str, Any], call: int) -> Response:
        if "max_tokens" in body:
            return error(400, "use max_completion_tokens")
        if body["top_logprobs"] > 5 or body.get("reasoning_effort") != "none":
            return error(400, "at most 5 alternatives, and only without reasoning")
        return verdict([("85", 0.9), ("80", 0.1)])

    shape, _ = probe(answer)

    assert shape == SHAPES[2]


def test_a_judge_without_logprobs_is_refused_before_anything_is_generated() -> None:
    with pytest.raises(JudgeError, match="logprobs"):
        probe(lambda body, call: verdict(None, text="85"))


def test_a_trait_the_judge_refuses_is_named() -> None:
    def answer(body: dict[str, Any], call: int) -> Response:
        known = body["messages"][0]["content"] == "rate this"
        return verdict([("5", 1.0)]) if known else error(400, "I do not know that trait")

    with pytest.raises(JudgeError, match=r"refusal: I do not know that trait"):
        probe(answer)


def test_nobody_at_the_url_is_one_clear_sentence() -> None:
    async def run() -> None:
        await Judge(open_client("http://127.0.0.1:9/v1", api_key="k"), "m").probe({"c": "x"})

    with pytest.raises(JudgeError, match="no judge answers at http"):
        asyncio.run(run())
