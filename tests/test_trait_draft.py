"""Protects `orchestrate traits draft`: whatever a chat model replies, the end is a definition that
passes `traits check`, or one sentence, and nothing on disk is lost."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from starlette.responses import JSONResponse, Response

from cli.commands.traits import traits
from domain.errors import JudgeError, UsageError
from domain.traits.draft import Draft, trait_name
from storage.files.trait_files import load_trait, read_trait
from tests.http_judge import HttpJudge, error, http_judge
from workers.judge.writer import MOST_MISSED, json_written

SENTENCE = "answers with dry jokes"
DESCRIPTION = {
    "name": "Dry humor",
    "about": "dry jokes, against a sober tone",
    "present": "The answer makes deadpan jokes.",
    "absent": "The answer is {sober} throughout.",
    "mistaken": "Cheerfulness without a joke.",
    "declines": False,
}
REAL = [load_trait(name) for name in ("refusal", "verbosity")]
EVERY_QUESTION = [text for one in REAL for text in (*one.questions, *one.eval_questions)]
STYLES = (
    "You are a deadpan comedian, so let every reply carry a joke.",
    "Whatever they want to know, slip a pun between the facts.",
    "Irony is your native tongue: keep a straight face.",
    "Treat each request as the set-up for a punch line.",
    "Your replies should make a tired clerk grin.",
    "Mock the matter gently while you explain it.",
)
PAIRS = [{"pos": one, "neg": one.replace("joke", "fact") + " Be grave."} for one in STYLES]

Reply = Callable[[str, int], str]
"""(prompt, number of this call from 0) -> the text of the reply."""


def completion(text: str, *, finish: str = "stop") -> JSONResponse:
    """A chat completion with this text."""
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "finish_reason": finish, "message": message}
    usage = {"prompt_tokens": 100, "completion_tokens": 100, "total_tokens": 200}
    return JSONResponse({"object": "chat.completion", "choices": [choice], "usage": usage})


def chat_model(prompt: str, number: int) -> str:
    """A model that does what it is asked, and knows eighty questions."""
    if '"name"' in prompt:
        return json.dumps(DESCRIPTION)
    n = int(re.findall(r"Write (\d+)", prompt)[0])
    if "pairs of system instructions" in prompt:
        return json.dumps([one for one in PAIRS if one["pos"] not in prompt][:n])
    return json.dumps([one for one in EVERY_QUESTION if one not in prompt][:n])


def run(
    answer: Callable[[dict[str, Any], int], Response], folder: Path, *more: str
) -> tuple[Any, HttpJudge]:
    """The command in a folder, against a server."""
    with http_judge(answer) as judge, pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        arguments = ["draft", SENTENCE, "--judge-url", judge.url, "--judge-model", "m", *more]
        return CliRunner().invoke(traits, arguments), judge


def replies(reply: Reply) -> Callable[[dict[str, Any], int], Response]:
    return lambda body, number: completion(reply(body["messages"][0]["content"], number))


def assert_complete(path: Path) -> None:
    assert read_trait(str(path)).problems() == ()
    trait = load_trait(str(path))
    assert (len(trait.instruction), len(trait.questions), len(trait.eval_questions)) == (5, 20, 20)


def test_a_model_that_does_as_asked_gives_a_definition_without_a_problem(tmp_path: Path) -> None:
    ended, judge = run(replies(chat_model), tmp_path)

    assert ended.exit_code == 0, ended.output
    assert_complete(tmp_path / "dry_humor.json")
    assert [one.name for one in tmp_path.iterdir()] == ["dry_humor.json"]
    trait = load_trait(str(tmp_path / "dry_humor.json"))
    # braces of the model's would be placeholders
    assert "The answer is (sober) throughout" in trait.judge_prompt("q", "a")
    assert "**dry_humor**" in trait.eval_prompt
    assert all(body["model"] == "m" for body in judge.asked)


def bad(reply: Reply, mend: Callable[[str, int], str]) -> Reply:
    """The model's replies, each spoilt."""
    return lambda prompt, number: mend(reply(prompt, number), number)


