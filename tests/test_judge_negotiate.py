"""Protects the negotiation: each kind of judge is asked as it wants, and read rightly."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from pathlib import Path
from zlib import crc32

import pytest

from domain.errors import JudgeError, JudgeNotHereError
from domain.scoring.prices import Price
from domain.scoring.scores import Scale, Score
from storage.broker.connection import connect
from storage.broker.embedded_redis import embedded_redis
from storage.broker.judge_limits import put_judge_meter, read_judge_meter
from storage.record.spending import Terms, write_terms
from tasks.stages.judge_pool import JudgePool
from tests.http_judge import OpenLimiter, error, http_judge, scoring
from tests.judge_kinds import KINDS, splitting_digits
from tests.lean_judge import Action, Call, completion, lean_judge
from tests.stored_run import stored_run
from workers.judge.client import NO_KEY, JudgeClient
from workers.judge.judge import Judge, Slots
from workers.judge.negotiate import Negotiated, negotiate

PROMPTS = {"coherence": "rate this", "refusal": "and this"}
TRUTHS = [0.5, 3, 9.6, 20, 42.3, 49.5, 50, 69.7, 79.5, 80, 85, 90.2, 97, 99.5]

EXPECTED = {
    "gpt-4.1-mini": {"mode": "logprob", "top_logprobs": 20, "n_tokens": 1, "digits": "whole"},
    "gpt-6-luna": {
        "mode": "logprob",
        "top_logprobs": 5,
        "n_tokens": 16,
        "reasoning_effort": "none",
        "token_parameter": "max_completion_tokens",
    },
    "gpt-5-mini": {"mode": "structured", "votes": 3, "temperature": False},
    "anthropic": {"mode": "text", "votes": 3},
    "splitting": {"mode": "logprob", "digits": "split", "n_tokens": 4},
}


def found_by(url: str, *, scale: Scale = "0_100", api_key: str = "k") -> Negotiated:
    async def run() -> Negotiated:
        client = JudgeClient(url, api_key=api_key)
        try:
            return await negotiate(client, "test", PROMPTS, scale=scale)
        finally:
            await client.close()

    return asyncio.run(run())


def scores(url: str, found: Negotiated) -> list[float]:
    async def run() -> list[float]:
        client = JudgeClient(url, api_key="k")
        slots, limiter = Slots(16), OpenLimiter()
        judge = Judge(client, "test", profile=found.profile, slots=slots, limiter=limiter)
        judged = await judge.scorings([f"truth={truth}" for truth in TRUTHS])
        await client.close()
        return [v.value for v in judged.scorings if isinstance(v, Score)]

    return asyncio.run(run())


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_judge_is_asked_rightly_and_read_within_two_points(kind: str) -> None:
    with lean_judge(KINDS[kind]) as server:
        found = found_by(server.url)
        n_calls = len(server.calls)
        read = scores(server.url, found)

    profile = found.profile.model_dump()
    assert {name: profile[name] for name in EXPECTED[kind]} == EXPECTED[kind]
    assert n_calls <= 14
    # at the ends of the scale the server's own spread pulls its mean inwards
    expressed = [min(max(truth, 2.0), 98.0) for truth in TRUTHS]
    assert [f"{t}: {r:.1f}" for t, r in zip(expressed, read, strict=True) if abs(t - r) > 2] == []


def test_two_neighbouring_decades_are_told_apart_digit_by_digit() -> None:
    asked: Counter[str] = Counter()

    def decide(call: Call, number: int) -> Action:
        # what it draws depends on the question alone, not on which call comes first
        question = str(call.body["messages"])
        asked[question] += 1
        return splitting_digits(call, crc32(question.encode()) + asked[question], spread=0.6)

    with lean_judge(decide) as server:
        read = scores(server.url, found_by(server.url))

    pairs = zip(TRUTHS[1:-1], read[1:-1], strict=True)
    assert [f"{t}: {r:.1f}" for t, r in pairs if abs(t - r) > 2] == []


def test_a_judge_that_says_nothing_useful_is_refused_before_anything_is_generated() -> None:
    with (
        http_judge(lambda body, call: scoring(None, text="lovely weather")) as server,
        pytest.raises(JudgeError, match=r"without token probabilities.*lovely weather"),
    ):
        found_by(server.url)


def test_a_trait_the_judge_refuses_is_named() -> None:
    def decide(call: Call, number: int) -> Action:
        if call.body["messages"][0]["content"] == "rate this":
            return Action(completion([[("95", -0.1)]]))
        return Action({"error": {"message": "I do not know that trait"}}, 400)

    with (
        lean_judge(decide) as server,
        pytest.raises(JudgeError, match="refusal: I do not know that trait"),
    ):
        found_by(server.url)


def test_a_wrong_key_ends_the_negotiation_at_once() -> None:
    with http_judge(lambda body, call: error(401, "who are you?")) as server:
        with pytest.raises(JudgeError, match="ORCHESTRATE_JUDGE_API_KEY"):
            found_by(server.url)

        assert len(server.asked) == 1


def test_a_missing_key_is_a_fault_of_the_worker_that_has_none() -> None:
    with (
        http_judge(lambda body, call: error(401, "who are you?")) as server,
        pytest.raises(JudgeNotHereError, match="asks for a key and none is set here"),
    ):
        found_by(server.url, api_key=NO_KEY)


def test_nobody_at_the_url_is_one_clear_sentence() -> None:
    with pytest.raises(JudgeError, match="no judge answers at http"):
        found_by("http://127.0.0.1:9/v1")


def test_where_nothing_is_found_the_end_of_the_url_is_asked_about() -> None:
    with http_judge(lambda body, call: error(404, "no such thing")) as server:
        with pytest.raises(JudgeError, match=r"should the judge's URL end in /v1\?"):
            found_by(server.url.removesuffix("/v1"))
        with pytest.raises(JudgeError, match="no such thing") as told:
            found_by(server.url)

    assert "end in /v1" not in str(told.value)


def test_a_scale_of_words_is_read_as_text() -> None:
    def decide(call: Call, number: int) -> Action:
        return Action(completion(None, text="It is clear. <answer>YES</answer>"))

    with lean_judge(decide) as server:
        found = found_by(server.url, scale="binary_text")

    assert found.profile.mode == "text"


def test_finding_out_how_a_judge_is_asked_counts_into_the_budget(tmp_path: Path) -> None:
    terms = Terms(price=Price(input=10.0, output=10.0), cap_usd=1.0)
    with (
        lean_judge(KINDS["gpt-6-luna"]) as judge,
        embedded_redis() as broker,
        connect(broker) as client,
        contextlib.ExitStack() as stack,
    ):
        run = stored_run(tmp_path / "r", traits="evil", rollouts=1, judge_url=judge.url)
        write_terms(run.store, terms)
        put_judge_meter(client, run.run_id, terms=terms, spent=0.0)
        pool = JudgePool(broker, None, 8)
        stack.callback(pool.end)

        _, usd = pool.negotiate(run, run.spec.judge, PROMPTS)
        meter = read_judge_meter(client, run.run_id)

    assert meter is not None and usd
    assert meter.spent == pytest.approx(usd)
