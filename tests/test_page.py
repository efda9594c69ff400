"""The page in a real Chromium, opened from file:// and driven with real keys, pointer and files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli.pages.build import build_page
from tests.chromium import Tab, chromium_or_skip, running_chromium
from tests.page_data import long_record, record, save

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "visualization.html"
MARKED = "[...document.querySelectorAll('.tokens .now')].map(e => e.textContent)"
HEAT = """[...document.querySelectorAll('.tokens span')].map(e => getComputedStyle(e))
    .map(s => [s.backgroundColor, s.backgroundImage])"""
NO_OVERFLOW = "document.documentElement.scrollWidth <= 390"
MINUS = "\N{MINUS SIGN}"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    path = chromium_or_skip()
    with running_chromium(path, tmp_path_factory.mktemp("profile")) as tab:
        yield tab


@pytest.fixture
def tab(browser: Tab) -> Iterator[Tab]:
    browser.size(1280, 900)
    browser.prefers("light")
    browser.open(PAGE.as_uri())
    browser.evaluate("localStorage.clear()")
    browser.open(PAGE.as_uri())
    browser.errors.clear()
    yield browser
    assert browser.errors == []


def drop(tab: Tab, folder: Path, value: Any, name: str = "scores.json") -> None:
    tab.drop([save(folder / name, value)])
    tab.wait("!document.querySelector('#content').hidden")
    tab.frame()


def here(tab: Tab) -> dict[str, str]:
    """The bar chart: trait to figure."""
    rows = tab.evaluate("[...document.querySelectorAll('.bar')].map(b => b.innerText.split('\\n'))")
    return {row[0]: row[-1] for row in rows}


def stats(tab: Tab) -> dict[str, list[str]]:
    rows = tab.evaluate(
        "[...document.querySelectorAll('#stats tbody tr')]"
        ".map(r => [...r.cells].map(c => c.textContent))"
    )
    return {row[0]: row[1:] for row in rows}


def rows(tab: Tab) -> list[str]:
    """The prompts of the list's drawn rows, from top to bottom."""
    found: list[str] = tab.evaluate(
        "[...document.querySelectorAll('.row-prompt')].map(e => e.textContent)"
    )
    return found


def chart(tab: Tab) -> str:
    return str(tab.evaluate("document.querySelector('#lines').getAttribute('aria-label')"))


def test_the_page_in_the_repository_is_what_its_parts_build() -> None:
    built = build_page()

    assert PAGE.read_text(encoding="utf-8") == built


def test_keys_move_the_slider_the_mark_and_the_bars(tab: Tab, tmp_path: Path) -> None:
    drop(tab, tmp_path, record({"refusal": [float(i) for i in range(25)]}))
    seen = []

    for key, shift in (
        ("ArrowRight", False),
        ("ArrowRight", True),
        ("ArrowLeft", False),
        ("End", False),
        ("ArrowRight", False),
        ("ArrowLeft", True),
        ("Home", False),
    ):
        tab.press(key, shift=shift)
        seen.append((tab.evaluate("Number(document.querySelector('#token').value)"), here(tab)))

    assert [i for i, _ in seen] == [1, 11, 10, 24, 24, 14, 0]
    assert [figures["refusal"] for _, figures in seen[:3]] == ["1.00", "11.00", "10.00"]
    assert tab.evaluate(MARKED) == [" t1"]


def test_the_slider_itself_takes_keys_and_shift(tab: Tab, tmp_path: Path) -> None:
    drop(tab, tmp_path, record({"refusal": [float(i) for i in range(25)]}))
    tab.evaluate("document.querySelector('#token').focus()")

    tab.press("ArrowRight", shift=True)
    tab.press("ArrowUp")

    assert tab.text("#token-count") == "12 / 25"


def test_hovering_a_token_moves_the_slider_there(tab: Tab, tmp_path: Path) -> None:
    drop(tab, tmp_path, record())

    tab.move_to('.tokens [data-i="3"]')

    assert (tab.text("#token-count"), tab.evaluate(MARKED)) == ("4 / 7", [" with"])
    assert here(tab) == {"refusal": "1.80", "evil": f"{MINUS}0.90"}


