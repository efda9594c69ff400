"""The page keeps to itself: nothing of a model's is markup, nothing is asked for; and it is quick.

In a real Chromium.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from cli.pages.build import CarriedFile, build_page
from tests.chromium import Tab, chromium_or_skip, running_chromium
from tests.page_data import long_record, record, save

PAGE = Path(__file__).parent.parent / "visualization.html"
# one frame of a 60 Hz screen
FRAME_MS = 1000 / 60
STEPS = 60
SLIDE = f"""(async () => {{
    const slider = document.querySelector('#token'), times = [];
    let last = performance.now();
    for (let i = 0; i < {STEPS}; i++) {{
        slider.value = String(i * 79);
        slider.dispatchEvent(new Event('input', {{bubbles: true}}));
        await new Promise(done => requestAnimationFrame(() => {{
            const channel = new MessageChannel();
            channel.port1.onmessage = done;   // runs after this frame is painted
            channel.port2.postMessage(0);
        }}));
        times.push(performance.now() - last);
        last = performance.now();
    }}
    return times.sort((a, b) => a - b)[{STEPS // 2}];
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


def main_thread_ms(tab: Tab) -> float:
    """Processor time that the page's thread has used, whatever else the machine does."""
    metrics = tab.call("Performance.getMetrics")["metrics"]
    return 1000 * next(float(m["value"]) for m in metrics if m["name"] == "TaskDuration")


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


def test_five_thousand_tokens_of_eleven_traits_stay_fluid(tab: Tab, tmp_path: Path) -> None:
    drop(tab, tmp_path, long_record(5000))
    tab.call("Performance.enable", {"timeDomain": "threadTicks"})
    before = main_thread_ms(tab)

    median_ms = tab.evaluate(SLIDE)

    assert (main_thread_ms(tab) - before) / STEPS < FRAME_MS
    # time on the clock is mostly the machine's other work
    assert median_ms < 6 * FRAME_MS
