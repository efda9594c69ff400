"""Protects the score rules: the expected value, the mass floor, and the reasons kept apart."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.scores import Evidence, Score, Unscored, candidates_from_logprobs, score_0_100


def judged(pairs: list[tuple[str, float]], reply: str = "") -> Score | Unscored:
    logprobs = [(token, math.log(p)) for token, p in pairs]
    return score_0_100(Evidence(reply=reply, candidates=candidates_from_logprobs(logprobs)))


def test_the_score_is_the_expected_value_over_integer_tokens() -> None:
    found = judged([("80", 0.5), (" 90", 0.25), ("REF", 0.2), ("the", 0.05)])

    assert isinstance(found, Score)
    assert found.value == pytest.approx((80 * 0.5 + 90 * 0.25) / 0.75)
    assert found.numeric_mass == pytest.approx(0.75)
    assert found.refusal_mass == pytest.approx(0.2)


@pytest.mark.parametrize("token", ["101", "-5", "5.0", "\u0665", "²", "1e1", "", "fifty"])
def test_what_is_no_integer_from_0_to_100_carries_no_score(token: str) -> None:
    found = judged([(token, 0.9), ("40", 0.05)])

    assert isinstance(found, Unscored)
    assert found.reason == "low_mass"


def test_under_a_quarter_of_the_mass_there_is_no_score_and_at_a_quarter_there_is() -> None:
    assert isinstance(judged([("50", 0.2499), ("x", 0.7)]), Unscored)
    assert isinstance(judged([("50", 0.2501), ("x", 0.7)]), Score)


def test_a_refusal_is_not_low_mass() -> None:
    found = judged([("REF", 0.9), ("0", 0.05)], reply="REFUSAL")

    assert isinstance(found, Unscored)
    assert found.reason == "refused"


@pytest.mark.parametrize(("reply", "reason"), [("", "empty"), ("I think 80", "unparseable")])
def test_without_probabilities_the_reply_decides_the_reason(reply: str, reason: str) -> None:
    found = score_0_100(Evidence(reply=reply))

    assert isinstance(found, Unscored)
    assert found.reason == reason


@given(st.lists(st.tuples(st.integers(0, 100), st.floats(0.01, 1.0)), min_size=1, max_size=20))
def test_the_score_lies_between_the_smallest_and_largest_number(
    pairs: list[tuple[int, float]],
) -> None:
    total = sum(p for _, p in pairs)

    found = judged([(str(n), p / total) for n, p in pairs])

    assert isinstance(found, Score)
    assert min(n for n, _ in pairs) - 1e-9 <= found.value <= max(n for n, _ in pairs) + 1e-9
