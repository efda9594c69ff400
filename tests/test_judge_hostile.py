"""Protects judging against a judge that fails in every way at once: nothing is lost or invented."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest

from domain.scoring.scores import Score, Unscored
from tests.http_judge import OpenLimiter
from tests.lean_judge import Action, Call, completion, lean_judge, refusal
from workers.judge.client import JudgeClient
from workers.judge.judge import Judge, JudgedPrompts, Slots
from workers.judge.profile import JudgeProfile

FAULTS = {
    "429": 0.10,
    "500": 0.05,
    "hang": 0.02,
    "cut": 0.02,
    "refused": 0.02,
    "unparseable": 0.02,
    "empty": 0.01,
}
PASSING = ("429", "500", "hang", "cut")
ANSWERS = {
    "refused": Action(completion([[("REF", -0.05), ("0", -4.0)]], text="REFUSAL")),
    "unparseable": Action(completion(None, text="It rather depends on the reader")),
    "empty": Action(completion(None, text="", completion_tokens=0)),
}
N_RESPONSES = 2000
SEED = 7


class Hostile:
    """Faults by chance: what passes is drawn for each call, what stays for each prompt."""

    def __init__(self) -> None:
        self.fate: dict[str, str] = {}
        self.drawn: Counter[str] = Counter()
        self.random = random.Random(SEED)

    def __call__(self, call: Call, number: int) -> Action:
        prompt = call.body["messages"][0]["content"]
        draw = self.random.random()
        for fault in PASSING:
            draw -= FAULTS[fault]
            if draw < 0:
                self.drawn[fault] += 1
                return self._fault(fault)
        return self._answer(prompt)

    def _fault(self, fault: str) -> Action:
        if fault == "429":
            return refusal(429, "slow down", retry_after="0.05")
        if fault == "500":
            return refusal(500, "oops")
        return Action(kind="hang" if fault == "hang" else "cut")

    def _answer(self, prompt: str) -> Action:
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


async def judge_all(url: str, prompts: list[str]) -> JudgedPrompts:
    client = JudgeClient(url, api_key="k", max_in_flight=128, timeout_s=2.0)
    judge = Judge(
        client,
        "test",
        profile=JudgeProfile(),
        slots=Slots(128),
        limiter=OpenLimiter(),
        sleep=quickly,
    )
    found = await judge.scorings(prompts)
    await client.close()
    return found


@pytest.mark.parametrize("n_responses", [250, pytest.param(N_RESPONSES, marks=pytest.mark.slow)])
def test_every_response_ends_scored_or_unscored_for_its_true_reason(n_responses: int) -> None:
    prompts = [f"{metric} {k}" for k in range(n_responses) for metric in ("trait", "coherence")]
    hostile = Hostile()

    with lean_judge(hostile) as server:
        found = asyncio.run(judge_all(server.url, prompts))

    assert found.stopped is None
    wrong = []
    for prompt, one in zip(prompts, found.scorings, strict=True):
        fate = fate_of(prompt)
        if isinstance(one, Score):
            said = str(round(one.value))
        else:
            assert isinstance(one, Unscored)
            said = one.reason
        if said != fate:
            wrong.append(f"{prompt}: {fate} became {said}")
    # five failures in a row are likely for one scoring in some hundred thousand
    assert wrong == []
    # each fault costs one call more and nothing else does
    n_faults = sum(hostile.drawn.values())
    assert len(server.calls) == len(prompts) + n_faults
    answered = sum(action.status == 200 and action.kind == "answer" for action in server.actions)
    assert answered == len(prompts)
