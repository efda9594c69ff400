"""`orchestrate publish`: what stands in the folder, what does not, and what it refuses."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import asdict
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from cli.commands.report import reported
from cli.main import orchestrate
from cli.using.private import Private
from domain.errors import OrchestrateError, UsageError
from storage.broker.job_log import LogLine
from storage.record.run import Run, open_run
from storage.record.store import open_store
from tests.chromium import chromium_or_skip, running_chromium
from tests.http_server import served
from tests.page_data import record, save
from tests.stored_run import UNCHECKED, stored_run
from traitlens.errors import MissingVectorError, VectorFileError
from traitlens.vectors.files import load_vectors

ROOT = Path(__file__).parent.parent
EVIL = ROOT / "domain" / "traits" / "bundled" / "evil.json"
JUDGE = "http://judge.corp.internal:8011/v1"
KEY = "sk-proj-AbC0123456789xyzAbC"
BROKER = "redis://:p4ssw0rd-of-ours@broker.corp.internal:6379/0"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of somebody's own, with a run whose record names it all over."""
    home = tmp_path_factory.mktemp("home") / "alice-smith"
    (home / "runs").mkdir(parents=True)
    (home / "evil.json").write_bytes(EVIL.read_bytes())
    stored_run(
        home / "runs" / "demo",
        traits=str(home / "evil.json"),
        model=str(home / "models" / "fine-tune"),
        judge_url=JUDGE,
        checks=UNCHECKED,
    )
    # what workers of two machines left
    workers = ("gpu-cuda:0-12@node7.corp.internal", "judge-1@station")
    lines = [LogLine(1.0, "info", worker, "evil/reduce", "done", "Done.") for worker in workers]
    text = "".join(json.dumps(asdict(line)) + "\n" for line in lines)
    (home / "runs" / "demo" / "logs").mkdir()
    (home / "runs" / "demo" / "logs" / "jobs.jsonl").write_text(text)
    return home


