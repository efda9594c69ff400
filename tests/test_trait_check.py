"""Protects the check of trait files: what a run cannot use, what makes a trait worse."""

from __future__ import annotations

from typing import Any

import pytest

from domain.errors import TraitFileError
from domain.traits.check import Problem, check_trait, trait_template
from domain.traits.definition import TraitDefinition
from tests.trait_texts import PROMPT, trait_json, without


def found(problems: tuple[Problem, ...]) -> list[tuple[str, str]]:
    return [(p.severity, p.where) for p in problems]


def replaced(items: list[Any], index: int, value: Any) -> list[Any]:
    return [*items[:index], value, *items[index + 1 :]]


def test_a_sound_file_has_no_problem() -> None:
    assert check_trait(trait_json(), "humor") == ()


def test_a_published_file_loads_and_lacks_only_held_out_questions() -> None:
    data = without("eval_questions")

    assert found(check_trait(data, "humor")) == [("warning", "eval_questions")]
    assert TraitDefinition.from_json("humor", data).questions == tuple(data["questions"])


PAIRS, QUESTIONS = trait_json()["instruction"], trait_json()["questions"]
ERRORS: list[tuple[object, str]] = [
    ([], "file"),
    (None, "file"),
    (without("instruction"), "instruction"),
    (without("questions"), "questions"),
    (without("eval_prompt"), "eval_prompt"),
    (trait_json(instruction=[]), "instruction"),
    (trait_json(instruction={"pos": "a", "neg": "b"}), "instruction"),
    (trait_json(instruction=replaced(PAIRS, 2, "Be funny.")), "instruction[2]"),
    (trait_json(instruction=replaced(PAIRS, 2, {"pos": 1, "neg": "b"})), "instruction[2].pos"),
    (trait_json(instruction=replaced(PAIRS, 2, {"pos": "a", "neg": " "})), "instruction[2].neg"),
    (trait_json(instruction=replaced(PAIRS, 2, {"pos": "a"})), "instruction[2].neg"),
    (trait_json(instruction=replaced(PAIRS, 2, {"pos": "a b", "neg": "A  B"})), "instruction[2]"),
    (trait_json(questions=[]), "questions"),
    (trait_json(questions="Why?"), "questions"),
    (trait_json(questions=[""] * 20), "questions"),
    (trait_json(questions=replaced(QUESTIONS, 7, "  ")), "questions[7]"),
    (trait_json(questions=replaced(QUESTIONS, 7, None)), "questions[7]"),
    (trait_json(questions=replaced(QUESTIONS, 7, "\ud800")), "questions[7]"),
    (trait_json(eval_questions=None), "eval_questions"),
    (trait_json(eval_questions=["Why?", 4] * 10), "eval_questions[1]"),
    (trait_json(eval_prompt=5), "eval_prompt"),
    (trait_json(eval_prompt=""), "eval_prompt"),
    (trait_json(eval_prompt="{question}, 0 to 100"), "eval_prompt"),
    (trait_json(eval_prompt="{answer}, 0 to 100"), "eval_prompt"),
    (trait_json(eval_prompt="{question!r} {answer!r}, 0 to 100"), "eval_prompt"),
]


@pytest.mark.parametrize(("data", "where"), ERRORS)
def test_what_a_run_cannot_use_is_an_error_and_does_not_load(data: object, where: str) -> None:
    problems = check_trait(data, "humor")

    assert ("error", where) in found(problems)
    with pytest.raises(TraitFileError):
        TraitDefinition.from_json("humor", data)


WARNINGS = [
    (trait_json(instruction=PAIRS[:4]), "instruction", "has 4 instead"),
    (trait_json(questions=QUESTIONS[:3]), "questions", "has 3 instead"),
    (trait_json(eval_questions=["Why?"]), "eval_questions", "has 1 instead"),
    (trait_json(eval_questions=[]), "eval_questions", "holds nothing back"),
    (
        trait_json(questions=replaced(QUESTIONS, 7, " what is  THING 3?")),
        "questions[7]",
        "repeats questions[3]",
    ),
    (
        trait_json(instruction=replaced(PAIRS, 4, {"pos": "BE funny 1.", "neg": "Be dry."})),
        "instruction[4].pos",
        "repeats instruction[1].pos",
    ),
    (
        trait_json(eval_questions=["What is thing 5?"]),
        "eval_questions[0]",
        "questions[5]",
    ),
    (trait_json(question=["Why?"]), "question", "unknown key"),
    (trait_json(evil=1), "evil", "begin it with _"),
    (trait_json(eval_prompt="{question} {answer} {response} 0-100"), "eval_prompt", "{response}"),
    (trait_json(eval_prompt="{question} {answer} Good?"), "eval_prompt", "number from 0 to 100"),
]


