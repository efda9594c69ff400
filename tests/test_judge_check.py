"""Protects runs from a judge that cannot tell its ends apart: it is refused beforehand."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from click.testing import CliRunner, Result

from cli.main import orchestrate
from domain.errors import JudgeError
from domain.scoring.scores import Evidence, Score
from domain.traits.judge_prompt import EASY
from tests.lean_judge import Action, Call, completion, lean_judge
from traitlens.stats.separation import auroc
from workers.judge.check import COHERENCE, LEAST_AUROC, Labelled, checked, labelled_set

SET = labelled_set()
LABEL_OF = {one.answer: one.label for one in SET}
POINTS = {"low": 12, "middle": 48, "high": 88}
Judgement = Callable[[str, int], int | None]


def by_label(prompt: str, number: int) -> int | None:
    # the longest: a short answer may stand in another's text
    known = max((a for a in LABEL_OF if a in prompt), key=len, default=None)
    return 95 if known is None else POINTS[LABEL_OF[known]]


def inverted(prompt: str, number: int) -> int | None:
    return 100 - (by_label(prompt, number) or 0)


def timid(prompt: str, number: int) -> int | None:
    return 5 + (by_label(prompt, number) or 0) // 20


def constant(prompt: str, number: int) -> int | None:
    return 70


def silent_on_traits(prompt: str, number: int) -> int | None:
    return None if "**coherence**" not in prompt else by_label(prompt, number)


def at_random(seed: int) -> Judgement:
    draws = np.random.default_rng(seed)
    return lambda prompt, number: int(draws.integers(101))


def run_check(judgement: Judgement) -> Result:
    def decide(call: Call, number: int) -> Action:
        if not call.body:
            return Action({"object": "list", "data": []})
        score = judgement(call.body["messages"][0]["content"], number)
        if score is None:
            return Action(completion(None, text="That is a matter of taste"))
        return Action(completion([[(str(score), -0.05), ("x", -4.0)]]))

    with lean_judge(decide) as judge:
        command = ["judge-server", "--check", "--url", judge.url, "--model", "test", "--json"]
        return CliRunner().invoke(orchestrate, command)


@pytest.fixture(autouse=True)
def _no_limits(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("ORCHESTRATE_ONLY_JUDGES_AT", raising=False)
    yield


def test_a_judge_that_knows_its_ends_passes_with_its_figures() -> None:
    ended = run_check(by_label)

    assert ended.exit_code == 0, ended.output
    found = json.loads(ended.stdout)
    assert found["objections"] == []
    assert found["traits"]["auroc"] == found["coherence"]["auroc"] == 1.0
    assert found["traits"]["means"] == pytest.approx(POINTS, abs=0.5)
    assert sum(one["n"] for one in found["by_metric"]) == len(SET)


@pytest.mark.parametrize(
    "judgement",
    [constant, inverted, timid, at_random(3), silent_on_traits],
    ids=lambda f: f.__name__,
)
def test_a_judge_that_does_not_is_refused(judgement: Judgement) -> None:
    ended = run_check(judgement)

    assert isinstance(ended.exception, JudgeError), ended.output
    assert "test" in str(ended.exception)


def test_a_judge_that_answers_at_random_hardly_ever_passes() -> None:
    """AUROC's own spread of chance, in draws from the set's numbers of answers."""
    draws = np.random.default_rng(0)
    n_low, n_high = (
        sum(one.metric != COHERENCE and one.label == end for one in SET) for end in ("low", "high")
    )
    scores = draws.integers(0, 101, (n_low + n_high, 20_000)).astype(float)
    by_chance = auroc(scores[:n_high], scores[n_high:])

    assert (by_chance >= LEAST_AUROC).mean() < 1e-3
    found = [
        checked("m", "", SET, [_scored(float(x)) for x in draws.integers(0, 101, len(SET))])
        for _ in range(30)
    ]
    assert all(one.objections for one in found)


def _scored(value: float) -> Score:
    return Score(
        value=value, numeric_mass=1.0, refusal_mass=0.0, evidence=Evidence(replies=(), mode="text")
    )


def test_the_set_has_its_ends_and_no_text_of_the_negotiation() -> None:
    ends = Counter((one.metric, one.label) for one in SET)

    assert min(ends[m, end] for m in {x.metric for x in SET} for end in ("low", "high")) >= 6
    assert len({(one.question, one.answer) for one in SET}) == len(SET)
    assert not any(EASY[1] in one.answer for one in SET)
    assert {one.metric for one in SET} > {COHERENCE}
    assert all(isinstance(one, Labelled) for one in SET)
