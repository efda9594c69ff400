"""`orchestrate view`: what it serves, to whom, and how a growing file reaches the page."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cli.commands.view import view
from cli.pages.build import build_page
from cli.pages.server import PageServer, follow_events
from domain.errors import UsageError
from tests.chromium import chromium_or_skip, running_chromium
from tests.page_data import record, save


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(view, list(map(str, arguments)))


def token(i: int, **others: Any) -> bytes:
    event = {"event": "token", "token": f" t{i}", "trait_scores": {"refusal": float(i)}}
    return json.dumps(event | others).encode() + b"\n"


def no_wait(_: float) -> None:
    """Polls at once."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PageServer]:
    followed = tmp_path / "live.jsonl"
    with PageServer(lambda: build_page(live="events"), followed=followed) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield server
        server.shutdown()


def get(server: PageServer, path: str, host: str | None = None) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=60)
    connection.request("GET", path, headers={} if host is None else {"Host": host})
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer.status, body


def test_the_page_is_behind_a_random_path(server: PageServer) -> None:
    assert get(server, server.secret_path)[0] == 200
    assert get(server, "/")[0] == 404
    assert get(server, server.secret_path[:-2] + "/")[0] == 404


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example:80", "", "[::1"])
def test_a_name_that_only_resolves_here_is_refused(server: PageServer, host: str) -> None:
    status, body = get(server, server.secret_path, host)

    assert (status, "Trait trajectories" in body) == (403, False)


@pytest.mark.parametrize("host", ["localhost:9999", "127.0.0.1", "[::1]:80"])
def test_a_tunnel_of_another_port_is_served(server: PageServer, host: str) -> None:
    assert get(server, server.secret_path, host)[0] == 200


def test_a_taken_port_is_told(server: PageServer) -> None:
    with pytest.raises(UsageError, match="choose another --port"):
        PageServer(lambda: "", port=server.server_address[1])


def test_lines_are_events_and_an_unfinished_line_waits(tmp_path: Path) -> None:
    path = tmp_path / "live.jsonl"
    path.write_bytes(token(0) + token(1)[:20])
    events = follow_events(path, sleep=no_wait)

    first = next(events)
    with path.open("ab") as file:
        file.write(token(1)[20:])
    second = next(events)

    assert first == b"id: %d\ndata: %b\n\n" % (len(token(0)), token(0).strip())
    assert second == b"id: %d\ndata: %b\n\n" % (len(token(0) * 2), token(1).strip())


def test_a_reader_that_comes_back_goes_on_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "live.jsonl"
    path.write_bytes(token(0) + token(1))

    event = next(follow_events(path, len(token(0)), sleep=no_wait))

    assert token(1).strip() in event and token(0).strip() not in event


def test_a_file_written_anew_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "live.jsonl"
    path.write_bytes(token(0) + token(1))
    events = follow_events(path, sleep=no_wait)
    next(events)

    path.write_bytes(token(7))
    reset, again = islice(events, 2)

    assert reset == b"event: reset\ndata:\n\n"
    assert token(7).strip() in again


def test_a_silent_file_sends_a_sign_of_life(tmp_path: Path) -> None:
    waited: list[float] = []

    event = next(follow_events(tmp_path / "not yet.jsonl", sleep=waited.append))

    assert event.startswith(b":")
    assert 9 < sum(waited) < 11


def test_tokens_appear_as_they_are_written(server: PageServer, tmp_path: Path) -> None:
    path = tmp_path / "live.jsonl"
    with running_chromium(chromium_or_skip(), tmp_path / "profile") as tab:
        tab.open(server.url)
        tab.wait("document.querySelector('#live').innerText.startsWith('waiting')")

        with path.open("ab", buffering=0) as file:
            file.write(b'{"event": "start", "prompt": "Why?"}\n' + token(0))
            tab.wait("document.querySelector('#token-count').innerText === '1 / 1'")
            file.write(token(1) + token(2) + b"no json\n")
            tab.wait("document.querySelector('#token-count').innerText === '3 / 3'")
            tab.wait("document.querySelector('#messages span')")
            message = tab.text("#messages span")
            tab.press("Home")
            file.write(token(3))
            tab.wait("document.querySelector('#token-count').innerText === '1 / 4'")
            steered = {"event": "start", "id": 1, "beside": 0, "coefficient": 2}
            file.write(json.dumps(steered).encode() + b"\n" + token(9, id=1))
            tab.wait("document.querySelectorAll('.tokens').length === 2")
            file.write(b'{"event": "done"}\n{"event": "done", "id": 1}\n{"event": "end"}\n')
            tab.wait("document.querySelector('#live').innerText === 'finished, 4 tokens'")

        assert tab.text("#prompt-text") == "Why?"
        assert message.startswith("live: line 5 is not JSON")
        assert tab.errors == []
        assert {url for url in tab.requests if not url.startswith("data:")} == {
            server.url,
            server.url + "events",
        }


def test_output_carries_the_data_and_needs_no_server(tmp_path: Path) -> None:
    data = save(tmp_path / "scores.json", record(prompt="carried"))
    output = tmp_path / "page.html"

    result = run(data, "--output", output)

    assert result.exit_code == 0 and "1 file" in result.output
    page = output.read_text(encoding="utf-8")
    assert "carried" in page and "connect-src 'none'" in page


def test_a_folder_stands_for_its_files(tmp_path: Path) -> None:
    save(tmp_path / "b.json", record())
    save(tmp_path / "a.jsonl", json.dumps(record()))
    save(tmp_path / "notes.txt", "no data")

    run(tmp_path, "--output", tmp_path / "page.html")

    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    carried = page.partition('id="files">')[2].partition("</script>")[0]
    assert [file["name"] for file in json.loads(carried)["files"]] == ["a.jsonl", "b.json"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("{", r"bad.json is not JSON: .*line 1"),
        ('{"a": 1}\n{"b"\n', r"bad.json is not JSON lines: line 2"),
        ("", "bad.json is empty"),
    ],
)
def test_a_file_that_is_not_json_is_told_before_anything_is_served(
    tmp_path: Path, body: str, said: str
) -> None:
    result = run(save(tmp_path / "bad.json", body), "--output", tmp_path / "page.html")

    assert isinstance(result.exception, UsageError)
    with pytest.raises(UsageError, match=said):
        raise result.exception


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    result = run(tmp_path / "none.json")

    assert isinstance(result.exception, UsageError)
    assert "cannot be read: No such file" in str(result.exception)


def test_the_command_prints_its_address_and_serves(tmp_path: Path) -> None:
    data = save(tmp_path / "scores.json", record(prompt="served"))
    code = "import sys; from cli.commands.view import view; view(sys.argv[1:])"
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", code, str(data)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        host, _, path = address.removeprefix("http://").partition("/")
        connection = http.client.HTTPConnection(host, timeout=60)
        connection.request("GET", f"/{path}")
        body = connection.getresponse().read().decode()
        connection.close()
    finally:
        process.terminate()
        process.communicate(timeout=60)

    assert "served" in body