def test_the_text_is_a_heat_map_of_the_chosen_trait(tab: Tab, tmp_path: Path) -> None:
    drop(tab, tmp_path, record({"refusal": [-2.0, 0.0, 2.0, None], "evil": [2.0, 0.0, -2.0, 1.0]}))

    refusal = tab.evaluate(HEAT)
    tab.select("#heat-trait", "evil")
    evil = tab.evaluate(HEAT)

    below, none, above, missing = refusal
    assert len({below[0], none[0], above[0]}) == 3
    assert none[1] == "none"
    assert len({below[1], none[1], above[1], missing[1]}) == 4
    assert evil[:3] == [above, none, below]


def test_the_cursor_moves_without_drawing_the_lines_again(tab: Tab, tmp_path: Path) -> None:
    drop(tab, tmp_path, record())
    tab.evaluate("document.querySelector('#chart').scrollIntoView()")
    pixels = "[...document.querySelectorAll('#chart canvas')].map(c => c.toDataURL())"
    lines, cursor = tab.evaluate(pixels)
    tab.evaluate("document.querySelector('#lines').getContext('2d').fillRect(0, 0, 9, 9)")
    marked = tab.evaluate(pixels)[0]

    tab.press("ArrowRight")
    after = tab.evaluate(pixels)

    assert after[1] != cursor
    assert after[0] == marked != lines


def test_dragging_over_the_line_chart_moves_the_slider(tab: Tab, tmp_path: Path) -> None:
    drop(tab, tmp_path, record())

    tab.click("#cursor")

    assert tab.text("#token-count") in ("4 / 7", "5 / 7")


def test_prompts_are_chosen_by_trait_and_polarity(tab: Tab, tmp_path: Path) -> None:
    kinds = [("evil", "positive"), ("evil", "negative"), ("refusal", "positive")]
    data = [
        record(prompt=f"{trait} {polarity}?", metadata={"trait": trait, "polarity": polarity})
        for trait, polarity in kinds
    ]
    drop(tab, tmp_path, data)

    tab.select("#by-trait", "evil")
    tab.select("#by-polarity", "negative")
    tab.click("#next-prompt")

    assert tab.text("#prompt-text") == "evil negative?"
    assert rows(tab) == ["evil negative?"]


def test_scales_fit_scores_of_forty(tab: Tab, tmp_path: Path) -> None:
    drop(tab, tmp_path, record({"refusal": [39.0, 40.0, 44.0], "evil": [38.0, 38.5, 41.0]}))

    assert "from 38.00 to 44.00" in chart(tab)
    assert "middle 41.00, the mean" in tab.text("#heat-scale")
    assert stats(tab)["refusal"][1:] == ["41.00", "2.16", "39.00", "44.00"]


def test_smoothing_is_the_mean_of_the_last_tokens(tab: Tab, tmp_path: Path) -> None:
    drop(tab, tmp_path, record({"refusal": [0.0, 4.0, 0.0, 4.0]}))

    tab.evaluate("document.querySelector('#window').value = 2")
    tab.evaluate("document.querySelector('#window').dispatchEvent(new Event('input'))")
    tab.frame()

    assert "from 0.00 to 2.00" in chart(tab)
    assert stats(tab)["refusal"][4] == "4.00"


def test_velocity_is_drawn_from_the_scores(tab: Tab, tmp_path: Path) -> None:
    drop(tab, tmp_path, record({"refusal": [0.0, 4.0, 1.0]}))

    tab.select("#series", "velocity")

    assert f"velocity of refusal over 3 tokens, from {MINUS}3.00 to 4.00" in chart(tab)