@pytest.fixture
def private(home: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """What must not be published, in the environment and in the run's record."""
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("ORCHESTRATE_BROKER_URL", BROKER)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    return ("alice-smith", "corp.internal", "p4ssw0rd", KEY[8:])


def run_publish(home: Path, *arguments: str | Path) -> Result:
    words = ["publish", "demo", "--runs-dir", str(home / "runs"), *map(str, arguments)]
    return CliRunner().invoke(orchestrate, words, catch_exceptions=True)


def published(home: Path, folder: Path, *arguments: str | Path) -> dict[str, bytes]:
    result = run_publish(home, "--to", folder, *arguments)
    assert result.exit_code == 0, result.output
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_nothing_private_is_published(home: Path, tmp_path: Path, private: tuple[str, ...]) -> None:
    facts = {"file": str(home / "prompts.txt"), "model": str(home / "models" / "fine-tune")}
    facts["by"] = "gpu-cuda:0-12@node7.corp.internal asked judge.corp.internal"
    scores = save(tmp_path / "scores.json", record(metadata=facts, response=f"key {KEY}"))

    files = published(home, tmp_path / "site", "--scores", scores)

    held = [text for text in private if text.encode() in (home / "runs/demo/run.json").read_bytes()]
    assert len(held) >= 2
    for text in private:
        assert [name for name, data in files.items() if text.encode() in data] == []
    metrics = json.loads(files["traits/evil/metrics.json"])
    assert metrics["judging"]["judge"]["url"] != JUDGE
    assert b"fine-tune" in files["hub/README.md"]


def test_a_page_does_not_tell_where_its_files_lay(home: Path, tmp_path: Path) -> None:
    paths = [tmp_path / "secret-project" / side / "scores.json" for side in ("before", "after")]
    for path in paths:
        path.parent.mkdir(parents=True)
        save(path, record())

    files = published(home, tmp_path / "site", "--scores", paths[0], "--scores", paths[1])

    page = files["viewer.html"].decode()
    assert "before/scores.json" in page and "after/scores.json" in page
    assert "secret-project" not in page


def test_the_report_says_the_same_without_what_is_private(
    home: Path, private: tuple[str, ...]
) -> None:
    run = opened(home)
    data = reported(run)

    public = Private.of(run, {"OPENAI_API_KEY": KEY}).without(data)

    assert "alice-smith" in json.dumps(data) and "corp.internal" in json.dumps(data)
    assert not any(text in json.dumps(public) for text in private)
    numbers = re.compile(r"-?\d+\.\d+")
    assert numbers.findall(json.dumps(public)) == numbers.findall(json.dumps(data))


@pytest.mark.parametrize(
    ("text", "public"),
    [
        ("{home}/runs/demo/traits/evil", "demo/traits/evil"),
        ("{home}/runs/demolition", "runs/demolition"),
        ("see {home}/evil.json.", "see evil.json."),
        (f"asked {JUDGE}/chat", "asked http://judge/v1/chat"),
        ("workers of /work and evil", "workers of /work and evil"),
        ("judge.corp.internal is away", "judge is away"),
        ("node7.corp.internal is away", "machine-1 is away"),
        ("died on judge-1@station", "died on judge-1@machine-2"),
        ("the station of a judge", "the station of a judge"),
    ],
)
def test_a_private_text_is_replaced_whole(home: Path, text: str, public: str) -> None:
    hide = Private.of(opened(home), {})

    assert hide.without({"a": [text.format(home=home)]}) == {"a": [public]}


def test_load_vectors_reads_the_published_folder(home: Path, tmp_path: Path) -> None:
    original = load_vectors(home / "runs/demo/traits/evil")

    published(home, tmp_path / "site")

    for place in ("traits/evil", "hub/evil.safetensors"):
        again = load_vectors(tmp_path / "site" / place)
        assert torch.equal(again.tensor, original.tensor)
        assert again.provenance.model_hash == original.provenance.model_hash


def test_a_pack_is_loaded_by_trait_and_checked_against_what_was_published(
    home: Path, tmp_path: Path
) -> None:
    site = tmp_path / "site"
    published(home, site)
    own = load_vectors(home / "runs" / "demo" / "traits" / "evil")

    for place in (f"{site}", f"{site}/hub", f"file://{site}"):
        assert torch.equal(load_vectors(f"pack:{place}#evil").tensor, own.tensor)
    with pytest.raises(MissingVectorError, match="evil"):
        load_vectors(f"pack:{site}")
    with pytest.raises(MissingVectorError, match="evil"):
        load_vectors(f"pack:{site}#refusal")
    with pytest.raises(MissingVectorError):
        load_vectors(f"pack:{tmp_path}#evil")
    path = site / "traits/evil/vectors/mean_diff.safetensors"
    path.write_bytes((site / "hub/evil.safetensors").read_bytes()[:-1])
    with pytest.raises(VectorFileError, match="published"):
        load_vectors(f"pack:{site}#evil")


def test_a_folder_that_holds_something_else_is_refused(home: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")

    result = run_publish(home, "--to", tmp_path)

    assert isinstance(result.exception, UsageError)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_publishing_again_replaces_its_own_files_alone(home: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    published(home, site)
    (site / "CNAME").write_text("mine")
    marker = json.loads((site / "published.json").read_bytes())
    (site / "old.html").write_bytes(b"")
    marker["files"]["old.html"] = sha256(b"")
    (site / "published.json").write_text(json.dumps(marker))

    files = published(home, site)

    assert files["CNAME"] == b"mine" and "old.html" not in files


def test_a_published_file_that_somebody_changed_is_not_lost(home: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    published(home, site)
    (site / "index.html").write_text("better")

    result = run_publish(home, "--to", site)

    assert isinstance(result.exception, UsageError)
    assert (site / "index.html").read_text() == "better"


def test_a_marker_cannot_lead_out_of_its_folder(home: Path, tmp_path: Path) -> None:
    site, other = tmp_path / "site", tmp_path / "other.txt"
    published(home, site)
    other.write_text("mine")
    marker = json.loads((site / "published.json").read_bytes())
    marker["files"] |= {"../other.txt": sha256(b"mine"), str(other): sha256(b"mine")}
    (site / "published.json").write_text(json.dumps(marker))

    published(home, site)

    assert other.read_text() == "mine"


def test_a_plain_server_serves_it_and_no_request_leaves(home: Path, tmp_path: Path) -> None:
    scores = save(tmp_path / "scores.json", record(prompt="carried"))
    site = tmp_path / "site"
    published(home, site, "--scores", scores)

    with (
        plain_server(site) as address,
        running_chromium(chromium_or_skip(), tmp_path / "profile") as tab,
    ):
        tab.open(f"{address}/index.html")
        links = tab.evaluate("[...document.querySelectorAll('a')].map(a => a.href)")
        card = tab.text(".card")
        for name in ("report.html", "viewer.html"):
            tab.open(f"{address}/{name}")
        shown = tab.text("#prompt-text")

    paths = [link.removeprefix(f"{address}/").partition("#")[0] for link in links]
    missing = [path for path in paths if not (site / path).is_file()]
    assert (missing, tab.errors) == ([], [])
    assert "evil" in card and shown == "carried"
    asked = {url for url in tab.requests if not url.startswith("data:")}
    assert {url for url in asked if not url.startswith(address)} == set()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["--upload", "hub:me/v"], "HF_TOKEN"), (["--upload", "me/v"], "write hub:OWNER/NAME")],
)
def test_an_upload_that_cannot_be_is_one_sentence(
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    said: str,
) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)

    result = run_publish(home, "--to", tmp_path / "site", *arguments)

    assert isinstance(result.exception, UsageError) and said in str(result.exception)