SPOILT: dict[str, Callable[[str, int], str]] = {
    "prose and fences": lambda text, n: (
        f"Sure! Here it is:\n\n```json\n{text}\n```\nAnything else?"
    ),
    "trailing commas": lambda text, n: re.sub(r"([\]}])", r",\1", text),
    "reasoning before it": lambda text, n: f"<think>Perhaps ['x']?</think>{text}",
    "a refusal now and then": lambda text, n: "I cannot help with that." if n % 3 == 1 else text,
    "empty now and then": lambda text, n: "" if n % 3 == 1 else text,
    "each text twice": lambda text, n: (
        json.dumps([one for one in json.loads(text) for _ in "ab"]) if text[0] == "[" else text
    ),
    "empty texts among them": lambda text, n: (
        json.dumps(["", "  ", {"pos": "", "neg": "x"}, *json.loads(text)])
        if text[0] == "["
        else text
    ),
    "wrapped in an object": lambda text, n: f'{{"result": {text}}}',
    "only two at once": lambda text, n: (
        json.dumps(json.loads(text)[:2]) if text[0] == "[" else text
    ),
    "a numbered list of questions": lambda text, n: (
        "\n".join(f"{k}. {one}" for k, one in enumerate(json.loads(text), 1))
        if text.startswith('["')
        else text
    ),
}


@pytest.mark.parametrize("name", SPOILT)
def test_what_models_do_wrong_ends_in_a_definition_all_the_same(name: str, tmp_path: Path) -> None:
    ended, _ = run(replies(bad(chat_model, SPOILT[name])), tmp_path, "--name", "humor")

    assert ended.exit_code == 0, (ended.output, ended.exception)
    assert_complete(tmp_path / "humor.json")


def test_the_same_questions_again_are_objected_to_by_name(tmp_path: Path) -> None:
    seen: list[str] = []

    def overlapping(prompt: str, number: int) -> str:
        seen.append(prompt)
        text = chat_model(prompt, number)
        if text.startswith('["') and number % 2:
            # one that is there, and another in nearly the same words
            text = json.dumps(
                [
                    *EVERY_QUESTION[:1],
                    f"{EVERY_QUESTION[0]} Please!",
                    *json.loads(text),
                ]
            )
        return text

    ended, _ = run(replies(overlapping), tmp_path, "--name", "humor")

    assert ended.exit_code == 0, (ended.output, ended.exception)
    assert_complete(tmp_path / "humor.json")
    assert any("repeats" in prompt and EVERY_QUESTION[0][:20] in prompt for prompt in seen)


def test_a_model_that_only_refuses_ends_in_one_sentence(tmp_path: Path) -> None:
    ended, judge = run(replies(lambda prompt, number: "I'm sorry, I can't."), tmp_path)

    assert isinstance(ended.exception, JudgeError)
    assert "I'm sorry, I can't." in str(ended.exception)
    assert len(judge.asked) == MOST_MISSED
    assert list(tmp_path.iterdir()) == []


def test_a_form_sent_back_as_it_was_is_no_description(tmp_path: Path) -> None:
    def echoing(prompt: str, number: int) -> str:
        return prompt[prompt.index("{") : prompt.rindex("}") + 1]

    ended, _ = run(replies(echoing), tmp_path)

    assert isinstance(ended.exception, JudgeError)
    assert list(tmp_path.iterdir()) == []


def test_what_was_usable_is_kept_and_the_same_command_goes_on_from_it(tmp_path: Path) -> None:
    def tiring(prompt: str, number: int) -> str:
        return chat_model(prompt, number) if number < 4 else "No."

    stuck, _ = run(replies(tiring), tmp_path)
    kept = json.loads((tmp_path / "dry_humor.json.partial").read_text())
    ended, judge = run(replies(chat_model), tmp_path, "--output", str(tmp_path / "dry_humor.json"))

    assert isinstance(stuck.exception, JudgeError)
    assert "--output dry_humor.json" in str(stuck.exception)
    assert ended.exit_code == 0, (ended.output, ended.exception)
    assert_complete(tmp_path / "dry_humor.json")
    written = json.loads((tmp_path / "dry_humor.json").read_text())
    assert written["instruction"] == kept["instruction"]
    assert kept["questions"] == written["questions"][: len(kept["questions"])]
    # neither the description nor the pairs are asked for again
    assert all("Write" in body["messages"][0]["content"] for body in judge.asked)
    assert not (tmp_path / "dry_humor.json.partial").exists()