def test_raw_and_z_change_every_figure_and_z_needs_a_baseline(tab: Tab, tmp_path: Path) -> None:
    zscores = {"refusal": [1.0] * 7, "evil": [-2.0] * 7}
    drop(tab, tmp_path, [record(trait_zscores=zscores), record()])

    tab.click("[data-units=z]")
    figures = here(tab)
    tab.click("#next-prompt")

    assert figures == {"refusal": "1.00", "evil": f"{MINUS}2.00"}
    assert tab.evaluate("document.querySelector('[data-units=z]').disabled")
    assert here(tab)["refusal"] == "0.50"


def test_a_hidden_trait_leaves_bars_lines_and_table(tab: Tab, tmp_path: Path) -> None:
    drop(tab, tmp_path, record())

    tab.click('[data-chip="evil"]')

    assert (list(here(tab)), list(stats(tab))) == (["refusal"], ["refusal"])
    assert "scores of refusal over" in chart(tab)


def test_steered_stands_beside_unsteered(tab: Tab, tmp_path: Path) -> None:
    steered = record({"refusal": [1.0, 1.0, 1.0], "evil": [0.0, 0.0, 3.0]}, coefficient=-2.0)
    drop(tab, tmp_path, record(steered=steered))

    tab.move_to('.tokens [data-i="2"]')

    assert tab.evaluate(MARKED) == [" help", " t3"]
    assert tab.evaluate("[...document.querySelectorAll('.texts h3')].map(e => e.textContent)") == [
        "Response, 7 tokens",
        f"Steered {MINUS}2, 3 tokens",
    ]
    assert stats(tab)["evil"][5:7] == ["1.00", "1.77"]


def test_dynamics_are_marked_and_listed(tab: Tab, tmp_path: Path) -> None:
    dynamics = {
        "refusal": {
            "commitment_point": 2,
            "peak_velocity": 1.8,
            "avg_velocity": 0.95,
            "persistence": 3,
            "scale_free": {"commitment_point": 1, "p_value": 0.005},
        }
    }

    drop(tab, tmp_path, record(dynamics=dynamics))

    assert "◇ refusal commits at token 3 · ◆ its level steps at token 2 (p 0.005)" in tab.text(
        "#markers"
    )
    assert stats(tab)["refusal"][5:] == ["3", "2 (0.005)", "1.80", "0.95", "3"]


def test_dark_follows_the_system_until_it_is_chosen_here(tab: Tab) -> None:
    theme = "document.documentElement.dataset.theme"
    paper = "getComputedStyle(document.body).backgroundColor"
    light = tab.evaluate(paper)

    tab.prefers("dark")
    dark, dark_theme = tab.evaluate(paper), tab.evaluate(theme)
    tab.click("#theme")
    tab.open(PAGE.as_uri())

    assert (dark_theme, tab.evaluate(theme)) == ("dark", "light")
    assert dark != light == tab.evaluate(paper)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_runs_over_the_edge_of_a_phone(tab: Tab, tmp_path: Path, scheme: str) -> None:
    steered = long_record(40) | {"coefficient": 2}
    dynamics = {"evil": {"commitment_point": 3, "peak_velocity": 1.0, "persistence": 2}}
    long = long_record(60) | {"steered": steered, "dynamics": dynamics, "prompt": "x" * 300}
    tab.prefers(scheme)
    tab.size(390, 844, mobile=True)

    drop(tab, tmp_path, long)

    assert tab.evaluate(NO_OVERFLOW)
    assert tab.evaluate(
        "['#token', '#lines', '.bar', '#stats'].every(s => {"
        "const r = document.querySelector(s).getBoundingClientRect(); return r.width > 150; })"
    )


def test_the_picture_holds_text_bars_lines_and_table(tab: Tab, tmp_path: Path) -> None:
    drop(tab, tmp_path, record())
    where = {"behavior": "allow", "downloadPath": str(tmp_path)}
    tab.call("Browser.setDownloadBehavior", where)

    tab.click("#png")
    tab.evaluate("new Promise(done => setTimeout(done, 700))")

    picture = (tmp_path / "scores_1_refusal.png").read_bytes()
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    assert int.from_bytes(picture[16:20], "big") == 2800
    assert len(picture) > 20_000
