"""Protects judging against a judge that fails in every way at once: nothing is lost or invented."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest
from redis.asyncio import Redis

from domain.scoring.scores import Score, Scoring
from storage.broker.embedded_redis import embedded_redis
from storage.broker.reply_cache import ReplyCache
from tests.http_judge import OpenLimiter
from tests.lean_judge import Action, Call, completion, lean_judge, refusal
from tests.reply_shapes import SHAPES
from workers.judge.client import JudgeClient
from workers.judge.judge import HARMLESS, Judge, JudgedPrompts, Slots
from workers.judge.profile import JudgeProfile

FAULTS = {
    "429": 0.10,
    "500": 0.05,
    "hang": 0.02,
    "cut": 0.02,
    "shape": 0.05,
    "refused": 0.02,
    "unparseable": 0.02,
    "empty": 0.01,
    "filtered": 0.01,
    "too_long": 0.01,
    "objected": 0.01,
}
PASSING = ("429", "500", "hang", "cut", "shape")
HEALING = [name for name, (_, _, becomes) in SHAPES.items() if becomes == "heals"]


def shape(name: str) -> Action:
    status, body, _ = SHAPES[name]
    return Action(body, status)


ANSWERS = {
    "refused": Action(completion([[("REF", -0.05), ("0", -4.0)]], text="REFUSAL")),
    "unparseable": Action(completion(None, text="It rather depends on the reader")),
    "empty": Action(completion(None, text="", completion_tokens=0)),
    "filtered": shape("azure's filter"),
    "too_long": shape("llama.cpp's context size"),
    "objected": shape("gemini's list"),
}
OBJECTIONS = ("filtered", "too_long", "objected")
N_RESPONSES = 2000
SEED = 8  # by which one prompt, of few and of many, meets nothing but faults


class Hostile:
    """Faults by chance: what passes is drawn for a prompt's every call, what stays for the prompt.

    Each meets the same in whatever order the prompts come.
    """

    def __init__(self) -> None:
        self.calm = False
        self.answered: set[str] = set()
        self.drawn: Counter[str] = Counter()
        self.asked: Counter[str] = Counter()

    def __call__(self, call: Call, number: int) -> Action:
        prompt = call.body["messages"][0]["content"]
        if prompt == HARMLESS:
            return Action(completion([[("95", -0.1), ("x", -3.0)]]))
        self.asked[prompt] += 1
        chance = random.Random(f"{SEED} {prompt} {self.asked[prompt]}")
        draw = 1.0 if self.calm else chance.random()
        for fault in PASSING:
            draw -= FAULTS[fault]
            if draw < 0:
                self.drawn[fault] += 1
                return self._fault(fault, chance)
        return self._answer(prompt)

    def _fault(self, fault: str, chance: random.Random) -> Action:
        if fault == "429":
            return refusal(429, "slow down", retry_after="0.05")
        if fault == "500":
            return refusal(500, "oops")
        if fault == "shape":
            return shape(chance.choice(HEALING))
        return Action(kind="hang" if fault == "hang" else "cut")

    def _answer(self, prompt: str) -> Action:
        self.answered.add(prompt)
        fate = fate_of(prompt)
        if fate in ANSWERS:
            return ANSWERS[fate]
        return Action(completion([[(str(int(fate)), -0.1), ("x", -3.0)]]))


def fate_of(prompt: str) -> str:
    """What the server says of a prompt once it says anything: a score, or a lasting fault."""
    chance = random.Random(f"{SEED} {prompt}")
    draw = chance.random()
    for fault in ANSWERS:
        draw -= FAULTS[fault]
        if draw < 0:
            return fault
    return str(chance.randrange(101))


async def quickly(seconds: float) -> None:
    """Waits of the schedule, twenty times as fast."""
    await asyncio.sleep(seconds / 20)


async def judge_all(url: str, prompts: list[str], *, broker: str) -> JudgedPrompts:
    """Ask all, sharing a broker's cache with whoever asks later."""
    # what a busy machine does not write or read within five seconds is not remembered
    connection = Redis.from_url(broker, socket_timeout=60)
    client = JudgeClient(url, api_key="k", max_in_flight=128, timeout_s=10.0)
    judge = Judge(
        client,
        "test",
        profile=JudgeProfile(),
        slots=Slots(128),
        limiter=OpenLimiter(),
        sleep=quickly,
        cache=ReplyCache(connection, judge_key="sk-of-these-tests"),
    )
    found = await judge.scorings(prompts)
    await client.close()
    await connection.aclose()
    return found


def said_of(scorings: list[Scoring | None]) -> list[str]:
    """Each as a score without decimals, or as its reason."""
    assert None not in scorings
    return [str(round(v.value)) if isinstance(v, Score) else v.reason for v in scorings if v]


@pytest.mark.parametrize("n_responses", [250, pytest.param(N_RESPONSES, marks=pytest.mark.slow)])
def test_every_response_ends_scored_or_unscored_for_its_true_reason(n_responses: int) -> None:
    prompts = [f"{metric} {k}" for k in range(n_responses) for metric in ("trait", "coherence")]
    hostile = Hostile()

    with embedded_redis() as broker, lean_judge(hostile) as server:
        found = asyncio.run(judge_all(server.url, prompts, broker=broker))
        # each of the five attempts failed
        unlucky = [k for k, prompt in enumerate(prompts) if prompt not in hostile.answered]
        n_drawn, n_calls = sum(hostile.drawn.values()), len(server.calls)
        hostile.calm = True
        again = asyncio.run(judge_all(server.url, prompts, broker=broker))

    fates = [fate_of(prompt) for prompt in prompts]
    assert found.stopped is None and again.stopped is None
    assert 1 <= len(unlucky) <= 0.01 * len(prompts)
    said = said_of(found.scorings)
    assert not any(said[k].isdigit() for k in unlucky)
    assert [one for k, one in enumerate(said) if k not in unlucky] == [
        one for k, one in enumerate(fates) if k not in unlucky
    ]
    # each fault costs one call more, and a harmless question tells what an objection is to
    first, second = server.calls[:n_calls], server.calls[n_calls:]
    n_harmless = sum(call.body["messages"][0]["content"] == HARMLESS for call in first)
    assert n_harmless <= 2
    least = n_drawn + len(prompts) - len(unlucky)
    # on a busy machine an answer may come too late
    assert least <= len(first) - n_harmless <= 1.02 * least
    # what was answered is remembered, and nothing else is
    assert said_of(again.scorings) == fates
    for k, (fate, evidence) in enumerate(zip(fates, again.evidence, strict=True)):
        remembered = [] if fate in OBJECTIONS else [k not in unlucky]
        assert [reply.cached for reply in evidence.replies] == remembered
    n_unknown = sum(fate in OBJECTIONS or k in unlucky for k, fate in enumerate(fates))
    asked_again = [call for call in second if call.body["messages"][0]["content"] != HARMLESS]
    assert len(asked_again) == n_unknown
