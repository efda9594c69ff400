"""Protects `orchestrate traits`: list, show, new and check."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from cli.commands.traits import traits
from domain.errors import UsageError
from domain.traits.check import check_trait, trait_template
from domain.traits.definition import BUNDLED_TRAITS, MEASURED_TRAITS
from storage.files.trait_files import load_trait
from tests.trait_texts import trait_json, without, write


def run(*arguments: str | Path) -> Any:
    return CliRunner().invoke(traits, [str(a) for a in arguments])


def test_list_shows_each_bundled_trait() -> None:
    shown = run("list").output

    assert all(name in shown for name in (*BUNDLED_TRAITS, *MEASURED_TRAITS))


def test_list_as_json_gives_names_counts_and_fingerprints() -> None:
    listed = json.loads(run("list", "--json").stdout)["traits"]

    assert [t["name"] for t in listed] == [*BUNDLED_TRAITS, *MEASURED_TRAITS]
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
    assert check_trait(json.loads(path.read_text()), "refusal") == ()


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

    assert json.loads((tmp_path / "humor.json").read_text()) == trait_template("humor")


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
    code = (
        "import sys, cli.commands.traits\n"
        "print(*{'torch', 'transformers', 'pandas'} & set(sys.modules))"
    )

    imported = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )

    assert imported.stdout.strip() == ""