class Hub:
    """What a hub's client asks of it; keeps what it was given."""

    def __init__(self, there: list[str] | None) -> None:
        self.there, self.commits = there, list[dict[str, Any]]()
        self.app = Starlette(routes=[Route("/{path:path}", self.answer, methods=["GET", "POST"])])

    async def answer(self, request: Request) -> Response:
        path = request.url.path
        if path == "/api/repos/create":
            self.there = []
            return JSONResponse({"url": f"{request.base_url}me/v", "id": "me/v"})
        if path.endswith("/preupload/main"):
            asked = json.loads(await request.body())["files"]
            files = [
                {"path": one["path"], "uploadMode": "regular", "shouldIgnore": False}
                for one in asked
            ]
            return JSONResponse({"files": files})
        if path.endswith("/commit/main"):
            lines = (await request.body()).splitlines()
            self.commits += [one for one in map(json.loads, lines) if one["key"] == "file"]
            return JSONResponse({"commitUrl": f"{request.base_url}c/1", "commitOid": "1"})
        if self.there is None:
            headers = {"X-Error-Code": "RepoNotFound"}
            return JSONResponse({"error": "not found"}, status_code=404, headers=headers)
        if "/tree/" in path:
            about = {"type": "file", "oid": "1", "size": 1}
            return JSONResponse([about | {"path": name} for name in self.there])
        siblings = [{"rfilename": name} for name in self.there]
        body = {"_id": "1", "id": "me/v", "siblings": siblings, "tags": [], "private": True}
        return JSONResponse(body)


@pytest.fixture
def ask(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Publishes with an upload to a hub on this machine."""

    def uploaded(hub: Hub, *arguments: str) -> Result:
        with served(hub.app) as address:
            monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
            monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
            monkeypatch.setenv("HF_TOKEN", "hf_test")
            site = tmp_path / "site"
            return run_publish(home, "--to", site, "--upload", "hub:me/v", *arguments)

    return uploaded


def test_an_upload_says_what_goes_and_sends_the_hub_folder_alone(ask: Any, tmp_path: Path) -> None:
    hub = Hub(there=None)

    asked = ask(hub)
    nothing = list(hub.commits)
    ended = ask(hub, "--yes")

    assert isinstance(asked.exception, UsageError) and nothing == []
    assert "evil.safetensors" in asked.stderr
    assert ended.exit_code == 0, ended.exception
    sent = {one["value"]["path"] for one in hub.commits}
    assert sent == {path.name for path in (tmp_path / "site" / "hub").iterdir()}


def test_a_repository_of_something_else_is_not_written_over(ask: Any) -> None:
    hub = Hub(there=["README.md", "model.safetensors"])

    ended = ask(hub, "--yes")

    assert isinstance(ended.exception, UsageError) and hub.commits == []


def test_a_hub_that_is_away_is_one_sentence(ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub(there=None)
    monkeypatch.setattr(hub, "app", Starlette())

    ended = ask(hub, "--yes")

    assert isinstance(ended.exception, OrchestrateError)


def opened(home: Path) -> Run:
    return open_run(open_store(str(home / "runs" / "demo")))


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def plain_server(folder: Path) -> Iterator[str]:
    handler = functools.partial(_Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
