"""Protects `orchestrate traits pilot`: it costs 40 responses, finds what is planted in them, and
says nothing of a definition that works."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from cli.commands.traits import traits
from cli.using.piloted import Kind, Pilot, piloted
from domain.errors import UsageError
from domain.plan.samples import POLARITIES, Sample
from domain.plan.spec import FilterSpec
from domain.scoring.scores import Evidence, Score, Scoring, Unscored
from storage.files.trait_files import read_trait
from storage.record.responses import Response
from storage.record.results import SampleResult
from tests.fleet import run_command
from tests.trait_texts import trait_json, without, write

PLACES = (0, 5, 10, 15)


def score(value: float) -> Score:
    return Score(value=value, numeric_mass=1.0, refusal_mass=0.0, evidence=Evidence())


def good(sample: Sample) -> float:
    """What a judge says of a definition that works, a little different everywhere."""
    base = 85 if sample.polarity == "positive" else 10
    return base + sample.instruction + 2 * sample.question


def is_pos(sample: Sample) -> bool:
    return sample.polarity == "positive"


def pilot_of(
    trait: Callable[[Sample], float | Unscored] = good,
    *,
    coherence: Callable[[Sample], float] = lambda sample: 90.0,
    finish: Callable[[Sample], str] = lambda sample: "stop",
    n_tokens: Callable[[Sample], int] = lambda sample: 30,
    n_pairs: int = 5,
) -> Pilot:
    """A pilot of 5 pairs and 4 questions with these scores."""
    found = []
    for polarity in POLARITIES:
        for pair in range(n_pairs):
            for question in range(4):
                sample = Sample("humor", polarity, pair, question, 0)
                said = trait(sample)
                scored: Scoring = said if isinstance(said, Unscored) else score(said)
                response = Response(sample.key, 0, "p", [1], "r", [2], finish(sample))
                found.append(
                    SampleResult(
                        sample=sample,
                        n_tokens=n_tokens(sample),
                        trait=scored,
                        coherence=score(coherence(sample)),
                        response=response,
                        instruction=f"{polarity} {pair}",
                        question=f"question {question}",
                    )
                )
    return piloted(found, FilterSpec(), places=PLACES)


def kinds(pilot: Pilot) -> list[Kind]:
    return [one.kind for one in pilot.remarks]


def test_a_definition_that_works_is_only_said_to_work() -> None:
    pilot = pilot_of()

    assert kinds(pilot) == [Kind.DIFFER]
    assert pilot.contrast is not None
    value, low, high = pilot.contrast
    assert value == pytest.approx(75)
    assert low <= value <= high


def test_the_weak_pair_is_named_with_the_side_that_is_not_obeyed() -> None:
    def third_is_ignored(sample: Sample) -> float:
        return 20.0 if sample.instruction == 2 else good(sample)

    pilot = pilot_of(third_is_ignored)

    assert kinds(pilot)[1:] == [Kind.WEAK_PAIR]
    assert pilot.remarks[1].where == "instruction[2]"
    assert pilot.pairs[2].contrast == 0


def test_a_question_that_elicits_nothing_is_named_by_its_place_in_the_file() -> None:
    def always(sample: Sample) -> float:
        return 80.0 if sample.question == 3 else good(sample)

    pilot = pilot_of(always)

    assert kinds(pilot)[1:] == [Kind.DEAD_QUESTION]
    assert pilot.remarks[1].where == f"questions[{PLACES[3]}]"


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        (lambda s: 100 - good(s), Kind.WRONG_WAY),
        (lambda s: 30 + 3 * (s.question + s.instruction * is_pos(s)) % 7, Kind.NO_DIFFERENCE),
        (lambda s: 60 + s.question if is_pos(s) else 35 + s.question, Kind.DIFFER_LITTLE),
        (lambda s: Unscored(reason="unparseable"), Kind.NOTHING_SCORED),
    ],
)
def test_the_first_thing_said_is_whether_the_sides_differ(
    scores: Callable[[Sample], float | Unscored], expected: Kind
) -> None:
    assert kinds(pilot_of(scores))[0] == expected


def test_a_model_that_does_not_show_the_trait_and_one_that_always_does_are_told_apart() -> None:
    low, high = pilot_of(lambda s: good(s) / 4), pilot_of(lambda s: 75 + good(s) / 4)

    assert Kind.NOT_SHOWN in kinds(low)
    assert Kind.ALWAYS_SHOWN not in kinds(low)
    assert Kind.ALWAYS_SHOWN in kinds(high)
    assert Kind.NOT_SHOWN not in kinds(high)


@pytest.mark.parametrize(
    ("spoilt", "expected"),
    [
        ({"coherence": lambda s: 20.0 if is_pos(s) and s.question < 2 else 90.0}, Kind.INCOHERENT),
        ({"finish": lambda s: "length" if is_pos(s) else "stop"}, Kind.CUT),
        ({"n_tokens": lambda s: 90 if is_pos(s) else 30}, Kind.LENGTH),
        (
            {"trait": lambda s: Unscored(reason="refused") if s.question == 0 else good(s)},
            Kind.REFUSED,
        ),
        (
            {"trait": lambda s: Unscored(reason="unparseable") if s.question == 0 else good(s)},
            Kind.UNSCORED,
        ),
    ],
)
def test_what_spoils_responses_is_said(spoilt: dict[str, Any], expected: Kind) -> None:
    pilot = pilot_of(**spoilt)

    assert set(kinds(pilot)) == {Kind.DIFFER, expected}


def test_of_one_pair_the_interval_is_said_to_be_over_questions() -> None:
    pilot = pilot_of(n_pairs=1)

    assert kinds(pilot) == [Kind.DIFFER, Kind.ONE_PAIR]


def test_of_one_pair_and_one_question_there_is_a_difference_without_an_interval() -> None:
    whole = [
        SampleResult(
            sample=Sample("humor", polarity, 0, 0, 0),
            n_tokens=3,
            trait=score(value),
            coherence=score(90),
            response=Response(polarity, 0, "p", [1], "r", [2], "stop"),
            instruction=polarity,
            question="q",
        )
        for polarity, value in zip(POLARITIES, (90.0, 10.0), strict=True)
    ]

    pilot = piloted(whole, FilterSpec(), places=(0,))

    assert pilot.contrast is not None
    assert pilot.contrast[0] == 80
    assert kinds(pilot) == [Kind.UNSURE]


def test_what_it_costs_is_said_before_anything_is_spent(tmp_path: Path) -> None:
    data = {**without("eval_questions"), "eval_question": []}
    path = write(tmp_path / "humor.json", data)

    judge = ["--judge-model", "gpt-4.1-mini", "--judge-url", "http://127.0.0.1:9/v1"]
    place = ["--runs-dir", str(tmp_path / "runs"), "--broker-url", "redis://127.0.0.1:9"]

    shown = CliRunner().invoke(traits, ["pilot", str(path), *judge, *place, "--dry-run"])

    assert shown.exit_code == 0, shown.output
    assert "40 responses" in shown.output
    assert "80 judge calls" in shown.output
    assert all(warning in shown.output for warning in read_trait(str(path)).warnings())
    assert "did you mean 'eval_questions'?" in shown.output
    assert not (tmp_path / "runs").exists()


def test_what_no_judge_here_can_score_is_refused_at_once(tmp_path: Path) -> None:
    path = write(tmp_path / "humor.json", trait_json())

    refused = CliRunner().invoke(traits, ["pilot", str(path), "--model", "some/model"])

    assert isinstance(refused.exception, UsageError)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_pilot_is_a_run_that_the_same_command_reads_again(tmp_path: Path) -> None:
    arguments = ["traits", "pilot", "evil", "--questions", "2", "--max-new-tokens", "40", "--json"]

    first = run_command(*arguments, mark=str(tmp_path), cwd=tmp_path, timeout_s=300)
    again = run_command(*arguments, mark=str(tmp_path), cwd=tmp_path)

    assert first.returncode == again.returncode == 0, first.stderr
    found = json.loads(first.stdout)
    assert (found["n"], found["n_scored"]) == (20, 20)
    assert found["remarks"][0]["kind"] == Kind.DIFFER
    assert json.loads(again.stdout) == found
    assert (tmp_path / "runs" / found["run"] / "traits" / "evil" / "responses.parquet").exists()
