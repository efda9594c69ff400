"""No page has a serious fault for who cannot see it, or uses no mouse, that axe-core finds.

axe-core comes from the npm registry when the test runs; it is in no file of the project.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli.pages.build import build_page, live_page
from cli.pages.carried_files import CarriedFile
from cli.pages.live_run import LiveRun
from cli.pages.server import PageServer
from domain.plan.spec import ChecksSpec
from storage.record.run import Run
from tests.chromium import Tab, chromium_or_skip, running_chromium
from tests.fleet import run_command
from tests.page_data import long_record, record, save
from tests.stored_run import stored_run

pytestmark = pytest.mark.slow

PACKAGE = "axe-core@4"
# The browser opens a fresh page for each of these.
SIZES = ((1280, 900, False), (390, 844, True))
SCHEMES = ("light", "dark")
RUN = """axe.run(document, {resultTypes: ['violations']}).then(found => found.violations
    .filter(one => one.impact === 'serious' || one.impact === 'critical')
    .map(one => [one.id, one.help, one.nodes.slice(0, 5).map(
        n => n.html.slice(0, 160) + ' ' + n.failureSummary.slice(0, 200))]))"""


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The source of axe-core; skips where the registry is not reached."""
    npm, folder = shutil.which("npm"), tmp_path_factory.mktemp("axe")
    if npm is None:
        pytest.skip("no npm on the PATH: axe-core cannot be had")
    packed = subprocess.run(
        [npm, "pack", PACKAGE, "--silent", "--ignore-scripts"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )
    if packed.returncode:
        pytest.skip(f"axe-core cannot be had from the npm registry: {packed.stderr[-200:]}")
    with tarfile.open(next(folder.glob("*.tgz"))) as archive:
        member = archive.extractfile("package/axe.min.js")
        assert member is not None
        return member.read().decode()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    path = chromium_or_skip()
    with running_chromium(path, tmp_path_factory.mktemp("profile")) as tab:
        yield tab


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("runs")
    stored_run(folder / "two", seed=1)
    return stored_run(folder / "one", checks=ChecksSpec(evaluation=1, causal=4))


def faults(tab: Tab, axe: str, url: str, *, ready: str) -> list[Any]:
    """What axe-core finds at a wide and a narrow window, in both themes."""
    found = []
    for width, height, mobile in SIZES:
        for scheme in SCHEMES:
            tab.size(width, height, mobile=mobile)
            tab.prefers(scheme)
            tab.open_anew(url)
            tab.wait(ready)
            tab.evaluate(
                "document.querySelectorAll('details').forEach(one => { one.open = true; })"
            )
            tab.frame()
            tab.evaluate(axe)
            found += [(width, scheme, *one) for one in tab.evaluate(RUN)]
    return found


def told(found: list[Any]) -> str:
    return json.dumps(found, indent=1, ensure_ascii=False)


def test_the_viewer_without_data(browser: Tab, axe: str, tmp_path: Path) -> None:
    page = save(tmp_path / "page.html", build_page())

    found = faults(browser, axe, page.as_uri(), ready="document.querySelector('#example')")

    assert not found, told(found)


def test_the_viewer_with_records(browser: Tab, axe: str, tmp_path: Path) -> None:
    one = long_record(120) | {
        "trait_zscores": long_record(120)["trait_scores"],
        "steered": long_record(90) | {"coefficient": 2},
        "dynamics": {"evil": {"commitment_point": 3, "peak_velocity": 1.0, "persistence": 2}},
        "summary": {"evil": {"z": 3.0, "flagged": True}},
        "alternatives": [[["yes", 0.5], ["no", 0.25]]] * 120,
        "metadata": {"trait": "evil", "polarity": "positive"},
    }
    text = json.dumps([one, record(), record({"refusal": []}, tokens=[])])
    page = save(tmp_path / "page.html", build_page([CarriedFile("a.json", text)]))

    found = faults(browser, axe, page.as_uri(), ready="document.querySelector('.a-row')")

    assert not found, told(found)


def test_the_live_page(browser: Tab, axe: str, run: Run) -> None:
    watched = LiveRun(run, None, flower_url="http://127.0.0.1:5555")
    with PageServer(lambda: live_page("demo"), look=watched.look) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        found = faults(browser, axe, server.url, ready="document.querySelector('.response')")
        server.shutdown()

    assert not found, told(found)


def test_the_published_front_page(browser: Tab, axe: str, run: Run, tmp_path: Path) -> None:
    place = str(Path(run.store.url).parent)
    ended = run_command("publish", "one", "--runs-dir", place, "--to", str(tmp_path / "site"))
    assert ended.returncode == 0, ended.stderr
    url = (tmp_path / "site" / "index.html").as_uri()

    found = faults(browser, axe, url, ready="document.querySelector('.card')")

    assert not found, told(found)


@pytest.mark.parametrize(
    ("words", "place"),
    [
        (("report", "one"), ""),
        (("report", "one"), "#view=trait&trait=evil"),
        (("report", "one"), "#view=answers&answer=evil/positive/i0/q00/r0"),
        (("report", "one"), "#view=between"),
        (("report", "one"), "#view=run"),
        (("compare", "one", "two"), ""),
    ],
)
def test_the_report(browser: Tab, axe: str, run: Run, words: tuple[str, ...], place: str) -> None:
    runs = str(Path(run.store.url).parent)
    ended = run_command(*words, "--runs-dir", runs, "--json")
    assert ended.returncode == 0, ended.stderr
    url = Path(json.loads(ended.stdout)[words[0]]).as_uri() + place
    ready = (
        "document.body.dataset.ready" if words[0] == "report" else "document.querySelector('h1')"
    )

    found = faults(browser, axe, url, ready=ready)

    assert not found, told(found)
