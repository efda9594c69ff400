"""Trait definitions: their files, their checks, and the commands about them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from cli.traits import traits
from orchestrator.errors import TraitFileError, UsageError
from orchestrator.trait_check import Problem, check
from orchestrator.trait_template import template
from orchestrator.traits import BUNDLED_TRAITS, InstructionPair, TraitDefinition
from storage.trait_files import load_trait, load_traits, read_trait

PROMPT = "Rate **humor**.\n{question}\n{answer}\nReply with a number from 0 to 100."
TEXTS = st.text(alphabet=st.sampled_from("{}question answer!:%$\\\n"), max_size=60) | st.text()


def trait_json(**changed: Any) -> dict[str, Any]:
    """A trait file without a problem, but for what is changed."""
    return {
        "instruction": [{"pos": f"Be funny {i}.", "neg": f"Be dry {i}."} for i in range(5)],
        "questions": [f"What is thing {i}?" for i in range(20)],
        "eval_prompt": PROMPT,
        "eval_questions": [f"Where is place {i}?" for i in range(20)],
    } | changed


def without(key: str) -> dict[str, Any]:
    return {k: v for k, v in trait_json().items() if k != key}


def replaced(items: list[Any], index: int, value: Any) -> list[Any]:
    return [*items[:index], value, *items[index + 1 :]]


def definition(eval_prompt: str = PROMPT) -> TraitDefinition:
    return TraitDefinition.from_json("humor", trait_json(eval_prompt=eval_prompt))


def write(path: Path, data: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


def found(problems: tuple[Problem, ...]) -> list[tuple[str, str]]:
    return [(p.severity, p.where) for p in problems]


def run(*arguments: str | Path) -> Any:
    return CliRunner().invoke(traits, [str(a) for a in arguments])


# The bundled traits


@pytest.mark.parametrize("name", BUNDLED_TRAITS)
def test_a_bundled_trait_has_no_problem(name: str) -> None:
    source = read_trait(name)

    assert check(source.data, name) == ()


@pytest.mark.parametrize("name", BUNDLED_TRAITS)
def test_a_bundled_judge_prompt_names_its_trait_once(name: str) -> None:
    prompt = load_trait(name).eval_prompt

    assert prompt.count("**") == 2
    assert prompt.count(f"**{name}**") == 1


def test_no_bundled_question_is_used_twice_in_any_trait_or_split() -> None:
    bundled = load_traits("all")

    questions = [q.casefold() for t in bundled for q in (*t.questions, *t.eval_questions)]

    assert len(questions) == 11 * 40
    assert len(set(questions)) == len(questions)


def test_all_means_the_bundled_traits_in_the_contracts_order() -> None:
    names = tuple(t.name for t in load_traits("all"))

    assert names == BUNDLED_TRAITS


def test_every_file_in_trait_data_is_a_listed_trait() -> None:
    folder = Path(__file__).parents[1] / "orchestrator" / "trait_data"

    assert {p.stem for p in folder.iterdir()} == set(BUNDLED_TRAITS)


# Definitions


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


# The judge's prompt


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


# The check


def test_a_sound_file_has_no_problem() -> None:
    assert check(trait_json(), "humor") == ()


def test_a_published_file_loads_and_lacks_only_held_out_questions() -> None:
    data = without("eval_questions")

    assert found(check(data, "humor")) == [("warning", "eval_questions")]
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
    problems = check(data, "humor")

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
    problems = check(data, "humor")

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
    messages = [p.message for p in check(data, "humor") if p.where == where]

    assert [f"did you mean {meant}?" in m for m in messages] == [True]


def test_a_placeholder_of_another_name_is_proposed_for_the_missing_one() -> None:
    problems = check(trait_json(eval_prompt="{question} {response} 0 to 100"), "humor")

    assert any("no {answer}" in p.message and "{response}?" in p.message for p in problems)


def test_the_second_files_questions_are_checked_against_the_first() -> None:
    second = trait_json(questions=["What is thing 2?", ""])
    del second["eval_questions"]

    problems = check(without("eval_questions"), "humor", eval_data=second)

    assert ("warning", "eval.questions[0]") in found(problems)
    assert ("error", "eval.questions[1]") in found(problems)


def test_a_second_file_with_another_judge_prompt_is_reported() -> None:
    second = {"questions": trait_json()["eval_questions"], "eval_prompt": "other"}

    problems = check(without("eval_questions"), "humor", eval_data=second)

    assert found(problems) == [("warning", "eval.eval_prompt")]


def test_a_fresh_template_asks_for_everything_that_a_person_must_write() -> None:
    errors = {p.where for p in check(template("humor"), "humor")}

    sides = {f"instruction[{i}].{side}" for i in range(5) for side in ("pos", "neg")}
    assert errors == sides | {"questions", "eval_questions", "eval_prompt"}


def test_a_filled_in_template_has_no_problem() -> None:
    data = template("humor") | trait_json()

    assert check(data, "humor") == ()


# Files


def test_a_file_is_the_trait_of_its_stem(tmp_path: Path) -> None:
    path = write(tmp_path / "humor.json", trait_json())

    assert load_trait(str(path)) == definition()


def test_names_and_paths_mix_and_keep_their_order(tmp_path: Path) -> None:
    path = write(tmp_path / "humor.json", trait_json())

    loaded = load_traits(f" refusal ,{path}, evil,")

    assert [t.name for t in loaded] == ["refusal", "humor", "evil"]


def test_the_two_file_layout_is_read_together(tmp_path: Path) -> None:
    first = write(tmp_path / "trait_data_extract" / "humor.json", without("eval_questions"))
    second = {**without("eval_questions"), "questions": ["Where is it?"]}
    write(tmp_path / "trait_data_eval" / "humor.json", second)

    loaded = load_trait(str(first))

    assert loaded.questions == tuple(QUESTIONS)
    assert loaded.eval_questions == ("Where is it?",)


def test_the_two_file_layout_is_found_from_within_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "trait_data_extract" / "humor.json", without("eval_questions"))
    write(tmp_path / "trait_data_eval" / "humor.json", {"questions": ["Where is it?"]})
    monkeypatch.chdir(tmp_path / "trait_data_extract")

    assert load_trait("humor.json").eval_questions == ("Where is it?",)


def test_the_first_file_of_two_is_enough(tmp_path: Path) -> None:
    first = write(tmp_path / "trait_data_extract" / "humor.json", without("eval_questions"))

    assert load_trait(str(first)).eval_questions == ()


def test_a_runs_definition_is_named_by_its_folder(tmp_path: Path) -> None:
    path = write(tmp_path / "humor" / "definition.json", trait_json())

    assert load_trait(str(path)).name == "humor"


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "humor.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(trait_json()).encode())

    assert load_trait(str(path)) == definition()


def test_an_unknown_trait_is_told_the_close_ones_and_the_list() -> None:
    with pytest.raises(UsageError, match=r"did you mean refusal\?.*orchestrate traits list"):
        load_traits("evil,refusel")


def test_a_missing_file_is_not_taken_for_a_misspelled_trait(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no file"):
        load_trait(str(tmp_path / "refusel.json"))


@pytest.mark.parametrize("refs", ["", " , ,"])
def test_an_empty_list_of_traits_is_refused(refs: str) -> None:
    with pytest.raises(UsageError, match="no trait is named"):
        load_traits(refs)


def test_two_traits_of_one_name_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "evil.json", trait_json())

    with pytest.raises(UsageError, match="both the trait 'evil'"):
        load_traits(f"all,{path}")


def test_broken_json_is_located_by_line_and_column(tmp_path: Path) -> None:
    path = tmp_path / "humor.json"
    path.write_text('{\n  "questions": [,]\n}')

    with pytest.raises(TraitFileError, match="line 2, column 17"):
        load_trait(str(path))


def test_a_file_in_another_encoding_is_told_to_be_saved_as_utf8(tmp_path: Path) -> None:
    path = tmp_path / "humor.json"
    path.write_bytes(json.dumps(trait_json()).encode("utf-16"))

    with pytest.raises(TraitFileError, match="save it as UTF-8"):
        load_trait(str(path))


def test_a_folder_is_not_a_trait(tmp_path: Path) -> None:
    with pytest.raises(TraitFileError, match="is a folder"):
        load_trait(str(tmp_path))


# Commands


def test_list_shows_each_bundled_trait() -> None:
    shown = run("list").output

    assert all(name in shown for name in BUNDLED_TRAITS)


def test_list_as_json_gives_names_counts_and_fingerprints() -> None:
    listed = json.loads(run("list", "--json").stdout)["traits"]

    assert [t["name"] for t in listed] == list(BUNDLED_TRAITS)
    assert listed[0]["fingerprint"] == load_trait("refusal").fingerprint()
    assert listed[0]["n_questions"] == 20


def test_show_prints_every_text_as_it_is() -> None:
    trait = load_trait("refusal")

    shown = run("show", "refusal").output

    texts = [*trait.questions, *trait.eval_questions, *trait.eval_prompt.splitlines()]
    assert [text for text in texts if text not in shown] == []


def test_show_as_json_is_a_trait_file(tmp_path: Path) -> None:
    path = tmp_path / "refusal.json"

    path.write_text(run("show", "refusal", "--json").stdout)

    assert load_trait(str(path)) == load_trait("refusal")
    assert check(json.loads(path.read_text()), "refusal") == ()


def test_new_writes_a_file_that_check_reads(tmp_path: Path) -> None:
    path = tmp_path / "mine" / "humor.json"

    written = run("new", "humor", "--output", path)

    assert written.exit_code == 0
    assert "instruction[0].pos" in run("check", path).output


def test_new_writes_into_the_working_folder_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    run("new", "humor")

    assert json.loads((tmp_path / "humor.json").read_text()) == template("humor")


def test_new_never_overwrites(tmp_path: Path) -> None:
    path = write(tmp_path / "humor.json", trait_json())

    refused = run("new", "humor", "--output", path)

    assert isinstance(refused.exception, UsageError)
    assert json.loads(path.read_text()) == trait_json()


@pytest.mark.parametrize("name", ["Humor", "../humor", "coherence"])
def test_new_refuses_a_name_that_no_trait_can_have(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    refused = run("new", name)

    assert isinstance(refused.exception, UsageError)
    assert list(tmp_path.iterdir()) == []


def test_new_refuses_a_file_that_would_be_another_trait(tmp_path: Path) -> None:
    refused = run("new", "humor", "--output", tmp_path / "wit.json")

    assert isinstance(refused.exception, UsageError)
    assert "humor.json" in str(refused.exception)


def test_check_ends_with_zero_when_there_are_only_warnings(tmp_path: Path) -> None:
    path = write(tmp_path / "humor.json", trait_json(questions=["Why?"]))

    checked = run("check", path, "refusal")

    assert checked.exit_code == 0
    assert "questions: has 1 instead of the usual 20" in checked.output
    assert "refusal: ok" in checked.output


def test_check_reports_every_file_and_ends_with_one_on_an_error(tmp_path: Path) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    incomplete = write(tmp_path / "humor.json", without("questions"))

    checked = run("check", "all", broken, incomplete)

    assert checked.exit_code == 1
    assert "line 1, column 2" in checked.output
    assert "questions: is missing" in checked.output
    assert "manipulativeness: ok" in checked.output


def test_check_as_json_gives_severity_place_and_message(tmp_path: Path) -> None:
    path = write(tmp_path / "humor.json", without("questions"))

    checked = run("check", path, "--json")

    (one,) = json.loads(checked.stdout)["traits"]
    assert checked.exit_code == 1
    assert (one["ref"], one["ok"]) == (str(path), False)
    assert one["problems"][0] == {
        "severity": "error",
        "where": "questions",
        "message": "is missing; see `orchestrate traits new` for the shape",
    }


def test_check_of_an_unknown_trait_is_a_wrong_request() -> None:
    checked = run("check", "refusel")

    assert isinstance(checked.exception, UsageError)
    assert checked.exception.exit_code == 2


@pytest.mark.parametrize("name", ["list", "show", "new", "check"])
def test_each_help_has_an_example(name: str) -> None:
    shown = run(name, "--help").output

    assert f"orchestrate traits {name}" in shown


def test_the_commands_import_nothing_heavy() -> None:
    code = "import sys, cli.traits; print(*{'torch', 'transformers', 'pandas'} & set(sys.modules))"

    imported = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )

    assert imported.stdout.strip() == ""