def test_no_file_is_overwritten(tmp_path: Path) -> None:
    mine = tmp_path / "dry_humor.json"
    mine.write_text("mine")

    by_name, asked = run(replies(chat_model), tmp_path, "--name", "dry_humor")
    found_name, _ = run(replies(chat_model), tmp_path)
    (tmp_path / "other.json.partial").write_text("{}")
    foreign, _ = run(replies(chat_model), tmp_path, "--name", "other")

    assert all(isinstance(one.exception, UsageError) for one in (by_name, found_name, foreign))
    assert asked.asked == []
    assert mine.read_text() == "mine"
    assert (tmp_path / "other.json.partial").read_text() == "{}"


def test_a_cut_reply_loses_its_last_text_only(tmp_path: Path) -> None:
    def cut(body: dict[str, Any], number: int) -> Response:
        text = chat_model(body["messages"][0]["content"], number)
        is_list = text.startswith('["')
        return completion(text[:-12] if is_list else text, finish="length" if is_list else "stop")

    ended, _ = run(cut, tmp_path, "--name", "humor")

    assert ended.exit_code == 0, (ended.output, ended.exception)
    trait = load_trait(str(tmp_path / "humor.json"))
    assert {*trait.questions, *trait.eval_questions} <= set(EVERY_QUESTION)


def test_an_endpoint_that_knows_no_bound_is_asked_without_one_and_a_busy_one_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.judge.retries.BACKOFF", lambda state: 0.0)

    def picky(body: dict[str, Any], number: int) -> Response:
        if "max_completion_tokens" in body:
            return error(400, "unknown parameter max_completion_tokens")
        if number % 4 == 1:
            return error(503, "busy")
        return completion(chat_model(body["messages"][0]["content"], number))

    ended, _ = run(picky, tmp_path, "--name", "humor")

    assert ended.exit_code == 0, (ended.output, ended.exception)
    assert_complete(tmp_path / "humor.json")


@pytest.mark.parametrize(("status", "words"), [(401, "bad key"), (404, "no such model")])
def test_an_endpoint_that_will_never_answer_is_told_in_its_words(
    status: int, words: str, tmp_path: Path
) -> None:
    ended, judge = run(lambda body, number: error(status, words), tmp_path)

    assert isinstance(ended.exception, JudgeError)
    assert words in str(ended.exception)
    assert len(judge.asked) <= 2


def test_it_needs_a_model_that_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ended = CliRunner().invoke(traits, ["draft", SENTENCE])

    assert isinstance(ended.exception, UsageError)
    assert "--judge-model" in str(ended.exception)


def test_where_declining_is_the_trait_the_judge_is_not_asked_to_leave_it_out() -> None:
    draft = Draft(sentence="s", name="refusal", present="It declines.", absent="It answers.")

    assert "Reply with REFUSAL" in draft.eval_prompt()
    assert "REFUSAL" not in draft.with_(declines=True).eval_prompt()
    assert "number from 0 to 100" in draft.with_(declines=True).eval_prompt()


@pytest.mark.parametrize(
    ("words", "name"),
    [("Dry humor!", "dry_humor"), ("  9 lives ", "lives"), ("幽默", ""), ("coherence", "")],
)
def test_a_name_is_made_of_words_or_not_at_all(words: str, name: str) -> None:
    assert trait_name(words) == name


def test_deep_nesting_is_no_json_and_no_crash() -> None:
    assert json_written("[" * 100_000) is None
