"""What the page reads, and what it says of files it cannot use, in a real Chromium."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.chromium import Tab, chromium_or_skip, running_chromium
from tests.page_data import record, save

PAGE = Path(__file__).parent.parent / "visualization.html"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    path = chromium_or_skip()
    with running_chromium(path, tmp_path_factory.mktemp("profile")) as tab:
        yield tab


@pytest.fixture
def tab(browser: Tab) -> Iterator[Tab]:
    browser.size(1280, 900)
    browser.open(PAGE.as_uri())
    browser.errors.clear()
    yield browser
    assert browser.errors == []


def drop(tab: Tab, *files: Path) -> None:
    tab.evaluate("document.querySelector('#messages').replaceChildren()")
    tab.drop(files)
    tab.wait("!document.querySelector('#content').hidden || document.querySelector('#messages p')")
    tab.frame()


def messages(tab: Tab) -> list[str]:
    found: list[str] = tab.evaluate(
        "[...document.querySelectorAll('#messages span')].map(e => e.textContent)"
    )
    return found


def traits(tab: Tab) -> list[str]:
    found: list[str] = tab.evaluate(
        "[...document.querySelectorAll('.bar span:first-child')]"
        ".filter(e => e.parentElement.className === 'bar').map(e => e.textContent)"
    )
    return found


def events(n_tokens: int) -> str:
    lines: list[dict[str, Any]] = [{"event": "start", "id": "a", "prompt": "Why?"}]
    lines += [
        {"event": "token", "id": "a", "token": f" t{i}", "trait_scores": {"refusal": float(i)}}
        for i in range(n_tokens)
    ]
    lines.append({"event": "done", "id": "a"})
    return "\n".join(map(json.dumps, lines))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("", "bad.json: is empty"),
        ('{"prompt": "x",\n "tokens": ["a" "b"]}', "line 2 column"),
        ("[]", "bad.json: holds no records; give one object or a list of them"),
        ("[3]", "record 1 is a number; give an object with prompt, response, tokens"),
        ([{"prompt": "x"}], 'record 1 has no "tokens"; it has "prompt"'),
        ([record() | {"tokens": "I cannot"}], 'record 1 has a text as "tokens"; give a list'),
        ([record({"evil": [1.0]}, tokens=[7])], "record 1 has a number at tokens[0]"),
        (
            [record(), record({"evil": [1.0, 2.0]}, tokens=["a"])],
            "record 2 has 2 scores at trait_scores.evil for 1 token; give one per token",
        ),
        ([record() | {"trait_scores": [1]}], 'record 1 has a list as "trait_scores"'),
        ([record() | {"trait_scores": {}}], 'record 1 has no trait in "trait_scores"'),
        (
            [record() | {"trait_scores": {"evil": [0, 0, "x", 0, 0, 0, 0]}}],
            "record 1 has a text at trait_scores.evil[2]; give a number or null",
        ),
        ([record(steered={"prompt": "x"})], "its steered response 1 has no"),
        ([record(prompt=["x"])], 'record 1 has a list as "prompt"; give a text'),
    ],
)
def test_a_bad_file_is_told_with_its_place(
    tab: Tab, tmp_path: Path, body: object, said: str
) -> None:
    drop(tab, save(tmp_path / "bad.json", body))

    assert any(said in message for message in messages(tab)), messages(tab)


def test_the_good_records_of_a_bad_file_are_shown(tab: Tab, tmp_path: Path) -> None:
    drop(tab, save(tmp_path / "mixed.json", [{"prompt": "x"}, record(prompt="good")]))

    assert (tab.text("#prompt-text"), len(messages(tab))) == ("good", 1)


def test_a_file_of_python_with_nan_has_a_gap_there(tab: Tab, tmp_path: Path) -> None:
    body = json.dumps(record({"refusal": [1.0, float("nan"), 3.0]}, prompt='NaN "NaN" stays'))

    drop(tab, save(tmp_path / "nan.json", body))
    tab.press("ArrowRight")

    assert messages(tab) == []
    assert tab.text(".bar .value") == "—"
    assert tab.text("#prompt-text") == 'NaN "NaN" stays'


def test_the_first_monitors_key_is_read_and_their_averages_are_not(
    tab: Tab, tmp_path: Path
) -> None:
    old = record()
    scores = old.pop("trait_scores")
    old["projections"] = {**scores, "refusal_running_avg_5": scores["refusal"]}

    drop(tab, save(tmp_path / "old.json", old))

    assert traits(tab) == ["refusal", "evil"]


def test_several_files_are_several_data_sets(tab: Tab, tmp_path: Path) -> None:
    one = save(tmp_path / "one.json", record(prompt="first"))
    two = save(tmp_path / "two.jsonl", f"{json.dumps(record())}\n{json.dumps(record())}\n")

    drop(tab, one, two)

    assert tab.evaluate(
        "[...document.querySelector('#by-set').options].map(o => o.textContent)"
    ) == ["all (2)", "one.json (1)", "two.jsonl (2)"]


def test_a_file_dropped_again_takes_its_own_place(tab: Tab, tmp_path: Path) -> None:
    drop(tab, save(tmp_path / "one.json", record(prompt="before")))

    tab.drop([save(tmp_path / "one.json", record(prompt="after"))])
    tab.wait("document.querySelector('#prompt-text').textContent === 'after'")

    assert tab.evaluate("document.querySelectorAll('.a-row').length") == 1


def test_a_recorded_stream_opens_like_any_file(tab: Tab, tmp_path: Path) -> None:
    drop(tab, save(tmp_path / "stream.jsonl", events(4)))
    tab.press("End")

    assert (tab.text("#prompt-text"), tab.text("#token-count")) == ("Why?", "4 / 4")
    assert tab.text(".bar .value") == "3.00"


def test_an_empty_response_is_shown_as_one(tab: Tab, tmp_path: Path) -> None:
    drop(tab, save(tmp_path / "empty.json", record({"refusal": []}, tokens=[])))

    tab.press("End")

    assert tab.text("#token-count") == "no tokens"
    assert messages(tab) == []
