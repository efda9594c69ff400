"""The page keeps to itself: nothing of a model's is markup, nothing is asked for; and a step from
token to token costs no more in a long response than in a short one.

In a real Chromium.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from cli.pages.build import build_page
from cli.pages.carried_files import CarriedFile
from tests.chromium import Tab, chromium_or_skip, running_chromium
from tests.page_data import long_record, record, save

PAGE = Path(__file__).parent.parent / "visualization.html"
STEPS = 60
# what the page does while the slider passes over the response: strokes on canvases, changed nodes
WORK = f"""(async () => {{
    let work = 0;
    const context = CanvasRenderingContext2D.prototype, originals = {{}};
    for (const name of ['lineTo', 'moveTo', 'arc', 'fillText', 'fillRect']) {{
        originals[name] = context[name];
        context[name] = function (...given) {{
            work++;
            return originals[name].apply(this, given);
        }};
    }}
    const watch = new MutationObserver(changes => work += changes.length);
    watch.observe(document.body,
        {{subtree: true, childList: true, attributes: true, characterData: true}});
    const slider = document.querySelector('#token');
    for (let i = 0; i < {STEPS}; i++) {{
        slider.value = String(Math.floor(i * slider.max / {STEPS}));
        slider.dispatchEvent(new Event('input', {{bubbles: true}}));
        await new Promise(requestAnimationFrame);
    }}
    watch.disconnect();
    Object.assign(context, originals);
    return work;
}})()"""


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


def drop(tab: Tab, folder: Path, value: Any, name: str = "scores.json") -> None:
    tab.drop([save(folder / name, value)])
    tab.wait("!document.querySelector('#content').hidden")
    tab.frame()


def test_what_a_model_writes_is_text_and_never_markup(tab: Tab, tmp_path: Path) -> None:
    evil = "<img src=x onerror='document.title=\"owned\"'></script><script>document.title='owned'//"
    body = record(
        {evil: [1.0, 2.0], "__proto__": [0.0, 1.0]},
        prompt=evil,
        tokens=[evil, "b"],
        response=evil,
        metadata={evil: evil, "trait": evil, "polarity": evil},
        dynamics={evil: {"commitment_point": 1}},
        steered=record({evil: [1.0]}, tokens=[evil], coefficient=1, metadata={"trait": evil}),
    )

    drop(tab, tmp_path, body, name="<img src=x onerror=alert(1)>.json")
    tab.move_to('.tokens [data-i="0"]')

    assert tab.evaluate("document.querySelector('.tokens span').textContent") == evil
    assert tab.text("#prompt-text") == evil
    assert tab.evaluate("document.querySelectorAll('img, iframe, object').length") == 0
    assert tab.evaluate("document.title") == "Trait trajectories"


def test_markup_in_carried_data_stays_data(browser: Tab, tmp_path: Path) -> None:
    evil = "</script><script>document.title='owned'</script><!-- {{SCRIPT}}"
    text = save(tmp_path / "in.json", record(prompt=evil)).read_text()
    page = save(tmp_path / "page.html", build_page([CarriedFile("in.json", text)]))

    browser.open(page.as_uri())

    assert (browser.text("#prompt-text"), browser.evaluate("document.title")) == (
        evil,
        "Trait trajectories",
    )


def test_no_request_leaves_the_page(tab: Tab, tmp_path: Path) -> None:
    asked: list[str] = []

    class Ear(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(204)
            self.end_headers()

    with HTTPServer(("127.0.0.1", 0), Ear) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/"
        drop(tab, tmp_path, record(prompt=url, tokens=[url] * 7, metadata={"url": url}))
        tab.move_to('.tokens [data-i="3"]')
        tab.requests.clear()
        refused = tab.evaluate(f"fetch('{url}').then(() => 'went out', e => e.name)")
        tab.evaluate(f"document.body.append(Object.assign(new Image(), {{src: '{url}'}}))")
        tab.evaluate(f"navigator.sendBeacon('{url}')")
        tab.frame()
        server.shutdown()

    assert (refused, asked) == ("TypeError", [])


def test_opening_and_using_the_page_asks_for_one_file_only(tab: Tab) -> None:
    tab.requests.clear()

    tab.open(PAGE.as_uri())
    tab.click("#example")
    tab.press("End")

    assert [url for url in tab.requests if not url.startswith("data:")] == [PAGE.as_uri()]


def test_a_step_costs_no_more_in_five_thousand_tokens_than_in_two_hundred(
    tab: Tab, tmp_path: Path
) -> None:
    work = {}
    for n_tokens in (200, 5000):
        drop(tab, tmp_path, long_record(n_tokens), name=f"{n_tokens}.json")
        work[n_tokens] = tab.evaluate(WORK)

    assert STEPS < work[5000] < 1.5 * work[200]