@pytest.mark.parametrize(("data", "where", "words"), WARNINGS)
def test_what_makes_a_trait_worse_is_a_warning_and_loads(
    data: dict[str, Any], where: str, words: str
) -> None:
    problems = check_trait(data, "humor")

    assert all(p.severity == "warning" for p in problems)
    assert any(p.where == where and words in p.message for p in problems)
    assert TraitDefinition.from_json("humor", data).name == "humor"


@pytest.mark.parametrize(
    ("data", "where", "meant"),
    [
        ({**without("instruction"), "instructions": PAIRS}, "instructions", "'instruction'"),
        ({**without("questions"), "question": QUESTIONS}, "question", "'questions'"),
        ({**without("eval_prompt"), "prompt": PROMPT}, "prompt", "'eval_prompt'"),
        ({**without("eval_questions"), "eval_question": []}, "eval_question", "'eval_questions'"),
        (
            trait_json(instruction=[{"positive": "a", "neg": "b"}]),
            "instruction[0].positive",
            "'pos'",
        ),
    ],
)
def test_a_misspelled_key_is_told_what_it_should_be(
    data: dict[str, Any], where: str, meant: str
) -> None:
    messages = [p.message for p in check_trait(data, "humor") if p.where == where]

    assert [f"did you mean {meant}?" in m for m in messages] == [True]


@pytest.mark.parametrize(
    ("data", "written", "meant"),
    [
        ({**without("instruction"), "instruktion": PAIRS}, "instruktion", "instruction"),
        ({**without("eval_prompt"), "eval_promt": PROMPT}, "eval_promt", "eval_prompt"),
        (trait_json(instruction=[{"positive": "a", "neg": "b"}]), "positive", "pos"),
        (
            {"positive": ["a"] * 8, "negativ": ["b"] * 8, "eval_prompt": PROMPT},
            "negativ",
            "negative",
        ),
    ],
)
def test_the_error_of_a_missing_key_names_the_one_that_was_written(
    data: dict[str, Any], written: str, meant: str
) -> None:
    with pytest.raises(TraitFileError, match=f"{meant} is missing.*'{written}'.*'{meant}'"):
        TraitDefinition.from_json("humor", data)


def test_a_placeholder_of_another_name_is_proposed_for_the_missing_one() -> None:
    problems = check_trait(trait_json(eval_prompt="{question} {response} 0 to 100"), "humor")

    assert any("no {answer}" in p.message and "{response}?" in p.message for p in problems)


def test_the_second_files_questions_are_checked_against_the_first() -> None:
    second = trait_json(questions=["What is thing 2?", ""])
    del second["eval_questions"]

    problems = check_trait(without("eval_questions"), "humor", eval_data=second)

    assert ("warning", "eval.questions[0]") in found(problems)
    assert ("warning", "eval.questions[1]") in found(problems)


def test_a_second_file_with_another_judge_prompt_is_reported() -> None:
    second = {"questions": trait_json()["eval_questions"], "eval_prompt": "other"}

    problems = check_trait(without("eval_questions"), "humor", eval_data=second)

    assert found(problems) == [("warning", "eval.eval_prompt")]


def test_a_fresh_template_asks_for_everything_that_a_person_must_write() -> None:
    errors = {p.where for p in check_trait(trait_template("humor"), "humor")}

    sides = {f"instruction[{i}].{side}" for i in range(5) for side in ("pos", "neg")}
    assert errors == sides | {"questions", "eval_questions", "eval_prompt"}


def test_a_filled_in_template_has_no_problem() -> None:
    data = trait_template("humor") | trait_json()

    assert check_trait(data, "humor") == ()


def test_a_long_text_is_told_before_a_model_refuses_it() -> None:
    long = "word " * 3000

    problems = check_trait(trait_json(questions=[long, *trait_json()["questions"][1:]]), "humor")

    assert found(problems) == [("warning", "questions[0]")]


@pytest.mark.timeout(10)
def test_a_prompt_full_of_zeros_is_checked_at_once() -> None:
    prompt = "{question} {answer}\n" + "0\n" * 50_000

    problems = check_trait(trait_json(eval_prompt=prompt), "humor")

    assert found(problems) == [("warning", "eval_prompt")]
