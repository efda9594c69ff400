"""Protects measured traits: what is counted, how it becomes a score, and that no pattern hangs."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from cli.commands.plan import plan
from cli.commands.rejudge import rejudge
from domain.errors import JudgeError, UsageError
from domain.traits.check import check_trait
from domain.traits.definition import MEASURED_TRAITS, TraitDefinition
from domain.traits.measure import Measure, measure_of
from storage.files.trait_files import read_trait, read_traits
from storage.record.judgements import judgement_names
from tests.stored_run import stored_run
from tests.trait_texts import trait_json
from workers.judge.measures import lexicon, score_by
from workers.judge.server import embedded_backend

LIST = "Sure:\n- one\n* two\n3. three"


def measure(**fields: object) -> Measure:
    return Measure.model_validate({"zero": 0, "hundred": 1, **fields})


def measured_definition(**fields: object) -> TraitDefinition:
    body = trait_json()
    del body["eval_prompt"]
    return TraitDefinition.from_json(
        "humor", {**body, "measure": {"zero": 0, "hundred": 1, **fields}}
    )


@pytest.mark.parametrize(
    ("by", "answer", "score"),
    [
        ({"by": "words", "hundred": 10}, "Don't worry, be happy now.", 50),
        ({"by": "words", "hundred": 4}, "one two three four five", 100),
        ({"by": "words", "zero": 10, "hundred": 0}, "one two", 80),
        ({"by": "sentences", "hundred": 4}, "One. Two! Is it 3.5?", 75),
        ({"by": "matches", "pattern": r"\bsorry\b", "hundred": 4}, "Sorry, so sorry. Sorrys.", 50),
        ({"by": "word_share", "words": ["maybe"]}, "Maybe it is maybe.", 50),
        ({"by": "bullet_share"}, LIST, 75),
        ({"by": "json"}, '{"a": [1]}', 100),
        ({"by": "json"}, "{a: 1}", 0),
        ({"by": "distinct"}, "round and " * 30, 0),
        ({"by": "distinct"}, "Yes.", 100),
        ({"by": "distinct"}, "", 0),
        ({"by": "word_share", "words": ["a"]}, "", 0),
        ({"by": "bullet_share"}, "", 0),
    ],
)
def test_a_quantity_becomes_a_score(by: dict[str, object], answer: str, score: float) -> None:
    assert score_by(measure(**by), answer) == pytest.approx(score)


def test_sentiment_goes_up_with_happy_words() -> None:
    by = measure(by="sentiment", zero=-1)

    assert score_by(by, "A wonderful, lovely day!") > 80 > 20 > score_by(by, "A horrible, sad day.")


@given(st.floats(-5, 5), st.floats(-5, 5), st.floats(0, 1000), st.floats(0, 1000))
def test_scores_are_monotone_and_within_bounds(
    zero: float, hundred: float, a: float, b: float
) -> None:
    if zero == hundred:
        return
    by = Measure(by="words", zero=zero, hundred=hundred)

    low, high = by.score(min(a, b)), by.score(max(a, b))

    assert 0 <= low <= 100 and 0 <= high <= 100
    assert low <= high if hundred > zero else low >= high


@pytest.mark.parametrize("pattern", [r"(a|aa)+b", r"(.*a){20}x"])
def test_a_pattern_that_goes_on_without_end_is_stopped(pattern: str) -> None:
    by = measure(by="matches", pattern=pattern)

    # without a limit this would outlast the suite's
    with pytest.raises(JudgeError, match="pattern"):
        score_by(by, "a" * 5000)


@pytest.mark.parametrize(
    ("block", "where"),
    [
        ({"by": "length", "zero": 0, "hundred": 1}, "measure.by"),
        ({"by": "words", "zero": 5, "hundred": 5}, "measure"),
        ({"by": "words", "zero": 0}, "measure.hundred"),
        ({"by": "matches", "zero": 0, "hundred": 1, "pattern": "("}, "measure"),
        ({"by": "matches", "zero": 0, "hundred": 1}, "measure"),
        ({"by": "words", "zero": 0, "hundred": 1, "pattern": "a"}, "measure"),
        ({"by": "word_share", "zero": 0, "hundred": 1}, "measure"),
        ({"by": "words", "zero": 0, "hundred": 1, "unit": "x"}, "measure.unit"),
        ("words", "measure"),
    ],
)
def test_a_wrong_measure_is_an_error_at_its_place(block: object, where: str) -> None:
    body = trait_json()
    del body["eval_prompt"]

    found = check_trait({**body, "measure": block}, "humor")

    assert {p.where for p in found if p.severity == "error"} == {where}


@pytest.mark.parametrize("name", MEASURED_TRAITS)
def test_a_bundled_measured_trait_has_no_problem_and_is_not_among_all(name: str) -> None:
    source = read_trait(name)

    assert source.problems() == ()
    assert source in read_traits("measured")
    assert name not in {one.name for one in read_traits("all")}


def test_the_formula_is_in_the_definition_and_changes_its_fingerprint() -> None:
    one, other = measured_definition(by="words"), measured_definition(by="sentences")

    again = TraitDefinition.from_json("humor", json.loads(json.dumps(one.to_json())))

    assert again == one
    assert one.fingerprint() != other.fingerprint()


@pytest.mark.parametrize("pattern", ["a{2}", "{answer}", "{{", "\\{x\\}", "a\nb"])
def test_the_server_scores_what_the_prompt_says_whatever_is_in_pattern_and_answer(
    pattern: str,
) -> None:
    definition = measured_definition(by="matches", pattern=pattern, hundred=4)
    answer = "aa {answer} {{ {x} [MEASURE] {}\n aa"
    prompt = definition.judge_prompt("Why {question}?", answer)

    reply = asyncio.run(embedded_backend(prompt))

    assert measure_of(prompt) == definition.measure
    expected = score_by(measure(by="matches", pattern=pattern, hundred=4), answer)
    mean = sum(float(text) * share for text, share in reply.candidates)
    assert mean == pytest.approx(expected)


def test_fractions_survive_the_way_over_number_tokens() -> None:
    definition = measured_definition(by="words", hundred=7)

    reply = asyncio.run(embedded_backend(definition.judge_prompt("Why?", "one two three")))

    mean = sum(float(text) * share for text, share in reply.candidates)
    assert mean == pytest.approx(100 * 3 / 7)


def test_the_trait_of_the_guide_can_be_used() -> None:
    page = (Path(__file__).parents[1] / "docs" / "first-real-model.md").read_text()

    found = check_trait(json.loads(page.split("```json")[1].split("```")[0]), "hedging")

    assert all(problem.severity == "warning" for problem in found)


def planned(folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(plan, ["--runs-dir", str(folder), *arguments])


def test_a_judge_that_cannot_score_a_trait_is_refused_before_anything_is_spent(
    tmp_path: Path,
) -> None:
    own = tmp_path / "humor.json"
    own.write_text(json.dumps(trait_json()))

    refused = [
        planned(tmp_path, "--traits", str(own)),
        planned(tmp_path, "--traits", "wordy", "--judge-model", "gpt-6-luna"),
        planned(tmp_path, "--traits", "evil,wordy", "--model", "some/model"),
    ]

    assert [type(one.exception) for one in refused] == [UsageError] * 3
    assert planned(tmp_path, "--traits", "evil,wordy").exit_code == 0


def test_a_trait_by_sentiment_is_refused_where_the_lexicon_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "vaderSentiment.vaderSentiment", None)
    lexicon.cache_clear()
    fleet = ("--broker-url", "redis://127.0.0.1:9/0")

    refused = planned(tmp_path, "--traits", "wordy,cheerful")

    assert isinstance(refused.exception, JudgeError)
    assert ".[sentiment]" in str(refused.exception)
    # nobody measures anything there, and a fleet has its own packages
    assert planned(tmp_path, "--traits", "wordy").exit_code == 0
    assert planned(tmp_path, "--traits", "cheerful", "--judge", "none").exit_code == 0
    assert planned(tmp_path, "--traits", "cheerful", *fleet).exit_code == 0


def test_a_measured_trait_is_not_scored_again_by_a_judge_that_follows_no_formula(
    tmp_path: Path,
) -> None:
    run = stored_run(tmp_path / "run", traits="wordy")
    judge = ["--judge-model", "gpt-6-luna", "--judge-url", "http://127.0.0.1:9/v1"]

    refused = CliRunner().invoke(rejudge, ["run", "--runs-dir", str(tmp_path), *judge])

    assert isinstance(refused.exception, UsageError)
    assert "wordy" in str(refused.exception)
    assert judgement_names(run) == []
