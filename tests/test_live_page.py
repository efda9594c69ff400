"""`orchestrate view --live`: the page of a run that is being made, in a real Chromium."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import shutil
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from cli.commands.view import view
from cli.pages.build import live_page
from cli.pages.live_run import LiveRun, latest_live_answers
from cli.pages.server import PageServer
from domain.errors import OrchestrateError, UsageError
from domain.fleet.heartbeats import Heartbeat
from storage.broker.connection import connect
from storage.broker.embedded_redis import embedded_redis
from storage.broker.fleet import put_heartbeat
from storage.record.artifacts import record_key
from storage.record.run import Run, open_run
from storage.record.store import open_store
from tests.chromium import Tab, chromium_or_skip, running_chromium
from tests.stored_run import HOSTILE, stored_run

FLOWER = "http://127.0.0.1:5555"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    path = chromium_or_skip()
    with running_chromium(path, tmp_path_factory.mktemp("profile")) as tab:
        yield tab


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stored") / "demo"
    stored_run(folder)
    return folder


@pytest.fixture
def run(stored: Path, tmp_path: Path) -> Run:
    """A copy, which a test may take from and add to."""
    return open_run(open_store(str(shutil.copytree(stored, tmp_path / "runs" / "demo"))))


@contextlib.contextmanager
def serving(run: Run, broker_url: str | None = None) -> Iterator[PageServer]:
    watched = LiveRun(run, broker_url, flower_url=FLOWER)
    with PageServer(lambda: live_page("demo"), look=watched.look) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.shutdown()


def get(server: PageServer, path: str, host: str = "localhost") -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=60)
    connection.request("GET", path, headers={"Host": host})
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer.status, body


def row(tab: Tab, trait: str) -> str:
    found: str = tab.evaluate(
        "[...document.querySelectorAll('#traits tbody tr')]"
        f".find(r => r.cells[0].textContent === {trait!r}).innerText"
    )
    return found


def test_the_page_follows_a_run_while_it_is_made(browser: Tab, run: Run) -> None:
    ref = run.spec.trait("evil")
    judged = run.plan.judge_job(run.plan.part_jobs(ref, "generate", "positive")[0])
    reduced = run.plan.trait_job("reduce", "evil")
    taken = {record_key(job): run.store.read(record_key(job)) for job in (judged, reduced)}
    for key in taken:
        run.store.delete(key)

    with serving(run) as server:
        browser.requests.clear()
        browser.open(server.url)
        browser.wait("document.querySelector('#traits tbody')")
        before = row(browser, "evil"), browser.text("#doing")
        for key, data in taken.items():
            run.store.write(key, data)
        browser.wait("document.querySelector('#doing').innerText.startsWith('finished')")
        after = row(browser, "evil")

    verdict = json.loads(run.store.read("traits/evil/metrics.json"))["verdict"]
    assert "not yet" in before[0] and before[1].startswith("not finished")
    assert "54 of 108" in before[0] and "108 of 108\t108 of 108" in " ".join(after.split(" "))
    assert verdict in after
    asked = {url for url in browser.requests if not url.startswith("data:")}
    assert asked == {server.url, f"{server.url}state"}


def test_the_latest_answers_are_those_of_the_record(run: Run) -> None:
    table = pq.read_table(io.BytesIO(run.store.read("traits/evil/responses.parquet")))
    rows = {one["key"]: one for one in table.to_pylist()}

    found = [one for one in latest_live_answers(run) if one["key"] in rows]

    assert found
    for one in found:
        stored = rows[one["key"]]
        for name in ("response", "question", "trait_score", "coherence_score"):
            assert one[name] == stored[name]


def test_an_answer_that_is_not_judged_yet_says_so(run: Run) -> None:
    for key in run.store.list("traits"):
        if "/judge/" in key:
            run.store.delete(key)

    found = latest_live_answers(run)

    assert found and not any(one["is_judged"] for one in found)


def test_what_a_model_writes_is_text(browser: Tab, run: Run) -> None:
    with serving(run) as server:
        browser.open(server.url)
        browser.wait("document.querySelector('.response')")
        texts = browser.evaluate(
            "[...document.querySelectorAll('.response')].map(e => e.innerText)"
        )

    assert HOSTILE in texts
    assert browser.evaluate("document.querySelectorAll('img').length") == 0
    assert "owned" not in str(browser.evaluate("document.title"))


def test_workers_are_shown_and_their_queues_are_flowers(browser: Tab, run: Run) -> None:
    beat = Heartbeat("gpu-0@lab", "gpu", "lab", device="cuda:0", busy=0.5)
    with embedded_redis() as broker, connect(broker) as client:
        put_heartbeat(client, beat)
        with serving(run, broker) as server:
            browser.open(server.url)
            browser.wait("document.querySelector('#workers tbody tr')")
            worker, note = browser.text("#workers tbody tr"), browser.text("#workers-note")
            link = browser.evaluate("document.querySelector('#workers-note a').href")

    assert "gpu-0@lab" in worker and "50 %" in worker
    assert "Flower" in note and link == f"{FLOWER}/"


def test_a_broker_that_is_away_leaves_the_record(browser: Tab, run: Run) -> None:
    with serving(run, "redis://127.0.0.1:1/0") as server:
        browser.open(server.url)
        browser.wait("document.querySelector('#traits tbody')")

        assert "the broker does not answer" in browser.text("#note")
        assert "108 of 108" in row(browser, "evil")


@pytest.mark.parametrize(
    ("host", "path", "status"),
    [("localhost", "state", 200), ("evil.example", "state", 403), ("localhost", "../state", 404)],
)
def test_the_state_is_told_to_this_machine_and_behind_the_path_alone(
    run: Run, host: str, path: str, status: int
) -> None:
    with serving(run) as server:
        found = get(server, f"{server.secret_path}{path}", host)
        bare = get(server, "/state")

    assert (found[0], bare[0]) == (status, 404)


def test_a_record_that_cannot_be_read_is_one_sentence_and_the_server_goes_on(run: Run) -> None:
    def look() -> Any:
        raise OrchestrateError("the record cannot be read: mount the folder again")

    with PageServer(lambda: live_page("demo"), look=look) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        state = get(server, f"{server.secret_path}state")
        page = get(server, server.secret_path)
        server.shutdown()

    assert state == (500, "the record cannot be read: mount the folder again")
    assert page[0] == 200


def test_live_shows_a_run_alone_and_one_that_is_there(tmp_path: Path) -> None:
    for words in (["--live", "demo", "x.json"], ["--live", "none", "--runs-dir", str(tmp_path)]):
        result = CliRunner().invoke(view, words)

        assert isinstance(result.exception, UsageError)


def test_view_finds_a_run_in_the_folder_that_is_named(run: Run) -> None:
    folder = run.store.url.removesuffix("/demo")
    code = "import sys; from cli.commands.view import view; view(sys.argv[1:])"
    words = ["--live", "demo", "--runs-dir", folder]
    command = [sys.executable, "-P", "-c", code, *words]

    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            with urllib.request.urlopen(address + "state", timeout=60) as answer:
                state = json.load(answer)
        finally:
            process.terminate()

    assert {one["trait"] for one in state["traits"]} == {"evil", "refusal"}
