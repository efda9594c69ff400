"""The page's list of records in a real Chromium: found, sorted, compared, and landed on again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chromium import Tab, chromium_or_skip, running_chromium
from tests.page_data import carrying, judged, record

N_RECORDS = 5000
# the most rows that were ever there while all of the list passed by
MOST_ROWS = """(async () => {
    const box = document.querySelector('#records');
    let most = 0;
    for (let i = 0; i < 60; i++) {
        box.scrollTop = (i * 7919) % (box.scrollHeight - box.clientHeight);
        await new Promise(requestAnimationFrame);
        most = Math.max(most, box.querySelectorAll('.a-row').length);
    }
    return most;
})()"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    path = chromium_or_skip()
    with running_chromium(path, tmp_path_factory.mktemp("profile")) as tab:
        yield tab


@pytest.fixture
def tab(browser: Tab) -> Iterator[Tab]:
    browser.size(1280, 900)
    browser.errors.clear()
    yield browser
    assert browser.errors == []


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page that carries 5000 records, one of them steered."""
    strengths = [{**judged(4320), "coefficient": c, "steered": None} for c in (1, 2)]
    records = [judged(i) for i in range(N_RECORDS)]
    records[4320]["steered"] = strengths
    return carrying(tmp_path_factory.mktemp("page"), {"scores.json": records})


def rows(tab: Tab) -> list[str]:
    found: list[str] = tab.evaluate(
        "[...document.querySelectorAll('.row-prompt')].map(e => e.textContent)"
    )
    return found


def titles(tab: Tab) -> list[str]:
    found: list[str] = tab.evaluate(
        "[...document.querySelectorAll('.texts h3')].map(e => e.textContent)"
    )
    return found


def find(tab: Tab, text: str) -> None:
    typed = f"e.value = {text!r}; e.dispatchEvent(new Event('input'))"
    tab.evaluate(f"(e => {{ {typed} }})(document.querySelector('#search'))")
    tab.frame()


def test_the_lowest_answer_is_found_and_its_address_lands_on_it(tab: Tab, many: Path) -> None:
    tab.open(many.as_uri())
    tab.select("#heat-trait", "evil")
    tab.select("#by-order", "low")
    tab.click(".a-row")
    tab.select("#beside-choice", "2")
    tab.press("ArrowRight")
    tab.press("ArrowRight")
    seen = {"prompt": tab.text("#prompt-text"), "titles": titles(tab), "rows": rows(tab)[0]}
    tab.click("#copy-address")
    address = str(tab.evaluate("location.href"))

    tab.open_anew(address)

    assert seen["prompt"] == "Question 4320?" == seen["rows"]
    assert titles(tab) == seen["titles"] == ["Response, 4 tokens", "Steered evil +2, 4 tokens"]
    assert (tab.text("#prompt-text"), rows(tab)[0]) == (seen["prompt"], seen["rows"])
    assert tab.text("#token-count") == "3 / 4"
    assert tab.evaluate("document.querySelector('#heat-trait').value") == "evil"


def test_a_changed_address_leads_on_without_a_reload(tab: Tab, many: Path) -> None:
    tab.open(many.as_uri())
    tab.evaluate("window.isSame = true")

    tab.evaluate("location.hash = 'set=scores.json&record=12&token=4&trait=refusal&units=raw'")
    tab.wait("document.querySelector('#prompt-text').textContent === 'Question 11?'")
    tab.frame()

    assert tab.evaluate("window.isSame")
    assert tab.text("#token-count") == "4 / 4"
    assert tab.evaluate("document.querySelector('[data-units=raw]').ariaChecked") == "true"


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("set=scores.json&record=9999", "has no record 9999"),
        ("set=other.json&record=1", "open that file to land there"),
    ],
)
def test_an_address_that_leads_nowhere_says_so(
    tab: Tab, many: Path, address: str, said: str
) -> None:
    tab.open_anew(f"{many.as_uri()}#{address}")

    assert said in tab.text("#messages")
    assert tab.text("#prompt-text") == "Question 0?"


def test_it_opens_on_z_and_falls_back_to_scores(tab: Tab, many: Path, tmp_path: Path) -> None:
    units = "document.querySelector('#units [aria-checked=true]').textContent"
    tab.open(many.as_uri())
    with_z = tab.evaluate(units), tab.text("#list-count")

    tab.open(carrying(tmp_path, {"plain.json": [record()]}).as_uri())

    assert with_z[0] == "z" and "is the z of evil" in with_z[1]
    assert tab.evaluate(units) == "raw" and "mean score of refusal" in tab.text("#list-count")


def test_five_thousand_records_are_never_more_than_the_rows_in_sight(tab: Tab, many: Path) -> None:
    tab.open(many.as_uri())

    assert 0 < tab.evaluate(MOST_ROWS) < 40
    assert tab.evaluate("document.querySelector('#records').scrollHeight") > 200_000


def test_search_flag_and_trait_narrow_the_list(tab: Tab, many: Path) -> None:
    tab.open(many.as_uri())

    find(tab, "QUESTION 4320?")
    searched = rows(tab), tab.text("#list-count")
    find(tab, "")
    tab.select("#by-flag", "any")
    flagged = rows(tab)
    tab.select("#by-trait", "evil")

    assert searched[0] == ["Question 4320?"]
    assert "1 of 5000 records" in searched[1]
    assert flagged == [f"Question {i}?" for i in (7, 1007, 2007, 3007, 4007)]
    assert rows(tab) == []


def test_the_list_goes_by_keys_and_names_the_row_for_a_screen_reader(tab: Tab, many: Path) -> None:
    tab.open(many.as_uri())
    tab.evaluate("document.querySelector('#records').focus()")

    tab.press("ArrowDown")
    tab.press("ArrowDown")
    third = tab.text("#prompt-text"), tab.text("#token-count")
    tab.press("End")

    active = tab.evaluate(
        "(e => [e.ariaSelected, e.ariaPosInSet, e.innerText])(document.getElementById("
        "document.querySelector('#records').getAttribute('aria-activedescendant')))"
    )
    assert third == ("Question 2?", "1 / 4")
    assert tab.text("#prompt-text") == "Question 4999?"
    assert active[:2] == ["true", "5000"] and "Question 4999?" in active[2]


def test_two_models_stand_side_by_side_from_prompt_to_prompt(tab: Tab, tmp_path: Path) -> None:
    ours = [judged(i) for i in range(3)]
    theirs = [judged(i, response="other") for i in range(3)]
    tab.open(carrying(tmp_path, {"base.json": ours, "tuned.json": theirs}).as_uri())

    tab.select("#beside-choice", "1")
    tab.select("#by-set", "base.json")
    tab.click("#next-prompt")

    assert titles(tab) == ["base.json, 4 tokens", "tuned.json, 4 tokens"]
    assert tab.text("#prompt-text") == "Question 1?"


def test_two_strengths_stand_side_by_side(tab: Tab, many: Path) -> None:
    tab.open_anew(f"{many.as_uri()}#set=scores.json&record=4321")

    tab.select("#shown-choice", "1")
    tab.select("#beside-choice", "2")

    assert titles(tab) == ["Steered evil +1, 4 tokens", "Steered evil +2, 4 tokens"]


def test_what_the_model_could_have_said_is_shown_at_the_token(tab: Tab, tmp_path: Path) -> None:
    kept = [[["I", 0.9], ["You", 0.1]], *([] for _ in range(6))]
    page = carrying(tmp_path, {"kept.json": [record(alternatives=kept), record()]})
    tab.open(page.as_uri())
    cells = "[...document.querySelectorAll('#alternative-rows tr')].map(r => r.innerText)"

    first = tab.evaluate(cells)
    tab.click("#next-prompt")

    assert [one.split()[0] for one in first] == ["I", "You"]
    assert "(said)" in first[0] and "90.0 %" in first[0]
    assert tab.evaluate("document.querySelector('#alternatives').hidden")
