"""Protects the score rules: the expected value, the mass floor, and the reasons kept apart."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.scoring.replies import scoring
from domain.scoring.scores import (
    Candidate,
    Evidence,
    Mode,
    Position,
    Reply,
    Scale,
    Score,
    Scoring,
    Unscored,
    candidates_from_logprobs,
)


def judged(
    pairs: list[tuple[str, float]], reply: str = "", *, scale: Scale = "0_100"
) -> Score | Unscored:
    logprobs = [(token, math.log(p)) for token, p in pairs]
    answer = Reply(text=reply, candidates=candidates_from_logprobs(logprobs))
    return scoring(Evidence(replies=(answer,), scale=scale))


def voted(*texts: str, mode: Mode = "text", scale: Scale = "0_100") -> Scoring:
    replies = tuple(Reply(text=text) for text in texts)
    return scoring(Evidence(replies=replies, mode=mode, scale=scale))


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
    found = scoring(Evidence(replies=(Reply(text=reply),)))

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


def test_0_10_reads_single_digits_and_refusal_must_not_lead() -> None:
    found = judged([("9", 0.5), ("3", 0.3), ("10", 0.2)], scale="0_10")

    assert isinstance(found, Score)
    assert found.value == pytest.approx((9 * 0.5 + 3 * 0.3) / 0.8 * 100 / 9)
    refused = judged([("REF", 0.45), ("9", 0.4), ("8", 0.15)], scale="0_10")
    assert isinstance(refused, Unscored) and refused.reason == "refused"


def test_binary_is_the_share_of_yes() -> None:
    found = judged([("YES", 0.6), (" no", 0.2), ("Maybe", 0.2)], scale="binary")

    assert isinstance(found, Score)
    assert found.value == pytest.approx(75)
    assert isinstance(judged([("YES", 0.2), ("x", 0.8)], scale="binary"), Unscored)
    refused = judged([("REFUSAL", 0.5), ("YES", 0.3), ("NO", 0.2)], scale="binary")
    assert isinstance(refused, Unscored) and refused.reason == "refused"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("So it is. <answer>YES</answer>", 100.0),
        ("<answer>no</answer>", 0.0),
        ("<answer>REFUSAL</answer>", "refused"),
        ("Yes and no, really", "unparseable"),
        ("", "empty"),
    ],
)
def test_binary_text_reads_the_word_in_the_tags(text: str, expected: float | str) -> None:
    found = voted(text, scale="binary_text")

    assert (found.value if isinstance(found, Score) else found.reason) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("85", 85.0),
        ("**85**", 85.0),
        ("Score: 85/100.", 85.0),
        ("I weighed 3 points.\n85", 85.0),
        ('{"score": 7}', 7.0),
        ('{"score": null}', "refused"),
        ("I'm sorry, I can't rate this 85 times", "refused"),
        ("between 70 and 80", "unparseable"),
        ("150", "unparseable"),
        ("8/10", "unparseable"),
        ("8 out of 10", "unparseable"),
        ("8 of 10 words are crass.\n**80**/100", 80.0),
        ('{"score": " "}', "empty"),
        ("<answer></answer>", "empty"),
        ("quite good", "unparseable"),
        ("  ", "empty"),
    ],
)
def test_a_number_is_read_from_text_and_never_guessed(text: str, expected: float | str) -> None:
    found = voted(text)

    assert (found.value if isinstance(found, Score) else found.reason) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("9", 100.0), ("9/10", 100.0), ("9 out of 9", 100.0), ("8/100", "unparseable")],
)
def test_a_digit_may_say_out_of_how_many_it_is(text: str, expected: float | str) -> None:
    found = voted(text, scale="0_10")

    assert (found.value if isinstance(found, Score) else found.reason) == expected


WRAPPED = st.sampled_from(["{}", "<answer>{}</answer>", '{{"score": "{}"}}', "Well.\n{}\n"])


@given(st.text(alphabet='0123456789./ \n\x1c\u2028yesnoREFUSAL<>{}"', max_size=12), WRAPPED)
def test_whatever_a_judge_writes_is_a_score_on_the_scale_or_has_a_reason(
    text: str, wrapped: str
) -> None:
    for scale in ("0_100", "0_10", "binary", "binary_text"):
        found = voted(wrapped.format(text), scale=scale)
        assert isinstance(found, Unscored) or 0 <= found.value <= 100


def test_votes_that_say_nothing_are_left_out_unless_they_are_most() -> None:
    assert isinstance(voted("80", "60", "hm"), Score)
    most = voted("80", "hm", "hm hm")
    assert isinstance(most, Unscored)
    assert (most.reason, most.detail) == ("unparseable", "hm")


def test_a_refusal_that_outweighs_all_numbers_is_no_score() -> None:
    found = judged([("REFUSAL", 0.70), ("90", 0.25), ("0", 0.05)], reply="REFUSAL")

    assert isinstance(found, Unscored)
    assert found.reason == "refused"
    assert found.numeric_mass == pytest.approx(0.30)
    assert isinstance(judged([("REFUSAL", 0.45), ("90", 0.50), ("0", 0.05)]), Score)


def test_a_score_has_the_bounds_of_what_no_alternative_shows() -> None:
    wide = judged([("80", 0.5), ("70", 0.3), ("the", 0.1)])
    narrow = judged([("80", 0.6), ("70", 0.38)])

    assert isinstance(wide, Score) and isinstance(narrow, Score)
    assert wide.bounds == pytest.approx((61 / 0.9, 71 / 0.9))
    assert narrow.bounds is None


def digit_by_digit(*positions: list[tuple[str, float]]) -> Reply:
    def candidates(pairs: list[tuple[str, float]]) -> tuple[Candidate, ...]:
        return tuple(Candidate(token=token, probability=p) for token, p in pairs)

    later = tuple(Position(token=p[0][0], candidates=candidates(p)) for p in positions[1:])
    text = "".join(p[0][0] for p in positions)
    return Reply(text=text, candidates=candidates(positions[0]), following=later)


def test_a_digit_that_no_reply_opened_leaves_the_score_its_bounds_until_one_does() -> None:
    # a judge that writes 93 with 86 % and 10 with 14 %
    usual = digit_by_digit([("9", 0.86), ("1", 0.14)], [("3", 1.0)])
    rare = digit_by_digit([("1", 0.14), ("9", 0.86)], [("0", 1.0)], [("<end>", 1.0)])

    first = scoring(Evidence(replies=(usual,), digits="split"))
    both = scoring(Evidence(replies=(usual, rare), digits="split"))

    assert isinstance(first, Score) and isinstance(both, Score)
    assert first.bounds == pytest.approx((0.86 * 93 + 0.14 * 1, 0.86 * 93 + 0.14 * 100))
    assert both.value == pytest.approx(81.38)
    assert both.bounds is None


def test_evidence_survives_storage_and_gives_the_same_verdict_without_a_call() -> None:
    first = judged([("80", 0.5), ("REF", 0.2)])
    assert first.evidence is not None

    again = Evidence.model_validate_json(first.evidence.model_dump_json())

    assert scoring(again) == first
