"""Protects reading traits: names and paths, both layouts, files that are none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from domain.errors import TraitFileError, UsageError
from storage.files.trait_files import load_trait, load_traits
from tests.trait_texts import definition, trait_json, without, write


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
