"""Protects reading traits: names and paths, both layouts, files that are none."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from domain.errors import TraitFileError, UsageError
from domain.traits.definition import TraitDefinition
from storage.files.trait_files import load_trait, read_trait, read_traits
from tests.trait_texts import definition, trait_json, without, write


def test_a_file_is_the_trait_of_its_stem(tmp_path: Path) -> None:
    path = write(tmp_path / "humor.json", trait_json())

    assert load_trait(str(path)) == definition()


def test_names_and_paths_mix_and_keep_their_order(tmp_path: Path) -> None:
    path = write(tmp_path / "humor.json", trait_json())

    loaded = read_traits(f" refusal ,{path}, evil,")

    assert [t.name for t in loaded] == ["refusal", "humor", "evil"]


def test_the_two_file_layout_is_read_together(tmp_path: Path) -> None:
    first = write(tmp_path / "trait_data_extract" / "humor.json", without("eval_questions"))
    second = {**without("eval_questions"), "questions": ["Where is it?"]}
    write(tmp_path / "trait_data_eval" / "humor.json", second)

    loaded = load_trait(str(first))

    assert loaded.questions == tuple(trait_json()["questions"])
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
        read_traits("evil,refusel")


def test_a_missing_file_is_not_taken_for_a_misspelled_trait(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no file"):
        load_trait(str(tmp_path / "refusel.json"))


@pytest.mark.parametrize("refs", ["", " , ,"])
def test_an_empty_list_of_traits_is_refused(refs: str) -> None:
    with pytest.raises(UsageError, match="no trait is named"):
        read_traits(refs)


def test_two_traits_of_one_name_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "evil.json", trait_json())

    with pytest.raises(UsageError, match="both the trait 'evil'"):
        read_traits(f"all,{path}")


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


def test_a_held_out_question_that_vectors_are_made_from_is_held_out_no_more(tmp_path: Path) -> None:
    data = trait_json()
    shared = [f"  {data['questions'][k].upper()} " for k in range(5)]
    path = write(tmp_path / "humor.json", {**data, "eval_questions": [*shared, "Where is it?"]})

    trait = load_trait(str(path))

    assert trait.questions == tuple(data["questions"])
    assert trait.eval_questions == ("Where is it?",)
    assert (trait.n_shared, trait.n_parted) == (5, 0)


def test_many_questions_without_held_out_ones_are_parted(tmp_path: Path) -> None:
    questions = [f"What is thing {k}?" for k in range(40)]
    path = write(tmp_path / "humor.json", without("eval_questions") | {"questions": questions})

    trait = load_trait(str(path))

    assert len(trait.questions) == len(trait.eval_questions) == trait.n_parted == 20
    assert sorted(trait.questions + trait.eval_questions) == sorted(questions)


def test_a_recorded_definition_reads_back_as_it_was_taken_up(tmp_path: Path) -> None:
    questions = [f"What is thing {k}?" for k in range(40)]
    path = write(tmp_path / "humor.json", trait_json(questions=questions, eval_questions=questions))
    trait = load_trait(str(path))

    recorded = TraitDefinition.from_json("humor", json.loads(json.dumps(trait.to_json())))

    assert recorded == trait
    assert recorded.fingerprint() == trait.fingerprint()
    assert (recorded.n_shared, recorded.n_parted) == (40, 20)


def test_a_run_s_record_is_taken_as_it_is_although_it_shares_questions() -> None:
    """As runs recorded definitions before shared questions left the held-out ones."""
    shared = trait_json(eval_questions=["What is thing 1?"])

    assert TraitDefinition.from_json("humor", shared).eval_questions == ("What is thing 1?",)


@pytest.mark.parametrize(
    ("second", "questions"),
    [
        ({"questions": [{"text": "Why?", "id": 1}, {"x": 1}, 7, {"question": "How?"}]}, 2),
        (["Why?", "How?"], 2),
        ({"prompts": []}, 0),
        ("nothing", 0),
    ],
)
def test_a_second_file_costs_what_cannot_be_read_of_it_only(
    tmp_path: Path, second: object, questions: int
) -> None:
    first = write(tmp_path / "trait_data_extract" / "humor.json", without("eval_questions"))
    write(tmp_path / "trait_data_eval" / "humor.json", second)

    trait = load_trait(str(first))

    assert trait.eval_questions == ("Why?", "How?")[:questions]
    assert all(one.severity == "warning" for one in read_trait(str(first)).problems())
    assert read_trait(str(first)).problems()


def test_a_second_file_that_is_no_json_is_named_and_left_out(tmp_path: Path) -> None:
    first = write(tmp_path / "trait_data_extract" / "humor.json", without("eval_questions"))
    write(tmp_path / "trait_data_eval" / "humor.json", {}).write_text("{not json")

    assert load_trait(str(first)).questions == tuple(trait_json()["questions"])
    told = read_trait(str(first)).problems()[0].message
    assert "trait_data_eval/humor.json is not valid JSON" in told


@pytest.mark.parametrize(
    ("file", "name"), [("Humor", "humor"), ("Self-Preservation", "self_preservation")]
)
def test_capitals_and_hyphens_of_a_file_are_no_obstacle(
    tmp_path: Path, file: str, name: str
) -> None:
    assert load_trait(str(write(tmp_path / f"{file}.json", trait_json()))).name == name
    nameless = write(tmp_path / file / "definition.json", trait_json())
    assert load_trait(str(nameless)).name == name


def scenarios(folder: Path, n_pairs: int = 9, changed: dict[str, str] | None = None) -> Path:
    """A folder of scenarios, some of whose files hold another text."""
    files = {"definition": "It {makes}\npeople laugh.\n"}
    for name, who in (("positive", "clown"), ("negative", "clerk")):
        files[name] = "\n".join(f"The {who} said {k}" for k in range(n_pairs))
    folder.mkdir(exist_ok=True)
    for name, text in {**files, **(changed or {})}.items():
        (folder / f"{name}.txt").write_bytes(text.encode())
    return folder


@pytest.mark.parametrize("ref", [".", "steering.json", "definition.txt", "negative.txt"])
def test_a_folder_of_scenarios_is_a_trait_without_instructions(tmp_path: Path, ref: str) -> None:
    folder = scenarios(tmp_path / "Dry Humor")
    write(folder / "steering.json", {"questions": ["Why?"]})

    trait = load_trait(str(folder / ref))

    assert trait.name == "dry_humor" and trait.is_scenarios
    assert (len(trait.questions), len(trait.eval_questions), trait.n_parted) == (5, 4, 4)
    for part, n in (("", 5), ("evaluation", 4)):
        for k in range(n):
            text = trait.asked(part, k, "positive")
            assert trait.asked(part, k, "negative") == text.replace("clown", "clerk")
            assert trait.asked(part, k, "plain") == text.replace("clown", "clerk")
    assert trait.system_turn(0, "positive") is None
    prompt = trait.judge_prompt("Q{answer}", "A")
    assert "It {makes}\npeople laugh." in prompt and "\nQ{answer}\n" in prompt
    assert "\nA\n" in prompt
    assert TraitDefinition.from_json("dry_humor", trait.to_json()) == trait


@pytest.mark.parametrize("lines", ["{}\r\n\r\n", "\n  {} \n", "{}\r", "{}\n"])
def test_scenarios_are_the_lines_that_are_not_blank(tmp_path: Path, lines: str) -> None:
    texts = [f"He\u2028said {k}\x0b and" for k in range(8)]
    body = "\ufeff" + "".join(lines.format(text) for text in texts)

    read = read_trait(str(scenarios(tmp_path / "humor", 8, {"positive": body})))

    assert isinstance(read.data, dict) and read.data["positive"] == texts
    assert not read.problems()[1:]


@pytest.mark.parametrize("name", ["positive", "negative", "definition"])
def test_a_file_that_scenarios_lack_is_named(tmp_path: Path, name: str) -> None:
    folder = scenarios(tmp_path / "humor")
    (folder / f"{name}.txt").unlink()

    with pytest.raises(TraitFileError, match=f"has no {name}.txt"):
        load_trait(str(folder))


def test_scenarios_with_system_prompts_are_told_apart(tmp_path: Path) -> None:
    write(tmp_path / "positive.jsonl", {"prompt": "Why?", "system_prompt": "Be funny."})

    with pytest.raises(TraitFileError, match="instruction"):
        load_trait(str(tmp_path))


@pytest.mark.parametrize("changed", ["positive", "negative"])
def test_scenarios_without_a_pair_are_left_out_and_told(tmp_path: Path, changed: str) -> None:
    body = "".join(f"He said {k}\n" for k in range(12))

    read = read_trait(str(scenarios(tmp_path / "humor", 9, {changed: body})))

    assert [(one.severity, one.where) for one in read.problems()] == [("warning", "negative")]
    trait = read.definition()
    assert (len(trait.questions) + len(trait.eval_questions), trait.n_unpaired) == (9, 3)
    assert len(trait.opposites) == len(trait.questions)
    assert TraitDefinition.from_json("humor", trait.to_json()) == trait


def test_a_pair_of_one_text_is_told(tmp_path: Path) -> None:
    body = "The  clown said 0\n" + "".join(f"He said {k}\n" for k in range(8))

    read = read_trait(str(scenarios(tmp_path / "humor", changed={"negative": body})))

    assert [(one.severity, one.where) for one in read.problems()] == [("warning", "negative[0]")]


def test_no_scenarios_are_no_trait(tmp_path: Path) -> None:
    with pytest.raises(TraitFileError, match="positive"):
        load_trait(str(scenarios(tmp_path / "humor", 9, {"positive": " \n"})))


def test_few_scenarios_are_warned_of(tmp_path: Path) -> None:
    read = read_trait(str(scenarios(tmp_path / "humor", 4)))

    assert [one.where for one in read.problems() if one.severity == "warning"] == ["positive"]
    assert len(read.definition().eval_questions) == 1


def test_a_scenario_that_stands_twice_is_not_held_out_from_itself(tmp_path: Path) -> None:
    texts = [f"The clown said {k}" for k in range(7)]
    folder = scenarios(tmp_path / "humor", 8, {"positive": "\n".join([texts[2], *texts])})

    trait = load_trait(str(folder))

    assert trait.eval_questions and not {*trait.questions} & {*trait.eval_questions}


def test_the_judge_prompt_of_scenarios_may_be_their_own(tmp_path: Path) -> None:
    folder = scenarios(tmp_path / "humor")
    own = "Rate **wit** from 0 to 100.\n{question}\n{answer}"
    write(folder / "steering.json", {"questions": [], "eval_prompt": own})

    assert load_trait(str(folder)).eval_prompt == own


@pytest.mark.parametrize(
    "text", ["9" * 5_000_000, "[" * 1000 + "]" * 1000, '{"a": ' * 70 + "1" + "}" * 70]
)
def test_what_is_beyond_the_bounds_is_no_fault_of_the_program(tmp_path: Path, text: str) -> None:
    path = tmp_path / "humor.json"
    path.write_text(text)

    with pytest.raises(TraitFileError, match=r"digits|nested|MiB"):
        load_trait(str(path))


def test_a_device_and_a_pipe_are_no_traits(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "humor.json")

    for ref in ("/dev/zero", str(tmp_path / "humor.json")):
        with pytest.raises(TraitFileError, match="a pipe or a device"):
            load_trait(ref)


def test_an_error_in_a_file_names_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "humor.json", trait_json(questions=[]))
    folder = scenarios(tmp_path / "fear", 9, {"positive": " \n"})

    for ref in (str(path), str(folder)):
        with pytest.raises(TraitFileError, match=f"{re.escape(ref)}: "):
            load_trait(ref)


def test_a_file_has_its_warnings_and_a_bundled_trait_none(tmp_path: Path) -> None:
    path = write(tmp_path / "humor.json", trait_json(questions=["Why?"], mood=1))

    told = read_trait(str(path)).warnings()

    assert [one.partition(" ")[0] for one in told] == [f"{path}:"] * 2
    assert read_trait("refusal").warnings() == ()
