"""Protects judging from what a server does beside answering: slowness, size, redirects, faults."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse

from domain.errors import JudgeError, JudgeNotHereError, OrchestrateError, StoppedError
from domain.scoring.prices import Price
from domain.scoring.reply_limits import MAX_BODY_BYTES, MAX_RETRY_AFTER_S
from domain.scoring.scores import Score, Unscored
from storage.broker.embedded_redis import embedded_redis
from tasks.stages.judge_pool import MAX_IDLE_ENDPOINTS, JudgePool
from tests.faults.fleet import wait_until
from tests.faults.tls_front import make_certificates, tls_front
from tests.http_judge import Answer, HttpJudge, http_judge, scoring
from tests.lean_judge import Action, completion, lean_judge, refusal
from tests.reply_shapes import SHAPES
from tests.test_judge import Remembered, Waits, ask, judged
from tests.test_judge_batch import make_run
from workers.judge.client import HealingError, JudgeClient, read_limits
from workers.judge.judge import HARMLESS
from workers.judge.negotiate import Negotiated, negotiate
from workers.judge.profile import JudgeProfile
from workers.judge.retries import ATTEMPTS

ROOT = Path(__file__).parent.parent


def prompt_of(body: dict[str, Any]) -> str:
    text: str = body["messages"][0]["content"]
    return text


def response(status: int, body: Any) -> Response:
    """Whatever JSON does not have goes out as Python writes it."""
    content = body if isinstance(body, str) else json.dumps(body)
    return Response(content, status, media_type="application/json")


def good() -> Response:
    return scoring([("60", 0.9), ("x", 0.1)])


# --- one text, all texts

TEXT = ("filtered", "too_long")


@pytest.mark.parametrize("name", [n for n, (_, _, kind) in SHAPES.items() if kind in TEXT])
def test_an_objection_to_one_text_costs_that_scoring_and_no_other(name: str) -> None:
    status, body, reason = SHAPES[name]

    def answer(asked: dict[str, Any], call: int) -> Response:
        return response(status, body) if prompt_of(asked).endswith("0") else good()

    found, server, _ = ask(answer, n=40)

    assert found.stopped is None
    lost = {k: v.reason for k, v in enumerate(found.scorings) if isinstance(v, Unscored)}
    assert lost == dict.fromkeys((0, 10, 20, 30), reason)
    # and a harmless question, where the first reply was an objection
    assert len(server.asked) in (40, 41)


def test_a_400_without_a_reason_is_to_the_text_while_a_harmless_question_is_answered() -> None:
    def answer(asked: dict[str, Any], call: int) -> Response:
        return good() if prompt_of(asked) == HARMLESS else response(400, {"error": "no, not that"})

    found, server, _ = ask(answer, n=12)

    assert found.stopped is None
    assert {v.reason for v in found.scorings if isinstance(v, Unscored)} == {"objected"}
    assert "not that" in found.scorings[0].detail  # type: ignore[union-attr]
    assert len(server.asked) == 13


@pytest.mark.parametrize(
    "name", [n for n, (_, _, kind) in SHAPES.items() if kind in (*TEXT, "form", "lasts")]
)
def test_what_every_question_is_refused_for_ends_the_run(name: str) -> None:
    status, body, _ = SHAPES[name]

    found, _, _ = ask(lambda asked, call: response(status, body), n=3)

    assert isinstance(found.stopped, JudgeError)
    assert found.scorings == [None] * 3


# --- faults


HEALING = [n for n, (_, _, kind) in SHAPES.items() if kind == "heals"]


@pytest.mark.parametrize("name", HEALING)
def test_what_heals_is_asked_again_and_never_remembered(name: str) -> None:
    status, body, _ = SHAPES[name]
    cache = Remembered()

    def answer(asked: dict[str, Any], call: int) -> Response:
        return response(status, body) if call < 2 else good()

    found, server, _ = ask(answer, cache=cache)

    assert isinstance(found.scorings[0], Score)
    assert found.scorings[0].evidence.attempts == 3 == len(server.asked)
    assert [one.text for one in cache.replies.values()] == ["50"]


def test_a_fault_that_stays_is_a_scoring_without_a_score_and_no_memory() -> None:
    cache = Remembered()
    status, body, _ = SHAPES["an error under 200"]

    found, server, _ = ask(lambda asked, call: response(status, body), cache=cache)

    assert isinstance(found.scorings[0], Unscored)
    assert found.scorings[0].reason == "http" and "boo" in found.scorings[0].detail
    assert len(server.asked) == ATTEMPTS and cache.replies == {}


def negotiated(answer: Answer) -> tuple[Negotiated, HttpJudge]:
    async def run(url: str) -> Negotiated:
        client = JudgeClient(url, api_key="k")
        try:
            return await negotiate(client, "m", {"a": "rate", "b": "rate"}, sleep=Waits())
        finally:
            await client.close()

    with http_judge(answer) as server:
        return asyncio.run(run(server.url)), server


@pytest.mark.parametrize("name", [*HEALING, "nothing"])
def test_negotiation_asks_again_after_a_fault_and_finds_the_same_mode(name: str) -> None:
    status, body, _ = SHAPES[name]
    calm, _ = negotiated(lambda asked, call: good())

    found, server = negotiated(
        lambda asked, call: response(status, body) if call % 3 < 2 else good()
    )

    assert found.profile == calm.profile and found.profile.mode == "logprob"
    assert len(server.asked) == 6


def test_negotiation_leaves_logprobs_whose_tokens_are_all_impossible() -> None:
    def answer(asked: dict[str, Any], call: int) -> Response:
        body = completion([[("60", -0.1)]])
        body["choices"][0]["logprobs"]["content"][0]["top_logprobs"][0]["logprob"] = None
        return response(200, body)

    found, _ = negotiated(answer)

    assert found.profile.mode == "text"


# --- bounds


async def forever(part: bytes, apart_s: float) -> AsyncIterator[bytes]:
    while True:
        yield part
        await asyncio.sleep(apart_s)


def test_a_judge_that_sends_a_byte_now_and_then_is_a_timeout() -> None:
    def answer(asked: dict[str, Any], call: int) -> Response:
        return StreamingResponse(forever(b" ", 0.05), media_type="application/json")

    found, server, _ = ask(answer, timeout_s=0.4)

    assert isinstance(found.scorings[0], Unscored) and found.scorings[0].reason == "timeout"
    assert found.evidence[0].attempts == ATTEMPTS
    # on a busy machine one may be over before it was sent
    assert 1 <= len(server.asked) <= ATTEMPTS


BOMB = gzip.compress(b"[" * (64 * 2**20), 9)


@pytest.mark.parametrize("kind", ["bomb", "two bombs in one", "endless"])
def test_a_reply_without_measure_takes_no_memory(kind: str) -> None:
    def answer(asked: dict[str, Any], call: int) -> Response:
        if kind == "endless":
            return StreamingResponse(forever(b"x" * 2**16, 0.0))
        if kind == "bomb":
            return Response(BOMB, headers={"content-encoding": "gzip"})
        return Response(gzip.compress(BOMB), headers={"content-encoding": "gzip, gzip"})

    tracemalloc.start()
    try:
        found, _, _ = ask(answer, timeout_s=30)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert isinstance(found.scorings[0], Unscored) and "bytes" in found.scorings[0].detail
    assert peak < 12 * MAX_BODY_BYTES


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_carries_neither_key_nor_text(status: int) -> None:
    with http_judge(lambda asked, call: good()) as elsewhere:

        def answer(asked: dict[str, Any], call: int) -> Response:
            return RedirectResponse(f"{elsewhere.url}/chat/completions", status)

        found, _, _ = ask(answer)

    assert (elsewhere.asked, elsewhere.keys) == ([], [])
    assert isinstance(found.stopped, JudgeError) and "redirect" in str(found.stopped)


@pytest.mark.parametrize("name", ["retry-after", "retry-after-ms"])
@pytest.mark.parametrize("value", ["1e12", "99999999999"])
def test_no_endpoint_is_waited_for_all_night(name: str, value: str) -> None:
    assert read_limits({name: value}).retry_after_s == MAX_RETRY_AFTER_S


@pytest.mark.parametrize("value", ["nan", "inf", "-5", "0.001", "soon", ""])
def test_a_rate_that_cannot_be_is_no_rate(value: str) -> None:
    found = read_limits({"x-ratelimit-limit-requests": value, "x-ratelimit-limit-tokens": value})

    assert (found.requests_per_minute, found.tokens_per_minute) == (None, None)
    assert read_limits({"retry-after": "nan"}).retry_after_s is None


def test_a_certificate_that_is_not_trusted_is_called_so(tmp_path: Path) -> None:
    with http_judge(lambda asked, call: good()) as plain:
        port = int(plain.url.split(":")[2].partition("/")[0])
        with tls_front(make_certificates(tmp_path), port) as secure:
            found = asyncio.run(judged(f"https://127.0.0.1:{secure}/v1", ["a"], sleep=Waits()))

    assert isinstance(found.stopped, JudgeNotHereError)
    assert "certificate" in str(found.stopped)
    assert plain.asked == []


def on_the_way(url: str, *, will_be_closed: bool, timeout_s: float = 60.0) -> str:
    """What a call that fails on its way is called."""

    async def call() -> None:
        client = JudgeClient(url, api_key="k", timeout_s=timeout_s, will_be_closed=will_be_closed)
        try:
            await client.complete({"model": "test", "messages": []})
        finally:
            await client.close()

    with pytest.raises(HealingError) as failed:
        asyncio.run(call())
    return failed.value.kind


@pytest.mark.parametrize("will_be_closed", [True, False])
@pytest.mark.parametrize(
    ("becomes", "kind", "timeout_s"), [("cut", "http", 60.0), ("hang", "timeout", 0.5)]
)
def test_a_call_without_an_answer_may_be_on_the_bill(
    becomes: Any, kind: str, timeout_s: float, will_be_closed: bool
) -> None:
    with lean_judge(lambda call, number: Action(kind=becomes)) as judge:
        found = on_the_way(judge.url, will_be_closed=will_be_closed, timeout_s=timeout_s)

        assert found == kind
        # none where the time was over before it was sent
        assert len(judge.calls) <= 1


@pytest.mark.parametrize("will_be_closed", [True, False])
def test_a_call_that_nobody_took_is_not_on_the_bill(will_be_closed: bool) -> None:
    with lean_judge(lambda call, number: Action()) as judge:
        pass

    assert on_the_way(judge.url, will_be_closed=will_be_closed) == "unreachable"


def test_a_judge_in_a_script_that_does_not_close_it_says_nothing_of_it() -> None:
    code = (
        "import asyncio, sys; from workers.judge.openai_judge import OpenAiJudge\n"
        "judge = OpenAiJudge('test', '{question} {answer}', base_url=sys.argv[1])\n"
        "print(asyncio.run(judge.judge(question='a', answer='b')))"
    )
    with http_judge(lambda asked, call: good()) as server:
        command = [sys.executable, "-c", code, server.url]
        ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)

    assert float(ended.stdout) == pytest.approx(60)
    assert ended.stderr == ""


# --- money


@pytest.mark.parametrize("usage", [None, {"prompt_tokens": -100, "completion_tokens": -1}])
def test_a_reply_that_states_no_usage_costs_what_was_reserved(usage: Any) -> None:
    def answer(asked: dict[str, Any], call: int) -> Response:
        return JSONResponse({**completion([[("60", -0.1)]]), "usage": usage})

    found, _, _ = ask(answer, n=1, price=Price(input=1.0, output=1.0))

    (one,) = found.evidence
    assert one.usd == pytest.approx((int(len("prompt 0") * 0.4) + 1) / 1e6, rel=0.5)
    assert one.usd is not None and one.usd > 0


def test_a_key_in_an_answer_reaches_neither_evidence_nor_memory() -> None:
    cache = Remembered()

    found, _, _ = ask(
        lambda asked, call: scoring([("60", 0.9)], text="60 is sk-planted's"), cache=cache
    )

    assert isinstance(found.scorings[0], Score)
    assert "sk-planted" not in repr(found) + repr(cache.replies)


# --- a worker's pool


def test_the_connections_of_endpoints_that_nobody_asks_are_released(tmp_path: Path) -> None:
    with embedded_redis() as broker, contextlib.ExitStack() as stack:
        pool = JudgePool(broker, None, 8)
        stack.callback(pool.end)
        judges = [
            stack.enter_context(lean_judge(lambda call, n: Action(completion([[("7", 0.0)]]))))
            for _ in range(MAX_IDLE_ENDPOINTS + 2)
        ]
        for k, judge in enumerate(judges):
            run = make_run(tmp_path / str(k), judge.url)
            found = pool.scorings(run, run.spec.judge, JudgeProfile(), ["rate 1"], known={})
            assert found.stopped is None

        def are_open() -> list[bool]:
            return [any(not t.is_closing() for t in judge.transports) for judge in judges]

        wait_until(lambda: not any(are_open()[:2]), timeout_s=60, what="the ends of the lines")
        still_open = are_open()

    assert still_open == [False] * 2 + [True] * MAX_IDLE_ENDPOINTS


def test_a_worker_that_leaves_waits_for_no_endpoint(tmp_path: Path) -> None:
    stopped: list[OrchestrateError | None] = []

    def ask_for_long(pool: JudgePool, url: str) -> None:
        run = make_run(tmp_path, url)
        found = pool.scorings(run, run.spec.judge, JudgeProfile(), ["rate 1"], known={})
        stopped.append(found.stopped)

    with (
        embedded_redis() as broker,
        lean_judge(lambda call, n: refusal(429, "later", retry_after="100")) as judge,
    ):
        pool = JudgePool(broker, None, 8)
        thread = threading.Thread(target=ask_for_long, args=(pool, judge.url))
        thread.start()
        wait_until(lambda: bool(judge.calls), timeout_s=60, what="the call")
        time.sleep(0.3)
        pool.close()
        thread.join(timeout=60)
        pool.end()

    assert [type(one) for one in stopped] == [StoppedError]
