"""Protects trait definitions: the bundled ones, fingerprints, and the judge's prompt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from domain.errors import TraitFileError
from domain.traits.check import check_trait
from domain.traits.definition import BUNDLED_TRAITS, InstructionPair, TraitDefinition
from storage.files.trait_files import load_trait, read_trait, read_traits
from tests.trait_texts import PROMPT, definition, trait_json, without


@pytest.mark.parametrize("name", BUNDLED_TRAITS)
def test_a_bundled_trait_has_no_problem(name: str) -> None:
    source = read_trait(name)

    assert check_trait(source.data, name) == ()


@pytest.mark.parametrize("name", BUNDLED_TRAITS)
def test_a_bundled_judge_prompt_names_its_trait_once(name: str) -> None:
    prompt = load_trait(name).eval_prompt

    assert prompt.count("**") == 2
    assert prompt.count(f"**{name}**") == 1


def test_no_bundled_question_is_used_twice_in_any_trait_or_split() -> None:
    bundled = [one.definition() for one in read_traits("all")]

    questions = [q.casefold() for t in bundled for q in (*t.questions, *t.eval_questions)]

    assert len(questions) == 11 * 40
    assert len(set(questions)) == len(questions)


def test_all_means_the_bundled_traits_in_the_contracts_order() -> None:
    names = tuple(t.name for t in read_traits("all"))

    assert names == BUNDLED_TRAITS


def test_every_file_in_trait_data_is_a_listed_trait() -> None:
    folder = Path(__file__).parents[1] / "domain" / "traits" / "bundled"

    assert {p.stem for p in folder.iterdir()} == set(BUNDLED_TRAITS)


def test_a_definition_survives_its_json() -> None:
    before = definition()

    after = TraitDefinition.from_json("humor", json.loads(json.dumps(before.to_json())))

    assert after == before
    assert after.fingerprint() == before.fingerprint()


def test_a_definition_without_held_out_questions_survives_its_json() -> None:
    before = TraitDefinition.from_json("humor", without("eval_questions"))

    after = TraitDefinition.from_json("humor", before.to_json())

    assert after == before
    assert after.eval_questions == ()


@pytest.mark.parametrize(
    "changed",
    [
        {"eval_prompt": PROMPT + " "},
        {"questions": [f"What is thing {i}?" for i in range(19)]},
        {"instruction": [{"pos": "Be dry.", "neg": "Be funny."}]},
        {"eval_questions": ["Where is it?"]},
    ],
)
def test_a_changed_text_changes_the_fingerprint(changed: dict[str, Any]) -> None:
    other = TraitDefinition.from_json("humor", trait_json(**changed))

    assert other.fingerprint() != definition().fingerprint()


def test_notes_and_the_order_of_keys_do_not_change_the_fingerprint() -> None:
    data = {"_about": "A note."} | dict(reversed(trait_json().items()))

    assert TraitDefinition.from_json("humor", data).fingerprint() == definition().fingerprint()


def test_the_name_is_part_of_the_fingerprint() -> None:
    other = TraitDefinition.from_json("wit", trait_json())

    assert other.fingerprint() != definition().fingerprint()


def test_a_definition_cannot_be_changed() -> None:
    one = definition()

    with pytest.raises(ValidationError):
        one.name = "wit"


def test_the_instruction_of_each_polarity_comes_from_its_own_side() -> None:
    one = definition()

    assert one.instruction[3] == InstructionPair(positive="Be funny 3.", negative="Be dry 3.")
    assert one.instruction_text(3, "positive") == "Be funny 3."
    assert one.instruction_text(3, "negative") == "Be dry 3."


@pytest.mark.parametrize("prompt", ["Only {question}, 0 to 100.", "{{question}} {answer} 0-100"])
def test_a_definition_made_by_hand_needs_both_placeholders(prompt: str) -> None:
    fields = dict(definition())

    with pytest.raises(ValidationError, match="where the"):
        TraitDefinition(**(fields | {"eval_prompt": prompt}))


@pytest.mark.parametrize(
    "name", ["", "Humor", "dry-humor", "../humor", "a/b", "1st", "a" * 65, "humor\n", "über", "."]
)
def test_a_name_that_could_not_be_a_folder_of_the_run_is_refused(name: str) -> None:
    with pytest.raises(TraitFileError, match="cannot name a trait"):
        TraitDefinition.from_json(name, trait_json())
    with pytest.raises(ValidationError):
        TraitDefinition(**(dict(definition()) | {"name": name}))


def test_a_trait_may_not_be_called_like_another_column_of_its_table() -> None:
    with pytest.raises(TraitFileError, match="column"):
        TraitDefinition.from_json("coherence", trait_json())


def test_the_error_of_a_bad_definition_names_the_place_and_counts_the_rest() -> None:
    data = trait_json(questions=["", 3, "Why?"], eval_prompt="no placeholders, 0 to 100")

    with pytest.raises(TraitFileError, match=r"questions\[0\] is blank.*3 more"):
        TraitDefinition.from_json("humor", data)


TEXTS = st.text(alphabet=st.sampled_from("{}question answer!:%$\\\n"), max_size=60) | st.text()


@given(question=TEXTS, answer=TEXTS)
def test_question_and_answer_reach_the_judge_verbatim(question: str, answer: str) -> None:
    one = definition("Q<{question}>A<{answer}> 0 to 100")

    assert one.judge_prompt(question, answer) == f"Q<{question}>A<{answer}> 0 to 100"


@given(around=TEXTS, question=TEXTS, answer=TEXTS)
def test_a_prompt_that_str_format_accepts_reads_as_with_str_format(
    around: str, question: str, answer: str
) -> None:
    escaped = around.replace("{", "{{").replace("}", "}}")
    prompt = f"{escaped}{{question}}{escaped}{{answer}}{escaped}"

    shown = definition(prompt).judge_prompt(question, answer)

    assert shown == prompt.format(question=question, answer=answer)


def test_a_prompt_with_a_json_example_keeps_its_braces() -> None:
    one = definition('{question} {answer} as {"score": {"value": 50}}, 0 to 100')

    assert one.judge_prompt("Q", "A") == 'Q A as {"score": {"value": 50}}, 0 to 100'


def test_each_place_of_a_placeholder_is_filled() -> None:
    one = definition("{answer}|{question}|{answer}, 0 to 100")

    assert one.judge_prompt("{answer}", "A") == "A|{answer}|A, 0 to 100"
